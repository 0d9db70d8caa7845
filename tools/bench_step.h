// The parts of `byol bench step`: bench_step.c reads the options and measures,
// bench_step_report.c tells.
#ifndef TOOLS_BENCH_STEP_H
#define TOOLS_BENCH_STEP_H

#include "tools/progress.h"
#include "trainer/method/method.h"

#define BENCH_MAX_STEPS 1000

struct step_bench {
    // As given.
    const char *net, *stem, *padding, *shortcut, *device_name, *precision_name;
    int64_t batch, accumulate, hidden, threads, steps;
    bool json, quiet;
    int precision; // enum device_precision, as asked for
    struct method_config config;
    // What runs.
    struct device *device;
    struct method *method;
    float *images;   // two views
    int32_t *labels; // NULL without classes
    struct progress progress;
    // What was measured.
    double seconds[BENCH_MAX_STEPS]; // of each step; ascending once run
    // Summed over the steps that tell where time goes: the same, or, where the device works ahead,
    // others, in which it waits after each op.
    double kinds[OP_KINDS], backward[OP_KINDS]; // the latter is in both
    double optimiser, total;
    int64_t profiled;    // how many they are
    double loss;         // of step `steps`, the first being 0, on all devices
    int64_t allocations; // during the steps; -1 = not counted
    uint64_t queued, collected;
    double last_collected;
};

// Opens device and method, measures; says the plan and shows progress unless `json`. Close in any
// case.
enum status step_bench_run(struct step_bench *bench, struct error *error);
void step_bench_close(struct step_bench *bench);

void step_bench_print_plan(const struct step_bench *bench);
void step_bench_print_text(const struct step_bench *bench);
void step_bench_print_json(const struct step_bench *bench);

#endif
