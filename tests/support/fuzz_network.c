// The smallest network that has all layers.
#include "tests/support/fuzz_network.h"
#include "tests/support/fuzz.h"

static graph_value residual(struct graph *graph, graph_value x)
{
    graph_value y =
        graph_conv(graph, "resnet/block_group_0/block_0/conv_0", x, 4, 3, 1, GRAPH_PADDING_SAME);
    y = graph_group_norm(graph, "resnet/block_group_0/block_0/batchnorm_0", y, 2, true, 1);
    return graph_add(graph, x, y, true);
}

static void build(struct graph *graph)
{
    graph_value x = graph_input(graph, 16, 16);
    x = graph_conv(graph, "resnet/initial_conv", x, 4, 3, 2, GRAPH_PADDING_SAME);
    x = graph_batch_norm(graph, "resnet/initial_batchnorm", x, true, 1);
    x = residual(graph, graph_max_pool(graph, x, 3, 2, GRAPH_PADDING_TORCH));
    graph_value features = graph_mean_pool(graph, graph_relu(graph, x));
    graph_output_add(graph, "embedding", features);
    x = graph_linear(graph, "projector/linear", features, 5, false);
    x = graph_affine(graph, "projector/batch_norm", x, true, 1);
    graph_output_add(graph, "projection", graph_linear(graph, "projector/linear_1", x, 2, true));
    graph_output_add(graph, "logits", graph_linear(graph, "classifier", features, 3, true));
}

void fuzz_network_open(struct weights *weights)
{
    struct graph *graph;
    FUZZ_CHECK(graph_open(&graph, NULL) == STATUS_OK);
    build(graph);
    FUZZ_CHECK(graph_finish(graph, NULL) == STATUS_OK);
    FUZZ_CHECK(weights_open_graph(weights, graph, NULL) == STATUS_OK);
    for (uint64_t i = 0; i < graph_param_floats(graph); i++) {
        weights->params[i] = 0.01f * (float)(1 + i % 7);
    }
    for (uint64_t i = 0; i < graph_state_floats(graph); i++) {
        weights->state[i] = (float)(1 + i % 3);
    }
}
