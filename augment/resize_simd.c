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

SIMD_INLINE vf weigh(const vf tap[4], const vf weight[4])
{
    vf sum = weight[0] * tap[0] + weight[1] * tap[1] + weight[2] * tap[2] + weight[3] * tap[3];
    return v_clip(sum * v_all(1.0f / 255.0f));
}

SIMD_INLINE void load_weights(vf weight[4], const struct row_columns *columns, size_t x)
{
    for (size_t tap = 0; tap < 4; tap++) {
        weight[tap] = v_load(columns->weight[tap] + x);
    }
}

static void horizontal_far(float *const out[3], const float *const line[3], uint32_t planes,
                           const struct row_columns *columns)
{
    for (size_t x = 0; x < columns->count; x += LANES) {
        vf tap[4], weight[4];
        load_weights(weight, columns, x);
        for (size_t plane = 0; plane < planes; plane++) {
            v_taps(tap, line[plane], columns->first + x);
            v_store(out[plane] + x, weigh(tap, weight));
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
        vf tap[4], weight[4];
        load_weights(weight, columns, x);
        __m512i at[4];
        at[0] = _mm512_sub_epi32(_mm512_loadu_si512(first), _mm512_set1_epi32(base));
        for (size_t t = 1; t < 4; t++) {
            at[t] = _mm512_add_epi32(at[t - 1], one);
        }
        for (size_t plane = 0; plane < planes; plane++) {
            vf low = v_load(line[plane] + base), high = v_load(line[plane] + base + LANES);
            for (size_t t = 0; t < 4; t++) {
                tap[t] = _mm512_permutex2var_ps(low, at[t], high);
            }
            v_store(out[plane] + x, weigh(tap, weight));
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
