// Which ops run, in which memory, and how gradients flow back.
#include "trainer/net/network_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What planning knows about each value of the graph.
struct value_plan {
    bool needed;                     // by a wanted output
    bool learns;                     // depends on parameters without a stop in between
    bool has_gradient;               // a seed or a consumer gives it one
    size_t readers;                  // ops that run, and outputs
    block_id value, again, gradient; // again: where it lies in the backward pass
};

struct planner {
    struct network *network;
    const struct graph *graph;
    struct value_plan *values;
    bool *param_learns; // by index in the graph's table
};

static enum status out_of_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a plan");
}

// --- times and blocks

static void plan_times(struct network *network)
{
    size_t time = network->op_count;
    for (size_t k = network->op_count; k-- > 0;) {
        for (size_t i = network->ops[k].replay_from; i < k; i++) {
            if (network->ops[i].replayed) {
                network->ops[i].replay_at = time++;
            }
        }
        network->ops[k].backward_at = time++;
    }
    network->end = time;
}

// The capacity is known beforehand (network_plan), so this cannot fail.
static block_id block_add(struct network *network, size_t bytes, size_t first, size_t last)
{
    assert(network->block_count < network->block_capacity);
    network->blocks[network->block_count] =
        (struct block){.bytes = bytes, .first = first, .last = last};
    return (block_id)network->block_count++;
}

static void block_extend(const struct network *network, block_id block, size_t time)
{
    if (network->blocks[block].last < time) {
        network->blocks[block].last = time;
    }
}

static size_t tensor_bytes(const struct network *network, struct tensor_shape shape)
{
    return network->device->ops->tensor_bytes(network->device, shape);
}

// --- which ops run

static bool find_outputs(const struct planner *planner, struct error *error)
{
    struct network *network = planner->network;
    for (size_t i = 0; i < NETWORK_MAX_OUTPUTS && network->config.outputs[i] != NULL; i++) {
        const struct graph_output *output =
            graph_output_find(planner->graph, network->config.outputs[i]);
        if (output == NULL ||
            graph_value_at(planner->graph, output->value)->kind != TENSOR_MATRIX) {
            error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                      "the network has no output '%.64s'", network->config.outputs[i]);
            return false;
        }
        struct planned_output *planned = &network->outputs[network->output_count++];
        snprintf(planned->name, sizeof planned->name, "%s", output->name);
        planned->source = output->value;
        planned->width = graph_value_at(planner->graph, output->value)->c;
        planner->values[output->value].needed = true;
        planner->values[output->value].readers++;
        planner->values[output->value].has_gradient = network->config.backward;
    }
    if (network->output_count == 0) {
        error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "a network needs an output");
        return false;
    }
    return true;
}

// Back to front: an op runs when its result is needed. Counts them.
static size_t mark_needed(const struct planner *planner)
{
    size_t count = 0;
    for (size_t i = graph_op_count(planner->graph); i-- > 0;) {
        const struct graph_op *op = graph_op_at(planner->graph, i);
        if (!planner->values[op->y].needed) {
            continue;
        }
        count++;
        if (op->x != GRAPH_BAD) {
            planner->values[op->x].needed = true;
        }
        if (op->x2 != GRAPH_BAD) {
            planner->values[op->x2].needed = true;
        }
    }
    return count;
}

static struct tensor_shape shape_of(const struct planner *planner, graph_value value)
{
    const struct graph_value_info *info = graph_value_at(planner->graph, value);
    return (struct tensor_shape){info->kind, planner->network->config.images, info->h, info->w,
                                 info->c};
}

static struct op_desc describe(const struct planner *planner, const struct graph_op *op)
{
    struct op_desc desc = {
        .kind = op->kind,
        .in = shape_of(planner, op->x == GRAPH_BAD ? op->y : op->x),
        .out = shape_of(planner, op->y),
        .groups = planner->network->config.groups,
        .channel_groups = op->channel_groups,
        .relu = op->relu,
        .bias = op->bias,
        .standardise = op->standardise,
    };
    if (op->kind == OP_CONV || op->kind == OP_MAX_POOL) {
        desc.kernel = op->kernel;
        desc.stride = op->stride;
        struct graph_pads pads = graph_op_pads(planner->graph, op);
        desc.pad_top = pads.top;
        desc.pad_left = pads.left;
        desc.pad_bottom = pads.bottom;
        desc.pad_right = pads.right;
    }
    return desc;
}

// Whether the gradient of an input is of use to anyone.
static bool input_learns(const struct planner *planner, const struct graph_op *op,
                         graph_value input)
{
    return input != GRAPH_BAD && !op->stop_gradient && planner->values[input].learns;
}

static void plan_op(const struct planner *planner, const struct graph_op *op,
                    struct planned_op *planned)
{
    *planned = (struct planned_op){
        .desc = describe(planner, op),
        .x = op->x,
        .x2 = op->x2,
        .y = op->y,
        .has_params = op->param >= 0,
        .has_state = op->state >= 0,
        .wants_dx = input_learns(planner, op, op->x),
        .wants_dx2 = input_learns(planner, op, op->x2),
        .saved = NO_BLOCK,
        .dy = NO_BLOCK,
        .dx = NO_BLOCK,
        .dx2 = NO_BLOCK,
        .sum = NO_BLOCK,
        .sum2 = NO_BLOCK,
    };
    if (planned->has_params) {
        planned->param_offset = graph_param_at(planner->graph, (size_t)op->param)->offset;
    }
    if (planned->has_state) {
        planned->state_offset = graph_state_at(planner->graph, (size_t)op->state)->offset;
    }
    planner->values[op->y].learns = planned->has_params || planned->wants_dx || planned->wants_dx2;
    if (op->x != GRAPH_BAD) {
        planner->values[op->x].readers++;
    }
    if (op->x2 != GRAPH_BAD) {
        planner->values[op->x2].readers++;
    }
}

static void plan_ops(const struct planner *planner)
{
    size_t next = 0;
    for (size_t i = 0; i < graph_op_count(planner->graph); i++) {
        const struct graph_op *op = graph_op_at(planner->graph, i);
        if (planner->values[op->y].needed) {
            plan_op(planner, op, &planner->network->ops[next++]);
        }
    }
}

// --- which sums join the normalisation before them

// Whether nothing but one sum reads what the op makes, as it is.
static bool may_join(const struct planner *planner, const struct planned_op *planned)
{
    return planned->desc.kind == OP_BATCH_NORM && planned->desc.in.kind == TENSOR_IMAGE &&
           !planned->desc.relu && !planned->desc.join && planner->values[planned->y].readers == 1;
}

// The latest op before `end` that makes an input of the sum and may take it over, or `end`: what
// others read while that op waits lives no longer than it has to.
static size_t find_joining(const struct planner *planner, const struct planned_op *sum, size_t end)
{
    const struct planned_op *ops = planner->network->ops;
    for (size_t k = end; k-- > 0;) {
        if ((ops[k].y == sum->x || ops[k].y == sum->x2) && may_join(planner, &ops[k])) {
            return k;
        }
    }
    return end;
}

// The normalisation, at the place of the sum.
static struct planned_op joined(const struct planned_op *normal, const struct planned_op *sum)
{
    struct planned_op both = *normal;
    both.desc.join = true;
    both.desc.relu = sum->desc.relu;
    both.y = sum->y;
    both.x2 = sum->x == normal->y ? sum->x2 : sum->x;
    both.wants_dx2 = sum->x == normal->y ? sum->wants_dx2 : sum->wants_dx;
    return both;
}

// A normalisation and the residual sum that alone reads it become one op: what lies between them is
// never stored.
static void join_sums(const struct planner *planner)
{
    struct network *network = planner->network;
    struct planned_op *ops = network->ops;
    size_t count = 0;
    for (size_t k = 0; k < network->op_count; k++) {
        struct planned_op next = ops[k];
        size_t at = next.desc.kind == OP_ADD ? find_joining(planner, &next, count) : count;
        if (at < count) {
            next = joined(&ops[at], &next);
            memmove(&ops[at], &ops[at + 1], (count - at - 1) * sizeof *ops);
            count--;
        }
        ops[count++] = next;
    }
    network->op_count = count;
    for (size_t k = 0; k < count; k++) {
        ops[k].replay_from = k;
    }
}

// --- which ops run backward

static void mark_params(const struct planner *planner, const struct planned_op *planned)
{
    // A parameter belongs to the op when it lies in the op's piece of the block.
    uint64_t first = planned->param_offset;
    uint32_t in = planned->desc.in.c, out = planned->desc.out.c;
    uint64_t count = 2 * (uint64_t)out; // of a normalisation
    if (planned->desc.kind == OP_CONV) {
        count = (uint64_t)planned->desc.kernel * planned->desc.kernel * in * out;
    } else if (planned->desc.kind == OP_LINEAR) {
        count = (uint64_t)in * out + (planned->desc.bias ? out : 0);
    }
    for (size_t i = 0; i < graph_param_count(planner->graph); i++) {
        uint64_t offset = graph_param_at(planner->graph, i)->offset;
        if (offset >= first && offset < first + count) {
            planner->param_learns[i] = true;
        }
    }
}

static void mark_backward(const struct planner *planner)
{
    struct network *network = planner->network;
    for (size_t k = network->op_count; k-- > 0;) {
        struct planned_op *planned = &network->ops[k];
        planned->backward =
            planner->values[planned->y].has_gradient && planner->values[planned->y].learns;
        planned->wants_dx = planned->wants_dx && planned->backward;
        planned->wants_dx2 = planned->wants_dx2 && planned->backward;
        planned->desc.need_backward = planned->backward;
        planned->desc.need_input_gradient = planned->wants_dx || planned->wants_dx2;
        if (planned->wants_dx) {
            planner->values[planned->x].has_gradient = true;
        }
        if (planned->wants_dx2) {
            planner->values[planned->x2].has_gradient = true;
        }
        if (planned->backward && planned->has_params) {
            mark_params(planner, planned);
        }
    }
}

static enum status list_idle(const struct planner *planner, struct error *error)
{
    struct network *network = planner->network;
    network->idle = calloc(graph_param_count(planner->graph) + 1, sizeof *network->idle);
    if (network->idle == NULL) {
        return out_of_memory(error);
    }
    for (size_t i = 0; i < graph_param_count(planner->graph); i++) {
        const struct graph_param *param = graph_param_at(planner->graph, i);
        if (planner->param_learns[i]) {
            continue;
        }
        struct param_range *last = &network->idle[network->idle_count];
        if (network->idle_count > 0 && last[-1].offset + last[-1].count == param->offset) {
            last[-1].count += param->count;
        } else {
            *last = (struct param_range){param->offset, param->count};
            network->idle_count++;
        }
    }
    return STATUS_OK;
}

static enum status create_ops(struct network *network, struct error *error)
{
    const struct device_ops *device = network->device->ops;
    enum status status = STATUS_OK;
    for (size_t k = 0; k < network->op_count && status == STATUS_OK; k++) {
        struct planned_op *planned = &network->ops[k];
        status = device->op_create(network->device, &planned->desc, &planned->op, error);
    }
    return status;
}

// --- memory of the values

static block_id read_block(const struct network *network, block_id block, size_t time)
{
    if (block != NO_BLOCK) {
        block_extend(network, block, time);
    }
    return block;
}

static block_id value_block(const struct planner *planner, graph_value value, bool again)
{
    if (value == GRAPH_BAD) {
        return NO_BLOCK;
    }
    const struct value_plan *plan = &planner->values[value];
    return again ? plan->again : plan->value;
}

static void plan_first(const struct planner *planner, size_t k)
{
    struct network *network = planner->network;
    struct planned_op *planned = &network->ops[k];
    struct value_plan *result = &planner->values[planned->y];
    planned->first.x = read_block(network, value_block(planner, planned->x, false), k);
    planned->first.x2 = read_block(network, value_block(planner, planned->x2, false), k);
    planned->first.y = block_add(network, tensor_bytes(network, planned->desc.out), k, k);
    result->value = planned->first.y;
    size_t bytes = network->device->ops->op_saved_bytes(planned->op);
    if (bytes > 0) {
        planned->saved = block_add(network, bytes, k, planned->backward ? planned->backward_at : k);
    }
}

static void plan_again(const struct planner *planner, size_t k)
{
    struct network *network = planner->network;
    struct planned_op *planned = &network->ops[k];
    struct op_blocks *again = &planned->again;
    again->x = value_block(planner, planned->x, true);
    again->x2 = value_block(planner, planned->x2, true);
    again->y = planned->first.y;
    if (planned->replayed) {
        read_block(network, again->x, planned->replay_at);
        read_block(network, again->x2, planned->replay_at);
        again->y = block_add(network, tensor_bytes(network, planned->desc.out), planned->replay_at,
                             planned->replay_at);
    }
    planner->values[planned->y].again = again->y;
    if (network_backward_reads_x(planned)) {
        block_extend(network, again->x, planned->backward_at);
    }
    if (network_backward_reads_y(planned)) {
        block_extend(network, again->y, planned->backward_at);
    }
}

static void plan_value_memory(const struct planner *planner)
{
    struct network *network = planner->network;
    size_t scratch = 0, shadow = 0;
    for (size_t k = 0; k < network->op_count; k++) {
        const struct planned_op *planned = &network->ops[k];
        plan_first(planner, k);
        plan_again(planner, k);
        size_t bytes = network->device->ops->op_scratch_bytes(planned->op);
        scratch = bytes > scratch ? bytes : scratch;
        bytes = BATCH_NORM_STATE(planned->desc.out.c) * sizeof(float);
        shadow = planned->replayed && planned->has_state && bytes > shadow ? bytes : shadow;
    }
    if (scratch > 0) {
        network->scratch = block_add(network, scratch, 0, network->end);
    }
    if (shadow > 0) {
        network->shadow = block_add(network, shadow, network->op_count, network->end);
    }
}

static void plan_outputs(const struct planner *planner)
{
    struct network *network = planner->network;
    for (size_t i = 0; i < network->output_count; i++) {
        struct planned_output *output = &network->outputs[i];
        graph_value value = graph_output_find(planner->graph, output->name)->value;
        struct value_plan *plan = &planner->values[value];
        output->value = plan->value;
        output->gradient = NO_BLOCK;
        block_extend(network, output->value, network->end);
        if (network->config.backward) {
            if (plan->gradient == NO_BLOCK) {
                plan->gradient = block_add(network, tensor_bytes(network, shape_of(planner, value)),
                                           0, network->end);
            }
            output->gradient = plan->gradient;
        }
    }
}

// --- memory of the backward pass

static bool may_work_in_place(const struct planned_op *planned)
{
    enum op_kind kind = planned->desc.kind;
    return kind == OP_RELU || kind == OP_ADD || network_scales_channels(kind);
}

// Where the gradient of one input goes. The first consumer to run writes it; the others write
// beside it, into `dx`, and add that to `sum`.
static void route(const struct planner *planner, graph_value input, block_id in_place, size_t time,
                  block_id *dx, block_id *sum)
{
    struct network *network = planner->network;
    struct value_plan *value = &planner->values[input];
    *dx = in_place;
    if (*dx == NO_BLOCK) {
        *dx = block_add(network, tensor_bytes(network, shape_of(planner, input)), time, time);
    }
    if (value->gradient == NO_BLOCK) {
        value->gradient = *dx;
    } else {
        *sum = value->gradient;
        block_extend(network, *sum, time);
    }
}

static void plan_backward_memory(const struct planner *planner)
{
    struct network *network = planner->network;
    for (size_t k = network->op_count; k-- > 0;) {
        struct planned_op *planned = &network->ops[k];
        if (!planned->backward) {
            continue;
        }
        size_t time = planned->backward_at;
        planned->dy = planner->values[planned->y].gradient;
        assert(planned->dy != NO_BLOCK);
        block_extend(network, planned->dy, time);
        block_id in_place = may_work_in_place(planned) ? planned->dy : NO_BLOCK;
        if (planned->wants_dx) {
            route(planner, planned->x, in_place, time, &planned->dx, &planned->sum);
            in_place = NO_BLOCK;
        }
        if (planned->wants_dx2) {
            route(planner, planned->x2, in_place, time, &planned->dx2, &planned->sum2);
        }
    }
}

// --- all of it

static enum status plan(struct planner *planner, struct error *error)
{
    struct network *network = planner->network;
    if (!find_outputs(planner, error)) {
        return STATUS_INVALID;
    }
    network->op_count = mark_needed(planner);
    assert(network->op_count > 0); // an output comes from some op
    network->ops = calloc(network->op_count, sizeof *network->ops);
    // An op has at most a value, the same again, something saved and two gradients.
    network->block_capacity = 5 * network->op_count + NETWORK_MAX_OUTPUTS + 2;
    network->blocks = calloc(network->block_capacity, sizeof *network->blocks);
    if (network->ops == NULL || network->blocks == NULL) {
        return out_of_memory(error);
    }
    plan_ops(planner);
    join_sums(planner);
    mark_backward(planner);
    enum status status = list_idle(planner, error);
    if (status == STATUS_OK) {
        status = create_ops(network, error);
    }
    if (status == STATUS_OK && network->config.backward && network->config.recompute) {
        status = network_recompute(network, error);
    }
    if (status == STATUS_OK) {
        plan_times(network);
        plan_value_memory(planner);
        plan_outputs(planner);
        plan_backward_memory(planner);
    }
    return status;
}

enum status network_plan(struct network *network, const struct graph *graph, struct error *error)
{
    // The last op makes the highest value that anything reads.
    size_t values = (size_t)graph_op_at(graph, graph_op_count(graph) - 1)->y + 1;
    struct planner planner = {
        .network = network,
        .graph = graph,
        .values = calloc(values, sizeof *planner.values),
        .param_learns = calloc(graph_param_count(graph) + 1, sizeof *planner.param_learns),
    };
    enum status status;
    if (planner.values == NULL || planner.param_learns == NULL) {
        status = out_of_memory(error);
    } else {
        for (size_t i = 0; i < values; i++) {
            planner.values[i].value = planner.values[i].again = planner.values[i].gradient =
                NO_BLOCK;
        }
        network->scratch = network->shadow = NO_BLOCK;
        status = plan(&planner, error);
    }
    free(planner.values);
    free(planner.param_learns);
    return status;
}
