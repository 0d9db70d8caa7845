// Optimisers put together from what a device offers.
#include "trainer/method/optimiser.h"

#include <string.h>

bool optimiser_has_second_moment(const struct method_config *config)
{
    return config->optimizer == OPTIMIZER_ADAMW;
}

float optimiser_rate_of(const struct method_config *config, const char *name)
{
    for (size_t i = 0; i < METHOD_RATES && config->rates[i].module != NULL; i++) {
        size_t len = strlen(config->rates[i].module);
        if (strncmp(name, config->rates[i].module, len) == 0 && name[len] == '/') {
            return (float)config->rates[i].scale;
        }
    }
    return 1.0f;
}

static const struct moving_target *target_of(const struct optimiser_blocks *blocks)
{
    return blocks->target.params == NULL ? NULL : &blocks->target;
}

static enum status lars_step(struct device *device, const struct method_config *config,
                             const struct param_span *spans, size_t count,
                             const float *learning_rate, const struct optimiser_blocks *blocks)
{
    const struct lars_settings settings = {.learning_rate = learning_rate,
                                           .weight_decay = (float)config->weight_decay,
                                           .momentum = (float)config->momentum,
                                           .trust = (float)config->trust};
    return device->ops->lars_step(device, spans, count, &settings, blocks->params, blocks->grads,
                                  blocks->momentum, target_of(blocks));
}

static enum status adamw_step(struct device *device, const struct method_config *config,
                              const struct param_span *spans, size_t count,
                              const float *learning_rate, const struct optimiser_blocks *blocks)
{
    const struct adamw_settings settings = {.learning_rate = learning_rate,
                                            .weight_decay = config->weight_decay,
                                            .beta1 = config->beta1,
                                            .beta2 = config->beta2,
                                            .epsilon = config->epsilon};
    return device->ops->adamw_step(device, spans, count, &settings, blocks->params, blocks->grads,
                                   blocks->momentum, blocks->second_moment, blocks->steps,
                                   target_of(blocks));
}

// SGD, and the LARS that are SGD with other gradients.
static enum status sgd_step(struct device *device, const struct method_config *config,
                            const struct param_span *spans, size_t count,
                            const float *learning_rate, const struct optimiser_blocks *blocks)
{
    const struct sgd_settings settings = {
        .learning_rate = learning_rate,
        .momentum = (float)config->momentum,
        .nesterov = config->nesterov,
        .gradient = {.weight_decay = (float)config->weight_decay,
                     .adaptive = config->optimizer != OPTIMIZER_SGD,
                     .trust = (float)config->trust,
                     .clip = config->lars_clip,
                     .rate_first = config->optimizer == OPTIMIZER_LARS_SUNCET}};
    return device->ops->sgd_step(device, spans, count, &settings, blocks->params, blocks->grads,
                                 blocks->momentum, target_of(blocks));
}

enum status optimiser_step(struct device *device, const struct method_config *config,
                           const struct param_span *spans, size_t count, const float *learning_rate,
                           const struct optimiser_blocks *blocks)
{
    switch ((enum optimizer)config->optimizer) {
    case OPTIMIZER_LARS:
        return lars_step(device, config, spans, count, learning_rate, blocks);
    case OPTIMIZER_ADAMW:
        return adamw_step(device, config, spans, count, learning_rate, blocks);
    case OPTIMIZER_LARS_SOLO_LEARN:
    case OPTIMIZER_LARS_SUNCET:
    case OPTIMIZER_SGD:
        break;
    }
    return sgd_step(device, config, spans, count, learning_rate, blocks);
}
