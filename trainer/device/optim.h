// What an optimiser's settings come to for one span: the factors its loop over the values uses,
// the same on every device whose
// memory is the host's. Private to trainer/device.
#ifndef TRAINER_DEVICE_OPTIM_H
#define TRAINER_DEVICE_OPTIM_H

#include "trainer/device/device.h"

// m = momentum m + ratio (g + decay w); w -= rate m
struct lars_factors {
    float momentum, ratio, decay, rate;
};

// Norms of w and of g + decay w; looked at only for decay spans.
struct lars_factors lars_factors(const struct lars_settings *settings,
                                 const struct param_span *span, double weight_norm,
                                 double gradient_norm);

// g' = gradient_rate (ratio (g + decay w)); m = momentum m + g';
// w -= rate (nesterov ? g' + momentum m : m)
struct sgd_factors {
    float gradient_rate, ratio, decay, momentum, rate;
    bool nesterov;
};

// Norms of w and of g; looked at only where the ratio applies.
struct sgd_factors sgd_factors(const struct sgd_settings *settings, const struct param_span *span,
                               double weight_norm, double gradient_norm);

// m = beta1 m + rest1 g; v = beta2 v + rest2 g^2; w = keep w - rate m / (sqrt(v) / root + epsilon)
struct adamw_factors {
    float beta1, rest1, beta2, rest2, keep, rate, root, epsilon;
};

struct adamw_factors adamw_factors(const struct adamw_settings *settings,
                                   const struct param_span *span, float steps);

#endif
