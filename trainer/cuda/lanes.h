// How values of images are stored: float32, or bfloat16 as its 16 bits. Eight channels lie side by
// side and are read and written together. Host and device; C sees the scalar part only.
#ifndef TRAINER_CUDA_LANES_H
#define TRAINER_CUDA_LANES_H

#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define CUDA_BOTH __host__ __device__ __forceinline__
#else
#define CUDA_BOTH inline
#endif

// Channels of a stored image are a multiple of this; what is filled up is zero.
#define CUDA_LANES 8

typedef struct {
    uint16_t bits;
} bfloat;

static CUDA_BOTH float bfloat_value(bfloat x)
{
    uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// To the nearest, ties to even; NaN stays NaN.
static CUDA_BOTH bfloat bfloat_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bfloat x;
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        x.bits = (uint16_t)(bits >> 16 | 0x40u);
    } else {
        x.bits = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
    return x;
}

#if defined(__cplusplus)
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#endif

static CUDA_BOTH float lane_value(float x)
{
    return x;
}
static CUDA_BOTH float lane_value(bfloat x)
{
    return bfloat_value(x);
}
static CUDA_BOTH void lane_set(float *to, float value)
{
    *to = value;
}
static CUDA_BOTH void lane_set(bfloat *to, float value)
{
    *to = bfloat_of(value);
}

struct lanes {
    float v[CUDA_LANES];
};

// `from` is aligned to CUDA_LANES values.
static CUDA_BOTH struct lanes lanes_load(const float *from)
{
    struct lanes lanes;
    float4 low = reinterpret_cast<const float4 *>(from)[0];
    float4 high = reinterpret_cast<const float4 *>(from)[1];
    lanes.v[0] = low.x, lanes.v[1] = low.y, lanes.v[2] = low.z, lanes.v[3] = low.w;
    lanes.v[4] = high.x, lanes.v[5] = high.y, lanes.v[6] = high.z, lanes.v[7] = high.w;
    return lanes;
}

static CUDA_BOTH struct lanes lanes_load(const bfloat *from)
{
    struct lanes lanes;
    uint4 bits = *reinterpret_cast<const uint4 *>(from);
    const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#if defined(__CUDACC__)
#pragma unroll
#endif
    for (int i = 0; i < 4; i++) {
        uint32_t low = pairs[i] << 16, high = pairs[i] & 0xffff0000u;
        memcpy(&lanes.v[2 * i], &low, sizeof low);
        memcpy(&lanes.v[2 * i + 1], &high, sizeof high);
    }
    return lanes;
}

static CUDA_BOTH void lanes_store(float *to, struct lanes lanes)
{
    float4 low, high;
    low.x = lanes.v[0], low.y = lanes.v[1], low.z = lanes.v[2], low.w = lanes.v[3];
    high.x = lanes.v[4], high.y = lanes.v[5], high.z = lanes.v[6], high.w = lanes.v[7];
    reinterpret_cast<float4 *>(to)[0] = low;
    reinterpret_cast<float4 *>(to)[1] = high;
}

static CUDA_BOTH uint32_t lanes_pair(float low, float high)
{
#if defined(__CUDA_ARCH__)
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
#else
    return (uint32_t)bfloat_of(low).bits | (uint32_t)bfloat_of(high).bits << 16;
#endif
}

static CUDA_BOTH void lanes_store(bfloat *to, struct lanes lanes)
{
    uint4 bits;
    bits.x = lanes_pair(lanes.v[0], lanes.v[1]);
    bits.y = lanes_pair(lanes.v[2], lanes.v[3]);
    bits.z = lanes_pair(lanes.v[4], lanes.v[5]);
    bits.w = lanes_pair(lanes.v[6], lanes.v[7]);
    *reinterpret_cast<uint4 *>(to) = bits;
}
#endif

#endif
