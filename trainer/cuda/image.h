// How the cuda device stores images: [n][h][w][stride], stride = channels rounded up to CUDA_LANES,
// the rest zero; bfloat16 or float32. Private to the cuda device.
//
// RGB images (the network's input) lie as the first convolution wants them:
//   h and w even and at least CUDA_FOLD_SIZE: folded, [n][h/2][w/2][16]: place 3 (2 dy + dx) + c of
//   a block is pixel (2y + dy, 2x + dx), channel c; the last 4 are zero. A convolution of stride 2
//   over pixels is one of stride 1 over blocks.
//   else: plain, [n][h][w][8].
#ifndef TRAINER_CUDA_IMAGE_H
#define TRAINER_CUDA_IMAGE_H

#include "trainer/cuda/image_math.h"
#include "trainer/device/device.h"

#include <cuda_runtime_api.h>

#define CUDA_FOLD_SIZE 64
#define CUDA_FOLDED    16

struct cuda_image {
    uint32_t n, h, w;          // as stored
    uint32_t channels, stride; // those with values; values from one pixel to the next
    bool half, folded;
};

static inline struct cuda_image cuda_image_of(struct tensor_shape shape, bool half)
{
    uint32_t stride = (shape.c + CUDA_LANES - 1) / CUDA_LANES * CUDA_LANES;
    struct cuda_image image = {shape.n, shape.h, shape.w, shape.c, stride, half, false};
    if (shape.c == 3 && shape.h % 2 == 0 && shape.w % 2 == 0 && shape.h >= CUDA_FOLD_SIZE &&
        shape.w >= CUDA_FOLD_SIZE) {
        image.h /= 2;
        image.w /= 2;
        image.channels = FOLD_VALUES;
        image.stride = CUDA_FOLDED;
        image.folded = true;
    }
    return image;
}

static inline uint64_t cuda_image_values(const struct cuda_image *image)
{
    return (uint64_t)image->n * image->h * image->w * image->stride;
}

static inline uint64_t cuda_image_bytes(const struct cuda_image *image)
{
    return cuda_image_values(image) * (image->half ? sizeof(bfloat) : sizeof(float));
}

#endif
