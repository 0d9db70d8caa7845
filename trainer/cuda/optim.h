// Losses and optimisers on the GPU; contract and formulas: device.h. Private to the cuda device.
// All calls only enqueue on `stream`. Learning rate, the target's rate and the classifier's scale
// are read from device memory when the kernel runs.
#ifndef TRAINER_CUDA_OPTIM_H
#define TRAINER_CUDA_OPTIM_H

#include "trainer/device/device.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

cudaError_t cuda_regression_loss(const float *x, const float *y, uint32_t n, uint32_t d,
                                 float scale, float *losses, float *dx, float *dy,
                                 cudaStream_t stream);
cudaError_t cuda_softmax_loss(const float *logits, const int32_t *labels, uint32_t n,
                              uint32_t classes, const float *scale, float *losses, float *dlogits,
                              uint8_t *top1, uint8_t *top5, cudaStream_t stream);

// A table of spans in device memory, cut into pieces of at most CUDA_PIECE values, so that blocks
// of threads have equal work. Made once for each list of spans.
#define CUDA_PIECE 16384
struct cuda_spans;
cudaError_t cuda_spans_open(struct cuda_spans **out, const struct param_span *spans, size_t count);
void cuda_spans_close(struct cuda_spans *spans);

// `target` and what it holds may be NULL.
cudaError_t cuda_lars_step(struct cuda_spans *spans, const struct lars_settings *settings,
                           float *params, const float *grads, float *momentum,
                           const struct moving_target *target, cudaStream_t stream);
cudaError_t cuda_sgd_step(struct cuda_spans *spans, const struct sgd_settings *settings,
                          float *params, const float *grads, float *momentum,
                          const struct moving_target *target, cudaStream_t stream);
cudaError_t cuda_adamw_step(struct cuda_spans *spans, const struct adamw_settings *settings,
                            float *params, const float *grads, float *momentum,
                            float *second_moment, float *steps, const struct moving_target *target,
                            cudaStream_t stream);
cudaError_t cuda_moving_average(float *target, const float *online, uint64_t count, float rate,
                                cudaStream_t stream);
cudaError_t cuda_block_add(float *sum, const float *block, uint64_t count, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
