// `byol bench loader`: runs a loader as a trainer would, without the training, and says how fast it
// was, what it waited for, and (with --hash) exactly what it gave. Here: its options.
#include "tools/bench_loader.h"
#include "tools/batch_hash.h"
#include "tools/bench.h"
#include "tools/command.h"
#include "tools/recipe_option.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_WINDOWS 5
#define DEFAULT_WARM_UP 1 // seconds
#define NOT_GIVEN       (-1)

static int run(int argc, char **argv);

const struct command command_bench_loader = {
    .name = "bench loader",
    .summary = "batches of views",
    .help =
        "Usage: byol bench loader DATASET [options]\n"
        "\n"
        "Streams batches of views from a dataset and measures speed, the share of each stage,\n"
        "waits and memory, and the floor: libjpeg-turbo decoding the same images, whole, with as\n"
        "many threads and nothing else to do.\n"
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
        "  --layout hwc|chw     order of a view's values: pixel by pixel, or plane by plane (hwc)\n"
        "  --normalise          subtract ImageNet's mean and divide by its deviation\n"
        "\n"
        "How (never changes the hash):\n"
        "  --workers N          threads that decode and render (0: one per core)\n"
        "  --io auto|uring|pread\n"
        "                       the way of reading (auto: io_uring where the kernel allows it)\n"
        "  --depth N            reads in flight at most (64)\n"
        "  --direct             read past the page cache\n"
        "  --cache MIB          memory for small records that are read once (96)\n"
        "  --slots N            batch buffers (2)\n"
        "\n"
        "What is measured:\n"
        "  --seconds S          windows of S seconds of an endless stream, instead of passes\n"
        "  --windows N          how many; their median counts (5)\n"
        "  --warm-up S          seconds before the first window (1)\n"
        "  --cold               drop the dataset's pages from the page cache before each pass, so\n"
        "                       that bytes come from the device (whose own cache stays warm; "
        "pages\n"
        "                       that are dirty or mapped by a process stay as well)\n"
        "  --floor N            images decoded each time the floor is measured, which is before\n"
        "                       every window and at the end (512)\n"
        "  --no-floor           leave it out\n"
        "\n"
        "Hashing, stopping and going on (of passes):\n"
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
        "Examples:\n"
        "  byol bench loader train --seconds 3                 # speed, shares, the floor\n"
        "  byol bench loader train --epochs 2 --hash --stop-after 10 --position-out position\n"
        "  byol bench loader train --epochs 2 --hash $(cat position)   # the hash of both epochs\n"
        "\n"
        "Exit codes: 0 success, 1 failure, 2 wrong usage.\n",
    .run = run,
};

// --- from options to a config --------------------------------------------------------------------

static int parse(struct loader_bench *bench, int argc, char **argv, bool *done)
{
    *bench = (struct loader_bench){.recipe = "byol",
                                   .io = "auto",
                                   .policy = "fatal",
                                   .layout = "hwc",
                                   .start = "0:0",
                                   .warm_up = NOT_GIVEN,
                                   .floor = 512,
                                   .depth = 64,
                                   .cache = 96,
                                   .batch = 64,
                                   .slots = 2,
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
        {"layout", 0, OPTION_STRING, &bench->layout, 0, 0},
        {"normalise", 0, OPTION_FLAG, &bench->normalise, 0, 0},
        {"seconds", 0, OPTION_FLOAT, &bench->window_seconds, 0.001, 86400},
        {"windows", 0, OPTION_INT, &bench->windows, 1, BENCH_MAX_WINDOWS - 1},
        {"warm-up", 0, OPTION_FLOAT, &bench->warm_up, 0, 86400},
        {"cold", 0, OPTION_FLAG, &bench->cold, 0, 0},
        {"floor", 0, OPTION_INT, &bench->floor, 1, 9e18},
        {"no-floor", 0, OPTION_FLAG, &bench->no_floor, 0, 0},
        {"hash", 0, OPTION_FLAG, &bench->hash, 0, 0},
        {"stop-after", 0, OPTION_INT, &bench->stop_after, 1, 9e18},
        {"position-out", 0, OPTION_STRING, &bench->position_out, 0, 0},
        {"start", 0, OPTION_STRING, &bench->start, 0, 0},
        {"hash-from", 0, OPTION_STRING, &bench->hash_from, 0, 0},
        {"json", 0, OPTION_FLAG, &bench->json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &bench->quiet, 0, 0},
    };
    struct option_list operands;
    int code = command_options(&command_bench_loader, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, done);
    if (code != EXIT_OK || *done) {
        return code;
    }
    if (operands.count != 1) {
        return command_misused(&command_bench_loader, "name one dataset");
    }
    bench->directory = operands.item[0];
    return EXIT_OK;
}

static bool only(const char *text, const char *characters)
{
    return text[strspn(text, characters)] == 0;
}

static int parse_start(struct loader_bench *bench)
{
    struct loader_position *start = &bench->config.start;
    int used = 0;
    if (!only(bench->start, "0123456789:") ||
        sscanf(bench->start, "%9" SCNu32 ":%18" SCNu64 "%n", &start->epoch, &start->batch, &used) !=
            2 ||
        bench->start[used] != 0) {
        return command_misused(&command_bench_loader, "--start wants EPOCH:BATCH, not '%s'",
                               bench->start);
    }
    if (bench->hash_from &&
        (!only(bench->hash_from, "0123456789abcdefABCDEF") || strlen(bench->hash_from) > 16 ||
         sscanf(bench->hash_from, "%" SCNx64, &bench->state) != 1)) {
        return command_misused(&command_bench_loader,
                               "--hash-from wants 16 hexadecimal digits, not '%s'",
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
    command_misused(&command_bench_loader, "--%s does not know '%s'", option, value);
    return -1;
}

// Passes or windows, and what goes only with one of them.
static int configure_measuring(struct loader_bench *bench)
{
    bool timed = bench->window_seconds > 0;
    if (!timed && (bench->windows > 0 || bench->warm_up >= 0)) {
        return command_misused(&command_bench_loader, "--windows and --warm-up want --seconds");
    }
    if (timed && (bench->epochs > 0 || bench->hash || bench->stop_after > 0 ||
                  bench->position_out || bench->hash_from)) {
        return command_misused(&command_bench_loader,
                               "--seconds measures an endless stream: --epochs, --hash, "
                               "--stop-after, --position-out and --hash-from do not go "
                               "with it");
    }
    bench->windows = bench->windows > 0 ? bench->windows : DEFAULT_WINDOWS;
    bench->warm_up = bench->warm_up >= 0 ? bench->warm_up : DEFAULT_WARM_UP;
    bench->config.epochs = timed ? 0 : bench->epochs > 0 ? (uint32_t)bench->epochs : 1;
    return EXIT_OK;
}

static int configure(struct loader_bench *bench)
{
    static const char *const ways[] = {"auto", "uring", "pread", NULL};
    static const char *const policies[] = {"fatal", "skip", NULL};
    static const char *const layouts[] = {"hwc", "chw", NULL};
    struct loader_config *config = &bench->config;
    loader_config_init(config);
    int io = choose("io", bench->io, ways), policy = choose("policy", bench->policy, policies);
    int layout = choose("layout", bench->layout, layouts);
    if (io < 0 || policy < 0 || layout < 0) {
        return EXIT_USAGE;
    }
    config->io = (enum loader_io)io;
    config->policy = (enum loader_policy)policy;
    config->output = bench->normalise ? view_output_imagenet : view_output_plain;
    config->output.layout = (enum view_layout)layout;
    config->batch = (uint32_t)bench->batch;
    config->seed = (uint64_t)bench->seed;
    config->workers = (uint32_t)bench->workers;
    config->depth = (uint32_t)bench->depth;
    config->direct = bench->direct;
    config->cache = (uint64_t)bench->cache << 20;
    config->slots = (uint32_t)bench->slots;
    config->max_skips = (uint64_t)bench->max_skips;
    int code = configure_measuring(bench);
    return code == EXIT_OK ? parse_start(bench) : code;
}

static enum status load_recipe(struct loader_bench *bench, struct error *error)
{
    struct recipe *recipe = &bench->config.recipe;
    enum status status = recipe_option_load(bench->recipe, recipe, error);
    if (status == STATUS_OK && bench->size > 0) {
        recipe->size = bench->size;
    }
    return status;
}

static int run(int argc, char **argv)
{
    struct loader_bench bench;
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
    enum status status = load_recipe(&bench, &error);
    if (status == STATUS_OK) {
        status = loader_bench_run(&bench, &error);
    }
    loader_bench_print_skips(&bench);
    if (status != STATUS_OK) {
        code = command_failed(&command_bench_loader, &error, bench.json);
    } else if (bench.json) {
        loader_bench_print_json(&bench);
    } else {
        loader_bench_print_text(&bench);
    }
    free(bench.skips);
    loader_close(&bench.loader);
    dataset_close(&bench.dataset);
    return code;
}
