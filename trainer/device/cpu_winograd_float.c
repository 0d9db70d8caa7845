// F(4x4, 3x3) in float32, for avx512f.
//
// The polynomials behind it are evaluated at 0, a, -a, b, -b and infinity. Of the short binary
// fractions, these two lose the least precision.
#include "trainer/device/cpu_winograd_kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>

#define FLOAT_TARGET __attribute__((target("avx512f")))
#define FLOAT_INLINE static inline __attribute__((always_inline)) FLOAT_TARGET

#define POINT_A 0.625f
#define POINT_B 1.5f
#define A2      (POINT_A * POINT_A)
#define B2      (POINT_B * POINT_B)

#define TILE   4
#define SIDE   6 // of a transformed tile
#define PLACES 36
#define STEPS  16 // of one channel

// Blocks of channels that are summed up one after the other; longer sums would lose precision.
#define SUM_BLOCKS 16

FLOAT_INLINE __m512 constant(float value)
{
    return _mm512_set1_ps(value);
}

// --- tiles

// Six pixels in a row or column become six places. to and from may be the same.
FLOAT_INLINE void transform_six(__m512 to[SIDE], const __m512 from[SIDE])
{
    __m512 even_a = _mm512_fnmadd_ps(constant(B2), from[2], from[4]);
    __m512 odd_a = _mm512_fnmadd_ps(constant(B2), from[1], from[3]);
    __m512 even_b = _mm512_fnmadd_ps(constant(A2), from[2], from[4]);
    __m512 odd_b = _mm512_fnmadd_ps(constant(A2), from[1], from[3]);
    __m512 first = _mm512_fmadd_ps(constant(A2 * B2), from[0], from[4]);
    __m512 last = _mm512_fmadd_ps(constant(A2 * B2), from[1], from[5]);
    first = _mm512_fnmadd_ps(constant(A2 + B2), from[2], first);
    last = _mm512_fnmadd_ps(constant(A2 + B2), from[3], last);
    to[0] = first;
    to[1] = _mm512_fmadd_ps(constant(POINT_A), odd_a, even_a);
    to[2] = _mm512_fnmadd_ps(constant(POINT_A), odd_a, even_a);
    to[3] = _mm512_fmadd_ps(constant(POINT_B), odd_b, even_b);
    to[4] = _mm512_fnmadd_ps(constant(POINT_B), odd_b, even_b);
    to[5] = last;
}

// Six rows of a tile; `mask` is 0 for rows outside of the image.
struct tile_rows {
    const float *pixels[SIDE];
    uint32_t mask[SIDE];
};

// One column, transformed. What lies outside of the image is 0 and is not touched.
FLOAT_INLINE void load_column(__m512 to[SIDE], const struct tile_rows *rows, int64_t column,
                              int64_t width)
{
    __m512 pixels[SIDE];
    uint32_t inside = column >= 0 && column < width ? UINT32_MAX : 0;
#pragma GCC unroll 6
    for (int i = 0; i < SIDE; i++) {
        pixels[i] = _mm512_maskz_loadu_ps((__mmask16)(inside & rows->mask[i]),
                                          rows->pixels[i] + column * WINOGRAD_LANES);
    }
    transform_six(to, pixels);
}

FLOAT_INLINE void store_tile(char *to, size_t slab_stride, const __m512 columns[SIDE][SIDE])
{
#pragma GCC unroll 6
    for (size_t i = 0; i < SIDE; i++) {
        __m512 row[SIDE];
#pragma GCC unroll 6
        for (size_t j = 0; j < SIDE; j++) {
            row[j] = columns[j][i];
        }
        transform_six(row, row);
#pragma GCC unroll 6
        for (size_t j = 0; j < SIDE; j++) {
            _mm512_storeu_ps(to + (i * SIDE + j) * slab_stride, row[j]);
        }
    }
}

FLOAT_TARGET static void gather_run(const struct winograd_shape *shape, char *tiles,
                                    const struct tile_rows *rows, const struct winograd_run *run)
{
    size_t group_bytes = (size_t)shape->in_blocks * WINOGRAD_ROWS * WINOGRAD_LINE;
    size_t row = run->first % WINOGRAD_ROWS;
    char *group = tiles + run->first / WINOGRAD_ROWS * group_bytes;
    int64_t column = (int64_t)run->column * TILE - 1;
    __m512 columns[SIDE][SIDE];
    load_column(columns[4], rows, column++, shape->width);
    load_column(columns[5], rows, column++, shape->width);
    for (uint32_t i = 0; i < run->count; i++) {
        for (uint32_t j = 0; j < SIDE; j++) {
            columns[0][j] = columns[4][j];
            columns[1][j] = columns[5][j];
        }
        for (uint32_t j = 2; j < SIDE; j++) {
            load_column(columns[j], rows, column++, shape->width);
        }
        store_tile(group + row * WINOGRAD_LINE, shape->slab_bytes, columns);
        if (++row == WINOGRAD_ROWS) {
            row = 0;
            group += group_bytes;
        }
    }
}

static struct tile_rows rows_of(const struct winograd_shape *shape, const float *plane,
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

static void gather(const struct winograd_shape *shape, char *tiles, const void *x,
                   const struct winograd_run *run)
{
    size_t plane = (size_t)shape->height * shape->width * WINOGRAD_LANES;
    const float *image = (const float *)x + run->image * shape->in_blocks * plane;
    for (uint32_t block = 0; block < shape->in_blocks; block++) {
        struct tile_rows rows = rows_of(shape, image + block * plane, run->row);
        gather_run(shape, tiles + (size_t)block * WINOGRAD_ROWS * WINOGRAD_LINE, &rows, run);
    }
}

static size_t place_offset(uint32_t place, size_t slab_bytes)
{
    return place * slab_bytes;
}

// --- products

// `add`: to the products of the blocks before.
FLOAT_INLINE void multiply_group(float *products, const float *tiles, const float *weights,
                                 uint32_t blocks, uint32_t vectors, bool add)
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
#pragma GCC unroll 4
        for (uint32_t step = 0; step < STEPS; step++) {
            __m512 line[WINOGRAD_VECTORS];
#pragma GCC unroll 4
            for (uint32_t v = 0; v < vectors; v++) {
                line[v] = _mm512_loadu_ps(weights + (step * vectors + v) * WINOGRAD_LANES);
            }
#pragma GCC unroll 6
            for (uint32_t r = 0; r < WINOGRAD_ROWS; r++) {
                __m512 value = _mm512_set1_ps(tiles[r * WINOGRAD_LANES + step]);
#pragma GCC unroll 4
                for (uint32_t v = 0; v < vectors; v++) {
                    sums[r][v] = _mm512_fmadd_ps(line[v], value, sums[r][v]);
                }
            }
        }
        tiles += WINOGRAD_ROWS * WINOGRAD_LANES;
        weights += STEPS * vectors * WINOGRAD_LANES;
    }
#pragma GCC unroll 6
    for (uint32_t r = 0; r < WINOGRAD_ROWS; r++) {
#pragma GCC unroll 4
        for (uint32_t v = 0; v < vectors; v++) {
            float *to = products + (r * vectors + v) * WINOGRAD_LANES;
            _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), sums[r][v]) : sums[r][v]);
        }
    }
}

FLOAT_INLINE void multiply_groups(const struct winograd_product *product, uint32_t vectors)
{
    float *to = product->products;
    const float *tiles = (const void *)product->tiles;
    for (size_t group = 0; group < product->groups; group++) {
        const float *weights = (const void *)product->weights;
        for (uint32_t block = 0; block < product->in_blocks; block += SUM_BLOCKS) {
            uint32_t left = product->in_blocks - block;
            uint32_t blocks = left < SUM_BLOCKS ? left : SUM_BLOCKS;
            multiply_group(to, tiles, weights, blocks, vectors, block > 0);
            tiles += (size_t)blocks * WINOGRAD_ROWS * WINOGRAD_LANES;
            weights += (size_t)blocks * STEPS * vectors * WINOGRAD_LANES;
        }
        to += (size_t)PLACES * WINOGRAD_ROWS * vectors * WINOGRAD_LANES;
    }
}

FLOAT_TARGET static void multiply(const struct winograd_product *product)
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

FLOAT_INLINE void reduce_six(__m512 to[TILE], const __m512 from[SIDE])
{
    __m512 even_a = _mm512_add_ps(from[1], from[2]), odd_a = _mm512_sub_ps(from[1], from[2]);
    __m512 even_b = _mm512_add_ps(from[3], from[4]), odd_b = _mm512_sub_ps(from[3], from[4]);
    to[0] = _mm512_add_ps(_mm512_add_ps(even_a, even_b), from[0]);
    to[1] = _mm512_fmadd_ps(constant(POINT_B), odd_b, _mm512_mul_ps(constant(POINT_A), odd_a));
    to[2] = _mm512_fmadd_ps(constant(B2), even_b, _mm512_mul_ps(constant(A2), even_a));
    to[3] = _mm512_fmadd_ps(constant(B2 * POINT_B), odd_b,
                            _mm512_fmadd_ps(constant(A2 * POINT_A), odd_a, from[5]));
}

FLOAT_INLINE void outputs_of(__m512 to[TILE][TILE], const float *products, size_t place_values)
{
    __m512 columns[SIDE][TILE];
#pragma GCC unroll 6
    for (uint32_t j = 0; j < SIDE; j++) {
        __m512 column[SIDE];
#pragma GCC unroll 6
        for (uint32_t i = 0; i < SIDE; i++) {
            column[i] = _mm512_loadu_ps(products + (i * SIDE + j) * place_values);
        }
        reduce_six(columns[j], column);
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < TILE; i++) {
        __m512 row[SIDE];
#pragma GCC unroll 6
        for (uint32_t j = 0; j < SIDE; j++) {
            row[j] = columns[j][i];
        }
        reduce_six(to[i], row);
    }
}

FLOAT_TARGET static void scatter_tile(const struct winograd_shape *shape, float *plane,
                                      uint32_t row, uint32_t column, const float *products,
                                      uint32_t vectors)
{
    size_t row_values = (size_t)shape->width * WINOGRAD_LANES;
    size_t place_values = (size_t)WINOGRAD_ROWS * vectors * WINOGRAD_LANES;
    uint32_t high = shape->height - row < TILE ? shape->height - row : TILE;
    uint32_t wide = shape->width - column < TILE ? shape->width - column : TILE;
    float *to = plane + row * row_values + (size_t)column * WINOGRAD_LANES;
    for (uint32_t v = 0; v < vectors; v++) {
        __m512 outputs[TILE][TILE];
        outputs_of(outputs, products + v * WINOGRAD_LANES, place_values);
        for (uint32_t i = 0; i < high; i++) {
            for (uint32_t j = 0; j < wide; j++) {
                _mm512_storeu_ps(to + i * row_values + j * WINOGRAD_LANES, outputs[i][j]);
            }
        }
        to += shape->height * row_values;
    }
}

static void scatter(const struct winograd_shape *shape, void *y, const float *products,
                    const struct winograd_run *run, uint32_t out_block, uint32_t vectors)
{
    size_t plane_values = (size_t)shape->height * shape->width * WINOGRAD_LANES;
    size_t row_values = (size_t)vectors * WINOGRAD_LANES;
    float *plane = (float *)y + (run->image * shape->out_blocks + out_block) * plane_values;
    for (uint32_t i = 0; i < run->count; i++) {
        size_t tile = run->first + i;
        size_t at = tile / WINOGRAD_ROWS * PLACES * WINOGRAD_ROWS + tile % WINOGRAD_ROWS;
        scatter_tile(shape, plane, run->row * TILE, (run->column + i) * TILE,
                     products + at * row_values, vectors);
    }
}

// --- weights

FLOAT_INLINE void transpose(__m512 rows[WINOGRAD_LANES])
{
    __m512 pairs[WINOGRAD_LANES];
#pragma GCC unroll 8
    for (int i = 0; i < WINOGRAD_LANES; i += 2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < WINOGRAD_LANES; i += 4) {
        __m512d a = _mm512_castps_pd(pairs[i]), b = _mm512_castps_pd(pairs[i + 1]);
        __m512d c = _mm512_castps_pd(pairs[i + 2]), d = _mm512_castps_pd(pairs[i + 3]);
        rows[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        rows[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        rows[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        rows[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    // Now quarter q of row 4 i + k is column 4 q + k of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m512 even_low = _mm512_shuffle_f32x4(rows[k], rows[k + 4], 0x88);
        __m512 even_high = _mm512_shuffle_f32x4(rows[k + 8], rows[k + 12], 0x88);
        __m512 odd_low = _mm512_shuffle_f32x4(rows[k], rows[k + 4], 0xdd);
        __m512 odd_high = _mm512_shuffle_f32x4(rows[k + 8], rows[k + 12], 0xdd);
        rows[k] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
        rows[k + 4] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
        rows[k + 8] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
        rows[k + 12] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
}

FLOAT_TARGET void winograd_turn_taps(float *to, const float *from, size_t tap_stride,
                                     size_t input_stride)
{
    for (size_t tap = 0; tap < WINOGRAD_TAPS; tap++) {
        const float *source = from + (WINOGRAD_TAPS - 1 - tap) * tap_stride;
        __m512 rows[WINOGRAD_LANES];
#pragma GCC unroll 16
        for (size_t i = 0; i < WINOGRAD_LANES; i++) {
            rows[i] = _mm512_loadu_ps(source + i * input_stride);
        }
        transpose(rows);
#pragma GCC unroll 16
        for (size_t i = 0; i < WINOGRAD_LANES; i++) {
            _mm512_storeu_ps(to + (tap * WINOGRAD_LANES + i) * WINOGRAD_LANES, rows[i]);
        }
    }
}

// The polynomial of three taps at the six points, divided by what makes the transforms exact.
FLOAT_INLINE void expand_three(__m512 to[SIDE], __m512 a, __m512 b, __m512 c)
{
    const __m512 share_a = constant(1.0f / (2 * A2 * (A2 - B2)));
    const __m512 share_b = constant(1.0f / (2 * B2 * (B2 - A2)));
    __m512 even_a = _mm512_mul_ps(_mm512_fmadd_ps(constant(A2), c, a), share_a);
    __m512 even_b = _mm512_mul_ps(_mm512_fmadd_ps(constant(B2), c, a), share_b);
    __m512 odd_a = _mm512_mul_ps(constant(POINT_A), b), odd_b = _mm512_mul_ps(constant(POINT_B), b);
    to[0] = _mm512_mul_ps(a, constant(1.0f / (A2 * B2)));
    to[1] = _mm512_fmadd_ps(odd_a, share_a, even_a);
    to[2] = _mm512_fnmadd_ps(odd_a, share_a, even_a);
    to[3] = _mm512_fmadd_ps(odd_b, share_b, even_b);
    to[4] = _mm512_fnmadd_ps(odd_b, share_b, even_b);
    to[5] = c;
}

FLOAT_TARGET static void transform(const struct winograd_taps *taps, char *to, size_t place_stride,
                                   size_t step_stride)
{
    for (size_t input = 0; input < STEPS; input++, to += step_stride) {
        const float *from = taps->taps + input * taps->input_stride;
        __m512 columns[3][SIDE];
#pragma GCC unroll 3
        for (size_t j = 0; j < 3; j++) {
            expand_three(columns[j], _mm512_loadu_ps(from + j * taps->tap_stride),
                         _mm512_loadu_ps(from + (j + 3) * taps->tap_stride),
                         _mm512_loadu_ps(from + (j + 6) * taps->tap_stride));
        }
#pragma GCC unroll 6
        for (size_t i = 0; i < SIDE; i++) {
            __m512 row[SIDE];
            expand_three(row, columns[0][i], columns[1][i], columns[2][i]);
#pragma GCC unroll 6
            for (size_t j = 0; j < SIDE; j++) {
                _mm512_storeu_ps(to + (i * SIDE + j) * place_stride, row[j]);
            }
        }
    }
}

const struct winograd_kernel winograd_float_kernel = {
    .tile = TILE,
    .places = PLACES,
    .slabs = PLACES,
    .steps = STEPS,
    .pixel_bytes = WINOGRAD_LANES * sizeof(float),
    .place_offset = place_offset,
    .gather = gather,
    .multiply = multiply,
    .scatter = scatter,
    .turn = winograd_turn_taps,
    .transform = transform,
};
#endif
