// Weights of convolutions between masters [tap][in][out] and what is multiplied, [out][tap][in]:
// for each tap a transpose, through shared memory, so that both sides are met in long rows.
#include "trainer/cuda/launch.h"

#include "trainer/cuda/grid.h"
#include "trainer/cuda/image_math.h"
#include "trainer/cuda/weights.h"
#include "trainer/cuda/weights_math.h"

#define THREADS  256
#define IN_TILE  64                   // channels of a tile: CUDA_LANES a thread ..
#define OUT_TILE 32                   // .. for each of as many outputs
#define ROWS     (THREADS / OUT_TILE) // input channels of a master that the block meets at a time
#define STEPS    (IN_TILE / ROWS)
#define PADDED   (IN_TILE + 1) // so that neither way meets the same bank all the time

static uint32_t filter_taps(const struct cuda_filter *filter)
{
    uint32_t side = filter->folded > 0 ? filter->folded : filter->kernel;
    return side * side;
}

uint64_t cuda_filter_values(const struct cuda_filter *filter)
{
    return (uint64_t)filter->out_stride * filter_taps(filter) * filter->in_stride;
}

// --- filters of the same taps

struct tiles {
    uint32_t taps, in, out; // tiles; the blocks run over out first, then in
};

static struct tiles tiles_of(const struct cuda_filter *filter)
{
    struct tiles tiles = {filter_taps(filter), grid_blocks(filter->in_stride, IN_TILE),
                          grid_blocks(filter->out_stride, OUT_TILE)};
    return tiles;
}

struct tile {
    uint32_t tap, in, out; // first channels
};

static __device__ struct tile tile_of(const struct tiles &tiles, uint32_t block)
{
    uint32_t row = block / tiles.out, tap = row / tiles.in;
    struct tile tile = {tap, (row - tap * tiles.in) * IN_TILE,
                        (block - row * tiles.out) * OUT_TILE};
    return tile;
}

static __device__ size_t master_offset(const struct cuda_filter &filter, uint32_t tap, uint32_t in,
                                       uint32_t out)
{
    return ((size_t)tap * filter.in + in) * filter.out + out;
}

static __device__ size_t stored_offset(const struct cuda_filter &filter, uint32_t taps,
                                       uint32_t tap, uint32_t in, uint32_t out)
{
    return ((size_t)out * taps + tap) * filter.in_stride + in;
}

template <class T>
static __global__ void pack_kernel(struct cuda_filter filter, struct tiles tiles,
                                   const float *__restrict__ master, T *__restrict__ stored)
{
    __shared__ float shared[OUT_TILE * PADDED];
    const struct tile tile = tile_of(tiles, blockIdx.x);
    const uint32_t column = threadIdx.x % OUT_TILE, row = threadIdx.x / OUT_TILE;
    float values[STEPS];
    CUDA_UNROLL
    for (uint32_t i = 0; i < STEPS; i++) {
        const uint32_t in = tile.in + i * ROWS + row, out = tile.out + column;
        values[i] = 0;
        if (in < filter.in && out < filter.out) {
            values[i] = master[master_offset(filter, tile.tap, in, out)];
        }
    }
    CUDA_UNROLL
    for (uint32_t i = 0; i < STEPS; i++) {
        shared[column * PADDED + i * ROWS + row] = values[i];
    }
    __syncthreads();
    const uint32_t groups = IN_TILE / CUDA_LANES;
    const uint32_t group = threadIdx.x % groups * CUDA_LANES, output = threadIdx.x / groups;
    struct lanes lanes;
    CUDA_UNROLL
    for (uint32_t i = 0; i < CUDA_LANES; i++) {
        lanes.v[i] = shared[output * PADDED + group + i];
    }
    const uint32_t in = tile.in + group, out = tile.out + output;
    if (in < filter.in_stride && out < filter.out_stride) {
        lanes_store(stored + stored_offset(filter, tiles.taps, tile.tap, in, out), lanes);
    }
}

template <class T>
static __global__ void unpack_kernel(struct cuda_filter filter, struct tiles tiles,
                                     const T *__restrict__ stored, float *__restrict__ gradient)
{
    __shared__ float shared[OUT_TILE * PADDED];
    const struct tile tile = tile_of(tiles, blockIdx.x);
    const uint32_t groups = IN_TILE / CUDA_LANES;
    const uint32_t group = threadIdx.x % groups * CUDA_LANES, output = threadIdx.x / groups;
    const uint32_t first = tile.in + group, own = tile.out + output;
    struct lanes lanes = {};
    if (first < filter.in_stride && own < filter.out_stride) {
        lanes = lanes_load(stored + stored_offset(filter, tiles.taps, tile.tap, first, own));
    }
    CUDA_UNROLL
    for (uint32_t i = 0; i < CUDA_LANES; i++) {
        shared[output * PADDED + group + i] = lanes.v[i];
    }
    __syncthreads();
    const uint32_t column = threadIdx.x % OUT_TILE, row = threadIdx.x / OUT_TILE;
    CUDA_UNROLL
    for (uint32_t i = 0; i < STEPS; i++) {
        const uint32_t in = tile.in + i * ROWS + row, out = tile.out + column;
        if (in < filter.in && out < filter.out) {
            gradient[master_offset(filter, tile.tap, in, out)] =
                shared[column * PADDED + i * ROWS + row];
        }
    }
}

// --- filters over folded images: small, so a thread gathers what it writes

template <class T>
static __global__ void folded_pack_kernel(uint32_t work, struct cuda_filter filter,
                                          const float *__restrict__ master, T *__restrict__ stored)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= work) {
        return;
    }
    const uint32_t groups = filter.in_stride / CUDA_LANES;
    const uint32_t part = at / filter.out_stride, out = at - part * filter.out_stride;
    const uint32_t block = part / groups, first = (part - block * groups) * CUDA_LANES;
    const uint32_t block_y = block / filter.folded, block_x = block - block_y * filter.folded;
    struct lanes lanes = {};
    CUDA_UNROLL
    for (uint32_t i = 0; i < CUDA_LANES; i++) {
        const struct fold_value value = fold_value_at(first + i);
        const uint32_t y = fold_tap(block_y, value.y, filter.shift_y);
        const uint32_t x = fold_tap(block_x, value.x, filter.shift_x);
        if (first + i < FOLD_VALUES && y < filter.kernel && x < filter.kernel && out < filter.out) {
            lanes.v[i] = master[master_offset(filter, y * filter.kernel + x, value.c, out)];
        }
    }
    const uint32_t taps = filter.folded * filter.folded;
    lanes_store(stored + stored_offset(filter, taps, block, first, out), lanes);
}

template <class T>
static __global__ void folded_unpack_kernel(uint32_t work, struct cuda_filter filter,
                                            const T *__restrict__ stored,
                                            float *__restrict__ gradient)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= work) {
        return;
    }
    const uint32_t row = at / filter.out, out = at - row * filter.out;
    const uint32_t tap = row / filter.in, c = row - tap * filter.in;
    const uint32_t y = tap / filter.kernel + filter.shift_y;
    const uint32_t x = tap % filter.kernel + filter.shift_x;
    const uint32_t block = y / 2 * filter.folded + x / 2, taps = filter.folded * filter.folded;
    gradient[at] = lane_value(stored[stored_offset(filter, taps, block, fold_place(y, x, c), out)]);
}

// --- either

template <class T>
static cudaError_t pack(const struct cuda_filter *filter, const float *master, T *stored,
                        cudaStream_t stream)
{
    if (filter->folded > 0) {
        uint64_t work = cuda_filter_values(filter) / CUDA_LANES;
        return grid_fits(work)
                   ? CUDA_LAUNCH(folded_pack_kernel<T>, grid_blocks(work, THREADS), THREADS, stream,
                                 (uint32_t)work, *filter, master, stored)
                   : cudaErrorInvalidValue;
    }
    struct tiles tiles = tiles_of(filter);
    uint64_t blocks = (uint64_t)tiles.taps * tiles.in * tiles.out;
    return grid_fits(blocks * THREADS) ? CUDA_LAUNCH(pack_kernel<T>, (unsigned)blocks, THREADS,
                                                     stream, *filter, tiles, master, stored)
                                       : cudaErrorInvalidValue;
}

cudaError_t cuda_filter_pack(const struct cuda_filter *filter, const float *master, void *stored,
                             cudaStream_t stream)
{
    return filter->half ? pack(filter, master, (bfloat *)stored, stream)
                        : pack(filter, master, (float *)stored, stream);
}

template <class T>
static cudaError_t unpack(const struct cuda_filter *filter, const T *stored, float *gradient,
                          cudaStream_t stream)
{
    if (filter->folded > 0) {
        uint64_t work = (uint64_t)filter->kernel * filter->kernel * filter->in * filter->out;
        return grid_fits(work)
                   ? CUDA_LAUNCH(folded_unpack_kernel<T>, grid_blocks(work, THREADS), THREADS,
                                 stream, (uint32_t)work, *filter, stored, gradient)
                   : cudaErrorInvalidValue;
    }
    struct tiles tiles = tiles_of(filter);
    uint64_t blocks = (uint64_t)tiles.taps * tiles.in * tiles.out;
    return grid_fits(blocks * THREADS) ? CUDA_LAUNCH(unpack_kernel<T>, (unsigned)blocks, THREADS,
                                                     stream, *filter, tiles, stored, gradient)
                                       : cudaErrorInvalidValue;
}

cudaError_t cuda_filter_unpack(const struct cuda_filter *filter, const void *stored,
                               float *gradient, cudaStream_t stream)
{
    return filter->half ? unpack(filter, (const bfloat *)stored, gradient, stream)
                        : unpack(filter, (const float *)stored, gradient, stream);
}
