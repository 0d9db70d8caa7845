// A network's weights on the host: its graph, and one flat block each of parameters and of running
// statistics, laid out as the graph says. What is written to files, read from them and compared.
#ifndef TRAINER_WEIGHTS_WEIGHTS_H
#define TRAINER_WEIGHTS_WEIGHTS_H

#include "trainer/net/model.h"

struct weights {
    struct graph *graph;
    float *params; // [graph_param_floats]
    float *state;  // [graph_state_floats]
};

// Builds the model's graph; everything is 0.
enum status weights_open(struct weights *weights, const struct model_config *model,
                         struct error *error);
// The same for a graph that is finished, which is the weights' from now on, also on failure.
enum status weights_open_graph(struct weights *weights, struct graph *graph, struct error *error);
void weights_close(struct weights *weights);

// Running statistics as a checkpoint keeps them, from their averages and their counter alone: for
// weights that come from elsewhere.
void weights_complete_state(const struct weights *weights);

#endif
