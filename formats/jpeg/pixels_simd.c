// Inverse DCT, chroma upsampling and colour conversion, in vectors of 16-bit integers. The order of
// the operations is part of the result: they wrap and truncate at 16 bits on the way.
#include "formats/jpeg/kernels.h"
#include "formats/jpeg/simd16.h"

// --- inverse DCT ---------------------------------------------------------------------------------

// Multiplication by a constant with 8 fractional bits: two of the other factor's 16 bits are
// shifted in first, so that the product's upper half is the result.
#define FRACTION(value) ((int)((value)*256 + 0.5) << 6)

static inline vec scale(vec quadrupled, int fraction)
{
    return mul_high16(quadrupled, all16(fraction));
}

static inline vec times4(vec a)
{
    return shift_left16(a, 2);
}

// One dimension of Arai, Agui and Nakajima's method, of as many columns as there are elements;
// x[k] is frequency k before and sample k after.
static inline void transform_columns(vec x[8])
{
    vec sum04 = add16(x[0], x[4]), difference04 = sub16(x[0], x[4]);
    vec sum26 = add16(x[2], x[6]);
    vec turned26 = sub16(scale(times4(sub16(x[2], x[6])), FRACTION(1.414213562)), sum26);
    vec even0 = add16(sum04, sum26), even3 = sub16(sum04, sum26);
    vec even1 = add16(difference04, turned26), even2 = sub16(difference04, turned26);

    vec sum17 = add16(x[1], x[7]), difference17 = times4(sub16(x[1], x[7]));
    vec sum53 = add16(x[5], x[3]), difference53 = sub16(x[5], x[3]);
    vec difference53_4 = times4(difference53);
    vec odd7 = add16(sum17, sum53);
    vec turned = scale(times4(sub16(sum17, sum53)), FRACTION(1.414213562));
    vec common = scale(add16(difference53_4, difference17), FRACTION(1.847759065));
    // -2.613 would not fit: -1.613 and -1.
    vec low = sub16(scale(difference53_4, -FRACTION(1.613125930)), difference53);
    vec odd6 = sub16(add16(low, common), odd7);
    vec odd5 = sub16(turned, odd6);
    vec odd4 = add16(sub16(scale(difference17, FRACTION(1.082392200)), common), odd5);

    x[0] = add16(even0, odd7);
    x[7] = sub16(even0, odd7);
    x[1] = add16(even1, odd6);
    x[6] = sub16(even1, odd6);
    x[2] = add16(even2, odd5);
    x[5] = sub16(even2, odd5);
    x[4] = add16(even3, odd4);
    x[3] = sub16(even3, odd4);
}

static inline void transpose16(vec x[8])
{
    vec a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = unpack_low16(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = unpack_high16(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        b[i] = unpack_low32(a[i], a[i + 2]);
        b[i + 2] = unpack_high32(a[i], a[i + 2]);
        b[i + 4] = unpack_low32(a[i + 4], a[i + 6]);
        b[i + 6] = unpack_high32(a[i + 4], a[i + 6]);
    }
    for (int i = 0; i < 2; i++) {
        x[4 * i] = unpack_low64(b[i], b[i + 4]);
        x[4 * i + 1] = unpack_high64(b[i], b[i + 4]);
        x[4 * i + 2] = unpack_low64(b[i + 2], b[i + 6]);
        x[4 * i + 3] = unpack_high64(b[i + 2], b[i + 6]);
    }
}

// Columns of samples, each in the 8 rows of a lane, to rows of bytes.
static inline void store_columns(const vec x[8], uint8_t *samples, size_t stride)
{
    vec packed[4]; // columns i and i + 4
    for (int i = 0; i < 4; i++) {
        packed[i] =
            add8(pack16(shift_right16(x[i], 5), shift_right16(x[i + 4], 5)), all16(0x8080 - 65536));
    }
    vec left01 = unpack_low8(packed[0], packed[1]), right01 = unpack_high8(packed[0], packed[1]);
    vec left23 = unpack_low8(packed[2], packed[3]), right23 = unpack_high8(packed[2], packed[3]);
    vec upper_left = unpack_low16(left01, left23), lower_left = unpack_high16(left01, left23);
    vec upper_right = unpack_low16(right01, right23), lower_right = unpack_high16(right01, right23);
    const vec rows[4] = {
        unpack_low32(upper_left, upper_right), unpack_high32(upper_left, upper_right),
        unpack_low32(lower_left, lower_right), unpack_high32(lower_left, lower_right)};
    for (size_t i = 0; i < 4; i++) {
        store_halves(samples + 2 * i * stride, samples + (2 * i + 1) * stride, rows[i]);
    }
}

static void transform(const int16_t *blocks, size_t count, const int16_t *multipliers,
                      uint8_t *samples, size_t stride)
{
    enum { PER_BLOCK = 8 / LANES, ELEMENTS = VEC_BYTES / 2 };
    vec multiplier[PER_BLOCK];
    memcpy(multiplier, multipliers, sizeof multiplier);
    for (size_t i = 0; i < count; i += LANES) {
        vec x[8];
        for (size_t k = 0; k < 8; k++) {
            x[k] = mul16(load(blocks + i * 64 + k * ELEMENTS), multiplier[k % PER_BLOCK]);
        }
        blocks_to_rows(x);
        transform_columns(x);
        transpose16(x);
        transform_columns(x);
        store_columns(x, samples + i * 8, stride);
    }
}

// --- upsampling ----------------------------------------------------------------------------------

static inline vec interleave(vec even, vec odd)
{
    return even | shift_left16(odd, 8);
}

static void double_width(const uint8_t *row, size_t count, uint8_t *out)
{
    const vec one = all16(1), two = all16(2);
    for (size_t i = 0; i < count; i += VEC_BYTES) {
        vec left = load(row + i - 1), here = load(row + i), right = load(row + i + 1);
        vec low = interleave(halve16(add16(weigh_low(here, left), one), 2),
                             halve16(add16(weigh_low(here, right), two), 2));
        vec high = interleave(halve16(add16(weigh_high(here, left), one), 2),
                              halve16(add16(weigh_high(here, right), two), 2));
        store_unpacked(out + 2 * i, low, high);
    }
    out[0] = row[0];
    out[2 * count - 1] = row[count - 1];
}

static inline vec mix(vec left, vec here, vec right)
{
    vec thrice = mul16(here, all16(3));
    return interleave(halve16(add16(add16(thrice, left), all16(8)), 4),
                      halve16(add16(add16(thrice, right), all16(7)), 4));
}

static void double_both(const uint8_t *near, const uint8_t *far, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i += VEC_BYTES) {
        vec near_left = load(near + i - 1), far_left = load(far + i - 1);
        vec near_here = load(near + i), far_here = load(far + i);
        vec near_right = load(near + i + 1), far_right = load(far + i + 1);
        vec low = mix(weigh_low(near_left, far_left), weigh_low(near_here, far_here),
                      weigh_low(near_right, far_right));
        vec high = mix(weigh_high(near_left, far_left), weigh_high(near_here, far_here),
                       weigh_high(near_right, far_right));
        store_unpacked(out + 2 * i, low, high);
    }
    int first = near[0] * 3 + far[0], last = near[count - 1] * 3 + far[count - 1];
    out[0] = (uint8_t)((first * 4 + 8) >> 4);
    out[2 * count - 1] = (uint8_t)((last * 4 + 7) >> 4);
}

static void double_height(const uint8_t *near, const uint8_t *far, int bias, size_t count,
                          uint8_t *out)
{
    const vec rounding = all16(bias);
    for (size_t i = 0; i < count; i += VEC_BYTES) {
        vec a = load(near + i), b = load(far + i);
        vec low = halve16(add16(weigh_low(a, b), rounding), 2);
        vec high = halve16(add16(weigh_high(a, b), rounding), 2);
        store(out + i, pack16_unsigned(low, high));
    }
}

// --- colour --------------------------------------------------------------------------------------

// 2 * (c - 128) of the lower or upper half of each lane.
static inline vec centre(vec halved)
{
    return sub16(add16(halved, halved), all16(256));
}

// The factors with 16 fractional bits, halved as the differences are doubled. Red's and blue's are
// half of it again, and the last digit is such that the rounding is right for every difference.
static inline vec red_of(vec cr)
{
    return mul_round16(cr, all16(22971)); // 1.402
}

static inline vec blue_of(vec cb)
{
    return mul_round16(cb, all16(29033)); // 1.772
}

static inline vec green_of(vec cb, vec cr)
{
    const vec factors = (vec)((vec_u32){0} + ((uint32_t)(uint16_t)-23401 << 16 |
                                              (uint32_t)(uint16_t)-11277)); // -0.71414, -0.34414
    vec low = mul_pairs16(unpack_low16(cb, cr), factors);
    vec high = mul_pairs16(unpack_high16(cb, cr), factors);
    return pack32(shift_right32(add32(low, 1 << 15), 16), shift_right32(add32(high, 1 << 15), 16));
}

static void convert(const uint8_t *const ycc[3], size_t count, uint8_t *const rgb[3])
{
    const vec zero = {0};
    for (size_t i = 0; i < count; i += VEC_BYTES) {
        vec y = load(ycc[0] + i), cb = load(ycc[1] + i), cr = load(ycc[2] + i);
        vec y_low = unpack_low8(y, zero), y_high = unpack_high8(y, zero);
        vec cb_low = centre(unpack_low8(cb, zero)), cb_high = centre(unpack_high8(cb, zero));
        vec cr_low = centre(unpack_low8(cr, zero)), cr_high = centre(unpack_high8(cr, zero));
        store(rgb[0] + i,
              pack16_unsigned(add16(y_low, red_of(cr_low)), add16(y_high, red_of(cr_high))));
        store(rgb[1] + i, pack16_unsigned(add16(y_low, green_of(cb_low, cr_low)),
                                          add16(y_high, green_of(cb_high, cr_high))));
        store(rgb[2] + i,
              pack16_unsigned(add16(y_low, blue_of(cb_low)), add16(y_high, blue_of(cb_high))));
    }
}

const struct jpeg_kernels ISA_NAME(jpeg_kernels) = {
    .transform = transform,
    .double_width = double_width,
    .double_both = double_both,
    .double_height = double_height,
    .convert = convert,
};
