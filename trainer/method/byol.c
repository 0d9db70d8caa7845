// Bootstrap your own latent (Grill et al. 2020), as the reference computes it.
//
// Two networks of the same layout. The online one predicts, from each view, what the target
// projects of the other view. Both views go through a network as one batch: view 1, then view 2.
// Each network normalises with the statistics of its own batch, view by view, and keeps its own
// running ones. A linear classifier on the online embedding learns beside it and never moves it.
//
// One step: gradients at the old parameters, the optimiser, then target += (1 - tau) (new online -
// target) for every parameter, those of the predictor and the classifier too.
//
// A device with peers gets its share of each batch. Losses are scaled by the whole batch, so that
// the sum of all gradients is that of the whole batch; metrics are sums over all pairs as well.
// From equal parameters and equal gradients every process makes the same step.
//
// With accumulation the batch goes through the networks in micro-batches, one after the other. The
// loss of each is its share of the whole batch's mean, so that the sum of the gradients is the mean
// over the batch. Normalisation sees one micro-batch at a time.
#include "trainer/method/byol_internal.h"
#include "trainer/method/optimiser.h"
#include "trainer/method/spread.h"

#include "trainer/net/data_init.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- opening

static uint32_t peer_count(const struct device *device)
{
    return device->peers == NULL ? 1 : device->peers->count;
}

static uint32_t piece_count(const struct method_config *config)
{
    return config->accumulate > 1 ? config->accumulate : 1;
}

static enum status check(const struct method_config *config, const struct device *device,
                         struct error *error)
{
    if (config->model.projector_hidden == 0 || config->model.predictor_hidden == 0) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "byol needs projector_hidden and predictor_hidden");
    }
    if (config->batch == 0 || config->batch > UINT32_MAX / BYOL_VIEWS) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "a batch of %u pairs does not fit", config->batch);
    }
    if (config->accumulate > 1 && config->batch % config->accumulate != 0) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "a batch of %u pairs cannot be cut into %u equal micro-batches",
                         config->batch, config->accumulate);
    }
    uint32_t peers = peer_count(device), pieces = piece_count(config);
    if (config->batch / pieces % peers != 0) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "a batch of %u pairs cannot be cut into equal parts for %u ranks: batch / "
                         "accumulate must be a multiple of their number",
                         config->batch, peers);
    }
    return STATUS_OK;
}

static enum status open_networks(struct byol *byol, struct error *error)
{
    struct network_config online = {.images = BYOL_VIEWS * byol->micro,
                                    .groups = BYOL_VIEWS,
                                    .backward = true,
                                    .recompute = byol->config.recompute,
                                    .outputs = {"prediction", "projection"}};
    if (byol->config.model.classes > 0) {
        online.outputs[2] = "logits";
    }
    struct network_config target = {
        .images = online.images, .groups = BYOL_VIEWS, .outputs = {"projection"}};
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
    uint64_t micro = byol->micro;
    bool second = optimiser_has_second_moment(&byol->config);
    struct {
        float **memory;
        uint64_t count;
    } blocks[] = {
        {&byol->online_params, params},
        {&byol->target_params, params},
        {&byol->momentum, params},
        {&byol->second_moment, second ? params : 0},
        {&byol->optimizer_steps, second ? 1 : 0},
        {&byol->gradients, params},
        {&byol->online_state, states},
        {&byol->target_state, states},
        {&byol->images, BYOL_VIEWS * micro * image_floats(byol)},
        {&byol->losses, 3 * micro},
        {&byol->rates, BYOL_RATES},
        {&byol->piece, micro < byol->share ? params : 0},
    };
    enum status status = STATUS_OK;
    if (data_init_needed(&byol->config.model)) {
        status = allocate_floats(byol, &byol->data_initialised, 1, error);
    }
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0] && status == STATUS_OK; i++) {
        if (blocks[i].count > 0) {
            status = allocate_floats(byol, blocks[i].memory, blocks[i].count, error);
        }
    }
    void *labels = NULL, *top = NULL;
    if (status == STATUS_OK) {
        status = allocate(byol, &labels, micro * sizeof *byol->labels, error);
        byol->labels = labels;
    }
    if (status == STATUS_OK) {
        status = allocate(byol, &top, 2 * micro, error);
        byol->top = top;
    }
    return status;
}

static enum status allocate_host(struct byol *byol, struct error *error)
{
    byol->spans = calloc(graph_param_count(byol->graph), sizeof *byol->spans);
    byol->sums = calloc(BYOL_SUMS + SPREAD_SUMS(projection_width(byol)), sizeof *byol->sums);
    if (byol->spans == NULL || byol->sums == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for byol");
    }
    for (size_t i = 0; i < graph_param_count(byol->graph); i++) {
        const struct graph_param *param = graph_param_at(byol->graph, i);
        byol->spans[i] = (struct param_span){param->offset, param->count, param->decay,
                                             optimiser_rate_of(&byol->config, param->name)};
    }
    return STATUS_OK;
}

static enum status open_queue(struct byol *byol, struct error *error)
{
    size_t view = byol->share * image_floats(byol) * sizeof(float);
    bool labels = byol->config.model.classes > 0;
    const struct queue_config config = {
        .part_bytes = {view, view, labels ? byol->share * sizeof *byol->labels : 0},
        .place_bytes = byol_place_bytes(byol),
        .setting_bytes = BYOL_RATES * sizeof(float),
        .settings = byol->rates,
        .work = byol_work,
        .context = byol,
    };
    enum status status = queue_open(&byol->queue, byol->device, &config, error);
    byol->device_bytes += status == STATUS_OK ? queue_device_bytes(byol->queue) : 0;
    return status;
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
    void *const memory[] = {byol->online_params,
                            byol->target_params,
                            byol->momentum,
                            byol->gradients,
                            byol->online_state,
                            byol->target_state,
                            byol->images,
                            byol->losses,
                            byol->labels,
                            byol->top,
                            byol->piece,
                            byol->second_moment,
                            byol->optimizer_steps,
                            byol->data_initialised,
                            byol->rates};
    queue_close(&byol->queue); // first: what is in flight uses all the rest
    network_close(&byol->online);
    network_close(&byol->target);
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        if (memory[i] != NULL) {
            byol->device->ops->release(byol->device, memory[i]);
        }
    }
    graph_close(&byol->graph);
    free(byol->spans);
    free(byol->sums);
    free(byol);
}

static enum status byol_open(struct method **out, struct device *device,
                             const struct method_config *config, struct error *error)
{
    *out = NULL;
    enum status status = check(config, device, error);
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
    byol->peers = peer_count(device);
    byol->share = config->batch / byol->peers;
    byol->micro = byol->share / piece_count(config);
    status = model_build(&byol->graph, &config->model, error);
    if (status == STATUS_OK) {
        status = open_networks(byol, error);
    }
    if (status == STATUS_OK) {
        status = allocate_blocks(byol, error);
    }
    if (status == STATUS_OK) {
        status = allocate_host(byol, error);
    }
    if (status == STATUS_OK) {
        status = open_queue(byol, error);
    }
    if (status == STATUS_OK) {
        status = initialise(byol, error);
    }
    if (status == STATUS_OK) {
        *out = &byol->method;
    } else {
        byol_close(&byol->method);
    }
    return status;
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

// What only some optimisers have.
static void list_optimiser(const struct byol *byol, struct tensor_list *list)
{
    if (byol->second_moment == NULL) {
        return;
    }
    list_params(byol, "second_moment", byol->second_moment, list);
    struct method_tensor *steps = tensor_add(list, "optimizer", "steps");
    if (steps != NULL) {
        steps->dims = 1;
        steps->shape[0] = 1;
        steps->count = 1;
        steps->device = byol->optimizer_steps;
    }
}

static void list_flag(const struct byol *byol, struct tensor_list *list)
{
    struct method_tensor *tensor = tensor_add(list, "state", "data_initialised");
    if (tensor != NULL) {
        tensor->dims = 1;
        tensor->count = tensor->shape[0] = 1;
        tensor->device = byol->data_initialised;
    }
}

static size_t byol_tensors(struct method *method, struct method_tensor *out, size_t capacity)
{
    const struct byol *byol = byol_of(method);
    struct tensor_list list = {.out = out, .capacity = capacity};
    list_params(byol, "online", byol->online_params, &list);
    list_params(byol, "target", byol->target_params, &list);
    list_params(byol, "momentum", byol->momentum, &list);
    list_optimiser(byol, &list);
    list_states(byol, "state/online", byol->online_state, &list);
    list_states(byol, "state/target", byol->target_state, &list);
    if (byol->data_initialised != NULL) {
        list_flag(byol, &list);
    }
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

static void byol_plan(const struct method *method, struct method_plan *plan)
{
    const struct byol *byol = const_byol_of(method);
    uint64_t micro = byol->micro;
    *plan = (struct method_plan){
        .parameters = graph_param_floats(byol->graph),
        .online_arena_bytes = network_arena_bytes(byol->online),
        .target_arena_bytes = network_arena_bytes(byol->target),
        .batch_bytes =
            (BYOL_VIEWS * micro * image_floats(byol) + 3 * micro + BYOL_RATES) * sizeof(float) +
            micro * sizeof *byol->labels + 2 * micro + queue_device_bytes(byol->queue),
    };
    plan->parameter_bytes = byol->device_bytes - plan->batch_bytes;
    network_count_ops(byol->online, plan->online_ops);
    network_count_ops(byol->target, plan->target_ops);
}

const struct method_ops byol_method = {
    .name = "byol",
    .summary = "predict the target's projection of the other view; the target follows slowly",
    .views = BYOL_VIEWS,
    .open = byol_open,
    .close = byol_close,
    .step = byol_step,
    .collect = byol_collect,
    .tensors = byol_tensors,
    .graph = byol_graph,
    .online_params = byol_online_params,
    .online_state = byol_online_state,
    .memory = byol_memory,
    .plan = byol_plan,
};
