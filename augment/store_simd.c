// The last pass over a row: solarize, clip, normalise, and out in the order the network wants; or
// rounded to bytes.
#include "augment/rows.h"
#include "augment/simd.h"

struct finish {
    vf threshold, mean[3], factor[3];
};

SIMD_INLINE struct finish broadcast(const struct row_finish *finish)
{
    struct finish all = {.threshold = v_all(finish->threshold)};
    for (size_t channel = 0; channel < 3; channel++) {
        all.mean[channel] = v_all(finish->mean[channel]);
        all.factor[channel] = v_all(finish->factor[channel]);
    }
    return all;
}

SIMD_INLINE vf finished(const float *const in[3], uint32_t planes, size_t channel, size_t x,
                        const struct finish *finish)
{
    vf pixels = v_load(in[planes == 3 ? channel : 0] + x);
    vm keeps = v_less(pixels, finish->threshold);
    pixels = v_clip(v_choose(keeps, pixels, v_all(1) - pixels));
    return (pixels - finish->mean[channel]) * finish->factor[channel];
}

SIMD_INLINE void put(float *to, vf pixels, bool stream)
{
    if (stream) {
        v_stream(to, pixels);
    } else {
        v_store(to, pixels);
    }
}

SIMD_INLINE bool aligned(const float *at)
{
    return (uintptr_t)at % (LANES * sizeof(float)) == 0;
}

SIMD_INLINE void interleaved_planes(float *out, const float *const in[3], uint32_t planes,
                                    size_t width, const struct row_finish *row_finish, bool stream)
{
    const struct finish all = broadcast(row_finish), *finish = &all;
    const float *const own[3] = {in[0], in[1], in[2]};
    vf pixels[3];
    size_t x = 0;
    for (; x + LANES <= width; x += LANES) {
        v_interleave(pixels, finished(own, planes, 0, x, finish),
                     finished(own, planes, 1, x, finish), finished(own, planes, 2, x, finish));
        for (size_t i = 0; i < 3; i++) {
            put(out + x * 3 + i * LANES, pixels[i], stream);
        }
    }
    if (x < width) {
        v_interleave(pixels, finished(own, planes, 0, x, finish),
                     finished(own, planes, 1, x, finish), finished(own, planes, 2, x, finish));
        memcpy(out + x * 3, pixels, (width - x) * 3 * sizeof *out);
    }
}

static void interleaved(float *out, const float *const in[3], uint32_t planes, size_t width,
                        const struct row_finish *finish)
{
    bool stream = finish->stream && aligned(out);
    if (planes == 3 && stream) {
        interleaved_planes(out, in, 3, width, finish, true);
    } else if (planes == 3) {
        interleaved_planes(out, in, 3, width, finish, false);
    } else {
        interleaved_planes(out, in, 1, width, finish, stream);
    }
}

static void planar(float *const out[3], const float *const in[3], uint32_t planes, size_t width,
                   const struct row_finish *row_finish)
{
    const struct finish all = broadcast(row_finish), *finish = &all;
    for (size_t channel = 0; channel < 3; channel++) {
        bool stream = row_finish->stream && aligned(out[channel]);
        size_t x = 0;
        for (; x + LANES <= width; x += LANES) {
            put(out[channel] + x, finished(in, planes, channel, x, finish), stream);
        }
        if (x < width) {
            vf pixels = finished(in, planes, channel, x, finish);
            memcpy(out[channel] + x, &pixels, (width - x) * sizeof(float));
        }
    }
}

// Plain C that compilers turn into vectors.
static void bytes(uint8_t *restrict out, const float *const in[3], uint32_t planes, size_t width)
{
    const float *r = in[0], *g = in[planes == 3 ? 1 : 0], *b = in[planes == 3 ? 2 : 0];
    for (size_t x = 0; x < width; x++) {
        out[x * 3] = (uint8_t)(int32_t)(r[x] * 255.0f + 0.5f);
        out[x * 3 + 1] = (uint8_t)(int32_t)(g[x] * 255.0f + 0.5f);
        out[x * 3 + 2] = (uint8_t)(int32_t)(b[x] * 255.0f + 0.5f);
    }
}

static void settle(void)
{
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

const struct store_kernels ISA_NAME(store_kernels) = {
    .interleaved = interleaved,
    .planar = planar,
    .bytes = bytes,
    .settle = settle,
};
