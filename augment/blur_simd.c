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

static void horizontal(float *out, const float *in, size_t width, const float *weights,
                       size_t radius)
{
    size_t x = 0;
    for (; x + (BLOCK - 1) * LANES < width; x += BLOCK * LANES) {
        horizontal_some(out + x, in + x, weights, radius, BLOCK);
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
            vf pixels = v_load(rows[tap] + x + i * LANES);
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
