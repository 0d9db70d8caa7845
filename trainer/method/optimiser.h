// The optimiser a method was configured with, as device calls: what every method shares.
#ifndef TRAINER_METHOD_OPTIMISER_H
#define TRAINER_METHOD_OPTIMISER_H

#include "trainer/method/method.h"

// Flat blocks in device memory, as param_spans describe them.
struct optimiser_blocks {
    float *params;
    const float *grads;
    float *momentum;             // AdamW's first moment
    float *second_moment;        // AdamW only, as is
    float *steps;                // one float: the steps taken
    struct moving_target target; // follows params in the same pass; without its own: nobody does
};

bool optimiser_has_second_moment(const struct method_config *config);

// One step of `config->optimizer`; the learning rate is read from device memory.
enum status optimiser_step(struct device *device, const struct method_config *config,
                           const struct param_span *spans, size_t count, const float *learning_rate,
                           const struct optimiser_blocks *blocks);

// What the learning rate of a parameter is multiplied by; `name` as in the graph.
float optimiser_rate_of(const struct method_config *config, const char *name);

#endif
