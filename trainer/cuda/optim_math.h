// Arithmetic of the optimisers: one step of one value, with the factors of
// trainer/device/optim.h. Formulas: device.h. Private to the cuda device; C and C++, host and
// device.
#ifndef TRAINER_CUDA_OPTIM_MATH_H
#define TRAINER_CUDA_OPTIM_MATH_H

#include "trainer/cuda/lanes.h"
#include "trainer/device/optim.h"

#include <math.h>

// Rounded before it is added to anything: nvcc makes no fused multiply-add of it, so that a step
// has the bits of the other devices, wherever it is inlined.
static CUDA_BOTH float product(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

// Sum w^2 and sum (g + decay w)^2. In double: a square of float32 is exact, and none vanishes.
struct square_sums {
    double weights, gradients;
};

static CUDA_BOTH void square_sums_add(struct square_sums *sums, float w, float g, float decay)
{
    double gradient = (double)(g + product(decay, w));
    sums->weights += (double)w * (double)w;
    sums->gradients += gradient * gradient;
}

// --- one value

static CUDA_BOTH void lars_move(const struct lars_factors *own, float g, float *w, float *m)
{
    float moved = product(own->momentum, *m) + product(own->ratio, g + product(own->decay, *w));
    *m = moved;
    *w -= product(own->rate, moved);
}

static CUDA_BOTH void sgd_move(const struct sgd_factors *own, float g, float *w, float *m)
{
    float gradient = product(own->gradient_rate, product(own->ratio, g + product(own->decay, *w)));
    float moved = product(own->momentum, *m) + gradient;
    *m = moved;
    *w -= product(own->rate, own->nesterov ? gradient + product(own->momentum, moved) : moved);
}

static CUDA_BOTH void adamw_move(const struct adamw_factors *own, float g, float *w, float *m,
                                 float *v)
{
    float first = product(own->beta1, *m) + product(own->rest1, g);
    float second = product(own->beta2, *v) + product(own->rest2, product(g, g));
    *m = first;
    *v = second;
    *w = product(own->keep, *w) -
         product(own->rate, first) / (sqrtf(second) / own->root + own->epsilon);
}

static CUDA_BOTH void target_follow(float *target, float w, float rate)
{
    *target += product(rate, w - *target);
}

#endif
