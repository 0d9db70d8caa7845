// Data-dependent initialisation. Both networks have the same parameters in the same places; the one
// with batch normalisation has running statistics besides, which after one pass of one view are
// those of the batch.
#include "trainer/net/data_init.h"

#include "trainer/net/network.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool data_init_needed(const struct model_config *config)
{
    return config->norm == MODEL_NORM_AFFINE || config->head_norm == 1 + MODEL_NORM_AFFINE;
}

// What one initialisation works with.
struct twin {
    struct device *device;
    struct graph *own, *graph; // without and with batch normalisation
    struct network *network;
    void *state;          // device memory
    float *params, *host; // host copies of parameters and state
};

static enum status failed(const struct device *device, enum status status, struct error *error)
{
    return error_set(error, status, NULL, NOWHERE, NOWHERE,
                     "device '%s' failed while the network was initialised", device->ops->name);
}

static enum status open_twin(struct twin *twin, const struct model_config *config,
                             const char *output, uint32_t count, struct error *error)
{
    struct model_config normalised = *config;
    if (normalised.norm == MODEL_NORM_AFFINE) {
        normalised.norm = MODEL_NORM_BATCH;
    }
    if (normalised.head_norm == 1 + MODEL_NORM_AFFINE) {
        normalised.head_norm = 1 + MODEL_NORM_BATCH;
    }
    struct network_config plan = {.images = count, .groups = 1, .outputs = {output}};
    enum status status = model_build(&twin->own, config, error);
    if (status == STATUS_OK) {
        status = model_build(&twin->graph, &normalised, error);
    }
    if (status == STATUS_OK) {
        status = network_open(&twin->network, twin->graph, twin->device, &plan, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    twin->params = malloc(graph_param_floats(twin->graph) * sizeof *twin->params);
    twin->host = malloc((graph_state_floats(twin->graph) + 1) * sizeof *twin->host);
    if (twin->params == NULL || twin->host == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to initialise a network");
    }
    return twin->device->ops->allocate(twin->device, &twin->state,
                                       graph_state_floats(twin->graph) * sizeof(float), error);
}

static void close_twin(struct twin *twin)
{
    network_close(&twin->network);
    graph_close(&twin->own);
    graph_close(&twin->graph);
    if (twin->state != NULL) {
        twin->device->ops->release(twin->device, twin->state);
    }
    free(twin->params);
    free(twin->host);
}

static bool keeps_statistics(const struct graph *graph, const char *module)
{
    for (size_t i = 0; i < graph_state_count(graph); i++) {
        if (strcmp(graph_state_at(graph, i)->name, module) == 0) {
            return true;
        }
    }
    return false;
}

// The scale of a module; its offset follows.
static float *scale_of(const struct twin *twin, const char *module)
{
    char name[sizeof((struct graph_state *)0)->name + sizeof "/scale"];
    snprintf(name, sizeof name, "%s/scale", module);
    for (size_t i = 0; i < graph_param_count(twin->graph); i++) {
        const struct graph_param *param = graph_param_at(twin->graph, i);
        if (strcmp(param->name, name) == 0) {
            return twin->params + param->offset;
        }
    }
    return NULL;
}

// Statistics into the affine maps, on the host. Modules that the pass did not reach stay.
static void fold(const struct twin *twin)
{
    for (size_t i = 0; i < graph_state_count(twin->graph); i++) {
        const struct graph_state *state = graph_state_at(twin->graph, i);
        const float *values = twin->host + state->offset;
        float *scale = scale_of(twin, state->name);
        if (keeps_statistics(twin->own, state->name) || scale == NULL || values[0] == 0) {
            continue;
        }
        float *offset = scale + state->channels;
        const float *mean = values + 1 + 2 * (size_t)state->channels;
        const float *variance = mean + state->channels;
        for (uint32_t c = 0; c < state->channels; c++) {
            scale[c] /= sqrtf(variance[c] + BATCH_NORM_EPSILON);
            offset[c] -= mean[c] * scale[c];
        }
    }
}

static enum status run(const struct twin *twin, const float *images, float *params,
                       struct error *error)
{
    const struct device_ops *ops = twin->device->ops;
    size_t param_bytes = graph_param_floats(twin->graph) * sizeof(float);
    size_t state_bytes = graph_state_floats(twin->graph) * sizeof(float);
    enum status status =
        network_forward(twin->network, params, twin->state, images, OP_TRAIN, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = ops->copy_out(twin->device, twin->host, twin->state, state_bytes);
    if (status == STATUS_OK) {
        status = ops->copy_out(twin->device, twin->params, params, param_bytes);
    }
    if (status == STATUS_OK) {
        fold(twin);
        status = ops->copy_in(twin->device, params, twin->params, param_bytes);
    }
    return status == STATUS_OK ? STATUS_OK : failed(twin->device, status, error);
}

enum status data_init(struct device *device, const struct model_config *config, const char *output,
                      const float *images, uint32_t count, float *params, struct error *error)
{
    struct twin twin = {.device = device};
    enum status status = open_twin(&twin, config, output, count, error);
    if (status == STATUS_OK) {
        status = run(&twin, images, params, error);
    }
    close_twin(&twin);
    return status;
}
