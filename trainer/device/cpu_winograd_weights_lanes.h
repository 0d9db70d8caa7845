// What the kernels of both precisions share, compiled into each of them: the includer defines
// WINOGRAD_HALF, 1 for bfloat16, before. Private to cpu_winograd_weights_*.c.
#ifndef TRAINER_DEVICE_CPU_WINOGRAD_WEIGHTS_LANES_H
#define TRAINER_DEVICE_CPU_WINOGRAD_WEIGHTS_LANES_H

#include "trainer/device/cpu_winograd_weights_form.h"

#if defined(__x86_64__)

#include <immintrin.h>

#ifndef WINOGRAD_HALF
#define WINOGRAD_HALF 0
#endif

#if WINOGRAD_HALF
#define WINOGRAD_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
typedef uint16_t winograd_value;
#else
#define WINOGRAD_TARGET __attribute__((target("avx512f")))
typedef float winograd_value;
#endif
#define WINOGRAD_INLINE WINOGRAD_TARGET CPU_INLINE

#define WINOGRAD_EDGE (WINOGRAD_HALF ? 4 : 6) // rows and columns of a transformed tile
#define WINOGRAD_TAPS 3                       // rows and columns of the weights
#define WINOGRAD_ROWS 4 // input channels whose sums are in registers at a time

// --- tiles

// The image of a tile and where the tile begins in it, which may be outside.
struct winograd_corner {
    const winograd_value *plane;
    int32_t top, left, h, w;
    bool whole; // the tile is inside
};

// Of a tile of `size` rows and columns, one every `outputs`.
WINOGRAD_INLINE struct winograd_corner winograd_find(const struct winograd_walk *walk,
                                                     const struct winograd_position *position,
                                                     int32_t outputs, int32_t size)
{
    int32_t padding = size > outputs ? 1 : 0, h = (int32_t)walk->h, w = (int32_t)walk->w;
    int32_t top = (int32_t)position->row * outputs - padding;
    int32_t left = (int32_t)position->column * outputs - padding;
    bool whole = top >= 0 && left >= 0 && top + size <= h && left + size <= w;
    const winograd_value *first = walk->plane;
    return (struct winograd_corner){
        first + position->image * walk->image_pitch, top, left, h, w, whole};
}

// Zeros where the mask is.
WINOGRAD_INLINE __m512 winograd_load(__mmask16 mask, const winograd_value *from)
{
#if WINOGRAD_HALF
    __m512i bits = _mm512_maskz_cvtepu16_epi32(mask, _mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
#else
    return _mm512_maskz_loadu_ps(mask, from);
#endif
}

// Pixel (row, column) of a tile; zero outside of the image.
WINOGRAD_INLINE __m512 winograd_pixel(const struct winograd_corner *corner, int32_t row,
                                      int32_t column, bool whole)
{
    int32_t y = corner->top + row, x = corner->left + column;
    bool known = whole || (y >= 0 && y < corner->h && x >= 0 && x < corner->w);
    ptrdiff_t at = known ? ((ptrdiff_t)y * corner->w + x) * WINOGRAD_BLOCK : 0;
    return winograd_load(known ? 0xffff : 0, corner->plane + at);
}

// Brings the pixels closer where the same tile of the next walk will be.
WINOGRAD_INLINE void winograd_fetch_ahead(const struct winograd_walk *walk,
                                          const struct winograd_position *position,
                                          uint32_t outputs)
{
    size_t pixel = ((size_t)position->row * walk->w + position->column) * outputs;
    size_t value = position->image * walk->image_pitch + pixel * WINOGRAD_BLOCK;
    uintptr_t at = (uintptr_t)walk->plane + (uintptr_t)walk->ahead + value * sizeof(winograd_value);
    size_t row_bytes = (size_t)walk->w * WINOGRAD_BLOCK * sizeof(winograd_value);
#pragma GCC unroll 4
    for (uint32_t y = 0; y < outputs; y++) {
#pragma GCC unroll 4
        for (uint32_t x = 0; x < outputs * WINOGRAD_BLOCK * sizeof(winograd_value); x += 64) {
            _mm_prefetch((const char *)(at + y * row_bytes + x), _MM_HINT_T0);
        }
    }
}

// --- products

WINOGRAD_INLINE __m512 winograd_multiply_add(__m512 sum, __m512i a, __m512i b)
{
#if WINOGRAD_HALF
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#else
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
#endif
}

WINOGRAD_INLINE void winograd_add_step(__m512 sums[WINOGRAD_ROWS][WINOGRAD_VECTORS],
                                       const uint32_t *a, const uint32_t *b, size_t panel,
                                       size_t vectors)
{
    __m512i columns[WINOGRAD_VECTORS];
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; v++) {
        columns[v] = _mm512_load_si512(b + v * panel);
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < WINOGRAD_ROWS; r++) {
        __m512i factor = _mm512_set1_epi32((int)a[r]);
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            sums[r][v] = winograd_multiply_add(sums[r][v], factor, columns[v]);
        }
    }
}

// Sums of a panel are taken by themselves and then added: fewer roundings of large numbers.
WINOGRAD_INLINE void winograd_multiply_rows(const struct winograd_product *product, size_t row,
                                            size_t vectors)
{
    __m512 sums[WINOGRAD_ROWS][WINOGRAD_VECTORS];
#pragma GCC unroll 16
    for (size_t i = 0; i < WINOGRAD_ROWS * WINOGRAD_VECTORS; i++) {
        sums[i / WINOGRAD_VECTORS][i % WINOGRAD_VECTORS] = _mm512_setzero_ps();
    }
    const uint32_t *a = product->a + row, *b = product->b;
    for (size_t step = 0; step < product->steps; step++) {
        winograd_fetch(product, row / WINOGRAD_ROWS, step);
        winograd_add_step(sums, a, b, product->panel, vectors);
        a += WINOGRAD_BLOCK;
        b += WINOGRAD_BLOCK;
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < WINOGRAD_ROWS; r++) {
        float *to = product->sums + (row + r) * product->pitch;
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            __m512 before =
                product->add ? _mm512_loadu_ps(to + v * WINOGRAD_BLOCK) : _mm512_setzero_ps();
            _mm512_storeu_ps(to + v * WINOGRAD_BLOCK, before + sums[r][v]);
        }
    }
}

WINOGRAD_TARGET static void winograd_multiply(const struct winograd_product *product)
{
    for (size_t row = 0; row < WINOGRAD_BLOCK; row += WINOGRAD_ROWS) {
        switch (product->vectors) {
        case 1:
            winograd_multiply_rows(product, row, 1);
            break;
        case 2:
            winograd_multiply_rows(product, row, 2);
            break;
        case 3:
            winograd_multiply_rows(product, row, 3);
            break;
        default:
            winograd_multiply_rows(product, row, 4);
            break;
        }
    }
}

// The totals of the groups at `at`.
WINOGRAD_INLINE __m512 winograd_total(const struct winograd_sums *sums, size_t at)
{
    __m512 sum = _mm512_loadu_ps(sums->values + at);
    for (size_t group = 1; group < sums->groups; group++) {
        sum += _mm512_loadu_ps(sums->values + group * sums->group_pitch + at);
    }
    return sum;
}

// --- the gradient

// One side of G': from the places of a column or row to its taps, `pitch` apart.
WINOGRAD_INLINE void winograd_finish_vector(__m512 *to, size_t pitch,
                                            const __m512 from[WINOGRAD_EDGE])
{
    const __m512 half = _mm512_set1_ps(0.5f);
#if WINOGRAD_HALF
    __m512 sum = (from[1] + from[2]) * half;
    to[0] = from[0] + sum;
    to[pitch] = (from[1] - from[2]) * half;
    to[2 * pitch] = sum + from[3];
#else
    const __m512 sixth = _mm512_set1_ps(1.0f / 6), quarter = _mm512_set1_ps(0.25f);
    __m512 sum = (from[1] + from[2]) * sixth, difference = (from[2] - from[1]) * sixth;
    __m512 sum2 = (from[3] + from[4]) * sixth, difference2 = (from[3] - from[4]) * sixth;
    to[0] = (from[0] + sum2) * quarter - sum;
    to[pitch] = _mm512_fmadd_ps(half, difference2, difference);
    to[2 * pitch] = sum2 - sum + from[5];
#endif
}

// G' sums G
WINOGRAD_TARGET static void winograd_finish(float *gradient, size_t tap_pitch,
                                            const struct winograd_sums *sums, size_t count)
{
    for (size_t i = 0; i < count; i += WINOGRAD_BLOCK) {
        __m512 rows[WINOGRAD_TAPS][WINOGRAD_EDGE], taps[WINOGRAD_TAPS];
        for (size_t x = 0; x < WINOGRAD_EDGE; x++) {
            __m512 column[WINOGRAD_EDGE];
#pragma GCC unroll 6
            for (size_t y = 0; y < WINOGRAD_EDGE; y++) {
                column[y] = winograd_total(sums, (y * WINOGRAD_EDGE + x) * sums->pitch + i);
            }
            winograd_finish_vector(&rows[0][x], WINOGRAD_EDGE, column);
        }
        for (size_t y = 0; y < WINOGRAD_TAPS; y++) {
            winograd_finish_vector(taps, 1, rows[y]);
#pragma GCC unroll 3
            for (size_t x = 0; x < WINOGRAD_TAPS; x++) {
                _mm512_storeu_ps(gradient + (y * WINOGRAD_TAPS + x) * tap_pitch + i, taps[x]);
            }
        }
    }
}

#endif
#endif
