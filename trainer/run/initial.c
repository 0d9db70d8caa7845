// Weights of a file as the start of a run.
#include "trainer/run/initial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/net/data_init.h"
#include "trainer/run/trained.h"

// What shapes do not show.
static enum status check_kind(const struct run_config *config, const struct trained *trained,
                              struct error *error)
{
    struct run_config stored;
    const struct model_config *wanted = &config->model, *has = &stored.model;
    if (trained->config_text == NULL) {
        return STATUS_OK;
    }
    enum status status = run_config_parse(&stored, config->init, trained->config_text, error);
    if (status == STATUS_OK && has->padding != wanted->padding) {
        return error_set(error, STATUS_CONFIG, config->init, NOWHERE, NOWHERE,
                         "these weights were learnt with padding=%s: set that here too",
                         has->padding == GRAPH_PADDING_SAME ? "same" : "torch");
    }
    if (status == STATUS_OK && has->weight_standardisation != wanted->weight_standardisation) {
        return error_set(error, STATUS_CONFIG, config->init, NOWHERE, NOWHERE,
                         "these weights were learnt with weight_standardisation=%s: set that here "
                         "too",
                         has->weight_standardisation ? "true" : "false");
    }
    return status;
}

// A first batch would set scales and offsets anew.
static enum status check_data_init(const struct run_config *config, const struct trained *trained,
                                   struct error *error)
{
    bool whole = graph_output_find(trained->weights.graph, "prediction") != NULL;
    if (data_init_needed(&config->model) && !whole) {
        return error_set(error, STATUS_CONFIG, config->init, NOWHERE, NOWHERE,
                         "with norm=affine a run begins from weights of encoder, projector and "
                         "predictor, not of the encoder alone");
    }
    return STATUS_OK;
}

static enum status put(struct device *device, const struct method_tensor *tensor,
                       const float *values, struct error *error)
{
    return device->ops->copy_in(device, tensor->device, values, tensor->count * sizeof *values) ==
                   STATUS_OK
               ? STATUS_OK
               : error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                           "the device did not take tensor '%s'", tensor->name);
}

static const struct weights_entry *find(const struct weights_entry *entries, size_t count,
                                        const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(entries[i].name, name) == 0) {
            return &entries[i];
        }
    }
    return NULL;
}

// The method's tensors under the names that `branch` gives them; both networks begin the same.
static enum status put_branch(const struct weights *weights, const char *branch,
                              struct device *device, const struct method_tensor *tensors,
                              size_t count, struct error *error)
{
    struct weights_entry *entries;
    size_t entry_count;
    enum status status =
        weights_list(&entries, &entry_count, weights->graph, WEIGHTS_BYOL, branch, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        const struct weights_entry *entry = find(entries, entry_count, tensors[i].name);
        if (entry != NULL && entry->count == tensors[i].count) {
            const float *block = entry->piece == WEIGHTS_PARAM ? weights->params : weights->state;
            status = put(device, &tensors[i], block + entry->offset, error);
        } else if (strcmp(tensors[i].name, "state/data_initialised") == 0) {
            status = put(device, &tensors[i], &(const float){1}, error);
        }
    }
    free(entries);
    return status;
}

static enum status put_all(const struct weights *weights, struct device *device,
                           struct method *method, struct error *error)
{
    size_t count = method->ops->tensors(method, NULL, 0);
    struct method_tensor *tensors = calloc(count, sizeof *tensors);
    if (tensors == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a list of %zu tensors", count);
    }
    method->ops->tensors(method, tensors, count);
    enum status status = put_branch(weights, "online", device, tensors, count, error);
    if (status == STATUS_OK) {
        status = put_branch(weights, "target", device, tensors, count, error);
    }
    free(tensors);
    return status;
}

enum status run_initialise(const struct run_config *config, struct device *device,
                           struct method *method, char told[RUN_INITIAL_TEXT], struct error *error)
{
    const struct trained_request request = {
        .path = config->init, .model = &config->model, .projector = true, .predictor = true};
    struct trained trained;
    enum status status = trained_open(&trained, &request, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = check_kind(config, &trained, error);
    if (status == STATUS_OK) {
        status = check_data_init(config, &trained, error);
    }
    if (status == STATUS_OK) {
        status = put_all(&trained.weights, device, method, error);
    }
    const struct graph *graph = trained.weights.graph;
    snprintf(told, RUN_INITIAL_TEXT, "encoder%s%s%s%s",
             graph_output_find(graph, "projection") ? ", projector" : "",
             graph_output_find(graph, "prediction") ? ", predictor" : "",
             trained.left_out[0] ? "; left out: " : "", trained.left_out);
    trained_close(&trained);
    return status;
}
