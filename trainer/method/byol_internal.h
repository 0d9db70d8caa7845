// What BYOL owns, shared by the files that open it (byol.c) and take its steps (byol_step.c).
#ifndef TRAINER_METHOD_BYOL_INTERNAL_H
#define TRAINER_METHOD_BYOL_INTERNAL_H

#include "trainer/method/byol.h"

#define BYOL_VIEWS 2u

// What the metrics are made of, over all pairs.
enum { BYOL_REGRESSION, BYOL_CLASSIFICATION, BYOL_TOP1, BYOL_TOP5, BYOL_SUMS };

// What the device is told anew for each step.
enum { BYOL_LEARNING_RATE, BYOL_TARGET_RATE, BYOL_LABELLED_SCALE, BYOL_RATES };

struct byol {
    struct method method;
    struct device *device;
    struct method_config config;
    struct graph *graph;
    struct network *online, *target;
    struct param_span *spans;
    uint32_t peers; // processes that share each batch, 1 alone
    uint32_t share; // pairs of the batch that are this process's
    uint32_t micro; // pairs per micro-batch: what the networks take at once

    // Device memory. The parameter blocks have graph_param_floats, the states graph_state_floats.
    float *online_params, *target_params, *momentum, *gradients;
    float *piece; // gradients of one micro-batch; NULL when there is only one
    float *second_moment, *optimizer_steps; // NULL for all but AdamW
    float *online_state, *target_state;
    float *data_initialised; // one value, saved with the rest: not 0 once the first batch has been
                             // seen (data_init.h); of no use to other networks, and NULL there
    float *images;           // [2 micro][size][size][3]
    float *losses;           // [3 micro]: view 1 to 2, view 2 to 1, classifier
    float *rates;            // [BYOL_RATES]: what changes from step to step
    int32_t *labels;
    uint8_t *top; // [2 micro]: top 1, top 5
    uint64_t device_bytes;

    // Host copies over this process's share, for the metrics: [3 share] and [2 share] in the same
    // order, projections [2 share][width], micro-batch after micro-batch; and their sums, which
    // peers add up (BYOL_SUMS, then those of the spread).
    float *host_losses, *host_projections;
    uint8_t *host_top;
    double *sums;
};

static inline struct byol *byol_of(struct method *method)
{
    return (struct byol *)method;
}

static inline const struct byol *const_byol_of(const struct method *method)
{
    return (const struct byol *)method;
}

static inline uint64_t image_floats(const struct byol *byol)
{
    return 3 * (uint64_t)byol->config.model.size * (uint64_t)byol->config.model.size;
}

static inline uint32_t projection_width(const struct byol *byol)
{
    return (uint32_t)byol->config.model.projector_output;
}

enum status byol_step(struct method *method, const float *const *view, const int32_t *labels,
                      const struct method_step *step, struct method_metrics *metrics,
                      struct error *error);

#endif
