// Gradients of weights from float32 images: tiles of 6x6 with 4x4 of dY, the matrices of F(4x4,
// 3x3):
//
//   B' = 4  0 -5  0  1  0     A = 1  0  0  0     G =  1/4    0    0
//        0 -4 -4  1  1  0         1  1  1  1         -1/6 -1/6 -1/6
//        0  4 -4 -1  1  0         1 -1  1 -1         -1/6  1/6 -1/6
//        0 -2 -1  2  1  0         1  2  4  8         1/24 1/12  1/6
//        0  2 -1 -2  1  0         1 -2  4 -8         1/24 -1/12 1/6
//        0  4  0 -5  0  1         0  0  0  1           0    0    1
#define WINOGRAD_HALF 0
#include "trainer/device/cpu_winograd_weights_lanes.h"

#if defined(__x86_64__)

#define EDGE    WINOGRAD_EDGE
#define PLACES  (EDGE * EDGE)
#define OUTPUTS 4

// --- transforms

// sum + factor * value
WINOGRAD_INLINE __m512 add_times(__m512 sum, float factor, __m512 value)
{
    return _mm512_fmadd_ps(_mm512_set1_ps(factor), value, sum);
}

WINOGRAD_INLINE void image_vector(__m512 *to, size_t pitch, const __m512 from[EDGE])
{
    __m512 even4 = add_times(from[4], -4, from[2]), odd4 = add_times(from[3], -4, from[1]);
    __m512 even = from[4] - from[2], odd = from[3] - from[1];
    to[0] = add_times(add_times(from[4], -5, from[2]), 4, from[0]);
    to[pitch] = even4 + odd4;
    to[2 * pitch] = even4 - odd4;
    to[3 * pitch] = add_times(even, 2, odd);
    to[4 * pitch] = add_times(even, -2, odd);
    to[5 * pitch] = add_times(add_times(from[5], -5, from[3]), 4, from[1]);
}

WINOGRAD_INLINE void gradient_vector(__m512 *to, size_t pitch, const __m512 from[OUTPUTS])
{
    __m512 even = from[0] + from[2], odd = from[1] + from[3];
    __m512 even4 = add_times(from[0], 4, from[2]), odd4 = add_times(from[1], 4, from[3]);
    to[0] = from[0];
    to[pitch] = even + odd;
    to[2 * pitch] = even - odd;
    to[3 * pitch] = add_times(even4, 2, odd4);
    to[4 * pitch] = add_times(even4, -2, odd4);
    to[5 * pitch] = from[3];
}

// And brings the lines closer that the tile after the next will fill: too many streams for the
// processor to foresee.
WINOGRAD_INLINE void store_row(uint32_t *to, size_t pitch, const __m512 row[EDGE])
{
#pragma GCC unroll 6
    for (size_t x = 0; x < EDGE; x++) {
        _mm512_store_ps(to + x * pitch, row[x]);
        _mm_prefetch((const char *)(to + x * pitch + 2 * WINOGRAD_BLOCK), _MM_HINT_T0);
    }
}

// B' d B
WINOGRAD_INLINE void transform_image_tile(uint32_t *to, size_t pitch,
                                          const struct winograd_corner *corner, bool whole)
{
    __m512 rows[EDGE][EDGE], row[EDGE];
#pragma GCC unroll 6
    for (int x = 0; x < EDGE; x++) {
        __m512 column[EDGE];
#pragma GCC unroll 6
        for (int y = 0; y < EDGE; y++) {
            column[y] = winograd_pixel(corner, y, x, whole);
        }
        image_vector(&rows[0][x], EDGE, column);
    }
#pragma GCC unroll 6
    for (size_t y = 0; y < EDGE; y++) {
        image_vector(row, 1, rows[y]);
        store_row(to + y * EDGE * pitch, pitch, row);
    }
}

// A dY A'
WINOGRAD_INLINE void transform_gradient_tile(uint32_t *to, size_t pitch,
                                             const struct winograd_corner *corner, bool whole)
{
    __m512 rows[EDGE][OUTPUTS], row[EDGE];
#pragma GCC unroll 4
    for (int x = 0; x < OUTPUTS; x++) {
        __m512 column[OUTPUTS];
#pragma GCC unroll 4
        for (int y = 0; y < OUTPUTS; y++) {
            column[y] = winograd_pixel(corner, y, x, whole);
        }
        gradient_vector(&rows[0][x], OUTPUTS, column);
    }
#pragma GCC unroll 6
    for (size_t y = 0; y < EDGE; y++) {
        gradient_vector(row, 1, rows[y]);
        store_row(to + y * EDGE * pitch, pitch, row);
    }
}

WINOGRAD_TARGET static void transform_image(uint32_t *to, size_t pitch,
                                            const struct winograd_walk *walk)
{
    struct winograd_position position = winograd_start(walk);
    for (size_t tile = 0; tile < walk->count; tile++, to += WINOGRAD_BLOCK) {
        struct winograd_corner corner = winograd_find(walk, &position, OUTPUTS, EDGE);
        winograd_fetch_ahead(walk, &position, OUTPUTS);
        winograd_advance(walk, &position);
        if (corner.whole) {
            transform_image_tile(to, pitch, &corner, true);
        } else {
            transform_image_tile(to, pitch, &corner, false);
        }
    }
}

WINOGRAD_TARGET static void transform_gradient(uint32_t *to, size_t pitch,
                                               const struct winograd_walk *walk)
{
    struct winograd_position position = winograd_start(walk);
    for (size_t tile = 0; tile < walk->count; tile++, to += WINOGRAD_BLOCK) {
        struct winograd_corner corner = winograd_find(walk, &position, OUTPUTS, OUTPUTS);
        winograd_fetch_ahead(walk, &position, OUTPUTS);
        winograd_advance(walk, &position);
        if (corner.whole) {
            transform_gradient_tile(to, pitch, &corner, true);
        } else {
            transform_gradient_tile(to, pitch, &corner, false);
        }
    }
}

const struct winograd_form winograd_form_float = {
    .places = PLACES,
    .outputs = OUTPUTS,
    .step_tiles = 1,
    .transform_image = transform_image,
    .transform_gradient = transform_gradient,
    .multiply = winograd_multiply,
    .finish = winograd_finish,
};

#endif
