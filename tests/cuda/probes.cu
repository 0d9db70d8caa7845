// Kernels that the emulation is tested with; a GPU runs the right ones too.
#include "tests/cuda/probes.h"

#include "trainer/cuda/launch.h"

#define ALL     0xffffffffu
#define THREADS 256

static __global__ void number(uint32_t *out)
{
    uint32_t block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    uint32_t in = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    uint32_t at = block * blockDim.x * blockDim.y * blockDim.z + in;
    out[at] = at;
}

cudaError_t probe_number(uint32_t *out, const unsigned grid[3], const unsigned block[3],
                         cudaStream_t stream)
{
    return CUDA_LAUNCH(number, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]),
                       stream, out);
}

template <class Value> static __device__ inline Value sum_of_block(Value value)
{
    __shared__ Value room[1024];
    room[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            room[threadIdx.x] += room[threadIdx.x + half];
        }
        __syncthreads();
    }
    return room[0];
}

template <class Value> static __global__ void block_sum(const Value *in, Value *out)
{
    unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    out[at] = sum_of_block(in[at]);
}

cudaError_t probe_block_sum(const float *in, float *out, unsigned blocks, unsigned threads,
                            cudaStream_t stream)
{
    return CUDA_LAUNCH(block_sum<float>, blocks, threads, stream, in, out);
}

static __global__ void shuffles(double *out)
{
    double *mine = out + 4 * (size_t)threadIdx.x;
    mine[0] = __shfl_xor_sync(ALL, (float)threadIdx.x, 5);
    mine[1] = __shfl_down_sync(ALL, (double)threadIdx.x, 3);
    mine[2] = __shfl_sync(ALL, (int)threadIdx.x, 7);
    mine[3] = (double)__shfl_xor_sync(ALL, (uint64_t)threadIdx.x << 40, 16);
}

cudaError_t probe_shuffles(double *out, unsigned threads, cudaStream_t stream)
{
    return CUDA_LAUNCH(shuffles, 1, threads, stream, out);
}

static __global__ void neighbour(float *out, bool barrier)
{
    __shared__ float room[THREADS];
    room[threadIdx.x] = (float)threadIdx.x;
    if (barrier) {
        __syncthreads();
    }
    out[threadIdx.x] = room[(threadIdx.x + 1) % blockDim.x];
}

cudaError_t probe_neighbour(float *out, unsigned threads, bool barrier, cudaStream_t stream)
{
    return CUDA_LAUNCH(neighbour, 1, threads, stream, out, barrier);
}

static __global__ void early_return(float *out, unsigned stay)
{
    __shared__ float room[THREADS];
    if (threadIdx.x >= stay) {
        return;
    }
    room[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = room[stay - 1 - threadIdx.x];
}

cudaError_t probe_early_return(float *out, unsigned threads, unsigned stay, cudaStream_t stream)
{
    return CUDA_LAUNCH(early_return, 1, threads, stream, out, stay);
}

static __global__ void two_places(unsigned threads)
{
    if (threadIdx.x < threads / 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

cudaError_t probe_two_places(unsigned threads, cudaStream_t stream)
{
    return CUDA_LAUNCH(two_places, 1, threads, stream, threads);
}

static __global__ void lost_lane(float *out)
{
    if (threadIdx.x != 3) {
        out[threadIdx.x] = __shfl_xor_sync(ALL, 1.0f, 1);
    }
}

cudaError_t probe_lost_lane(float *out, cudaStream_t stream)
{
    return CUDA_LAUNCH(lost_lane, 1, CUDA_WARP, stream, out);
}

static __global__ void deadlock(float *out)
{
    if (threadIdx.x % 2 == 0) {
        __syncthreads();
    } else {
        out[threadIdx.x] = __shfl_xor_sync(ALL, 1.0f, 1);
    }
}

cudaError_t probe_deadlock(float *out, cudaStream_t stream)
{
    return CUDA_LAUNCH(deadlock, 1, CUDA_WARP, stream, out);
}

static __global__ void write_at(float *out, long at, float value)
{
    out[at] = value;
}

cudaError_t probe_write(float *out, long at, float value, cudaStream_t stream)
{
    return CUDA_LAUNCH(write_at, 1, 1, stream, out, at, value);
}

static __global__ void twice(float *values, unsigned count)
{
    unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) {
        values[at] *= 2;
    }
}

cudaError_t probe_twice(float *values, unsigned count, cudaStream_t stream)
{
    return CUDA_LAUNCH(twice, (count + THREADS - 1) / THREADS, THREADS, stream, values, count);
}

static __global__ void plus(float *to, const float *from, unsigned count)
{
    unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) {
        to[at] += from[at];
    }
}

cudaError_t probe_plus(float *to, const float *from, unsigned count, cudaStream_t stream)
{
    return CUDA_LAUNCH(plus, (count + THREADS - 1) / THREADS, THREADS, stream, to, from, count);
}
