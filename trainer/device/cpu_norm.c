// Batch normalisation of images, in passes over planes (one block of channels of one image).
//
// A pass that needs sums leaves one partial sum per plane; they are added up in the order of the
// images. So the bits do not depend on the number of threads, and a pass costs one meeting of the
// threads, where oneDNN's kernels make theirs spin at a barrier many times: a thread that has lost
// its core to another program then stalls all of them.
//
// Every block width (16, 8 or 1 channels) divides LANES, so a plane is walked LANES values at a
// time whatever it holds, with the channels' numbers repeated to fill the lanes.
#include "trainer/device/cpu.h"

#include <math.h>
#include <string.h>

#define LANES 16
#define ROWS  64 // of lanes added up in float32 before they go into a double

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_mask __attribute__((vector_size(LANES * sizeof(int32_t))));

struct cpu_norm {
    struct cpu_op base;
    struct cpu_layout layout;
    size_t padded; // channels, with the last block filled up
    size_t planes, planes_per_group, plane_values;
};

// One group's numbers per channel, each [padded]; zero where a block is only filled up, which
// keeps those channels of the result zero.
struct vectors {
    const float *mean, *inverse; // inverse: 1 / sqrt(variance + epsilon)
    const float *scale, *offset;
    const float *mean_gradient, *mean_product; // backward only
};

// The same for the lanes of one plane.
struct plane_lanes {
    lanes mean, inverse, factor, offset, mean_gradient, mean_product;
    bool relu;
};

struct plane_sums {
    double first[LANES], second[LANES];
};

void cpu_running_update(float *state, const float *mean, const float *variance, uint32_t channels)
{
    float *hidden_mean = state + 1, *hidden_variance = hidden_mean + channels;
    float *average_mean = hidden_variance + channels, *average_variance = average_mean + channels;
    const float fresh = 1.0f - BATCH_NORM_DECAY;
    state[0] += 1.0f;
    float weight = 1.0f - powf(BATCH_NORM_DECAY, state[0]);
    for (uint32_t c = 0; c < channels; c++) {
        hidden_mean[c] = BATCH_NORM_DECAY * hidden_mean[c] + fresh * mean[c];
        hidden_variance[c] = BATCH_NORM_DECAY * hidden_variance[c] + fresh * variance[c];
        average_mean[c] = hidden_mean[c] / weight;
        average_variance[c] = hidden_variance[c] / weight;
    }
}

// --- one plane -----------------------------------------------------------------------------------

static inline void load(lanes *to, const float *from, size_t left)
{
    if (left >= LANES) {
        memcpy(to, from, sizeof *to);
    } else {
        memset(to, 0, sizeof *to);
        memcpy(to, from, left * sizeof *from);
    }
}

static inline void store(float *to, const lanes *from, size_t left)
{
    memcpy(to, from, (left < LANES ? left : LANES) * sizeof *to);
}

static inline void keep_positive(lanes *values, const lanes *judged)
{
    lane_mask mask = *judged > 0.0f;
    *values = (lanes)((lane_mask)*values & mask);
}

static inline void cut_negative(lanes *values) // a NaN passes, so that it reaches the loss
{
    lane_mask mask = *values < 0.0f;
    *values = (lanes)((lane_mask)*values & ~mask);
}

static void add_sums(struct plane_sums *sums, const lanes *first, const lanes *second)
{
    for (int i = 0; i < LANES; i++) {
        sums->first[i] += (double)(*first)[i];
        sums->second[i] += (double)(*second)[i];
    }
}

// Sums and sums of squares.
CPU_KERNEL static void measure(struct plane_sums *sums, const float *x, size_t count)
{
    *sums = (struct plane_sums){{0}, {0}};
    for (size_t i = 0; i < count;) {
        lanes sum = {0}, squares = {0}, value;
        for (int row = 0; row < ROWS && i < count; row++, i += LANES) {
            load(&value, x + i, count - i);
            sum += value;
            squares += value * value;
        }
        add_sums(sums, &sum, &squares);
    }
}

CPU_KERNEL static void apply(float *y, const float *x, size_t count,
                             const struct plane_lanes *plane)
{
    lanes mean = plane->mean, factor = plane->factor, offset = plane->offset, value;
    for (size_t i = 0; i < count; i += LANES) {
        load(&value, x + i, count - i);
        value = (value - mean) * factor + offset;
        if (plane->relu) {
            cut_negative(&value);
        }
        store(y + i, &value, count - i);
    }
}

// Sums of the gradients and of their products with the normalised values.
CPU_KERNEL static void collect(struct plane_sums *sums, const float *x, const float *dy,
                               size_t count, const struct plane_lanes *plane)
{
    lanes mean = plane->mean, inverse = plane->inverse, factor = plane->factor;
    lanes offset = plane->offset;
    *sums = (struct plane_sums){{0}, {0}};
    for (size_t i = 0; i < count;) {
        lanes sum = {0}, products = {0}, centred, gradient;
        for (int row = 0; row < ROWS && i < count; row++, i += LANES) {
            load(&centred, x + i, count - i);
            load(&gradient, dy + i, count - i);
            centred -= mean;
            if (plane->relu) {
                lanes value = centred * factor + offset;
                keep_positive(&gradient, &value);
            }
            sum += gradient;
            products += gradient * (centred * inverse);
        }
        add_sums(sums, &sum, &products);
    }
}

// dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)), where dy counts only behind the ReLU.
CPU_KERNEL static void differentiate(float *dx, const float *x, const float *dy, size_t count,
                                     const struct plane_lanes *plane)
{
    lanes mean = plane->mean, inverse = plane->inverse, factor = plane->factor;
    lanes offset = plane->offset, mean_gradient = plane->mean_gradient;
    lanes mean_product = plane->mean_product, centred, gradient;
    for (size_t i = 0; i < count; i += LANES) {
        load(&centred, x + i, count - i);
        load(&gradient, dy + i, count - i);
        centred -= mean;
        if (plane->relu) {
            lanes value = centred * factor + offset;
            keep_positive(&gradient, &value);
        }
        gradient = factor * (gradient - mean_gradient - centred * inverse * mean_product);
        store(dx + i, &gradient, count - i);
    }
}

// --- all planes ----------------------------------------------------------------------------------

static void repeat(lanes *to, const float *channels, uint32_t block)
{
    for (uint32_t i = 0; i < LANES; i++) {
        (*to)[i] = channels[i % block];
    }
}

static void lanes_of(struct plane_lanes *out, const struct cpu_norm *norm,
                     const struct vectors *group, size_t plane)
{
    uint32_t block = norm->layout.block;
    size_t at = plane % norm->layout.blocks * block;
    lanes scale = {0};
    repeat(&out->mean, group->mean + at, block);
    repeat(&out->inverse, group->inverse + at, block);
    repeat(&scale, group->scale + at, block);
    repeat(&out->offset, group->offset + at, block);
    out->factor = scale * out->inverse;
    out->relu = norm->base.base.desc.relu;
    if (group->mean_gradient != NULL) {
        repeat(&out->mean_gradient, group->mean_gradient + at, block);
        repeat(&out->mean_product, group->mean_product + at, block);
    }
}

// Adds up what the planes of each group left, in the order of the images: [group][2][padded].
static void add_planes(const struct cpu_device *device, const struct cpu_norm *norm, double *totals,
                       const struct plane_sums *sums)
{
    uint32_t groups = norm->base.base.desc.groups, block = norm->layout.block;
    size_t blocks = norm->layout.blocks;
#pragma omp parallel for num_threads(device->threads)
    for (size_t job = 0; job < groups * blocks; job++) {
        size_t group = job / blocks, own = job % blocks;
        struct plane_sums all = {{0}, {0}};
        size_t end = (group + 1) * norm->planes_per_group;
        for (size_t plane = group * norm->planes_per_group + own; plane < end; plane += blocks) {
            for (uint32_t i = 0; i < LANES; i++) {
                all.first[i] += sums[plane].first[i];
                all.second[i] += sums[plane].second[i];
            }
        }
        double *first = totals + 2 * group * norm->padded + own * block;
        double *second = first + norm->padded;
        memset(first, 0, block * sizeof *first);
        memset(second, 0, block * sizeof *second);
        for (uint32_t i = 0; i < LANES; i++) { // narrower blocks repeat within the lanes
            first[i % block] += all.first[i];
            second[i % block] += all.second[i];
        }
    }
}

// How the ops' scratch memory is used.
struct workspace {
    struct plane_sums *sums; // [planes]
    double *totals;          // [groups][2][padded]
    float *scale, *offset;   // [padded]
    float *statistics;       // [groups][2][padded]: mean, inverse
    float *means;            // [groups][2][padded]: of gradients, of products
};

static size_t workspace_of(struct workspace *out, const struct cpu_norm *norm, void *scratch)
{
    size_t vector = norm->base.base.desc.groups * 2 * norm->padded, used = 0;
    uintptr_t at = (uintptr_t)scratch; // NULL when only the size is asked for
    out->sums = (struct plane_sums *)(at + used);
    used += cpu_aligned(norm->planes * sizeof *out->sums);
    out->totals = (double *)(at + used);
    used += cpu_aligned(vector * sizeof *out->totals);
    out->scale = (float *)(at + used);
    out->offset = out->scale + norm->padded;
    used += cpu_aligned(2 * norm->padded * sizeof *out->scale);
    out->statistics = (float *)(at + used);
    used += cpu_aligned(vector * sizeof *out->statistics);
    out->means = (float *)(at + used);
    return used + cpu_aligned(vector * sizeof *out->means);
}

static void pad(float *to, const float *from, size_t channels, size_t padded)
{
    memcpy(to, from, channels * sizeof *to);
    memset(to + channels, 0, (padded - channels) * sizeof *to);
}

static struct vectors group_vectors(const struct cpu_norm *norm, const struct workspace *work,
                                    const float *statistics, size_t group, bool backward)
{
    const float *own = statistics + 2 * group * norm->padded;
    const float *means = work->means + 2 * group * norm->padded;
    return (struct vectors){.mean = own,
                            .inverse = own + norm->padded,
                            .scale = work->scale,
                            .offset = work->offset,
                            .mean_gradient = backward ? means : NULL,
                            .mean_product = backward ? means + norm->padded : NULL};
}

static float inverse_deviation(float variance)
{
    return 1.0f / sqrtf(variance + BATCH_NORM_EPSILON);
}

// Of one group.
static double values_per_channel(const struct cpu_norm *norm)
{
    const struct op_desc *desc = &norm->base.base.desc;
    size_t images = desc->in.n / desc->groups;
    return (double)(images * norm->layout.pixels);
}

// From sums to mean and inverse deviation, and on to the running statistics, group after group.
static void take_statistics(const struct cpu_norm *norm, const struct workspace *work,
                            float *statistics, float *state)
{
    uint32_t channels = norm->base.base.desc.in.c;
    double count = values_per_channel(norm);
    for (size_t group = 0; group < norm->base.base.desc.groups; group++) {
        const double *sums = work->totals + 2 * group * norm->padded;
        float *mean = statistics + 2 * group * norm->padded, *inverse = mean + norm->padded;
        for (size_t c = 0; c < norm->padded; c++) {
            double average = sums[c] / count;
            double variance = sums[norm->padded + c] / count - average * average;
            mean[c] = (float)average;
            inverse[c] = (float)fmax(variance, 0.0); // the variance, until the state has seen it
        }
        cpu_running_update(state, mean, inverse, channels);
        for (size_t c = 0; c < norm->padded; c++) {
            inverse[c] = inverse_deviation(inverse[c]);
        }
    }
}

static void running_statistics(const struct cpu_norm *norm, float *statistics, const float *state)
{
    uint32_t channels = norm->base.base.desc.in.c;
    const float *mean = state + 1 + 2 * (size_t)channels, *variance = mean + channels;
    for (size_t group = 0; group < norm->base.base.desc.groups; group++) {
        float *own = statistics + 2 * group * norm->padded;
        pad(own, mean, channels, norm->padded);
        pad(own + norm->padded, variance, channels, norm->padded);
        for (size_t c = 0; c < norm->padded; c++) {
            own[norm->padded + c] = inverse_deviation(own[norm->padded + c]);
        }
    }
}

// --- the op --------------------------------------------------------------------------------------

static enum status norm_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    struct cpu_norm *norm = (struct cpu_norm *)op;
    const struct op_desc *desc = &op->base.desc;
    const float *x = buffers->x;
    float *y = buffers->y;
    struct workspace work;
    workspace_of(&work, norm, buffers->scratch);
    float *statistics = mode == OP_TRAIN && desc->need_backward ? buffers->saved : work.statistics;
    if (mode == OP_TRAIN) {
#pragma omp parallel for num_threads(device->threads)
        for (size_t plane = 0; plane < norm->planes; plane++) {
            measure(&work.sums[plane], x + plane * norm->plane_values, norm->plane_values);
        }
        add_planes(device, norm, work.totals, work.sums);
        take_statistics(norm, &work, statistics, buffers->state);
    } else {
        running_statistics(norm, statistics, buffers->state);
    }
    pad(work.scale, buffers->params, desc->in.c, norm->padded);
    pad(work.offset, buffers->params + desc->in.c, desc->in.c, norm->padded);
#pragma omp parallel for num_threads(device->threads)
    for (size_t plane = 0; plane < norm->planes; plane++) {
        struct plane_lanes own;
        struct vectors group =
            group_vectors(norm, &work, statistics, plane / norm->planes_per_group, false);
        lanes_of(&own, norm, &group, plane);
        size_t at = plane * norm->plane_values;
        apply(y + at, x + at, norm->plane_values, &own);
    }
    return STATUS_OK;
}

// Means for the second pass, and the parameters' gradients, summed over the groups in order.
static void take_means(const struct cpu_norm *norm, const struct workspace *work, float *grads)
{
    uint32_t channels = norm->base.base.desc.in.c;
    double count = values_per_channel(norm);
    memset(grads, 0, 2 * (size_t)channels * sizeof *grads);
    for (size_t group = 0; group < norm->base.base.desc.groups; group++) {
        const double *sums = work->totals + 2 * group * norm->padded;
        float *means = work->means + 2 * group * norm->padded;
        for (size_t c = 0; c < 2 * norm->padded; c++) {
            means[c] = (float)(sums[c] / count);
        }
        for (uint32_t c = 0; c < channels; c++) {
            grads[c] += (float)sums[norm->padded + c];
            grads[channels + c] += (float)sums[c];
        }
    }
}

static enum status norm_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    struct cpu_norm *norm = (struct cpu_norm *)op;
    const struct op_desc *desc = &op->base.desc;
    const float *x = buffers->x, *dy = buffers->dy;
    float *dx = desc->need_input_gradient ? buffers->dx : NULL;
    struct workspace work;
    workspace_of(&work, norm, buffers->scratch);
    pad(work.scale, buffers->params, desc->in.c, norm->padded);
    pad(work.offset, buffers->params + desc->in.c, desc->in.c, norm->padded);
#pragma omp parallel for num_threads(device->threads)
    for (size_t plane = 0; plane < norm->planes; plane++) {
        struct plane_lanes own;
        struct vectors group =
            group_vectors(norm, &work, buffers->saved, plane / norm->planes_per_group, false);
        lanes_of(&own, norm, &group, plane);
        size_t at = plane * norm->plane_values;
        collect(&work.sums[plane], x + at, dy + at, norm->plane_values, &own);
    }
    add_planes(device, norm, work.totals, work.sums);
    take_means(norm, &work, buffers->param_grads);
#pragma omp parallel for num_threads(device->threads)
    for (size_t plane = 0; plane < (dx ? norm->planes : 0); plane++) {
        struct plane_lanes own;
        struct vectors group =
            group_vectors(norm, &work, buffers->saved, plane / norm->planes_per_group, true);
        lanes_of(&own, norm, &group, plane);
        size_t at = plane * norm->plane_values;
        differentiate(dx + at, x + at, dy + at, norm->plane_values, &own);
    }
    return STATUS_OK;
}

enum status cpu_norm_create(struct cpu_device *device, const struct op_desc *desc,
                            struct cpu_op **out, struct error *error)
{
    (void)device;
    struct cpu_norm *norm = cpu_op_allocate(sizeof *norm, desc, error);
    if (norm == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &norm->base;
    norm->base.forward = norm_forward;
    norm->base.backward = norm_backward;
    norm->layout = cpu_layout_of(desc->in);
    norm->padded = (size_t)norm->layout.blocks * norm->layout.block;
    norm->planes = (size_t)desc->in.n * norm->layout.blocks;
    norm->planes_per_group = norm->planes / desc->groups;
    norm->plane_values = norm->layout.pixels * norm->layout.block;
    struct workspace work;
    norm->base.base.scratch_bytes = workspace_of(&work, norm, NULL);
    norm->base.base.saved_bytes =
        desc->need_backward ? 2 * desc->groups * norm->padded * sizeof(float) : 0;
    return STATUS_OK;
}
