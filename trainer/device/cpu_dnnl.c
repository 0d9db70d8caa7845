// A thin layer over oneDNN 2's C interface: primitives with their memory made once, run often.
#include "trainer/device/cpu.h"

#include <assert.h>
#include <string.h>

#if DNNL_VERSION_MAJOR != 2
#error                                                                                             \
    "byol is written for oneDNN 2 (Debian 12: libdnnl-dev 2.6); build with DNNL=0 to leave it out"
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

enum status cpu_failed(dnnl_status_t status, const char *what, struct error *error)
{
    if (status == dnnl_success) {
        return STATUS_OK;
    }
    return error_set(error, status == dnnl_out_of_memory ? STATUS_NO_MEMORY : STATUS_DEVICE, NULL,
                     NOWHERE, NOWHERE, "oneDNN: %s: %s", what, dnnl_reason(status));
}

// --- descriptors

// Channels side by side that this machine's kernels want.
static uint32_t channel_block(void)
{
#if defined(__x86_64__)
    return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core
               ? 16
               : 8;
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

dnnl_memory_desc_t cpu_image_desc(const struct cpu_device *device, struct tensor_shape shape)
{
    uint32_t block = cpu_layout_of(shape).block;
    dnnl_format_tag_t tag = block == 16 ? dnnl_nChw16c : block == 8 ? dnnl_nChw8c : dnnl_nchw;
    dnnl_dims_t dims = {shape.n, shape.c, shape.h, shape.w};
    dnnl_memory_desc_t desc;
    memset(&desc, 0, sizeof desc);
    // Shapes are checked: this cannot fail.
    dnnl_memory_desc_init_by_tag(&desc, 4, dims, device->half ? dnnl_bf16 : dnnl_f32, tag);
    return desc;
}

const dnnl_memory_desc_t *cpu_argument_desc(dnnl_primitive_desc_t desc, int argument)
{
    return dnnl_primitive_desc_query_md(desc, dnnl_query_exec_arg_md, argument);
}

size_t cpu_argument_bytes(dnnl_primitive_desc_t desc, int argument)
{
    const dnnl_memory_desc_t *memory = cpu_argument_desc(desc, argument);
    return memory == NULL ? 0 : cpu_aligned(dnnl_memory_desc_get_size(memory));
}

// --- primitives

dnnl_status_t cpu_describe_primitive(struct cpu_device *device, dnnl_primitive_desc_t *out,
                                     const void *operation, dnnl_primitive_desc_t hint)
{
    dnnl_primitive_attr_t attributes;
    dnnl_status_t status = dnnl_primitive_attr_create(&attributes);
    if (status != dnnl_success) {
        return status;
    }
    status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (status == dnnl_success) {
        status = dnnl_primitive_desc_create(out, operation, attributes, device->engine, hint);
    }
    dnnl_primitive_attr_destroy(attributes);
    return status;
}

static dnnl_status_t add_argument(struct cpu_device *device, struct cpu_primitive *primitive,
                                  dnnl_primitive_desc_t desc, int index)
{
    const dnnl_memory_desc_t *memory = cpu_argument_desc(desc, index);
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
    return cpu_failed(status, "create a primitive", error);
}

enum status cpu_reorder_create(struct cpu_device *device, struct cpu_primitive *out,
                               const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                               struct error *error)
{
    static const int arguments[] = {DNNL_ARG_FROM, DNNL_ARG_TO};
    dnnl_primitive_attr_t attributes;
    dnnl_status_t status = dnnl_primitive_attr_create(&attributes);
    if (status != dnnl_success) {
        return cpu_failed(status, "create a reorder", error);
    }
    dnnl_primitive_desc_t desc = NULL;
    status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (status == dnnl_success) {
        status = dnnl_reorder_primitive_desc_create(&desc, from, device->engine, to, device->engine,
                                                    attributes);
    }
    dnnl_primitive_attr_destroy(attributes);
    if (status != dnnl_success) {
        return cpu_failed(status, "create a reorder", error);
    }
    enum status result = cpu_primitive_create(device, out, desc, arguments, 2, error);
    dnnl_primitive_desc_destroy(desc);
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

enum status cpu_run(struct cpu_device *device, struct cpu_primitive *primitive,
                    const void *const *pointers, void *scratch)
{
    for (int i = 0; i < primitive->count; i++) {
        // oneDNN has one type for what it reads and what it writes.
        void *pointer = i + 1 < primitive->count ? (void *)(uintptr_t)pointers[i] : scratch;
        dnnl_memory_t memory = primitive->arguments[i].memory;
        if (dnnl_memory_set_data_handle_v2(memory, pointer, device->stream) != dnnl_success) {
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
