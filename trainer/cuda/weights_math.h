// Filters over folded images, and standardised weights. Plain C.
//
// A convolution of stride 2 over pixels with padding p reads, with tap y for output oy, pixel row
// 2 oy - p + y = 2 (oy - P) + (y + s), where s = p % 2 and P = (p + s) / 2: place (y + s) % 2 of
// block row oy - P + (y + s) / 2. So it is one of stride 1 over blocks, with padding P.
#ifndef TRAINER_CUDA_WEIGHTS_MATH_H
#define TRAINER_CUDA_WEIGHTS_MATH_H

#include "trainer/cuda/lanes.h"
#include "trainer/device/device.h"

#include <math.h>

static CUDA_BOTH uint32_t fold_shift(uint32_t pad)
{
    return pad % 2;
}

static CUDA_BOTH uint32_t fold_padding(uint32_t pad)
{
    return (pad + fold_shift(pad)) / 2;
}

// Blocks that a filter covers along one side.
static CUDA_BOTH uint32_t fold_blocks(uint32_t kernel, uint32_t pad)
{
    return (kernel - 1 + fold_shift(pad)) / 2 + 1;
}

// The master's tap at place `inner` (0 or 1) of block `block` of the stored filter; `kernel` or
// more where there is none.
static CUDA_BOTH uint32_t fold_tap(uint32_t block, uint32_t inner, uint32_t shift)
{
    return 2 * block + inner - shift; // below 0: wraps around to a large number
}

struct standard_column {
    double mean, inverse; // 1 / deviation
};

// From sums over `rows` weights of their differences from `origin`, one of them, and of the squares
// of these: a mean that is large beside the deviation costs no digits.
static CUDA_BOTH struct standard_column standard_column_of(double origin, double sum,
                                                           double squares, uint32_t rows)
{
    double shift = sum / rows, variance = squares / rows - shift * shift;
    struct standard_column column = {
        origin + shift, 1.0 / sqrt((variance > 0 ? variance : 0) + WEIGHT_STANDARD_EPSILON)};
    return column;
}

static CUDA_BOTH double standard_value(float weight, struct standard_column column)
{
    return ((double)weight - column.mean) * column.inverse;
}

// Gradient of a weight of standardised value `unit`, from that of the latter; sum of these
// gradients over the column, and of their products with the standardised weights.
static CUDA_BOTH double standard_gradient(float gradient, double unit, double sum, double product,
                                          struct standard_column column, uint32_t rows)
{
    return column.inverse * ((double)gradient - (sum + unit * product) / rows);
}

#endif
