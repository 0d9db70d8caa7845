// What the tables of attributes hold, from which descriptors are made.
#include "trainer/cuda/cudnn_graph.h"
#include "trainer/cuda/cudnn_descriptor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- graphs --------------------------------------------------------------------------------------

// What plans call the three tensors.
enum { UID_X = 'x', UID_W = 'w', UID_Y = 'y' };

// The images and weights must lie at multiples of so many bytes.
#define ALIGNMENT 16

void cudnn_conv_name(const struct cuda_conv *conv, enum cuda_conv_pass pass,
                     char name[CUDNN_GRAPH_NAME])
{
    static const char *const passes[CUDA_CONV_PASSES] = {
        [CUDA_CONV_FORWARD] = "forward",
        [CUDA_CONV_DATA] = "data",
        [CUDA_CONV_WEIGHTS] = "weights",
    };
    snprintf(name, CUDNN_GRAPH_NAME,
             "%s %" PRIu32 "x%" PRIu32 "x%" PRIu32 "x%" PRIu32 " -> %" PRIu32 "x%" PRIu32
             "x%" PRIu32 ", %" PRIu32 "x%" PRIu32 "/%" PRIu32 " (%" PRIu32 " %" PRIu32 " %" PRIu32
             " %" PRIu32 "), %s",
             passes[pass], conv->n, conv->h, conv->w, conv->c, conv->out_h, conv->out_w,
             conv->out_c, conv->kernel, conv->kernel, conv->stride, conv->pad_top, conv->pad_left,
             conv->pad_bottom, conv->pad_right, conv->half ? "bf16" : "f32");
}

// Channels innermost; a filter is (out, h, w, in), which is the same with its output channels in
// the place of images.
static enum status make_tensor(cudnnBackendDescriptor_t *out, int64_t uid, bool half, int64_t n,
                               int64_t h, int64_t w, int64_t c, const char *name,
                               struct error *error)
{
    const cudnnDataType_t type = half ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const int64_t alignment = ALIGNMENT;
    const int64_t sizes[] = {n, c, h, w}, strides[] = {h * w * c, 1, w * c, c};
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type},
        {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, sizes},
        {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides},
        {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid},
        {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment},
    };
    const char what[] = {'t', 'e', 'n', 's', 'o', 'r', ' ', (char)uid, '\0'};
    return cudnn_make(out, CUDNN_BACKEND_TENSOR_DESCRIPTOR, attributes, COUNT(attributes), name,
                      what, error);
}

static enum status make_window(cudnnBackendDescriptor_t *out, const struct cuda_conv *conv,
                               const char *name, struct error *error)
{
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t dimensions = 2, dilations[] = {1, 1}, strides[] = {conv->stride, conv->stride},
                  before[] = {conv->pad_top, conv->pad_left},
                  after[] = {conv->pad_bottom, conv->pad_right};
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dimensions},
        {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums},
        {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode},
        {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations},
        {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides},
        {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before},
        {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after},
    };
    return cudnn_make(out, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, attributes, COUNT(attributes),
                      name, "window", error);
}

// The parts of a convolution's graph, which the graph keeps alive by itself.
struct parts {
    cudnnBackendDescriptor_t x, w, y, window, operation;
};

static enum status make_operation(struct parts *parts, enum cuda_conv_pass pass, const char *name,
                                  struct error *error)
{
#define NAMES(kind, operation, x, w, y)                                                            \
    {                                                                                              \
        CUDNN_BACKEND_OPERATION_CONVOLUTION_##kind##_DESCRIPTOR,                                   \
        {                                                                                          \
            CUDNN_ATTR_OPERATION_CONVOLUTION_##operation##_CONV_DESC,                              \
                CUDNN_ATTR_OPERATION_CONVOLUTION_##operation##_##x,                                \
                CUDNN_ATTR_OPERATION_CONVOLUTION_##operation##_##w,                                \
                CUDNN_ATTR_OPERATION_CONVOLUTION_##operation##_##y,                                \
                CUDNN_ATTR_OPERATION_CONVOLUTION_##operation##_ALPHA,                              \
                CUDNN_ATTR_OPERATION_CONVOLUTION_##operation##_BETA                                \
        }                                                                                          \
    }
    static const struct {
        cudnnBackendDescriptorType_t type;
        cudnnBackendAttributeName_t names[6];
    } passes[CUDA_CONV_PASSES] = {
        [CUDA_CONV_FORWARD] = NAMES(FORWARD, FORWARD, X, W, Y),
        [CUDA_CONV_DATA] = NAMES(BACKWARD_DATA, BWD_DATA, DX, W, DY),
        [CUDA_CONV_WEIGHTS] = NAMES(BACKWARD_FILTER, BWD_FILTER, X, DW, DY),
    };
#undef NAMES
    const float alpha = 1, beta = 0;
    const cudnnBackendAttributeName_t *names = passes[pass].names;
    const struct cudnn_attribute attributes[] = {
        {names[0], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &parts->window},
        {names[1], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &parts->x},
        {names[2], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &parts->w},
        {names[3], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &parts->y},
        {names[4], CUDNN_TYPE_FLOAT, 1, &alpha},
        {names[5], CUDNN_TYPE_FLOAT, 1, &beta},
    };
    return cudnn_make(&parts->operation, passes[pass].type, attributes, COUNT(attributes), name,
                      "operation", error);
}

static enum status make_parts(struct parts *parts, const struct cuda_conv *conv,
                              enum cuda_conv_pass pass, const char *name, struct error *error)
{
    bool half = conv->half;
    enum status status =
        make_tensor(&parts->x, UID_X, half, conv->n, conv->h, conv->w, conv->c, name, error);
    if (status == STATUS_OK) {
        status = make_tensor(&parts->w, UID_W, half, conv->out_c, conv->kernel, conv->kernel,
                             conv->c, name, error);
    }
    if (status == STATUS_OK) {
        status = make_tensor(&parts->y, UID_Y, half, conv->n, conv->out_h, conv->out_w, conv->out_c,
                             name, error);
    }
    if (status == STATUS_OK) {
        status = make_window(&parts->window, conv, name, error);
    }
    return status == STATUS_OK ? make_operation(parts, pass, name, error) : status;
}

enum status cudnn_conv_graph_open(struct cudnn_graph *graph, cudnnBackendDescriptor_t properties,
                                  const struct cuda_conv *conv, enum cuda_conv_pass pass,
                                  struct error *error)
{
    *graph = (struct cudnn_graph){.properties = properties};
    cudnn_conv_name(conv, pass, graph->name);
    struct parts parts = {0};
    enum status status = make_parts(&parts, conv, pass, graph->name, error);
    if (status == STATUS_OK) {
        const struct cudnn_attribute attributes[] = {
            {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &parts.operation},
        };
        status = cudnn_make(&graph->descriptor, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, attributes,
                            COUNT(attributes), graph->name, "graph", error);
    }
    cudnn_drop(&parts.operation);
    cudnn_drop(&parts.window);
    cudnn_drop(&parts.y);
    cudnn_drop(&parts.w);
    cudnn_drop(&parts.x);
    return status;
}

void cudnn_graph_close(struct cudnn_graph *graph)
{
    cudnn_drop(&graph->descriptor);
}

// --- engines -------------------------------------------------------------------------------------

#define MOST_SUGGESTED 128 // heuristics were seen to suggest 40
#define MOST_NOTES     32  // bits of a set of them

// Notes as a set. A note that is beyond the set's bits could not be looked at: it fails.
static enum status read_notes(cudnnBackendDescriptor_t engine, cudnnBackendAttributeName_t which,
                              cudnnBackendAttributeType_t type, unsigned *set, const char *name,
                              struct error *error)
{
    cudnnBackendNumericalNote_t notes[MOST_NOTES]; // of the other kind it is an int as well
    int64_t count = 0;
    cudnnStatus_t result = cudnnBackendGetAttribute(engine, which, type, MOST_NOTES, &count, notes);
    *set = 0;
    for (int64_t i = 0; i < count && result == CUDNN_STATUS_SUCCESS; i++) {
        if (count > MOST_NOTES || (unsigned)notes[i] >= MOST_NOTES) {
            result = CUDNN_STATUS_INTERNAL_ERROR_UNEXPECTED_VALUE;
        } else {
            *set |= 1u << (unsigned)notes[i];
        }
    }
    return cudnn_check(result, name, "notes of an engine", error);
}

static enum status read_engine(cudnnBackendDescriptor_t descriptor, struct cudnn_engine *engine,
                               const char *name, struct error *error)
{
    enum status status =
        cudnn_take_number(descriptor, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64,
                          &engine->number, name, "number of an engine", error);
    if (status == STATUS_OK) {
        status = read_notes(descriptor, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                            &engine->numerical, name, error);
    }
    if (status == STATUS_OK) {
        status = read_notes(descriptor, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                            &engine->behaviour, name, error);
    }
    return status;
}

static enum status read_knobs(cudnnBackendDescriptor_t config, struct cudnn_engine *engine,
                              const char *name, struct error *error)
{
    cudnnBackendDescriptor_t choices[CUDNN_ENGINE_KNOBS];
    size_t count = 0;
    enum status status =
        cudnn_take(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                   choices, CUDNN_ENGINE_KNOBS, &count, name, "knobs of an engine", error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        cudnnBackendKnobType_t type = 0;
        int64_t got = 0;
        cudnnStatus_t result = cudnnBackendGetAttribute(
            choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &got, &type);
        status = cudnn_check(result, name, "kind of a knob", error);
        engine->knobs[i].type = (int64_t)type;
        if (status == STATUS_OK) {
            status =
                cudnn_take_number(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64,
                                  &engine->knobs[i].value, name, "value of a knob", error);
        }
    }
    engine->knob_count = count;
    cudnn_drop_all(choices, count);
    return status;
}

static enum status read_config(cudnnBackendDescriptor_t config, struct cudnn_engine *engine,
                               const char *name, struct error *error)
{
    *engine = (struct cudnn_engine){0};
    cudnnBackendDescriptor_t descriptor = NULL;
    size_t count = 0;
    enum status status =
        cudnn_take(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR,
                   &descriptor, 1, &count, name, "engine", error);
    if (status == STATUS_OK && count != 1) {
        status = cudnn_check(CUDNN_STATUS_INTERNAL_ERROR_UNEXPECTED_VALUE, name, "engine", error);
    }
    if (status == STATUS_OK) {
        status = read_engine(descriptor, engine, name, error);
    }
    if (status == STATUS_OK) {
        status = read_knobs(config, engine, name, error);
    }
    cudnn_drop(&descriptor);
    return status;
}

enum status cudnn_graph_engines(const struct cudnn_graph *graph, cudnnBackendHeurMode_t mode,
                                struct cudnn_engine *engines, size_t capacity, size_t *count,
                                struct error *error)
{
    *count = 0;
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
         &graph->descriptor},
        {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode},
        {CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph->properties},
    };
    cudnnBackendDescriptor_t heuristics = NULL, configs[MOST_SUGGESTED];
    size_t suggested = 0;
    enum status status = cudnn_make(&heuristics, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, attributes,
                                    COUNT(attributes), graph->name, "heuristics", error);
    if (status == STATUS_UNSUPPORTED) {
        return STATUS_OK;
    }
    if (status == STATUS_OK) {
        status = cudnn_take(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                            CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, configs,
                            capacity < MOST_SUGGESTED ? capacity : MOST_SUGGESTED, &suggested,
                            graph->name, "heuristics", error);
    }
    for (; *count < suggested && status == STATUS_OK; *count += status == STATUS_OK) {
        status = read_config(configs[*count], &engines[*count], graph->name, error);
    }
    cudnn_drop_all(configs, suggested);
    cudnn_drop(&heuristics);
    return status;
}

void cudnn_engine_text(const struct cudnn_engine *engine, char text[CUDNN_ENGINE_TEXT])
{
    int used = snprintf(text, CUDNN_ENGINE_TEXT, "%" PRId64, engine->number);
    for (size_t i = 0; i < engine->knob_count && used > 0 && used < CUDNN_ENGINE_TEXT; i++) {
        int more = snprintf(text + used, (size_t)(CUDNN_ENGINE_TEXT - used),
                            " %" PRId64 "=%" PRId64, engine->knobs[i].type, engine->knobs[i].value);
        used = more > 0 ? used + more : more;
    }
}

// Decimal digits, at least one and at most ten.
static bool parse_number(const char **text, int64_t *number)
{
    const char *from = *text;
    for (*number = 0; **text >= '0' && **text <= '9' && *text - from < 10; (*text)++) {
        *number = *number * 10 + (**text - '0');
    }
    return *text > from;
}

bool cudnn_engine_parse(struct cudnn_engine *engine, const char *text)
{
    *engine = (struct cudnn_engine){0};
    if (!parse_number(&text, &engine->number)) {
        return false;
    }
    for (; *text == ' ' && engine->knob_count < CUDNN_ENGINE_KNOBS; engine->knob_count++) {
        text++;
        if (!parse_number(&text, &engine->knobs[engine->knob_count].type) || *text++ != '=' ||
            !parse_number(&text, &engine->knobs[engine->knob_count].value)) {
            return false;
        }
    }
    return *text == '\0';
}

// --- plans ---------------------------------------------------------------------------------------

static enum status make_engine(cudnnBackendDescriptor_t *out, const struct cudnn_graph *graph,
                               const struct cudnn_engine *engine, struct error *error)
{
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph->descriptor},
        {CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &engine->number},
        {CUDNN_ATTR_ENGINE_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph->properties},
    };
    return cudnn_make(out, CUDNN_BACKEND_ENGINE_DESCRIPTOR, attributes, COUNT(attributes),
                      graph->name, "engine", error);
}

static enum status make_knob(cudnnBackendDescriptor_t *out, int64_t type, const int64_t *value,
                             const char *name, struct error *error)
{
    const cudnnBackendKnobType_t kind = (cudnnBackendKnobType_t)type;
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &kind},
        {CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, value},
    };
    return cudnn_make(out, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, attributes, COUNT(attributes),
                      name, "knob", error);
}

static enum status make_config(cudnnBackendDescriptor_t *out, const struct cudnn_graph *graph,
                               cudnnBackendDescriptor_t descriptor,
                               const struct cudnn_engine *engine, struct error *error)
{
    cudnnBackendDescriptor_t knobs[CUDNN_ENGINE_KNOBS];
    size_t made = 0;
    enum status status = STATUS_OK;
    for (; made < engine->knob_count && status == STATUS_OK; made += status == STATUS_OK) {
        status = make_knob(&knobs[made], engine->knobs[made].type, &engine->knobs[made].value,
                           graph->name, error);
    }
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &descriptor},
        {CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, (int64_t)made, knobs},
    };
    if (status == STATUS_OK) {
        status = cudnn_make(out, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, attributes,
                            made > 0 ? COUNT(attributes) : 1, graph->name, "engine with its knobs",
                            error);
    }
    cudnn_drop_all(knobs, made);
    return status;
}

static enum status finish_plan(struct cudnn_plan *plan, const struct cudnn_graph *graph,
                               cudnnBackendDescriptor_t config, struct error *error)
{
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config},
        {CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
         &graph->properties},
    };
    enum status status = cudnn_make(&plan->descriptor, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
                                    attributes, COUNT(attributes), graph->name, "plan", error);
    int64_t workspace = 0;
    if (status == STATUS_OK) {
        status = cudnn_take_number(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                   CUDNN_TYPE_INT64, &workspace, graph->name, "workspace", error);
    }
    if (status == STATUS_OK && workspace < 0) {
        status = cudnn_check(CUDNN_STATUS_INTERNAL_ERROR_UNEXPECTED_VALUE, graph->name, "workspace",
                             error);
    }
    plan->workspace = (size_t)workspace;
    return status;
}

enum status cudnn_plan_open(struct cudnn_plan *plan, const struct cudnn_graph *graph,
                            const struct cudnn_engine *engine, struct error *error)
{
    *plan = (struct cudnn_plan){.engine = *engine};
    memcpy(plan->name, graph->name, sizeof plan->name);
    cudnnBackendDescriptor_t descriptor = NULL, config = NULL;
    enum status status = make_engine(&descriptor, graph, engine, error);
    if (status == STATUS_OK) {
        status = read_engine(descriptor, &plan->engine, graph->name, error);
    }
    if (status == STATUS_OK) {
        status = make_config(&config, graph, descriptor, engine, error);
    }
    if (status == STATUS_OK) {
        status = finish_plan(plan, graph, config, error);
    }
    cudnn_drop(&config);
    cudnn_drop(&descriptor);
    if (status != STATUS_OK) {
        cudnn_plan_close(plan);
    }
    return status;
}

void cudnn_plan_close(struct cudnn_plan *plan)
{
    cudnn_drop(&plan->descriptor);
}

enum status cudnn_plan_json(const struct cudnn_plan *plan, char **json, struct error *error)
{
    return cudnn_take_text(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, json,
                           plan->name, "as text", error);
}

enum status cudnn_plan_run(const struct cudnn_plan *plan, cudnnHandle_t handle, void *x, void *w,
                           void *y, void *workspace, struct error *error)
{
    const int64_t uids[] = {UID_X, UID_W, UID_Y};
    void *const pointers[] = {x, w, y};
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, COUNT(uids), uids},
        {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, COUNT(pointers), pointers},
        {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace},
    };
    cudnnBackendDescriptor_t pack = NULL;
    enum status status = cudnn_make(&pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, attributes,
                                    COUNT(attributes), plan->name, "pointers", error);
    if (status == STATUS_OK) {
        cudnnStatus_t result = cudnnBackendExecute(handle, plan->descriptor, pack);
        status = cudnn_check(result, plan->name, "execution", error);
    }
    cudnn_drop(&pack);
    return status;
}
