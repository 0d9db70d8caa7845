// Bicubic resize of a row: down its four rows of bytes, then along the line. Sums in the order of
// the taps, as resize.c.
#include "augment/rows.h"
#include "augment/simd.h"

static void vertical(float *line, const uint8_t *const rows[4], const float weight[4], size_t width)
{
    vf weight0 = v_all(weight[0]), weight1 = v_all(weight[1]);
    vf weight2 = v_all(weight[2]), weight3 = v_all(weight[3]);
    const uint8_t *row0 = rows[0], *row1 = rows[1], *row2 = rows[2], *row3 = rows[3];
    for (size_t x = 0; x < width; x += LANES) {
        vf sum = weight0 * v_bytes(row0 + x) + weight1 * v_bytes(row1 + x);
        sum = sum + weight2 * v_bytes(row2 + x);
        v_store(line + x, sum + weight3 * v_bytes(row3 + x));
    }
}

SIMD_INLINE struct v_four weights_of(const struct row_columns *columns, size_t x)
{
    return (struct v_four){v_load(columns->weight[0] + x), v_load(columns->weight[1] + x),
                           v_load(columns->weight[2] + x), v_load(columns->weight[3] + x)};
}

SIMD_INLINE vf weigh(struct v_four taps, struct v_four weights)
{
    vf sum = weights.a * taps.a + weights.b * taps.b + weights.c * taps.c + weights.d * taps.d;
    return v_clip(sum * v_all(1.0f / 255.0f));
}

static void horizontal_far(float *const out[3], const float *const line[3], uint32_t planes,
                           const struct row_columns *columns)
{
    for (size_t x = 0; x < columns->count; x += LANES) {
        struct v_four weights = weights_of(columns, x);
        for (size_t plane = 0; plane < planes; plane++) {
            struct v_four taps = v_gather(line[plane], columns->first + x);
            v_store(out[plane] + x, weigh(taps, weights));
        }
    }
}

#if LANES == 16
// All 16 outputs and their taps lie within 32 values: two vectors to pick from.
static void horizontal_near(float *const out[3], const float *const line[3], uint32_t planes,
                            const struct row_columns *columns)
{
    const __m512i one = _mm512_set1_epi32(1);
    for (size_t x = 0; x < columns->count; x += LANES) {
        const int32_t *first = columns->first + x;
        int32_t base = first[0] < first[LANES - 1] ? first[0] : first[LANES - 1];
        struct v_four weights = weights_of(columns, x);
        __m512i a = _mm512_sub_epi32(_mm512_loadu_si512(first), _mm512_set1_epi32(base));
        __m512i b = _mm512_add_epi32(a, one), c = _mm512_add_epi32(b, one);
        __m512i d = _mm512_add_epi32(c, one);
        for (size_t plane = 0; plane < planes; plane++) {
            vf low = v_load(line[plane] + base), high = v_load(line[plane] + base + LANES);
            struct v_four taps = {
                _mm512_permutex2var_ps(low, a, high), _mm512_permutex2var_ps(low, b, high),
                _mm512_permutex2var_ps(low, c, high), _mm512_permutex2var_ps(low, d, high)};
            v_store(out[plane] + x, weigh(taps, weights));
        }
    }
}
#endif

static void horizontal(float *const out[3], const float *const line[3], uint32_t planes,
                       const struct row_columns *columns)
{
#if LANES == 16
    if (columns->reach + 3 < 2 * LANES) {
        horizontal_near(out, line, planes, columns);
        return;
    }
#endif
    horizontal_far(out, line, planes, columns);
}

const struct resize_kernels ISA_NAME(resize_kernels) = {
    .vertical = vertical,
    .horizontal = horizontal,
};
