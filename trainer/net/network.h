// A graph planned for a device, a batch and a use: one arena for activations, gradients and
// scratch, laid out once from the life times of the values. Running it allocates nothing.
//
// Parameters and state are not part of a network: they are flat device blocks passed to each call,
// so that several networks (batch sizes, training and evaluation) share them.
#ifndef TRAINER_NET_NETWORK_H
#define TRAINER_NET_NETWORK_H

#include "trainer/net/graph.h"

#define NETWORK_MAX_OUTPUTS 8

struct network_config {
    uint32_t images; // in the whole batch: groups x images per view
    uint32_t groups; // views
    bool backward;   // plan gradients too
    bool recompute;  // with backward: what lies inside residual blocks is dropped after the forward
                     // pass and computed again in the backward pass; same bits, less memory
    const char *outputs[NETWORK_MAX_OUTPUTS]; // names wanted; ops that feed none of them are left
                                              // out. NULL ends the list.
};

struct network;
enum status network_open(struct network **out, const struct graph *graph, struct device *device,
                         const struct network_config *config, struct error *error);
void network_close(struct network **network);

uint64_t network_arena_bytes(const struct network *network);

// Adds the ops that were planned, by kind.
void network_count_ops(const struct network *network, size_t counts[OP_KINDS]);

// `images`: device memory, float32 [images][size][size][3] in [0, 1], view after view.
enum status network_forward(struct network *network, const float *params, float *state,
                            const float *images, enum op_mode mode, struct error *error);

// After forward: a MATRIX output [images][c] in device memory, valid until the next forward. NULL
// when not planned.
const float *network_output(const struct network *network, const char *name);
uint32_t network_output_width(const struct network *network, const char *name);

// Where the caller puts d loss / d output before network_backward (device memory, [images][c]);
// outputs not seeded must be filled with zero by the caller. NULL when not planned.
float *network_output_gradient(struct network *network, const char *name);

// Overwrites `grads` (a whole flat parameter block): parameters that no planned output depends on
// get zero.
enum status network_backward(struct network *network, const float *params, float *grads,
                             const float *images, struct error *error);

// Seconds spent in each op kind since open (index: enum op_kind), forward (what is computed again
// too) and backward. On a device that works ahead and is not timed: spent queueing.
void network_times(const struct network *network, double forward[OP_KINDS],
                   double backward[OP_KINDS]);

#endif
