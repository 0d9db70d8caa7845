// The table of device cases.
#include "tests/support/device_cases.h"

#define I TENSOR_IMAGE
#define M TENSOR_MATRIX

// One row a line: name, kind, tensors, n, h, w, c, out_c, groups, kernel, stride, pads, relu, bias,
// the three bounds.
// clang-format off
#define ONE   {1, 1, 1, 1}
#define THREE {3, 3, 3, 3}
#define HIGH  {0, 0, 1, 1}
const struct device_case device_cases[] = {
    {"input", OP_INPUT, I, 2, 5, 7, 3, 3, 1, 0, 0, {0}, 0, 0, 1e-7, 0, 0},

    {"conv 1x1, 1 to 1", OP_CONV, I, 2, 1, 1, 1, 1, 1, 1, 1, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 1x1, 3 to 17", OP_CONV, I, 2, 5, 3, 3, 17, 1, 1, 1, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 1x1, 64 to 16", OP_CONV, I, 2, 7, 7, 64, 16, 2, 1, 1, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 1x1 / 2, odd", OP_CONV, I, 2, 7, 5, 16, 64, 1, 1, 2, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 1x1 / 2, even", OP_CONV, I, 4, 8, 8, 8, 16, 2, 1, 2, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, 3 to 16", OP_CONV, I, 2, 9, 8, 3, 16, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, 4 to 8", OP_CONV, I, 2, 5, 6, 4, 8, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, 17 to 4", OP_CONV, I, 1, 6, 5, 17, 4, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, 8 to 1", OP_CONV, I, 2, 4, 4, 8, 1, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, winograd", OP_CONV, I, 16, 8, 8, 16, 32, 2, 3, 1, ONE, 0, 0, 3e-6, 1e-5, 1e-3},
    {"conv 3x3, winograd, odd", OP_CONV, I, 8, 7, 15, 16, 16, 1, 3, 1, ONE, 0, 0, 3e-6, 1e-5, 1e-3},
    {"conv 3x3 on 1 pixel", OP_CONV, I, 4, 1, 1, 16, 16, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3 on 2 pixels", OP_CONV, I, 4, 2, 2, 32, 16, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3 / 2, same, even", OP_CONV, I, 2, 8, 6, 16, 16, 2, 3, 2, HIGH, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3 / 2, same, odd", OP_CONV, I, 2, 7, 9, 16, 32, 1, 3, 2, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3 / 2, mixed", OP_CONV, I, 2, 7, 8, 17, 3, 1, 3, 2, {1, 0, 1, 1}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, no padding", OP_CONV, I, 1, 5, 4, 4, 4, 1, 3, 1, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 7x7 / 2, same", OP_CONV, I, 2, 16, 16, 3, 64, 2, 7, 2, {2, 2, 3, 3}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 7x7 / 2, torch", OP_CONV, I, 2, 13, 11, 3, 16, 1, 7, 2, THREE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 7x7 / 2, 1 pixel", OP_CONV, I, 2, 1, 1, 3, 8, 1, 7, 2, THREE, 0, 0, 1e-6, 1e-6, 1e-3},

    {"norm, 16", OP_BATCH_NORM, I, 4, 5, 3, 16, 16, 1, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm, 16, 2 groups", OP_BATCH_NORM, I, 4, 5, 3, 16, 16, 2, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm relu, 64, 2 groups", OP_BATCH_NORM, I, 6, 4, 4, 64, 64, 2, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm relu, 17", OP_BATCH_NORM, I, 4, 3, 7, 17, 17, 2, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm relu, 4", OP_BATCH_NORM, I, 4, 6, 5, 4, 4, 1, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm, 3", OP_BATCH_NORM, I, 2, 9, 2, 3, 3, 2, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm relu, 1", OP_BATCH_NORM, I, 8, 3, 3, 1, 1, 2, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm, 8, 1 pixel", OP_BATCH_NORM, I, 16, 1, 1, 8, 8, 2, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm join, 16", OP_BATCH_NORM, I, 4, 5, 3, 16, 16, 1, 0, 0, {0}, 0, 1, 1e-6, 5e-6, 2e-3},
    {"norm join relu, 64, 2 groups", OP_BATCH_NORM, I, 6, 4, 4, 64, 64, 2, 0, 0, {0}, 1, 1, 1e-6, 5e-6, 2e-3},
    {"norm join relu, 17", OP_BATCH_NORM, I, 4, 3, 7, 17, 17, 2, 0, 0, {0}, 1, 1, 1e-6, 5e-6, 2e-3},
    {"norm join, 36, 2 groups", OP_BATCH_NORM, I, 4, 3, 7, 36, 36, 2, 0, 0, {0}, 0, 1, 1e-6, 5e-6, 2e-3},
    {"norm join relu, 3", OP_BATCH_NORM, I, 2, 9, 5, 3, 3, 2, 0, 0, {0}, 1, 1, 1e-6, 5e-6, 2e-3},
    {"norm matrix, 17", OP_BATCH_NORM, M, 12, 1, 1, 17, 17, 1, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm matrix relu, 65", OP_BATCH_NORM, M, 24, 1, 1, 65, 65, 2, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm matrix relu, 1", OP_BATCH_NORM, M, 9, 1, 1, 1, 1, 1, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},

    {"add, 16", OP_ADD, I, 2, 5, 5, 16, 16, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},
    {"add relu, 17", OP_ADD, I, 3, 4, 7, 17, 17, 1, 0, 0, {0}, 1, 0, 0, 0, 1e-3},
    {"add relu, 3", OP_ADD, I, 1, 2, 9, 3, 3, 1, 0, 0, {0}, 1, 0, 0, 0, 1e-3},
    {"relu, 1", OP_RELU, I, 2, 3, 3, 1, 1, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},
    {"relu, 4", OP_RELU, I, 2, 5, 3, 4, 4, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},
    {"relu, 64", OP_RELU, I, 2, 32, 32, 64, 64, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},
    {"relu matrix", OP_RELU, M, 5, 1, 1, 33, 33, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},

    {"max 3x3 / 2, same, even", OP_MAX_POOL, I, 2, 8, 6, 16, 16, 1, 3, 2, HIGH, 0, 0, 0, 1e-7, 1e-3},
    {"max 3x3 / 2, same, odd", OP_MAX_POOL, I, 2, 7, 9, 17, 17, 1, 3, 2, ONE, 0, 0, 0, 1e-7, 1e-3},
    {"max 3x3 / 1", OP_MAX_POOL, I, 2, 5, 4, 4, 4, 1, 3, 1, ONE, 0, 0, 0, 1e-7, 1e-3},
    {"max 2x2 / 2", OP_MAX_POOL, I, 1, 5, 4, 3, 3, 1, 2, 2, {0}, 0, 0, 0, 0, 1e-3},
    {"max 5x5 / 2", OP_MAX_POOL, I, 2, 9, 8, 16, 16, 1, 5, 2, {2, 2, 2, 2}, 0, 0, 0, 1e-7, 1e-3},
    {"max 2x2 / 3, gaps", OP_MAX_POOL, I, 2, 8, 7, 16, 16, 1, 2, 3, {0}, 0, 0, 0, 0, 1e-3},
    {"max 3x3 on 1 pixel", OP_MAX_POOL, I, 2, 1, 1, 8, 8, 1, 3, 2, ONE, 0, 0, 0, 0, 1e-3},

    {"mean, 16", OP_MEAN_POOL, I, 2, 7, 7, 16, 16, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-7, 1e-3},
    {"mean, 17", OP_MEAN_POOL, I, 3, 4, 5, 17, 17, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-7, 1e-3},
    {"mean, 3", OP_MEAN_POOL, I, 2, 2, 3, 3, 3, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-7, 1e-3},
    {"mean, 64, 1 pixel", OP_MEAN_POOL, I, 2, 1, 1, 64, 64, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-7, 1e-3},

    {"linear", OP_LINEAR, M, 6, 1, 1, 33, 17, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"linear with bias", OP_LINEAR, M, 16, 1, 1, 64, 130, 2, 0, 0, {0}, 0, 1, 1e-6, 1e-6, 1e-3},
    {"linear, 1 to 1", OP_LINEAR, M, 1, 1, 1, 1, 1, 1, 0, 0, {0}, 0, 1, 1e-6, 1e-6, 1e-3},
    {"linear, standardised", OP_LINEAR, M, 6, 1, 1, 33, 17, 1, 0, 0, {0}, 1, 0, 1e-6, 2e-6, 2e-3},
    {"linear with bias, standardised", OP_LINEAR, M, 16, 1, 1, 64, 130, 2, 0, 0, {0}, 1, 1, 1e-6, 2e-6, 2e-3},
    {"conv 1x1, standardised", OP_CONV, I, 2, 7, 7, 64, 16, 2, 1, 1, {0}, 1, 0, 1e-6, 2e-6, 2e-3},
    {"conv 3x3 / 2, standardised", OP_CONV, I, 2, 7, 9, 17, 36, 1, 3, 2, ONE, 1, 0, 1e-6, 2e-6, 2e-3},
    {"conv 3x3, standardised, winograd", OP_CONV, I, 16, 8, 8, 16, 32, 2, 3, 1, ONE, 1, 0, 3e-6, 1e-5, 2e-3},
    {"conv 7x7 / 2, standardised", OP_CONV, I, 2, 16, 16, 3, 64, 2, 7, 2, {2, 2, 3, 3}, 1, 0, 1e-6, 2e-6, 2e-3},

    {"group norm, 16 in 4", OP_GROUP_NORM, I, 4, 5, 3, 16, 16, 2, 4, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"group norm relu, 64 in 16", OP_GROUP_NORM, I, 6, 4, 4, 64, 64, 2, 16, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"group norm relu, 36 in 4", OP_GROUP_NORM, I, 3, 3, 7, 36, 36, 1, 4, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"group norm, 3 in 3", OP_GROUP_NORM, I, 2, 9, 5, 3, 3, 2, 3, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"group norm relu, 4 in 2", OP_GROUP_NORM, I, 4, 6, 5, 4, 4, 1, 2, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"layer norm, 17", OP_GROUP_NORM, I, 2, 4, 3, 17, 17, 1, 1, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"layer norm matrix, 33", OP_GROUP_NORM, M, 6, 1, 1, 33, 33, 2, 1, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"layer norm matrix relu, 16", OP_GROUP_NORM, M, 5, 1, 1, 16, 16, 1, 1, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"group norm matrix relu, 130 in 10", OP_GROUP_NORM, M, 8, 1, 1, 130, 130, 2, 10, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},

    {"affine, 16", OP_AFFINE, I, 4, 5, 3, 16, 16, 2, 0, 0, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"affine relu, 17", OP_AFFINE, I, 3, 3, 7, 17, 17, 1, 0, 0, {0}, 1, 0, 1e-6, 1e-6, 1e-3},
    {"affine relu, 3", OP_AFFINE, I, 2, 9, 2, 3, 3, 2, 0, 0, {0}, 1, 0, 1e-6, 1e-6, 1e-3},
    {"affine matrix relu, 65", OP_AFFINE, M, 24, 1, 1, 65, 65, 2, 0, 0, {0}, 1, 0, 1e-6, 1e-6, 1e-3},

    {"linear, 5 to 1000", OP_LINEAR, M, 3, 1, 1, 5, 1000, 1, 0, 0, {0}, 0, 1, 1e-6, 1e-6, 1e-3},
};
// clang-format on

const size_t device_case_count = sizeof device_cases / sizeof *device_cases;
