// Normalisation of each image by itself (OP_GROUP_NORM) and plain affine maps (OP_AFFINE), images
// and matrices. Private to the cuda device. All calls only enqueue on `stream`.
#ifndef TRAINER_CUDA_IMAGE_NORM_H
#define TRAINER_CUDA_IMAGE_NORM_H

#include "trainer/device/device.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_image_norm {
    uint32_t images;
    uint32_t pixels;         // of one image; 1 for matrices
    uint32_t channels;       // with values
    uint32_t stride;         // values from one pixel to the next
    uint32_t channel_groups; // 0: OP_AFFINE
    bool half, relu;
};

size_t cuda_image_norm_scratch_bytes(const struct cuda_image_norm *norm);
size_t cuda_image_norm_saved_bytes(const struct cuda_image_norm *norm); // means and 1 / deviations

// `saved` may be NULL when nothing will be differentiated.
cudaError_t cuda_image_norm_forward(const struct cuda_image_norm *norm, const void *x,
                                    const float *params, void *y, float *saved, void *scratch,
                                    cudaStream_t stream);
// dx may equal dy, or be NULL.
cudaError_t cuda_image_norm_backward(const struct cuda_image_norm *norm, const void *x,
                                     const void *dy, const float *params, const float *saved,
                                     void *dx, float *param_grads, void *scratch,
                                     cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
