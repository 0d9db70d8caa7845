// One step of BYOL: forward, losses, backward, update, metrics.
#include "trainer/method/byol_internal.h"

#include "trainer/method/optimiser.h"
#include "trainer/method/spread.h"
#include "trainer/net/data_init.h"

#include <math.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// The pairs of the batch that one micro-batch takes: `micro` from `first` on.
static enum status load_images(struct byol *byol, const float *const *view, const int32_t *labels,
                               uint32_t first)
{
    struct device *device = byol->device;
    uint64_t floats = byol->micro * image_floats(byol);
    enum status status = STATUS_OK;
    for (unsigned v = 0; v < BYOL_VIEWS && status == STATUS_OK; v++) {
        status = device->ops->copy_in(device, byol->images + v * floats,
                                      view[v] + first * image_floats(byol), floats * sizeof(float));
    }
    if (status == STATUS_OK && labels != NULL) {
        status = device->ops->copy_in(device, byol->labels, labels + first,
                                      byol->micro * sizeof *labels);
    }
    return status;
}

static uint32_t count_labelled(const struct byol *byol, const int32_t *labels)
{
    uint32_t count = 0;
    for (uint32_t i = 0; labels != NULL && i < byol->config.batch; i++) {
        count += labels[i] >= 0;
    }
    return byol->config.model.classes > 0 ? count : 0;
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
static enum status classify(struct byol *byol, uint32_t labelled)
{
    struct device *device = byol->device;
    uint32_t micro = byol->micro, classes = (uint32_t)byol->config.model.classes;
    float *gradient = network_output_gradient(byol->online, "logits");
    if (gradient == NULL) {
        return STATUS_OK;
    }
    enum status status = device->ops->fill_zero(
        device, gradient, (size_t)BYOL_VIEWS * micro * classes * sizeof(float));
    if (status == STATUS_OK && labelled > 0) {
        status = device->ops->softmax_loss(device, network_output(byol->online, "logits"),
                                           byol->labels, micro, classes, 1.0f / (float)labelled,
                                           byol->losses + (size_t)2 * micro, gradient, byol->top,
                                           byol->top + micro);
    }
    return status;
}

static enum status compute_losses(struct byol *byol, uint32_t labelled)
{
    // The projections are an output only so that their spread can be watched.
    struct device *device = byol->device;
    size_t floats = (size_t)BYOL_VIEWS * byol->micro * projection_width(byol);
    enum status status = device->ops->fill_zero(
        device, network_output_gradient(byol->online, "projection"), floats * sizeof(float));
    if (status == STATUS_OK) {
        status = regress(byol);
    }
    return status == STATUS_OK ? classify(byol, labelled) : status;
}

static enum status update(struct byol *byol, const struct method_step *step)
{
    struct device *device = byol->device;
    const struct optimiser_blocks blocks = {.params = byol->online_params,
                                            .grads = byol->gradients,
                                            .momentum = byol->momentum,
                                            .second_moment = byol->second_moment,
                                            .steps = byol->optimizer_steps,
                                            .target = {byol->target_params, 1.0f - step->tau}};
    enum status status =
        optimiser_step(device, &byol->config, byol->spans, graph_param_count(byol->graph),
                       step->learning_rate, &blocks);
    return status == STATUS_OK ? device->ops->synchronise(device) : status;
}

// Copies what the metrics are made of to its place in the whole batch.
static enum status fetch(struct byol *byol, uint32_t first)
{
    struct device *device = byol->device;
    size_t batch = byol->config.batch, micro = byol->micro;
    size_t row = BYOL_VIEWS * projection_width(byol);
    enum status status = device->ops->copy_out(device, byol->host_projections + first * row,
                                               network_output(byol->online, "projection"),
                                               micro * row * sizeof(float));
    for (size_t i = 0; i < 3 && status == STATUS_OK; i++) {
        status = device->ops->copy_out(device, byol->host_losses + i * batch + first,
                                       byol->losses + i * micro, micro * sizeof(float));
    }
    for (size_t i = 0; i < 2 && status == STATUS_OK; i++) {
        status = device->ops->copy_out(device, byol->host_top + i * batch + first,
                                       byol->top + i * micro, micro);
    }
    return status;
}

// --- metrics

static double mean_of(const float *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
    }
    return sum / (double)count;
}

static void measure(struct byol *byol, const int32_t *labels, uint32_t labelled,
                    struct method_metrics *metrics)
{
    size_t batch = byol->config.batch;
    metrics->representation = 2 * mean_of(byol->host_losses, 2 * batch); // both directions
    metrics->classification = 0;
    metrics->top1 = metrics->top5 = NAN;
    if (labelled > 0) {
        size_t hits = 0, near_hits = 0;
        for (size_t i = 0; i < batch; i++) {
            hits += labels[i] >= 0 && byol->host_top[i];
            near_hits += labels[i] >= 0 && byol->host_top[batch + i];
        }
        double images = (double)batch / (double)labelled;
        metrics->classification = mean_of(byol->host_losses + 2 * batch, batch) * images;
        metrics->top1 = (double)hits / (double)labelled;
        metrics->top5 = (double)near_hits / (double)labelled;
    }
    metrics->loss = metrics->representation + metrics->classification;
    const struct spread spread =
        spread_of(byol->host_projections, batch, byol->micro, projection_width(byol));
    metrics->spread = spread.deviation;
    metrics->positive_cosine = spread.positive_cosine;
    metrics->negative_cosine = spread.negative_cosine;
}

// Adds the seconds spent so far, times `sign`: called before and after a step, it leaves the step's
// own.
static void add_seconds(const struct byol *byol, double sign, double seconds[OP_KINDS])
{
    const struct network *const networks[] = {byol->online, byol->target};
    for (size_t i = 0; i < 2; i++) {
        double forward[OP_KINDS], backward[OP_KINDS];
        network_times(networks[i], forward, backward);
        for (size_t kind = 0; kind < OP_KINDS; kind++) {
            seconds[kind] += sign * (forward[kind] + backward[kind]);
        }
    }
}

static enum status failed(const struct byol *byol, enum status status, struct error *error)
{
    return error_set(error, status, NULL, NOWHERE, NOWHERE, "device '%s' failed in a step",
                     byol->device->ops->name);
}

// Before the first step of a network without normalisation: its affine maps start from the batch
// that has been loaded, both views taken together; those of each branch from its own weights.
static enum status start_from_data(struct byol *byol, struct error *error)
{
    float done = 1;
    float *const branches[] = {byol->online_params, byol->target_params};
    const struct device_ops *ops = byol->device->ops;
    enum status status = STATUS_OK;
    if (byol->data_initialised != NULL) {
        status = ops->copy_out(byol->device, &done, byol->data_initialised, sizeof done);
    }
    if (status != STATUS_OK) {
        return failed(byol, status, error);
    }
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
    return status == STATUS_OK ? STATUS_OK : failed(byol, status, error);
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
static enum status differentiate(struct byol *byol, uint32_t first, uint32_t labelled,
                                 struct error *error)
{
    struct device *device = byol->device;
    enum status status = forward_both(byol, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = compute_losses(byol, labelled);
    if (status != STATUS_OK) {
        return failed(byol, status, error);
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
    return status == STATUS_OK ? STATUS_OK : failed(byol, status, error);
}

enum status byol_step(struct method *method, const float *const *view, const int32_t *labels,
                      const struct method_step *step, struct method_metrics *metrics,
                      struct error *error)
{
    struct byol *byol = byol_of(method);
    memset(metrics, 0, sizeof *metrics);
    add_seconds(byol, -1, metrics->seconds);
    uint32_t labelled = count_labelled(byol, labels);
    for (uint32_t first = 0; first < byol->config.batch; first += byol->micro) {
        enum status status = load_images(byol, view, labelled > 0 ? labels : NULL, first);
        if (status != STATUS_OK) {
            return failed(byol, status, error);
        }
        status = start_from_data(byol, error);
        if (status == STATUS_OK) {
            status = differentiate(byol, first, labelled, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
        status = fetch(byol, first);
        if (status != STATUS_OK) {
            return failed(byol, status, error);
        }
    }
    double start = now();
    enum status status = update(byol, step);
    metrics->optimiser_seconds = now() - start;
    if (status != STATUS_OK) {
        return failed(byol, status, error);
    }
    measure(byol, labels, labelled, metrics);
    add_seconds(byol, 1, metrics->seconds);
    return STATUS_OK;
}
