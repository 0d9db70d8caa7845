// The second half of a view on the GPU: flip, colours, blur and solarize of bytes that hold crop
// and resize. Private to the cuda device. Contract: render_views in device.h.
#ifndef TRAINER_CUDA_VIEWS_H
#define TRAINER_CUDA_VIEWS_H

#include "augment/record.h"

#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// The largest side of a view (RECIPE_MAX_SIZE).
#define CUDA_VIEW_MAX 1024

size_t cuda_render_views_scratch_bytes(uint32_t images, uint32_t size);

// bytes [images][size][size][3] to float32 out of the same shape, each image by its own record; all
// in device memory. Only enqueues on `stream`.
cudaError_t cuda_render_views(uint32_t images, uint32_t size, const uint8_t *bytes,
                              const struct view_record *records, float *out, void *scratch,
                              cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
