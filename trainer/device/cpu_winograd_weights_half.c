// Gradients of weights from bfloat16 images: tiles of 4x4 with 2x2 of dY, the matrices of F(2x2,
// 3x3). With the signs of the last row of both B' and A turned, which leaves their product:
//
//   B' = 1  0 -1  0     A = 1  0     G =  1    0    0
//        0  1  1  0         1  1         1/2  1/2  1/2
//        0 -1  1  0         1 -1         1/2 -1/2  1/2
//        0 -1  0  1         0  1          0    0    1
#define WINOGRAD_HALF 1
#include "trainer/device/cpu_winograd_weights_lanes.h"

#if defined(__x86_64__)

#define EDGE    WINOGRAD_EDGE
#define PLACES  (EDGE * EDGE)
#define OUTPUTS 2

// --- transforms

WINOGRAD_INLINE void image_vector(__m512 *to, size_t pitch, const __m512 from[EDGE])
{
    to[0] = from[0] - from[2];
    to[pitch] = from[1] + from[2];
    to[2 * pitch] = from[2] - from[1];
    to[3 * pitch] = from[3] - from[1];
}

WINOGRAD_INLINE void gradient_vector(__m512 *to, size_t pitch, const __m512 from[OUTPUTS])
{
    to[0] = from[0];
    to[pitch] = from[0] + from[1];
    to[2 * pitch] = from[0] - from[1];
    to[3 * pitch] = from[1];
}

// to = B' d B
WINOGRAD_INLINE void transform_image_tile(__m512 to[PLACES], const struct winograd_corner *corner,
                                          bool whole)
{
    __m512 rows[EDGE][EDGE];
#pragma GCC unroll 4
    for (int x = 0; x < EDGE; x++) {
        __m512 column[EDGE];
#pragma GCC unroll 4
        for (int y = 0; y < EDGE; y++) {
            column[y] = winograd_pixel(corner, y, x, whole);
        }
        image_vector(&rows[0][x], EDGE, column);
    }
#pragma GCC unroll 4
    for (int y = 0; y < EDGE; y++) {
        image_vector(to + (ptrdiff_t)y * EDGE, 1, rows[y]);
    }
}

// to = A dY A'
WINOGRAD_INLINE void transform_gradient_tile(__m512 to[PLACES],
                                             const struct winograd_corner *corner, bool whole)
{
    __m512 rows[EDGE][OUTPUTS];
#pragma GCC unroll 2
    for (int x = 0; x < OUTPUTS; x++) {
        __m512 column[OUTPUTS] = {winograd_pixel(corner, 0, x, whole),
                                  winograd_pixel(corner, 1, x, whole)};
        gradient_vector(&rows[0][x], OUTPUTS, column);
    }
#pragma GCC unroll 4
    for (int y = 0; y < EDGE; y++) {
        gradient_vector(to + (ptrdiff_t)y * EDGE, 1, rows[y]);
    }
}

// The tile at `position`, which moves on to the next.
WINOGRAD_INLINE void transform_tile(__m512 to[PLACES], const struct winograd_walk *walk,
                                    struct winograd_position *position, bool image)
{
    struct winograd_corner corner = winograd_find(walk, position, OUTPUTS, image ? EDGE : OUTPUTS);
    winograd_fetch_ahead(walk, position, OUTPUTS);
    winograd_advance(walk, position);
    if (image) {
        if (corner.whole) {
            transform_image_tile(to, &corner, true);
        } else {
            transform_image_tile(to, &corner, false);
        }
    } else if (corner.whole) {
        transform_gradient_tile(to, &corner, true);
    } else {
        transform_gradient_tile(to, &corner, false);
    }
}

// Words of two tiles: the first in the lower halves.
WINOGRAD_INLINE void store_pair(uint32_t *to, size_t pitch, const __m512 first[PLACES],
                                const __m512 second[PLACES])
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
#pragma GCC unroll 16
    for (size_t place = 0; place < PLACES; place++) {
        __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second[place], first[place]);
        _mm512_store_si512(to + place * pitch, _mm512_permutexvar_epi16(order, both));
    }
}

WINOGRAD_INLINE void transform_walk(uint32_t *to, size_t pitch, const struct winograd_walk *walk,
                                    bool image)
{
    struct winograd_position position = winograd_start(walk);
    for (size_t tile = 0; tile < walk->count; tile += 2) {
        __m512 first[PLACES], second[PLACES] = {0};
        transform_tile(first, walk, &position, image);
        if (tile + 1 < walk->count) {
            transform_tile(second, walk, &position, image);
        }
        store_pair(to + tile / 2 * WINOGRAD_BLOCK, pitch, first, second);
    }
}

WINOGRAD_TARGET static void transform_image(uint32_t *to, size_t pitch,
                                            const struct winograd_walk *walk)
{
    transform_walk(to, pitch, walk, true);
}

WINOGRAD_TARGET static void transform_gradient(uint32_t *to, size_t pitch,
                                               const struct winograd_walk *walk)
{
    transform_walk(to, pitch, walk, false);
}

const struct winograd_form winograd_form_half = {
    .places = PLACES,
    .outputs = OUTPUTS,
    .step_tiles = 2,
    .transform_image = transform_image,
    .transform_gradient = transform_gradient,
    .multiply = winograd_multiply,
    .finish = winograd_finish,
};

#endif
