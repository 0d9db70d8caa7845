// Batch normalisation of matrices: blocks of columns in parallel, rows in order, so that the sums
// do not depend on the number of threads. Sums over rows are doubles, of all groups side by side,
// so that peers add theirs with one call.
#include "trainer/device/cpu.h"

#include <math.h>
#include <string.h>

#define BLOCK 32 // columns that one thread takes at a time

// One block of columns of one group. Values of `width` columns, `stride` apart from row to row.
struct block {
    uint32_t rows, width, channels;
    bool relu;
    const float *scale, *offset;
    float *mean, *inverse;  // inverse: 1 / sqrt(variance + epsilon)
    double *first, *second; // sums over rows; forward: x, x^2; backward: dy, dy x^
};

static size_t stats_bytes(const struct op_desc *desc)
{
    return 2 * (size_t)desc->groups * desc->in.c * sizeof(float);
}

static size_t sum_count(const struct op_desc *desc)
{
    return 2 * (size_t)desc->groups * desc->in.c;
}

// The sums lie in the scratch behind what `stats` may take of it.
static double *sums_of(const struct op_desc *desc, const struct op_buffers *buffers)
{
    return (double *)(void *)((char *)buffers->scratch + stats_bytes(desc));
}

static uint32_t blocks_of(const struct op_desc *desc)
{
    return (desc->in.c + BLOCK - 1) / BLOCK;
}

// Rows of one group, of all peers together.
static double row_count(const struct cpu_device *device, const struct op_desc *desc)
{
    const struct device_peers *peers = device->base.peers;
    uint32_t rows = desc->in.n / desc->groups;
    return (double)rows * (peers == NULL ? 1.0 : (double)peers->count);
}

static enum status add_up(const struct cpu_device *device, double *sums, size_t count)
{
    const struct device_peers *peers = device->base.peers;
    return peers == NULL ? STATUS_OK : peers->sum(peers->context, sums, count);
}

static struct block block_of(const struct op_desc *desc, const struct op_buffers *buffers,
                             float *stats, uint32_t group, uint32_t first)
{
    float *mean = stats + 2 * (size_t)group * desc->in.c + first;
    double *sums = sums_of(desc, buffers) + 2 * (size_t)group * desc->in.c + first;
    uint32_t left = desc->in.c - first;
    return (struct block){.rows = desc->in.n / desc->groups,
                          .width = left < BLOCK ? left : BLOCK,
                          .channels = desc->in.c,
                          .relu = desc->relu,
                          .scale = buffers->params + first,
                          .offset = buffers->params + desc->in.c + first,
                          .mean = mean,
                          .inverse = mean + desc->in.c,
                          .first = sums,
                          .second = sums + desc->in.c};
}

// Where the values of a block begin.
static size_t values_of(const struct op_desc *desc, uint32_t group, uint32_t first)
{
    return (size_t)group * (desc->in.n / desc->groups) * desc->in.c + first;
}

// --- kernels

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
        block->first[c] = sum[c];
        block->second[c] = squares[c];
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

// Sums of dy and dy x^, where dy counts only behind the ReLU.
CPU_KERNEL static void measure_gradients(const struct block *block, const float *x, const float *dy)
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
    for (uint32_t c = 0; c < block->width; c++) {
        block->first[c] = sum[c];
        block->second[c] = product[c];
    }
}

// dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)); the sums are those of `count` rows.
CPU_KERNEL static void differentiate(const struct block *block, double count, float *dx,
                                     const float *x, const float *dy)
{
    const float *mean = block->mean, *inverse = block->inverse;
    const float *scale = block->scale, *offset = block->offset;
    float floor = block->relu ? 0.0f : -INFINITY;
    float mean_gradient[BLOCK], mean_product[BLOCK];
    for (uint32_t c = 0; c < block->width; c++) {
        mean_gradient[c] = (float)(block->first[c] / count);
        mean_product[c] = (float)(block->second[c] / count);
    }
    for (uint32_t row = 0; row < block->rows; row++) {
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

// Leaves means and biased variances (in place of the inverses) in `stats`, and moves the running
// ones group after group.
static enum status take_statistics(struct cpu_device *device, const struct op_desc *desc,
                                   const struct op_buffers *buffers, float *stats)
{
    uint32_t channels = desc->in.c, blocks = blocks_of(desc);
    const double *sums = sums_of(desc, buffers);
    double count = row_count(device, desc);
#pragma omp parallel for
    for (uint32_t i = 0; i < desc->groups * blocks; i++) {
        uint32_t group = i / blocks, first = i % blocks * BLOCK;
        struct block block = block_of(desc, buffers, stats, group, first);
        measure(&block, (const float *)buffers->x + values_of(desc, group, first));
    }
    enum status status = add_up(device, sums_of(desc, buffers), sum_count(desc));
    for (uint32_t group = 0; group < desc->groups && status == STATUS_OK; group++) {
        float *group_stats = stats + 2 * (size_t)group * channels;
        const double *sum = sums + 2 * (size_t)group * channels;
        for (uint32_t c = 0; c < channels; c++) {
            double mean = sum[c] / count;
            group_stats[c] = (float)mean;
            group_stats[channels + c] = (float)fmax(sum[channels + c] / count - mean * mean, 0.0);
        }
        cpu_running_update(buffers->state, group_stats, group_stats + channels, channels);
    }
    return status;
}

static void recall_statistics(const struct op_desc *desc, const struct op_buffers *buffers,
                              float *stats)
{
    const float *average = buffers->state + 1 + 2 * (size_t)desc->in.c;
    for (uint32_t group = 0; group < desc->groups; group++) {
        memcpy(stats + 2 * (size_t)group * desc->in.c, average,
               2 * (size_t)desc->in.c * sizeof *stats);
    }
}

static enum status matrix_forward(struct cpu_device *device, struct cpu_op *op,
                                  const struct op_buffers *buffers, enum op_mode mode)
{
    const struct op_desc *desc = &op->base.desc;
    uint32_t blocks = blocks_of(desc);
    float *stats = desc->need_backward && mode == OP_TRAIN ? buffers->saved : buffers->scratch;
    if (mode == OP_TRAIN) {
        enum status status = take_statistics(device, desc, buffers, stats);
        if (status != STATUS_OK) {
            return status;
        }
    } else {
        recall_statistics(desc, buffers, stats);
    }
#pragma omp parallel for
    for (uint32_t i = 0; i < desc->groups * blocks; i++) {
        uint32_t group = i / blocks, first = i % blocks * BLOCK;
        struct block block = block_of(desc, buffers, stats, group, first);
        size_t at = values_of(desc, group, first);
        invert(&block);
        apply(&block, (float *)buffers->y + at, (const float *)buffers->x + at);
    }
    return STATUS_OK;
}

// Gradients of the parameters: this device's own rows, group after group.
static void give_gradients(const struct op_desc *desc, const double *sums, float *grads)
{
    uint32_t channels = desc->in.c;
    for (uint32_t c = 0; c < channels; c++) {
        grads[c] = grads[channels + c] = 0;
        for (uint32_t group = 0; group < desc->groups; group++) {
            const double *sum = sums + 2 * (size_t)group * channels;
            grads[c] += (float)sum[channels + c];
            grads[channels + c] += (float)sum[c];
        }
    }
}

static enum status matrix_backward(struct cpu_device *device, struct cpu_op *op,
                                   const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.desc;
    uint32_t blocks = blocks_of(desc);
    const float *x = buffers->x, *dy = buffers->dy;
    float *dx = desc->need_input_gradient ? buffers->dx : NULL;
#pragma omp parallel for
    for (uint32_t i = 0; i < desc->groups * blocks; i++) {
        uint32_t group = i / blocks, first = i % blocks * BLOCK;
        struct block block = block_of(desc, buffers, buffers->saved, group, first);
        size_t at = values_of(desc, group, first);
        measure_gradients(&block, x + at, dy + at);
    }
    give_gradients(desc, sums_of(desc, buffers), buffers->param_grads);
    if (dx == NULL) {
        return STATUS_OK;
    }
    enum status status = add_up(device, sums_of(desc, buffers), sum_count(desc));
    if (status != STATUS_OK) {
        return status;
    }
    double count = row_count(device, desc);
#pragma omp parallel for
    for (uint32_t i = 0; i < desc->groups * blocks; i++) {
        uint32_t group = i / blocks, first = i % blocks * BLOCK;
        struct block block = block_of(desc, buffers, buffers->saved, group, first);
        size_t at = values_of(desc, group, first);
        differentiate(&block, count, dx + at, x + at, dy + at);
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
    (*out)->base.scratch_bytes = stats_bytes(desc) + sum_count(desc) * sizeof(double);
    return STATUS_OK;
}
