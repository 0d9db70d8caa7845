// `byol bench loader`: runs a loader as a trainer would, without the training, and says how fast it
// was, what it waited for, and (with --hash) exactly what it gave.
#include "formats/file.h"
#include "tools/batch_hash.h"
#include "tools/bench.h"
#include "tools/command.h"
#include "tools/progress.h"
#include "tools/recipe_option.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SKIPS_SHOWN 20

static const struct command command = {
    .name = "bench loader",
    .help =
        "Usage: byol bench loader DATASET [options]\n"
        "\n"
        "Streams batches of views from a dataset and measures speed, waits and memory.\n"
        "\n"
        "What is streamed (decides the hash):\n"
        "  --recipe NAME|FILE   views to draw (byol)\n"
        "  --size N             pixels per side (the recipe's)\n"
        "  --batch N            records per batch (64)\n"
        "  --epochs N           passes over the dataset (1)\n"
        "  --seed N             of order and views (0)\n"
        "  --policy fatal|skip  what a bad record does: end the stream, or be replaced and\n"
        "                       listed (fatal)\n"
        "  --max-skips N        bad records that 'skip' puts up with (0: the larger of 16 and\n"
        "                       0.1 % of the dataset)\n"
        "\n"
        "How (never changes the hash):\n"
        "  --workers N          threads that decode and render (0: one per core)\n"
        "  --io auto|uring|pread\n"
        "                       the way of reading (auto: io_uring where the kernel allows it)\n"
        "  --depth N            reads in flight at most (64)\n"
        "  --direct             read past the page cache\n"
        "  --cache MIB          memory for small records that are read once (96)\n"
        "  --slots N            batch buffers (3)\n"
        "\n"
        "Hashing, stopping and going on:\n"
        "  --hash               print a hash over all views, labels and records in order\n"
        "  --stop-after N       stop after N batches\n"
        "  --position-out FILE  write where the stream stands at the end, as the options that\n"
        "                       continue it: --start EPOCH:BATCH --hash-from STATE\n"
        "  --start EPOCH:BATCH  start there (0:0)\n"
        "  --hash-from STATE    continue a hash\n"
        "\n"
        "  --json               print the result as JSON\n"
        "  --quiet              no progress line\n"
        "\n"
        "Example:\n"
        "  byol bench loader train --epochs 2 --hash --stop-after 10 --position-out position\n"
        "  byol bench loader train --epochs 2 --hash $(cat position)   # the hash of both epochs\n"
        "\n"
        "Exit codes: 0 success, 1 failure, 2 wrong usage.\n",
};

struct bench {
    // As given.
    const char *directory, *recipe, *io, *policy, *position_out, *start, *hash_from;
    int64_t epochs, workers, depth, size, batch, seed, slots, max_skips, stop_after, cache;
    bool hash, json, quiet, direct;
    // What follows from it.
    struct loader_config config;
    struct dataset *dataset;
    struct loader *loader;
    struct progress progress;
    // What was measured.
    struct loader_position position; // of the next batch
    uint64_t state;                  // of the hash
    double seconds;
};

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// The largest resident size so far, or 0 where /proc does not tell.
static uint64_t peak_memory(void)
{
    char line[256];
    unsigned long long kibibytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "VmHWM: %llu", &kibibytes) == 1) {
            break;
        }
    }
    if (file) {
        fclose(file);
    }
    return kibibytes * 1024;
}

// --- from options to a config --------------------------------------------------------------------

static int parse(struct bench *bench, int argc, char **argv, bool *done)
{
    *bench = (struct bench){.recipe = "byol",
                            .io = "auto",
                            .policy = "fatal",
                            .start = "0:0",
                            .epochs = 1,
                            .depth = 64,
                            .cache = 96,
                            .batch = 64,
                            .slots = 3,
                            .state = BATCH_HASH_START};
    const struct option options[] = {
        {"recipe", 'r', OPTION_STRING, &bench->recipe, 0, 0},
        {"size", 0, OPTION_INT, &bench->size, RECIPE_MIN_SIZE, RECIPE_MAX_SIZE},
        {"batch", 'b', OPTION_INT, &bench->batch, 1, 65536},
        {"epochs", 'e', OPTION_INT, &bench->epochs, 1, UINT32_MAX},
        {"seed", 0, OPTION_INT, &bench->seed, 0, 9e18},
        {"policy", 0, OPTION_STRING, &bench->policy, 0, 0},
        {"max-skips", 0, OPTION_INT, &bench->max_skips, 0, UINT32_MAX},
        {"workers", 'w', OPTION_INT, &bench->workers, 0, 1024},
        {"io", 0, OPTION_STRING, &bench->io, 0, 0},
        {"depth", 'd', OPTION_INT, &bench->depth, 1, 1024},
        {"direct", 0, OPTION_FLAG, &bench->direct, 0, 0},
        {"cache", 0, OPTION_INT, &bench->cache, 0, 1 << 20},
        {"slots", 0, OPTION_INT, &bench->slots, 2, 1024},
        {"hash", 0, OPTION_FLAG, &bench->hash, 0, 0},
        {"stop-after", 0, OPTION_INT, &bench->stop_after, 1, 9e18},
        {"position-out", 0, OPTION_STRING, &bench->position_out, 0, 0},
        {"start", 0, OPTION_STRING, &bench->start, 0, 0},
        {"hash-from", 0, OPTION_STRING, &bench->hash_from, 0, 0},
        {"json", 0, OPTION_FLAG, &bench->json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &bench->quiet, 0, 0},
    };
    struct option_list operands;
    int code = command_options(&command, argc, argv, options, sizeof options / sizeof options[0],
                               &operands, done);
    if (code != EXIT_OK || *done) {
        return code;
    }
    if (operands.count != 1) {
        return command_misused(&command, "name one dataset");
    }
    bench->directory = operands.item[0];
    return EXIT_OK;
}

static bool only(const char *text, const char *characters)
{
    return text[strspn(text, characters)] == 0;
}

static int parse_start(struct bench *bench)
{
    struct loader_position *start = &bench->config.start;
    int used = 0;
    if (!only(bench->start, "0123456789:") ||
        sscanf(bench->start, "%9" SCNu32 ":%18" SCNu64 "%n", &start->epoch, &start->batch, &used) !=
            2 ||
        bench->start[used] != 0) {
        return command_misused(&command, "--start wants EPOCH:BATCH, not '%s'", bench->start);
    }
    if (bench->hash_from &&
        (!only(bench->hash_from, "0123456789abcdefABCDEF") || strlen(bench->hash_from) > 16 ||
         sscanf(bench->hash_from, "%" SCNx64, &bench->state) != 1)) {
        return command_misused(&command, "--hash-from wants 16 hexadecimal digits, not '%s'",
                               bench->hash_from);
    }
    return EXIT_OK;
}

// Index of `value` in a NULL-terminated list, or -1 after saying so.
static int choose(const char *option, const char *value, const char *const *names)
{
    for (int i = 0; names[i]; i++) {
        if (strcmp(value, names[i]) == 0) {
            return i;
        }
    }
    command_misused(&command, "--%s does not know '%s'", option, value);
    return -1;
}

static int configure(struct bench *bench)
{
    static const char *const ways[] = {"auto", "uring", "pread", NULL};
    static const char *const policies[] = {"fatal", "skip", NULL};
    struct loader_config *config = &bench->config;
    loader_config_init(config);
    int io = choose("io", bench->io, ways), policy = choose("policy", bench->policy, policies);
    if (io < 0 || policy < 0) {
        return EXIT_USAGE;
    }
    config->io = (enum loader_io)io;
    config->policy = (enum loader_policy)policy;
    config->batch = (uint32_t)bench->batch;
    config->seed = (uint64_t)bench->seed;
    config->epochs = (uint32_t)bench->epochs;
    config->workers = (uint32_t)bench->workers;
    config->depth = (uint32_t)bench->depth;
    config->direct = bench->direct;
    config->cache = (uint64_t)bench->cache << 20;
    config->slots = (uint32_t)bench->slots;
    config->max_skips = (uint64_t)bench->max_skips;
    return parse_start(bench);
}

static enum status load_recipe(struct bench *bench, struct error *error)
{
    struct recipe *recipe = &bench->config.recipe;
    enum status status = recipe_option_load(bench->recipe, recipe, error);
    if (status == STATUS_OK && bench->size > 0) {
        recipe->size = bench->size;
    }
    return status;
}

// --- running -------------------------------------------------------------------------------------

static void advance(struct bench *bench)
{
    if (++bench->position.batch == loader_batches_per_epoch(bench->loader)) {
        bench->position.batch = 0;
        bench->position.epoch++;
    }
}

static uint64_t batches_to_come(const struct bench *bench)
{
    uint64_t epoch = loader_batches_per_epoch(bench->loader);
    uint64_t all = epoch * bench->config.epochs;
    uint64_t past = epoch * bench->position.epoch + bench->position.batch;
    uint64_t rest = past < all ? all - past : 0, wanted = (uint64_t)bench->stop_after;
    return wanted > 0 && wanted < rest ? wanted : rest;
}

static enum status stream(struct bench *bench, struct error *error)
{
    uint64_t total = batches_to_come(bench), done = 0;
    double start = seconds_now();
    enum status status = STATUS_OK;
    while (done < total) {
        const struct batch *batch;
        status = loader_next(bench->loader, &batch, error);
        if (status != STATUS_OK) {
            break;
        }
        if (bench->hash) {
            bench->state = batch_hash(bench->state, batch);
        }
        loader_release(bench->loader, batch);
        advance(bench);
        done++;
        progress_bar(&bench->progress, "loading", done * bench->config.batch,
                     total * bench->config.batch, "pairs");
    }
    bench->seconds = seconds_now() - start;
    return status;
}

static enum status write_position(const struct bench *bench, struct error *error)
{
    char text[128];
    int len =
        snprintf(text, sizeof text, "--start %" PRIu32 ":%" PRIu64 " --hash-from %016" PRIx64 "\n",
                 bench->position.epoch, bench->position.batch, bench->state);
    return file_write_durably(bench->position_out, text, (size_t)len, error);
}

static enum status measure(struct bench *bench, struct error *error)
{
    enum status status = load_recipe(bench, error);
    if (status == STATUS_OK) {
        status = dataset_open(&bench->dataset, bench->directory, error);
    }
    if (status == STATUS_OK) {
        status = loader_open(&bench->loader, bench->dataset, &bench->config, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    bench->position = bench->config.start;
    if (bench->position.batch == loader_batches_per_epoch(bench->loader)) {
        bench->position = (struct loader_position){.epoch = bench->position.epoch + 1};
    }
    progress_begin(&bench->progress, bench->quiet || bench->json);
    status = stream(bench, error);
    progress_end(&bench->progress);
    return status == STATUS_OK && bench->position_out ? write_position(bench, error) : status;
}

// --- telling -------------------------------------------------------------------------------------

static double per_second(const struct bench *bench, uint64_t count)
{
    return bench->seconds > 0 ? (double)count / bench->seconds : 0;
}

static const char *io_name(const struct bench *bench)
{
    return loader_io_used(bench->loader) == LOADER_IO_URING ? "uring" : "pread";
}

static void list_skips(const struct bench *bench)
{
    struct loader_skip *skips = calloc(SKIPS_SHOWN, sizeof *skips);
    size_t count = skips ? loader_skips(bench->loader, skips, SKIPS_SHOWN) : 0;
    for (size_t i = 0; i < count && i < SKIPS_SHOWN; i++) {
        char text[1200];
        fprintf(stderr, "skipped: %s\n", error_text(&skips[i].error, text, sizeof text));
    }
    if (count > SKIPS_SHOWN) {
        fprintf(stderr, "skipped: and %zu more\n", count - SKIPS_SHOWN);
    }
    free(skips);
}

static void print_text(const struct bench *bench)
{
    const struct loader_counters counters = loader_counters(bench->loader);
    printf("pairs            %" PRIu64 " in %.2f s\n", counters.records, bench->seconds);
    printf("pairs/s          %.1f\n", per_second(bench, counters.records));
    printf("read             %.1f MB, %.1f MB/s, %s\n", (double)counters.bytes / 1e6,
           per_second(bench, counters.bytes) / 1e6, io_name(bench));
    printf("reads            %" PRIu64 " of %.1f MB by %" PRIu64 " system calls, %" PRIu64
           " records shared one, %" PRIu64 " were in memory; %" PRIu32 " kept ahead%s\n",
           counters.reads, (double)counters.read_bytes / 1e6, counters.read_calls, counters.shared,
           counters.kept, counters.ahead,
           !bench->direct                      ? ""
           : loader_direct_used(bench->loader) ? ", direct"
                                               : ", not direct: the file system refuses");
    printf("work             decode %.2f s, augment %.2f s (summed over workers)\n",
           counters.decode, counters.augment);
    printf("waits            read %.2f s, slot %.2f s (workers), consumer %.2f s\n",
           counters.read_wait, counters.slot_wait, counters.consumer_wait);
    printf("memory           %.1f MiB planned, %.1f MiB at the peak\n",
           (double)loader_memory(bench->loader) / (1 << 20), (double)peak_memory() / (1 << 20));
    printf("skipped          %" PRIu64 "\n", counters.skips);
    printf("next position    %" PRIu32 ":%" PRIu64 "\n", bench->position.epoch,
           bench->position.batch);
    if (bench->hash) {
        printf("hash             %016" PRIx64 "\n", bench->state);
    }
}

static json_t *skipped_records(const struct bench *bench)
{
    size_t count = loader_skips(bench->loader, NULL, 0);
    struct loader_skip *skips = calloc(count ? count : 1, sizeof *skips);
    json_t *list = json_array();
    if (skips) {
        loader_skips(bench->loader, skips, count);
        for (size_t i = 0; i < count; i++) {
            json_array_append_new(list, json_integer((json_int_t)skips[i].record));
        }
    }
    free(skips);
    return list;
}

static void print_json(const struct bench *bench)
{
    const struct loader_counters counters = loader_counters(bench->loader);
    char hash[17], position[48];
    snprintf(hash, sizeof hash, "%016" PRIx64, bench->state);
    snprintf(position, sizeof position, "%" PRIu32 ":%" PRIu64, bench->position.epoch,
             bench->position.batch);
    json_t *result = json_pack(
        "{s:f, s:f, s:I, s:I, s:f, s:s, s:{s:f, s:f, s:f}, s:{s:f, s:f}, s:I, s:I, s:I, s:o, s:s}",
        "pairs_per_second", per_second(bench, counters.records), "seconds", bench->seconds, "pairs",
        (json_int_t)counters.records, "batches", (json_int_t)counters.batches,
        "megabytes_per_second", per_second(bench, counters.bytes) / 1e6, "io", io_name(bench),
        "waits", "read", counters.read_wait, "slot", counters.slot_wait, "consumer",
        counters.consumer_wait, "work", "decode", counters.decode, "augment", counters.augment,
        "peak_memory_bytes", (json_int_t)peak_memory(), "loader_memory_bytes",
        (json_int_t)loader_memory(bench->loader), "skips", (json_int_t)counters.skips,
        "skipped_records", skipped_records(bench), "next_position", position);
    if (bench->hash) {
        json_object_set_new(result, "hash", json_string(hash));
    }
    json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(result);
}

int bench_loader(int argc, char **argv)
{
    struct bench bench;
    struct error error;
    bool done;
    int code = parse(&bench, argc, argv, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    code = configure(&bench);
    if (code != EXIT_OK) {
        return code;
    }
    enum status status = measure(&bench, &error);
    if (bench.loader) {
        list_skips(&bench);
    }
    if (status != STATUS_OK) {
        code = command_failed(&command, &error, bench.json);
    } else if (bench.json) {
        print_json(&bench);
    } else {
        print_text(&bench);
    }
    loader_close(&bench.loader);
    dataset_close(&bench.dataset);
    return code;
}
