// What the threads of one block have, joined in a fixed order; every thread gets the result.
// Private to the kernels.
#ifndef TRAINER_CUDA_BLOCK_SUM_H
#define TRAINER_CUDA_BLOCK_SUM_H

#include "trainer/cuda/launch.h"

#define CUDA_ALL_LANES 0xffffffffu

struct sum_of {
    template <class Value> __device__ Value operator()(Value a, Value b) const
    {
        return a + b;
    }
};

struct larger_of { // NaN loses
    __device__ float operator()(float a, float b) const
    {
        return fmaxf(a, b);
    }
};

template <class Join, class Value> static __device__ inline Value warp_join(Value value)
{
    for (int distance = CUDA_WARP / 2; distance > 0; distance /= 2) {
        value = Join()(value, __shfl_xor_sync(CUDA_ALL_LANES, value, distance));
    }
    return value;
}

// `room`: shared memory, one value for each warp.
template <class Join, class Value, int WARPS>
static __device__ inline Value block_join(Value value, Value (&room)[WARPS])
{
    value = warp_join<Join>(value);
    if (threadIdx.x % CUDA_WARP == 0) {
        room[threadIdx.x / CUDA_WARP] = value;
    }
    __syncthreads();
    Value joined = room[0];
    for (int warp = 1; warp < WARPS; warp++) {
        joined = Join()(joined, room[warp]);
    }
    __syncthreads();
    return joined;
}

#endif
