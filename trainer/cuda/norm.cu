// Batch normalisation: what lies between its passes over values (norm_passes.h).
#include "trainer/cuda/launch.h"
#include "trainer/cuda/norm.h"
#include "trainer/cuda/norm_math.h"
#include "trainer/cuda/norm_passes.h"

#include <stddef.h>

static struct norm_rows rows_of(const struct cuda_norm *norm)
{
    struct norm_rows rows = {norm->groups, norm->rows, norm->channels, norm->stride, norm->half};
    return rows;
}

// Scratch: partial sums, then each group's first row.
extern "C" size_t cuda_norm_scratch_bytes(const struct cuda_norm *norm)
{
    struct norm_rows rows = rows_of(norm);
    return (norm_pass_partials(&rows) + (uint64_t)norm->groups * norm->channels) * sizeof(float);
}

static struct norm_partials partials_of(const struct norm_rows *rows, const float *partials,
                                        const float *first)
{
    struct norm_partials all = {rows->groups, norm_pass_blocks(rows), rows->channels, partials,
                                first,        (double)rows->rows};
    return all;
}

extern "C" cudaError_t cuda_norm_sums(const struct cuda_norm *norm, const void *x, double *sums,
                                      void *scratch, cudaStream_t stream)
{
    struct norm_rows rows = rows_of(norm);
    float *partials = static_cast<float *>(scratch), *first = partials + norm_pass_partials(&rows);
    cudaError_t error = norm_pass_sums(&rows, x, first, partials, stream);
    if (error != cudaSuccess) {
        return error;
    }
    struct norm_partials all = partials_of(&rows, partials, first);
    return norm_pass_collect(&all, sums, NULL, stream);
}

// --- statistics ----------------------------------------------------------------------------------

#define TOGETHER 1024 // threads: one block, as all read the counter before it is moved

struct statistics {
    uint32_t groups, channels;
    double rows;
    const double *sums;
    const float *params;
    float *saved, *coefficients, *state;
};

// A channel's running mean or variance.
struct memory {
    float hidden, average;
};
struct running {
    struct memory mean, variance;
};

static __device__ inline struct running recall(const struct statistics &all, uint32_t channel)
{
    const float *hidden = all.state + 1 + channel;
    struct running running = {{hidden[0], 0}, {hidden[all.channels], 0}};
    return running;
}

static __device__ inline void remember(struct memory &memory, float value, double decay)
{
    memory.hidden = cuda_norm_remember(memory.hidden, value);
    memory.average = cuda_norm_average(memory.hidden, decay);
}

static __device__ inline void keep(const struct statistics &all, uint32_t channel,
                                   const struct running &running)
{
    size_t channels = all.channels;
    float *state = all.state + 1 + channel;
    state[0] = running.mean.hidden;
    state[channels] = running.variance.hidden;
    state[2 * channels] = running.mean.average;
    state[3 * channels] = running.variance.average;
}

// Group after group. `decay` is that of the counter before them.
static __device__ inline void measure_channel(const struct statistics &all, uint32_t channel,
                                              double decay, struct running &running)
{
    float scale = all.params[channel], offset = all.params[all.channels + channel];
    for (uint32_t group = 0; group < all.groups; group++) {
        size_t at = 2 * (size_t)group * all.channels + channel;
        struct cuda_norm_moments moments =
            cuda_norm_measure(all.sums[at], all.sums[at + all.channels], all.rows);
        float inverse = cuda_norm_inverse(moments.variance);
        struct cuda_norm_line line = cuda_norm_line_of(scale, offset, moments.mean, inverse);
        all.coefficients[at] = line.a;
        all.coefficients[at + all.channels] = line.b;
        if (all.saved != NULL) {
            all.saved[at] = moments.mean;
            all.saved[at + all.channels] = inverse;
        }
        decay *= (double)BATCH_NORM_DECAY;
        remember(running.mean, moments.mean, decay);
        remember(running.variance, moments.variance, decay);
    }
}

static __global__ void statistics_kernel(struct statistics all)
{
    float counter = all.state != NULL ? all.state[0] : 0;
    double decay = cuda_norm_decay(counter);
    __syncthreads();
    for (uint32_t channel = threadIdx.x; channel < all.channels; channel += blockDim.x) {
        struct running running = {{0, 0}, {0, 0}};
        if (all.state != NULL) {
            running = recall(all, channel);
        }
        measure_channel(all, channel, decay, running);
        if (all.state != NULL) {
            keep(all, channel, running);
        }
    }
    if (all.state != NULL && threadIdx.x == 0) {
        for (uint32_t group = 0; group < all.groups; group++) {
            counter += 1.0f;
        }
        all.state[0] = counter;
    }
}

static uint32_t whole_warps(uint32_t threads)
{
    uint32_t warps = (threads + CUDA_WARP - 1) / CUDA_WARP;
    return warps * CUDA_WARP < TOGETHER ? warps * CUDA_WARP : TOGETHER;
}

extern "C" cudaError_t cuda_norm_statistics(const struct cuda_norm *norm, const double *sums,
                                            uint64_t rows, const float *params, float *saved,
                                            float *coefficients, float *state, cudaStream_t stream)
{
    struct statistics all = {norm->groups, norm->channels, (double)rows, sums,
                             params,       saved,          coefficients, state};
    return CUDA_LAUNCH(statistics_kernel, dim3(1), dim3(whole_warps(norm->channels)), stream, all);
}

static __global__ void running_kernel(uint32_t groups, uint32_t channels, const float *params,
                                      const float *state, float *coefficients)
{
    uint32_t channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) {
        return;
    }
    const float *average = state + 1 + 2 * (size_t)channels + channel;
    struct cuda_norm_line line =
        cuda_norm_line_of(params[channel], params[channels + channel], average[0],
                          cuda_norm_inverse(average[channels]));
    for (uint32_t group = 0; group < groups; group++) {
        coefficients[2 * (size_t)group * channels + channel] = line.a;
        coefficients[(2 * (size_t)group + 1) * channels + channel] = line.b;
    }
}

extern "C" cudaError_t cuda_norm_running(const struct cuda_norm *norm, const float *params,
                                         const float *state, float *coefficients,
                                         cudaStream_t stream)
{
    uint32_t blocks = (norm->channels + CUDA_WARP - 1) / CUDA_WARP;
    return CUDA_LAUNCH(running_kernel, dim3(blocks), dim3(CUDA_WARP), stream, norm->groups,
                       norm->channels, params, state, coefficients);
}

// --- passes --------------------------------------------------------------------------------------

extern "C" cudaError_t cuda_norm_apply(const struct cuda_norm *norm, const void *x, const void *x2,
                                       const float *coefficients, void *y, cudaStream_t stream)
{
    struct norm_rows rows = rows_of(norm);
    struct norm_lines lines = {coefficients, NULL, NULL, 1, norm->relu};
    return norm_pass_apply(&rows, &lines, x, norm->join ? x2 : NULL, y, stream);
}

extern "C" cudaError_t cuda_norm_backward_sums(const struct cuda_norm *norm, const void *x,
                                               const void *y, const void *dy, const float *params,
                                               const float *saved, double *sums, float *param_grads,
                                               void *dx2, void *scratch, cudaStream_t stream)
{
    struct norm_rows rows = rows_of(norm);
    struct norm_lines lines = {NULL, params, saved, 1, norm->relu};
    enum norm_gate gate = NORM_GATE_OPEN;
    if (norm->relu) {
        gate = norm->join ? NORM_GATE_BY_Y : NORM_GATE_BY_X;
    }
    // Without a ReLU g is dy, and may be where it belongs.
    void *kept = norm->join && (norm->relu || dx2 != dy) ? dx2 : NULL;
    float *partials = static_cast<float *>(scratch);
    cudaError_t error = norm_pass_gradients(&rows, &lines, gate, x, y, dy, kept, partials, stream);
    if (error != cudaSuccess) {
        return error;
    }
    struct norm_partials all = partials_of(&rows, partials, NULL);
    return norm_pass_collect(&all, sums, param_grads, stream);
}

extern "C" cudaError_t cuda_norm_backward_apply(const struct cuda_norm *norm, const void *x,
                                                const void *dy, const float *params,
                                                const float *saved, const double *sums,
                                                uint64_t rows, void *dx, cudaStream_t stream)
{
    struct norm_rows all = rows_of(norm);
    struct norm_lines lines = {NULL, params, saved, 1, norm->relu};
    struct norm_means means = {sums, 1.0 / (double)rows, false};
    enum norm_gate gate = norm->relu && !norm->join ? NORM_GATE_BY_X : NORM_GATE_OPEN;
    return norm_pass_differentiate(&all, &lines, &means, gate, x, dy, dx, stream);
}
