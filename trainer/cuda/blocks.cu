// Whole blocks of parameters: the moving average, and addition. 12 bytes of a value.
#include "trainer/cuda/launch.h"

#include "trainer/cuda/optim.h"
#include "trainer/cuda/optim_math.h"
#include "trainer/cuda/optim_walk.h"

#define FLAT_AHEAD 4 // quads of each array that a thread loads before it uses the first
#define FLAT_PIECE (OPTIM_THREADS * OPTIM_QUAD * FLAT_AHEAD)

struct average_rule {
    static __device__ void move(float *to, float from, float rate)
    {
        target_follow(to, from, rate);
    }
};

struct add_rule {
    static __device__ void move(float *to, float from, float)
    {
        *to += from;
    }
};

template <class Rule> struct block_walker {
    float *to;
    const float *from;
    float rate;
    float4 t[FLAT_AHEAD], f[FLAT_AHEAD];

    __device__ void one(uint32_t i)
    {
        Rule::move(to + i, from[i], rate);
    }
    __device__ void load(int k, uint32_t i)
    {
        t[k] = load_quad(to + i);
        f[k] = load_quad(from + i);
    }
    __device__ void finish(int k, uint32_t i)
    {
        Rule::move(&t[k].x, f[k].x, rate);
        Rule::move(&t[k].y, f[k].y, rate);
        Rule::move(&t[k].z, f[k].z, rate);
        Rule::move(&t[k].w, f[k].w, rate);
        store_quad(to + i, t[k]);
    }
};

template <class Rule>
static __global__ void walk_block(float *to, const float *from, uint64_t count, float rate,
                                  bool aligned)
{
    uint64_t at = (uint64_t)blockIdx.x * FLAT_PIECE, left = count - at;
    uint32_t own = left < FLAT_PIECE ? (uint32_t)left : FLAT_PIECE;
    struct block_walker<Rule> walker;
    walker.to = to + at;
    walker.from = from + at;
    walker.rate = rate;
    walk<FLAT_AHEAD>(walker, head_of(at, own, aligned), own);
}

template <class Rule>
static cudaError_t launch_block(float *to, const float *from, uint64_t count, float rate,
                                cudaStream_t stream)
{
    uint64_t pieces = count / FLAT_PIECE + (count % FLAT_PIECE > 0);
    if (pieces == 0 || pieces > INT32_MAX) {
        return pieces == 0 ? cudaSuccess : cudaErrorInvalidValue;
    }
    return CUDA_LAUNCH(walk_block<Rule>, (uint32_t)pieces, OPTIM_THREADS, stream, to, from, count,
                       rate, is_aligned(to) && is_aligned(from));
}

cudaError_t cuda_moving_average(float *target, const float *online, uint64_t count, float rate,
                                cudaStream_t stream)
{
    return launch_block<average_rule>(target, online, count, rate, stream);
}

cudaError_t cuda_block_add(float *sum, const float *block, uint64_t count, cudaStream_t stream)
{
    return launch_block<add_rule>(sum, block, count, 0, stream);
}
