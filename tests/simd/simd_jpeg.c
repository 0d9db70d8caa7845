// The kernels of the JPEG pixel stage against the same arithmetic written plainly, one number at a
// time. Rows lie between guard pages that leave just what kernels.h says may be touched.
#include "formats/jpeg/kernels.h"
#include "tests/simd/guard.h"
#include "tests/simd/simd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BLOCKS  9
#define MOST_SAMPLES 200

// --- plain C -------------------------------------------------------------------------------------

static int16_t wrap(int value)
{
    return (int16_t)(uint16_t)value;
}

// value * factor, the factor having 8 fractional bits; two bits of `value` are lost to overflow.
static int16_t scale(int value, int factor)
{
    return wrap((wrap(value * 4) * (factor * 64)) >> 16);
}

static void transform_line(int16_t *x, size_t step)
{
    int16_t s04 = wrap(x[0] + x[4 * step]), d04 = wrap(x[0] - x[4 * step]);
    int16_t s26 = wrap(x[2 * step] + x[6 * step]);
    int16_t t26 = wrap(scale(x[2 * step] - x[6 * step], 362) - s26);
    int16_t even[4] = {wrap(s04 + s26), wrap(d04 + t26), wrap(d04 - t26), wrap(s04 - s26)};
    int16_t s17 = wrap(x[step] + x[7 * step]), d17 = wrap(x[step] - x[7 * step]);
    int16_t s53 = wrap(x[5 * step] + x[3 * step]), d53 = wrap(x[5 * step] - x[3 * step]);
    int16_t z5 = scale(d53 + d17, 473);
    int16_t o7 = wrap(s17 + s53);
    int16_t o6 = wrap(scale(d53, -413) - d53 + z5 - o7);
    int16_t o5 = wrap(scale(s17 - s53, 362) - o6);
    int16_t o4 = wrap(scale(d17, 277) - z5 + o5);
    const int16_t odd[4] = {o7, o6, o5, wrap(-o4)};
    for (size_t i = 0; i < 4; i++) {
        x[i * step] = wrap(even[i] + odd[i]);
        x[(7 - i) * step] = wrap(even[i] - odd[i]);
    }
}

static void plain_transform(const int16_t *block, const int16_t *multipliers, uint8_t *samples,
                            size_t stride)
{
    int16_t x[64];
    for (int i = 0; i < 64; i++) {
        x[i] = wrap(block[i] * multipliers[i]);
    }
    for (size_t i = 0; i < 8; i++) {
        transform_line(x + i, 8);
    }
    for (size_t i = 0; i < 8; i++) {
        transform_line(x + 8 * i, 1);
        for (size_t k = 0; k < 8; k++) {
            int value = x[8 * i + k] >> 5;
            value = value < -128 ? -128 : value > 127 ? 127 : value;
            samples[i * stride + k] = (uint8_t)(value + 128);
        }
    }
}

static void plain_double(const int *sums, size_t count, int unit, uint8_t *out)
{
    int bits = unit == 1 ? 2 : 4; // of the fraction
    for (size_t i = 0; i < count; i++) {
        int left = sums[i > 0 ? i - 1 : 0], right = sums[i + 1 < count ? i + 1 : i];
        out[2 * i] = (uint8_t)((3 * sums[i] + left + (unit == 1 ? 1 : 8)) >> bits);
        out[2 * i + 1] = (uint8_t)((3 * sums[i] + right + (unit == 1 ? 2 : 7)) >> bits);
    }
}

static uint8_t clamp(int value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static int rounded(int product)
{
    return (product + 32768) >> 16;
}

static void plain_convert(const uint8_t *const ycc[3], size_t count, uint8_t *const rgb[3])
{
    for (size_t i = 0; i < count; i++) {
        int y = ycc[0][i], cb = ycc[1][i] - 128, cr = ycc[2][i] - 128;
        rgb[0][i] = clamp(y + rounded(91881 * cr));
        rgb[1][i] = clamp(y + rounded(-22554 * cb - 46802 * cr));
        rgb[2][i] = clamp(y + rounded(116130 * cb));
    }
}

// --- cases ---------------------------------------------------------------------------------------

struct buffers {
    struct guard in[3], out[3], blocks;
};

static int differs(const char *what, enum isa isa, size_t count, const uint8_t *got,
                   const uint8_t *want, size_t len)
{
    if (memcmp(got, want, len) == 0) {
        return 0;
    }
    printf("%s of %zu at level %s differs from plain C\n", what, count, isa_name(isa));
    return 1;
}

// Coefficients as photographs have them, or any at all.
static void fill_blocks(uint64_t *state, int16_t *blocks, size_t count, int16_t multipliers[64])
{
    bool wild = simd_between(state, 0, 3) == 0;
    for (size_t i = 0; i < count * 64; i++) {
        int value = (int)simd_between(state, 0, 200) - 100;
        bool rare = simd_between(state, 0, 4) == 0;
        blocks[i] = wrap(wild ? (int)simd_random(state) : rare ? value : 0);
    }
    for (size_t i = 0; i < 64; i++) {
        multipliers[i] = wrap(wild ? (int)simd_random(state) : (int)simd_between(state, 4, 300));
    }
}

static int check_transform(uint64_t *state, struct buffers *buffers, enum isa isa,
                           const struct jpeg_kernels *kernels)
{
    size_t count = simd_between(state, 1, MOST_BLOCKS);
    size_t room = (count + JPEG_BLOCKS_BEYOND) * 8, stride = room + simd_between(state, 0, 9);
    _Alignas(64) int16_t multipliers[64];
    int16_t *blocks =
        guard_last(&buffers->blocks, (count + JPEG_BLOCKS_BEYOND) * 64 * sizeof *blocks);
    uint8_t *got = guard_last(&buffers->out[0], 7 * stride + room), want[8 * MOST_BLOCKS];
    fill_blocks(state, blocks, count + JPEG_BLOCKS_BEYOND, multipliers);
    kernels->transform(blocks, count, multipliers, got, stride);
    for (size_t y = 0; y < 8; y++) {
        for (size_t i = 0; i < count; i++) {
            uint8_t block[64];
            plain_transform(blocks + i * 64, multipliers, block, 8);
            memcpy(want + 8 * i, block + 8 * y, 8);
        }
        if (differs("inverse DCT", isa, count, got + y * stride, want, 8 * count)) {
            return 1;
        }
    }
    return 0;
}

static uint8_t *fill_row(uint64_t *state, const struct guard *guard, size_t count)
{
    uint8_t *row = guard_last(guard, count + JPEG_READ_BEYOND);
    uint32_t range = simd_between(state, 0, 1) ? 255 : 3;
    for (size_t i = 0; i < count + JPEG_READ_BEYOND; i++) {
        row[i] = (uint8_t)(simd_between(state, 0, range) * (255 / range));
    }
    row[-JPEG_READ_BEFORE] = (uint8_t)simd_random(state);
    return row;
}

static int check_upsampling(uint64_t *state, struct buffers *buffers, enum isa isa,
                            const struct jpeg_kernels *kernels)
{
    size_t count = simd_between(state, 1, MOST_SAMPLES);
    const uint8_t *near = fill_row(state, &buffers->in[0], count);
    const uint8_t *far = fill_row(state, &buffers->in[1], count);
    uint8_t *got = guard_last(&buffers->out[0], 2 * count + JPEG_WRITE_BEYOND);
    uint8_t want[2 * MOST_SAMPLES];
    int bias = (int)simd_between(state, 1, 2), once[MOST_SAMPLES] = {0}, sums[MOST_SAMPLES] = {0};
    for (size_t i = 0; i < count; i++) {
        once[i] = near[i];
        sums[i] = 3 * near[i] + far[i];
    }
    plain_double(once, count, 1, want);
    kernels->double_width(near, count, got);
    int wrong = differs("double width", isa, count, got, want, 2 * count);
    plain_double(sums, count, 4, want);
    kernels->double_both(near, far, count, got);
    wrong |= differs("double both", isa, count, got, want, 2 * count);
    for (size_t i = 0; i < count; i++) {
        want[i] = (uint8_t)((sums[i] + bias) >> 2);
    }
    kernels->double_height(near, far, bias, count, got);
    return wrong | differs("double height", isa, count, got, want, count);
}

static int check_convert(uint64_t *state, struct buffers *buffers, enum isa isa,
                         const struct jpeg_kernels *kernels)
{
    size_t count = simd_between(state, 1, MOST_SAMPLES);
    const uint8_t *from[3];
    uint8_t *got[3], plain[3][MOST_SAMPLES], *const want[3] = {plain[0], plain[1], plain[2]};
    for (int c = 0; c < 3; c++) {
        from[c] = fill_row(state, &buffers->in[c], count);
        got[c] = guard_last(&buffers->out[c], (count + 63) / 64 * 64);
    }
    kernels->convert(from, count, got);
    plain_convert(from, count, want);
    int wrong = 0;
    for (int c = 0; c < 3; c++) {
        wrong |= differs("colour", isa, count, got[c], want[c], count);
    }
    return wrong;
}

// All differences of colour there are; the factors' last digits are chosen for them.
static int check_every_colour(enum isa isa, const struct jpeg_kernels *kernels)
{
    enum { SIDE = 256 };
    static _Alignas(64) uint8_t in[3][SIDE + JPEG_READ_BEYOND], got[3][SIDE], want[3][SIDE];
    const uint8_t *from[3] = {in[0], in[1], in[2]};
    uint8_t *const to[3] = {got[0], got[1], got[2]}, *const expected[3] = {want[0], want[1],
                                                                           want[2]};
    for (int cr = 0; cr < SIDE; cr++) {
        for (int i = 0; i < SIDE; i++) {
            in[0][i] = 128;
            in[1][i] = (uint8_t)i;
            in[2][i] = (uint8_t)cr;
        }
        kernels->convert(from, SIDE, to);
        plain_convert(from, SIDE, expected);
        if (differs("colour", isa, SIDE, got[0], want[0], sizeof got)) {
            return 1;
        }
    }
    return 0;
}

static int check(long rounds, uint64_t seed)
{
    enum isa levels[ISA_COUNT];
    size_t count = simd_levels(levels);
    struct buffers buffers = {
        .blocks = guard_open((MOST_BLOCKS + JPEG_BLOCKS_BEYOND) * 64 * sizeof(int16_t))};
    for (int c = 0; c < 3; c++) {
        buffers.in[c] = guard_open(4096);
        buffers.out[c] = guard_open(4096);
    }
    int wrong = 0;
    for (size_t i = 0; i < count && wrong == 0; i++) {
        const struct jpeg_kernels *kernels = ISA_SELECT(jpeg_kernels, levels[i]);
        uint64_t state = seed;
        wrong = check_every_colour(levels[i], kernels);
        for (long round = 0; round < rounds && wrong == 0; round++) {
            wrong = check_transform(&state, &buffers, levels[i], kernels) |
                    check_upsampling(&state, &buffers, levels[i], kernels) |
                    check_convert(&state, &buffers, levels[i], kernels);
        }
    }
    guard_close(&buffers.blocks);
    for (int c = 0; c < 3; c++) {
        guard_close(&buffers.in[c]);
        guard_close(&buffers.out[c]);
    }
    return wrong;
}

// --- times ---------------------------------------------------------------------------------------

#define TIMED_BLOCKS 64
#define TIMED_PIXELS (TIMED_BLOCKS * 8)

struct timed {
    _Alignas(64) int16_t blocks[(TIMED_BLOCKS + JPEG_BLOCKS_BEYOND) * 64];
    _Alignas(64) int16_t multipliers[64];
    _Alignas(64) uint8_t in[3][64 + TIMED_PIXELS + JPEG_READ_BEYOND];
    _Alignas(64) uint8_t out[8][TIMED_PIXELS + 2 * JPEG_WRITE_BEYOND];
    const struct jpeg_kernels *kernels;
};

static void run_transform(void *context)
{
    struct timed *t = context;
    t->kernels->transform(t->blocks, TIMED_BLOCKS, t->multipliers, t->out[0], sizeof t->out[0]);
}

static void run_double_width(void *context)
{
    struct timed *t = context;
    t->kernels->double_width(t->in[0] + 64, TIMED_PIXELS / 2, t->out[0]);
}

static void run_double_both(void *context)
{
    struct timed *t = context;
    t->kernels->double_both(t->in[0] + 64, t->in[1] + 64, TIMED_PIXELS / 2, t->out[0]);
}

static void run_double_height(void *context)
{
    struct timed *t = context;
    t->kernels->double_height(t->in[0] + 64, t->in[1] + 64, 1, TIMED_PIXELS, t->out[0]);
}

static void run_convert(void *context)
{
    struct timed *t = context;
    const uint8_t *const from[3] = {t->in[0] + 64, t->in[1] + 64, t->in[2] + 64};
    uint8_t *const to[3] = {t->out[0], t->out[1], t->out[2]};
    t->kernels->convert(from, TIMED_PIXELS, to);
}

static void time_jpeg(void)
{
    struct timed *timed = aligned_alloc(64, sizeof *timed);
    enum isa levels[ISA_COUNT];
    size_t count = simd_levels(levels);
    uint64_t state = 1;
    if (timed == NULL) {
        return;
    }
    fill_blocks(&state, timed->blocks, TIMED_BLOCKS + JPEG_BLOCKS_BEYOND, timed->multipliers);
    memset(timed->in, 100, sizeof timed->in);
    for (size_t i = 0; i < count; i++) {
        timed->kernels = ISA_SELECT(jpeg_kernels, levels[i]);
        simd_report("JPEG inverse DCT (per block)", levels[i], TIMED_BLOCKS, run_transform, timed);
        simd_report("JPEG 2x1 upsampling, a component", levels[i], TIMED_PIXELS, run_double_width,
                    timed);
        simd_report("JPEG 2x2 upsampling, a component", levels[i], TIMED_PIXELS, run_double_both,
                    timed);
        simd_report("JPEG 1x2 upsampling, a component", levels[i], TIMED_PIXELS, run_double_height,
                    timed);
        simd_report("JPEG colour conversion", levels[i], TIMED_PIXELS, run_convert, timed);
    }
    free(timed);
}

const struct simd_suite simd_suite_jpeg = {"jpeg", check, time_jpeg};
