// Gradients of weights from bfloat16 images: tiles of 4x4 with 2x2 of dY, the matrices of F(2x2,
// 3x3). With the signs of the last row of both B' and A turned, which leaves their product:
//
//   B' = 1  0 -1  0     A = 1  0     G =  1    0    0
//        0  1  1  0         1  1         1/2  1/2  1/2
//        0 -1  1  0         1 -1         1/2 -1/2  1/2
//        0 -1  0  1         0  1          0    0    1
#include "trainer/device/cpu_winograd_weights.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define HALF_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define HALF_INLINE HALF_TARGET CPU_INLINE
#define EDGE        4
#define PLACES      (EDGE * EDGE)
#define OUTPUTS     2

// --- tiles

// The image of a tile and where the tile begins in it, which may be outside.
struct corner {
    const uint16_t *plane;
    int32_t top, left;
};

HALF_INLINE struct corner find_corner(const struct winograd_walk *walk,
                                      const struct winograd_position *position, int32_t padding)
{
    return (struct corner){.plane =
                               (const uint16_t *)walk->plane + position->image * walk->image_pitch,
                           .top = (int32_t)position->row * OUTPUTS - padding,
                           .left = (int32_t)position->column * OUTPUTS - padding};
}

HALF_INLINE bool inside(const struct winograd_walk *walk, const struct corner *corner, int32_t size)
{
    return corner->top >= 0 && corner->left >= 0 && corner->top + size <= (int32_t)walk->h &&
           corner->left + size <= (int32_t)walk->w;
}

HALF_INLINE __m512 widen(__mmask16 mask, const uint16_t *from)
{
    __m512i bits = _mm512_maskz_cvtepu16_epi32(mask, _mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

// Pixel (row, column) of a tile; zero outside of the image. `whole`: the tile is inside.
HALF_INLINE __m512 load_pixel(const struct winograd_walk *walk, const struct corner *corner,
                              int32_t row, int32_t column, bool whole)
{
    int32_t y = corner->top + row, x = corner->left + column, h = (int32_t)walk->h,
            w = (int32_t)walk->w;
    bool known = whole || (y >= 0 && y < h && x >= 0 && x < w);
    ptrdiff_t at = known ? ((ptrdiff_t)y * w + x) * WINOGRAD_BLOCK : 0;
    return widen(known ? 0xffff : 0, corner->plane + at);
}

// --- transforms

HALF_INLINE void image_vector(__m512 *to, size_t pitch, const __m512 *from, size_t from_pitch)
{
    __m512 a = from[0], b = from[from_pitch], c = from[2 * from_pitch], d = from[3 * from_pitch];
    to[0] = a - c;
    to[pitch] = b + c;
    to[2 * pitch] = c - b;
    to[3 * pitch] = d - b;
}

HALF_INLINE void gradient_vector(__m512 *to, size_t pitch, const __m512 *from, size_t from_pitch)
{
    __m512 a = from[0], b = from[from_pitch];
    to[0] = a;
    to[pitch] = a + b;
    to[2 * pitch] = a - b;
    to[3 * pitch] = b;
}

// to = B' d B
HALF_INLINE void transform_image_tile(__m512 to[PLACES], const struct winograd_walk *walk,
                                      const struct corner *corner, bool whole)
{
    __m512 columns[PLACES];
#pragma GCC unroll 4
    for (int x = 0; x < EDGE; x++) {
        __m512 column[EDGE];
#pragma GCC unroll 4
        for (int y = 0; y < EDGE; y++) {
            column[y] = load_pixel(walk, corner, y, x, whole);
        }
        image_vector(columns + x, EDGE, column, 1);
    }
#pragma GCC unroll 4
    for (int y = 0; y < EDGE; y++) {
        image_vector(to + (ptrdiff_t)y * EDGE, 1, columns + (ptrdiff_t)y * EDGE, 1);
    }
}

// to = A dY A'
HALF_INLINE void transform_gradient_tile(__m512 to[PLACES], const struct winograd_walk *walk,
                                         const struct corner *corner, bool whole)
{
    __m512 columns[EDGE * OUTPUTS];
#pragma GCC unroll 2
    for (int x = 0; x < OUTPUTS; x++) {
        __m512 column[OUTPUTS] = {load_pixel(walk, corner, 0, x, whole),
                                  load_pixel(walk, corner, 1, x, whole)};
        gradient_vector(columns + x, OUTPUTS, column, 1);
    }
#pragma GCC unroll 4
    for (int y = 0; y < EDGE; y++) {
        gradient_vector(to + (ptrdiff_t)y * EDGE, 1, columns + (ptrdiff_t)y * OUTPUTS, 1);
    }
}

// The pixels where the same tile of the next walk will be.
HALF_INLINE void fetch_ahead(const struct winograd_walk *walk,
                             const struct winograd_position *position)
{
    size_t pixel = ((size_t)position->row * walk->w + position->column) * OUTPUTS;
    uintptr_t at = (uintptr_t)walk->plane + (uintptr_t)walk->ahead +
                   (position->image * walk->image_pitch + pixel * WINOGRAD_BLOCK) * HALF_BYTES;
    _mm_prefetch((const char *)at, _MM_HINT_T0);
    _mm_prefetch((const char *)(at + (size_t)walk->w * WINOGRAD_BLOCK * HALF_BYTES), _MM_HINT_T0);
}

HALF_INLINE void transform_tile(__m512 to[PLACES], const struct winograd_walk *walk,
                                const struct winograd_position *position, bool image)
{
    struct corner corner = find_corner(walk, position, image ? 1 : 0);
    bool whole = inside(walk, &corner, image ? EDGE : OUTPUTS);
    fetch_ahead(walk, position);
    if (image) {
        if (whole) {
            transform_image_tile(to, walk, &corner, true);
        } else {
            transform_image_tile(to, walk, &corner, false);
        }
    } else if (whole) {
        transform_gradient_tile(to, walk, &corner, true);
    } else {
        transform_gradient_tile(to, walk, &corner, false);
    }
}

// Words of two tiles: the first in the lower halves.
HALF_INLINE void store_pair(uint32_t *to, size_t pitch, const __m512 first[PLACES],
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

HALF_INLINE void transform_walk(uint32_t *to, size_t pitch, const struct winograd_walk *walk,
                                bool image)
{
    struct winograd_position position = winograd_start(walk);
    for (size_t tile = 0; tile < walk->count; tile += 2) {
        __m512 first[PLACES], second[PLACES] = {0};
        transform_tile(first, walk, &position, image);
        winograd_advance(walk, &position);
        if (tile + 1 < walk->count) {
            transform_tile(second, walk, &position, image);
            winograd_advance(walk, &position);
        }
        store_pair(to + tile / 2 * WINOGRAD_BLOCK, pitch, first, second);
    }
}

HALF_TARGET static void transform_image(uint32_t *to, size_t pitch,
                                        const struct winograd_walk *walk)
{
    transform_walk(to, pitch, walk, true);
}

HALF_TARGET static void transform_gradient(uint32_t *to, size_t pitch,
                                           const struct winograd_walk *walk)
{
    transform_walk(to, pitch, walk, false);
}

// --- products

#define ROWS 4 // input channels whose sums stay in registers

HALF_INLINE void multiply_rows(const struct winograd_product *product, size_t row, size_t vectors)
{
    const uint32_t *next = row == 0 ? product->next_a : product->next_b;
    __m512 sums[ROWS][WINOGRAD_VECTORS];
    float *at = product->sums + row * product->pitch;
    const uint32_t *a = product->a + row, *b = product->b;
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            sums[r][v] = product->add
                             ? _mm512_loadu_ps(at + r * product->pitch + v * WINOGRAD_BLOCK)
                             : _mm512_setzero_ps();
        }
    }
    for (size_t step = 0; step < product->steps; step++) {
        __m512bh columns[WINOGRAD_VECTORS];
        _mm_prefetch((const char *)(next + step * WINOGRAD_BLOCK), _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            columns[v] = (__m512bh)_mm512_load_si512(b + v * product->panel);
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < ROWS; r++) {
            __m512bh factor = (__m512bh)_mm512_set1_epi32((int)a[r]);
#pragma GCC unroll 4
            for (size_t v = 0; v < vectors; v++) {
                sums[r][v] = _mm512_dpbf16_ps(sums[r][v], factor, columns[v]);
            }
        }
        a += WINOGRAD_BLOCK;
        b += WINOGRAD_BLOCK;
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            _mm512_storeu_ps(at + r * product->pitch + v * WINOGRAD_BLOCK, sums[r][v]);
        }
    }
}

HALF_TARGET static void multiply(const struct winograd_product *product)
{
    for (size_t row = 0; row < WINOGRAD_BLOCK; row += ROWS) {
        switch (product->vectors) {
        case 1:
            multiply_rows(product, row, 1);
            break;
        case 2:
            multiply_rows(product, row, 2);
            break;
        case 3:
            multiply_rows(product, row, 3);
            break;
        default:
            multiply_rows(product, row, 4);
            break;
        }
    }
}

// --- the gradient

HALF_INLINE void finish_vector(__m512 *to, size_t pitch, const __m512 *from, size_t from_pitch)
{
    const __m512 half = _mm512_set1_ps(0.5f);
    __m512 sum = (from[from_pitch] + from[2 * from_pitch]) * half;
    to[0] = from[0] + sum;
    to[pitch] = (from[from_pitch] - from[2 * from_pitch]) * half;
    to[2 * pitch] = sum + from[3 * from_pitch];
}

HALF_INLINE __m512 total(const struct winograd_sums *sums, size_t at)
{
    __m512 sum = _mm512_loadu_ps(sums->values + at);
    for (size_t group = 1; group < sums->groups; group++) {
        sum += _mm512_loadu_ps(sums->values + group * sums->group_pitch + at);
    }
    return sum;
}

#define TAPS 3

// G' sums G
HALF_TARGET static void finish(float *gradient, size_t tap_pitch, const struct winograd_sums *sums,
                               size_t count)
{
    for (size_t i = 0; i < count; i += WINOGRAD_BLOCK) {
        __m512 places[PLACES], columns[TAPS * EDGE], taps[TAPS * TAPS];
#pragma GCC unroll 16
        for (size_t place = 0; place < PLACES; place++) {
            places[place] = total(sums, place * sums->pitch + i);
        }
#pragma GCC unroll 4
        for (size_t x = 0; x < EDGE; x++) {
            finish_vector(columns + x, EDGE, places + x, EDGE);
        }
#pragma GCC unroll 3
        for (size_t y = 0; y < TAPS; y++) {
            finish_vector(taps + y * TAPS, 1, columns + y * EDGE, 1);
        }
#pragma GCC unroll 9
        for (size_t tap = 0; tap < TAPS * TAPS; tap++) {
            _mm512_storeu_ps(gradient + tap * tap_pitch + i, taps[tap]);
        }
    }
}

const struct winograd_form winograd_form_half = {
    .places = PLACES,
    .outputs = OUTPUTS,
    .step_tiles = 2,
    .transform_image = transform_image,
    .transform_gradient = transform_gradient,
    .multiply = multiply,
    .finish = finish,
};

#endif
