// What is computed a second time instead of being kept.
//
// A residual block begins and ends where a single value carries everything from the ops before to
// the ops after it: a cut. The values at cuts stay; those inside a block are dropped after the
// forward pass, and made again just before the block's backward pass reads them. What the ops saved
// (statistics, places of maxima) is small, stays, and is written again with the same bytes.
#include "trainer/net/network_internal.h"

#include <stdlib.h>

bool network_scales_channels(enum op_kind kind)
{
    return kind == OP_BATCH_NORM || kind == OP_GROUP_NORM || kind == OP_AFFINE;
}

// Residual sums, alone or joined to a normalisation: the last ops of residual blocks.
static bool is_sum(const struct planned_op *planned)
{
    return planned->desc.kind == OP_ADD || planned->desc.join;
}

bool network_backward_reads_x(const struct planned_op *planned)
{
    enum op_kind kind = planned->desc.kind;
    return planned->backward &&
           (kind == OP_CONV || kind == OP_LINEAR || network_scales_channels(kind));
}

bool network_backward_reads_y(const struct planned_op *planned)
{
    return planned->backward &&
           (planned->desc.kind == OP_RELU || (planned->desc.relu && is_sum(planned)));
}

static bool is_output(const struct network *network, graph_value value)
{
    for (size_t i = 0; i < network->output_count; i++) {
        if (network->outputs[i].source == value) {
            return true;
        }
    }
    return false;
}

// From the end of a block to its begin: an op runs again when its result is read by the backward
// pass or by an op that runs again. The block's own result, the last op's, is a kept one.
static void mark_replayed(struct network *network, size_t first, size_t last, bool *wanted)
{
    network->ops[last].replay_from = first;
    for (size_t k = last + 1; k-- > first;) {
        struct planned_op *planned = &network->ops[k];
        bool read = wanted[planned->y] || network_backward_reads_y(planned);
        planned->replayed = k < last && read && !is_output(network, planned->y);
        if (planned->x != GRAPH_BAD && (planned->replayed || network_backward_reads_x(planned))) {
            wanted[planned->x] = true;
        }
        if (planned->x2 != GRAPH_BAD && planned->replayed) {
            wanted[planned->x2] = true;
        }
    }
}

// `last_read` by value: the last op that reads it.
static void mark_blocks(struct network *network, const size_t *last_read, bool *wanted)
{
    size_t start = 0, reach = 0; // reach: the last op that reads anything made before op k
    bool inside = false;         // past the stem, where every block follows on the one before it
    for (size_t k = 0; k < network->op_count; k++) {
        bool cut = reach <= k, sum = is_sum(&network->ops[k]);
        if (cut && sum) {
            mark_replayed(network, start, k, wanted);
            inside = true;
        }
        if (cut && (sum || !inside)) {
            start = k + 1;
        }
        size_t read = last_read[network->ops[k].y];
        reach = read > reach ? read : reach;
    }
}

enum status network_recompute(struct network *network, struct error *error)
{
    size_t values = (size_t)network->ops[network->op_count - 1].y + 1; // the last op's is highest
    size_t *last_read = calloc(values, sizeof *last_read);
    bool *wanted = calloc(values, sizeof *wanted);
    enum status status = STATUS_OK;
    if (last_read == NULL || wanted == NULL) {
        status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a plan");
    } else {
        for (size_t k = 0; k < network->op_count; k++) {
            const struct planned_op *planned = &network->ops[k];
            if (planned->x != GRAPH_BAD) {
                last_read[planned->x] = k;
            }
            if (planned->x2 != GRAPH_BAD) {
                last_read[planned->x2] = k;
            }
        }
        mark_blocks(network, last_read, wanted);
    }
    free(last_read);
    free(wanted);
    return status;
}
