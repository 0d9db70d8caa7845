// What this machine has, asked in the ways in which a run will.
#include "tools/doctor.h"

#include "pipeline/reader.h"
#include "trainer/comm/comm.h"
#include "trainer/device/device.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#define GROUP_PATH 512 // of a control group

// --- processor and memory ------------------------------------------------------------------------

// Copies what follows "NAME ... : " in the first line of a file that begins with NAME.
static bool find_line(const char *path, const char *name, char *value, size_t capacity)
{
    char line[512];
    bool found = false;
    FILE *file = fopen(path, "r");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (colon != NULL && strncmp(line, name, strlen(name)) == 0) {
            colon += 1 + strspn(colon + 1, " \t");
            snprintf(value, capacity, "%.*s", (int)strcspn(colon, "\n"), colon);
            found = true;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

static void ask_processor(struct doctor_machine *machine)
{
    cpu_set_t allowed;
    struct utsname names;
    if (!find_line("/proc/cpuinfo", "model name", machine->processor, sizeof machine->processor)) {
        snprintf(machine->processor, sizeof machine->processor, "%s",
                 uname(&names) == 0 ? names.machine : "unknown");
    }
    if (getloadavg(&machine->load, 1) != 1) {
        machine->load = -1;
    }
    machine->cores = sysconf(_SC_NPROCESSORS_ONLN);
    machine->cores_allowed = sched_getaffinity(0, sizeof allowed, &allowed) == 0
                                 ? CPU_COUNT(&allowed)
                                 : (int)machine->cores;
}

static uint64_t kibibytes(const char *name)
{
    char value[64];
    return find_line("/proc/meminfo", name, value, sizeof value) ? strtoull(value, NULL, 10) << 10
                                                                 : 0;
}

// The first line of a file of a control group; false where there is none.
static bool read_group(const char *group, const char *name, char *text, int capacity)
{
    char path[GROUP_PATH + 64];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", group, name);
    FILE *file = fopen(path, "r");
    bool read = file != NULL && fgets(text, capacity, file) != NULL;
    if (file != NULL) {
        fclose(file);
    }
    return read;
}

// "max" instead of a number is no limit, and reads as 0.
static void ask_group(struct doctor_machine *machine, const char *group)
{
    char text[64], used[64];
    double quota, period;
    if (read_group(group, "cpu.max", text, sizeof text) &&
        sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0 &&
        (machine->cores_quota <= 0 || quota / period < machine->cores_quota)) {
        machine->cores_quota = quota / period;
    }
    uint64_t limit =
        read_group(group, "memory.max", text, sizeof text) ? strtoull(text, NULL, 10) : 0;
    if (limit > 0 && limit < machine->memory) {
        uint64_t taken =
            read_group(group, "memory.current", used, sizeof used) ? strtoull(used, NULL, 10) : 0;
        uint64_t rest = taken < limit ? limit - taken : 0;
        machine->memory = limit;
        machine->memory_free = rest < machine->memory_free ? rest : machine->memory_free;
    }
}

// A container sees its own group as the root; elsewhere it is below, as a batch system's is, and
// the limits of all groups above hold too.
static void ask_groups(struct doctor_machine *machine)
{
    char line[GROUP_PATH] = "", *group = line;
    if (find_line("/proc/self/cgroup", "0::", line, sizeof line)) {
        group += line[0] == ':';
    }
    ask_group(machine, "");
    for (char *slash = strrchr(group, '/'); slash != NULL; slash = strrchr(group, '/')) {
        if (slash[1] != 0) {
            ask_group(machine, group);
        }
        *slash = 0;
    }
}

static void ask_memory(struct doctor_machine *machine)
{
    struct sysinfo info;
    machine->memory = kibibytes("MemTotal");
    machine->memory_free = kibibytes("MemAvailable");
    if (machine->memory == 0 && sysinfo(&info) == 0) { // without /proc; does not count caches
        machine->memory = (uint64_t)info.totalram * info.mem_unit;
        machine->memory_free = (uint64_t)info.freeram * info.mem_unit;
    }
}

// --- parts ---------------------------------------------------------------------------------------

static void unusable(struct doctor_part *part, const struct error *error)
{
    part->usable = false;
    error_text(error, part->words, sizeof part->words);
}

static void ask_uring(struct doctor_part *part)
{
    struct error error;
    struct reader reader;
    int fd = memfd_create("doctor", MFD_CLOEXEC);
    uint8_t *memory = aligned_alloc(4096, 4096);
    const struct reader_setup setup = {
        .fds = &fd, .files = 1, .memory = memory, .bytes = 4096, .depth = 1};
    if (fd < 0 || memory == NULL) {
        snprintf(part->words, sizeof part->words, "could not be tried");
    } else if (reader_open(&reader, &setup, LOADER_IO_URING, &error) == STATUS_OK) {
        part->usable = true;
        struct utsname names = {0};
        uname(&names);
        snprintf(part->words, sizeof part->words, "yes, Linux %s", names.release);
        reader_drain(&reader);
        reader_close(&reader);
    } else {
        unusable(part, &error);
    }
    free(memory);
    if (fd >= 0) {
        close(fd);
    }
}

static void ask_mpi(struct doctor_part *part)
{
    const char *library;
    struct error error;
    if (comm_usable(&library, &error) == STATUS_OK) {
        part->usable = true;
        snprintf(part->words, sizeof part->words, "%s", library);
    } else {
        unusable(part, &error);
    }
}

static void ask_device(struct doctor_device *out, const char *name)
{
    struct device *device;
    struct error error;
    out->name = name;
    if (device_open(&device, name, 0, DEVICE_AUTO, &error) == STATUS_OK) {
        out->part.usable = true;
        device->ops->describe(device, out->part.words, sizeof out->part.words);
    } else {
        unusable(&out->part, &error);
    }
    device_close(&device);
}

void doctor_machine(struct doctor_machine *machine)
{
    *machine = (struct doctor_machine){0};
    ask_processor(machine);
    ask_memory(machine);
    ask_groups(machine);
    ask_uring(&machine->uring);
    ask_mpi(&machine->mpi);
    // Also where it was not built in, to say so. `ref` is for tests.
    ask_device(&machine->device[machine->devices++], "cpu");
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        if (strcmp((*ops)->name, "cpu") != 0 && strcmp((*ops)->name, "ref") != 0 &&
            machine->devices < DOCTOR_DEVICES) {
            ask_device(&machine->device[machine->devices++], (*ops)->name);
        }
    }
}
