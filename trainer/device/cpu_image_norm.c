// Normalisations that look at one image at a time, so that images are what threads share: group
// normalisation, and the affine map alone, which is the same with moments that stand still.
//
// An image is walked in pieces of up to LANES channels: a block of the images' layout, or LANES
// columns of a row of a matrix.
#include "trainer/device/cpu.h"

#include <math.h>
#include <string.h>

#define LANES 16

struct cpu_image_norm {
    struct cpu_op base;
    uint32_t pieces; // of an image
    uint32_t lanes;  // channels of a piece as they lie in memory
    size_t pixels, image_values;
    uint32_t run; // channels that share their moments
    bool half;    // what it reads and writes is bfloat16
};

// The numbers of a piece's channels; zero where a block is only filled up, which keeps those
// channels of the result zero.
struct piece {
    uint32_t width, stride;
    size_t pixels;
    bool relu;
    float mean[LANES], inverse[LANES], scale[LANES], offset[LANES];
    float mean_gradient[LANES], mean_product[LANES]; // backward only
};

struct moments {
    float mean, inverse; // inverse: 1 / sqrt(variance + epsilon)
};

// Backward: means over a run, of g = scale dy and of g x^.
struct run_means {
    float gradient, product;
};

struct workspace {
    double *sums;            // [n][2][c]
    struct moments *moments; // [n][runs]
    struct run_means *means; // [n][runs]
};

static uint32_t runs_of(const struct cpu_image_norm *norm)
{
    return norm->base.base.desc.in.c / norm->run;
}

static bool has_moments(const struct cpu_image_norm *norm)
{
    return norm->base.base.desc.kind == OP_GROUP_NORM;
}

static size_t moments_bytes(const struct cpu_image_norm *norm)
{
    return (size_t)norm->base.base.desc.in.n * runs_of(norm) * sizeof(struct moments);
}

static size_t workspace_of(struct workspace *out, const struct cpu_image_norm *norm, void *scratch)
{
    const struct op_desc *desc = &norm->base.base.desc;
    uintptr_t at = (uintptr_t)scratch; // NULL when only the size is asked for
    size_t used = cpu_aligned(2 * (size_t)desc->in.n * desc->in.c * sizeof *out->sums);
    out->sums = (double *)at;
    out->moments = (struct moments *)(at + used);
    used += cpu_aligned(moments_bytes(norm));
    out->means = (struct run_means *)(at + used);
    return used + cpu_aligned((size_t)desc->in.n * runs_of(norm) * sizeof *out->means);
}

// --- one piece -----------------------------------------------------------------------------------

// In these, a piece begins `index` values into x, y and their gradients.

CPU_INLINE float normalised(const struct piece *piece, uint32_t c, float x)
{
    return (x - piece->mean[c]) * piece->inverse[c];
}

CPU_INLINE void measure(const struct piece *piece, double *sum, double *squares, const void *x,
                        size_t index, bool half)
{
    for (size_t i = 0; i < piece->pixels; i++, index += piece->stride) {
#pragma omp simd
        for (uint32_t c = 0; c < piece->width; c++) {
            double value = (double)cpu_value_read(x, index + c, half);
            sum[c] += value;
            squares[c] += value * value;
        }
    }
}

CPU_INLINE void apply(const struct piece *piece, void *y, const void *x, size_t index, bool half)
{
    float floor = piece->relu ? 0.0f : -INFINITY;
    for (size_t i = 0; i < piece->pixels; i++, index += piece->stride) {
#pragma omp simd
        for (uint32_t c = 0; c < piece->width; c++) {
            float unit = normalised(piece, c, cpu_value_read(x, index + c, half));
            float value = unit * piece->scale[c] + piece->offset[c];
            cpu_value_write(y, index + c, value < floor ? floor : value, half); // a NaN passes
        }
    }
}

// Sums of the gradients and of their products with the normalised values.
CPU_INLINE void collect(const struct piece *piece, double *sum, double *product, const void *x,
                        const void *dy, size_t index, bool half)
{
    float floor = piece->relu ? 0.0f : -INFINITY;
    for (size_t i = 0; i < piece->pixels; i++, index += piece->stride) {
#pragma omp simd
        for (uint32_t c = 0; c < piece->width; c++) {
            float unit = normalised(piece, c, cpu_value_read(x, index + c, half));
            float value = unit * piece->scale[c] + piece->offset[c];
            float gradient = value > floor ? cpu_value_read(dy, index + c, half) : 0.0f;
            sum[c] += (double)gradient;
            product[c] += (double)gradient * (double)unit;
        }
    }
}

// dx = 1 / deviation (g - mean(g) - x^ mean(g x^)) with g = scale dy, where dy counts only behind
// the ReLU.
CPU_INLINE void differentiate(const struct piece *piece, void *dx, const void *x, const void *dy,
                              size_t index, bool half)
{
    float floor = piece->relu ? 0.0f : -INFINITY;
    for (size_t i = 0; i < piece->pixels; i++, index += piece->stride) {
#pragma omp simd
        for (uint32_t c = 0; c < piece->width; c++) {
            float unit = normalised(piece, c, cpu_value_read(x, index + c, half));
            float value = unit * piece->scale[c] + piece->offset[c];
            float above = cpu_value_read(dy, index + c, half) * piece->scale[c];
            float gradient = value > floor ? above : 0.0f;
            float centred = gradient - piece->mean_gradient[c] - unit * piece->mean_product[c];
            cpu_value_write(dx, index + c, piece->inverse[c] * centred, half);
        }
    }
}

CPU_KERNEL static void measure_floats(const struct piece *piece, double *sum, double *squares,
                                      const void *x, size_t index)
{
    measure(piece, sum, squares, x, index, false);
}

CPU_KERNEL static void measure_halves(const struct piece *piece, double *sum, double *squares,
                                      const void *x, size_t index)
{
    measure(piece, sum, squares, x, index, true);
}

CPU_KERNEL static void apply_floats(const struct piece *piece, void *y, const void *x, size_t index)
{
    apply(piece, y, x, index, false);
}

CPU_KERNEL static void apply_halves(const struct piece *piece, void *y, const void *x, size_t index)
{
    apply(piece, y, x, index, true);
}

CPU_KERNEL static void collect_floats(const struct piece *piece, double *sum, double *product,
                                      const void *x, const void *dy, size_t index)
{
    collect(piece, sum, product, x, dy, index, false);
}

CPU_KERNEL static void collect_halves(const struct piece *piece, double *sum, double *product,
                                      const void *x, const void *dy, size_t index)
{
    collect(piece, sum, product, x, dy, index, true);
}

CPU_KERNEL static void differentiate_floats(const struct piece *piece, void *dx, const void *x,
                                            const void *dy, size_t index)
{
    differentiate(piece, dx, x, dy, index, false);
}

CPU_KERNEL static void differentiate_halves(const struct piece *piece, void *dx, const void *x,
                                            const void *dy, size_t index)
{
    differentiate(piece, dx, x, dy, index, true);
}

// --- one image -----------------------------------------------------------------------------------

// Channels of a piece that are not there to fill up a block.
static uint32_t real_width(const struct cpu_image_norm *norm, uint32_t index)
{
    uint32_t left = norm->base.base.desc.in.c - index * norm->lanes;
    return left < norm->lanes ? left : norm->lanes;
}

// `moments` and `means` of the image, NULL where they are not known or not needed.
static struct piece piece_of(const struct cpu_image_norm *norm, const float *params,
                             const struct moments *moments, const struct run_means *means,
                             uint32_t index)
{
    const struct op_desc *desc = &norm->base.base.desc;
    bool image = desc->in.kind == TENSOR_IMAGE;
    uint32_t width = real_width(norm, index), first = index * norm->lanes;
    struct piece piece = {.width = image ? norm->lanes : width,
                          .stride = image ? norm->lanes : desc->in.c,
                          .pixels = norm->pixels,
                          .relu = desc->relu};
    for (uint32_t c = 0; c < width; c++) {
        uint32_t run = (first + c) / norm->run;
        piece.mean[c] = moments ? moments[run].mean : 0.0f;
        piece.inverse[c] = moments ? moments[run].inverse : 1.0f;
        piece.scale[c] = params[first + c];
        piece.offset[c] = params[desc->in.c + first + c];
        piece.mean_gradient[c] = means ? means[run].gradient : 0.0f;
        piece.mean_product[c] = means ? means[run].product : 0.0f;
    }
    return piece;
}

static size_t piece_at(const struct cpu_image_norm *norm, uint32_t image, uint32_t index)
{
    return image * norm->image_values + index * norm->pixels * norm->lanes;
}

// Adds up what a pass over a piece left, per channel: first, second [c].
static void keep_sums(const struct cpu_image_norm *norm, double *sums, uint32_t index,
                      const double *first, const double *second)
{
    uint32_t channels = norm->base.base.desc.in.c, width = real_width(norm, index);
    memcpy(sums + index * norm->lanes, first, width * sizeof *sums);
    memcpy(sums + channels + index * norm->lanes, second, width * sizeof *sums);
}

static void take_moments(const struct cpu_image_norm *norm, struct moments *moments,
                         const double *sums)
{
    uint32_t channels = norm->base.base.desc.in.c;
    double count = (double)norm->pixels * norm->run;
    for (uint32_t run = 0; run < runs_of(norm); run++) {
        double sum = 0, squares = 0;
        for (uint32_t c = run * norm->run; c < (run + 1) * norm->run; c++) {
            sum += sums[c];
            squares += sums[channels + c];
        }
        double mean = sum / count, variance = fmax(squares / count - mean * mean, 0.0);
        moments[run].mean = (float)mean;
        moments[run].inverse = (float)(1.0 / sqrt(variance + (double)BATCH_NORM_EPSILON));
    }
}

static void take_means(const struct cpu_image_norm *norm, struct run_means *means,
                       const double *sums, const float *scale)
{
    uint32_t channels = norm->base.base.desc.in.c;
    double count = (double)norm->pixels * norm->run;
    for (uint32_t run = 0; run < runs_of(norm); run++) {
        double gradient = 0, product = 0;
        for (uint32_t c = run * norm->run; c < (run + 1) * norm->run; c++) {
            gradient += (double)scale[c] * sums[c];
            product += (double)scale[c] * sums[channels + c];
        }
        means[run] = (struct run_means){(float)(gradient / count), (float)(product / count)};
    }
}

static void forward_image(const struct cpu_image_norm *norm, const struct op_buffers *buffers,
                          uint32_t image, double *sums, struct moments *moments)
{
    for (uint32_t i = 0; moments != NULL && i < norm->pieces; i++) {
        struct piece piece = piece_of(norm, buffers->params, NULL, NULL, i);
        double sum[LANES] = {0}, squares[LANES] = {0};
        (norm->half ? measure_halves : measure_floats)(&piece, sum, squares, buffers->x,
                                                       piece_at(norm, image, i));
        keep_sums(norm, sums, i, sum, squares);
    }
    if (moments != NULL) {
        take_moments(norm, moments, sums);
    }
    for (uint32_t i = 0; i < norm->pieces; i++) {
        struct piece piece = piece_of(norm, buffers->params, moments, NULL, i);
        (norm->half ? apply_halves : apply_floats)(&piece, buffers->y, buffers->x,
                                                   piece_at(norm, image, i));
    }
}

static void backward_image(const struct cpu_image_norm *norm, const struct op_buffers *buffers,
                           uint32_t image, double *sums, const struct moments *moments,
                           struct run_means *means)
{
    void *dx = norm->base.base.desc.need_input_gradient ? buffers->dx : NULL;
    for (uint32_t i = 0; i < norm->pieces; i++) {
        struct piece piece = piece_of(norm, buffers->params, moments, NULL, i);
        double sum[LANES] = {0}, product[LANES] = {0};
        (norm->half ? collect_halves : collect_floats)(&piece, sum, product, buffers->x,
                                                       buffers->dy, piece_at(norm, image, i));
        keep_sums(norm, sums, i, sum, product);
    }
    if (means != NULL) {
        take_means(norm, means, sums, buffers->params);
    }
    for (uint32_t i = 0; dx != NULL && i < norm->pieces; i++) {
        struct piece piece = piece_of(norm, buffers->params, moments, means, i);
        (norm->half ? differentiate_halves : differentiate_floats)(
            &piece, dx, buffers->x, buffers->dy, piece_at(norm, image, i));
    }
}

// --- the op --------------------------------------------------------------------------------------

static enum status image_norm_forward(struct cpu_device *device, struct cpu_op *op,
                                      const struct op_buffers *buffers, enum op_mode mode)
{
    const struct cpu_image_norm *norm = (const struct cpu_image_norm *)op;
    const struct op_desc *desc = &op->base.desc;
    struct workspace work;
    workspace_of(&work, norm, buffers->scratch);
    struct moments *moments =
        mode == OP_TRAIN && desc->need_backward ? buffers->saved : work.moments;
#pragma omp parallel for num_threads(device->threads)
    for (uint32_t n = 0; n < desc->in.n; n++) {
        forward_image(norm, buffers, n, work.sums + 2 * (size_t)n * desc->in.c,
                      has_moments(norm) ? moments + (size_t)n * runs_of(norm) : NULL);
    }
    return STATUS_OK;
}

// The images' shares in their order, whatever thread they come from.
static void sum_param_gradients(const struct cpu_device *device, const struct op_desc *desc,
                                float *grads, const double *sums)
{
    uint32_t channels = desc->in.c;
#pragma omp parallel for num_threads(device->threads)
    for (uint32_t c = 0; c < channels; c++) {
        double sum = 0, product = 0;
        for (uint32_t n = 0; n < desc->in.n; n++) {
            sum += sums[2 * (size_t)n * channels + c];
            product += sums[(2 * (size_t)n + 1) * channels + c];
        }
        grads[c] = (float)product;
        grads[channels + c] = (float)sum;
    }
}

static enum status image_norm_backward(struct cpu_device *device, struct cpu_op *op,
                                       const struct op_buffers *buffers)
{
    const struct cpu_image_norm *norm = (const struct cpu_image_norm *)op;
    const struct op_desc *desc = &op->base.desc;
    const struct moments *moments = buffers->saved;
    struct workspace work;
    workspace_of(&work, norm, buffers->scratch);
#pragma omp parallel for num_threads(device->threads)
    for (uint32_t n = 0; n < desc->in.n; n++) {
        size_t at = (size_t)n * runs_of(norm);
        backward_image(norm, buffers, n, work.sums + 2 * (size_t)n * desc->in.c,
                       has_moments(norm) ? moments + at : NULL,
                       has_moments(norm) ? work.means + at : NULL);
    }
    sum_param_gradients(device, desc, buffers->param_grads, work.sums);
    return STATUS_OK;
}

enum status cpu_image_norm_create(struct cpu_device *device, const struct op_desc *desc,
                                  struct cpu_op **out, struct error *error)
{
    struct cpu_image_norm *norm = cpu_op_allocate(sizeof *norm, desc, error);
    if (norm == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &norm->base;
    norm->base.forward = image_norm_forward;
    norm->base.backward = image_norm_backward;
    norm->run = desc->kind == OP_GROUP_NORM ? desc->in.c / desc->channel_groups : desc->in.c;
    if (desc->in.kind == TENSOR_IMAGE) {
        struct cpu_layout layout = cpu_layout_of(desc->in);
        norm->half = device->half;
        norm->lanes = layout.block;
        norm->pieces = layout.blocks;
        norm->pixels = layout.pixels;
        norm->image_values = layout.values / desc->in.n;
    } else {
        norm->lanes = LANES;
        norm->pieces = (desc->in.c + LANES - 1) / LANES;
        norm->pixels = 1;
        norm->image_values = desc->in.c;
    }
    struct workspace work;
    norm->base.base.scratch_bytes = workspace_of(&work, norm, NULL);
    norm->base.base.saved_bytes =
        desc->need_backward && has_moments(norm) ? moments_bytes(norm) : 0;
    return STATUS_OK;
}
