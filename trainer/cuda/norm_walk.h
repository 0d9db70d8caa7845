// How the passes over values (norm_passes.h) share out the work: which thread takes which rows and
// channels, and the lines of the channels that it needs. Private to them.
#ifndef TRAINER_CUDA_NORM_WALK_H
#define TRAINER_CUDA_NORM_WALK_H

#include "trainer/cuda/grid.h"
#include "trainer/cuda/launch.h"
#include "trainer/cuda/norm_math.h"
#include "trainer/cuda/norm_passes.h"

#include <stddef.h>

#define NORM_THREADS 256
#define NORM_WIDTH   32 // at most so many threads side by side along the channels

// Blocks enough to fill the device a few times over, as long as threads have a few rows each.
#define NORM_BLOCKS       3168
#define NORM_FEWEST_STEPS 4

// --- who takes what ------------------------------------------------------------------------------

// Threads of a block stand in `lines` rows of `width`, each with SIDE neighbouring channels of one
// row of values; then they go on by `lines` rows, `steps` times.
struct tiling {
    uint64_t rows;
    uint32_t channels, stride;
    uint32_t width, lines, steps;
    uint32_t tiles, blocks; // side by side along the channels; along the rows of a group
};

// Values that a thread reads at once: all lanes, but one where rows are not whole lanes (matrices).
static inline uint32_t side_of(const struct norm_rows *rows)
{
    return rows->stride % CUDA_LANES == 0 ? CUDA_LANES : 1;
}

static inline struct tiling tiling_of(const struct norm_rows *rows, uint32_t most)
{
    struct tiling tiling = {};
    uint32_t across = rows->stride / side_of(rows);
    tiling.rows = rows->rows;
    tiling.channels = rows->channels;
    tiling.stride = rows->stride;
    tiling.tiles = grid_blocks(across, NORM_WIDTH);
    tiling.width = grid_blocks(across, tiling.tiles);
    tiling.lines = NORM_THREADS / tiling.width;
    uint64_t turns = grid_blocks(rows->rows, tiling.lines);
    uint64_t steps = grid_blocks(turns * tiling.tiles * rows->groups, NORM_BLOCKS);
    steps = steps < NORM_FEWEST_STEPS ? NORM_FEWEST_STEPS : steps > most ? most : steps;
    // The same number of blocks, of more even lengths.
    tiling.blocks = grid_blocks(turns, (uint32_t)steps);
    tiling.steps = grid_blocks(turns, tiling.blocks);
    return tiling;
}

static inline dim3 grid_of(const struct tiling *tiling, uint32_t groups)
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

// By how values are stored, and how many a thread reads at once.
#define NORM_BY_STORAGE(launch, rows, ...)                                                         \
    ((rows)->half         ? launch<bfloat, CUDA_LANES>((rows), __VA_ARGS__)                        \
     : side_of(rows) == 1 ? launch<float, 1>((rows), __VA_ARGS__)                                  \
                          : launch<float, CUDA_LANES>((rows), __VA_ARGS__))

// --- lines of channels ---------------------------------------------------------------------------

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

#endif
