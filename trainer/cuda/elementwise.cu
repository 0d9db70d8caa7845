// Sums and ReLU, value by value.
#include "trainer/cuda/launch.h"

#include "trainer/cuda/grid.h"
#include "trainer/cuda/layers.h"

#define THREADS 256
#define AHEAD   4                 // groups of lanes of a thread
#define EACH    (THREADS * AHEAD) // of a block

struct sum_rule {
    enum { INPUTS = 2 };
    static CUDA_BOTH float value(float a, float b)
    {
        return a + b;
    }
};

struct sum_relu_rule {
    enum { INPUTS = 2 };
    static CUDA_BOTH float value(float a, float b)
    {
        float sum = a + b;
        return sum < 0 ? 0.0f : sum; // a NaN passes
    }
};

struct relu_rule {
    enum { INPUTS = 1 };
    static CUDA_BOTH float value(float a, float)
    {
        return a < 0 ? 0.0f : a;
    }
};

struct relu_backward_rule { // of y and dy
    enum { INPUTS = 2 };
    static CUDA_BOTH float value(float a, float b)
    {
        return a > 0 ? b : 0.0f;
    }
};

// The values past the last whole group of lanes: matrices may have some. For one block only.
template <class Rule, class T>
static __device__ void map_rest(uint64_t values, const T *a, const T *b, T *to)
{
    uint32_t rest = (uint32_t)(values % CUDA_LANES);
    if (threadIdx.x < rest) {
        uint64_t at = values - rest + threadIdx.x;
        float second = Rule::INPUTS > 1 ? lane_value(b[at]) : 0.0f;
        lane_set(to + at, Rule::value(lane_value(a[at]), second));
    }
}

// GROUPS groups of lanes, THREADS apart from each other; all are loaded before the first is used.
template <class Rule, uint32_t GROUPS, class T>
static __device__ void map_groups(uint32_t first, const T *a, const T *b, T *to)
{
    struct lanes left[GROUPS], right[GROUPS] = {};
    CUDA_UNROLL
    for (uint32_t k = 0; k < GROUPS; k++) {
        size_t at = (size_t)(first + k * THREADS) * CUDA_LANES;
        left[k] = lanes_load(a + at);
        if (Rule::INPUTS > 1) {
            right[k] = lanes_load(b + at);
        }
    }
    CUDA_UNROLL
    for (uint32_t k = 0; k < GROUPS; k++) {
        CUDA_UNROLL
        for (int i = 0; i < CUDA_LANES; i++) {
            left[k].v[i] = Rule::value(left[k].v[i], right[k].v[i]);
        }
        lanes_store(to + (size_t)(first + k * THREADS) * CUDA_LANES, left[k]);
    }
}

// to[i] = Rule(a[i], b[i]); `to` may be one of the others.
template <class Rule, class T>
static __global__ void map_kernel(uint64_t values, const T *a, const T *b, T *to)
{
    const uint32_t groups = (uint32_t)(values / CUDA_LANES);
    const uint32_t first = blockIdx.x * EACH + threadIdx.x;
    if ((blockIdx.x + 1) * EACH <= groups) {
        map_groups<Rule, AHEAD>(first, a, b, to);
        return;
    }
    for (uint32_t at = first; at < groups; at += THREADS) {
        map_groups<Rule, 1>(at, a, b, to);
    }
    map_rest<Rule>(values, a, b, to);
}

template <class Rule, class T>
static cudaError_t map_values(uint64_t values, const void *a, const void *b, void *to,
                              cudaStream_t stream)
{
    uint64_t groups = (values + CUDA_LANES - 1) / CUDA_LANES;
    if (!grid_fits(groups)) {
        return values == 0 ? cudaSuccess : cudaErrorInvalidValue;
    }
    void (*kernel)(uint64_t, const T *, const T *, T *) = map_kernel<Rule, T>;
    return CUDA_LAUNCH(kernel, grid_blocks(groups, EACH), THREADS, stream, values, (const T *)a,
                       (const T *)b, (T *)to);
}

template <class Rule>
static cudaError_t map_any(uint64_t values, bool half, const void *a, const void *b, void *to,
                           cudaStream_t stream)
{
    return half ? map_values<Rule, bfloat>(values, a, b, to, stream)
                : map_values<Rule, float>(values, a, b, to, stream);
}

cudaError_t cuda_add(uint64_t values, bool half, bool relu, const void *x, const void *x2, void *y,
                     cudaStream_t stream)
{
    return relu ? map_any<sum_relu_rule>(values, half, x, x2, y, stream)
                : map_any<sum_rule>(values, half, x, x2, y, stream);
}

cudaError_t cuda_accumulate(uint64_t values, bool half, void *to, const void *from,
                            cudaStream_t stream)
{
    return map_any<sum_rule>(values, half, to, from, to, stream);
}

cudaError_t cuda_relu(uint64_t values, bool half, const void *x, void *y, cudaStream_t stream)
{
    return map_any<relu_rule>(values, half, x, NULL, y, stream);
}

cudaError_t cuda_relu_backward(uint64_t values, bool half, const void *y, const void *dy, void *dx,
                               cudaStream_t stream)
{
    return map_any<relu_backward_rule>(values, half, y, dy, dx, stream);
}
