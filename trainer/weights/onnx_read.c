// Reading of the ONNX models that onnx_write makes: nodes become ops of a graph again, and each op
// remembers the initialisers that its node named. Anything else is refused by name.
#include "trainer/weights/onnx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"
#include "formats/protobuf.h"
#include "trainer/weights/names.h"
#include "trainer/weights/onnx_layout.h"

#define FILE_LIMIT  (UINT64_C(1) << 31)
#define MOST_FIELDS 65536 // of the graph: nodes, tensors; names are looked for one by one
#define MOST_INPUTS 5
#define MOST_INTS   4
#define COUNTER     SIZE_MAX // in the place of an initialiser: what ONNX does not have

struct text {
    const char *at;
    size_t len;
};

struct initialiser {
    struct text name, raw; // raw: little-endian values
    unsigned dims;
    uint64_t shape[4], type;
};

struct node {
    struct text type, inputs[MOST_INPUTS], output;
    size_t input_count;
    uint64_t kernel, strides, pads[MOST_INTS]; // kernels and strides are square
};

// A value by its name; `groups`: what InstanceNormalization has made of it, waiting for its scale.
struct named {
    struct text name;
    graph_value value;
    uint32_t groups;
    const struct initialiser *scale; // of a Mul that waits for its Add
};

struct reading {
    const char *path;
    struct protobuf_reader graph_message;
    struct graph *graph;
    struct initialiser *initialisers;
    struct named *values;
    size_t *weights; // initialisers as weights_list will name them, or COUNTER
    size_t initialiser_count, value_count, weight_count;
    size_t layers; // named so far
};

static enum status refuse(const struct reading *reading, struct error *error, const char *reason,
                          struct text what)
{
    return error_set(error, STATUS_UNSUPPORTED, reading->path, NOWHERE, NOWHERE, "%s '%.*s'",
                     reason, (int)(what.len < 100 ? what.len : 100), what.len > 0 ? what.at : "");
}

// --- the message -----------------------------------------------------------------------------

static struct text text_of(const struct protobuf_field *field)
{
    bool is_text = field->wire == PROTOBUF_LENGTH;
    return (struct text){is_text ? (const char *)field->bytes : "", is_text ? field->len : 0};
}

static bool same(struct text left, struct text right)
{
    return left.len == right.len && memcmp(left.at, right.at, left.len) == 0;
}

static bool is(struct text text, const char *word)
{
    return same(text, (struct text){word, strlen(word)});
}

static enum status damaged(const struct reading *reading, const struct protobuf_reader *reader,
                           struct error *error)
{
    return reader->fault == NULL ? STATUS_OK
                                 : error_set(error, STATUS_CORRUPT, reading->path, NOWHERE, NOWHERE,
                                             "not an ONNX model: %s", reader->fault);
}

static enum status read_initialiser(const struct reading *reading, struct initialiser *out,
                                    const struct protobuf_field *field, struct error *error)
{
    struct protobuf_reader reader = protobuf_enter(field);
    struct protobuf_field part;
    *out = (struct initialiser){.name = {"", 0}};
    while (protobuf_next(&reader, &part)) {
        if (part.number == ONNX_TENSOR_DIMS && part.wire == PROTOBUF_VARINT) {
            if (out->dims == 4) {
                return refuse(reading, error, "too many dimensions in a tensor", out->name);
            }
            out->shape[out->dims++] = part.value;
        } else if (part.number == ONNX_TENSOR_TYPE) {
            out->type = part.value;
        } else if (part.number == ONNX_TENSOR_NAME) {
            out->name = text_of(&part);
        } else if (part.number == ONNX_TENSOR_RAW) {
            out->raw = text_of(&part);
        }
    }
    return damaged(reading, &reader, error);
}

static void read_attribute(struct node *node, const struct protobuf_field *field,
                           struct protobuf_reader *attribute)
{
    struct text name = {"", 0};
    struct protobuf_field part;
    uint64_t ints[MOST_INTS] = {0};
    size_t count = 0;
    *attribute = protobuf_enter(field);
    while (protobuf_next(attribute, &part)) {
        if (part.number == ONNX_ATTRIBUTE_NAME) {
            name = text_of(&part);
        } else if (part.number == ONNX_ATTRIBUTE_INTS && count < MOST_INTS) {
            ints[count++] = part.value;
        }
    }
    if (is(name, "kernel_shape")) {
        node->kernel = ints[0];
    } else if (is(name, "strides")) {
        node->strides = ints[0];
    } else if (is(name, "pads")) {
        memcpy(node->pads, ints, sizeof ints);
    }
}

static enum status read_node(const struct reading *reading, struct node *node,
                             const struct protobuf_field *field, struct error *error)
{
    struct protobuf_reader reader = protobuf_enter(field), attribute = {0};
    struct protobuf_field part;
    *node = (struct node){.type = {"", 0}, .output = {"", 0}};
    while (attribute.fault == NULL && protobuf_next(&reader, &part)) {
        if (part.number == ONNX_NODE_INPUT) {
            if (node->input_count == MOST_INPUTS) {
                return refuse(reading, error, "too many inputs make", node->output);
            }
            node->inputs[node->input_count++] = text_of(&part);
        } else if (part.number == ONNX_NODE_OUTPUT) {
            node->output = text_of(&part);
        } else if (part.number == ONNX_NODE_TYPE) {
            node->type = text_of(&part);
        } else if (part.number == ONNX_NODE_ATTRIBUTE) {
            read_attribute(node, &part, &attribute);
        }
    }
    enum status status = damaged(reading, &attribute, error);
    return status == STATUS_OK ? damaged(reading, &reader, error) : status;
}

// --- names -----------------------------------------------------------------------------------

static const struct initialiser *initialiser_of(const struct reading *reading, struct text name)
{
    for (size_t i = 0; i < reading->initialiser_count; i++) {
        if (same(reading->initialisers[i].name, name)) {
            return &reading->initialisers[i];
        }
    }
    return NULL;
}

// Values are mostly used soon after they were made.
static const struct named *named_of(const struct reading *reading, struct text name)
{
    for (size_t i = reading->value_count; i-- > 0;) {
        if (same(reading->values[i].name, name)) {
            return &reading->values[i];
        }
    }
    return NULL;
}

static struct named *name_value(struct reading *reading, struct text name, graph_value value)
{
    struct named *named = &reading->values[reading->value_count++]; // one for each node, and one
    *named = (struct named){.name = name, .value = value};
    return named;
}

static const char *layer_name(struct reading *reading, char name[32])
{
    snprintf(name, 32, "layer/%zu", reading->layers++);
    return name;
}

static void remember(struct reading *reading, const struct initialiser *initialiser)
{
    reading->weights[reading->weight_count++] =
        initialiser ? (size_t)(initialiser - reading->initialisers) : COUNTER;
}

// --- nodes -----------------------------------------------------------------------------------

#define MOST_SIDE 65536

static bool sensible(const struct node *node)
{
    return node->kernel > 0 && node->kernel < MOST_SIDE && node->strides > 0 &&
           node->strides < MOST_SIDE;
}

static bool as_padded(const struct reading *reading, const struct node *node)
{
    size_t last = graph_op_count(reading->graph) - 1;
    struct graph_pads pads = graph_op_pads(reading->graph, graph_op_at(reading->graph, last));
    return pads.top == node->pads[0] && pads.left == node->pads[1] &&
           pads.bottom == node->pads[2] && pads.right == node->pads[3];
}

// Ours are either symmetric or as SAME has them; a symmetric window has the same pads in both, if
// any.
static enum status read_window(struct reading *reading, const struct node *node,
                               const struct initialiser *weights, graph_value x,
                               struct error *error)
{
    char name[32];
    graph_value y = GRAPH_BAD;
    if (!sensible(node) ||
        (weights != NULL && (weights->dims != 4 || weights->shape[0] > MOST_SIDE))) {
        return refuse(reading, error, "an impossible window makes", node->output);
    }
    uint32_t kernel = (uint32_t)node->kernel, stride = (uint32_t)node->strides;
    enum graph_padding padding = node->pads[0] == (kernel - 1) / 2 && node->pads[2] == node->pads[0]
                                     ? GRAPH_PADDING_TORCH
                                     : GRAPH_PADDING_SAME;
    if (weights != NULL) {
        y = graph_conv(reading->graph, layer_name(reading, name), x, (uint32_t)weights->shape[0],
                       kernel, stride, padding);
        remember(reading, weights);
    } else {
        y = graph_max_pool(reading->graph, x, kernel, stride, padding);
    }
    if (y != GRAPH_BAD && !as_padded(reading, node)) {
        return refuse(reading, error, "other paddings than ours make", node->output);
    }
    name_value(reading, node->output, y);
    return STATUS_OK;
}

static enum status read_batch_norm(struct reading *reading, const struct node *node, graph_value x,
                                   struct error *error)
{
    char name[32];
    for (size_t i = 1; i < MOST_INPUTS; i++) {
        const struct initialiser *weights =
            i < node->input_count ? initialiser_of(reading, node->inputs[i]) : NULL;
        if (weights == NULL) {
            return refuse(reading, error, "not four vectors normalise", node->output);
        }
        remember(reading, weights);
    }
    remember(reading, NULL);
    name_value(reading, node->output,
               graph_batch_norm(reading->graph, layer_name(reading, name), x, false, 1));
    return STATUS_OK;
}

static enum status read_linear(struct reading *reading, const struct node *node, graph_value x,
                               const struct initialiser *weights, struct error *error)
{
    char name[32];
    const struct initialiser *bias =
        node->input_count > 2 ? initialiser_of(reading, node->inputs[2]) : NULL;
    if (node->input_count > 2 && bias == NULL) {
        return refuse(reading, error, "no tensor is the bias of", node->output);
    }
    uint32_t outputs = weights->shape[0] <= INT32_MAX ? (uint32_t)weights->shape[0] : 0;
    remember(reading, weights);
    if (bias != NULL) {
        remember(reading, bias);
    }
    name_value(reading, node->output,
               graph_linear(reading->graph, layer_name(reading, name), x, outputs, bias != NULL));
    return STATUS_OK;
}

// A Mul and its Add are scale and offset; where runs were normalised before, of that.
static void read_offset(struct reading *reading, const struct node *node, const struct named *x,
                        const struct initialiser *offset)
{
    char name[32];
    const char *layer = layer_name(reading, name);
    remember(reading, x->scale);
    remember(reading, offset);
    name_value(reading, node->output,
               x->groups > 0
                   ? graph_group_norm(reading->graph, layer, x->value, x->groups, false, 1)
                   : graph_affine(reading->graph, layer, x->value, false, 1));
}

static enum status read_elementwise(struct reading *reading, const struct node *node,
                                    const struct named *x, const struct initialiser *weights,
                                    struct error *error)
{
    const struct named *x2 = node->input_count > 1 ? named_of(reading, node->inputs[1]) : NULL;
    if (is(node->type, "InstanceNormalization") && weights != NULL &&
        weights->shape[0] <= INT32_MAX) {
        name_value(reading, node->output, x->value)->groups = (uint32_t)weights->shape[0];
    } else if (is(node->type, "Mul") && weights != NULL) {
        struct named *scaled = name_value(reading, node->output, x->value);
        scaled->groups = x->groups;
        scaled->scale = weights;
    } else if (is(node->type, "Add") && weights != NULL && x->scale != NULL) {
        read_offset(reading, node, x, weights);
    } else if (is(node->type, "Add") && x2 != NULL) {
        name_value(reading, node->output, graph_add(reading->graph, x->value, x2->value, false));
    } else {
        return refuse(reading, error, "no op of ours is the node of type", node->type);
    }
    return STATUS_OK;
}

static enum status build_node(struct reading *reading, const struct node *node, struct error *error)
{
    const struct named *x = node->input_count > 0 ? named_of(reading, node->inputs[0]) : NULL;
    const struct initialiser *weights =
        node->input_count > 1 ? initialiser_of(reading, node->inputs[1]) : NULL;
    if (x == NULL) {
        return refuse(reading, error, "nothing before it makes the input of", node->output);
    }
    bool convolution = is(node->type, "Conv") && weights != NULL && node->input_count == 2;
    if (is(node->type, "MaxPool") || convolution) {
        return read_window(reading, node, convolution ? weights : NULL, x->value, error);
    }
    if (is(node->type, "BatchNormalization")) {
        return read_batch_norm(reading, node, x->value, error);
    }
    if (is(node->type, "Gemm") && weights != NULL) {
        return read_linear(reading, node, x->value, weights, error);
    }
    if (is(node->type, "Relu")) {
        name_value(reading, node->output, graph_relu(reading->graph, x->value));
    } else if (is(node->type, "GlobalAveragePool")) {
        name_value(reading, node->output, graph_mean_pool(reading->graph, x->value));
    } else if (is(node->type, "Flatten") || is(node->type, "Reshape")) {
        uint32_t groups = x->groups;
        name_value(reading, node->output, x->value)->groups = groups;
    } else {
        return read_elementwise(reading, node, x, weights, error);
    }
    return STATUS_OK;
}

// --- the model -------------------------------------------------------------------------------

static enum status enter_graph(struct reading *reading, const uint8_t *bytes, size_t len,
                               struct error *error)
{
    struct protobuf_reader model = protobuf_read(bytes, len);
    struct protobuf_field field;
    bool found = false;
    while (protobuf_next(&model, &field)) {
        if (field.number == ONNX_MODEL_GRAPH) {
            reading->graph_message = protobuf_enter(&field);
            found = true;
        }
    }
    enum status status = damaged(reading, &model, error);
    return status != STATUS_OK || found ? status
                                        : error_set(error, STATUS_CORRUPT, reading->path, NOWHERE,
                                                    NOWHERE, "not an ONNX model: it has no graph");
}

// A field of a message within a message; false when it is not there.
static bool inner(const struct protobuf_field *outer, uint32_t number, struct protobuf_field *field)
{
    struct protobuf_reader reader = protobuf_enter(outer);
    while (protobuf_next(&reader, field)) {
        if (field->number == number) {
            return true;
        }
    }
    return false;
}

// The side of the images: the third dimension of the input.
static enum status read_input(struct reading *reading, const struct protobuf_field *field,
                              struct error *error)
{
    struct protobuf_field name, type, described, shape, dim, value = {.value = 0};
    uint64_t sides[4] = {0};
    size_t dims = 0;
    if (inner(field, ONNX_VALUE_NAME, &name) && inner(field, ONNX_VALUE_TYPE, &type) &&
        inner(&type, ONNX_TYPE_TENSOR, &described) &&
        inner(&described, ONNX_TENSOR_TYPE_SHAPE, &shape)) {
        struct protobuf_reader reader = protobuf_enter(&shape);
        while (dims < 4 && protobuf_next(&reader, &dim)) {
            sides[dims++] = inner(&dim, ONNX_DIM_VALUE, &value) ? value.value : 0;
        }
    }
    if (dims != 4 || sides[1] != 3 || sides[2] == 0 || sides[2] > MOST_SIDE ||
        sides[2] != sides[3]) {
        return refuse(reading, error, "not N images of 3 x side x side are the input",
                      (struct text){"", 0});
    }
    name_value(reading, text_of(&name),
               graph_input(reading->graph, (uint32_t)sides[2], (uint32_t)sides[3]));
    return STATUS_OK;
}

static enum status allocate(struct reading *reading, struct error *error)
{
    struct protobuf_reader message = reading->graph_message;
    struct protobuf_field field;
    size_t count = 1;
    while (protobuf_next(&message, &field) && count <= MOST_FIELDS) {
        count++;
    }
    if (count > MOST_FIELDS) {
        return error_set(error, STATUS_LIMIT, reading->path, NOWHERE, NOWHERE,
                         "more than %d nodes and tensors", MOST_FIELDS);
    }
    reading->initialisers = calloc(count, sizeof *reading->initialisers);
    reading->values = calloc(count, sizeof *reading->values);
    reading->weights = calloc(count * MOST_INPUTS, sizeof *reading->weights);
    if (reading->initialisers == NULL || reading->values == NULL || reading->weights == NULL) {
        return error_set(error, STATUS_NO_MEMORY, reading->path, NOWHERE, NOWHERE,
                         "no memory for %zu nodes", count);
    }
    return graph_open(&reading->graph, error);
}

static enum status read_initialisers(struct reading *reading, struct error *error)
{
    struct protobuf_reader message = reading->graph_message;
    struct protobuf_field field;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && protobuf_next(&message, &field)) {
        if (field.number == ONNX_GRAPH_TENSOR) {
            status = read_initialiser(reading, &reading->initialisers[reading->initialiser_count++],
                                      &field, error);
        } else if (field.number == ONNX_GRAPH_INPUT) {
            status = reading->value_count == 0
                         ? read_input(reading, &field, error)
                         : refuse(reading, error, "more than one input:", (struct text){"", 0});
        }
    }
    return status == STATUS_OK ? damaged(reading, &message, error) : status;
}

// What could not be built is told of the file.
static enum status finish(struct reading *reading, struct error *error)
{
    struct error mistake;
    enum status status = graph_finish(reading->graph, &mistake);
    return status == STATUS_OK
               ? STATUS_OK
               : error_set(error, status, reading->path, NOWHERE, NOWHERE, "%s", mistake.reason);
}

static enum status read_nodes(struct reading *reading, struct error *error)
{
    struct protobuf_reader message = reading->graph_message;
    struct protobuf_field field;
    struct node node;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && protobuf_next(&message, &field)) {
        if (field.number == ONNX_GRAPH_NODE) {
            status = read_node(reading, &node, &field, error);
            status = status == STATUS_OK ? build_node(reading, &node, error) : status;
        }
    }
    for (size_t i = 0; i < ONNX_OUTPUTS && status == STATUS_OK; i++) {
        const char *theirs = onnx_outputs[i].theirs;
        const struct named *named = named_of(reading, (struct text){theirs, strlen(theirs)});
        if (named != NULL) {
            graph_output_add(reading->graph, onnx_outputs[i].ours, named->value);
        }
    }
    return status == STATUS_OK ? finish(reading, error) : status;
}

// Vectors of whole planes have two more dimensions of 1.
static bool fits(const struct initialiser *initialiser, const struct weights_entry *entry)
{
    bool fits = initialiser->type == ONNX_FLOAT32 && initialiser->dims >= entry->dims &&
                initialiser->raw.len % sizeof(float) == 0 &&
                initialiser->raw.len / sizeof(float) == entry->count;
    for (unsigned i = 0; fits && i < initialiser->dims; i++) {
        fits = initialiser->shape[i] == (i < entry->dims ? entry->shape[i] : 1);
    }
    return fits;
}

// The entries of the graph come in the order of its ops, and so were the weights remembered.
// `room`: bytes of the model, which no weights exceed, so that memory for them is bounded by it.
static enum status check_weights(const struct reading *reading, const struct weights_entry *entries,
                                 size_t count, size_t room, struct error *error)
{
    if (count != reading->weight_count) {
        return refuse(reading, error, "weights and nodes do not fit together",
                      (struct text){"", 0});
    }
    for (size_t i = 0; i < count; i++) {
        if (reading->weights[i] == COUNTER) {
            continue;
        }
        const struct initialiser *source = &reading->initialisers[reading->weights[i]];
        if (!fits(source, &entries[i])) {
            return refuse(reading, error,
                          "not the shape or type that its node needs:", source->name);
        }
        if (source->raw.len > room) {
            return refuse(reading, error, "more than one node has the tensor", source->name);
        }
        room -= source->raw.len;
    }
    return STATUS_OK;
}

// Takes the finished graph out of `reading`.
static enum status fill(struct reading *reading, struct weights *weights, size_t room,
                        struct error *error)
{
    struct weights_entry *entries = NULL;
    size_t count = 0;
    enum status status =
        weights_list(&entries, &count, reading->graph, WEIGHTS_TORCHVISION, "", error);
    if (status == STATUS_OK) {
        status = check_weights(reading, entries, count, room, error);
    }
    if (status == STATUS_OK) {
        status = weights_open_graph(weights, reading->graph, error);
        reading->graph = NULL;
    }
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        if (reading->weights[i] != COUNTER) {
            weights_put(weights, &entries[i], reading->initialisers[reading->weights[i]].raw.at);
        }
    }
    free(entries);
    return status;
}

static enum status build(struct reading *reading, struct weights *weights, const uint8_t *bytes,
                         size_t len, struct error *error)
{
    enum status status = enter_graph(reading, bytes, len, error);
    if (status == STATUS_OK) {
        status = allocate(reading, error);
    }
    if (status == STATUS_OK) {
        status = read_initialisers(reading, error);
    }
    if (status == STATUS_OK) {
        status = read_nodes(reading, error);
    }
    return status == STATUS_OK ? fill(reading, weights, len, error) : status;
}

enum status onnx_read(struct weights *weights, const char *path, struct error *error)
{
    struct reading reading = {.path = path};
    uint8_t *bytes = NULL;
    size_t len = 0;
    *weights = (struct weights){NULL, NULL, NULL};
    enum status status = file_read_all(path, FILE_LIMIT, &bytes, &len, error);
    if (status == STATUS_OK) {
        status = build(&reading, weights, bytes, len, error);
    }
    if (status != STATUS_OK) {
        weights_close(weights);
    }
    graph_close(&reading.graph);
    free(reading.initialisers);
    free(reading.values);
    free(reading.weights);
    free(bytes);
    return status;
}
