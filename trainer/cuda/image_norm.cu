// Normalisation of each image by itself, and affine maps: what lies between the passes over values
// (norm_passes.h), whose groups are the images here.
#include "trainer/cuda/block_sum.h"
#include "trainer/cuda/grid.h"
#include "trainer/cuda/image_norm.h"
#include "trainer/cuda/launch.h"
#include "trainer/cuda/norm_math.h"
#include "trainer/cuda/norm_passes.h"

#include <stddef.h>

#define THREADS 128
#define WARPS   (THREADS / CUDA_WARP)

static bool is_affine(const struct cuda_image_norm *norm)
{
    return norm->channel_groups == 0;
}

// An affine map knows no images: all pixels are one group.
static struct norm_rows rows_of(const struct cuda_image_norm *norm)
{
    struct norm_rows rows = {norm->images, norm->pixels, norm->channels, norm->stride, norm->half};
    if (is_affine(norm)) {
        rows.groups = 1;
        rows.rows = (uint64_t)norm->images * norm->pixels;
    }
    return rows;
}

static struct norm_lines lines_of(const struct cuda_image_norm *norm, const float *params,
                                  const float *saved)
{
    struct norm_lines lines = {NULL, params, saved, 1, norm->relu};
    if (!is_affine(norm)) {
        lines.width = norm->channels / norm->channel_groups;
    }
    return lines;
}

// --- scratch -------------------------------------------------------------------------------------

struct workspace {
    double *sums;    // [images][2][channel_groups], backward
    float *saved;    // for who keeps none
    float *first;    // [images][channels]: each image's first pixel
    float *partials; // of norm_passes.h
};

static uint64_t moments_of(const struct cuda_image_norm *norm)
{
    return 2 * (uint64_t)norm->images * norm->channel_groups;
}

static struct workspace workspace_of(const struct cuda_image_norm *norm, void *scratch)
{
    struct workspace work;
    work.sums = static_cast<double *>(scratch);
    work.saved = reinterpret_cast<float *>(work.sums + moments_of(norm));
    work.first = work.saved + moments_of(norm);
    work.partials = work.first;
    if (!is_affine(norm)) {
        work.partials += (uint64_t)norm->images * norm->channels;
    }
    return work;
}

extern "C" size_t cuda_image_norm_scratch_bytes(const struct cuda_image_norm *norm)
{
    struct norm_rows rows = rows_of(norm);
    uint64_t floats = norm_pass_partials(&rows);
    if (!is_affine(norm)) {
        floats += moments_of(norm) + (uint64_t)norm->images * norm->channels;
    }
    return moments_of(norm) * sizeof(double) + floats * sizeof(float);
}

extern "C" size_t cuda_image_norm_saved_bytes(const struct cuda_image_norm *norm)
{
    return moments_of(norm) * sizeof(float);
}

// --- runs of channels ----------------------------------------------------------------------------

// A warp adds up the partial sums of one run of channels of one image.
struct runs {
    uint32_t images, runs, width, blocks;
    double pixels;
    const float *partials; // [images][blocks][2][runs * width]
};

struct run {
    uint32_t image, index, lane;
    bool exists;
};

static __device__ inline struct run run_of(const struct runs &runs)
{
    uint32_t at = blockIdx.x * WARPS + threadIdx.x / CUDA_WARP;
    struct run run = {at / runs.runs, at % runs.runs, threadIdx.x % CUDA_WARP, false};
    run.exists = run.image < runs.images;
    return run;
}

// Of one channel of the image.
static __device__ inline struct cuda_norm_sum channel_sum(const struct runs &runs, uint32_t image,
                                                          uint32_t channel)
{
    uint32_t channels = runs.runs * runs.width;
    const float *from = runs.partials + 2 * (size_t)image * runs.blocks * channels + channel;
    struct cuda_norm_sum sum = {0, 0};
    for (uint32_t block = 0; block < runs.blocks; block++) {
        sum.values += (double)from[2 * (size_t)block * channels];
        sum.squares += (double)from[(2 * (size_t)block + 1) * channels];
    }
    return sum;
}

static __device__ inline struct cuda_norm_sum warp_sum(struct cuda_norm_sum sum)
{
    sum.values = warp_join<sum_of>(sum.values);
    sum.squares = warp_join<sum_of>(sum.squares);
    return sum;
}

static __global__ void moments_kernel(struct runs runs, const float *first, float *saved)
{
    struct run run = run_of(runs);
    struct cuda_norm_sum total = {0, 0};
    for (uint32_t i = run.lane; run.exists && i < runs.width; i += CUDA_WARP) {
        uint32_t channel = run.index * runs.width + i;
        struct cuda_norm_sum sum = channel_sum(runs, run.image, channel);
        float shift = first[(size_t)run.image * runs.runs * runs.width + channel];
        sum = cuda_norm_unshift(runs.pixels, (double)shift, sum.values, sum.squares);
        total.values += sum.values;
        total.squares += sum.squares;
    }
    total = warp_sum(total);
    if (run.exists && run.lane == 0) {
        struct cuda_norm_moments moments =
            cuda_norm_measure(total.values, total.squares, runs.pixels * runs.width);
        float *to = saved + 2 * (size_t)run.image * runs.runs + run.index;
        to[0] = moments.mean;
        to[runs.runs] = cuda_norm_inverse(moments.variance);
    }
}

static __global__ void product_kernel(struct runs runs, const float *params, double *sums)
{
    struct run run = run_of(runs);
    struct cuda_norm_sum total = {0, 0};
    for (uint32_t i = run.lane; run.exists && i < runs.width; i += CUDA_WARP) {
        uint32_t channel = run.index * runs.width + i;
        struct cuda_norm_sum sum = channel_sum(runs, run.image, channel);
        total.values += (double)params[channel] * sum.values;
        total.squares += (double)params[channel] * sum.squares;
    }
    total = warp_sum(total);
    if (run.exists && run.lane == 0) {
        double *to = sums + 2 * (size_t)run.image * runs.runs + run.index;
        to[0] = total.values;
        to[runs.runs] = total.squares;
    }
}

static struct runs runs_of(const struct cuda_image_norm *norm, const struct norm_rows *rows,
                           const float *partials)
{
    struct runs runs = {
        norm->images,           norm->channel_groups, norm->channels / norm->channel_groups,
        norm_pass_blocks(rows), (double)norm->pixels, partials};
    return runs;
}

static dim3 grid_of(const struct runs *runs)
{
    return dim3(grid_blocks((uint64_t)runs->images * runs->runs, WARPS));
}

// --- forward -------------------------------------------------------------------------------------

static cudaError_t take_moments(const struct cuda_image_norm *norm, const struct norm_rows *rows,
                                const void *x, const struct workspace *work, float *saved,
                                cudaStream_t stream)
{
    cudaError_t error = norm_pass_sums(rows, x, work->first, work->partials, stream);
    if (error != cudaSuccess) {
        return error;
    }
    struct runs runs = runs_of(norm, rows, work->partials);
    return CUDA_LAUNCH(moments_kernel, grid_of(&runs), dim3(THREADS), stream, runs,
                       static_cast<const float *>(work->first), saved);
}

extern "C" cudaError_t cuda_image_norm_forward(const struct cuda_image_norm *norm, const void *x,
                                               const float *params, void *y, float *saved,
                                               void *scratch, cudaStream_t stream)
{
    struct norm_rows rows = rows_of(norm);
    struct norm_lines lines = lines_of(norm, params, NULL);
    if (!is_affine(norm)) {
        struct workspace work = workspace_of(norm, scratch);
        saved = saved != NULL ? saved : work.saved;
        cudaError_t error = take_moments(norm, &rows, x, &work, saved, stream);
        if (error != cudaSuccess) {
            return error;
        }
        lines.saved = saved;
    }
    return norm_pass_apply(&rows, &lines, x, NULL, y, stream);
}

// --- backward ------------------------------------------------------------------------------------

// Gradients of parameters are sums over images too, which are just more partial sums.
static cudaError_t give_gradients(const struct norm_rows *rows, const float *partials,
                                  float *param_grads, cudaStream_t stream)
{
    struct norm_partials all = {
        1, rows->groups * norm_pass_blocks(rows), rows->channels, partials, NULL, 0};
    return norm_pass_collect(&all, NULL, param_grads, stream);
}

static cudaError_t differentiate(const struct cuda_image_norm *norm, const struct norm_rows *rows,
                                 const struct norm_lines *lines, enum norm_gate gate, const void *x,
                                 const void *dy, void *dx, const struct workspace *work,
                                 cudaStream_t stream)
{
    struct norm_means means = {NULL, 1, true};
    if (!is_affine(norm)) {
        struct runs runs = runs_of(norm, rows, work->partials);
        cudaError_t error = CUDA_LAUNCH(product_kernel, grid_of(&runs), dim3(THREADS), stream, runs,
                                        lines->params, work->sums);
        if (error != cudaSuccess) {
            return error;
        }
        means.sums = work->sums;
        means.share = 1.0 / (runs.pixels * runs.width);
    }
    return norm_pass_differentiate(rows, lines, &means, gate, x, dy, dx, stream);
}

extern "C" cudaError_t cuda_image_norm_backward(const struct cuda_image_norm *norm, const void *x,
                                                const void *dy, const float *params,
                                                const float *saved, void *dx, float *param_grads,
                                                void *scratch, cudaStream_t stream)
{
    struct norm_rows rows = rows_of(norm);
    struct norm_lines lines = lines_of(norm, params, is_affine(norm) ? NULL : saved);
    struct workspace work = workspace_of(norm, scratch);
    enum norm_gate gate = norm->relu ? NORM_GATE_BY_X : NORM_GATE_OPEN;
    cudaError_t error =
        norm_pass_gradients(&rows, &lines, gate, x, NULL, dy, NULL, work.partials, stream);
    if (error == cudaSuccess) {
        error = give_gradients(&rows, work.partials, param_grads, stream);
    }
    if (error != cudaSuccess || dx == NULL) {
        return error;
    }
    return differentiate(norm, &rows, &lines, gate, x, dy, dx, &work, stream);
}
