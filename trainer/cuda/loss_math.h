// Arithmetic of the losses, in double. Formulas: device.h. Private to the cuda device; C and C++,
// host and device.
#ifndef TRAINER_CUDA_LOSS_MATH_H
#define TRAINER_CUDA_LOSS_MATH_H

#include "trainer/cuda/lanes.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

#define LOSS_NORM_FLOOR 1e-12

// One row of the regression loss: x^ = x * inverse has length 1. The factor is a constant for rows
// shorter than the floor, and, as in the reference implementation, for rows so long that its
// derivative (its cube) underflows in float32.
struct loss_row {
    double inverse;
    bool constant;
};

static CUDA_BOTH struct loss_row loss_row_of(double squares)
{
    struct loss_row row;
    row.inverse = 1.0 / sqrt(fmax(squares, LOSS_NORM_FLOOR));
    row.constant =
        squares < LOSS_NORM_FLOOR || row.inverse * row.inverse * row.inverse < (double)FLT_MIN;
    return row;
}

// x^ - y^ in one place.
static CUDA_BOTH double regression_difference(const struct loss_row *x_row, float x,
                                              const struct loss_row *y_row, float y)
{
    return (double)x * x_row->inverse - (double)y * y_row->inverse;
}

// Gradient of scale ||x^ - y^||^2 to x in one place. `along`: sum of difference * x^ over the row,
// which the normalisation cuts off.
static CUDA_BOTH float regression_gradient(const struct loss_row *row, float x, double difference,
                                           double along, double scale)
{
    double cut = row->constant ? 0 : along * ((double)x * row->inverse);
    return (float)(2 * scale * row->inverse * (difference - cut));
}

// Whether class `c` ranks before the label: among equal logits the higher index comes first. NaN
// ranks before everything, so that it never counts as a success.
static CUDA_BOTH bool softmax_before(uint32_t c, float logit, uint32_t label, float own)
{
    return c > label ? !(logit < own) : c < label && !(logit <= own);
}

// e^(logit - largest)
static CUDA_BOTH double softmax_power(float logit, float largest)
{
    return exp((double)logit - (double)largest);
}

static CUDA_BOTH float softmax_loss_of(float largest, double sum, float own)
{
    return (float)((double)largest + log(sum) - (double)own);
}

static CUDA_BOTH float softmax_gradient(double share, bool is_label, double scale)
{
    return (float)(scale * (share - (is_label ? 1.0 : 0.0)));
}

#endif
