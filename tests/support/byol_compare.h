// Two precisions of the same step: what a test of bf16 against f32 compares, and its control.
#ifndef TESTS_SUPPORT_BYOL_COMPARE_H
#define TESTS_SUPPORT_BYOL_COMPARE_H

#include "tests/support/byol_case.h"

// The images and the weights of convolutions rounded to bfloat16 once, in f32: any arithmetic in
// bf16 begins with that, so it cannot be nearer to f32 than this control.
void byol_case_round(struct byol_case *byol_case);

// Directions of the gradients against those of f32.
struct byol_cosines {
    size_t compared;
    double worst, worst_control; // cosines
    double distance, control;    // sums of 1 - cosine
    const char *worst_name;
};

// Of the last steps. BYOL_PRECISION_VERBOSE=1 prints every tensor.
struct byol_cosines byol_case_cosines(const struct byol_case *exact, const struct byol_case *half,
                                      const struct byol_case *control);

#endif
