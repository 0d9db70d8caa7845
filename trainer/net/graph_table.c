// Finishing a graph: its tables of parameters and running statistics; and reading it.
#include "trainer/net/graph_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

// By module, then in the order in which the op expects them: their block is one piece.
static int compare_params(const void *left, const void *right)
{
    const struct param_entry *a = left, *b = right;
    int order = strcmp(a->module, b->module);
    return order != 0 ? order : (a->role > b->role) - (a->role < b->role);
}

static int compare_states(const void *left, const void *right)
{
    const struct state_entry *a = left, *b = right;
    return strcmp(a->state.name, b->state.name);
}

static enum status layout_params(struct graph *graph)
{
    size_t count = graph->params.count;
    if (count > 0) {
        qsort(params(graph), count, sizeof *params(graph), compare_params);
    }
    for (size_t i = 0; i < count; i++) {
        struct param_entry *entry = &params(graph)[i];
        if (i > 0 && strcmp(entry->param.name, entry[-1].param.name) == 0) {
            return error_set(&graph->failure, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                             "two parameters are called '%s'", entry->param.name);
        }
        entry->param.offset = graph->param_floats;
        graph->param_floats += entry->param.count;
        if (entry->role == 0) {
            ops(graph)[entry->op].param = (int)i;
        }
    }
    return STATUS_OK;
}

static void layout_states(struct graph *graph)
{
    size_t count = graph->states.count;
    if (count > 0) {
        qsort(states(graph), count, sizeof *states(graph), compare_states);
    }
    for (size_t i = 0; i < count; i++) {
        struct state_entry *entry = &states(graph)[i];
        entry->state.offset = graph->state_floats;
        graph->state_floats += BATCH_NORM_STATE(entry->state.channels);
        ops(graph)[entry->op].state = (int)i;
    }
}

enum status graph_finish(struct graph *graph, struct error *error)
{
    if (graph->failure.status == STATUS_OK &&
        (!graph->has_input || graph->output_count == 0 || graph->finished)) {
        error_set(&graph->failure, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                  "a graph needs an input and an output, and finishes once");
    }
    if (graph->failure.status == STATUS_OK && layout_params(graph) == STATUS_OK) {
        layout_states(graph);
        graph->finished = true;
        return STATUS_OK;
    }
    return error_set(error, graph->failure.status, NULL, NOWHERE, NOWHERE, "%s",
                     graph->failure.reason);
}

// --- reading

static void pad(uint32_t *low, uint32_t *high, uint32_t in, uint32_t out, const struct graph_op *op)
{
    if (op->padding == GRAPH_PADDING_TORCH) {
        *low = *high = (op->kernel - 1) / 2;
        return;
    }
    int64_t total = ((int64_t)out - 1) * op->stride + op->kernel - in;
    *low = total > 0 ? (uint32_t)(total / 2) : 0;
    *high = total > 0 ? (uint32_t)total - *low : 0;
}

struct graph_pads graph_op_pads(const struct graph *graph, const struct graph_op *op)
{
    const struct graph_value_info *in = graph_value_at(graph, op->x);
    const struct graph_value_info *out = graph_value_at(graph, op->y);
    struct graph_pads pads;
    pad(&pads.top, &pads.bottom, in->h, out->h, op);
    pad(&pads.left, &pads.right, in->w, out->w, op);
    return pads;
}

size_t graph_op_count(const struct graph *graph)
{
    return graph->ops.count;
}

const struct graph_op *graph_op_at(const struct graph *graph, size_t index)
{
    assert(index < graph->ops.count);
    return &ops(graph)[index];
}

const struct graph_value_info *graph_value_at(const struct graph *graph, graph_value value)
{
    assert(value >= 0 && (size_t)value < graph->values.count);
    return &values(graph)[value].info;
}

size_t graph_param_count(const struct graph *graph)
{
    return graph->params.count;
}

const struct graph_param *graph_param_at(const struct graph *graph, size_t index)
{
    assert(index < graph->params.count);
    return &params(graph)[index].param;
}

uint64_t graph_param_floats(const struct graph *graph)
{
    return graph->param_floats;
}

size_t graph_state_count(const struct graph *graph)
{
    return graph->states.count;
}

const struct graph_state *graph_state_at(const struct graph *graph, size_t index)
{
    assert(index < graph->states.count);
    return &states(graph)[index].state;
}

uint64_t graph_state_floats(const struct graph *graph)
{
    return graph->state_floats;
}

const struct graph_output *graph_output_find(const struct graph *graph, const char *name)
{
    for (size_t i = 0; i < graph->output_count; i++) {
        if (strcmp(graph->outputs[i].name, name) == 0) {
            return &graph->outputs[i];
        }
    }
    return NULL;
}
