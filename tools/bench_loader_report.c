// What `byol bench loader` prints.
#include "tools/bench_loader.h"
#include "tools/json_text.h"
#include "tools/measure.h"
#include "tools/not_exact.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define SKIPS_SHOWN 20

static double per_second(const struct loader_bench *bench, double count)
{
    return bench->seconds > 0 ? count / bench->seconds : 0;
}

// Bytes of float32 pixels handed over.
static double view_bytes(const struct loader_bench *bench)
{
    const struct recipe *recipe = &bench->config.recipe;
    double floats = 3.0 * (double)recipe->size * (double)recipe->size * (double)recipe->views;
    return (double)bench->counters.records * floats * sizeof(float);
}

static const char *io_name(const struct loader_bench *bench)
{
    return bench->io_used == LOADER_IO_URING ? "uring" : "pread";
}

// --- shares of the workers' time -----------------------------------------------------------------

enum { READ_WAIT, UNPACK, DECODE, AUGMENT, SLOT_WAIT, OTHER, STAGES };
static const char *const stage_names[STAGES] = {"read_wait", "unpack",    "decode",
                                                "augment",   "slot_wait", "other"};
static const char *const stage_titles[STAGES] = {
    "waiting for reads", "unpack and checksum", "decode", "render", "waiting for a slot", "other"};

static void find_shares(const struct loader_bench *bench, double *share)
{
    const struct loader_counters *counters = &bench->counters;
    const double seconds[STAGES] = {counters->read_wait, counters->unpack,    counters->decode,
                                    counters->augment,   counters->slot_wait, 0};
    double all = bench->seconds * bench->workers_used;
    share[OTHER] = 1;
    for (int i = 0; i < OTHER; i++) {
        share[i] = all > 0 ? seconds[i] / all : 0;
        share[OTHER] -= share[i];
    }
    // Work on batches that were made before the window began or that are delivered after it.
    share[OTHER] = share[OTHER] > 0 ? share[OTHER] : 0;
}

// --- text ----------------------------------------------------------------------------------------

void loader_bench_print_skips(const struct loader_bench *bench)
{
    for (size_t i = 0; i < bench->skip_count && i < SKIPS_SHOWN; i++) {
        char text[1200];
        fprintf(stderr, "skipped: %s\n", error_text(&bench->skips[i].error, text, sizeof text));
    }
    if (bench->skip_count > SKIPS_SHOWN) {
        fprintf(stderr, "skipped: and %zu more\n", bench->skip_count - SKIPS_SHOWN);
    }
}

// " (median of 5, 401.2 to 420.3)"; nothing for a single value. The values are sorted.
static void print_spread(const struct bench_samples *samples)
{
    if (samples->count > 1) {
        printf(" (median of %zu, %.1f to %.1f)", samples->count, samples->value[0],
               samples->value[samples->count - 1]);
    }
}

static void print_floor(struct loader_bench *bench, double rate)
{
    double floor = measure_median(bench->floors.value, bench->floors.count);
    if (floor > 0) {
        printf("floor            %.1f images/s", floor);
        print_spread(&bench->floors);
        printf(": libjpeg-turbo decoding alone, %" PRIu32 " threads\n", bench->workers_used);
        printf("of the floor     %.1f %%\n", 100 * rate / floor);
    } else if (!bench->no_floor) {
        printf("floor            none: no record is a JPEG file\n");
    }
}

static void print_reads(const struct loader_bench *bench)
{
    const struct loader_counters *counters = &bench->counters;
    printf("from files       %.1f MB in %" PRIu64 " reads by %" PRIu64 " system calls%s\n",
           (double)counters->read_bytes / 1e6, counters->reads, counters->read_calls,
           !bench->direct       ? ""
           : bench->direct_used ? ", past the page cache"
                                : "; not past the page cache, which the file system refuses");
    printf("records          %" PRIu64 " shared another's read, %" PRIu64 " were in memory\n",
           counters->shared, counters->kept);
}

static void print_speed(struct loader_bench *bench)
{
    const struct loader_counters *counters = &bench->counters;
    double rate = measure_median(bench->rates.value, bench->rates.count);
    printf("pairs            %" PRIu64 " in %.2f s\n", counters->records, bench->seconds);
    printf("pairs/s          %.1f", rate);
    print_spread(&bench->rates);
    printf("\n");
    printf("read             %.1f MB, %.1f MB/s, %s\n", (double)counters->bytes / 1e6,
           per_second(bench, (double)counters->bytes) / 1e6, io_name(bench));
    print_reads(bench);
    printf("produced         %.1f MB/s of float32 pixels\n",
           per_second(bench, view_bytes(bench)) / 1e6);
    print_floor(bench, rate);
}

static void print_stages(const struct loader_bench *bench)
{
    double share[STAGES];
    find_shares(bench, share);
    printf("workers' time    %" PRIu32 " workers\n", bench->workers_used);
    for (int i = 0; i < STAGES; i++) {
        printf("  %-19s  %5.1f %%\n", stage_titles[i], 100 * share[i]);
    }
    printf("consumer waited  %.2f s\n", bench->counters.consumer_wait);
}

void loader_bench_print_text(struct loader_bench *bench)
{
    print_speed(bench);
    print_stages(bench);
    printf("memory           %.1f MiB planned, %.1f MiB at the peak\n",
           (double)bench->planned_memory / (1 << 20), (double)bench->peak_memory / (1 << 20));
    printf("skipped          %zu\n", bench->skip_count);
    printf("next position    %" PRIu32 ":%" PRIu64 "\n", bench->position.epoch,
           bench->position.batch);
    if (bench->hash) {
        printf("hash             %016" PRIx64 "\n", bench->state);
    }
}

// --- JSON ----------------------------------------------------------------------------------------

static json_t *skipped_records(const struct loader_bench *bench)
{
    json_t *list = json_array();
    for (size_t i = 0; i < bench->skip_count; i++) {
        json_array_append_new(list, json_integer((json_int_t)bench->skips[i].record));
    }
    return list;
}

static json_t *numbers(const struct bench_samples *samples)
{
    json_t *list = json_array();
    for (size_t i = 0; i < samples->count; i++) {
        json_array_append_new(list, json_real(samples->value[i]));
    }
    return list;
}

static json_t *shares(const struct loader_bench *bench)
{
    double share[STAGES];
    find_shares(bench, share);
    json_t *object = json_object();
    for (int i = 0; i < STAGES; i++) {
        json_object_set_new(object, stage_names[i], json_real(share[i]));
    }
    return object;
}

// `null` where it was not asked for or the dataset has no JPEG files.
static json_t *describe_floor(struct loader_bench *bench, double rate)
{
    double floor = measure_median(bench->floors.value, bench->floors.count);
    if (!(floor > 0)) {
        return json_null();
    }
    return json_pack("{s:f, s:f, s:I, s:o}", "images_per_second", floor, "ratio", rate / floor,
                     "threads", (json_int_t)bench->workers_used, "samples",
                     numbers(&bench->floors));
}

static json_t *describe_settings(const struct loader_bench *bench)
{
    const struct loader_config *config = &bench->config;
    return json_pack("{s:o, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:b}", "dataset",
                     json_text(bench->directory), "not_exact", not_exact_json(bench->dataset),
                     "recipe", bench->recipe, "size", (json_int_t)config->recipe.size, "batch",
                     (json_int_t)config->batch, "workers", (json_int_t)bench->workers_used, "depth",
                     (json_int_t)config->depth, "slots", (json_int_t)config->slots, "layout",
                     bench->layout, "normalise", bench->normalise, "cold", bench->cold);
}

static json_t *describe_work(const struct loader_bench *bench)
{
    const struct loader_counters *counters = &bench->counters;
    return json_pack("{s:{s:f, s:f, s:f}, s:{s:f, s:f, s:f}, s:o}", "waits", "read",
                     counters->read_wait, "slot", counters->slot_wait, "consumer",
                     counters->consumer_wait, "work", "unpack", counters->unpack, "decode",
                     counters->decode, "augment", counters->augment, "shares", shares(bench));
}

static json_t *describe_speed(struct loader_bench *bench)
{
    const struct loader_counters *counters = &bench->counters;
    double rate = measure_median(bench->rates.value, bench->rates.count);
    return json_pack("{s:f, s:o, s:f, s:I, s:I, s:I, s:f, s:f, s:s, s:o}", "pairs_per_second", rate,
                     "windows", numbers(&bench->rates), "seconds", bench->seconds, "pairs",
                     (json_int_t)counters->records, "batches", (json_int_t)counters->batches,
                     "bytes_read", (json_int_t)counters->bytes, "megabytes_per_second",
                     per_second(bench, (double)counters->bytes) / 1e6, "view_megabytes_per_second",
                     per_second(bench, view_bytes(bench)) / 1e6, "io", io_name(bench), "floor",
                     describe_floor(bench, rate));
}

static json_t *describe_reads(const struct loader_bench *bench)
{
    const struct loader_counters *counters = &bench->counters;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "reads", (json_int_t)counters->reads,
                     "bytes", (json_int_t)counters->read_bytes, "system_calls",
                     (json_int_t)counters->read_calls, "shared", (json_int_t)counters->shared,
                     "kept", (json_int_t)counters->kept, "ahead", (json_int_t)counters->ahead,
                     "direct", bench->direct_used);
}

static json_t *describe_end(const struct loader_bench *bench)
{
    char position[48];
    snprintf(position, sizeof position, "%" PRIu32 ":%" PRIu64, bench->position.epoch,
             bench->position.batch);
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:s}", "peak_memory_bytes",
                     (json_int_t)bench->peak_memory, "pss_bytes", (json_int_t)bench->shared_memory,
                     "loader_memory_bytes", (json_int_t)bench->planned_memory, "skips",
                     (json_int_t)bench->skip_count, "skipped_records", skipped_records(bench),
                     "next_position", position);
}

static void join(json_t *result, json_t *part)
{
    json_object_update(result, part);
    json_decref(part);
}

void loader_bench_print_json(struct loader_bench *bench)
{
    json_t *result = describe_speed(bench);
    join(result, describe_work(bench));
    join(result, describe_end(bench));
    json_object_set_new(result, "files", describe_reads(bench));
    json_object_set_new(result, "settings", describe_settings(bench));
    if (bench->hash) {
        char hash[17];
        snprintf(hash, sizeof hash, "%016" PRIx64, bench->state);
        json_object_set_new(result, "hash", json_string(hash));
    }
    json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(result);
}
