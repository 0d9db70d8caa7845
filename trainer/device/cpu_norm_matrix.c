// Batch normalisation of matrices: blocks of columns in parallel, rows in order, so that the sums
// do not depend on the number of threads.
#include "trainer/device/cpu.h"

#include <math.h>

#define BLOCK 32 // columns that one thread takes at a time

// One block of columns of one group. Values of `width` columns, `stride` apart from row to row.
struct block {
    uint32_t rows, width, channels;
    bool relu;
    const float *scale, *offset;
    float *mean, *inverse; // inverse: 1 / sqrt(variance + epsilon)
};

static size_t stats_bytes(const struct op_desc *desc)
{
    return 2 * (size_t)desc->groups * desc->in.c * sizeof(float);
}

static struct block block_of(const struct op_desc *desc, const float *params, float *stats,
                             uint32_t group, uint32_t first)
{
    float *mean = stats + 2 * (size_t)group * desc->in.c + first;
    uint32_t left = desc->in.c - first;
    return (struct block){.rows = desc->in.n / desc->groups,
                          .width = left < BLOCK ? left : BLOCK,
                          .channels = desc->in.c,
                          .relu = desc->relu,
                          .scale = params + first,
                          .offset = params + desc->in.c + first,
                          .mean = mean,
                          .inverse = mean + desc->in.c};
}

// Leaves mean and biased variance (in place of the inverse).
CPU_KERNEL static void measure(const struct block *block, const float *x)
{
    double sum[BLOCK] = {0}, squares[BLOCK] = {0};
    for (uint32_t row = 0; row < block->rows; row++) {
        const float *values = x + (size_t)row * block->channels;
#pragma omp simd
        for (uint32_t c = 0; c < block->width; c++) {
            double value = (double)values[c];
            sum[c] += value;
            squares[c] += value * value;
        }
    }
    for (uint32_t c = 0; c < block->width; c++) {
        double mean = sum[c] / block->rows;
        block->mean[c] = (float)mean;
        block->inverse[c] = (float)fmax(squares[c] / block->rows - mean * mean, 0.0);
    }
}

static void invert(const struct block *block)
{
    for (uint32_t c = 0; c < block->width; c++) {
        block->inverse[c] = 1.0f / sqrtf(block->inverse[c] + BATCH_NORM_EPSILON);
    }
}

CPU_KERNEL static void apply(const struct block *block, float *y, const float *x)
{
    const float *mean = block->mean, *inverse = block->inverse;
    const float *scale = block->scale, *offset = block->offset;
    float floor = block->relu ? 0.0f : -INFINITY;
    for (uint32_t row = 0; row < block->rows; row++) {
        size_t at = (size_t)row * block->channels;
#pragma omp simd
        for (uint32_t c = 0; c < block->width; c++) {
            float value = (x[at + c] - mean[c]) * (scale[c] * inverse[c]) + offset[c];
            y[at + c] = value < floor ? floor : value;
        }
    }
}

// dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)), where dy counts only behind the ReLU.
// Adds the block's part to `dscale` and `doffset`; dx may be NULL.
CPU_KERNEL static void differentiate(const struct block *block, float *dx, const float *x,
                                     const float *dy, float *dscale, float *doffset)
{
    const float *mean = block->mean, *inverse = block->inverse;
    const float *scale = block->scale, *offset = block->offset;
    float floor = block->relu ? 0.0f : -INFINITY;
    double sum[BLOCK] = {0}, product[BLOCK] = {0};
    for (uint32_t row = 0; row < block->rows; row++) {
        size_t at = (size_t)row * block->channels;
#pragma omp simd
        for (uint32_t c = 0; c < block->width; c++) {
            float centred = x[at + c] - mean[c];
            float value = centred * (scale[c] * inverse[c]) + offset[c];
            float gradient = value > floor ? dy[at + c] : 0.0f;
            sum[c] += (double)gradient;
            product[c] += (double)gradient * (double)(centred * inverse[c]);
        }
    }
    float mean_gradient[BLOCK], mean_product[BLOCK];
    for (uint32_t c = 0; c < block->width; c++) {
        dscale[c] += (float)product[c];
        doffset[c] += (float)sum[c];
        mean_gradient[c] = (float)(sum[c] / block->rows);
        mean_product[c] = (float)(product[c] / block->rows);
    }
    for (uint32_t row = 0; dx != NULL && row < block->rows; row++) {
        size_t at = (size_t)row * block->channels;
#pragma omp simd
        for (uint32_t c = 0; c < block->width; c++) {
            float centred = x[at + c] - mean[c];
            float value = centred * (scale[c] * inverse[c]) + offset[c];
            float gradient = value > floor ? dy[at + c] : 0.0f;
            dx[at + c] = scale[c] * inverse[c] *
                         (gradient - mean_gradient[c] - centred * inverse[c] * mean_product[c]);
        }
    }
}

// --- running

static void forward_group(const struct op_desc *desc, const struct op_buffers *buffers,
                          float *stats, uint32_t group, enum op_mode mode)
{
    uint32_t channels = desc->in.c;
    size_t at = (size_t)group * (desc->in.n / desc->groups) * channels;
    const float *x = (const float *)buffers->x + at;
    float *y = (float *)buffers->y + at, *mean = stats + 2 * (size_t)group * channels;
    const float *average = buffers->state + 1 + 2 * (size_t)channels;
#pragma omp parallel for
    for (uint32_t first = 0; first < channels; first += BLOCK) {
        struct block block = block_of(desc, buffers->params, stats, group, first);
        if (mode == OP_TRAIN) {
            measure(&block, x + first);
        }
        for (uint32_t c = 0; mode == OP_EVAL && c < block.width; c++) {
            block.mean[c] = average[first + c];
            block.inverse[c] = average[channels + first + c];
        }
    }
    if (mode == OP_TRAIN) {
        cpu_running_update(buffers->state, mean, mean + channels, channels);
    }
#pragma omp parallel for
    for (uint32_t first = 0; first < channels; first += BLOCK) {
        struct block block = block_of(desc, buffers->params, stats, group, first);
        invert(&block);
        apply(&block, y + first, x + first);
    }
}

static enum status matrix_forward(struct cpu_device *device, struct cpu_op *op,
                                  const struct op_buffers *buffers, enum op_mode mode)
{
    (void)device;
    const struct op_desc *desc = &op->base.desc;
    float *stats = desc->need_backward && mode == OP_TRAIN ? buffers->saved : buffers->scratch;
    for (uint32_t group = 0; group < desc->groups; group++) {
        forward_group(desc, buffers, stats, group, mode);
    }
    return STATUS_OK;
}

static enum status matrix_backward(struct cpu_device *device, struct cpu_op *op,
                                   const struct op_buffers *buffers)
{
    (void)device;
    const struct op_desc *desc = &op->base.desc;
    uint32_t channels = desc->in.c;
    size_t group_size = (size_t)(desc->in.n / desc->groups) * channels;
    const float *x = buffers->x, *dy = buffers->dy;
    float *dx = desc->need_input_gradient ? buffers->dx : NULL, *grads = buffers->param_grads;
#pragma omp parallel for
    for (uint32_t first = 0; first < channels; first += BLOCK) {
        for (uint32_t c = first; c < channels && c < first + BLOCK; c++) {
            grads[c] = grads[channels + c] = 0;
        }
        for (uint32_t group = 0; group < desc->groups; group++) {
            struct block block = block_of(desc, buffers->params, buffers->saved, group, first);
            size_t at = group * group_size + first;
            differentiate(&block, dx == NULL ? NULL : dx + at, x + at, dy + at, grads + first,
                          grads + channels + first);
        }
    }
    return STATUS_OK;
}

enum status cpu_norm_matrix_create(struct cpu_device *device, const struct op_desc *desc,
                                   struct cpu_op **out, struct error *error)
{
    (void)device;
    *out = cpu_op_allocate(sizeof **out, desc, error);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->forward = matrix_forward;
    (*out)->backward = matrix_backward;
    (*out)->base.saved_bytes = desc->need_backward ? stats_bytes(desc) : 0;
    (*out)->base.scratch_bytes = stats_bytes(desc);
    return STATUS_OK;
}
