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

static bool is_half(const struct cpu_device *device, struct tensor_shape shape)
{
    return device->half && shape.kind == TENSOR_IMAGE;
}

// --- value by value ------------------------------------------------------------------------------

enum each_op {
    EACH_SUM,      // a + b
    EACH_SUM_RELU, // (a + b) where that is not negative
    EACH_RELU,     // a where it is not negative
    EACH_CUT,      // a where b is positive
};

// `to` may be `a` or `b`.
typedef void each_function(void *to, const void *a, const void *b, size_t count);

CPU_INLINE void each_lanes(enum each_op op, void *to, const void *a, const void *b, size_t index,
                           size_t left, bool half)
{
    cpu_lanes values, other = {0};
    cpu_lanes_load(&values, a, index, left, half);
    if (op != EACH_RELU) {
        cpu_lanes_load(&other, b, index, left, half);
    }
    if (op == EACH_SUM || op == EACH_SUM_RELU) {
        values += other;
    }
    if (op == EACH_SUM_RELU || op == EACH_RELU) {
        cpu_lanes_cut_negative(&values);
    }
    if (op == EACH_CUT) {
        cpu_lanes_keep_positive(&values, &other);
    }
    cpu_lanes_store(to, index, &values, left, half);
}

CPU_INLINE void each_value(enum each_op op, void *to, const void *a, const void *b, size_t count,
                           bool half)
{
    size_t i = 0;
    for (; i + CPU_LANES <= count; i += CPU_LANES) {
        each_lanes(op, to, a, b, i, CPU_LANES, half);
    }
    if (i < count) {
        each_lanes(op, to, a, b, i, count - i, half);
    }
}

CPU_KERNEL static void sum_floats(void *to, const void *a, const void *b, size_t count)
{
    each_value(EACH_SUM, to, a, b, count, false);
}

CPU_KERNEL static void sum_halves(void *to, const void *a, const void *b, size_t count)
{
    each_value(EACH_SUM, to, a, b, count, true);
}

CPU_KERNEL static void sum_relu_floats(void *to, const void *a, const void *b, size_t count)
{
    each_value(EACH_SUM_RELU, to, a, b, count, false);
}

CPU_KERNEL static void sum_relu_halves(void *to, const void *a, const void *b, size_t count)
{
    each_value(EACH_SUM_RELU, to, a, b, count, true);
}

CPU_KERNEL static void relu_floats(void *to, const void *a, const void *b, size_t count)
{
    each_value(EACH_RELU, to, a, b, count, false);
}

CPU_KERNEL static void relu_halves(void *to, const void *a, const void *b, size_t count)
{
    each_value(EACH_RELU, to, a, b, count, true);
}

CPU_KERNEL static void cut_floats(void *to, const void *a, const void *b, size_t count)
{
    each_value(EACH_CUT, to, a, b, count, false);
}

CPU_KERNEL static void cut_halves(void *to, const void *a, const void *b, size_t count)
{
    each_value(EACH_CUT, to, a, b, count, true);
}

static each_function *const each_functions[][2] = {
    [EACH_SUM] = {sum_floats, sum_halves},
    [EACH_SUM_RELU] = {sum_relu_floats, sum_relu_halves},
    [EACH_RELU] = {relu_floats, relu_halves},
    [EACH_CUT] = {cut_floats, cut_halves},
};

static void each(const struct cpu_device *device, enum each_op op, struct tensor_shape shape,
                 void *to, const void *a, const void *b)
{
    size_t count = image_values(shape), bytes = cpu_value_bytes(is_half(device, shape));
    each_function *function = each_functions[op][is_half(device, shape)];
#pragma omp parallel for num_threads(device->threads)
    for (size_t first = 0; first < count; first += CHUNK) {
        size_t at = first * bytes;
        function((char *)to + at, (const char *)a + at, (const char *)b + at,
                 chunk_length(count, first));
    }
}

void cpu_accumulate(struct cpu_device *device, float *to, const float *from, size_t count)
{
#pragma omp parallel for num_threads(device->threads)
    for (size_t first = 0; first < count; first += CHUNK) {
        sum_floats(to + first, to + first, from + first, chunk_length(count, first));
    }
}

void cpu_image_add(struct cpu_device *device, void *to, const void *from, struct tensor_shape shape)
{
    each(device, EACH_SUM, shape, to, to, from);
}

// --- input: [h][w][3] to planes ------------------------------------------------------------------

CPU_INLINE float input_value(float x, size_t channel)
{
    return (x - op_input_mean[channel]) / op_input_deviation[channel];
}

// One row of an image to one row of each plane; `plane` values lie between those.
CPU_INLINE void input_row(void *y, size_t index, const float *x, size_t width, size_t plane,
                          bool half)
{
#pragma omp simd
    for (size_t i = 0; i < width; i++) {
        cpu_value_write(y, index + i, input_value(x[i * 3], 0), half);
        cpu_value_write(y, index + plane + i, input_value(x[i * 3 + 1], 1), half);
        cpu_value_write(y, index + 2 * plane + i, input_value(x[i * 3 + 2], 2), half);
    }
}

CPU_KERNEL static void input_row_floats(void *y, size_t index, const float *x, size_t width,
                                        size_t plane)
{
    input_row(y, index, x, width, plane, false);
}

CPU_KERNEL static void input_row_halves(void *y, size_t index, const float *x, size_t width,
                                        size_t plane)
{
    input_row(y, index, x, width, plane, true);
}

static enum status input_forward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    struct tensor_shape shape = op->base.desc.in;
    size_t width = shape.w, plane = (size_t)shape.h * shape.w;
    const float *x = buffers->x;
#pragma omp parallel for num_threads(device->threads)
    for (size_t row = 0; row < (size_t)shape.n * shape.h; row++) {
        size_t index = (row / shape.h * 3) * plane + row % shape.h * width;
        if (device->half) {
            input_row_halves(buffers->y, index, x + row * width * 3, width, plane);
        } else {
            input_row_floats(buffers->y, index, x + row * width * 3, width, plane);
        }
    }
    return STATUS_OK;
}

// --- ReLU and sum --------------------------------------------------------------------------------

static enum status relu_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    each(device, EACH_RELU, op->base.desc.in, buffers->y, buffers->x, buffers->x);
    return STATUS_OK;
}

static enum status relu_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    each(device, EACH_CUT, op->base.desc.in, buffers->dx, buffers->dy, buffers->y);
    return STATUS_OK;
}

static enum status add_forward(struct cpu_device *device, struct cpu_op *op,
                               const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    each(device, op->base.desc.relu ? EACH_SUM_RELU : EACH_SUM, op->base.desc.in, buffers->y,
         buffers->x, buffers->x2);
    return STATUS_OK;
}

static void copy_image(const struct cpu_device *device, struct tensor_shape shape, void *to,
                       const void *from)
{
    size_t count = image_values(shape), bytes = cpu_value_bytes(device->half);
#pragma omp parallel for num_threads(device->threads)
    for (size_t first = 0; first < count; first += CHUNK) {
        memcpy((char *)to + first * bytes, (const char *)from + first * bytes,
               chunk_length(count, first) * bytes);
    }
}

static enum status add_backward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers)
{
    void *targets[] = {buffers->dx, buffers->dx2};
    for (size_t i = 0; i < 2; i++) {
        if (targets[i] != NULL && op->base.desc.relu) {
            each(device, EACH_CUT, op->base.desc.in, targets[i], buffers->dy, buffers->y);
        } else if (targets[i] != NULL && targets[i] != buffers->dy) {
            copy_image(device, op->base.desc.in, targets[i], buffers->dy);
        }
    }
    return STATUS_OK;
}

// --- mean over rows and columns ------------------------------------------------------------------

// Sums of a plane's channels, `block` side by side.
CPU_INLINE void sum_pixels(float *sums, const void *x, size_t index, size_t pixels, size_t block,
                           bool half)
{
    cpu_lanes sum = {0};
    for (size_t i = 0; i < pixels; i++) {
        cpu_lanes values;
        cpu_lanes_load(&values, x, index + i * block, block, half);
        sum += values;
    }
    cpu_lanes_store(sums, 0, &sum, CPU_LANES, false);
}

CPU_KERNEL static void sum_pixels_floats(float *sums, const void *x, size_t index, size_t pixels,
                                         size_t block)
{
    if (block == CPU_LANES) {
        sum_pixels(sums, x, index, pixels, CPU_LANES, false);
    } else {
        sum_pixels(sums, x, index, pixels, block, false);
    }
}

CPU_KERNEL static void sum_pixels_halves(float *sums, const void *x, size_t index, size_t pixels,
                                         size_t block)
{
    if (block == CPU_LANES) {
        sum_pixels(sums, x, index, pixels, CPU_LANES, true);
    } else {
        sum_pixels(sums, x, index, pixels, block, true);
    }
}

static enum status mean_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout layout = cpu_layout_of(desc->in);
    float *y = buffers->y, factor = 1.0f / (float)layout.pixels;
#pragma omp parallel for num_threads(device->threads)
    for (size_t plane = 0; plane < desc->in.n * (size_t)layout.blocks; plane++) {
        float sums[CPU_LANES] = {0};
        uint32_t first = (uint32_t)(plane % layout.blocks) * layout.block;
        size_t at = plane * layout.pixels * layout.block;
        (device->half ? sum_pixels_halves : sum_pixels_floats)(sums, buffers->x, at, layout.pixels,
                                                               layout.block);
        for (uint32_t c = 0; c < layout.block && first + c < desc->in.c; c++) {
            y[plane / layout.blocks * desc->in.c + first + c] = sums[c] * factor;
        }
    }
    return STATUS_OK;
}

// `bytes` of one pixel to all of a plane, by copying what is there already.
static void fill_plane(char *to, const void *pixel, size_t bytes, size_t pixels)
{
    size_t done = bytes, total = bytes * pixels;
    memcpy(to, pixel, bytes);
    while (done < total) {
        size_t len = done < total - done ? done : total - done;
        memcpy(to + done, to, len);
        done += len;
    }
}

static enum status mean_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout layout = cpu_layout_of(desc->in);
    const float *dy = buffers->dy;
    float factor = 1.0f / (float)layout.pixels;
    size_t bytes = layout.block * cpu_value_bytes(device->half);
#pragma omp parallel for num_threads(device->threads)
    for (size_t plane = 0; plane < desc->in.n * (size_t)layout.blocks; plane++) {
        cpu_lanes values = {0};
        char pixel[CPU_LANES * FLOAT_BYTES];
        uint32_t first = (uint32_t)(plane % layout.blocks) * layout.block;
        for (uint32_t c = 0; c < layout.block && first + c < desc->in.c; c++) {
            values[c] = dy[plane / layout.blocks * desc->in.c + first + c] * factor;
        }
        cpu_lanes_store(pixel, 0, &values, CPU_LANES, device->half);
        fill_plane((char *)buffers->dx + plane * layout.pixels * bytes, pixel, bytes,
                   layout.pixels);
    }
    return STATUS_OK;
}

// --- linear --------------------------------------------------------------------------------------

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
        sum_floats(y + (size_t)row * out, y + (size_t)row * out, bias, out);
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
            sum_floats(sums + first, sums + first, dy + (size_t)row * columns + first, len);
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
