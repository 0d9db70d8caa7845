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
    double seconds[BENCH_MAX_STEPS];            // of each step; ascending once run
    double kinds[OP_KINDS], backward[OP_KINDS]; // summed over the steps; the latter is in both
    double optimiser, total, loss;              // the first two summed; loss of the last step
    int64_t allocations;                        // during the steps; -1 = not counted
};

void step_bench_print_plan(const struct step_bench *bench);
void step_bench_print_text(const struct step_bench *bench);
void step_bench_print_json(const struct step_bench *bench);

#endif
