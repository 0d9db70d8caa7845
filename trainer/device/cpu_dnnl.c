// A thin layer over oneDNN's C interface, versions 2 and 3: primitives with their memory made once,
// run often.
#include "trainer/device/cpu.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#if DNNL_VERSION_MAJOR < 2 || DNNL_VERSION_MAJOR > 3
#error "byol is written for oneDNN 2 and 3 (Debian: libdnnl-dev); build with DNNL=0 to leave it out"
#endif

#define CACHE_LINE 64

size_t cpu_aligned(size_t bytes)
{
    return (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

static const char *dnnl_reason(dnnl_status_t status)
{
    switch (status) {
    case dnnl_out_of_memory:
        return "out of memory";
    case dnnl_invalid_arguments:
        return "invalid arguments";
    case dnnl_unimplemented:
        return "not implemented";
    case dnnl_runtime_error:
        return "runtime error";
    default:
        return "failed";
    }
}

static enum status failed(dnnl_status_t status, const char *what, struct error *error)
{
    if (status == dnnl_success) {
        return STATUS_OK;
    }
    return error_set(error, status == dnnl_out_of_memory ? STATUS_NO_MEMORY : STATUS_DEVICE, NULL,
                     NOWHERE, NOWHERE, "oneDNN: %s: %s", what, dnnl_reason(status));
}

// --- engine --------------------------------------------------------------------------------------

enum status cpu_dnnl_open(struct cpu_device *device, struct error *error)
{
    dnnl_status_t status = dnnl_engine_create(&device->engine, dnnl_cpu, 0);
    if (status == dnnl_success) {
        status = dnnl_stream_create(&device->stream, device->engine, dnnl_stream_default_flags);
    }
    return failed(status, "open the engine", error);
}

void cpu_dnnl_close(struct cpu_device *device)
{
    if (device->stream != NULL) {
        dnnl_stream_destroy(device->stream);
    }
    if (device->engine != NULL) {
        dnnl_engine_destroy(device->engine);
    }
}

static bool has_isa(dnnl_cpu_isa_t isa)
{
    return (dnnl_get_effective_cpu_isa() & isa) == isa;
}

// Otherwise they would only be slow.
bool cpu_dnnl_has_half(void)
{
#if defined(__x86_64__)
    return has_isa(dnnl_cpu_isa_avx512_core_bf16);
#else
    return false;
#endif
}

static const char *isa_name(void)
{
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } known[] = {
        {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"},
#if DNNL_VERSION_MAJOR >= 3
        {dnnl_cpu_isa_avx512_core_fp16, "avx512_core_fp16"},
#endif
        {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
        {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni"},
        {dnnl_cpu_isa_avx512_core, "avx512_core"},
        {dnnl_cpu_isa_avx2_vnni, "avx2_vnni"},
        {dnnl_cpu_isa_avx2, "avx2"},
        {dnnl_cpu_isa_avx, "avx"},
        {dnnl_cpu_isa_sse41, "sse41"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (has_isa(known[i].isa)) {
            return known[i].name;
        }
    }
    return "other instructions";
}

void cpu_dnnl_describe(char *text, size_t capacity)
{
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, capacity, "oneDNN %d.%d.%d, %s", version->major, version->minor, version->patch,
             isa_name());
}

// --- memory --------------------------------------------------------------------------------------

// Channels side by side that this machine's kernels want.
static uint32_t channel_block(void)
{
#if defined(__x86_64__)
    return has_isa(dnnl_cpu_isa_avx512_core) ? 16 : 8;
#else
    return 1;
#endif
}

#define PLANAR_CHANNELS 3

struct cpu_layout cpu_layout_of(struct tensor_shape shape)
{
    struct cpu_layout layout = {.block = shape.c <= PLANAR_CHANNELS ? 1 : channel_block()};
    layout.blocks = (shape.c + layout.block - 1) / layout.block;
    layout.pixels = (size_t)shape.h * shape.w;
    layout.values = shape.n * layout.pixels * layout.blocks * layout.block;
    return layout;
}

// A description of our own. Zeroed: there is none.
struct memory {
    dnnl_memory_desc_t desc;
};

#if DNNL_VERSION_MAJOR >= 3

static dnnl_status_t memory_make(struct memory *out, const dnnl_dims_t dims, dnnl_data_type_t type,
                                 dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(&out->desc, 4, dims, type, tag);
}

static void memory_forget(struct memory *memory)
{
    if (memory->desc != NULL) {
        dnnl_memory_desc_destroy(memory->desc);
    }
}

static cpu_memory_desc memory_desc(const struct memory *memory)
{
    return memory->desc;
}

#else

static dnnl_status_t memory_make(struct memory *out, const dnnl_dims_t dims, dnnl_data_type_t type,
                                 dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(&out->desc, 4, dims, type, tag);
}

static void memory_forget(struct memory *memory)
{
    (void)memory;
}

static cpu_memory_desc memory_desc(const struct memory *memory)
{
    return &memory->desc;
}

#endif

static dnnl_status_t memory_of_image(struct memory *out, const struct cpu_device *device,
                                     struct tensor_shape shape)
{
    uint32_t block = cpu_layout_of(shape).block;
    dnnl_format_tag_t tag = block == 16 ? dnnl_nChw16c : block == 8 ? dnnl_nChw8c : dnnl_nchw;
    dnnl_dims_t dims = {shape.n, shape.c, shape.h, shape.w};
    return memory_make(out, dims, device->half ? dnnl_bf16 : dnnl_f32, tag);
}

static dnnl_status_t memory_of_weights(struct memory *out, const struct op_desc *desc,
                                       dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    dnnl_dims_t dims = {desc->out.c, desc->in.c, desc->kernel, desc->kernel};
    return memory_make(out, dims, type, tag);
}

bool cpu_is_weights(cpu_memory_desc memory, const struct op_desc *desc, dnnl_data_type_t type,
                    dnnl_format_tag_t tag)
{
    struct memory wanted = {0};
    bool same = memory_of_weights(&wanted, desc, type, tag) == dnnl_success &&
                dnnl_memory_desc_equal(memory_desc(&wanted), memory);
    memory_forget(&wanted);
    return same;
}

cpu_memory_desc cpu_argument_desc(dnnl_primitive_desc_t desc, int argument)
{
    return dnnl_primitive_desc_query_md(desc, dnnl_query_exec_arg_md, argument);
}

size_t cpu_argument_bytes(dnnl_primitive_desc_t desc, int argument)
{
    cpu_memory_desc memory = cpu_argument_desc(desc, argument);
    return memory == NULL ? 0 : cpu_aligned(dnnl_memory_desc_get_size(memory));
}

// --- descriptions of what is to be done ----------------------------------------------------------

static dnnl_status_t attributes_make(dnnl_primitive_attr_t *out)
{
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (status == dnnl_success) {
        status = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    }
    return status;
}

static void attributes_forget(dnnl_primitive_attr_t attributes)
{
    if (attributes != NULL) {
        dnnl_primitive_attr_destroy(attributes);
    }
}

// All that describes a pass.
struct convolution {
    struct memory in, weights, out;
    dnnl_dims_t strides, low, high;
    dnnl_primitive_attr_t attributes;
    dnnl_primitive_desc_t hint;
};

static dnnl_status_t convolution_make(struct convolution *out, const struct cpu_device *device,
                                      const struct op_desc *desc, enum cpu_conv_pass pass)
{
    bool half = device->half && pass != CONV_BACKWARD_WEIGHTS; // gradients are float32
    *out = (struct convolution){.strides = {desc->stride, desc->stride},
                                .low = {desc->pad_top, desc->pad_left},
                                .high = {desc->pad_bottom, desc->pad_right}};
    dnnl_status_t status = memory_of_image(&out->in, device, desc->in);
    if (status == dnnl_success) {
        status = memory_of_image(&out->out, device, desc->out);
    }
    if (status == dnnl_success) {
        status = memory_of_weights(&out->weights, desc, half ? dnnl_bf16 : dnnl_f32,
                                   dnnl_format_tag_any);
    }
    return status == dnnl_success ? attributes_make(&out->attributes) : status;
}

static void convolution_forget(struct convolution *conv)
{
    memory_forget(&conv->in);
    memory_forget(&conv->out);
    memory_forget(&conv->weights);
    attributes_forget(conv->attributes);
}

#if DNNL_VERSION_MAJOR >= 3

static dnnl_status_t describe_pass(struct cpu_device *device, dnnl_primitive_desc_t *out,
                                   const struct convolution *conv, enum cpu_conv_pass pass,
                                   dnnl_alg_kind_t algorithm)
{
    static const dnnl_dims_t dense = {0};
    cpu_memory_desc in = memory_desc(&conv->in), result = memory_desc(&conv->out);
    cpu_memory_desc weights = memory_desc(&conv->weights);
    switch (pass) {
    case CONV_FORWARD:
        return dnnl_convolution_forward_primitive_desc_create(
            out, device->engine, dnnl_forward_training, algorithm, in, weights, NULL, result,
            conv->strides, dense, conv->low, conv->high, conv->attributes);
    case CONV_BACKWARD_DATA:
        return dnnl_convolution_backward_data_primitive_desc_create(
            out, device->engine, algorithm, in, weights, result, conv->strides, dense, conv->low,
            conv->high, conv->hint, conv->attributes);
    case CONV_BACKWARD_WEIGHTS:
        return dnnl_convolution_backward_weights_primitive_desc_create(
            out, device->engine, algorithm, in, weights, NULL, result, conv->strides, dense,
            conv->low, conv->high, conv->hint, conv->attributes);
    case CONV_PASSES:
        break;
    }
    return dnnl_invalid_arguments;
}

#else

static dnnl_status_t describe_operation(dnnl_convolution_desc_t *out,
                                        const struct convolution *conv, enum cpu_conv_pass pass,
                                        dnnl_alg_kind_t algorithm)
{
    cpu_memory_desc in = memory_desc(&conv->in), result = memory_desc(&conv->out);
    cpu_memory_desc weights = memory_desc(&conv->weights);
    switch (pass) {
    case CONV_FORWARD:
        return dnnl_convolution_forward_desc_init(out, dnnl_forward_training, algorithm, in,
                                                  weights, NULL, result, conv->strides, conv->low,
                                                  conv->high);
    case CONV_BACKWARD_DATA:
        return dnnl_convolution_backward_data_desc_init(out, algorithm, in, weights, result,
                                                        conv->strides, conv->low, conv->high);
    case CONV_BACKWARD_WEIGHTS:
        return dnnl_convolution_backward_weights_desc_init(
            out, algorithm, in, weights, NULL, result, conv->strides, conv->low, conv->high);
    case CONV_PASSES:
        break;
    }
    return dnnl_invalid_arguments;
}

static dnnl_status_t describe_pass(struct cpu_device *device, dnnl_primitive_desc_t *out,
                                   const struct convolution *conv, enum cpu_conv_pass pass,
                                   dnnl_alg_kind_t algorithm)
{
    dnnl_convolution_desc_t operation;
    dnnl_status_t status = describe_operation(&operation, conv, pass, algorithm);
    if (status == dnnl_success) {
        status = dnnl_primitive_desc_create(out, &operation, conv->attributes, device->engine,
                                            conv->hint);
    }
    return status;
}

#endif

enum status cpu_conv_describe(struct cpu_device *device, dnnl_primitive_desc_t *out,
                              const struct op_desc *desc, enum cpu_conv_pass pass, bool winograd,
                              dnnl_primitive_desc_t hint, struct error *error)
{
    struct convolution conv;
    dnnl_status_t made = convolution_make(&conv, device, desc, pass), status = made;
    conv.hint = hint;
    if (made == dnnl_success && winograd) {
        status = describe_pass(device, out, &conv, pass, dnnl_convolution_winograd);
    }
    if (made == dnnl_success && (!winograd || status != dnnl_success)) {
        status = describe_pass(device, out, &conv, pass, dnnl_convolution_direct);
    }
    convolution_forget(&conv);
    return failed(status, "describe a convolution", error);
}

void cpu_description_release(dnnl_primitive_desc_t desc)
{
    if (desc != NULL) {
        dnnl_primitive_desc_destroy(desc);
    }
}

// --- primitives ----------------------------------------------------------------------------------

static dnnl_status_t add_argument(struct cpu_device *device, struct cpu_primitive *primitive,
                                  dnnl_primitive_desc_t desc, int index)
{
    cpu_memory_desc memory = cpu_argument_desc(desc, index);
    dnnl_exec_arg_t *argument = &primitive->arguments[primitive->count];
    dnnl_status_t status =
        dnnl_memory_create(&argument->memory, memory, device->engine, DNNL_MEMORY_NONE);
    if (status == dnnl_success) {
        argument->arg = index;
        primitive->count++;
    }
    return status;
}

enum status cpu_primitive_create(struct cpu_device *device, struct cpu_primitive *out,
                                 dnnl_primitive_desc_t desc, const int *arguments, int count,
                                 struct error *error)
{
    assert(count < CPU_MAX_ARGUMENTS);
    dnnl_status_t status = dnnl_primitive_create(&out->primitive, desc);
    for (int i = 0; i < count && status == dnnl_success; i++) {
        status = add_argument(device, out, desc, arguments[i]);
    }
    if (status == dnnl_success) {
        status = add_argument(device, out, desc, DNNL_ARG_SCRATCHPAD);
        out->scratch_bytes = cpu_argument_bytes(desc, DNNL_ARG_SCRATCHPAD);
    }
    return failed(status, "create a primitive", error);
}

static dnnl_status_t describe_reorder(struct cpu_device *device, dnnl_primitive_desc_t *out,
                                      cpu_memory_desc from, cpu_memory_desc to)
{
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_status_t status = attributes_make(&attributes);
    if (status == dnnl_success) {
        status = dnnl_reorder_primitive_desc_create(out, from, device->engine, to, device->engine,
                                                    attributes);
    }
    attributes_forget(attributes);
    return status;
}

enum status cpu_reorder_create(struct cpu_device *device, struct cpu_primitive *out,
                               const struct op_desc *desc, enum cpu_conv_pass pass,
                               dnnl_primitive_desc_t described, struct error *error)
{
    static const int arguments[] = {DNNL_ARG_FROM, DNNL_ARG_TO};
    bool back = pass == CONV_BACKWARD_WEIGHTS;
    cpu_memory_desc own =
        cpu_argument_desc(described, back ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS);
    struct memory plain = {0};
    dnnl_primitive_desc_t reorder = NULL;
    dnnl_status_t status = memory_of_weights(&plain, desc, dnnl_f32, dnnl_hwio);
    if (status == dnnl_success) {
        status = describe_reorder(device, &reorder, back ? own : memory_desc(&plain),
                                  back ? memory_desc(&plain) : own);
    }
    enum status result = status == dnnl_success
                             ? cpu_primitive_create(device, out, reorder, arguments, 2, error)
                             : failed(status, "create a reorder", error);
    cpu_description_release(reorder);
    memory_forget(&plain);
    return result;
}

void cpu_primitive_release(struct cpu_primitive *primitive)
{
    for (int i = 0; i < primitive->count; i++) {
        dnnl_memory_destroy(primitive->arguments[i].memory);
    }
    if (primitive->primitive != NULL) {
        dnnl_primitive_destroy(primitive->primitive);
    }
    *primitive = (struct cpu_primitive){0};
}

static dnnl_status_t point(struct cpu_device *device, dnnl_memory_t memory, void *pointer)
{
#if DNNL_VERSION_MAJOR >= 3
    (void)device;
    return dnnl_memory_set_data_handle(memory, pointer);
#else
    return dnnl_memory_set_data_handle_v2(memory, pointer, device->stream);
#endif
}

enum status cpu_run(struct cpu_device *device, struct cpu_primitive *primitive,
                    const void *const *pointers, void *scratch)
{
    for (int i = 0; i < primitive->count; i++) {
        // oneDNN has one type for what it reads and what it writes.
        void *pointer = i + 1 < primitive->count ? (void *)(uintptr_t)pointers[i] : scratch;
        if (point(device, primitive->arguments[i].memory, pointer) != dnnl_success) {
            return STATUS_DEVICE;
        }
    }
    dnnl_status_t status = dnnl_primitive_execute(primitive->primitive, device->stream,
                                                  primitive->count, primitive->arguments);
    if (status == dnnl_success) {
        status = dnnl_stream_wait(device->stream);
    }
    return status == dnnl_success ? STATUS_OK : STATUS_DEVICE;
}

enum status cpu_matrix_product(struct device *device, bool transpose_a, bool transpose_b,
                               uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
                               float *c, bool accumulate)
{
    cpu_enter((struct cpu_device *)device);
    dnnl_status_t status =
        dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a,
                   transpose_a ? m : k, b, transpose_b ? k : n, accumulate ? 1.0f : 0.0f, c, n);
    return status == dnnl_success ? STATUS_OK : STATUS_DEVICE;
}
