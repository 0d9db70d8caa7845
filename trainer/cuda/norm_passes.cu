// Normalisation: the passes over values. They only stream. Bytes for each value of bfloat16: sums
// 2; apply 4 (6 with x2); gradients 4 (8 where y is read and g written); differentiate 6.
#include "trainer/cuda/launch.h"
#include "trainer/cuda/norm_math.h"
#include "trainer/cuda/norm_passes.h"

#include <stddef.h>

#define THREADS 256
#define WIDTH   32 // at most so many threads side by side along the channels

// Blocks enough to fill the device a few times over, as long as threads have a few rows each. A
// second pass leaves no partial sums: large tensors are cut finer, which ends more evenly.
#define BLOCKS       3168
#define FEWEST_STEPS 4
#define SECOND_STEPS 32

// --- who takes what ------------------------------------------------------------------------------

// Threads of a block stand in `lines` rows of `width`, each with SIDE neighbouring channels of one
// row of values; then they go on by `lines` rows, `steps` times.
struct tiling {
    uint64_t rows;
    uint32_t channels, stride;
    uint32_t width, lines, steps;
    uint32_t tiles, blocks; // side by side along the channels; along the rows of a group
};

static uint32_t divide_up(uint64_t value, uint32_t by)
{
    return (uint32_t)((value + by - 1) / by);
}

// Values that a thread reads at once: all lanes, but one where rows are not whole lanes (matrices).
static uint32_t side_of(const struct norm_rows *rows)
{
    return rows->stride % CUDA_LANES == 0 ? CUDA_LANES : 1;
}

static struct tiling tiling_of(const struct norm_rows *rows, uint32_t most)
{
    struct tiling tiling = {};
    uint32_t across = rows->stride / side_of(rows);
    tiling.rows = rows->rows;
    tiling.channels = rows->channels;
    tiling.stride = rows->stride;
    tiling.tiles = divide_up(across, WIDTH);
    tiling.width = divide_up(across, tiling.tiles);
    tiling.lines = THREADS / tiling.width;
    uint64_t turns = divide_up(rows->rows, tiling.lines);
    uint64_t steps = divide_up(turns * tiling.tiles * rows->groups, BLOCKS);
    steps = steps < FEWEST_STEPS ? FEWEST_STEPS : steps > most ? most : steps;
    // The same number of blocks, of more even lengths.
    tiling.blocks = divide_up(turns, (uint32_t)steps);
    tiling.steps = divide_up(turns, tiling.blocks);
    return tiling;
}

static struct tiling first_tiling(const struct norm_rows *rows)
{
    return tiling_of(rows, NORM_STEPS);
}

static struct tiling second_tiling(const struct norm_rows *rows)
{
    return tiling_of(rows, SECOND_STEPS);
}

static dim3 grid_of(const struct tiling *tiling, uint32_t groups)
{
    return dim3(tiling->tiles * tiling->blocks * groups);
}

// What is one thread's, and one block's.
struct place {
    uint32_t group, block; // of the group
    uint32_t line, left;   // among the block's `left` rows
    uint32_t first;        // channel of the tile
    uint32_t side;         // the thread's first channel, within the tile
    bool active;
    size_t at; // of the first of the thread's values in the block's first row
};

template <int SIDE>
static __device__ inline struct place place_of(const struct tiling &tiling, uint32_t block)
{
    struct place place;
    uint32_t rest = block / tiling.tiles, column = threadIdx.x % tiling.width;
    place.group = rest / tiling.blocks;
    place.block = rest % tiling.blocks;
    place.first = block % tiling.tiles * tiling.width * SIDE;
    place.side = column * SIDE;
    place.line = threadIdx.x / tiling.width;
    place.active = place.line < tiling.lines && place.first + place.side < tiling.stride;
    uint32_t length = tiling.steps * tiling.lines;
    uint64_t row = (uint64_t)place.block * length, left = tiling.rows - row;
    place.left = left < length ? (uint32_t)left : length;
    place.at = (place.group * tiling.rows + row) * tiling.stride + place.first + place.side;
    return place;
}

// What was read last is read first: it may still lie in the cache.
template <int SIDE>
static __device__ inline struct place place_backwards(const struct tiling &tiling)
{
    return place_of<SIDE>(tiling, gridDim.x - 1 - blockIdx.x);
}

// The channel that this thread prepares for its block; UINT32_MAX: none.
template <int SIDE>
static __device__ inline uint32_t own_channel(const struct tiling &tiling,
                                              const struct place &place)
{
    uint32_t channel = place.first + threadIdx.x;
    return threadIdx.x < tiling.width * SIDE && channel < tiling.channels ? channel : UINT32_MAX;
}

// Rows of the thread, ROWS of them together as long as there are so many, so that several loads
// are on their way.
template <int ROWS, typename Work>
static __device__ inline void walk(const struct tiling &tiling, const struct place &place,
                                   Work &work)
{
    if (!place.active) {
        return;
    }
    uint32_t row = place.line, step = tiling.lines * tiling.stride, at = row * tiling.stride;
    for (; row + (ROWS - 1) * tiling.lines < place.left; row += ROWS * tiling.lines) {
        work.template take<ROWS>(at, step);
        at += ROWS * step;
    }
    for (; row < place.left; row += tiling.lines) {
        work.template take<1>(at, step);
        at += step;
    }
}

// --- values side by side -------------------------------------------------------------------------

template <int SIDE> struct strip {
    float v[SIDE];
};

template <int SIDE, typename T> static __device__ inline strip<SIDE> strip_load(const T *from)
{
    strip<SIDE> strip;
    if constexpr (SIDE == CUDA_LANES) {
        struct lanes lanes = lanes_load(from);
        for (int i = 0; i < SIDE; i++) {
            strip.v[i] = lanes.v[i];
        }
    } else {
        for (int i = 0; i < SIDE; i++) {
            strip.v[i] = lane_value(from[i]);
        }
    }
    return strip;
}

template <int SIDE, typename T>
static __device__ inline void strip_store(T *to, const strip<SIDE> &strip)
{
    if constexpr (SIDE == CUDA_LANES) {
        struct lanes lanes;
        for (int i = 0; i < SIDE; i++) {
            lanes.v[i] = strip.v[i];
        }
        lanes_store(to, lanes);
    } else {
        for (int i = 0; i < SIDE; i++) {
            lane_set(&to[i], strip.v[i]);
        }
    }
}

template <int ROWS, int SIDE, typename T>
static __device__ inline void strips_load(strip<SIDE> (&strips)[ROWS], const T *from, uint32_t at,
                                          uint32_t step)
{
    for (int row = 0; row < ROWS; row++) {
        strips[row] = strip_load<SIDE>(from + at + row * step);
    }
}

template <typename T> constexpr bool is_half = sizeof(T) == sizeof(bfloat);

// Rows that a thread reads together: 64 bytes of all tensors.
template <typename T, int SIDE, int TENSORS>
constexpr int rows_at_once = SIDE == 1 ? 4 : 64 / (TENSORS * SIDE * (int)sizeof(T));

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
    __shared__ __align__(16) float lines[2][THREADS * SIDE];
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
static __global__ void __launch_bounds__(THREADS, 4)
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
    return CUDA_LAUNCH(kernel, grid_of(&tiling, rows->groups), dim3(THREADS), stream, tiling,
                       static_cast<const T *>(x), first, partials);
}

// --- y = a x + b ---------------------------------------------------------------------------------

struct moments {
    float mean, inverse;
};

static __device__ inline struct moments moments_at(const struct tiling &tiling,
                                                   const struct norm_lines &lines, uint32_t group,
                                                   uint32_t channel)
{
    struct moments moments = {0, 1};
    if (lines.saved != NULL) {
        uint32_t runs = tiling.channels / lines.width;
        const float *saved = lines.saved + 2 * (size_t)group * runs + channel / lines.width;
        moments.mean = saved[0];
        moments.inverse = saved[runs];
    }
    return moments;
}

static __device__ inline struct cuda_norm_line line_at(const struct tiling &tiling,
                                                       const struct norm_lines &lines,
                                                       const struct moments &moments,
                                                       uint32_t group, uint32_t channel)
{
    if (lines.coefficients != NULL) {
        const float *a = lines.coefficients + 2 * (size_t)group * tiling.channels + channel;
        struct cuda_norm_line line = {a[0], a[tiling.channels]};
        return line;
    }
    return cuda_norm_line_of(lines.params[channel], lines.params[tiling.channels + channel],
                             moments.mean, moments.inverse);
}

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
static __global__ void __launch_bounds__(THREADS, 4)
    apply_kernel(struct tiling tiling, struct norm_lines lines, const T *x, const T *x2, T *y)
{
    __shared__ __align__(16) float table[2][THREADS];
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
    return CUDA_LAUNCH(kernel, grid_of(&tiling, rows->groups), dim3(THREADS), stream, tiling,
                       *lines, static_cast<const T *>(x), static_cast<const T *>(x2),
                       static_cast<T *>(y));
}

// --- sums of gradients ---------------------------------------------------------------------------

template <typename T, int SIDE, enum norm_gate GATE>
struct gradients {
    const T *x, *y, *dy; T * kept; strip<SIDE> a, b, mean; struct sums<SIDE> sums;

    template <int ROWS> CUDA_BOTH void take(uint32_t at, uint32_t step){
        strip<SIDE> values[ROWS], slopes[ROWS], outputs[ROWS]; strips_load(values, x, at, step);
        strips_load(slopes, dy, at, step);
        if (GATE == NORM_GATE_BY_Y){strips_load(outputs, y, at, step);}
for (int row = 0; row < ROWS; row++)
{
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
}
;

template <typename T, int SIDE, enum norm_gate GATE>
static __global__ void __launch_bounds__(THREADS, 3)
    gradient_kernel(struct tiling tiling, struct norm_lines lines, const T *x, const T *y,
                    const T *dy, T *kept, float *partials)
{
    __shared__ __align__(16) float table[3][THREADS];
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
    return CUDA_LAUNCH(kernel, grid_of(&tiling, rows->groups), dim3(THREADS), stream, tiling,
                       *lines, static_cast<const T *>(x), static_cast<const T *>(y),
                       static_cast<const T *>(dy), static_cast<T *>(kept), partials);
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

template <typename T, int SIDE, enum norm_gate GATE>
struct differentiating {
    const T *x, *dy; T * dx; strip<SIDE> a, b, per_x, rest; // a: also of the gradient

    template <int ROWS> CUDA_BOTH void take(uint32_t at, uint32_t step){
        strip<SIDE> values[ROWS], slopes[ROWS]; strips_load(values, x, at, step);
        strips_load(slopes, dy, at, step);
        for (int row = 0; row < ROWS; row++){for (int i = 0; i < SIDE; i++){
            float value = values[row].v[i], &gradient = slopes[row].v[i];
            if (GATE == NORM_GATE_BY_X){
                struct cuda_norm_line line = {a.v[i], b.v[i]};
                bool open = cuda_norm_passes(cuda_norm_value(line, value), is_half<T>);
                gradient = open ? gradient : 0.0f;}
struct cuda_norm_slope slope = {a.v[i], per_x.v[i], rest.v[i]};
gradient = cuda_norm_gradient(slope, gradient, value);
}
strip_store<SIDE>(dx + at + row * step, slopes[row]);
}
}
}
;

template <typename T, int SIDE, enum norm_gate GATE>
static __global__ void __launch_bounds__(THREADS, 3)
    differentiate_kernel(struct tiling tiling, struct norm_lines lines, struct norm_means means,
                         const T *x, const T *dy, T *dx)
{
    __shared__ __align__(16) float table[4][THREADS];
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
    return CUDA_LAUNCH(kernel, grid_of(&tiling, rows->groups), dim3(THREADS), stream, tiling,
                       *lines, *means, static_cast<const T *>(x), static_cast<const T *>(dy),
                       static_cast<T *>(dx));
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
    dim3 grid(divide_up(partials->channels, TOGETHER), across < 65535 ? across : 65535);
    return CUDA_LAUNCH(collect_kernel, grid, dim3(helpers * TOGETHER), stream, *partials, sums,
                       param_grads);
}

// --- by storage ----------------------------------------------------------------------------------

#define BY_STORAGE(launch, rows, ...)                                                              \
    ((rows)->half         ? launch<bfloat, CUDA_LANES>((rows), __VA_ARGS__)                        \
     : side_of(rows) == 1 ? launch<float, 1>((rows), __VA_ARGS__)                                  \
                          : launch<float, CUDA_LANES>((rows), __VA_ARGS__))

extern "C" uint32_t norm_pass_blocks(const struct norm_rows *rows)
{
    return first_tiling(rows).blocks;
}

extern "C" uint64_t norm_pass_partials(const struct norm_rows *rows)
{
    return 2 * (uint64_t)rows->groups * first_tiling(rows).blocks * rows->channels;
}

extern "C" cudaError_t norm_pass_sums(const struct norm_rows *rows, const void *x, float *first,
                                      float *partials, cudaStream_t stream)
{
    return BY_STORAGE(launch_sums, rows, x, first, partials, stream);
}

extern "C" cudaError_t norm_pass_apply(const struct norm_rows *rows, const struct norm_lines *lines,
                                       const void *x, const void *x2, void *y, cudaStream_t stream)
{
    return BY_STORAGE(launch_apply, rows, lines, x, x2, y, stream);
}

extern "C" cudaError_t norm_pass_gradients(const struct norm_rows *rows,
                                           const struct norm_lines *lines, enum norm_gate gate,
                                           const void *x, const void *y, const void *dy, void *kept,
                                           float *partials, cudaStream_t stream)
{
    return BY_STORAGE(launch_gradients, rows, lines, gate, x, y, dy, kept, partials, stream);
}

extern "C" cudaError_t norm_pass_differentiate(const struct norm_rows *rows,
                                               const struct norm_lines *lines,
                                               const struct norm_means *means, enum norm_gate gate,
                                               const void *x, const void *dy, void *dx,
                                               cudaStream_t stream)
{
    return BY_STORAGE(launch_differentiate, rows, lines, means, gate, x, dy, dx, stream);
}
