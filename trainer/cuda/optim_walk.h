// How a block of threads walks over values that lie one after the other. Private to the optimisers
// of the cuda device.
#ifndef TRAINER_CUDA_OPTIM_WALK_H
#define TRAINER_CUDA_OPTIM_WALK_H

#include "trainer/cuda/launch.h"

#define OPTIM_THREADS 256
#define OPTIM_QUAD    4 // values of one load

static inline bool is_aligned(const void *memory)
{
    return (uintptr_t)memory % (OPTIM_QUAD * sizeof(float)) == 0;
}

// Where the quads of a piece that begins at value `at` begin: at the first multiple of OPTIM_QUAD;
// never, when the blocks themselves do not lie at one.
static __device__ inline uint32_t head_of(uint64_t at, uint32_t count, bool aligned)
{
    uint32_t head = (OPTIM_QUAD - (uint32_t)at % OPTIM_QUAD) % OPTIM_QUAD;
    return aligned && head < count ? head : count;
}

// All threads of a block together: `walker` loads and finishes quads, several loads before the
// first use, and does the values around them one by one.
template <int AHEAD, class Walker>
static __device__ inline void walk(Walker &walker, uint32_t head, uint32_t count)
{
    for (uint32_t i = threadIdx.x; i < head; i += OPTIM_THREADS) {
        walker.one(i);
    }
    const uint32_t turn = OPTIM_QUAD * OPTIM_THREADS;
    uint32_t end = head + (count - head) / OPTIM_QUAD * OPTIM_QUAD;
    uint32_t i = head + OPTIM_QUAD * threadIdx.x;
    for (; i + (AHEAD - 1) * turn < end; i += AHEAD * turn) {
        for (int k = 0; k < AHEAD; k++) {
            walker.load(k, i + (uint32_t)k * turn);
        }
        for (int k = 0; k < AHEAD; k++) {
            walker.finish(k, i + (uint32_t)k * turn);
        }
    }
    for (; i < end; i += turn) {
        walker.load(0, i);
        walker.finish(0, i);
    }
    for (i = end + threadIdx.x; i < count; i += OPTIM_THREADS) {
        walker.one(i);
    }
}

static __device__ inline float4 load_quad(const float *from)
{
    return *reinterpret_cast<const float4 *>(from);
}

static __device__ inline void store_quad(float *to, float4 quad)
{
    *reinterpret_cast<float4 *>(to) = quad;
}

#endif
