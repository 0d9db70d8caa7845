// The parts of `byol bench loader`: bench_loader.c reads the options, bench_loader_run.c measures,
// bench_loader_report.c tells.
#ifndef TOOLS_BENCH_LOADER_H
#define TOOLS_BENCH_LOADER_H

#include "pipeline/loader.h"
#include "tools/progress.h"

#include <stddef.h>

#define BENCH_MAX_WINDOWS 1000

// Measured values of one kind, a value for each window. measure_median sorts them.
struct bench_samples {
    double value[BENCH_MAX_WINDOWS];
    size_t count;
};

struct loader_bench {
    // As given.
    const char *directory, *recipe, *io, *policy, *layout, *position_out, *start, *hash_from;
    int64_t epochs, workers, depth, size, batch, seed, slots, max_skips, stop_after, windows, floor,
        cache;                      // MiB
    double window_seconds, warm_up; // window_seconds 0: whole passes are one window
    bool normalise, cold, no_floor, direct, hash, json, quiet;

    // What follows from it.
    struct loader_config config;
    struct dataset *dataset;
    struct loader *loader; // closed once its numbers are taken
    struct progress progress;

    // What was measured.
    struct loader_position position; // of the next batch
    uint64_t state;                  // of the hash
    struct bench_samples rates;      // pairs/s of each window
    struct bench_samples floors;     // images/s each time that the floor was measured
    double seconds;                  // of all windows together
    struct loader_counters counters; // of what happened in the windows
    struct loader_skip *skips;       // malloc'ed
    size_t skip_count;
    enum loader_io io_used;
    bool direct_used;
    uint32_t workers_used;
    uint64_t planned_memory, peak_memory, shared_memory; // bytes
};

// Opens dataset and loader, measures, closes the loader. After a failure only `skips` means
// anything.
enum status loader_bench_run(struct loader_bench *bench, struct error *error);

void loader_bench_print_skips(const struct loader_bench *bench); // on stderr
void loader_bench_print_text(struct loader_bench *bench);
void loader_bench_print_json(struct loader_bench *bench);

#endif
