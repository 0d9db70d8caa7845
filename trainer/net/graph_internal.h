// What a graph is made of, shared by the files that build it (graph.c) and lay out its tables
// (graph_table.c).
#ifndef TRAINER_NET_GRAPH_INTERNAL_H
#define TRAINER_NET_GRAPH_INTERNAL_H

#include "trainer/net/graph.h"

#define MAX_OUTPUTS 8

struct value {
    struct graph_value_info info;
    graph_value source; // itself, unless an alias
    bool stopped;
};

// A parameter with what sorting needs: the op it belongs to, and its place among that op's.
struct param_entry {
    struct graph_param param;
    char module[128];
    size_t op;
    unsigned role;
};

struct state_entry {
    struct graph_state state;
    size_t op;
};

struct list {
    void *items;
    size_t count, capacity;
};

struct graph {
    struct list ops, values, params, states; // graph_op, value, param_entry, state_entry
    struct graph_output outputs[MAX_OUTPUTS];
    size_t output_count;
    uint64_t param_floats, state_floats;
    bool has_input, finished;
    struct error failure; // the first one; status OK while all is well
};

static inline struct graph_op *ops(const struct graph *graph)
{
    return graph->ops.items;
}

static inline struct value *values(const struct graph *graph)
{
    return graph->values.items;
}

static inline struct param_entry *params(const struct graph *graph)
{
    return graph->params.items;
}

static inline struct state_entry *states(const struct graph *graph)
{
    return graph->states.items;
}

#endif
