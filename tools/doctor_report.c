// What `byol doctor` found, as text and as JSON.
#include "tools/doctor.h"

#include "formats/isa.h"
#include "tools/json_text.h"
#include "tools/version.h"

#include <jansson.h>
#include <jpeglib.h>
#if HAVE_URING
#include <liburing.h>
#endif
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>

#define GB   1e9
#define WIDE 62 // columns after a name

#define TEXT_OF_(x) #x
#define TEXT_OF(x)  TEXT_OF_(x)
#ifdef LIBJPEG_TURBO_VERSION
#define JPEG_VERSION "libjpeg-turbo " TEXT_OF(LIBJPEG_TURBO_VERSION)
#else
#define JPEG_VERSION "libjpeg " TEXT_OF(JPEG_LIB_VERSION)
#endif

// Before 2.4 it does not say.
#if HAVE_URING && defined(IO_URING_VERSION_MAJOR)
#define URING_VERSION                                                                              \
    ", liburing " TEXT_OF(IO_URING_VERSION_MAJOR) "." TEXT_OF(IO_URING_VERSION_MINOR)
#else
#define URING_VERSION ""
#endif

// --- text ----------------------------------------------------------------------------------------

// "  NAME          words", broken between words where a line would be longer than 80 columns.
static void print_row(const char *name, const char *words)
{
    size_t len = strlen(words);
    while (len > WIDE) {
        size_t end = WIDE;
        while (end > 0 && words[end] != ' ') {
            end--;
        }
        end = end > 0 ? end : WIDE;
        printf("  %-13s %.*s\n", name, (int)end, words);
        words += end + (words[end] == ' ');
        len = strlen(words);
        name = "";
    }
    printf("  %-13s %s\n", name, words);
}

static void print_part(const char *name, const struct doctor_part *part)
{
    char words[DOCTOR_WORDS + 8];
    snprintf(words, sizeof words, "%s%s", part->usable ? "" : "no: ", part->words);
    print_row(name, words);
}

static void print_cores(const struct doctor_machine *machine)
{
    char words[256], quota[64] = "";
    if (machine->cores_quota > 0) {
        snprintf(quota, sizeof quota, ", the time of %.1f", machine->cores_quota);
    }
    snprintf(words, sizeof words, "%s, %ld cores, %d for us%s", machine->processor, machine->cores,
             machine->cores_allowed, quota);
    print_row("processor", words);
}

static const char *isa_words(enum isa isa)
{
    static const char *const words[] = {"v2 (SSE4.2)", "v3 (AVX2)", "v4 (AVX-512)"};
    return strcmp(isa_name(ISA_BASE), "v2") == 0 ? words[isa] : isa_name(isa);
}

static void print_machine(const struct doctor_machine *machine)
{
    char words[256];
    printf("byol " BYOL_VERSION " on this machine\n");
    print_cores(machine);
    print_row("instructions", isa_words(isa_chosen()));
    snprintf(words, sizeof words, "%.1f GB, %.1f GB of it free", (double)machine->memory / GB,
             (double)machine->memory_free / GB);
    print_row("memory", words);
    print_part("io_uring", &machine->uring);
    for (size_t i = 0; i < machine->devices; i++) {
        char name[32];
        snprintf(name, sizeof name, "device %s", machine->device[i].name);
        print_part(name, &machine->device[i].part);
    }
    print_part("MPI", &machine->mpi);
    snprintf(
        words, sizeof words, "zstd %s, LMDB %s, " JPEG_VERSION URING_VERSION, ZSTD_versionString(),
        TEXT_OF(MDB_VERSION_MAJOR) "." TEXT_OF(MDB_VERSION_MINOR) "." TEXT_OF(MDB_VERSION_PATCH));
    print_row("libraries", words);
}

static void print_disk(const struct doctor_disk *disk)
{
    char words[DOCTOR_WORDS + 128];
    if (!disk->part.usable) {
        snprintf(words, sizeof words, "not measured: %s", disk->part.words);
    } else {
        snprintf(words, sizeof words, "%.0f MB/s at random, %u KiB a read%s, in %s",
                 disk->bytes_per_second / 1e6, disk->piece >> 10,
                 disk->direct ? "" : " (partly from memory)", disk->part.words);
    }
    print_row("disk", words);
}

static void print_stage(const struct doctor_run *run, enum doctor_stage stage)
{
    char rate[32];
    const char *note = "";
    snprintf(rate, sizeof rate, run->rate[stage] < 100 ? "%.1f" : "%.0f", run->rate[stage]);
    if (stage == run->limit) {
        note = "   <- the limit";
    } else if (stage == DOCTOR_DISK && run->cached) {
        note = "   in the first pass; later ones read memory";
    }
    printf("  %-10s %12s%s\n", doctor_stage_names[stage], run->rate[stage] > 0 ? rate : "?", note);
}

static bool is_cuda(const struct doctor_run *run)
{
    return strcmp(run->config.device, "cuda") == 0;
}

static void advise_step(const struct doctor_run *run, char *text, size_t capacity)
{
    snprintf(text, capacity, "The network is the limit: faster loading would gain nothing. %s",
             is_cuda(run) ? "A smaller encoder or smaller views (--set views.size=N) would."
                          : "A GPU (--set device=cuda), a smaller encoder or smaller views (--set "
                            "views.size=N) would.");
}

static void advise(const struct doctor_run *run, char *text, size_t capacity)
{
    int size = (int)run->config.recipe.size;
    switch (run->limit) {
    case DOCTOR_DISK:
        snprintf(text, capacity,
                 "The disk is the limit: a faster one, or smaller images ('byol convert --resize "
                 "short=%d', not exact) would help.",
                 size * 8 / 7);
        break;
    case DOCTOR_DECODE:
        if (run->recoded < 0.5) {
            snprintf(text, capacity,
                     "Decoding is the limit: 'byol convert --recode' stores JPEGs so that they "
                     "decode several times as fast to the same pixels.");
        } else {
            snprintf(text, capacity,
                     "Decoding is the limit: more cores, or smaller images ('byol convert "
                     "--resize short=%d', not exact) would help.",
                     size * 8 / 7);
        }
        break;
    case DOCTOR_AUGMENT:
        snprintf(text, capacity, "Drawing views is the limit: more cores%s would help.",
                 is_cuda(run) && run->config.augment == RUN_AUGMENT_HOST
                     ? ", or the GPU (--set augment=device)"
                     : "");
        break;
    default:
        advise_step(run, text, capacity);
    }
}

// Whole words within 80 columns.
static void print_wrapped(const char *text)
{
    size_t column = 0;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > 0 && column + 1 + word > 79) {
            putchar('\n');
            column = 0;
        }
        column += (size_t)printf("%s%.*s", column > 0 ? " " : "", (int)word, text);
        text += word + (text[word] == ' ');
    }
    putchar('\n');
}

// What other work takes is missing in every rate.
static void print_load(const struct doctor_machine *machine)
{
    char text[160];
    if (machine->load > 0.5 * (double)machine->cores) {
        snprintf(text, sizeof text,
                 "Other work runs here (load %.1f on %ld cores): rates are of what it leaves.",
                 machine->load, machine->cores);
        print_wrapped(text);
    }
}

static void print_memory(const struct doctor_machine *machine, const struct doctor_run *run)
{
    const struct run_config *config = &run->config;
    bool tight = !is_cuda(run) && run->step_memory > machine->memory_free;
    char text[256];
    snprintf(text, sizeof text, "A batch of %d needs about %.1f GB on device '%s'%s",
             (int)config->batch, (double)run->step_memory / GB, config->device,
             tight ? ", more than is free: --set accumulate=N or recompute=true cut it." : ".");
    print_wrapped(text);
}

static const char *encoder_name(const struct doctor_run *run, char *name, size_t capacity)
{
    const char *at = MODEL_ENCODER_CHOICES;
    for (int i = 0; i < run->config.model.encoder; i++) {
        at += strcspn(at, "|") + 1;
    }
    snprintf(name, capacity, "%.*s", (int)strcspn(at, "|"), at);
    return name;
}

static void print_run(const struct doctor_machine *machine, const struct doctor_run *run)
{
    char text[512], name[32], width[32] = "";
    if (run->config.model.width != 1) {
        snprintf(width, sizeof width, " of width %g", run->config.model.width);
    }
    putchar('\n');
    snprintf(text, sizeof text,
             "On %s images a run of %s%s at %d pixels, batch %d, recipe %s, device %s:",
             run->made_up ? "made-up" : "these", encoder_name(run, name, sizeof name), width,
             (int)run->config.recipe.size, (int)run->config.batch, run->config.recipe.name,
             run->config.device);
    print_wrapped(text);
    printf("  %-10s %12s\n", "stage", "pairs/s");
    for (int stage = 0; stage < DOCTOR_STAGES; stage++) {
        print_stage(run, (enum doctor_stage)stage);
    }
    printf("  %-10s %12.*f   %s\n", "all", run->together < 100 ? 1 : 0, run->together,
           run->shared ? "stages share the cores" : "the device works beside the loader");
    advise(run, text, sizeof text);
    print_wrapped(text);
    print_memory(machine, run);
    print_load(machine);
}

void doctor_print_text(const struct doctor_machine *machine, const struct doctor_disk *disk,
                       const struct doctor_run *run)
{
    print_machine(machine);
    if (disk->part.words[0] != 0) { // it came so far
        print_disk(disk);
    }
    if (run != NULL) {
        print_run(machine, run);
    }
}

// --- JSON ----------------------------------------------------------------------------------------

static json_t *json_part(const struct doctor_part *part)
{
    return json_pack("{s:b, s:o}", "usable", part->usable, "about", json_text(part->words));
}

static json_t *json_machine(const struct doctor_machine *machine)
{
    json_t *devices = json_object();
    for (size_t i = 0; i < machine->devices; i++) {
        json_object_set_new(devices, machine->device[i].name, json_part(&machine->device[i].part));
    }
    return json_pack(
        "{s:o, s:I, s:i, s:o, s:o, s:s, s:I, s:I, s:o, s:o, s:o, s:{s:s, s:s, s:s}}", "processor",
        json_text(machine->processor), "cores", (json_int_t)machine->cores, "cores_allowed",
        machine->cores_allowed, "cores_quota",
        machine->cores_quota > 0 ? json_real(machine->cores_quota) : json_null(), "load",
        machine->load >= 0 ? json_real(machine->load) : json_null(), "instructions",
        isa_name(isa_chosen()), "memory_bytes", (json_int_t)machine->memory, "memory_free_bytes",
        (json_int_t)machine->memory_free, "io_uring", json_part(&machine->uring), "mpi",
        json_part(&machine->mpi), "devices", devices, "libraries", "zstd", ZSTD_versionString(),
        "lmdb", mdb_version(NULL, NULL, NULL), "jpeg", JPEG_VERSION);
}

static json_t *json_rate(double rate)
{
    return rate > 0 ? json_real(rate) : json_null();
}

static json_t *json_run(const struct doctor_run *run)
{
    char advice[512], name[32];
    const struct run_config *config = &run->config;
    json_t *stages = json_object();
    for (int stage = 0; stage < DOCTOR_STAGES; stage++) {
        json_object_set_new(stages, doctor_stage_names[stage], json_rate(run->rate[stage]));
    }
    advise(run, advice, sizeof advice);
    json_t *result = json_pack(
        "{s:s, s:f, s:i, s:s, s:s, s:I}", "encoder", encoder_name(run, name, sizeof name), "width",
        (double)config->model.width, "size", (int)config->recipe.size, "recipe",
        config->recipe.name, "device", config->device, "batch", (json_int_t)config->batch);
    json_object_update_new(result, json_pack("{s:o, s:o, s:o, s:s, s:s, s:b, s:b, s:i, s:I}",
                                             "stages", stages, "loader", json_rate(run->loader),
                                             "together", json_rate(run->together), "limit",
                                             doctor_stage_names[run->limit], "advice", advice,
                                             "made_up", run->made_up, "disk_in_first_pass_only",
                                             run->cached, "step_batch", (int)run->step_batch,
                                             "device_memory_bytes", (json_int_t)run->step_memory));
    return result;
}

void doctor_print_json(const struct doctor_machine *machine, const struct doctor_disk *disk,
                       const struct doctor_run *run)
{
    json_t *result = json_pack("{s:s, s:o, s:{s:o, s:o, s:b, s:i}, s:o}", "version", BYOL_VERSION,
                               "machine", json_machine(machine), "disk", "bytes_per_second",
                               json_rate(disk->bytes_per_second), "about",
                               json_text(disk->part.words), "direct", disk->direct, "read_bytes",
                               (int)disk->piece, "run", run ? json_run(run) : json_null());
    json_dumpf(result, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(result);
}
