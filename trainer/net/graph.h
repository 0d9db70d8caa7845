// A network is data: a static list of ops over values, built once. From the list come the table of
// parameters, the table of running statistics, the memory plan and the backward pass. The same list
// runs on every device.
//
// Building (model.h does it for the ResNets and heads): each graph_* call appends one op and
// returns the value it makes. Shapes are per image; batch and views are chosen when the graph is
// planned (network.h). A builder call that fails returns GRAPH_BAD and remembers why; later calls
// pass it on, so only graph_finish needs checking.
#ifndef TRAINER_NET_GRAPH_H
#define TRAINER_NET_GRAPH_H

#include "trainer/device/device.h"

typedef int32_t graph_value; // index of a value, or GRAPH_BAD
#define GRAPH_BAD (-1)

enum graph_padding {
    GRAPH_PADDING_SAME, // the reference's: total = max((ceil(in/s)-1) s + k - in, 0), low = total /
                        // 2
    GRAPH_PADDING_TORCH, // (k - 1) / 2 on every side
};

enum param_kind { PARAM_CONV, PARAM_LINEAR, PARAM_BIAS, PARAM_SCALE, PARAM_OFFSET };

// One parameter tensor. `name` as in the reference, with the encoder called "resnet":
// "resnet/initial_conv/w".
struct graph_param {
    char name[128];
    enum param_kind kind;
    unsigned dims;
    uint32_t shape[4];      // conv HWIO, linear [in][out], vectors [c]
    uint64_t offset, count; // floats in the flat block
    uint32_t fan_in;        // conv: h w in; linear: in; else 0
    float initial;          // value of vectors at the start (scale 1 or 0, offset and bias 0)
    bool decay;             // weight decay and LARS scaling apply
};

// Running statistics of one batch normalisation: BATCH_NORM_STATE(channels) floats at `offset` of
// the flat state block.
struct graph_state {
    char name[128]; // the module's: "resnet/initial_batchnorm"
    uint64_t offset;
    uint32_t channels;
};

struct graph_op {
    enum op_kind kind;
    graph_value x, x2, y; // x2 GRAPH_BAD unless ADD
    uint32_t out_channels, kernel, stride;
    enum graph_padding padding;
    uint32_t channel_groups;        // GROUP_NORM
    bool relu, bias, stop_gradient; // stop_gradient: x is treated as a constant
    bool standardise;               // CONV, LINEAR
    int param, state; // first index in the tables (SCALE is followed by OFFSET, weights by bias:
                      // one piece of the flat block, as the device wants it), -1 when none
};

struct graph_value_info {
    enum tensor_kind kind;
    uint32_t h, w, c; // per image
};

// Rows and columns that a CONV or MAX_POOL adds around its input.
struct graph_pads {
    uint32_t top, left, bottom, right;
};

struct graph_output {
    char name[32]; // "embedding", "projection", "prediction", "logits"
    graph_value value;
};

struct graph;
enum status graph_open(struct graph **out, struct error *error);
void graph_close(struct graph **graph);

graph_value graph_input(struct graph *graph, uint32_t height,
                        uint32_t width); // RGB, normalised; exactly one
graph_value graph_conv(struct graph *graph, const char *name, graph_value x, uint32_t out_channels,
                       uint32_t kernel, uint32_t stride, enum graph_padding padding);
graph_value graph_batch_norm(struct graph *graph, const char *name, graph_value x, bool relu,
                             float initial_scale);
graph_value graph_group_norm(struct graph *graph, const char *name, graph_value x,
                             uint32_t channel_groups, bool relu, float initial_scale);
graph_value graph_affine(struct graph *graph, const char *name, graph_value x, bool relu,
                         float initial_scale);
graph_value graph_add(struct graph *graph, graph_value x, graph_value x2, bool relu);
graph_value graph_relu(struct graph *graph, graph_value x);
graph_value graph_max_pool(struct graph *graph, graph_value x, uint32_t kernel, uint32_t stride,
                           enum graph_padding padding);
graph_value graph_mean_pool(struct graph *graph, graph_value x);
graph_value graph_linear(struct graph *graph, const char *name, graph_value x,
                         uint32_t out_features, bool bias);
// Standardises the weights of the convolution or linear layer that made x, the newest value.
graph_value graph_standardise(struct graph *graph, graph_value x);
graph_value graph_stop_gradient(struct graph *graph,
                                graph_value x); // marks; costs nothing at run time. Not for
                                                // graph_add or graph_output_add.
enum status graph_output_add(struct graph *graph, const char *name, graph_value x);

// Sorts the parameter and state tables by the module's name (within a module as graph_op says),
// assigns offsets, checks everything. After it the
// graph is immutable.
enum status graph_finish(struct graph *graph, struct error *error);

size_t graph_op_count(const struct graph *graph);
const struct graph_op *graph_op_at(const struct graph *graph, size_t index);
const struct graph_value_info *graph_value_at(const struct graph *graph, graph_value value);
struct graph_pads graph_op_pads(const struct graph *graph, const struct graph_op *op);
size_t graph_param_count(const struct graph *graph);
const struct graph_param *graph_param_at(const struct graph *graph, size_t index);
uint64_t graph_param_floats(const struct graph *graph); // length of the flat parameter block
size_t graph_state_count(const struct graph *graph);
const struct graph_state *graph_state_at(const struct graph *graph, size_t index);
uint64_t graph_state_floats(const struct graph *graph);
const struct graph_output *graph_output_find(const struct graph *graph,
                                             const char *name); // NULL when absent

#endif
