// What BYOL owns, shared by the files that open it (byol.c), queue its steps (byol_step.c) and
// collect them (byol_metrics.c).
#ifndef TRAINER_METHOD_BYOL_INTERNAL_H
#define TRAINER_METHOD_BYOL_INTERNAL_H

#include "trainer/method/byol.h"
#include "trainer/method/queue.h"

#define BYOL_VIEWS 2u

// What the metrics are made of, over all pairs.
enum { BYOL_REGRESSION, BYOL_CLASSIFICATION, BYOL_TOP1, BYOL_TOP5, BYOL_SUMS };

// What the device is told anew for each step.
enum { BYOL_LEARNING_RATE, BYOL_TARGET_RATE, BYOL_LABELLED_SCALE, BYOL_RATES };

// What a step brings and leaves on the host, over this process's share. The values are losses [3
// share], view 1 to 2, view 2 to 1, classifier; projections [2 share][width], micro-batch after
// micro-batch; labels [share], -1 for none; top 1 and top 5 [2 share]: see byol_place_*.
struct byol_place {
    float rates[BYOL_RATES];       // first: what the queue brings to the device
    uint32_t labelled;             // pairs of the whole batch with a label
    struct method_metrics metrics; // the times
    float values[];
};

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
    float *rates;            // [BYOL_RATES]
    void *views_scratch;     // of render_views; NULL without config.bytes
    int32_t *labels;
    uint8_t *top; // [2 micro]: top 1, top 5
    uint64_t device_bytes;

    struct queue *queue; // its places are struct byol_place
    bool started;        // nothing is left to be done before a step (data_init.h)
    double *sums;        // of the metrics, which peers add up: BYOL_SUMS, then those of the spread
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

// The parts of a batch: view after view, or bytes after bytes and then records after records;
// labels.
static inline size_t byol_labels_part(const struct byol *byol)
{
    return byol->config.bytes ? 2 * BYOL_VIEWS : BYOL_VIEWS;
}

static inline uint32_t projection_width(const struct byol *byol)
{
    return (uint32_t)byol->config.model.projector_output;
}

static inline float *byol_place_projections(const struct byol *byol, struct byol_place *place)
{
    return place->values + 3 * (size_t)byol->share;
}

static inline int32_t *byol_place_labels(const struct byol *byol, struct byol_place *place)
{
    size_t rows = BYOL_VIEWS * (size_t)byol->share;
    void *after = byol_place_projections(byol, place) + rows * projection_width(byol);
    return after;
}

static inline uint8_t *byol_place_top(const struct byol *byol, struct byol_place *place)
{
    return (uint8_t *)(byol_place_labels(byol, place) + byol->share);
}

static inline size_t byol_place_bytes(const struct byol *byol)
{
    size_t share = byol->share;
    return sizeof(struct byol_place) +
           share *
               ((3 + BYOL_VIEWS * projection_width(byol)) * sizeof(float) + sizeof(int32_t) + 2);
}

// Sums become those of all processes that share the batch.
static inline enum status byol_add_up(const struct byol *byol, double *sums, size_t count)
{
    const struct device_peers *peers = byol->device->peers;
    return peers == NULL ? STATUS_OK : peers->sum(peers->context, sums, count);
}

// The queue's work: a whole step on the device.
enum status byol_work(void *context, const void *const *parts, void *place, struct error *error);

enum status byol_step(struct method *method, const float *const *view, const int32_t *labels,
                      const struct method_step *step, struct error *error);
enum status byol_step_bytes(struct method *method, const uint8_t *const *bytes,
                            const struct view_record *const *drawn, const int32_t *labels,
                            const struct method_step *step, struct error *error);
enum status byol_collect(struct method *method, struct method_metrics *metrics,
                         struct error *error);

#endif
