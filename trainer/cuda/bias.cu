// Biases of linear layers.
#include "trainer/cuda/launch.h"

#include "trainer/cuda/grid.h"
#include "trainer/cuda/layers.h"

#define THREADS 128 // a block has as many columns
#define ROWS    8   // of a block; all are asked for before the first is used
#define CHUNK   64  // rows whose gradients one thread adds up

static __global__ void bias_kernel(uint32_t rows, uint32_t columns, uint32_t blocks_a_row,
                                   const float *__restrict__ bias, float *__restrict__ y)
{
    const uint32_t tile = blockIdx.x / blocks_a_row;
    const uint32_t column = (blockIdx.x - tile * blocks_a_row) * THREADS + threadIdx.x;
    if (column >= columns) {
        return;
    }
    const uint32_t first = tile * ROWS;
    float *at = y + (size_t)first * columns + column;
    float values[ROWS] = {};
    CUDA_UNROLL
    for (uint32_t i = 0; i < ROWS; i++) {
        if (first + i < rows) {
            values[i] = at[(size_t)i * columns];
        }
    }
    const float added = bias[column];
    CUDA_UNROLL
    for (uint32_t i = 0; i < ROWS; i++) {
        if (first + i < rows) {
            at[(size_t)i * columns] = values[i] + added;
        }
    }
}

cudaError_t cuda_bias(uint32_t rows, uint32_t columns, const float *bias, float *y,
                      cudaStream_t stream)
{
    uint32_t blocks_a_row = grid_blocks(columns, THREADS);
    uint64_t blocks = (uint64_t)blocks_a_row * grid_blocks(rows, ROWS);
    if (!grid_fits(blocks * THREADS)) {
        return cudaErrorInvalidValue;
    }
    return CUDA_LAUNCH(bias_kernel, (unsigned)blocks, THREADS, stream, rows, columns, blocks_a_row,
                       bias, y);
}

// sums [chunks][columns], each over CHUNK rows.
static __global__ void chunk_sums_kernel(uint32_t rows, uint32_t columns, uint32_t blocks_a_row,
                                         const float *__restrict__ dy, double *__restrict__ sums)
{
    const uint32_t chunk = blockIdx.x / blocks_a_row;
    const uint32_t column = (blockIdx.x - chunk * blocks_a_row) * THREADS + threadIdx.x;
    if (column >= columns) {
        return;
    }
    const uint32_t first = chunk * CHUNK;
    const uint32_t count = rows - first < CHUNK ? rows - first : CHUNK;
    const float *from = dy + (size_t)first * columns + column;
    double sum = 0;
    for (uint32_t row = 0; row < count; row += ROWS) {
        float values[ROWS];
        CUDA_UNROLL
        for (uint32_t i = 0; i < ROWS; i++) {
            values[i] = row + i < count ? from[(size_t)(row + i) * columns] : 0.0f;
        }
        CUDA_UNROLL
        for (uint32_t i = 0; i < ROWS; i++) {
            sum += (double)values[i];
        }
    }
    sums[(size_t)chunk * columns + column] = sum;
}

static __global__ void column_sums_kernel(uint32_t chunks, uint32_t columns,
                                          const double *__restrict__ sums,
                                          float *__restrict__ gradient)
{
    const uint32_t column = blockIdx.x * THREADS + threadIdx.x;
    if (column >= columns) {
        return;
    }
    double sum = 0;
    for (uint32_t chunk = 0; chunk < chunks; chunk++) {
        sum += sums[(size_t)chunk * columns + column];
    }
    gradient[column] = (float)sum;
}

size_t cuda_bias_scratch_bytes(uint32_t rows, uint32_t columns)
{
    return (size_t)grid_blocks(rows, CHUNK) * columns * sizeof(double);
}

cudaError_t cuda_bias_backward(uint32_t rows, uint32_t columns, const float *dy, float *gradient,
                               void *scratch, cudaStream_t stream)
{
    uint32_t chunks = grid_blocks(rows, CHUNK), blocks_a_row = grid_blocks(columns, THREADS);
    uint64_t blocks = (uint64_t)chunks * blocks_a_row;
    if (!grid_fits(blocks * THREADS)) {
        return cudaErrorInvalidValue;
    }
    double *sums = (double *)scratch;
    cudaError_t error = CUDA_LAUNCH(chunk_sums_kernel, (unsigned)blocks, THREADS, stream, rows,
                                    columns, blocks_a_row, dy, sums);
    if (error != cudaSuccess) {
        return error;
    }
    return CUDA_LAUNCH(column_sums_kernel, blocks_a_row, THREADS, stream, chunks, columns, sums,
                       gradient);
}
