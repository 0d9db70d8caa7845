// What every kernel includes. Kernels are written once and compiled twice: by nvcc for GPUs, and by
// a C++ compiler whose <cuda_runtime.h> (tests/cuda) runs the threads of a block one after the
// other on the processor, so that indices, sums and borders are tested without a GPU.
//
// That other compiler knows a part of CUDA only: __global__, __device__, __shared__ (sizes fixed
// when compiled), threadIdx, blockIdx, blockDim, gridDim (x, y, z), __syncthreads,
// __shfl_xor_sync and __shfl_down_sync over whole warps, __ldg, float2, float4, uint4. Kernels keep
// to it. Nothing is atomic: sums are taken in a fixed order, the same bits every time.
#ifndef TRAINER_CUDA_LAUNCH_H
#define TRAINER_CUDA_LAUNCH_H

#include <cuda_runtime.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define CUDA_LAUNCH(kernel, grid, block, stream, ...)                                              \
    (kernel<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__), cudaGetLastError())
#endif

#define CUDA_WARP 32

#endif
