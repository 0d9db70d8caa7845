// Batch normalisation on the GPU, for images and matrices, in passes that the device strings
// together: sums, [their sum over peers], statistics, apply. Private to the cuda device. All calls
// only enqueue on `stream`. Contract: OP_BATCH_NORM in device.h.
#ifndef TRAINER_CUDA_NORM_H
#define TRAINER_CUDA_NORM_H

#include "trainer/device/device.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_norm {
    uint32_t groups;
    uint64_t rows;     // of one group: images x h x w
    uint32_t channels; // with values
    uint32_t stride;   // values from one row to the next; a multiple of CUDA_LANES for images
    bool half;         // bfloat16; matrices never are
    bool relu, join;
};

// Bytes of scratch for the sums of any pass.
size_t cuda_norm_scratch_bytes(const struct cuda_norm *norm);

// sums [groups][2][channels]: of x and of its squares, over the rows of the group. Inside,
// differences from the group's first row are added up, so that a large mean costs no digits.
cudaError_t cuda_norm_sums(const struct cuda_norm *norm, const void *x, double *sums, void *scratch,
                           cudaStream_t stream);

// From sums over `rows` rows of all peers together: saved [groups][2][channels] (mean, then 1 /
// deviation) and coefficients [groups][2][channels] (a, b of y = a x + b), and the running
// statistics, group after group (BATCH_NORM_STATE). `saved` and `state` may be NULL.
cudaError_t cuda_norm_statistics(const struct cuda_norm *norm, const double *sums, uint64_t rows,
                                 const float *params, float *saved, float *coefficients,
                                 float *state, cudaStream_t stream);

// coefficients from the running averages, the same for every group.
cudaError_t cuda_norm_running(const struct cuda_norm *norm, const float *params, const float *state,
                              float *coefficients, cudaStream_t stream);

// y = a x + b [+ x2] [ReLU]. Channels that fill up are written as zero.
cudaError_t cuda_norm_apply(const struct cuda_norm *norm, const void *x, const void *x2,
                            const float *coefficients, void *y, cudaStream_t stream);

// Backward. g is dy where the ReLU let through, else 0 (`join`: where y > 0; else where a x + b >
// 0, the rounded y being what counts). sums [groups][2][channels]: of g and of g xhat; gradients
// of scale and offset [2][channels] are these sums over the groups (of this process alone). With
// `join` g is written to dx2, which may equal dy.
cudaError_t cuda_norm_backward_sums(const struct cuda_norm *norm, const void *x, const void *y,
                                    const void *dy, const float *params, const float *saved,
                                    double *sums, float *param_grads, void *dx2, void *scratch,
                                    cudaStream_t stream);

// dx = a (g - mean g - xhat mean(g xhat)), means over `rows` rows of all peers together. With
// `join` g is read from dx2. dx may equal dy.
cudaError_t cuda_norm_backward_apply(const struct cuda_norm *norm, const void *x, const void *dy,
                                     const float *params, const float *saved, const double *sums,
                                     uint64_t rows, void *dx, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
