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

// The pairs of the share that one micro-batch takes: `micro` from `first` on.
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

// Sums become those of all processes that share the batch.
static enum status add_up(const struct byol *byol, double *sums, size_t count)
{
    const struct device_peers *peers = byol->device->peers;
    return peers == NULL ? STATUS_OK : peers->sum(peers->context, sums, count);
}

// Pairs of the whole batch with a label.
static enum status count_labelled(const struct byol *byol, const int32_t *labels,
                                  uint32_t *labelled)
{
    double count = 0;
    *labelled = 0;
    if (labels == NULL || byol->config.model.classes == 0) {
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < byol->share; i++) {
        count += labels[i] >= 0;
    }
    enum status status = add_up(byol, &count, 1);
    *labelled = (uint32_t)count;
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
        status = device->ops->softmax_loss(
            device, network_output(byol->online, "logits"), byol->labels, micro, classes,
            byol->rates + BYOL_LABELLED_SCALE, byol->losses + (size_t)2 * micro, gradient,
            byol->top, byol->top + micro);
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

// What this step reads on the device: it stands there before the first op runs.
static enum status send_rates(struct byol *byol, const struct method_step *step, uint32_t labelled)
{
    const float rates[BYOL_RATES] = {
        [BYOL_LEARNING_RATE] = step->learning_rate,
        [BYOL_TARGET_RATE] = 1.0f - step->tau,
        [BYOL_LABELLED_SCALE] = labelled > 0 ? 1.0f / (float)labelled : 0,
    };
    return byol->device->ops->copy_in(byol->device, byol->rates, rates, sizeof rates);
}

static enum status update(struct byol *byol)
{
    struct device *device = byol->device;
    const struct optimiser_blocks blocks = {
        .params = byol->online_params,
        .grads = byol->gradients,
        .momentum = byol->momentum,
        .second_moment = byol->second_moment,
        .steps = byol->optimizer_steps,
        .target = {byol->target_params, byol->rates + BYOL_TARGET_RATE}};
    enum status status =
        optimiser_step(device, &byol->config, byol->spans, graph_param_count(byol->graph),
                       byol->rates + BYOL_LEARNING_RATE, &blocks);
    return status == STATUS_OK ? device->ops->synchronise(device) : status;
}

// The gradients of the whole batch, everywhere.
static enum status share_gradients(struct byol *byol, struct method_metrics *metrics)
{
    double start = now();
    struct device *device = byol->device;
    enum status status = byol->peers == 1
                             ? STATUS_OK
                             : device->ops->block_sum_peers(device, byol->gradients,
                                                            graph_param_floats(byol->graph));
    metrics->exchange_seconds = now() - start;
    return status;
}

// Copies what the metrics are made of to its place in the share.
static enum status fetch(struct byol *byol, uint32_t first)
{
    struct device *device = byol->device;
    size_t share = byol->share, micro = byol->micro;
    size_t row = BYOL_VIEWS * projection_width(byol);
    enum status status = device->ops->copy_out(device, byol->host_projections + first * row,
                                               network_output(byol->online, "projection"),
                                               micro * row * sizeof(float));
    for (size_t i = 0; i < 3 && status == STATUS_OK; i++) {
        status = device->ops->copy_out(device, byol->host_losses + i * share + first,
                                       byol->losses + i * micro, micro * sizeof(float));
    }
    for (size_t i = 0; i < 2 && status == STATUS_OK; i++) {
        status = device->ops->copy_out(device, byol->host_top + i * share + first,
                                       byol->top + i * micro, micro);
    }
    return status;
}

// --- metrics

static double sum_of(const float *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
    }
    return sum;
}

// Sums over the share of this process, and then over all.
static enum status sum_up(struct byol *byol, const int32_t *labels)
{
    size_t share = byol->share, width = projection_width(byol);
    double *sums = byol->sums;
    memset(sums, 0, BYOL_SUMS * sizeof *sums);
    sums[BYOL_REGRESSION] = sum_of(byol->host_losses, 2 * share); // both directions
    sums[BYOL_CLASSIFICATION] = sum_of(byol->host_losses + 2 * share, share);
    for (size_t i = 0; labels != NULL && i < share; i++) {
        sums[BYOL_TOP1] += labels[i] >= 0 && byol->host_top[i];
        sums[BYOL_TOP5] += labels[i] >= 0 && byol->host_top[share + i];
    }
    spread_sums(byol->host_projections, share, byol->micro, width, sums + BYOL_SUMS);
    return add_up(byol, sums, BYOL_SUMS + SPREAD_SUMS(width));
}

static enum status measure(struct byol *byol, const int32_t *labels, uint32_t labelled,
                           struct method_metrics *metrics)
{
    double batch = byol->config.batch;
    const double *sums = byol->sums;
    enum status status = sum_up(byol, labelled > 0 ? labels : NULL);
    if (status != STATUS_OK) {
        return status;
    }
    metrics->representation = 2 * (sums[BYOL_REGRESSION] / (2 * batch));
    metrics->classification = 0;
    metrics->top1 = metrics->top5 = NAN;
    if (labelled > 0) {
        metrics->classification = sums[BYOL_CLASSIFICATION] / batch * (batch / labelled);
        metrics->top1 = sums[BYOL_TOP1] / labelled;
        metrics->top5 = sums[BYOL_TOP5] / labelled;
    }
    metrics->loss = metrics->representation + metrics->classification;
    const struct spread spread =
        spread_of(sums + BYOL_SUMS, byol->config.batch, projection_width(byol));
    metrics->spread = spread.deviation;
    metrics->positive_cosine = spread.positive_cosine;
    metrics->negative_cosine = spread.negative_cosine;
    return STATUS_OK;
}

// Adds the seconds spent so far, times `sign`: called before and after a step, it leaves the step's
// own.
static void add_seconds(const struct byol *byol, double sign, struct method_metrics *metrics)
{
    const struct network *const networks[] = {byol->online, byol->target};
    for (size_t i = 0; i < 2; i++) {
        double forward[OP_KINDS], backward[OP_KINDS];
        network_times(networks[i], forward, backward);
        for (size_t kind = 0; kind < OP_KINDS; kind++) {
            metrics->seconds[kind] += sign * (forward[kind] + backward[kind]);
            metrics->backward_seconds[kind] += sign * backward[kind];
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

// Gradients of the share, and what the metrics are made of.
static enum status run_share(struct byol *byol, const float *const *view, const int32_t *labels,
                             uint32_t labelled, struct error *error)
{
    for (uint32_t first = 0; first < byol->share; first += byol->micro) {
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
    return STATUS_OK;
}

enum status byol_step(struct method *method, const float *const *view, const int32_t *labels,
                      const struct method_step *step, struct method_metrics *metrics,
                      struct error *error)
{
    struct byol *byol = byol_of(method);
    uint32_t labelled;
    memset(metrics, 0, sizeof *metrics);
    add_seconds(byol, -1, metrics);
    enum status status = count_labelled(byol, labels, &labelled);
    if (status == STATUS_OK) {
        status = send_rates(byol, step, labelled);
    }
    if (status != STATUS_OK) {
        return failed(byol, status, error);
    }
    status = run_share(byol, view, labels, labelled, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = share_gradients(byol, metrics);
    double start = now();
    if (status == STATUS_OK) {
        status = update(byol);
    }
    metrics->optimiser_seconds = now() - start;
    if (status == STATUS_OK) {
        status = measure(byol, labels, labelled, metrics);
    }
    add_seconds(byol, 1, metrics);
    return status == STATUS_OK ? STATUS_OK : failed(byol, status, error);
}
