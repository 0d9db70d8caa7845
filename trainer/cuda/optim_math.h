// Arithmetic of the optimisers: what their settings come to for one span, and one step of one
// value. Formulas: device.h. Private to the cuda device; C and C++, host and device.
#ifndef TRAINER_CUDA_OPTIM_MATH_H
#define TRAINER_CUDA_OPTIM_MATH_H

#include "trainer/cuda/lanes.h"
#include "trainer/device/optim.h"

#include <math.h>

#define OPTIM_RATIO_EPSILON 1e-8 // of solo-learn and suncet

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

// --- factors of one span; the learning rate is read where the settings point

static CUDA_BOTH struct lars_factors lars_factors_of(const struct lars_settings *settings,
                                                     const struct param_span *span,
                                                     const struct square_sums *sums)
{
    double weight_norm = sqrt(sums->weights), gradient_norm = sqrt(sums->gradients);
    struct lars_factors factors;
    factors.momentum = settings->momentum;
    factors.ratio = 1.0f;
    factors.decay = span->decay ? settings->weight_decay : 0.0f;
    factors.rate = *settings->learning_rate * span->learning_rate_scale;
    if (span->decay && weight_norm != 0 && gradient_norm != 0) {
        factors.ratio = (float)((double)settings->trust * weight_norm / gradient_norm);
    }
    return factors;
}

static CUDA_BOTH double separate_ratio_of(const struct gradient_settings *settings, double rate,
                                          double weight_norm, double gradient_norm)
{
    double decay = (double)settings->weight_decay;
    double ratio = (double)settings->trust * weight_norm /
                   (gradient_norm + decay * weight_norm + OPTIM_RATIO_EPSILON);
    if (!settings->clip) {
        return ratio;
    }
    return ratio < rate ? ratio / rate : 1;
}

static CUDA_BOTH struct sgd_factors sgd_factors_of(const struct sgd_settings *settings,
                                                   const struct param_span *span,
                                                   const struct square_sums *sums)
{
    const struct gradient_settings *gradient = &settings->gradient;
    float learning_rate = *settings->learning_rate;
    float rate = learning_rate * span->learning_rate_scale;
    struct sgd_factors factors;
    factors.gradient_rate = gradient->rate_first ? learning_rate : 1.0f;
    factors.ratio = 1.0f;
    factors.decay = 0.0f;
    factors.momentum = settings->momentum;
    factors.rate = gradient->rate_first ? span->learning_rate_scale : rate;
    factors.nesterov = settings->nesterov;
    if (span->decay && !gradient->adaptive) {
        factors.decay = gradient->weight_decay;
    } else if (span->decay && sums->weights > 0 && sums->gradients > 0) {
        factors.decay = gradient->weight_decay;
        factors.ratio = (float)separate_ratio_of(gradient, (double)rate, sqrt(sums->weights),
                                                 sqrt(sums->gradients));
    }
    return factors;
}

static CUDA_BOTH struct adamw_factors adamw_factors_of(const struct adamw_settings *settings,
                                                       const struct param_span *span, float steps)
{
    double rate = (double)(*settings->learning_rate * span->learning_rate_scale);
    struct adamw_factors factors;
    factors.beta1 = (float)settings->beta1;
    factors.rest1 = (float)(1 - settings->beta1);
    factors.beta2 = (float)settings->beta2;
    factors.rest2 = (float)(1 - settings->beta2);
    factors.keep = (float)(1 - (span->decay ? rate * settings->weight_decay : 0));
    factors.rate = (float)(rate / (1 - pow(settings->beta1, (double)steps)));
    factors.root = (float)sqrt(1 - pow(settings->beta2, (double)steps));
    factors.epsilon = (float)settings->epsilon;
    return factors;
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
