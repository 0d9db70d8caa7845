// Input, sums, ReLU, pools, biases and the ways of images to and from plain memory. Private to the
// cuda device. All calls only enqueue on `stream`; shapes are the op's.
#ifndef TRAINER_CUDA_LAYERS_H
#define TRAINER_CUDA_LAYERS_H

#include "trainer/cuda/image.h"

#ifdef __cplusplus
extern "C" {
#endif

// OP_INPUT: float32 [n][h][w][3] in [0, 1] to an RGB image of `shape`, plain or folded.
cudaError_t cuda_input(struct tensor_shape shape, bool half, const float *x, void *y,
                       cudaStream_t stream);

// Plain float32 [n][h][w][c] in device memory to an image and back.
cudaError_t cuda_image_pack(struct tensor_shape shape, bool half, const float *x, void *image,
                            cudaStream_t stream);
cudaError_t cuda_image_unpack(struct tensor_shape shape, bool half, const void *image, float *x,
                              cudaStream_t stream);

// An RGB image as `from` stores it, stored as `to` does; equal sizes in pixels.
cudaError_t cuda_image_refold(const struct cuda_image *from, const void *x,
                              const struct cuda_image *to, void *y, cudaStream_t stream);

// Over `values` stored values. y = x + x2 [ReLU]; to += from; y = max(x, 0); dx = y > 0 ? dy : 0
// (dx may equal dy).
cudaError_t cuda_add(uint64_t values, bool half, bool relu, const void *x, const void *x2, void *y,
                     cudaStream_t stream);
cudaError_t cuda_accumulate(uint64_t values, bool half, void *to, const void *from,
                            cudaStream_t stream);
cudaError_t cuda_relu(uint64_t values, bool half, const void *x, void *y, cudaStream_t stream);
cudaError_t cuda_relu_backward(uint64_t values, bool half, const void *y, const void *dy, void *dx,
                               cudaStream_t stream);

// OP_MAX_POOL; `saved` (one byte for each stored value of the output) takes the place of the
// maximum in its window, which has at most CUDA_MOST_TAPS pixels along one side. OP_MEAN_POOL.
#define CUDA_MOST_TAPS 15
cudaError_t cuda_max_pool(const struct op_desc *desc, bool half, const void *x, void *y,
                          uint8_t *saved, cudaStream_t stream);
cudaError_t cuda_max_pool_backward(const struct op_desc *desc, bool half, const void *dy,
                                   const uint8_t *saved, void *dx, cudaStream_t stream);
cudaError_t cuda_mean_pool(const struct op_desc *desc, bool half, const void *x, float *y,
                           cudaStream_t stream);
cudaError_t cuda_mean_pool_backward(const struct op_desc *desc, bool half, const float *dy,
                                    void *dx, cudaStream_t stream);

// y[row] += bias, [rows][columns]; gradient[column] = sum of dy over the rows, in a fixed order.
cudaError_t cuda_bias(uint32_t rows, uint32_t columns, const float *bias, float *y,
                      cudaStream_t stream);
size_t cuda_bias_scratch_bytes(uint32_t rows, uint32_t columns);
cudaError_t cuda_bias_backward(uint32_t rows, uint32_t columns, const float *dy, float *gradient,
                               void *scratch, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
