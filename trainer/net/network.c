// Running a planned network.
#include "trainer/net/network_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum status network_open(struct network **out, const struct graph *graph, struct device *device,
                         const struct network_config *config, struct error *error)
{
    *out = NULL;
    if (config->images == 0 || config->groups == 0 || config->images % config->groups != 0) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "a batch of %u images cannot hold %u views", config->images,
                         config->groups);
    }
    struct network *network = calloc(1, sizeof *network);
    if (network == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a network");
    }
    network->device = device;
    network->config = *config;
    enum status status = network_plan(network, graph, error);
    if (status == STATUS_OK) {
        status = network_arrange(network, error);
    }
    if (status == STATUS_OK) {
        void *arena = NULL;
        status = device->ops->allocate(device, &arena, network->arena_bytes, error);
        network->arena = arena;
    }
    memset(network->config.outputs, 0, sizeof network->config.outputs); // the caller's strings
    *out = network;
    if (status != STATUS_OK) {
        network_close(out);
    }
    return status;
}

void network_close(struct network **network)
{
    struct network *closing = *network;
    if (closing == NULL) {
        return;
    }
    for (size_t k = 0; closing->ops != NULL && k < closing->op_count; k++) {
        closing->device->ops->op_release(closing->device, closing->ops[k].op);
    }
    if (closing->arena != NULL) {
        closing->device->ops->release(closing->device, closing->arena);
    }
    free(closing->ops);
    free(closing->blocks);
    free(closing->idle);
    free(closing);
    *network = NULL;
}

uint64_t network_arena_bytes(const struct network *network)
{
    return network->arena_bytes;
}

static void *memory_of(const struct network *network, block_id block)
{
    return block == NO_BLOCK ? NULL : network->arena + network->blocks[block].offset;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// The clock when the work so far is done, or has been queued on a device that is not timed.
static enum status now_done(const struct network *network, double *time)
{
    struct device *device = network->device;
    enum status status = device->timed ? device->ops->synchronise(device) : STATUS_OK;
    *time = now();
    return status;
}

// What both directions share. Values that are already gone by the time of backward are left out
// there (network_backward), so that nobody reads what took their place.
static struct op_buffers buffers_of(const struct network *network, const struct planned_op *planned,
                                    const struct op_blocks *blocks, const float *params,
                                    const float *images)
{
    return (struct op_buffers){
        .x = planned->desc.kind == OP_INPUT ? (const void *)images : memory_of(network, blocks->x),
        .x2 = memory_of(network, blocks->x2),
        .y = memory_of(network, blocks->y),
        .params = planned->has_params ? params + planned->param_offset : NULL,
        .saved = memory_of(network, planned->saved),
        .scratch = memory_of(network, network->scratch),
    };
}

static enum status device_failure(const struct network *network, enum status status,
                                  const char *direction, struct error *error)
{
    const char *reason = network->device->failure;
    return error_set(error, status, NULL, NOWHERE, NOWHERE, "device '%s' failed in the %s pass%s%s",
                     network->device->ops->name, direction, reason != NULL ? ": " : "",
                     reason != NULL ? reason : "");
}

enum status network_forward(struct network *network, const float *params, float *state,
                            const float *images, enum op_mode mode, struct error *error)
{
    const struct device_ops *device = network->device->ops;
    network->ready = false;
    double start = now();
    for (size_t k = 0; k < network->op_count; k++) {
        const struct planned_op *planned = &network->ops[k];
        struct op_buffers buffers = buffers_of(network, planned, &planned->first, params, images);
        buffers.state = planned->has_state ? state + planned->state_offset : NULL;
        enum status status = device->op_forward(network->device, planned->op, &buffers, mode);
        double end = start;
        if (status == STATUS_OK) {
            status = now_done(network, &end);
        }
        if (status != STATUS_OK) {
            return device_failure(network, status, "forward", error);
        }
        network->forward_seconds[planned->desc.kind] += end - start;
        start = end;
    }
    network->ready = mode == OP_TRAIN && network->config.backward;
    return STATUS_OK;
}

static const struct planned_output *find_output(const struct network *network, const char *name)
{
    for (size_t i = 0; i < network->output_count; i++) {
        if (strcmp(network->outputs[i].name, name) == 0) {
            return &network->outputs[i];
        }
    }
    return NULL;
}

const float *network_output(const struct network *network, const char *name)
{
    const struct planned_output *output = find_output(network, name);
    return output == NULL ? NULL : memory_of(network, output->value);
}

uint32_t network_output_width(const struct network *network, const char *name)
{
    const struct planned_output *output = find_output(network, name);
    return output == NULL ? 0 : output->width;
}

float *network_output_gradient(struct network *network, const char *name)
{
    const struct planned_output *output = find_output(network, name);
    return output == NULL ? NULL : memory_of(network, output->gradient);
}

static bool alive(const struct network *network, block_id block, size_t time)
{
    return block != NO_BLOCK && network->blocks[block].last >= time;
}

static enum status backward_op(struct network *network, size_t k, const float *params, float *grads,
                               const float *images)
{
    const struct device_ops *device = network->device->ops;
    const struct planned_op *planned = &network->ops[k];
    struct op_buffers buffers = buffers_of(network, planned, &planned->again, params, images);
    buffers.x = alive(network, planned->again.x, planned->backward_at) ? buffers.x : NULL;
    buffers.x2 = alive(network, planned->again.x2, planned->backward_at) ? buffers.x2 : NULL;
    buffers.y = alive(network, planned->again.y, planned->backward_at) ? buffers.y : NULL;
    buffers.param_grads = planned->has_params ? grads + planned->param_offset : NULL;
    buffers.dy = memory_of(network, planned->dy);
    buffers.dx = memory_of(network, planned->dx);
    buffers.dx2 = memory_of(network, planned->dx2);
    enum status status = device->op_backward(network->device, planned->op, &buffers);
    if (status == STATUS_OK && planned->sum != NO_BLOCK) {
        status = device->tensor_add(network->device, planned->desc.in,
                                    memory_of(network, planned->sum), buffers.dx);
    }
    if (status == STATUS_OK && planned->sum2 != NO_BLOCK) {
        status = device->tensor_add(network->device, planned->desc.in,
                                    memory_of(network, planned->sum2), buffers.dx2);
    }
    return status;
}

// Computes again what lies inside a residual block. Running statistics have seen the batch already:
// these are moved somewhere else.
static enum status replay(struct network *network, size_t from, size_t to, const float *params,
                          const float *images)
{
    const struct device_ops *device = network->device->ops;
    for (size_t k = from; k < to; k++) {
        const struct planned_op *planned = &network->ops[k];
        if (!planned->replayed) {
            continue;
        }
        double start = now();
        struct op_buffers buffers = buffers_of(network, planned, &planned->again, params, images);
        enum status status = STATUS_OK;
        if (planned->has_state) {
            buffers.state = memory_of(network, network->shadow);
            status = device->fill_zero(network->device, buffers.state,
                                       BATCH_NORM_STATE(planned->desc.out.c) * sizeof(float));
        }
        if (status == STATUS_OK) {
            status = device->op_forward(network->device, planned->op, &buffers, OP_TRAIN);
        }
        double end = start;
        if (status == STATUS_OK) {
            status = now_done(network, &end);
        }
        if (status != STATUS_OK) {
            return status;
        }
        network->forward_seconds[planned->desc.kind] += end - start;
    }
    return STATUS_OK;
}

enum status network_backward(struct network *network, const float *params, float *grads,
                             const float *images, struct error *error)
{
    const struct device_ops *device = network->device->ops;
    if (!network->ready) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "backward needs a training forward before it, and can run once after it");
    }
    network->ready = false;
    for (size_t i = 0; i < network->idle_count; i++) {
        enum status status = device->fill_zero(network->device, grads + network->idle[i].offset,
                                               network->idle[i].count * sizeof *grads);
        if (status != STATUS_OK) {
            return device_failure(network, status, "backward", error);
        }
    }
    for (size_t k = network->op_count; k-- > 0;) {
        enum status status = replay(network, network->ops[k].replay_from, k, params, images);
        if (status == STATUS_OK && network->ops[k].backward) {
            double start = now(), end = start;
            status = backward_op(network, k, params, grads, images);
            if (status == STATUS_OK) {
                status = now_done(network, &end);
            }
            network->backward_seconds[network->ops[k].desc.kind] += end - start;
        }
        if (status != STATUS_OK) {
            return device_failure(network, status, "backward", error);
        }
    }
    return STATUS_OK;
}

void network_count_ops(const struct network *network, size_t counts[OP_KINDS])
{
    for (size_t k = 0; k < network->op_count; k++) {
        counts[network->ops[k].desc.kind]++;
    }
}

void network_times(const struct network *network, double forward[OP_KINDS],
                   double backward[OP_KINDS])
{
    memcpy(forward, network->forward_seconds, sizeof network->forward_seconds);
    memcpy(backward, network->backward_seconds, sizeof network->backward_seconds);
}
