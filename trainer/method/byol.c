// Bootstrap your own latent (Grill et al. 2020), as the reference computes it.
//
// Two networks of the same layout. The online one predicts, from each view, what the target
// projects of the other view. Both views go through a network as one batch: view 1, then view 2.
// Each network normalises with the statistics of its own batch, view by view, and keeps its own
// running ones. A linear classifier on the online embedding learns beside it and never moves it.
//
// One step: gradients at the old parameters, LARS, then target += (1 - tau) (new online - target)
// for every parameter, those of the predictor and the classifier too.
#include "trainer/method/byol.h"

#include "trainer/method/spread.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VIEWS 2u

struct byol {
    struct method method;
    struct device *device;
    struct method_config config;
    struct graph *graph;
    struct network *online, *target;
    struct param_span *spans;

    // Device memory. The parameter blocks have graph_param_floats, the states graph_state_floats.
    float *online_params, *target_params, *momentum, *gradients;
    float *online_state, *target_state;
    float *images; // [2 batch][size][size][3]
    float *losses; // [3 batch]: view 1 to 2, view 2 to 1, classifier
    int32_t *labels;
    uint8_t *top; // [2 batch]: top 1, top 5
    uint64_t device_bytes;

    // Host copies, for the metrics.
    float *host_losses, *host_projections;
    uint8_t *host_top;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static struct byol *byol_of(struct method *method)
{
    return (struct byol *)method;
}

static const struct byol *const_byol_of(const struct method *method)
{
    return (const struct byol *)method;
}

static uint64_t image_floats(const struct byol *byol)
{
    return 3 * (uint64_t)byol->config.model.size * (uint64_t)byol->config.model.size;
}

static uint32_t projection_width(const struct byol *byol)
{
    return (uint32_t)byol->config.model.projector_output;
}

// --- opening

static enum status check(const struct method_config *config, struct error *error)
{
    if (config->model.projector_hidden == 0 || config->model.predictor_hidden == 0) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "byol needs projector_hidden and predictor_hidden");
    }
    if (config->batch == 0 || config->batch > UINT32_MAX / VIEWS) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "a batch of %u pairs does not fit", config->batch);
    }
    return STATUS_OK;
}

static enum status open_networks(struct byol *byol, struct error *error)
{
    struct network_config online = {.images = VIEWS * byol->config.batch,
                                    .groups = VIEWS,
                                    .backward = true,
                                    .outputs = {"prediction", "projection"}};
    if (byol->config.model.classes > 0) {
        online.outputs[2] = "logits";
    }
    struct network_config target = {
        .images = online.images, .groups = VIEWS, .outputs = {"projection"}};
    enum status status = network_open(&byol->online, byol->graph, byol->device, &online, error);
    if (status == STATUS_OK) {
        status = network_open(&byol->target, byol->graph, byol->device, &target, error);
    }
    return status;
}

static enum status allocate(struct byol *byol, void **memory, uint64_t bytes, struct error *error)
{
    byol->device_bytes += bytes;
    return byol->device->ops->allocate(byol->device, memory, bytes, error);
}

static enum status allocate_floats(struct byol *byol, float **memory, uint64_t count,
                                   struct error *error)
{
    void *allocated = NULL;
    enum status status = allocate(byol, &allocated, count * sizeof(float), error);
    *memory = allocated;
    return status;
}

static enum status allocate_blocks(struct byol *byol, struct error *error)
{
    uint64_t params = graph_param_floats(byol->graph), states = graph_state_floats(byol->graph);
    uint64_t batch = byol->config.batch;
    struct {
        float **memory;
        uint64_t count;
    } blocks[] = {
        {&byol->online_params, params},
        {&byol->target_params, params},
        {&byol->momentum, params},
        {&byol->gradients, params},
        {&byol->online_state, states},
        {&byol->target_state, states},
        {&byol->images, VIEWS * batch * image_floats(byol)},
        {&byol->losses, 3 * batch},
    };
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0] && status == STATUS_OK; i++) {
        status = allocate_floats(byol, blocks[i].memory, blocks[i].count, error);
    }
    void *labels = NULL, *top = NULL;
    if (status == STATUS_OK) {
        status = allocate(byol, &labels, batch * sizeof *byol->labels, error);
        byol->labels = labels;
    }
    if (status == STATUS_OK) {
        status = allocate(byol, &top, 2 * batch, error);
        byol->top = top;
    }
    return status;
}

static enum status allocate_host(struct byol *byol, struct error *error)
{
    size_t batch = byol->config.batch;
    byol->spans = calloc(graph_param_count(byol->graph), sizeof *byol->spans);
    byol->host_losses = calloc(3 * batch, sizeof *byol->host_losses);
    byol->host_projections =
        calloc(VIEWS * batch * projection_width(byol), sizeof *byol->host_projections);
    byol->host_top = calloc(2 * batch, 1);
    if (byol->spans == NULL || byol->host_losses == NULL || byol->host_projections == NULL ||
        byol->host_top == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for byol");
    }
    for (size_t i = 0; i < graph_param_count(byol->graph); i++) {
        const struct graph_param *param = graph_param_at(byol->graph, i);
        byol->spans[i] = (struct param_span){param->offset, param->count, param->decay, 1};
    }
    return STATUS_OK;
}

static enum status initialise(struct byol *byol, struct error *error)
{
    uint64_t bytes = graph_param_floats(byol->graph) * sizeof(float);
    float *host = malloc(bytes);
    if (host == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for byol");
    }
    struct device *device = byol->device;
    model_initialise(byol->graph, byol->config.seed, "online", host);
    enum status status = device->ops->copy_in(device, byol->online_params, host, bytes);
    if (status == STATUS_OK) {
        model_initialise(byol->graph, byol->config.seed, "target", host);
        status = device->ops->copy_in(device, byol->target_params, host, bytes);
    }
    free(host);
    return status == STATUS_OK
               ? STATUS_OK
               : error_set(error, status, NULL, NOWHERE, NOWHERE,
                           "cannot copy parameters to device '%s'", device->ops->name);
}

static void byol_close(struct method *method)
{
    struct byol *byol = byol_of(method);
    void *const memory[] = {byol->online_params, byol->target_params,
                            byol->momentum,      byol->gradients,
                            byol->online_state,  byol->target_state,
                            byol->images,        byol->losses,
                            byol->labels,        byol->top};
    network_close(&byol->online);
    network_close(&byol->target);
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        if (memory[i] != NULL) {
            byol->device->ops->release(byol->device, memory[i]);
        }
    }
    graph_close(&byol->graph);
    free(byol->spans);
    free(byol->host_losses);
    free(byol->host_projections);
    free(byol->host_top);
    free(byol);
}

static enum status byol_open(struct method **out, struct device *device,
                             const struct method_config *config, struct error *error)
{
    *out = NULL;
    enum status status = check(config, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct byol *byol = calloc(1, sizeof *byol);
    if (byol == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for byol");
    }
    byol->method.ops = &byol_method;
    byol->device = device;
    byol->config = *config;
    enum status (*const stages[])(struct byol *, struct error *) = {open_networks, allocate_blocks,
                                                                    allocate_host, initialise};
    status = model_build(&byol->graph, &config->model, error);
    for (size_t i = 0; i < sizeof stages / sizeof stages[0] && status == STATUS_OK; i++) {
        status = stages[i](byol, error);
    }
    if (status == STATUS_OK) {
        *out = &byol->method;
    } else {
        byol_close(&byol->method);
    }
    return status;
}

// --- one step

static enum status load_batch(struct byol *byol, const float *const *view, const int32_t *labels)
{
    struct device *device = byol->device;
    uint64_t floats = byol->config.batch * image_floats(byol);
    enum status status = STATUS_OK;
    for (unsigned v = 0; v < VIEWS && status == STATUS_OK; v++) {
        status = device->ops->copy_in(device, byol->images + v * floats, view[v],
                                      floats * sizeof(float));
    }
    if (status == STATUS_OK && labels != NULL) {
        status =
            device->ops->copy_in(device, byol->labels, labels, byol->config.batch * sizeof *labels);
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

// Each view's predictions against the target's projections of the other; mean over the batch.
static enum status regress(struct byol *byol)
{
    struct device *device = byol->device;
    uint32_t batch = byol->config.batch, width = projection_width(byol);
    size_t half = (size_t)batch * width;
    const float *prediction = network_output(byol->online, "prediction");
    const float *projection = network_output(byol->target, "projection");
    float *gradient = network_output_gradient(byol->online, "prediction");
    float scale = 1.0f / (float)batch;
    enum status status = device->ops->regression_loss(device, prediction, projection + half, batch,
                                                      width, scale, byol->losses, gradient, NULL);
    if (status == STATUS_OK) {
        status = device->ops->regression_loss(device, prediction + half, projection, batch, width,
                                              scale, byol->losses + batch, gradient + half, NULL);
    }
    return status;
}

// The classifier sees the labelled images of view 1; mean over those.
static enum status classify(struct byol *byol, uint32_t labelled)
{
    struct device *device = byol->device;
    uint32_t batch = byol->config.batch, classes = (uint32_t)byol->config.model.classes;
    float *gradient = network_output_gradient(byol->online, "logits");
    if (gradient == NULL) {
        return STATUS_OK;
    }
    enum status status =
        device->ops->fill_zero(device, gradient, (size_t)VIEWS * batch * classes * sizeof(float));
    if (status == STATUS_OK && labelled > 0) {
        status = device->ops->softmax_loss(device, network_output(byol->online, "logits"),
                                           byol->labels, batch, classes, 1.0f / (float)labelled,
                                           byol->losses + (size_t)2 * batch, gradient, byol->top,
                                           byol->top + batch);
    }
    return status;
}

static enum status compute_losses(struct byol *byol, uint32_t labelled)
{
    // The projections are an output only so that their spread can be watched.
    struct device *device = byol->device;
    size_t floats = (size_t)VIEWS * byol->config.batch * projection_width(byol);
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
    struct lars_settings lars = {.learning_rate = step->learning_rate,
                                 .weight_decay = (float)byol->config.weight_decay,
                                 .momentum = (float)byol->config.momentum,
                                 .trust = (float)byol->config.trust};
    enum status status =
        device->ops->lars_step(device, byol->spans, graph_param_count(byol->graph), &lars,
                               byol->online_params, byol->gradients, byol->momentum);
    if (status == STATUS_OK) {
        status = device->ops->moving_average(device, byol->target_params, byol->online_params,
                                             graph_param_floats(byol->graph), 1.0f - step->tau);
    }
    return status == STATUS_OK ? device->ops->synchronise(device) : status;
}

// Copies what the metrics are made of.
static enum status fetch(struct byol *byol)
{
    struct device *device = byol->device;
    size_t batch = byol->config.batch;
    enum status status =
        device->ops->copy_out(device, byol->host_losses, byol->losses, 3 * batch * sizeof(float));
    if (status == STATUS_OK) {
        status = device->ops->copy_out(device, byol->host_top, byol->top, 2 * batch);
    }
    if (status == STATUS_OK) {
        status = device->ops->copy_out(device, byol->host_projections,
                                       network_output(byol->online, "projection"),
                                       VIEWS * batch * projection_width(byol) * sizeof(float));
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
    size_t batch = byol->config.batch, rows = VIEWS * batch, width = projection_width(byol);
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
    metrics->spread = spread_of(byol->host_projections, rows, width);
}

// Adds the seconds spent so far, times `sign`: called before and after a step, it leaves the step's
// own.
static void add_seconds(const struct byol *byol, double sign, double seconds[8])
{
    const struct network *const networks[] = {byol->online, byol->target};
    for (size_t i = 0; i < 2; i++) {
        double forward[8], backward[8];
        network_times(networks[i], forward, backward);
        for (size_t kind = 0; kind < 8; kind++) {
            seconds[kind] += sign * (forward[kind] + backward[kind]);
        }
    }
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

static enum status failed(const struct byol *byol, enum status status, struct error *error)
{
    return error_set(error, status, NULL, NOWHERE, NOWHERE, "device '%s' failed in a step",
                     byol->device->ops->name);
}

static enum status byol_step(struct method *method, const float *const *view, const int32_t *labels,
                             const struct method_step *step, struct method_metrics *metrics,
                             struct error *error)
{
    struct byol *byol = byol_of(method);
    memset(metrics, 0, sizeof *metrics);
    add_seconds(byol, -1, metrics->seconds);
    uint32_t labelled = count_labelled(byol, labels);
    enum status status = load_batch(byol, view, labelled > 0 ? labels : NULL);
    if (status != STATUS_OK) {
        return failed(byol, status, error);
    }
    status = forward_both(byol, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = compute_losses(byol, labelled);
    if (status != STATUS_OK) {
        return failed(byol, status, error);
    }
    status =
        network_backward(byol->online, byol->online_params, byol->gradients, byol->images, error);
    if (status != STATUS_OK) {
        return status;
    }
    double start = now();
    status = update(byol, step);
    metrics->optimiser_seconds = now() - start;
    if (status == STATUS_OK) {
        status = fetch(byol);
    }
    if (status != STATUS_OK) {
        return failed(byol, status, error);
    }
    measure(byol, labels, labelled, metrics);
    add_seconds(byol, 1, metrics->seconds);
    return STATUS_OK;
}

// --- what others may look at

// Tensors are counted even where there is no room to write them.
struct tensor_list {
    struct method_tensor *out;
    size_t count, capacity;
};

static struct method_tensor *tensor_add(struct tensor_list *list, const char *branch,
                                        const char *name)
{
    if (list->count++ >= list->capacity) {
        return NULL;
    }
    struct method_tensor *tensor = &list->out[list->count - 1];
    memset(tensor, 0, sizeof *tensor);
    snprintf(tensor->name, sizeof tensor->name, "%s/%s", branch, name);
    return tensor;
}

static void list_params(const struct byol *byol, const char *branch, float *block,
                        struct tensor_list *list)
{
    for (size_t i = 0; i < graph_param_count(byol->graph); i++) {
        const struct graph_param *param = graph_param_at(byol->graph, i);
        struct method_tensor *tensor = tensor_add(list, branch, param->name);
        if (tensor != NULL) {
            tensor->dims = param->dims;
            memcpy(tensor->shape, param->shape, sizeof tensor->shape);
            tensor->count = param->count;
            tensor->device = block + param->offset;
        }
    }
}

static void list_states(const struct byol *byol, const char *branch, float *block,
                        struct tensor_list *list)
{
    for (size_t i = 0; i < graph_state_count(byol->graph); i++) {
        const struct graph_state *state = graph_state_at(byol->graph, i);
        struct method_tensor *tensor = tensor_add(list, branch, state->name);
        if (tensor != NULL) {
            tensor->dims = 1;
            tensor->count = BATCH_NORM_STATE(state->channels);
            tensor->shape[0] = (uint32_t)tensor->count;
            tensor->device = block + state->offset;
        }
    }
}

static size_t byol_tensors(struct method *method, struct method_tensor *out, size_t capacity)
{
    const struct byol *byol = byol_of(method);
    struct tensor_list list = {.out = out, .capacity = capacity};
    list_params(byol, "online", byol->online_params, &list);
    list_params(byol, "target", byol->target_params, &list);
    list_params(byol, "momentum", byol->momentum, &list);
    list_states(byol, "state/online", byol->online_state, &list);
    list_states(byol, "state/target", byol->target_state, &list);
    return list.count;
}

static const struct graph *byol_graph(const struct method *method)
{
    return const_byol_of(method)->graph;
}

static const float *byol_online_params(const struct method *method)
{
    return const_byol_of(method)->online_params;
}

static float *byol_online_state(const struct method *method)
{
    return const_byol_of(method)->online_state;
}

static uint64_t byol_memory(const struct method *method)
{
    const struct byol *byol = const_byol_of(method);
    return byol->device_bytes + network_arena_bytes(byol->online) +
           network_arena_bytes(byol->target);
}

const struct method_ops byol_method = {
    .name = "byol",
    .summary = "predict the target's projection of the other view; the target follows slowly",
    .views = VIEWS,
    .open = byol_open,
    .close = byol_close,
    .step = byol_step,
    .tensors = byol_tensors,
    .graph = byol_graph,
    .online_params = byol_online_params,
    .online_state = byol_online_state,
    .memory = byol_memory,
};
