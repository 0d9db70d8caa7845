// Normalisation: the passes that add up values, or gradients, and what joins their sums. They only
// stream. Bytes for each value of bfloat16: sums 2; gradients 4 (8 where y is read and g written).
#include "trainer/cuda/norm_walk.h"

static struct tiling first_tiling(const struct norm_rows *rows)
{
    return tiling_of(rows, NORM_STEPS);
}

extern "C" uint32_t norm_pass_blocks(const struct norm_rows *rows)
{
    return first_tiling(rows).blocks;
}

extern "C" uint64_t norm_pass_partials(const struct norm_rows *rows)
{
    return 2 * (uint64_t)rows->groups * first_tiling(rows).blocks * rows->channels;
}

// --- sums ----------------------------------------------------------------------------------------

template <int SIDE> struct sums {
    strip<SIDE> first, second;
};

// Adds up the lines of the block. `factor`, for the second sums, is of the thread's own channel.
template <int SIDE>
static __device__ inline void give_partials(const struct tiling &tiling, const struct place &place,
                                            const struct sums<SIDE> &sums, float factor,
                                            float *partials)
{
    __shared__ __align__(16) float lines[2][NORM_THREADS * SIDE];
    if (place.active) {
        strip_store<SIDE>(&lines[0][threadIdx.x * SIDE], sums.first);
        strip_store<SIDE>(&lines[1][threadIdx.x * SIDE], sums.second);
    }
    __syncthreads();
    uint32_t channel = own_channel<SIDE>(tiling, place);
    if (channel == UINT32_MAX) {
        return;
    }
    double first = 0, second = 0;
    for (uint32_t line = 0; line < tiling.lines; line++) {
        first += (double)lines[0][line * tiling.width * SIDE + threadIdx.x];
        second += (double)lines[1][line * tiling.width * SIDE + threadIdx.x];
    }
    size_t row = 2 * ((size_t)place.group * tiling.blocks + place.block);
    partials[row * tiling.channels + channel] = (float)first;
    partials[(row + 1) * tiling.channels + channel] = (float)second * factor;
}

template <typename T, int SIDE> struct summing {
    const T *x;
    strip<SIDE> first;
    struct sums<SIDE> sums;

    template <int ROWS> CUDA_BOTH void take(uint32_t at, uint32_t step)
    {
        strip<SIDE> values[ROWS];
        strips_load(values, x, at, step);
        for (int row = 0; row < ROWS; row++) {
            for (int i = 0; i < SIDE; i++) {
                float value = values[row].v[i] - first.v[i];
                sums.first.v[i] += value;
                sums.second.v[i] = fmaf(value, value, sums.second.v[i]);
            }
        }
    }
};

template <typename T, int SIDE>
static __global__ void __launch_bounds__(NORM_THREADS, 4)
    sum_kernel(struct tiling tiling, const T *x, float *first, float *partials)
{
    struct place place = place_of<SIDE>(tiling, blockIdx.x);
    summing<T, SIDE> work = {};
    work.x = x + place.at;
    size_t shift = (size_t)place.group * tiling.rows * tiling.stride + place.first;
    if (place.active) {
        work.first = strip_load<SIDE>(x + shift + place.side);
    }
    walk<rows_at_once<T, SIDE, 1>>(tiling, place, work);
    give_partials<SIDE>(tiling, place, work.sums, 1.0f, partials);
    uint32_t channel = own_channel<SIDE>(tiling, place);
    if (place.block == 0 && channel != UINT32_MAX) {
        first[(size_t)place.group * tiling.channels + channel] = lane_value(x[shift + threadIdx.x]);
    }
}

template <typename T, int SIDE>
static cudaError_t launch_sums(const struct norm_rows *rows, const void *x, float *first,
                               float *partials, cudaStream_t stream)
{
    struct tiling tiling = first_tiling(rows);
    auto *kernel = sum_kernel<T, SIDE>;
    return CUDA_LAUNCH(kernel, grid_of(&tiling, rows->groups), dim3(NORM_THREADS), stream, tiling,
                       static_cast<const T *>(x), first, partials);
}

extern "C" cudaError_t norm_pass_sums(const struct norm_rows *rows, const void *x, float *first,
                                      float *partials, cudaStream_t stream)
{
    return NORM_BY_STORAGE(launch_sums, rows, x, first, partials, stream);
}

// --- sums of gradients ---------------------------------------------------------------------------

template <typename T, int SIDE, norm_gate GATE> struct gradients {
    const T *x, *y, *dy;
    T *kept;
    strip<SIDE> a, b, mean;
    struct sums<SIDE> sums;

    template <int ROWS> CUDA_BOTH void take(uint32_t at, uint32_t step)
    {
        strip<SIDE> values[ROWS], slopes[ROWS], outputs[ROWS];
        strips_load(values, x, at, step);
        strips_load(slopes, dy, at, step);
        if (GATE == NORM_GATE_BY_Y) {
            strips_load(outputs, y, at, step);
        }
        for (int row = 0; row < ROWS; row++) {
            for (int i = 0; i < SIDE; i++) {
                float value = values[row].v[i], &gradient = slopes[row].v[i];
                if (GATE == NORM_GATE_BY_X) {
                    struct cuda_norm_line line = {a.v[i], b.v[i]};
                    bool open = cuda_norm_passes(cuda_norm_value(line, value), is_half<T>);
                    gradient = open ? gradient : 0.0f;
                } else if (GATE == NORM_GATE_BY_Y) {
                    gradient = outputs[row].v[i] > 0 ? gradient : 0.0f;
                }
                sums.first.v[i] += gradient;
                sums.second.v[i] = fmaf(gradient, value - mean.v[i], sums.second.v[i]);
            }
            if (GATE != NORM_GATE_BY_X && kept != NULL) {
                strip_store<SIDE>(kept + at + row * step, slopes[row]);
            }
        }
    }
};

template <typename T, int SIDE, norm_gate GATE>
static __global__ void __launch_bounds__(NORM_THREADS, 3)
    gradient_kernel(struct tiling tiling, struct norm_lines lines, const T *x, const T *y,
                    const T *dy, T *kept, float *partials)
{
    __shared__ __align__(16) float table[3][NORM_THREADS];
    struct place place = place_of<SIDE>(tiling, blockIdx.x);
    uint32_t channel = own_channel<SIDE>(tiling, place);
    struct cuda_norm_line line = {0, 0};
    struct moments moments = {0, 0};
    if (channel != UINT32_MAX) {
        moments = moments_at(tiling, lines, place.group, channel);
        line = line_at(tiling, lines, moments, place.group, channel);
    }
    table[0][threadIdx.x] = line.a;
    table[1][threadIdx.x] = line.b;
    table[2][threadIdx.x] = moments.mean;
    __syncthreads();
    gradients<T, SIDE, GATE> work = {};
    work.x = x + place.at;
    work.y = GATE == NORM_GATE_BY_Y ? y + place.at : NULL;
    work.dy = dy + place.at;
    work.kept = kept != NULL ? kept + place.at : NULL;
    work.a = strip_load<SIDE>(&table[0][place.side]);
    work.b = strip_load<SIDE>(&table[1][place.side]);
    work.mean = strip_load<SIDE>(&table[2][place.side]);
    walk<rows_at_once<T, SIDE, 2>>(tiling, place, work);
    give_partials<SIDE>(tiling, place, work.sums, moments.inverse, partials);
}

template <typename T, int SIDE>
static cudaError_t launch_gradients(const struct norm_rows *rows, const struct norm_lines *lines,
                                    enum norm_gate gate, const void *x, const void *y,
                                    const void *dy, void *kept, float *partials,
                                    cudaStream_t stream)
{
    struct tiling tiling = first_tiling(rows);
    auto *kernel = gradient_kernel<T, SIDE, NORM_GATE_OPEN>;
    if (gate == NORM_GATE_BY_X) {
        kernel = gradient_kernel<T, SIDE, NORM_GATE_BY_X>;
    } else if (gate == NORM_GATE_BY_Y) {
        kernel = gradient_kernel<T, SIDE, NORM_GATE_BY_Y>;
    }
    return CUDA_LAUNCH(kernel, grid_of(&tiling, rows->groups), dim3(NORM_THREADS), stream, tiling,
                       *lines, static_cast<const T *>(x), static_cast<const T *>(y),
                       static_cast<const T *>(dy), static_cast<T *>(kept), partials);
}

extern "C" cudaError_t norm_pass_gradients(const struct norm_rows *rows,
                                           const struct norm_lines *lines, enum norm_gate gate,
                                           const void *x, const void *y, const void *dy, void *kept,
                                           float *partials, cudaStream_t stream)
{
    return NORM_BY_STORAGE(launch_gradients, rows, lines, gate, x, y, dy, kept, partials, stream);
}

// --- partial sums, added up ----------------------------------------------------------------------

#define TOGETHER 8   // channels of a block
#define HELPERS  128 // at most: threads that share a channel
#define AT_ONCE  4

// Leaves the sum over a channel's threads with the first of them.
static __device__ inline void gather(double (&values)[2])
{
    __shared__ double shared[2][TOGETHER * HELPERS];
    for (int i = 0; i < 2; i++) {
        shared[i][threadIdx.x] = values[i];
    }
    __syncthreads();
    for (uint32_t half = blockDim.x / 2; half >= TOGETHER; half /= 2) {
        if (threadIdx.x < half) {
            for (int i = 0; i < 2; i++) {
                shared[i][threadIdx.x] += shared[i][threadIdx.x + half];
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++) {
        values[i] = shared[i][threadIdx.x];
    }
    __syncthreads(); // before the next gathering
}

// Every `step`th block from the first on, of one channel; several loads are on their way.
static __device__ inline void add_blocks(const struct norm_partials &partials, const float *from,
                                         uint32_t first, uint32_t step, double (&values)[2])
{
    size_t row = partials.channels;
    for (uint32_t block = first; block < partials.blocks; block += AT_ONCE * step) {
        float pairs[AT_ONCE][2];
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            bool exists = block + i * step < partials.blocks;
            const float *pair = from + 2 * (size_t)(block + i * step) * row;
            pairs[i][0] = exists ? pair[0] : 0.0f;
            pairs[i][1] = exists ? pair[row] : 0.0f;
        }
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            values[0] += (double)pairs[i][0];
            values[1] += (double)pairs[i][1];
        }
    }
}

static __global__ void collect_kernel(struct norm_partials partials, double *sums,
                                      float *param_grads)
{
    uint32_t channels = partials.channels, step = blockDim.x / TOGETHER;
    uint32_t channel = blockIdx.x * TOGETHER + threadIdx.x % TOGETHER;
    uint32_t helper = threadIdx.x / TOGETHER;
    bool giver = helper == 0 && channel < channels;
    double totals[2] = {0, 0};
    for (uint32_t group = blockIdx.y; group < partials.groups; group += gridDim.y) {
        double values[2] = {0, 0};
        if (channel < channels) {
            size_t at = 2 * (size_t)group * partials.blocks * channels + channel;
            add_blocks(partials, partials.partials + at, helper, step, values);
        }
        gather(values);
        totals[0] += values[0];
        totals[1] += values[1];
        if (giver && sums != NULL) {
            struct cuda_norm_sum sum = {values[0], values[1]};
            if (partials.first != NULL) {
                float first = partials.first[(size_t)group * channels + channel];
                sum = cuda_norm_unshift(partials.rows, (double)first, sum.values, sum.squares);
            }
            sums[2 * (size_t)group * channels + channel] = sum.values;
            sums[(2 * (size_t)group + 1) * channels + channel] = sum.squares;
        }
    }
    if (giver && param_grads != NULL) {
        param_grads[channel] = (float)totals[1];
        param_grads[channels + channel] = (float)totals[0];
    }
}

extern "C" cudaError_t norm_pass_collect(const struct norm_partials *partials, double *sums,
                                         float *param_grads, cudaStream_t stream)
{
    uint32_t helpers = CUDA_WARP / TOGETHER;
    while (helpers < HELPERS && helpers < partials->blocks) {
        helpers *= 2;
    }
    // What is added up over groups must be one block's.
    uint32_t across = param_grads != NULL ? 1 : partials->groups;
    dim3 grid(grid_blocks(partials->channels, TOGETHER), across < 65535 ? across : 65535);
    return CUDA_LAUNCH(collect_kernel, grid, dim3(helpers * TOGETHER), stream, *partials, sums,
                       param_grads);
}
