// What an optimiser's settings come to for one span: the factors its loop over the values uses, the
// same on every device. In double precision, rounded once. C and C++, host and GPU. Private to the
// devices.
#ifndef TRAINER_DEVICE_OPTIM_H
#define TRAINER_DEVICE_OPTIM_H

#include "trainer/device/device.h"

#include <math.h>

#if defined(__CUDACC__)
#define OPTIM_FACTORS static __host__ __device__ __forceinline__
#else
#define OPTIM_FACTORS static inline
#endif

// m = momentum m + ratio (g + decay w); w -= rate m
struct lars_factors {
    float momentum, ratio, decay, rate;
};

// Norms of w and of g + decay w; looked at only for decay spans.
OPTIM_FACTORS struct lars_factors lars_factors_of(const struct lars_settings *settings,
                                                  const struct param_span *span, double weight_norm,
                                                  double gradient_norm)
{
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

// g' = gradient_rate (ratio (g + decay w)); m = momentum m + g';
// w -= rate (nesterov ? g' + momentum m : m)
struct sgd_factors {
    float gradient_rate, ratio, decay, momentum, rate;
    bool nesterov;
};

#define OPTIM_RATIO_EPSILON 1e-8 // of solo-learn and suncet

OPTIM_FACTORS double optim_separate_ratio(const struct gradient_settings *settings, double rate,
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

// Norms of w and of g; looked at only where the ratio applies.
OPTIM_FACTORS struct sgd_factors sgd_factors_of(const struct sgd_settings *settings,
                                                const struct param_span *span, double weight_norm,
                                                double gradient_norm)
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
    } else if (span->decay && weight_norm > 0 && gradient_norm > 0) {
        factors.decay = gradient->weight_decay;
        factors.ratio =
            (float)optim_separate_ratio(gradient, (double)rate, weight_norm, gradient_norm);
    }
    return factors;
}

// m = beta1 m + rest1 g; v = beta2 v + rest2 g^2; w = keep w - rate m / (sqrt(v) / root + epsilon)
struct adamw_factors {
    float beta1, rest1, beta2, rest2, keep, rate, root, epsilon;
};

OPTIM_FACTORS struct adamw_factors adamw_factors_of(const struct adamw_settings *settings,
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

#endif
