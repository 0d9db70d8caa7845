// What the parts of `byol eval` share: what was asked for, and what came out.
#ifndef TOOLS_EVAL_H
#define TOOLS_EVAL_H

#include "tools/command.h"
#include "tools/progress.h"
#include "trainer/probe/probe.h"
#include "trainer/run/directory.h"

enum eval_probe { EVAL_LINEAR, EVAL_KNN, EVAL_QUALITY, EVAL_FEATURES };
#define EVAL_PROBES 4
extern const char *const eval_probe_names[EVAL_PROBES];

struct eval_request {
    enum eval_probe probe;
    const char *run, *checkpoint, *weights, *train, *test, *data, *output, *device;
    const char *convention, *rates, *sweep;
    struct linear_config linear;
    struct knn_config knn;
    struct quality_config quality;
    int64_t threads, seed, k; // k, temperature, rate: 0 when not given
    double temperature, rate;
    bool projections, untrained, json, quiet;
    struct option_list set; // what --weights are
};

// What a probe works on.
struct eval_bench {
    char checkpoint[RUN_PATH];
    struct dataset *train, *test, *data;
    struct encoder *encoder;
    struct probe_options options;
    struct progress progress;
};

struct eval_export {
    uint64_t count;
    uint32_t width, projection_width;
};

// Only the probe's own part is filled.
struct eval_result {
    struct probe_score score;
    struct quality quality;
    struct eval_export exported;
};

// Prints the result, as text or as JSON.
void eval_report(const struct eval_request *request, const struct eval_bench *bench,
                 const struct eval_result *result);

#endif
