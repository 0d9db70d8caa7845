// Layers that only move memory, as loops over whole buffers: zeros in padding channels stay zero.
#include "trainer/device/cpu.h"

#include <string.h>

#define CHUNK 16384 // values that one thread takes at a time: three buffers of them fit into L2

static size_t chunk_length(size_t count, size_t first)
{
    return count - first < CHUNK ? count - first : CHUNK;
}

static size_t image_values(struct tensor_shape shape)
{
    return shape.kind == TENSOR_IMAGE ? cpu_layout_of(shape).values : tensor_count(shape);
}

// --- kernels

CPU_KERNEL static void add_values(float *to, const float *from, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        to[i] += from[i];
    }
}

CPU_KERNEL static void relu_values(float *y, const float *x, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        y[i] = x[i] < 0 ? 0.0f : x[i]; // a NaN passes
    }
}

CPU_KERNEL static void cut_values(float *dx, const float *dy, const float *y, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        dx[i] = y[i] > 0 ? dy[i] : 0.0f;
    }
}

CPU_KERNEL static void sum_values(float *y, const float *x, const float *x2, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        y[i] = x[i] + x2[i];
    }
}

CPU_KERNEL static void sum_values_relu(float *y, const float *x, const float *x2, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        float sum = x[i] + x2[i];
        y[i] = sum < 0 ? 0.0f : sum;
    }
}

// sums[c] += values[i][c], `block` channels side by side
CPU_KERNEL static void sum_pixels(float *sums, const float *values, size_t pixels, uint32_t block)
{
    for (size_t i = 0; i < pixels; i++) {
#pragma omp simd
        for (uint32_t c = 0; c < block; c++) {
            sums[c] += values[i * block + c];
        }
    }
}

void cpu_accumulate(struct cpu_device *device, float *to, const float *from, size_t count)
{
#pragma omp parallel for num_threads(device->threads)
    for (size_t first = 0; first < count; first += CHUNK) {
        add_values(to + first, from + first, chunk_length(count, first));
    }
}

void cpu_image_add(struct cpu_device *device, void *to, const void *from, struct tensor_shape shape)
{
    cpu_accumulate(device, to, from, image_values(shape));
}

// --- input: [h][w][3] to planes

static enum status input_forward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers, enum op_mode mode)
{
    (void)device;
    (void)mode;
    const struct op_desc *desc = &op->base.desc;
    size_t pixels = (size_t)desc->in.h * desc->in.w;
    const float *x = buffers->x;
    float *y = buffers->y;
#pragma omp parallel for
    for (uint32_t n = 0; n < desc->in.n; n++) {
        const float *image = x + n * 3 * pixels;
        for (size_t i = 0; i < 3 * pixels; i++) {
            size_t c = i / pixels;
            y[n * 3 * pixels + i] =
                (image[i % pixels * 3 + c] - op_input_mean[c]) / op_input_deviation[c];
        }
    }
    return STATUS_OK;
}

// --- ReLU and sum

static enum status relu_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    (void)device;
    (void)mode;
    size_t count = image_values(op->base.desc.in);
    const float *x = buffers->x;
    float *y = buffers->y;
#pragma omp parallel for
    for (size_t first = 0; first < count; first += CHUNK) {
        relu_values(y + first, x + first, chunk_length(count, first));
    }
    return STATUS_OK;
}

static void cut(float *dx, const float *dy, const float *y, size_t count)
{
#pragma omp parallel for
    for (size_t first = 0; first < count; first += CHUNK) {
        cut_values(dx + first, dy + first, y + first, chunk_length(count, first));
    }
}

static enum status relu_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    (void)device;
    cut(buffers->dx, buffers->dy, buffers->y, image_values(op->base.desc.in));
    return STATUS_OK;
}

static enum status add_forward(struct cpu_device *device, struct cpu_op *op,
                               const struct op_buffers *buffers, enum op_mode mode)
{
    (void)device;
    (void)mode;
    size_t count = image_values(op->base.desc.in);
    bool relu = op->base.desc.relu;
    const float *x = buffers->x, *x2 = buffers->x2;
    float *y = buffers->y;
#pragma omp parallel for
    for (size_t first = 0; first < count; first += CHUNK) {
        size_t len = chunk_length(count, first);
        if (relu) {
            sum_values_relu(y + first, x + first, x2 + first, len);
        } else {
            sum_values(y + first, x + first, x2 + first, len);
        }
    }
    return STATUS_OK;
}

static void copy_values(float *to, const float *from, size_t count)
{
#pragma omp parallel for
    for (size_t first = 0; first < count; first += CHUNK) {
        memcpy(to + first, from + first, chunk_length(count, first) * sizeof *to);
    }
}

static enum status add_backward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers)
{
    (void)device;
    size_t count = image_values(op->base.desc.in);
    float *targets[] = {buffers->dx, buffers->dx2};
    const float *gradient = buffers->dy;
    for (size_t i = 0; i < 2; i++) {
        if (targets[i] != NULL && op->base.desc.relu) {
            cut(targets[i], gradient, buffers->y, count);
        } else if (targets[i] != NULL && targets[i] != gradient) {
            copy_values(targets[i], gradient, count);
        }
    }
    return STATUS_OK;
}

// --- mean over rows and columns

static enum status mean_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    (void)device;
    (void)mode;
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout layout = cpu_layout_of(desc->in);
    const float *x = buffers->x;
    float *y = buffers->y, factor = 1.0f / (float)layout.pixels;
#pragma omp parallel for
    for (size_t plane = 0; plane < desc->in.n * (size_t)layout.blocks; plane++) {
        float sums[16] = {0};
        uint32_t first = (uint32_t)(plane % layout.blocks) * layout.block;
        sum_pixels(sums, x + plane * layout.pixels * layout.block, layout.pixels, layout.block);
        for (uint32_t c = 0; c < layout.block && first + c < desc->in.c; c++) {
            y[plane / layout.blocks * desc->in.c + first + c] = sums[c] * factor;
        }
    }
    return STATUS_OK;
}

static enum status mean_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    (void)device;
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout layout = cpu_layout_of(desc->in);
    const float *dy = buffers->dy;
    float *dx = buffers->dx, factor = 1.0f / (float)layout.pixels;
#pragma omp parallel for
    for (size_t plane = 0; plane < desc->in.n * (size_t)layout.blocks; plane++) {
        float values[16] = {0};
        uint32_t first = (uint32_t)(plane % layout.blocks) * layout.block;
        for (uint32_t c = 0; c < layout.block && first + c < desc->in.c; c++) {
            values[c] = dy[plane / layout.blocks * desc->in.c + first + c] * factor;
        }
        for (size_t i = 0; i < layout.pixels; i++) {
            memcpy(dx + (plane * layout.pixels + i) * layout.block, values,
                   layout.block * sizeof *values);
        }
    }
    return STATUS_OK;
}

// --- linear

static enum status linear_forward(struct cpu_device *device, struct cpu_op *op,
                                  const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    const struct op_desc *desc = &op->base.desc;
    uint32_t rows = desc->in.n, in = desc->in.c, out = desc->out.c;
    const float *bias = buffers->params + (size_t)in * out;
    float *y = buffers->y;
    enum status status = cpu_matrix_product(&device->base, false, false, rows, out, in, buffers->x,
                                            buffers->params, y, false);
    if (status != STATUS_OK || !desc->bias) {
        return status;
    }
#pragma omp parallel for
    for (uint32_t row = 0; row < rows; row++) {
        add_values(y + (size_t)row * out, bias, out);
    }
    return STATUS_OK;
}

// Sums of columns, rows in order.
static void bias_gradient(float *sums, const float *dy, uint32_t rows, uint32_t columns)
{
#pragma omp parallel for
    for (uint32_t first = 0; first < columns; first += 64) {
        uint32_t len = columns - first < 64 ? columns - first : 64;
        memset(sums + first, 0, len * sizeof *sums);
        for (uint32_t row = 0; row < rows; row++) {
            add_values(sums + first, dy + (size_t)row * columns + first, len);
        }
    }
}

static enum status linear_backward(struct cpu_device *device, struct cpu_op *op,
                                   const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.desc;
    uint32_t rows = desc->in.n, in = desc->in.c, out = desc->out.c;
    enum status status = cpu_matrix_product(&device->base, true, false, in, out, rows, buffers->x,
                                            buffers->dy, buffers->param_grads, false);
    if (desc->bias) {
        bias_gradient(buffers->param_grads + (size_t)in * out, buffers->dy, rows, out);
    }
    if (status == STATUS_OK && desc->need_input_gradient && buffers->dx != NULL) {
        status = cpu_matrix_product(&device->base, false, true, rows, in, out, buffers->dy,
                                    buffers->params, buffers->dx, false);
    }
    return status;
}

enum status cpu_layer_create(struct cpu_device *device, const struct op_desc *desc,
                             struct cpu_op **out, struct error *error)
{
    (void)device;
    *out = cpu_op_allocate(sizeof **out, desc, error);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    switch (desc->kind) {
    case OP_INPUT:
        (*out)->forward = input_forward;
        break;
    case OP_ADD:
        (*out)->forward = add_forward;
        (*out)->backward = add_backward;
        break;
    case OP_RELU:
        (*out)->forward = relu_forward;
        (*out)->backward = relu_backward;
        break;
    case OP_MEAN_POOL:
        (*out)->forward = mean_forward;
        (*out)->backward = mean_backward;
        break;
    default:
        (*out)->forward = linear_forward;
        (*out)->backward = linear_backward;
        break;
    }
    return STATUS_OK;
}
