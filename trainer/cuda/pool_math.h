// Windows of pools along one side of an image. Plain C. Paddings are smaller than the window, so
// that each window touches the image.
#ifndef TRAINER_CUDA_POOL_MATH_H
#define TRAINER_CUDA_POOL_MATH_H

#include "trainer/cuda/lanes.h"

struct pool_range {
    int32_t low, high; // [low, high)
};

// Taps of window `out` that lie in the image of `size` pixels.
static CUDA_BOTH struct pool_range pool_taps(uint32_t out, uint32_t kernel, uint32_t stride,
                                             uint32_t pad, uint32_t size)
{
    int32_t start = (int32_t)(out * stride) - (int32_t)pad;
    int32_t rest = (int32_t)size - start;
    struct pool_range taps = {start < 0 ? -start : 0,
                              rest < (int32_t)kernel ? rest : (int32_t)kernel};
    return taps;
}

// Windows, of `outs`, that contain pixel `in`.
static CUDA_BOTH struct pool_range pool_windows(uint32_t in, uint32_t kernel, uint32_t stride,
                                                uint32_t pad, uint32_t outs)
{
    uint32_t at = in + pad;
    uint32_t low = at < kernel ? 0 : (at - kernel) / stride + 1, high = at / stride + 1;
    struct pool_range windows = {(int32_t)low, (int32_t)(high < outs ? high : outs)};
    return windows;
}

// The tap that is looked at in place of `tap`: itself, or the nearest one in the image. Each tap in
// the image is still first looked at in row order, and looking again finds nothing larger, so the
// first maximum stays the first.
static CUDA_BOTH int32_t pool_clamp(int32_t tap, struct pool_range taps)
{
    return tap < taps.low ? taps.low : tap < taps.high ? tap : taps.high - 1;
}

#endif
