// The plan of a network, shared by the files that make it (network_plan.c, network_recompute.c,
// network_arena.c) and run it (network.c).
//
// Time is counted in ops: with n ops, forward of op k happens at time k; from time n on come the
// backward ops, the last op's first, and among them the ops that are replayed. Every piece of
// memory is a block with the first and last time it is needed; blocks that are never needed at the
// same time may share their place in the arena.
#ifndef TRAINER_NET_NETWORK_INTERNAL_H
#define TRAINER_NET_NETWORK_INTERNAL_H

#include "trainer/net/network.h"

typedef int32_t block_id; // index of a block, or NO_BLOCK
#define NO_BLOCK (-1)

struct block {
    uint64_t bytes, offset;
    size_t first, last; // times, inclusive
};

struct op_blocks {
    block_id x, x2, y;
};

// One op that runs, with the blocks it works on.
struct planned_op {
    struct op_desc desc;
    struct op *op;
    uint64_t param_offset, state_offset; // floats in the flat blocks
    bool has_params, has_state;
    bool backward;            // runs backward
    graph_value x, x2, y;     // GRAPH_BAD when none
    bool wants_dx, wants_dx2; // gradients of the inputs are needed
    bool replayed;            // its result is dropped after the forward pass and computed again
    size_t replay_from; // of the last op of a residual block: before its backward, those of the
                        // ops from here on that are replayed run again; else the op itself
    size_t backward_at, replay_at;
    struct op_blocks first; // of the forward pass
    struct op_blocks again; // of the replay and of backward: the same but for replayed values
    block_id saved;
    block_id dy, dx, dx2;
    block_id sum, sum2; // where dx, dx2 are added to: an earlier consumer's gradient of that input
};

struct planned_output {
    char name[32];
    uint32_t width;
    graph_value source;
    block_id value, gradient;
};

struct param_range {
    uint64_t offset, count;
};

struct network {
    struct device *device;
    struct network_config config;

    struct planned_op *ops;
    size_t op_count;
    struct block *blocks;
    size_t block_count, block_capacity;
    size_t end; // after the last time
    block_id scratch;
    block_id shadow; // running statistics that replayed ops may move
    struct planned_output outputs[NETWORK_MAX_OUTPUTS];
    size_t output_count;
    struct param_range *idle; // parameters whose gradient is zero
    size_t idle_count;

    uint64_t arena_bytes;
    char *arena; // device memory
    bool ready;  // a training forward has been run: backward may follow
    double forward_seconds[OP_KINDS], backward_seconds[OP_KINDS];
};

// Chooses the ops that feed the outputs, creates them, and gives every value, gradient and saved
// piece a block. `graph` is not needed afterwards.
enum status network_plan(struct network *network, const struct graph *graph, struct error *error);

// Decides what is replayed: sets `replayed` and `replay_from`.
enum status network_recompute(struct network *network, struct error *error);

// The normalisations, and what stands in their place.
bool network_scales_channels(enum op_kind kind);

// The device contract: backward reads x of some ops, y of some, and nothing else that forward made
// but what it saved itself.
bool network_backward_reads_x(const struct planned_op *planned);
bool network_backward_reads_y(const struct planned_op *planned);

// Places the blocks: sets their offsets and arena_bytes.
enum status network_arrange(struct network *network, struct error *error);

#endif
