// Normalisation: the passes that write values, or gradients of the input. They only stream. Bytes
// for each value of bfloat16: apply 4 (6 with x2); differentiate 6.
#include "trainer/cuda/norm_walk.h"

// These leave no partial sums: large tensors are cut finer, which ends more evenly.
#define SECOND_STEPS 32

static struct tiling second_tiling(const struct norm_rows *rows)
{
    return tiling_of(rows, SECOND_STEPS);
}

// What was read last is read first: it may still lie in the cache.
template <int SIDE>
static __device__ inline struct place place_backwards(const struct tiling &tiling)
{
    return place_of<SIDE>(tiling, gridDim.x - 1 - blockIdx.x);
}

// --- y = a x + b ---------------------------------------------------------------------------------

template <typename T, int SIDE, bool JOIN> struct applying {
    const T *x, *x2;
    T *y;
    strip<SIDE> a, b;
    float floor;

    template <int ROWS> CUDA_BOTH void take(uint32_t at, uint32_t step)
    {
        strip<SIDE> values[ROWS], others[ROWS];
        strips_load(values, x, at, step);
        if (JOIN) {
            strips_load(others, x2, at, step);
        }
        for (int row = 0; row < ROWS; row++) {
            for (int i = 0; i < SIDE; i++) {
                struct cuda_norm_line line = {a.v[i], b.v[i]};
                float value = cuda_norm_value(line, values[row].v[i]);
                value = JOIN ? value + others[row].v[i] : value;
                values[row].v[i] = value < floor ? floor : value; // a NaN passes
            }
            strip_store<SIDE>(y + at + row * step, values[row]);
        }
    }
};

template <typename T, int SIDE, bool JOIN>
static __global__ void __launch_bounds__(NORM_THREADS, 4)
    apply_kernel(struct tiling tiling, struct norm_lines lines, const T *x, const T *x2, T *y)
{
    __shared__ __align__(16) float table[2][NORM_THREADS];
    struct place place = place_backwards<SIDE>(tiling);
    uint32_t channel = own_channel<SIDE>(tiling, place);
    struct cuda_norm_line line = {0, 0}; // of channels that fill up
    if (channel != UINT32_MAX) {
        struct moments moments = moments_at(tiling, lines, place.group, channel);
        line = line_at(tiling, lines, moments, place.group, channel);
    }
    table[0][threadIdx.x] = line.a;
    table[1][threadIdx.x] = line.b;
    __syncthreads();
    applying<T, SIDE, JOIN> work;
    work.x = x + place.at;
    work.x2 = JOIN ? x2 + place.at : NULL;
    work.y = y + place.at;
    work.a = strip_load<SIDE>(&table[0][place.side]);
    work.b = strip_load<SIDE>(&table[1][place.side]);
    work.floor = lines.relu ? 0.0f : -INFINITY;
    walk<rows_at_once<T, SIDE, 1 + JOIN>>(tiling, place, work);
}

template <typename T, int SIDE>
static cudaError_t launch_apply(const struct norm_rows *rows, const struct norm_lines *lines,
                                const void *x, const void *x2, void *y, cudaStream_t stream)
{
    struct tiling tiling = second_tiling(rows);
    auto *kernel = x2 != NULL ? apply_kernel<T, SIDE, true> : apply_kernel<T, SIDE, false>;
    return CUDA_LAUNCH(kernel, grid_of(&tiling, rows->groups), dim3(NORM_THREADS), stream, tiling,
                       *lines, static_cast<const T *>(x), static_cast<const T *>(x2),
                       static_cast<T *>(y));
}

extern "C" cudaError_t norm_pass_apply(const struct norm_rows *rows, const struct norm_lines *lines,
                                       const void *x, const void *x2, void *y, cudaStream_t stream)
{
    return NORM_BY_STORAGE(launch_apply, rows, lines, x, x2, y, stream);
}

// --- gradients of the input ----------------------------------------------------------------------

static __device__ inline struct cuda_norm_slope slope_at(const struct tiling &tiling,
                                                         const struct norm_lines &lines,
                                                         const struct norm_means &means,
                                                         const struct moments &moments,
                                                         uint32_t group, uint32_t channel)
{
    float scale = lines.params[channel];
    double gradient = 0, product = 0;
    if (means.sums != NULL) {
        uint32_t runs = tiling.channels / lines.width;
        const double *sums = means.sums + 2 * (size_t)group * runs + channel / lines.width;
        double factor = means.scaled ? 1.0 : (double)scale;
        gradient = factor * sums[0] * means.share;
        product = factor * sums[runs] * means.share;
    }
    return cuda_norm_slope_of(scale, moments.mean, moments.inverse, gradient, product);
}

template <typename T, int SIDE, norm_gate GATE> struct differentiating {
    const T *x, *dy;
    T *dx;
    strip<SIDE> a, b, per_x, rest; // a: also of the gradient

    template <int ROWS> CUDA_BOTH void take(uint32_t at, uint32_t step)
    {
        strip<SIDE> values[ROWS], slopes[ROWS];
        strips_load(values, x, at, step);
        strips_load(slopes, dy, at, step);
        for (int row = 0; row < ROWS; row++) {
            for (int i = 0; i < SIDE; i++) {
                float value = values[row].v[i], &gradient = slopes[row].v[i];
                if (GATE == NORM_GATE_BY_X) {
                    struct cuda_norm_line line = {a.v[i], b.v[i]};
                    bool open = cuda_norm_passes(cuda_norm_value(line, value), is_half<T>);
                    gradient = open ? gradient : 0.0f;
                }
                struct cuda_norm_slope slope = {a.v[i], per_x.v[i], rest.v[i]};
                gradient = cuda_norm_gradient(slope, gradient, value);
            }
            strip_store<SIDE>(dx + at + row * step, slopes[row]);
        }
    }
};

template <typename T, int SIDE, norm_gate GATE>
static __global__ void __launch_bounds__(NORM_THREADS, 3)
    differentiate_kernel(struct tiling tiling, struct norm_lines lines, struct norm_means means,
                         const T *x, const T *dy, T *dx)
{
    __shared__ __align__(16) float table[4][NORM_THREADS];
    struct place place = place_backwards<SIDE>(tiling);
    uint32_t channel = own_channel<SIDE>(tiling, place);
    struct cuda_norm_slope slope = {0, 0, 0};
    float b = 0;
    if (channel != UINT32_MAX) {
        struct moments moments = moments_at(tiling, lines, place.group, channel);
        slope = slope_at(tiling, lines, means, moments, place.group, channel);
        b = line_at(tiling, lines, moments, place.group, channel).b;
    }
    table[0][threadIdx.x] = slope.g;
    table[1][threadIdx.x] = b;
    table[2][threadIdx.x] = slope.x;
    table[3][threadIdx.x] = slope.rest;
    __syncthreads();
    differentiating<T, SIDE, GATE> work;
    work.x = x + place.at;
    work.dy = dy + place.at;
    work.dx = dx + place.at;
    work.a = strip_load<SIDE>(&table[0][place.side]);
    work.b = strip_load<SIDE>(&table[1][place.side]);
    work.per_x = strip_load<SIDE>(&table[2][place.side]);
    work.rest = strip_load<SIDE>(&table[3][place.side]);
    walk<rows_at_once<T, SIDE, 2>>(tiling, place, work);
}

template <typename T, int SIDE>
static cudaError_t
launch_differentiate(const struct norm_rows *rows, const struct norm_lines *lines,
                     const struct norm_means *means, enum norm_gate gate, const void *x,
                     const void *dy, void *dx, cudaStream_t stream)
{
    struct tiling tiling = second_tiling(rows);
    auto *kernel = gate == NORM_GATE_BY_X ? differentiate_kernel<T, SIDE, NORM_GATE_BY_X>
                                          : differentiate_kernel<T, SIDE, NORM_GATE_OPEN>;
    return CUDA_LAUNCH(kernel, grid_of(&tiling, rows->groups), dim3(NORM_THREADS), stream, tiling,
                       *lines, *means, static_cast<const T *>(x), static_cast<const T *>(dy),
                       static_cast<T *>(dx));
}

extern "C" cudaError_t norm_pass_differentiate(const struct norm_rows *rows,
                                               const struct norm_lines *lines,
                                               const struct norm_means *means, enum norm_gate gate,
                                               const void *x, const void *dy, void *dx,
                                               cudaStream_t stream)
{
    return NORM_BY_STORAGE(launch_differentiate, rows, lines, means, gate, x, dy, dx, stream);
}
