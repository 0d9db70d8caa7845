// Gaussian blur of rows: along one row, and down two at once.
#include "augment/rows.h"
#include "augment/simd.h"

// Vectors per row summed together, so that a weight is fetched once for all and additions need not
// wait for each other. As many as there are registers for; 7 divides 224 pixels.
#define BLOCK (LANES == 16 ? 7 : 4)

SIMD_INLINE void horizontal_some(float *out, const float *in, const float *weights, size_t radius,
                                 size_t vectors)
{
    vf sum[BLOCK];
    in -= radius;
    vf weight = v_all(weights[0]);
    for (size_t i = 0; i < vectors; i++) {
        sum[i] = weight * v_load(in + i * LANES);
    }
    for (size_t tap = 1; tap <= 2 * radius; tap++) {
        weight = v_all(weights[tap]);
        for (size_t i = 0; i < vectors; i++) {
            sum[i] = sum[i] + weight * v_load(in + tap + i * LANES);
        }
    }
    for (size_t i = 0; i < vectors; i++) {
        v_store(out + i * LANES, sum[i]);
    }
}

#if LANES == 16
// The same for BLOCK vectors at once. Nearly every load of 16 floats crosses a cache line, which
// costs two; so every other vector is put together from aligned ones instead.
static void horizontal_block(float *out, const float *in, const float *weights, int64_t radius)
{
    vf sum[BLOCK] = {0}, whole[BLOCK];
    __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t at = -radius; at <= radius;) {
        int64_t shift = at & (LANES - 1), next = at - shift + LANES;
        for (size_t i = 1; i < BLOCK; i++) {
            whole[i] = v_load(in + at - shift + (int64_t)i * LANES);
        }
        __m512i from = _mm512_add_epi32(lanes, _mm512_set1_epi32((int32_t)shift));
        for (; at < next && at <= radius; at++) {
            vf weight = v_all(weights[at + radius]);
            sum[0] = sum[0] + weight * v_load(in + at);
            for (size_t i = 1; i < BLOCK; i += 2) {
                vf joined = _mm512_permutex2var_ps(whole[i], from, whole[i + 1]);
                vf loaded = v_load(in + at + (int64_t)(i + 1) * LANES);
                sum[i] = sum[i] + weight * joined;
                sum[i + 1] = sum[i + 1] + weight * loaded;
            }
            from = _mm512_add_epi32(from, _mm512_set1_epi32(1));
        }
    }
    for (size_t i = 0; i < BLOCK; i++) {
        v_store(out + i * LANES, sum[i]);
    }
}
#else
static void horizontal_block(float *out, const float *in, const float *weights, int64_t radius)
{
    horizontal_some(out, in, weights, (size_t)radius, BLOCK);
}
#endif

static void horizontal(float *out, const float *in, size_t width, const float *weights,
                       size_t radius)
{
    size_t x = 0;
    for (; x + (BLOCK - 1) * LANES < width; x += BLOCK * LANES) {
        horizontal_block(out + x, in + x, weights, (int64_t)radius);
    }
    for (; x + LANES < width; x += 2 * LANES) {
        horizontal_some(out + x, in + x, weights, radius, 2);
    }
    if (x < width) {
        horizontal_some(out + x, in + x, weights, radius, 1);
    }
}

SIMD_INLINE void vertical_some(float *const out[2], const float *const *rows, size_t x,
                               const float *weights, size_t radius, size_t vectors)
{
    vf upper[BLOCK], lower[BLOCK];
    vf weight = v_all(weights[0]);
    for (size_t i = 0; i < vectors; i++) {
        upper[i] = weight * v_load(rows[0] + x + i * LANES);
        lower[i] = v_all(0);
    }
    for (size_t tap = 1; tap <= 2 * radius; tap++) {
        vf before = weight;
        weight = v_all(weights[tap]);
        for (size_t i = 0; i < vectors; i++) {
            vf pixels = v_held(v_load(rows[tap] + x + i * LANES));
            upper[i] = upper[i] + weight * pixels;
            lower[i] = lower[i] + before * pixels;
        }
    }
    for (size_t i = 0; i < vectors; i++) {
        v_store(out[0] + x + i * LANES, upper[i]);
        vf pixels = v_load(rows[2 * radius + 1] + x + i * LANES);
        v_store(out[1] + x + i * LANES, lower[i] + weight * pixels);
    }
}

static void vertical(float *const out[2], const float *const *rows, size_t width,
                     const float *weights, size_t radius)
{
    size_t x = 0;
    for (; x + (BLOCK - 1) * LANES < width; x += BLOCK * LANES) {
        vertical_some(out, rows, x, weights, radius, BLOCK);
    }
    for (; x + LANES < width; x += 2 * LANES) {
        vertical_some(out, rows, x, weights, radius, 2);
    }
    if (x < width) {
        vertical_some(out, rows, x, weights, radius, 1);
    }
}

const struct blur_kernels ISA_NAME(blur_kernels) = {
    .horizontal = horizontal,
    .vertical = vertical,
};
