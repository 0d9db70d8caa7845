// F(2x2, 3x3) in bfloat16, for avx512_bf16.
//
// An image line holds 16 channels of two neighbouring pixels. Shifted and masked it becomes two
// vectors of float32, the channels of even and of odd number; both hold the left pixel in the lower
// and the right one in the upper half. The horizontal transform of the pixel pairs (0 1) (2 3)
// makes places (0 3) as their difference and places (1 2) as a sum with one sign changed, so that a
// slab holds two places without any reordering: a line is [first place even][second place
// even][first odd][second odd], 8 channels each. The product takes channels in that order, by
// pairs.
#include "trainer/device/cpu_winograd_kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define HALF_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define HALF_INLINE static inline __attribute__((always_inline)) HALF_TARGET

#define TILE       2
#define SIDE       4 // of a transformed tile
#define PLACES     16
#define SLABS      8
#define STEPS      8  // of two channels
#define HALF_PAIR  4  // bytes
#define LINE_FIRST 32 // where in a line the channels of odd number begin

// --- tiles

struct pixel_pair {
    __m512 even[SIDE], odd[SIDE]; // by row
};

// Four rows of a tile; `mask` is 0 for rows outside of the image.
struct tile_rows {
    const uint16_t *pixels[SIDE];
    uint32_t mask[SIDE];
};

HALF_INLINE void transform_columns(__m512 rows[SIDE])
{
    __m512 first = _mm512_sub_ps(rows[0], rows[2]);
    __m512 last = _mm512_sub_ps(rows[1], rows[3]);
    __m512 middle = rows[1];
    rows[0] = first;
    rows[1] = _mm512_add_ps(middle, rows[2]);
    rows[2] = _mm512_sub_ps(rows[2], middle);
    rows[3] = last;
}

// Pixels `column` and the next one of all rows, transformed vertically. What lies outside of the
// image is 0 and is not touched.
HALF_INLINE void load_pair(struct pixel_pair *pair, const struct tile_rows *rows, int64_t column,
                           int64_t width)
{
    uint32_t inside = (column >= 0 ? 0xffffu : 0) | (column + 1 < width ? 0xffff0000u : 0);
    inside = column < width ? inside : 0;
    const __m512i odd = _mm512_set1_epi32((int)0xffff0000u);
#pragma GCC unroll 4
    for (int i = 0; i < SIDE; i++) {
        __m512i raw = _mm512_maskz_loadu_epi16(inside & rows->mask[i],
                                               rows->pixels[i] + column * WINOGRAD_LANES);
        pair->even[i] = _mm512_castsi512_ps(_mm512_slli_epi32(raw, 16));
        pair->odd[i] = _mm512_castsi512_ps(_mm512_and_si512(raw, odd));
    }
    transform_columns(pair->even);
    transform_columns(pair->odd);
}

// [left - right] for both halves: places 0 and 3 of a row.
// [left upper + right lower, right lower - left upper]: places 1 and 2.
HALF_INLINE __m512 inner_places(__m512 left, __m512 right)
{
    const __m512 sign = _mm512_insertf32x8(_mm512_set1_ps(-1.0f), _mm256_set1_ps(1.0f), 0);
    return _mm512_fmadd_ps(_mm512_shuffle_f32x4(left, left, 0xee), sign,
                           _mm512_shuffle_f32x4(right, right, 0x44));
}

HALF_INLINE void store_line(char *to, __m512 even, __m512 odd)
{
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

HALF_INLINE void store_tile(char *to, size_t slab_stride, const struct pixel_pair *left,
                            const struct pixel_pair *right)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < SIDE; i++) {
        store_line(to + 2 * i * slab_stride, _mm512_sub_ps(left->even[i], right->even[i]),
                   _mm512_sub_ps(left->odd[i], right->odd[i]));
        store_line(to + (2 * i + 1) * slab_stride, inner_places(left->even[i], right->even[i]),
                   inner_places(left->odd[i], right->odd[i]));
    }
}

static struct tile_rows rows_of(const struct winograd_shape *shape, const uint16_t *plane,
                                uint32_t tile_row)
{
    struct tile_rows rows;
    for (uint32_t i = 0; i < SIDE; i++) {
        uint32_t below = tile_row * TILE + i; // row + 1
        bool inside = below >= 1 && below <= shape->height;
        rows.pixels[i] = plane + (size_t)(inside ? below - 1 : 0) * shape->width * WINOGRAD_LANES;
        rows.mask[i] = inside ? UINT32_MAX : 0;
    }
    return rows;
}

HALF_TARGET static void gather_run(const struct winograd_shape *shape, char *tiles,
                                   const struct tile_rows *rows, const struct winograd_run *run)
{
    size_t group_bytes = (size_t)shape->in_blocks * WINOGRAD_ROWS * WINOGRAD_LINE;
    size_t row = run->first % WINOGRAD_ROWS;
    char *group = tiles + run->first / WINOGRAD_ROWS * group_bytes;
    int64_t column = (int64_t)run->column * TILE - 1;
    struct pixel_pair left, right;
    load_pair(&left, rows, column, shape->width);
    for (uint32_t i = 0; i < run->count; i++) {
        column += TILE;
        load_pair(&right, rows, column, shape->width);
        store_tile(group + row * WINOGRAD_LINE, shape->slab_bytes, &left, &right);
        left = right;
        if (++row == WINOGRAD_ROWS) {
            row = 0;
            group += group_bytes;
        }
    }
}

static void gather(const struct winograd_shape *shape, char *tiles, const void *x,
                   const struct winograd_run *run)
{
    size_t plane = (size_t)shape->height * shape->width * WINOGRAD_LANES;
    const uint16_t *image = (const uint16_t *)x + run->image * shape->in_blocks * plane;
    for (uint32_t block = 0; block < shape->in_blocks; block++) {
        struct tile_rows rows = rows_of(shape, image + block * plane, run->row);
        gather_run(shape, tiles + (size_t)block * WINOGRAD_ROWS * WINOGRAD_LINE, &rows, run);
    }
}

// --- products

HALF_INLINE __m512bh pair_of(const char *from)
{
    int pair;
    memcpy(&pair, from, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

HALF_INLINE void multiply_group(float *products, const char *tiles, const char *weights,
                                uint32_t blocks, uint32_t vectors)
{
    __m512 sums[WINOGRAD_ROWS][WINOGRAD_VECTORS];
#pragma GCC unroll 6
    for (uint32_t r = 0; r < WINOGRAD_ROWS; r++) {
#pragma GCC unroll 4
        for (uint32_t v = 0; v < vectors; v++) {
            sums[r][v] = _mm512_setzero_ps();
        }
    }
    for (uint32_t block = 0; block < blocks; block++) {
#pragma GCC unroll 8
        for (uint32_t step = 0; step < STEPS; step++) {
            __m512bh line[WINOGRAD_VECTORS];
#pragma GCC unroll 4
            for (uint32_t v = 0; v < vectors; v++) {
                line[v] =
                    (__m512bh)_mm512_loadu_si512(weights + (step * vectors + v) * WINOGRAD_LINE);
            }
#pragma GCC unroll 6
            for (uint32_t r = 0; r < WINOGRAD_ROWS; r++) {
                __m512bh pair = pair_of(tiles + r * WINOGRAD_LINE + step % 4 * HALF_PAIR +
                                        step / 4 * LINE_FIRST);
#pragma GCC unroll 4
                for (uint32_t v = 0; v < vectors; v++) {
                    sums[r][v] = _mm512_dpbf16_ps(sums[r][v], line[v], pair);
                }
            }
        }
        tiles += WINOGRAD_ROWS * WINOGRAD_LINE;
        weights += STEPS * vectors * WINOGRAD_LINE;
    }
#pragma GCC unroll 6
    for (uint32_t r = 0; r < WINOGRAD_ROWS; r++) {
#pragma GCC unroll 4
        for (uint32_t v = 0; v < vectors; v++) {
            _mm512_storeu_ps(products + (r * vectors + v) * WINOGRAD_LANES, sums[r][v]);
        }
    }
}

// Places 4 i + (0 1 2 3) are in slabs 2 i + (0 1 1 0), and there the (first first second second).
static size_t place_offset(uint32_t place, size_t slab_bytes)
{
    uint32_t column = place % SIDE;
    uint32_t slab = place / SIDE * 2 + (column == 1 || column == 2);
    return slab * slab_bytes + (column >= 2 ? 4 * HALF_PAIR : 0);
}

HALF_INLINE void multiply_groups(const struct winograd_product *product, uint32_t vectors)
{
    float *to = product->products;
    const char *tiles = product->tiles;
    for (size_t group = 0; group < product->groups; group++) {
        multiply_group(to, tiles, product->weights, product->in_blocks, vectors);
        to += (size_t)PLACES * WINOGRAD_ROWS * vectors * WINOGRAD_LANES;
        tiles += (size_t)product->in_blocks * WINOGRAD_ROWS * WINOGRAD_LINE;
    }
}

HALF_TARGET static void multiply(const struct winograd_product *product)
{
    switch (product->vectors) {
    case 1:
        multiply_groups(product, 1);
        return;
    case 2:
        multiply_groups(product, 2);
        return;
    case 3:
        multiply_groups(product, 3);
        return;
    default:
        multiply_groups(product, WINOGRAD_VECTORS);
    }
}

// --- back into the image

HALF_INLINE void reduce_four(__m512 to[TILE], __m512 a, __m512 b, __m512 c, __m512 d)
{
    to[0] = _mm512_add_ps(_mm512_add_ps(a, b), c);
    to[1] = _mm512_sub_ps(_mm512_sub_ps(b, c), d);
}

// The outputs of one tile and 16 channels, by row; left pixel in the lower half.
HALF_INLINE void outputs_of(__m512i to[TILE], const float *products, size_t place_values)
{
    __m512 half[SIDE][TILE];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < SIDE; i++) { // columns
        const float *from = products + i * place_values;
        reduce_four(half[i], _mm512_loadu_ps(from), _mm512_loadu_ps(from + SIDE * place_values),
                    _mm512_loadu_ps(from + 2 * SIDE * place_values),
                    _mm512_loadu_ps(from + 3 * SIDE * place_values));
    }
#pragma GCC unroll 2
    for (uint32_t i = 0; i < TILE; i++) {
        __m512 pixels[TILE];
        reduce_four(pixels, half[0][i], half[1][i], half[2][i], half[3][i]);
        to[i] = (__m512i)_mm512_cvtne2ps_pbh(pixels[1], pixels[0]);
    }
}

HALF_TARGET static void scatter_tile(const struct winograd_shape *shape, uint16_t *plane,
                                     uint32_t row, uint32_t column, const float *products,
                                     uint32_t vectors)
{
    size_t plane_values = (size_t)shape->height * shape->width * WINOGRAD_LANES;
    size_t place_values = (size_t)WINOGRAD_ROWS * vectors * WINOGRAD_LANES;
    uint16_t *to = plane + ((size_t)row * shape->width + column) * WINOGRAD_LANES;
    __mmask32 inside = column + 1 < shape->width ? 0xffffffffu : 0xffffu;
    for (uint32_t v = 0; v < vectors; v++) {
        __m512i rows[TILE];
        outputs_of(rows, products + v * WINOGRAD_LANES, place_values);
        _mm512_mask_storeu_epi16(to, inside, rows[0]);
        if (row + 1 < shape->height) {
            _mm512_mask_storeu_epi16(to + (size_t)shape->width * WINOGRAD_LANES, inside, rows[1]);
        }
        to += plane_values;
    }
}

static void scatter(const struct winograd_shape *shape, void *y, const float *products,
                    const struct winograd_run *run, uint32_t out_block, uint32_t vectors)
{
    size_t plane_values = (size_t)shape->height * shape->width * WINOGRAD_LANES;
    size_t row_values = (size_t)vectors * WINOGRAD_LANES;
    uint16_t *plane = (uint16_t *)y + (run->image * shape->out_blocks + out_block) * plane_values;
    for (uint32_t i = 0; i < run->count; i++) {
        size_t tile = run->first + i;
        size_t at = tile / WINOGRAD_ROWS * PLACES * WINOGRAD_ROWS + tile % WINOGRAD_ROWS;
        scatter_tile(shape, plane, run->row * TILE, (run->column + i) * TILE,
                     products + at * row_values, vectors);
    }
}

// --- weights

// Three taps become four: g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2.
HALF_INLINE void expand_three(__m512 to[SIDE], __m512 a, __m512 b, __m512 c)
{
    const __m512 half = _mm512_set1_ps(0.5f);
    __m512 outer = _mm512_mul_ps(_mm512_add_ps(a, c), half);
    to[0] = a;
    to[1] = _mm512_fmadd_ps(b, half, outer);
    to[2] = _mm512_fnmadd_ps(b, half, outer);
    to[3] = c;
}

HALF_INLINE void transform_taps(__m512 to[PLACES], const struct winograd_taps *taps, size_t input)
{
    const float *from = taps->taps + input * taps->input_stride;
    __m512 columns[3][SIDE];
#pragma GCC unroll 3
    for (uint32_t i = 0; i < 3; i++) {
        expand_three(columns[i], _mm512_loadu_ps(from + i * taps->tap_stride),
                     _mm512_loadu_ps(from + (i + 3) * taps->tap_stride),
                     _mm512_loadu_ps(from + (i + 6) * taps->tap_stride));
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < SIDE; i++) {
        expand_three(to + i * SIDE, columns[0][i], columns[1][i], columns[2][i]);
    }
}

HALF_TARGET static void transform(const struct winograd_taps *taps, char *to, size_t place_stride,
                                  size_t step_stride)
{
    static const uint16_t pairs[2 * WINOGRAD_LANES] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_loadu_si512(pairs);
    for (size_t step = 0; step < STEPS; step++) {
        size_t input = step % 4 * 4 + step / 4;
        __m512 first[PLACES], second[PLACES];
        transform_taps(first, taps, input);
        transform_taps(second, taps, input + 2);
        for (size_t place = 0; place < PLACES; place++) {
            __m512i line = (__m512i)_mm512_cvtne2ps_pbh(second[place], first[place]);
            _mm512_storeu_si512(to + place * place_stride + step * step_stride,
                                _mm512_permutexvar_epi16(order, line));
        }
    }
}

const struct winograd_kernel winograd_half_kernel = {
    .tile = TILE,
    .places = PLACES,
    .slabs = SLABS,
    .steps = STEPS,
    .pixel_bytes = WINOGRAD_LANES * sizeof(uint16_t),
    .place_offset = place_offset,
    .gather = gather,
    .multiply = multiply,
    .scatter = scatter,
    .turn = winograd_turn_taps,
    .transform = transform,
};
#endif
