// Memory that device and host share: copies are plain copies and nothing is ever queued.
#include "trainer/device/host.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/memory.h"

#define CHECKED_BYTES ((size_t)64 << 20) // smaller blocks are not worth a look at the system
#define GIB           1073741824.0

// A number that follows `key` in a small file of the system. UINT64_MAX when it does not say.
static uint64_t system_number(const char *path, const char *key)
{
    char line[128];
    uint64_t number = UINT64_MAX;
    FILE *file = fopen(path, "r");
    while (file && number == UINT64_MAX && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            sscanf(line + strlen(key), "%" SCNu64, &number);
        }
    }
    if (file) {
        fclose(file);
    }
    return number;
}

// What can still be filled without swapping or being killed.
static uint64_t memory_left(void)
{
    uint64_t machine = system_number("/proc/meminfo", "MemAvailable:"); // KiB
    uint64_t group = system_number("/sys/fs/cgroup/memory.max", "");
    machine = machine > UINT64_MAX >> 10 ? UINT64_MAX : machine << 10;
    return machine < group ? machine : group;
}

// Filled at once: a block that does not fit is refused here, instead of killing the program later.
enum status host_allocate(struct device *device, void **memory, size_t bytes, struct error *error)
{
    (void)device;
    *memory = NULL;
    uint64_t left = bytes < CHECKED_BYTES ? UINT64_MAX : memory_left();
    if (bytes > left) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "%.1f GiB for the device do not fit into the %.1f GiB of memory that are "
                         "left: a smaller batch, accumulate or recompute need less",
                         (double)bytes / GIB, (double)left / GIB);
    }
    *memory = memory_take(bytes == 0 ? 1 : bytes);
    if (*memory == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a device buffer of %zu bytes", bytes);
    }
    memset(*memory, 0, bytes);
    return STATUS_OK;
}

void host_release(struct device *device, void *memory)
{
    (void)device;
    free(memory);
}

enum status host_copy(struct device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memmove(to, from, bytes);
    }
    return STATUS_OK;
}

enum status host_fill_zero(struct device *device, void *memory, size_t bytes)
{
    (void)device;
    if (bytes > 0) {
        memset(memory, 0, bytes);
    }
    return STATUS_OK;
}

enum status host_synchronise(struct device *device)
{
    (void)device;
    return STATUS_OK;
}

enum status host_block_sum_peers(struct device *device, float *block, uint64_t count)
{
    const struct device_peers *peers = device->peers;
    return peers == NULL ? STATUS_OK : peers->sum_block(peers->context, block, count);
}
