// The table of the cpu device, its buffers' layouts and the dispatch to its ops.
#include "trainer/device/cpu.h"

#include "trainer/device/host.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cpu_enter(const struct cpu_device *device)
{
    omp_set_dynamic(0);
    omp_set_num_threads(device->threads);
}

static void cpu_close(struct device *device)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    cpu_dnnl_close(cpu);
    cpu_update_release(cpu->update);
    free(cpu);
}

static enum status cpu_open(struct device **out, int threads, enum device_precision precision,
                            struct error *error)
{
    *out = NULL;
    if (precision == DEVICE_BF16 && !cpu_dnnl_has_half()) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "this processor has no bf16 arithmetic (avx512_bf16): use precision f32");
    }
    struct cpu_device *device = calloc(1, sizeof *device);
    if (device == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    device->base.ops = &cpu_device_ops;
    device->half = precision == DEVICE_BF16 || (precision == DEVICE_AUTO && cpu_dnnl_has_half());
    device->base.precision = device->half ? DEVICE_BF16 : DEVICE_F32;
    // oneDNN's kernels wait for as many threads as it was promised: for ever, where OpenMP may not
    // start so many (OMP_THREAD_LIMIT).
    int limit = omp_get_thread_limit();
    device->threads = threads < limit ? threads : limit;
    enum status status = cpu_dnnl_open(device, error);
    if (status != STATUS_OK) {
        cpu_close(&device->base);
        return status;
    }
    *out = &device->base;
    return STATUS_OK;
}

static void cpu_describe(const struct device *device, char *text, size_t capacity)
{
    const struct cpu_device *cpu = (const struct cpu_device *)device;
    char library[64];
    cpu_dnnl_describe(library, sizeof library);
    snprintf(text, capacity, "%s, %s, %d thread%s", library, cpu->half ? "bf16" : "f32",
             cpu->threads, cpu->threads == 1 ? "" : "s");
}

// --- layouts

static size_t cpu_tensor_bytes(const struct device *device, struct tensor_shape shape)
{
    const struct cpu_device *cpu = (const struct cpu_device *)device;
    if (shape.kind == TENSOR_MATRIX) {
        return tensor_count(shape) * sizeof(float);
    }
    return cpu_layout_of(shape).values * cpu_value_bytes(cpu->half);
}

// Where value (pixel, c) of an image lies.
static size_t image_index(const struct cpu_layout *layout, size_t n, size_t pixel, uint32_t c)
{
    size_t plane = (n * layout->blocks + c / layout->block) * layout->pixels + pixel;
    return plane * layout->block + c % layout->block;
}

static enum status cpu_tensor_store(struct device *device, struct tensor_shape shape, void *to,
                                    const float *host)
{
    if (shape.kind == TENSOR_MATRIX) {
        return host_copy(device, to, host, tensor_count(shape) * sizeof(float));
    }
    struct cpu_layout layout = cpu_layout_of(shape);
    bool half = ((struct cpu_device *)device)->half;
    memset(to, 0, layout.values * cpu_value_bytes(half));
    for (size_t row = 0; row < shape.n * layout.pixels; row++) {
        for (uint32_t c = 0; c < shape.c; c++) {
            size_t at = image_index(&layout, row / layout.pixels, row % layout.pixels, c);
            if (half) {
                ((uint16_t *)to)[at] = cpu_half_round(host[row * shape.c + c]);
            } else {
                ((float *)to)[at] = host[row * shape.c + c];
            }
        }
    }
    return STATUS_OK;
}

static enum status cpu_tensor_fetch(struct device *device, struct tensor_shape shape, float *host,
                                    const void *from)
{
    if (shape.kind == TENSOR_MATRIX) {
        return host_copy(device, host, from, tensor_count(shape) * sizeof(float));
    }
    struct cpu_layout layout = cpu_layout_of(shape);
    bool half = ((struct cpu_device *)device)->half;
    for (size_t row = 0; row < shape.n * layout.pixels; row++) {
        for (uint32_t c = 0; c < shape.c; c++) {
            size_t at = image_index(&layout, row / layout.pixels, row % layout.pixels, c);
            host[row * shape.c + c] =
                half ? cpu_half_widen(((const uint16_t *)from)[at]) : ((const float *)from)[at];
        }
    }
    return STATUS_OK;
}

static enum status cpu_tensor_add(struct device *device, struct tensor_shape shape, void *to,
                                  const void *from)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    cpu_image_add(cpu, to, from, shape);
    return STATUS_OK;
}

// --- ops

void *cpu_op_allocate(size_t bytes, const struct op_desc *desc, struct error *error)
{
    struct cpu_op *op = calloc(1, bytes);
    if (op == NULL) {
        error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for an op");
        return NULL;
    }
    op->base.desc = *desc;
    return op;
}

void cpu_op_release(struct device *device, struct op *op)
{
    (void)device;
    struct cpu_op *own = (struct cpu_op *)op;
    if (own != NULL && own->release != NULL) {
        own->release(own);
    }
    free(own);
}

enum status cpu_plain_create(struct cpu_device *cpu, const struct op_desc *desc,
                             struct cpu_op **out, struct error *error)
{
    switch (desc->kind) {
    case OP_CONV:
        return cpu_conv_create(cpu, desc, out, error);
    case OP_BATCH_NORM:
        return desc->in.kind == TENSOR_IMAGE ? cpu_norm_create(cpu, desc, out, error)
                                             : cpu_norm_matrix_create(cpu, desc, out, error);
    case OP_MAX_POOL:
        return cpu_max_pool_create(cpu, desc, out, error);
    case OP_GROUP_NORM:
    case OP_AFFINE:
        return cpu_image_norm_create(cpu, desc, out, error);
    case OP_INPUT:
    case OP_ADD:
    case OP_RELU:
    case OP_MEAN_POOL:
    case OP_LINEAR:
        return cpu_layer_create(cpu, desc, out, error);
    }
    return STATUS_INVALID; // kinds are checked
}

static enum status cpu_op_create(struct device *device, const struct op_desc *desc, struct op **out,
                                 struct error *error)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    *out = NULL;
    enum status status = op_desc_check(desc, error);
    if (status != STATUS_OK) {
        return status;
    }
    cpu_enter(cpu);
    struct cpu_op *op = NULL;
    status = desc->standardise ? cpu_standard_create(cpu, desc, &op, error)
                               : cpu_plain_create(cpu, desc, &op, error);
    if (status != STATUS_OK) {
        cpu_op_release(device, (struct op *)op);
        return status;
    }
    *out = &op->base;
    return STATUS_OK;
}

static enum status cpu_op_forward(struct device *device, struct op *op,
                                  const struct op_buffers *buffers, enum op_mode mode)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    struct cpu_op *own = (struct cpu_op *)op;
    cpu_enter(cpu);
    return own->forward(cpu, own, buffers, mode);
}

static enum status cpu_op_backward(struct device *device, struct op *op,
                                   const struct op_buffers *buffers)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    struct cpu_op *own = (struct cpu_op *)op;
    cpu_enter(cpu);
    return own->backward == NULL ? STATUS_OK : own->backward(cpu, own, buffers);
}

const struct device_ops cpu_device_ops = {
    .name = "cpu",
    .summary = "oneDNN and OpenMP on the processor's cores, in f32 or bf16",
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .allocate = host_allocate,
    .release = host_release,
    .copy_in = host_copy,
    .copy_out = host_copy,
    .copy = host_copy,
    .fill_zero = host_fill_zero,
    .synchronise = host_synchronise,
    .tensor_bytes = cpu_tensor_bytes,
    .tensor_store = cpu_tensor_store,
    .tensor_fetch = cpu_tensor_fetch,
    .tensor_add = cpu_tensor_add,
    .op_create = cpu_op_create,
    .op_release = cpu_op_release,
    .op_saved_bytes = op_saved_size,
    .op_scratch_bytes = op_scratch_size,
    .op_forward = cpu_op_forward,
    .op_backward = cpu_op_backward,
    .regression_loss = cpu_regression_loss,
    .softmax_loss = cpu_softmax_loss,
    .lars_step = cpu_lars_step,
    .sgd_step = cpu_sgd_step,
    .adamw_step = cpu_adamw_step,
    .moving_average = cpu_moving_average,
    .block_add = cpu_block_add,
    .block_sum_peers = host_block_sum_peers,
    .matrix_product = cpu_matrix_product,
};
