// Factors of the optimisers, in double precision and rounded once.
#include "trainer/device/optim.h"

#include <math.h>

#define RATIO_EPSILON 1e-8 // of solo-learn and suncet

struct lars_factors lars_factors(const struct lars_settings *settings,
                                 const struct param_span *span, double weight_norm,
                                 double gradient_norm)
{
    struct lars_factors factors = {.momentum = settings->momentum,
                                   .ratio = 1.0f,
                                   .rate = *settings->learning_rate * span->learning_rate_scale};
    if (span->decay) {
        factors.decay = settings->weight_decay;
    }
    if (span->decay && weight_norm != 0 && gradient_norm != 0) {
        factors.ratio = (float)((double)settings->trust * weight_norm / gradient_norm);
    }
    return factors;
}

static double separate_ratio(const struct gradient_settings *settings, double rate,
                             double weight_norm, double gradient_norm)
{
    double decay = (double)settings->weight_decay;
    double ratio = (double)settings->trust * weight_norm /
                   (gradient_norm + decay * weight_norm + RATIO_EPSILON);
    if (!settings->clip) {
        return ratio;
    }
    return ratio < rate ? ratio / rate : 1;
}

struct sgd_factors sgd_factors(const struct sgd_settings *settings, const struct param_span *span,
                               double weight_norm, double gradient_norm)
{
    const struct gradient_settings *gradient = &settings->gradient;
    float rate = *settings->learning_rate * span->learning_rate_scale;
    struct sgd_factors factors = {.gradient_rate =
                                      gradient->rate_first ? *settings->learning_rate : 1.0f,
                                  .ratio = 1.0f,
                                  .momentum = settings->momentum,
                                  .rate = gradient->rate_first ? span->learning_rate_scale : rate,
                                  .nesterov = settings->nesterov};
    if (span->decay && !gradient->adaptive) {
        factors.decay = gradient->weight_decay;
    } else if (span->decay && weight_norm > 0 && gradient_norm > 0) {
        factors.decay = gradient->weight_decay;
        factors.ratio = (float)separate_ratio(gradient, (double)rate, weight_norm, gradient_norm);
    }
    return factors;
}

struct adamw_factors adamw_factors(const struct adamw_settings *settings,
                                   const struct param_span *span, float steps)
{
    double rate = (double)(*settings->learning_rate * span->learning_rate_scale);
    return (struct adamw_factors){
        .beta1 = (float)settings->beta1,
        .rest1 = (float)(1 - settings->beta1),
        .beta2 = (float)settings->beta2,
        .rest2 = (float)(1 - settings->beta2),
        .keep = (float)(1 - (span->decay ? rate * settings->weight_decay : 0)),
        .rate = (float)(rate / (1 - pow(settings->beta1, (double)steps))),
        .root = (float)sqrt(1 - pow(settings->beta2, (double)steps)),
        .epsilon = (float)settings->epsilon,
    };
}
