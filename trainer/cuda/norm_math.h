// The arithmetic of normalisation, channel by channel and value by value: from sums to moments, the
// lines y = a x + b that they make, running statistics, and the way back. C and CUDA.
//
// Whoever needs a line computes it here from the same floats, with the roundings written out: so
// backward finds the very values whose signs the ReLU of forward saw.
#ifndef TRAINER_CUDA_NORM_MATH_H
#define TRAINER_CUDA_NORM_MATH_H

#include "trainer/cuda/lanes.h"
#include "trainer/device/device.h"

#include <math.h>

// --- moments

// Of the values x: their sum, that of their squares.
struct cuda_norm_sum {
    double values, squares;
};

// From the same sums of the `count` differences x - first.
static CUDA_BOTH struct cuda_norm_sum cuda_norm_unshift(double count, double first, double values,
                                                        double squares)
{
    struct cuda_norm_sum sum;
    sum.values = values + count * first;
    sum.squares = squares + first * (2.0 * values + count * first);
    return sum;
}

struct cuda_norm_moments {
    float mean, variance;
};

// The variance is the biased one.
static CUDA_BOTH struct cuda_norm_moments cuda_norm_measure(double values, double squares,
                                                            double count)
{
    double mean = values / count;
    struct cuda_norm_moments moments;
    moments.mean = (float)mean;
    moments.variance = (float)fmax(squares / count - mean * mean, 0.0);
    return moments;
}

static CUDA_BOTH float cuda_norm_inverse(float variance)
{
    return 1.0f / sqrtf(variance + BATCH_NORM_EPSILON);
}

// --- forward

struct cuda_norm_line {
    float a, b; // y = a x + b
};

static CUDA_BOTH struct cuda_norm_line cuda_norm_line_of(float scale, float offset, float mean,
                                                         float inverse)
{
    struct cuda_norm_line line;
    line.a = scale * inverse;
    line.b = fmaf(-line.a, mean, offset);
    return line;
}

static CUDA_BOTH float cuda_norm_value(struct cuda_norm_line line, float x)
{
    return fmaf(line.a, x, line.b);
}

// --- running statistics (BATCH_NORM_STATE)

// BATCH_NORM_DECAY to the power of a counter.
static CUDA_BOTH double cuda_norm_decay(float counter)
{
    double power = 1, square = (double)BATCH_NORM_DECAY;
    // Beyond, nothing is left beside the 1 that it is taken from.
    uint32_t left = counter < 1024 ? (uint32_t)counter : 1024;
    for (; left > 0; left >>= 1) {
        power = (left & 1) != 0 ? power * square : power;
        square *= square;
    }
    return power;
}

static CUDA_BOTH float cuda_norm_remember(float hidden, float value)
{
    return BATCH_NORM_DECAY * hidden + (1.0f - BATCH_NORM_DECAY) * value;
}

// `decay`: cuda_norm_decay of the counter after this value.
static CUDA_BOTH float cuda_norm_average(float hidden, double decay)
{
    return hidden / (1.0f - (float)decay);
}

// --- backward

// Whether a ReLU let a value through that was stored: half of the smallest bfloat16 rounds to zero.
static CUDA_BOTH bool cuda_norm_passes(float value, bool half)
{
    return value > (half ? 0x1p-134f : 0.0f);
}

struct cuda_norm_slope {
    float g, x, rest; // dx = g' gradient + x' x + rest
};

// With x^ = (x - mean) inverse: dx = inverse (scale gradient - mean_gradient - x^ mean_product),
// where the means are those of scale gradient and of scale gradient x^.
static CUDA_BOTH struct cuda_norm_slope cuda_norm_slope_of(float scale, float mean, float inverse,
                                                           double mean_gradient,
                                                           double mean_product)
{
    double per_x = -(double)inverse * (double)inverse * mean_product;
    struct cuda_norm_slope slope;
    slope.g = scale * inverse;
    slope.x = (float)per_x;
    slope.rest = (float)(-(double)inverse * mean_gradient - per_x * (double)mean);
    return slope;
}

static CUDA_BOTH float cuda_norm_gradient(struct cuda_norm_slope slope, float gradient, float x)
{
    return fmaf(slope.g, gradient, fmaf(slope.x, x, slope.rest));
}

#endif
