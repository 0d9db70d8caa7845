// Whether two files of weights are the same network: its outputs on fixed pseudo-random images.
#ifndef TRAINER_WEIGHTS_COMPARE_H
#define TRAINER_WEIGHTS_COMPARE_H

#include "trainer/weights/weights.h"

#define WEIGHTS_COMPARE_IMAGES 4

struct weights_difference {
    double largest;  // between two features
    double features; // largest feature
    uint32_t size, width;
};

// Pooled features of both in evaluation mode, float32. STATUS_INVALID when images or features have
// other sizes.
enum status weights_compare(struct weights_difference *difference, const struct weights *left,
                            const struct weights *right, const char *device, int threads,
                            struct error *error);

#endif
