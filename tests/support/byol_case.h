// One step of BYOL on real images, opened so that a test can look at its loss and its gradients.
#ifndef TESTS_SUPPORT_BYOL_CASE_H
#define TESTS_SUPPORT_BYOL_CASE_H

#include "trainer/method/byol_internal.h"

#define BYOL_CASE_CLASSES 10

// What a row of a suite's table says about a network; the rest is the reference's, except that the
// heads are small (256, 64, 256) and that the last scale of every v1 block starts at 0, as the
// reference has it in its larger networks: without, gradients at the start are hardly defined.
struct byol_model {
    const char *name;
    int encoder, stem, norm;
    double width;
    int64_t size;
    bool v2, standardise;
    uint32_t batch;
};

struct byol_case {
    struct device *device;
    struct byol *byol;
    const struct graph *graph;
    float *views[2];
    int32_t *labels;
    struct method_metrics metrics; // of the last step
    float *params;                 // online, host copy
    float *gradients;              // of the last step, host copy
};

// The same start for the same model on every device: the initialisation of seed 1, then scales,
// offsets and biases moved away from 1 and 0, where mistakes could hide and blocks would be still.
void byol_case_open(struct byol_case *out, struct device *device, const struct byol_model *model);
void byol_case_close(struct byol_case *byol_case); // but not the device

// A whole step that learns nothing: learning rate 0, tau 1. Fills metrics and gradients.
void byol_case_step(struct byol_case *byol_case);

#endif
