// Places of values in folded RGB images (image.h), and the network's input. Plain C.
#ifndef TRAINER_CUDA_IMAGE_MATH_H
#define TRAINER_CUDA_IMAGE_MATH_H

#include "trainer/cuda/lanes.h"

#define FOLD_VALUES 12 // of the places of a block; the others are zero

// Place of channel c of pixel (y, x) in its block (y / 2, x / 2).
static CUDA_BOTH uint32_t fold_place(uint32_t y, uint32_t x, uint32_t c)
{
    return 3 * (2 * (y % 2) + x % 2) + c;
}

// Which pixel of the block, and which channel of it, lies at a place below FOLD_VALUES.
struct fold_value {
    uint32_t y, x, c; // y, x: 0 or 1
};

static CUDA_BOTH struct fold_value fold_value_at(uint32_t place)
{
    uint32_t pixel = place / 3;
    struct fold_value value = {pixel / 2, pixel % 2, place % 3};
    return value;
}

static CUDA_BOTH float input_value(float x, float mean, float deviation)
{
    return (x - mean) / deviation;
}

#endif
