// Writing of ONNX models: one node or a few for each op of the graph, with its weights beside it.
#include "trainer/weights/onnx.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"
#include "formats/protobuf.h"
#include "trainer/weights/names.h"
#include "trainer/weights/onnx_layout.h"

#define VALUE_NAME  64
#define MODEL_LIMIT ((UINT64_C(1) << 31) - (UINT64_C(1) << 24)) // some room for the nodes

struct model {
    struct protobuf_writer message;
    const struct weights *weights;
    struct weights_entry *entries; // in the order of the ops
    size_t entry_count, next;      // next: of the op at hand
};

// --- pieces of the format --------------------------------------------------------------------

// "v12", or the name of the output that it is; a suffix tells apart what one op makes on its way.
static const char *value_name(const struct model *model, graph_value value, const char *suffix,
                              char name[VALUE_NAME])
{
    const struct graph *graph = model->weights->graph;
    if (graph_op_at(graph, 0)->y == value) {
        return ONNX_IMAGES;
    }
    snprintf(name, VALUE_NAME, "v%d%s", (int)value, suffix);
    for (size_t i = 0; i < ONNX_OUTPUTS; i++) {
        const struct graph_output *output = graph_output_find(graph, onnx_outputs[i].ours);
        if (output != NULL && output->value == value) {
            snprintf(name, VALUE_NAME, "%s%s", onnx_outputs[i].theirs, suffix);
        }
    }
    return name;
}

// `inputs` ends with NULL. Attributes follow, then protobuf_end.
static size_t node_begin(struct model *model, const char *type, const char *const *inputs,
                         const char *output)
{
    struct protobuf_writer *message = &model->message;
    size_t mark = protobuf_begin(message, ONNX_GRAPH_NODE);
    for (; *inputs; inputs++) {
        protobuf_put_string(message, ONNX_NODE_INPUT, *inputs);
    }
    protobuf_put_string(message, ONNX_NODE_OUTPUT, output);
    protobuf_put_string(message, ONNX_NODE_NAME, output);
    protobuf_put_string(message, ONNX_NODE_TYPE, type);
    return mark;
}

static void node(struct model *model, const char *type, const char *const *inputs,
                 const char *output)
{
    protobuf_end(&model->message, node_begin(model, type, inputs, output));
}

static size_t attribute_begin(struct model *model, const char *name)
{
    size_t mark = protobuf_begin(&model->message, ONNX_NODE_ATTRIBUTE);
    protobuf_put_string(&model->message, ONNX_ATTRIBUTE_NAME, name);
    return mark;
}

static void attribute_end(struct model *model, size_t mark, enum onnx_attribute_type type)
{
    protobuf_put_varint(&model->message, ONNX_ATTRIBUTE_TYPE, (uint64_t)type);
    protobuf_end(&model->message, mark);
}

static void attribute_ints(struct model *model, const char *name, const uint32_t *values,
                           size_t count)
{
    size_t mark = attribute_begin(model, name);
    for (size_t i = 0; i < count; i++) {
        protobuf_put_varint(&model->message, ONNX_ATTRIBUTE_INTS, values[i]);
    }
    attribute_end(model, mark, ONNX_TYPE_INTS);
}

static void attribute_int(struct model *model, const char *name, uint64_t value)
{
    size_t mark = attribute_begin(model, name);
    protobuf_put_varint(&model->message, ONNX_ATTRIBUTE_INT, value);
    attribute_end(model, mark, ONNX_TYPE_INT);
}

static void attribute_float(struct model *model, const char *name, float value)
{
    size_t mark = attribute_begin(model, name);
    protobuf_put_float(&model->message, ONNX_ATTRIBUTE_FLOAT, value);
    attribute_end(model, mark, ONNX_TYPE_FLOAT);
}

static void tensor(struct model *model, const char *name, enum onnx_tensor_type type,
                   const uint64_t *shape, size_t dims, const void *values, size_t bytes)
{
    struct protobuf_writer *message = &model->message;
    size_t mark = protobuf_begin(message, ONNX_GRAPH_TENSOR);
    for (size_t i = 0; i < dims; i++) {
        protobuf_put_varint(message, ONNX_TENSOR_DIMS, shape[i]);
    }
    protobuf_put_varint(message, ONNX_TENSOR_TYPE, (uint64_t)type);
    protobuf_put_string(message, ONNX_TENSOR_NAME, name);
    protobuf_put_bytes(message, ONNX_TENSOR_RAW, values, bytes);
    protobuf_end(message, mark);
}

static void no_memory(struct model *model)
{
    model->message.status = STATUS_NO_MEMORY;
}

// --- weights ---------------------------------------------------------------------------------

// What the devices do to each output's weights when they use them (device.h).
static void standardise(const struct weights_entry *entry, float *values)
{
    uint64_t width = entry->count / entry->shape[0];
    for (uint64_t out = 0; out < entry->shape[0]; out++) {
        float *row = values + out * width;
        double sum = 0, squares = 0;
        for (uint64_t i = 0; i < width; i++) {
            sum += (double)row[i];
        }
        double mean = sum / (double)width;
        for (uint64_t i = 0; i < width; i++) {
            squares += ((double)row[i] - mean) * ((double)row[i] - mean);
        }
        double inverse = 1 / sqrt(squares / (double)width + WEIGHT_STANDARD_EPSILON);
        for (uint64_t i = 0; i < width; i++) {
            row[i] = (float)(((double)row[i] - mean) * inverse);
        }
    }
}

// The next tensor of the op at hand, under its name, which is returned. `image`: a vector that
// is applied to whole planes.
static const char *weight(struct model *model, bool standard, bool image)
{
    const struct weights_entry *entry = &model->entries[model->next++];
    float *values = malloc(entry->count * sizeof *values);
    if (values == NULL) {
        no_memory(model);
        return entry->name;
    }
    weights_take(model->weights, entry, values);
    if (standard) {
        standardise(entry, values);
    }
    const uint64_t planes[3] = {entry->shape[0], 1, 1};
    tensor(model, entry->name, ONNX_FLOAT32, image ? planes : entry->shape, image ? 3 : entry->dims,
           values, entry->count * sizeof *values);
    free(values);
    return entry->name;
}

// --- ops -------------------------------------------------------------------------------------

static void put_relu(struct model *model, const char *x, const char *y)
{
    node(model, "Relu", (const char *const[]){x, NULL}, y);
}

static void put_window(struct model *model, const struct graph_op *op, const char *x, const char *y)
{
    struct graph_pads pads = graph_op_pads(model->weights->graph, op);
    const char *weights = op->kind == OP_CONV ? weight(model, op->standardise, false) : NULL;
    size_t mark = node_begin(model, op->kind == OP_CONV ? "Conv" : "MaxPool",
                             (const char *const[]){x, weights, NULL}, y);
    attribute_ints(model, "kernel_shape", (const uint32_t[]){op->kernel, op->kernel}, 2);
    attribute_ints(model, "strides", (const uint32_t[]){op->stride, op->stride}, 2);
    attribute_ints(model, "pads", (const uint32_t[]){pads.top, pads.left, pads.bottom, pads.right},
                   4);
    protobuf_end(&model->message, mark);
}

static void put_batch_norm(struct model *model, const char *x, const char *y)
{
    const char *scale = weight(model, false, false), *offset = weight(model, false, false);
    const char *mean = weight(model, false, false), *variance = weight(model, false, false);
    model->next++; // the counter
    size_t mark = node_begin(model, "BatchNormalization",
                             (const char *const[]){x, scale, offset, mean, variance, NULL}, y);
    attribute_float(model, "epsilon", BATCH_NORM_EPSILON);
    protobuf_end(&model->message, mark);
}

static void put_affine(struct model *model, const struct graph_op *op, const char *x, const char *y)
{
    char between[VALUE_NAME];
    bool image = graph_value_at(model->weights->graph, op->x)->kind == TENSOR_IMAGE;
    const char *scale = weight(model, false, image), *offset = weight(model, false, image);
    value_name(model, op->y, "_scaled", between);
    node(model, "Mul", (const char *const[]){x, scale, NULL}, between);
    node(model, "Add", (const char *const[]){between, offset, NULL}, y);
}

static void put_reshape(struct model *model, const char *x, const char *y, const int64_t *shape,
                        size_t dims)
{
    char name[VALUE_NAME + 8];
    snprintf(name, sizeof name, "%s_shape", y);
    tensor(model, name, ONNX_INT64, (const uint64_t[]){dims}, 1, shape, dims * sizeof *shape);
    node(model, "Reshape", (const char *const[]){x, name, NULL}, y);
}

// Each run of channels as one channel of many values.
static void put_runs(struct model *model, const struct graph_op *op, const char *x, const char *y)
{
    char ones[VALUE_NAME], zeros[VALUE_NAME];
    float *values = calloc(2 * (size_t)op->channel_groups, sizeof *values);
    if (values == NULL) {
        no_memory(model);
        return;
    }
    for (uint32_t i = 0; i < op->channel_groups; i++) {
        values[i] = 1;
    }
    const uint64_t shape[] = {op->channel_groups};
    size_t bytes = op->channel_groups * sizeof *values;
    value_name(model, op->y, "_ones", ones);
    value_name(model, op->y, "_zeros", zeros);
    tensor(model, ones, ONNX_FLOAT32, shape, 1, values, bytes);
    tensor(model, zeros, ONNX_FLOAT32, shape, 1, values + op->channel_groups, bytes);
    free(values);
    size_t mark =
        node_begin(model, "InstanceNormalization", (const char *const[]){x, ones, zeros, NULL}, y);
    attribute_float(model, "epsilon", BATCH_NORM_EPSILON);
    protobuf_end(&model->message, mark);
}

static void put_group_norm(struct model *model, const struct graph_op *op, const char *x,
                           const char *y)
{
    const struct graph_value_info *info = graph_value_at(model->weights->graph, op->x);
    char runs[VALUE_NAME], unit[VALUE_NAME], back[VALUE_NAME];
    value_name(model, op->y, "_runs", runs);
    value_name(model, op->y, "_unit", unit);
    value_name(model, op->y, "_back", back);
    put_reshape(model, x, runs, (const int64_t[]){0, op->channel_groups, -1}, 3);
    put_runs(model, op, runs, unit);
    put_reshape(model, unit, back, (const int64_t[]){0, info->c, info->h, info->w},
                info->kind == TENSOR_IMAGE ? 4 : 2);
    put_affine(model, op, back, y);
}

static void put_mean_pool(struct model *model, const struct graph_op *op, const char *x,
                          const char *y)
{
    char pooled[VALUE_NAME];
    value_name(model, op->y, "_pooled", pooled);
    node(model, "GlobalAveragePool", (const char *const[]){x, NULL}, pooled);
    node(model, "Flatten", (const char *const[]){pooled, NULL}, y);
}

static void put_linear(struct model *model, const struct graph_op *op, const char *x, const char *y)
{
    const char *weights = weight(model, op->standardise, false);
    const char *bias = op->bias ? weight(model, false, false) : NULL;
    size_t mark = node_begin(model, "Gemm", (const char *const[]){x, weights, bias, NULL}, y);
    attribute_int(model, "transB", 1);
    protobuf_end(&model->message, mark);
}

static void put_op(struct model *model, const struct graph_op *op)
{
    char x_name[VALUE_NAME], x2_name[VALUE_NAME], y_name[VALUE_NAME], end_name[VALUE_NAME];
    if (op->kind == OP_INPUT) {
        return;
    }
    const char *x = value_name(model, op->x, "", x_name);
    const char *end = value_name(model, op->y, "", end_name);
    const char *y = op->relu ? value_name(model, op->y, "_before_relu", y_name) : end;
    switch (op->kind) {
    case OP_INPUT:
        break;
    case OP_CONV:
    case OP_MAX_POOL:
        put_window(model, op, x, y);
        break;
    case OP_BATCH_NORM:
        put_batch_norm(model, x, y);
        break;
    case OP_ADD:
        node(model, "Add", (const char *const[]){x, value_name(model, op->x2, "", x2_name), NULL},
             y);
        break;
    case OP_RELU:
        put_relu(model, x, y);
        break;
    case OP_MEAN_POOL:
        put_mean_pool(model, op, x, y);
        break;
    case OP_LINEAR:
        put_linear(model, op, x, y);
        break;
    case OP_GROUP_NORM:
        put_group_norm(model, op, x, y);
        break;
    case OP_AFFINE:
        put_affine(model, op, x, y);
        break;
    }
    if (op->relu) {
        put_relu(model, y, end);
    }
}

// --- the model -------------------------------------------------------------------------------

// `dims` of 0 stands for the number of images.
static void put_value(struct model *model, uint32_t field, const char *name, const uint32_t *dims,
                      size_t count)
{
    struct protobuf_writer *message = &model->message;
    size_t value = protobuf_begin(message, field);
    protobuf_put_string(message, ONNX_VALUE_NAME, name);
    size_t type = protobuf_begin(message, ONNX_VALUE_TYPE);
    size_t described = protobuf_begin(message, ONNX_TYPE_TENSOR);
    protobuf_put_varint(message, ONNX_TENSOR_TYPE_ELEMENT, ONNX_FLOAT32);
    size_t shape = protobuf_begin(message, ONNX_TENSOR_TYPE_SHAPE);
    for (size_t i = 0; i < count; i++) {
        size_t dim = protobuf_begin(message, ONNX_SHAPE_DIM);
        if (dims[i] == 0) {
            protobuf_put_string(message, ONNX_DIM_PARAM, "N");
        } else {
            protobuf_put_varint(message, ONNX_DIM_VALUE, dims[i]);
        }
        protobuf_end(message, dim);
    }
    protobuf_end(message, shape);
    protobuf_end(message, described);
    protobuf_end(message, type);
    protobuf_end(message, value);
}

static void put_ends(struct model *model)
{
    const struct graph *graph = model->weights->graph;
    const struct graph_value_info *input = graph_value_at(graph, graph_op_at(graph, 0)->y);
    put_value(model, ONNX_GRAPH_INPUT, ONNX_IMAGES,
              (const uint32_t[]){0, input->c, input->h, input->w}, 4);
    for (size_t i = 0; i < ONNX_OUTPUTS; i++) {
        const struct graph_output *output = graph_output_find(graph, onnx_outputs[i].ours);
        if (output != NULL) {
            put_value(model, ONNX_GRAPH_OUTPUT, onnx_outputs[i].theirs,
                      (const uint32_t[]){0, graph_value_at(graph, output->value)->c}, 2);
        }
    }
}

static void put_metadata(struct model *model, const struct tensor_metadata *metadata, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t mark = protobuf_begin(&model->message, ONNX_MODEL_METADATA);
        protobuf_put_string(&model->message, ONNX_METADATA_KEY, metadata[i].key);
        protobuf_put_string(&model->message, ONNX_METADATA_VALUE, metadata[i].value);
        protobuf_end(&model->message, mark);
    }
}

static void put_model(struct model *model, const struct tensor_metadata *metadata, size_t count)
{
    struct protobuf_writer *message = &model->message;
    const struct graph *graph = model->weights->graph;
    protobuf_put_varint(message, ONNX_MODEL_IR_VERSION, ONNX_IR_VERSION);
    protobuf_put_string(message, ONNX_MODEL_PRODUCER, "byol");
    size_t opset = protobuf_begin(message, ONNX_MODEL_OPSET);
    protobuf_put_varint(message, ONNX_OPSET_VERSION, ONNX_OPSET);
    protobuf_end(message, opset);
    put_metadata(model, metadata, count);
    size_t mark = protobuf_begin(message, ONNX_MODEL_GRAPH);
    protobuf_put_string(message, ONNX_GRAPH_NAME, "encoder");
    put_ends(model);
    for (size_t i = 0; i < graph_op_count(graph) && message->status == STATUS_OK; i++) {
        put_op(model, graph_op_at(graph, i));
    }
    protobuf_end(message, mark);
}

enum status onnx_write(const char *path, const struct weights *weights,
                       const struct tensor_metadata *metadata, size_t metadata_count,
                       struct error *error)
{
    struct model model = {.weights = weights};
    uint64_t bytes = graph_param_floats(weights->graph) * sizeof(float);
    if (bytes > MODEL_LIMIT) {
        return error_set(error, STATUS_LIMIT, path, NOWHERE, NOWHERE,
                         "%llu bytes of weights; an ONNX file holds 2 GiB: write .safetensors",
                         (unsigned long long)bytes);
    }
    enum status status = weights_list(&model.entries, &model.entry_count, weights->graph,
                                      WEIGHTS_TORCHVISION, "", error);
    if (status == STATUS_OK) {
        put_model(&model, metadata, metadata_count);
        status = protobuf_finish(&model.message, error);
    }
    if (status == STATUS_OK) {
        status = file_write_durably(path, model.message.bytes, model.message.len, error);
    }
    protobuf_free(&model.message);
    free(model.entries);
    return status;
}
