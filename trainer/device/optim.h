// What an optimiser's settings come to for one span: the factors its loop over the values uses,
// the same on every device. Private to trainer/device.
#ifndef TRAINER_DEVICE_OPTIM_H
#define TRAINER_DEVICE_OPTIM_H

#include "trainer/device/device.h"

// g = rate (ratio (g + decay w))
struct gradient_factors {
    float rate, ratio, decay;
};

// The norms are looked at only where the ratio applies.
struct gradient_factors gradient_factors(const struct gradient_settings *settings,
                                         const struct param_span *span, double weight_norm,
                                         double gradient_norm);

// m = beta1 m + rest1 g; v = beta2 v + rest2 g^2; w = keep w - rate m / (sqrt(v) / root + epsilon)
struct adamw_factors {
    float beta1, rest1, beta2, rest2, keep, rate, root, epsilon;
};

struct adamw_factors adamw_factors(const struct adamw_settings *settings,
                                   const struct param_span *span, float steps);

#endif
