// Weights on the host.
#include "trainer/weights/weights.h"

#include <math.h>
#include <stdlib.h>

enum status weights_open_graph(struct weights *weights, struct graph *graph, struct error *error)
{
    *weights = (struct weights){.graph = graph};
    weights->params = calloc(graph_param_floats(graph) + 1, sizeof *weights->params);
    weights->state = calloc(graph_state_floats(graph) + 1, sizeof *weights->state);
    if (weights->params == NULL || weights->state == NULL) {
        weights_close(weights);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a network's weights");
    }
    return STATUS_OK;
}

enum status weights_open(struct weights *weights, const struct model_config *model,
                         struct error *error)
{
    struct graph *graph;
    *weights = (struct weights){NULL, NULL, NULL};
    enum status status = model_build(&graph, model, error);
    return status == STATUS_OK ? weights_open_graph(weights, graph, error) : status;
}

void weights_close(struct weights *weights)
{
    graph_close(&weights->graph);
    free(weights->params);
    free(weights->state);
    *weights = (struct weights){NULL, NULL, NULL};
}

void weights_complete_state(const struct weights *weights)
{
    for (size_t i = 0; i < graph_state_count(weights->graph); i++) {
        const struct graph_state *entry = graph_state_at(weights->graph, i);
        float *state = weights->state + entry->offset;
        size_t both = 2 * (size_t)entry->channels; // means and variances
        double share = 1 - pow((double)BATCH_NORM_DECAY, (double)state[0]);
        for (size_t k = 0; k < both; k++) {
            state[1 + k] = (float)(share * (double)state[1 + both + k]);
        }
    }
}
