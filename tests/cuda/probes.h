// Small kernels, right and wrong ones, for the tests of the emulation.
#ifndef TESTS_CUDA_PROBES_H
#define TESTS_CUDA_PROBES_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// out[i] = number of the thread, over a grid and block of three dimensions.
cudaError_t probe_number(uint32_t *out, const unsigned grid[3], const unsigned block[3],
                         cudaStream_t stream);
// out[i] = sum of the block's values, through shared memory and barriers.
cudaError_t probe_block_sum(const float *in, float *out, unsigned blocks, unsigned threads,
                            cudaStream_t stream);
// xor, down and from, of 4 and of 8 bytes: out[4] of each thread.
cudaError_t probe_shuffles(double *out, unsigned threads, cudaStream_t stream);
// Values of the left neighbour through shared memory, with or without the barrier in between.
cudaError_t probe_neighbour(float *out, unsigned threads, bool barrier, cudaStream_t stream);
// Threads from `stay` on return before the barrier.
cudaError_t probe_early_return(float *out, unsigned threads, unsigned stay, cudaStream_t stream);
// Threads of one block wait at two barriers; lanes of a warp wait for one that returned.
cudaError_t probe_two_places(unsigned threads, cudaStream_t stream);
cudaError_t probe_lost_lane(float *out, cudaStream_t stream);
// Some wait in a barrier and some in a shuffle.
cudaError_t probe_deadlock(float *out, cudaStream_t stream);
cudaError_t probe_write(float *out, long at, float value, cudaStream_t stream);
cudaError_t probe_twice(float *values, unsigned count, cudaStream_t stream); // values *= 2
cudaError_t probe_plus(float *to, const float *from, unsigned count, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
