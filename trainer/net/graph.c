// Building a graph: values, ops and the two tables that follow from them.
//
// A stopped value is an alias: an entry of its own that names its source. Ops record the source and
// set their stop_gradient, so that nothing later has to know about aliases.
#include "trainer/net/graph_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MODULE (sizeof((struct graph_param *)0)->name - sizeof "/offset")

static graph_value fail(struct graph *graph, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static graph_value fail(struct graph *graph, enum status status, const char *format, ...)
{
    if (graph->failure.status == STATUS_OK) {
        char reason[sizeof graph->failure.reason];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(reason, sizeof reason, format, arguments);
        va_end(arguments);
        error_set(&graph->failure, status, NULL, NOWHERE, NOWHERE, "%s", reason);
    }
    return GRAPH_BAD;
}

// Room for one more item, zeroed; NULL after remembering the failure.
static void *list_push(struct graph *graph, struct list *list, size_t item)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        void *items = reallocarray(list->items, capacity, item);
        if (items == NULL) {
            fail(graph, STATUS_NO_MEMORY, "no memory for a graph");
            return NULL;
        }
        list->items = items;
        list->capacity = capacity;
    }
    void *at = (char *)list->items + item * list->count++;
    memset(at, 0, item);
    return at;
}

enum status graph_open(struct graph **out, struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a graph");
    }
    return STATUS_OK;
}

void graph_close(struct graph **graph)
{
    if (*graph != NULL) {
        free((*graph)->ops.items);
        free((*graph)->values.items);
        free((*graph)->params.items);
        free((*graph)->states.items);
        free(*graph);
        *graph = NULL;
    }
}

// --- the builders' common steps

static bool usable(struct graph *graph, graph_value x)
{
    if (graph->failure.status != STATUS_OK) {
        return false;
    }
    if (graph->finished || x < 0 || (size_t)x >= graph->values.count) {
        fail(graph, STATUS_INVALID, "value %d is not one that an op can take", (int)x);
        return false;
    }
    return true;
}

static bool usable_as(struct graph *graph, graph_value x, enum tensor_kind kind, const char *what)
{
    if (!usable(graph, x)) {
        return false;
    }
    if (values(graph)[x].info.kind != kind) {
        fail(graph, STATUS_INVALID, "%s cannot take a value of that kind", what);
        return false;
    }
    return true;
}

static graph_value value_add(struct graph *graph, struct graph_value_info info)
{
    struct value *value = list_push(graph, &graph->values, sizeof *value);
    if (value == NULL) {
        return GRAPH_BAD;
    }
    value->info = info;
    value->source = (graph_value)(graph->values.count - 1);
    return value->source;
}

// Appends an op and the value it makes; x may be an alias.
static graph_value op_add(struct graph *graph, struct graph_op op, struct graph_value_info info)
{
    graph_value y = value_add(graph, info);
    struct graph_op *added = y == GRAPH_BAD ? NULL : list_push(graph, &graph->ops, sizeof *added);
    if (added == NULL) {
        return GRAPH_BAD;
    }
    if (op.x != GRAPH_BAD) {
        op.stop_gradient = values(graph)[op.x].stopped;
        op.x = values(graph)[op.x].source;
    }
    op.y = y;
    op.param = op.state = -1;
    *added = op;
    return y;
}

// Adds a parameter of the op appended last; false after remembering the failure.
static bool param_add(struct graph *graph, const char *module, const char *role_name, unsigned role,
                      struct graph_param param)
{
    if (strlen(module) == 0 || strlen(module) > MAX_MODULE) {
        fail(graph, STATUS_INVALID, "the module name '%.64s' is empty or too long", module);
        return false;
    }
    struct param_entry *entry = list_push(graph, &graph->params, sizeof *entry);
    if (entry == NULL) {
        return false;
    }
    entry->param = param;
    entry->param.count = 1;
    for (unsigned i = 0; i < param.dims; i++) {
        entry->param.count *= param.shape[i];
    }
    snprintf(entry->param.name, sizeof entry->param.name, "%s/%s", module, role_name);
    snprintf(entry->module, sizeof entry->module, "%s", module);
    entry->op = graph->ops.count - 1;
    entry->role = role;
    return true;
}

static struct graph_param vector_param(enum param_kind kind, uint32_t channels, float initial)
{
    return (struct graph_param){
        .kind = kind, .dims = 1, .shape = {channels}, .initial = initial, .decay = false};
}

static bool state_add(struct graph *graph, const char *module, uint32_t channels)
{
    struct state_entry *entry = list_push(graph, &graph->states, sizeof *entry);
    if (entry == NULL) {
        return false;
    }
    entry->state.channels = channels;
    snprintf(entry->state.name, sizeof entry->state.name, "%s", module);
    entry->op = graph->ops.count - 1;
    return true;
}

// Output side of a window op; 0 when the window does not fit.
static uint32_t window_side(uint32_t in, uint32_t kernel, uint32_t stride,
                            enum graph_padding padding)
{
    if (kernel == 0 || stride == 0) {
        return 0;
    }
    if (padding == GRAPH_PADDING_SAME) {
        return (in + stride - 1) / stride;
    }
    uint32_t padded = in + 2 * ((kernel - 1) / 2);
    return padded < kernel ? 0 : (padded - kernel) / stride + 1;
}

static graph_value window_add(struct graph *graph, struct graph_op op)
{
    struct graph_value_info in = values(graph)[op.x].info;
    struct graph_value_info out = {.kind = TENSOR_IMAGE, .c = op.out_channels};
    out.h = window_side(in.h, op.kernel, op.stride, op.padding);
    out.w = window_side(in.w, op.kernel, op.stride, op.padding);
    if (out.h == 0 || out.w == 0 || out.c == 0) {
        return fail(graph, STATUS_INVALID, "a window of %u, stride %u, does not fit %u x %u",
                    op.kernel, op.stride, in.h, in.w);
    }
    return op_add(graph, op, out);
}

// --- the builders

static struct graph_op plain_op(enum op_kind kind, graph_value x, uint32_t out_channels)
{
    return (struct graph_op){.kind = kind, .x = x, .x2 = GRAPH_BAD, .out_channels = out_channels};
}

static struct graph_op window_op(enum op_kind kind, graph_value x, uint32_t out_channels,
                                 uint32_t kernel, uint32_t stride, enum graph_padding padding)
{
    struct graph_op op = plain_op(kind, x, out_channels);
    op.kernel = kernel;
    op.stride = stride;
    op.padding = padding;
    return op;
}

graph_value graph_input(struct graph *graph, uint32_t height, uint32_t width)
{
    if (graph->failure.status != STATUS_OK) {
        return GRAPH_BAD;
    }
    if (graph->has_input || height == 0 || width == 0) {
        return fail(graph, STATUS_INVALID, "a graph has exactly one input, of at least 1 x 1");
    }
    graph->has_input = true;
    return op_add(graph, plain_op(OP_INPUT, GRAPH_BAD, 3),
                  (struct graph_value_info){TENSOR_IMAGE, height, width, 3});
}

graph_value graph_conv(struct graph *graph, const char *name, graph_value x, uint32_t out_channels,
                       uint32_t kernel, uint32_t stride, enum graph_padding padding)
{
    if (!usable_as(graph, x, TENSOR_IMAGE, "a convolution")) {
        return GRAPH_BAD;
    }
    uint32_t in_channels = values(graph)[x].info.c;
    graph_value y = window_add(graph, window_op(OP_CONV, x, out_channels, kernel, stride, padding));
    struct graph_param weights = {.kind = PARAM_CONV,
                                  .dims = 4,
                                  .shape = {kernel, kernel, in_channels, out_channels},
                                  .fan_in = kernel * kernel * in_channels,
                                  .decay = true};
    return y != GRAPH_BAD && param_add(graph, name, "w", 0, weights) ? y : GRAPH_BAD;
}

// `op` keeps the shape of its x and has a scale and an offset per channel.
static graph_value scaling_add(struct graph *graph, const char *name, struct graph_op op,
                               float initial_scale)
{
    struct graph_value_info info = values(graph)[op.x].info;
    graph_value y = op_add(graph, op, info);
    bool added =
        y != GRAPH_BAD &&
        param_add(graph, name, "scale", 0, vector_param(PARAM_SCALE, info.c, initial_scale)) &&
        param_add(graph, name, "offset", 1, vector_param(PARAM_OFFSET, info.c, 0));
    return added ? y : GRAPH_BAD;
}

graph_value graph_batch_norm(struct graph *graph, const char *name, graph_value x, bool relu,
                             float initial_scale)
{
    if (!usable(graph, x)) {
        return GRAPH_BAD;
    }
    uint32_t channels = values(graph)[x].info.c;
    struct graph_op op = plain_op(OP_BATCH_NORM, x, channels);
    op.relu = relu;
    graph_value y = scaling_add(graph, name, op, initial_scale);
    return y != GRAPH_BAD && state_add(graph, name, channels) ? y : GRAPH_BAD;
}

graph_value graph_group_norm(struct graph *graph, const char *name, graph_value x,
                             uint32_t channel_groups, bool relu, float initial_scale)
{
    if (!usable(graph, x)) {
        return GRAPH_BAD;
    }
    uint32_t channels = values(graph)[x].info.c;
    if (channel_groups == 0 || channels % channel_groups != 0) {
        return fail(graph, STATUS_INVALID, "%u groups do not divide the %u channels of '%.64s'",
                    channel_groups, channels, name);
    }
    struct graph_op op = plain_op(OP_GROUP_NORM, x, channels);
    op.channel_groups = channel_groups;
    op.relu = relu;
    return scaling_add(graph, name, op, initial_scale);
}

graph_value graph_affine(struct graph *graph, const char *name, graph_value x, bool relu,
                         float initial_scale)
{
    if (!usable(graph, x)) {
        return GRAPH_BAD;
    }
    struct graph_op op = plain_op(OP_AFFINE, x, values(graph)[x].info.c);
    op.relu = relu;
    return scaling_add(graph, name, op, initial_scale);
}

graph_value graph_add(struct graph *graph, graph_value x, graph_value x2, bool relu)
{
    if (!usable_as(graph, x, TENSOR_IMAGE, "an addition") ||
        !usable_as(graph, x2, TENSOR_IMAGE, "an addition")) {
        return GRAPH_BAD;
    }
    const struct value *a = &values(graph)[x], *b = &values(graph)[x2];
    if (a->info.h != b->info.h || a->info.w != b->info.w || a->info.c != b->info.c) {
        return fail(graph, STATUS_INVALID, "cannot add %u x %u x %u and %u x %u x %u", a->info.h,
                    a->info.w, a->info.c, b->info.h, b->info.w, b->info.c);
    }
    if (a->stopped || b->stopped) {
        return fail(graph, STATUS_INVALID, "an addition cannot stop gradients");
    }
    struct graph_op op = plain_op(OP_ADD, x, a->info.c);
    op.x2 = x2;
    op.relu = relu;
    return op_add(graph, op, a->info);
}

graph_value graph_relu(struct graph *graph, graph_value x)
{
    if (!usable(graph, x)) {
        return GRAPH_BAD;
    }
    struct graph_value_info info = values(graph)[x].info;
    return op_add(graph, plain_op(OP_RELU, x, info.c), info);
}

graph_value graph_max_pool(struct graph *graph, graph_value x, uint32_t kernel, uint32_t stride,
                           enum graph_padding padding)
{
    if (!usable_as(graph, x, TENSOR_IMAGE, "a max pool")) {
        return GRAPH_BAD;
    }
    uint32_t channels = values(graph)[x].info.c;
    return window_add(graph, window_op(OP_MAX_POOL, x, channels, kernel, stride, padding));
}

graph_value graph_mean_pool(struct graph *graph, graph_value x)
{
    if (!usable_as(graph, x, TENSOR_IMAGE, "a mean pool")) {
        return GRAPH_BAD;
    }
    uint32_t channels = values(graph)[x].info.c;
    return op_add(graph, plain_op(OP_MEAN_POOL, x, channels),
                  (struct graph_value_info){TENSOR_MATRIX, 1, 1, channels});
}

graph_value graph_linear(struct graph *graph, const char *name, graph_value x,
                         uint32_t out_features, bool bias)
{
    if (!usable_as(graph, x, TENSOR_MATRIX, "a linear layer")) {
        return GRAPH_BAD;
    }
    if (out_features == 0) {
        return fail(graph, STATUS_INVALID, "the linear layer '%.64s' has no outputs", name);
    }
    uint32_t in_features = values(graph)[x].info.c;
    struct graph_param weights = {.kind = PARAM_LINEAR,
                                  .dims = 2,
                                  .shape = {in_features, out_features},
                                  .fan_in = in_features,
                                  .decay = true};
    struct graph_op op = plain_op(OP_LINEAR, x, out_features);
    op.bias = bias;
    graph_value y = op_add(graph, op, (struct graph_value_info){TENSOR_MATRIX, 1, 1, out_features});
    bool added =
        y != GRAPH_BAD && param_add(graph, name, "w", 0, weights) &&
        (!bias || param_add(graph, name, "b", 1, vector_param(PARAM_BIAS, out_features, 0)));
    return added ? y : GRAPH_BAD;
}

graph_value graph_standardise(struct graph *graph, graph_value x)
{
    if (!usable(graph, x)) {
        return GRAPH_BAD;
    }
    struct graph_op *last = graph->ops.count > 0 ? &ops(graph)[graph->ops.count - 1] : NULL;
    if (last == NULL || last->y != x || (last->kind != OP_CONV && last->kind != OP_LINEAR)) {
        return fail(graph, STATUS_INVALID, "only the newest layer's weights can be standardised");
    }
    last->standardise = true;
    return x;
}

graph_value graph_stop_gradient(struct graph *graph, graph_value x)
{
    if (!usable(graph, x)) {
        return GRAPH_BAD;
    }
    struct value source = values(graph)[x];
    graph_value alias = value_add(graph, source.info);
    if (alias != GRAPH_BAD) {
        values(graph)[alias].source = source.source;
        values(graph)[alias].stopped = true;
    }
    return alias;
}

enum status graph_output_add(struct graph *graph, const char *name, graph_value x)
{
    if (!usable(graph, x)) {
        return graph->failure.status;
    }
    struct graph_output *output = &graph->outputs[graph->output_count];
    if (graph->output_count == MAX_OUTPUTS || strlen(name) >= sizeof output->name ||
        graph_output_find(graph, name) != NULL || values(graph)[x].stopped) {
        fail(graph, STATUS_INVALID, "'%.64s' cannot become an output", name);
        return graph->failure.status;
    }
    snprintf(output->name, sizeof output->name, "%s", name);
    output->value = x;
    graph->output_count++;
    return STATUS_OK;
}
