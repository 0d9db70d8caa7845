// One step of BYOL on the device: forward, losses, backward, update. The same calls in every step,
// whatever the batch holds, so that a device may record them (queue.h).
#include "trainer/method/byol_internal.h"

#include "trainer/method/optimiser.h"
#include "trainer/net/data_init.h"

#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

enum status byol_failed(const struct byol *byol, enum status status, struct error *error)
{
    return error_set(error, status, NULL, NOWHERE, NOWHERE, "device '%s' failed in a step",
                     byol->device->ops->name);
}

// --- times

// Where the device works ahead, the host's clock knows nothing of its work unless it waits.
static bool tells_time(const struct byol *byol)
{
    return byol->device->ops->steps_ahead == 0 || byol->device->timed;
}

// Since `start`, once what was queued is done.
static enum status seconds_since(const struct byol *byol, double start, double *seconds)
{
    struct device *device = byol->device;
    enum status status = device->timed ? device->ops->synchronise(device) : STATUS_OK;
    *seconds = tells_time(byol) ? now() - start : 0;
    return status;
}

// Adds the seconds spent so far, times `sign`: called before and after a step, it leaves the step's
// own.
static void add_seconds(const struct byol *byol, double sign, struct method_metrics *metrics)
{
    const struct network *const networks[] = {byol->online, byol->target};
    for (size_t i = 0; i < 2 && tells_time(byol); i++) {
        double forward[OP_KINDS], backward[OP_KINDS];
        network_times(networks[i], forward, backward);
        for (size_t kind = 0; kind < OP_KINDS; kind++) {
            metrics->seconds[kind] += sign * (forward[kind] + backward[kind]);
            metrics->backward_seconds[kind] += sign * backward[kind];
        }
    }
}

// --- the work

// The pairs of the share that one micro-batch takes: `micro` from `first` on.
static enum status load_images(struct byol *byol, const void *const *parts, uint32_t first)
{
    struct device *device = byol->device;
    uint64_t floats = byol->micro * image_floats(byol);
    enum status status = STATUS_OK;
    for (unsigned v = 0; v < BYOL_VIEWS && status == STATUS_OK; v++) {
        status = device->ops->copy(device, byol->images + v * floats,
                                   (const float *)parts[v] + first * image_floats(byol),
                                   floats * sizeof(float));
    }
    if (status == STATUS_OK && byol->config.model.classes > 0) {
        status = device->ops->copy(device, byol->labels, (const int32_t *)parts[BYOL_VIEWS] + first,
                                   byol->micro * sizeof *byol->labels);
    }
    return status;
}

// Each view's predictions against the target's projections of the other; mean over the whole batch.
static enum status regress(struct byol *byol)
{
    struct device *device = byol->device;
    uint32_t micro = byol->micro, width = projection_width(byol);
    size_t half = (size_t)micro * width;
    const float *prediction = network_output(byol->online, "prediction");
    const float *projection = network_output(byol->target, "projection");
    float *gradient = network_output_gradient(byol->online, "prediction");
    float scale = 1.0f / (float)byol->config.batch;
    enum status status = device->ops->regression_loss(device, prediction, projection + half, micro,
                                                      width, scale, byol->losses, gradient, NULL);
    if (status == STATUS_OK) {
        status = device->ops->regression_loss(device, prediction + half, projection, micro, width,
                                              scale, byol->losses + micro, gradient + half, NULL);
    }
    return status;
}

// The classifier sees the labelled images of view 1; mean over those of the whole batch.
static enum status classify(struct byol *byol)
{
    struct device *device = byol->device;
    uint32_t micro = byol->micro, classes = (uint32_t)byol->config.model.classes;
    float *gradient = network_output_gradient(byol->online, "logits");
    if (gradient == NULL) {
        return STATUS_OK;
    }
    enum status status = device->ops->fill_zero(
        device, gradient, (size_t)BYOL_VIEWS * micro * classes * sizeof(float));
    if (status == STATUS_OK) {
        status = device->ops->softmax_loss(
            device, network_output(byol->online, "logits"), byol->labels, micro, classes,
            byol->rates + BYOL_LABELLED_SCALE, byol->losses + (size_t)2 * micro, gradient,
            byol->top, byol->top + micro);
    }
    return status;
}

static enum status compute_losses(struct byol *byol)
{
    // The projections are an output only so that their spread can be watched.
    struct device *device = byol->device;
    size_t floats = (size_t)BYOL_VIEWS * byol->micro * projection_width(byol);
    enum status status = device->ops->fill_zero(
        device, network_output_gradient(byol->online, "projection"), floats * sizeof(float));
    if (status == STATUS_OK) {
        status = regress(byol);
    }
    return status == STATUS_OK ? classify(byol) : status;
}

static enum status update(struct byol *byol)
{
    const struct optimiser_blocks blocks = {
        .params = byol->online_params,
        .grads = byol->gradients,
        .momentum = byol->momentum,
        .second_moment = byol->second_moment,
        .steps = byol->optimizer_steps,
        .target = {byol->target_params, byol->rates + BYOL_TARGET_RATE}};
    return optimiser_step(byol->device, &byol->config, byol->spans, graph_param_count(byol->graph),
                          byol->rates + BYOL_LEARNING_RATE, &blocks);
}

// The gradients of the whole batch, everywhere.
static enum status share_gradients(struct byol *byol)
{
    struct device *device = byol->device;
    return byol->peers == 1 ? STATUS_OK
                            : device->ops->block_sum_peers(device, byol->gradients,
                                                           graph_param_floats(byol->graph));
}

// Brings what the metrics are made of to its place in the share.
static enum status fetch(struct byol *byol, uint32_t first, struct byol_place *place)
{
    size_t share = byol->share, micro = byol->micro;
    size_t row = BYOL_VIEWS * projection_width(byol);
    float *projections = byol_place_projections(byol, place);
    uint8_t *top = byol_place_top(byol, place);
    enum status status =
        queue_fetch(byol->queue, projections + first * row,
                    network_output(byol->online, "projection"), micro * row * sizeof(float));
    for (size_t i = 0; i < 3 && status == STATUS_OK; i++) {
        status = queue_fetch(byol->queue, place->values + i * share + first,
                             byol->losses + i * micro, micro * sizeof(float));
    }
    for (size_t i = 0; i < 2 && status == STATUS_OK; i++) {
        status = queue_fetch(byol->queue, top + i * share + first, byol->top + i * micro, micro);
    }
    return status;
}

// Before the first step of a network without normalisation: its affine maps start from the batch
// that has been loaded, both views taken together; those of each branch from its own weights.
static enum status start_from_data(struct byol *byol, struct error *error)
{
    float done = 1;
    float *const branches[] = {byol->online_params, byol->target_params};
    const struct device_ops *ops = byol->device->ops;
    enum status status = STATUS_OK;
    if (!byol->started && byol->data_initialised != NULL) {
        status = ops->copy_out(byol->device, &done, byol->data_initialised, sizeof done);
    }
    if (status != STATUS_OK) {
        return byol_failed(byol, status, error);
    }
    byol->started = true;
    if (done != 0) {
        return STATUS_OK;
    }
    for (size_t i = 0; i < 2 && status == STATUS_OK; i++) {
        status = data_init(byol->device, &byol->config.model, "prediction", byol->images,
                           BYOL_VIEWS * byol->micro, branches[i], error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    done = 1;
    status = ops->copy_in(byol->device, byol->data_initialised, &done, sizeof done);
    return status == STATUS_OK ? STATUS_OK : byol_failed(byol, status, error);
}

static enum status forward_both(struct byol *byol, struct error *error)
{
    enum status status = network_forward(byol->target, byol->target_params, byol->target_state,
                                         byol->images, OP_TRAIN, error);
    if (status == STATUS_OK) {
        status = network_forward(byol->online, byol->online_params, byol->online_state,
                                 byol->images, OP_TRAIN, error);
    }
    return status;
}

// Forward, losses and gradients of the micro-batch in `images`; its gradients come to those of the
// micro-batches before it.
static enum status differentiate(struct byol *byol, uint32_t first, struct error *error)
{
    struct device *device = byol->device;
    enum status status = forward_both(byol, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = compute_losses(byol);
    if (status != STATUS_OK) {
        return byol_failed(byol, status, error);
    }
    float *gradients = first == 0 ? byol->gradients : byol->piece;
    status = network_backward(byol->online, byol->online_params, gradients, byol->images, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (first > 0) {
        status = device->ops->block_add(device, byol->gradients, gradients,
                                        graph_param_floats(byol->graph));
    }
    return status == STATUS_OK ? STATUS_OK : byol_failed(byol, status, error);
}

// Gradients of the share, and what the metrics are made of.
static enum status run_share(struct byol *byol, const void *const *parts, struct byol_place *place,
                             struct error *error)
{
    for (uint32_t first = 0; first < byol->share; first += byol->micro) {
        enum status status = load_images(byol, parts, first);
        if (status != STATUS_OK) {
            return byol_failed(byol, status, error);
        }
        status = start_from_data(byol, error);
        if (status == STATUS_OK) {
            status = differentiate(byol, first, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
        status = fetch(byol, first, place);
        if (status != STATUS_OK) {
            return byol_failed(byol, status, error);
        }
    }
    return STATUS_OK;
}

enum status byol_work(void *context, const void *const *parts, void *place, struct error *error)
{
    struct byol *byol = context;
    struct method_metrics *metrics = &((struct byol_place *)place)->metrics;
    add_seconds(byol, -1, metrics);
    enum status status = run_share(byol, parts, place, error);
    if (status != STATUS_OK) {
        return status;
    }
    double start = now();
    status = share_gradients(byol);
    if (status == STATUS_OK) {
        status = seconds_since(byol, start, &metrics->exchange_seconds);
    }
    start = now();
    if (status == STATUS_OK) {
        status = update(byol);
    }
    if (status == STATUS_OK) {
        status = seconds_since(byol, start, &metrics->optimiser_seconds);
    }
    add_seconds(byol, 1, metrics);
    return status == STATUS_OK ? STATUS_OK : byol_failed(byol, status, error);
}

// --- from the host

// The share's labels, -1 without; and how many pairs of the whole batch have one.
static enum status take_labels(struct byol *byol, const int32_t *labels, struct byol_place *place,
                               struct error *error)
{
    int32_t *own = byol_place_labels(byol, place);
    bool known = labels != NULL && byol->config.model.classes > 0;
    double count = 0;
    for (uint32_t i = 0; i < byol->share; i++) {
        own[i] = known ? labels[i] : -1;
        count += own[i] >= 0;
        if (own[i] >= byol->config.model.classes) {
            return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                             "image %u of the batch is of class %d, there are %lld", i, own[i],
                             (long long)byol->config.model.classes);
        }
    }
    enum status status = known ? byol_add_up(byol, &count, 1) : STATUS_OK;
    place->labelled = (uint32_t)count;
    return status == STATUS_OK ? STATUS_OK : byol_failed(byol, status, error);
}

enum status byol_step(struct method *method, const float *const *view, const int32_t *labels,
                      const struct method_step *step, struct error *error)
{
    struct byol *byol = byol_of(method);
    void *memory;
    enum status status = queue_place(byol->queue, &memory, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct byol_place *place = memory;
    memset(&place->metrics, 0, sizeof place->metrics);
    status = take_labels(byol, labels, place, error);
    if (status != STATUS_OK) {
        return status;
    }
    place->rates[BYOL_LEARNING_RATE] = step->learning_rate;
    place->rates[BYOL_TARGET_RATE] = 1.0f - step->tau;
    place->rates[BYOL_LABELLED_SCALE] = place->labelled > 0 ? 1.0f / (float)place->labelled : 0;
    const void *const parts[] = {view[0], view[1], byol_place_labels(byol, place)};
    return queue_step(byol->queue, parts, error);
}
