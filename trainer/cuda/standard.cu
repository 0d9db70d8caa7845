// Standardised weights. A block has a few columns of the matrix to itself, so that its sums need no
// other block; what it reads twice stays near it.
#include "trainer/cuda/launch.h"

#include "trainer/cuda/grid.h"
#include "trainer/cuda/weights.h"
#include "trainer/cuda/weights_math.h"

#define THREADS 512
#define COLUMNS 8 // of a block: 32 bytes, what memory delivers at least
#define ROWS    (THREADS / COLUMNS)
#define AHEAD   8 // weights that a thread asks for before it uses the first

struct totals {
    double a, b;
};

// Sums over the threads of a column, in a fixed order; every thread gets them.
static __device__ struct totals column_totals(struct totals own)
{
    __shared__ struct totals shared[THREADS];
    shared[threadIdx.x] = own;
    __syncthreads();
    for (uint32_t rows = ROWS / 2; rows > 0; rows /= 2) {
        if (threadIdx.x < rows * COLUMNS) {
            struct totals other = shared[threadIdx.x + rows * COLUMNS];
            shared[threadIdx.x].a += other.a;
            shared[threadIdx.x].b += other.b;
        }
        __syncthreads();
    }
    return shared[threadIdx.x % COLUMNS];
}

// The rows of a column that a thread has: `count` of them, the first at `first`, ROWS apart.
struct share {
    bool exists;
    uint32_t column, first, count;
};

static __device__ struct share share_of(uint32_t rows, uint32_t columns)
{
    struct share share;
    share.column = blockIdx.x * COLUMNS + threadIdx.x % COLUMNS;
    share.first = threadIdx.x / COLUMNS;
    share.exists = share.column < columns && share.first < rows;
    share.count = share.exists ? (rows - share.first + ROWS - 1) / ROWS : 0;
    return share;
}

static __device__ size_t share_offset(const struct share &share, uint32_t i, uint32_t columns)
{
    return (size_t)(share.first + i * ROWS) * columns + share.column;
}

static __device__ void share_load(float *values, const float *from, const struct share &share,
                                  uint32_t first, uint32_t columns)
{
    CUDA_UNROLL
    for (uint32_t k = 0; k < AHEAD; k++) {
        values[k] = first + k < share.count ? from[share_offset(share, first + k, columns)] : 0.0f;
    }
}

static __global__ void standardise_kernel(uint32_t rows, uint32_t columns,
                                          const float *__restrict__ master,
                                          float *__restrict__ weights, float *__restrict__ saved)
{
    const struct share share = share_of(rows, columns);
    const double origin = share.exists ? (double)master[share.column] : 0;
    struct totals own = {0, 0};
    float values[AHEAD];
    for (uint32_t first = 0; first < share.count; first += AHEAD) {
        share_load(values, master, share, first, columns);
        CUDA_UNROLL
        for (uint32_t k = 0; k < AHEAD; k++) {
            double centred = first + k < share.count ? (double)values[k] - origin : 0;
            own.a += centred;
            own.b += centred * centred;
        }
    }
    const struct totals totals = column_totals(own);
    const struct standard_column column = standard_column_of(origin, totals.a, totals.b, rows);
    for (uint32_t first = 0; first < share.count; first += AHEAD) {
        share_load(values, master, share, first, columns);
        CUDA_UNROLL
        for (uint32_t k = 0; k < AHEAD; k++) {
            if (first + k < share.count) {
                weights[share_offset(share, first + k, columns)] =
                    (float)standard_value(values[k], column);
            }
        }
    }
    if (saved != NULL && share.exists && share.first == 0) {
        saved[share.column] = (float)column.mean;
        saved[columns + share.column] = (float)column.inverse;
    }
}

cudaError_t cuda_standardise(uint32_t fan_in, uint32_t out, const float *master, float *weights,
                             float *saved, cudaStream_t stream)
{
    return CUDA_LAUNCH(standardise_kernel, grid_blocks(out, COLUMNS), THREADS, stream, fan_in, out,
                       master, weights, saved);
}

static __global__ void standardise_backward_kernel(uint32_t rows, uint32_t columns,
                                                   const float *__restrict__ master,
                                                   const float *__restrict__ saved,
                                                   float *__restrict__ gradient)
{
    const struct share share = share_of(rows, columns);
    struct standard_column column = {0, 0};
    if (share.exists) {
        column.mean = saved[share.column];
        column.inverse = saved[columns + share.column];
    }
    struct totals own = {0, 0};
    float values[AHEAD], gradients[AHEAD];
    for (uint32_t first = 0; first < share.count; first += AHEAD) {
        share_load(values, master, share, first, columns);
        share_load(gradients, gradient, share, first, columns);
        CUDA_UNROLL
        for (uint32_t k = 0; k < AHEAD; k++) { // a gradient that is not there is 0
            own.a += (double)gradients[k];
            own.b += (double)gradients[k] * standard_value(values[k], column);
        }
    }
    const struct totals totals = column_totals(own);
    for (uint32_t first = 0; first < share.count; first += AHEAD) {
        share_load(values, master, share, first, columns);
        share_load(gradients, gradient, share, first, columns);
        CUDA_UNROLL
        for (uint32_t k = 0; k < AHEAD; k++) {
            if (first + k < share.count) {
                double unit = standard_value(values[k], column);
                gradient[share_offset(share, first + k, columns)] =
                    (float)standard_gradient(gradients[k], unit, totals.a, totals.b, column, rows);
            }
        }
    }
}

cudaError_t cuda_standardise_backward(uint32_t fan_in, uint32_t out, const float *master,
                                      const float *saved, float *gradient, cudaStream_t stream)
{
    return CUDA_LAUNCH(standardise_backward_kernel, grid_blocks(out, COLUMNS), THREADS, stream,
                       fan_in, out, master, saved, gradient);
}
