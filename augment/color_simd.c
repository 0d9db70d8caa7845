// Colour operations on a row, as many in one go as there are: pixels stay in registers from the
// first step to the last.
#include "augment/rows.h"
#include "augment/simd.h"

#define BLOCK 2 // vectors per plane taken through the steps together

struct block {
    vf x[3][BLOCK];
};

SIMD_INLINE void brighten(struct block *block, size_t planes, const struct row_step *step)
{
    vf amount = v_all(step->amount);
    for (size_t plane = 0; plane < planes; plane++) {
        for (size_t i = 0; i < BLOCK; i++) {
            block->x[plane][i] = v_clip(block->x[plane][i] + amount);
        }
    }
}

SIMD_INLINE void contrast(struct block *block, size_t planes, const struct row_step *step)
{
    vf amount = v_all(step->amount);
    for (size_t plane = 0; plane < planes; plane++) {
        vf mean = v_all(step->mean[plane]);
        for (size_t i = 0; i < BLOCK; i++) {
            block->x[plane][i] = v_clip(amount * (block->x[plane][i] - mean) + mean);
        }
    }
}

// With v = max, range = max - min and chroma' = min(range * amount, v), which is s' * v: each
// channel becomes v - chroma' * a, where a depends on the angle to that channel's own hue.
SIMD_INLINE void hsv_one(vf *red, vf *green, vf *blue, vf amount, vf sixths)
{
    vf r = *red, g = *green, b = *blue, one = v_all(1), six = v_all(6);
    vf most = v_larger(v_larger(r, g), b);
    vf range = most - v_smaller(v_smaller(r, g), b);
    vf slope = one / v_larger(range, v_all(1e-30f)); // grey: anything finite will do
    vm is_red = v_equal(r, most), is_green = v_equal(g, most);
    vf difference = v_choose(is_red, g - b, v_choose(is_green, b - r, r - g));
    vf start = v_choose(is_red, v_all(0), v_choose(is_green, v_all(2), v_all(4)));
    vf angle = difference * slope + start + sixths;
    angle = v_choose(v_less(angle, v_all(0)), angle + six, angle);
    angle = v_choose(v_less(angle, six), angle, angle - six);
    vf chroma = v_smaller(range * amount, most);
    *red = most - chroma * v_clip(v_all(2) - v_magnitude(angle - v_all(3)));
    *green = most - chroma * v_clip(v_magnitude(angle - v_all(2)) - one);
    *blue = most - chroma * v_clip(v_magnitude(angle - v_all(4)) - one);
}

// The same with no turn: every channel keeps its share of the range.
SIMD_INLINE void saturate_one(vf *red, vf *green, vf *blue, vf amount)
{
    vf most = v_larger(v_larger(*red, *green), *blue);
    vf range = most - v_smaller(v_smaller(*red, *green), *blue);
    vf factor = v_smaller(amount, most / v_larger(range, v_all(1e-30f)));
    *red = v_larger(most - (most - *red) * factor, v_all(0));
    *green = v_larger(most - (most - *green) * factor, v_all(0));
    *blue = v_larger(most - (most - *blue) * factor, v_all(0));
}

SIMD_INLINE void hsv(struct block *block, const struct row_step *step)
{
    vf amount = v_all(step->amount), sixths = v_all(step->turn * 6.0f);
    for (size_t i = 0; i < BLOCK; i++) {
        hsv_one(&block->x[0][i], &block->x[1][i], &block->x[2][i], amount, sixths);
    }
}

SIMD_INLINE void saturate(struct block *block, const struct row_step *step)
{
    vf amount = v_all(step->amount);
    for (size_t i = 0; i < BLOCK; i++) {
        saturate_one(&block->x[0][i], &block->x[1][i], &block->x[2][i], amount);
    }
}

SIMD_INLINE void grayscale(struct block *block, size_t planes)
{
    for (size_t i = 0; i < BLOCK; i++) {
        vf r = block->x[0][i], g = planes == 3 ? block->x[1][i] : r;
        vf b = planes == 3 ? block->x[2][i] : r;
        block->x[0][i] = v_all(0.2989f) * r + v_all(0.5870f) * g + v_all(0.1140f) * b;
    }
}

SIMD_INLINE void apply_steps(struct block *block, size_t planes, const struct row_step *steps,
                             size_t count)
{
    for (const struct row_step *step = steps; step < steps + count; step++) {
        switch (step->op) {
        case ROW_BRIGHTNESS:
            brighten(block, planes, step);
            break;
        case ROW_CONTRAST:
            contrast(block, planes, step);
            break;
        case ROW_HSV:
            if (planes == 3 && step->turn != 0) {
                hsv(block, step);
            } else if (planes == 3) {
                saturate(block, step);
            }
            break;
        case ROW_GRAYSCALE:
            grayscale(block, planes);
            break;
        }
    }
}

// A vector of sums holds half as many lanes as there are pixels: even and odd ones by themselves.
struct totals {
    vl even[3], odd[3];
};

SIMD_INLINE void sum_up(struct totals *totals, size_t planes, const struct block *block, size_t x,
                        size_t width)
{
    static const int32_t within[2 * ROW_LANES] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                  -1, -1, -1, -1, -1, -1, -1, -1};
    for (size_t i = 0; i < BLOCK; i++, x += LANES) {
        size_t left = x < width ? width - x : 0;
        vi mask;
        memcpy(&mask, within + ROW_LANES - (left < ROW_LANES ? left : ROW_LANES), sizeof mask);
        for (size_t plane = 0; plane < planes; plane++) {
            vl units = (vl)((vi)v_truncate(block->x[plane][i] * v_all(0x1p30f)) & mask);
            totals->even[plane] += units & 0xffffffff;
            totals->odd[plane] += units >> 32;
        }
    }
}

SIMD_INLINE void apply_planes(float *const out[3], const float *const in[3], size_t planes,
                              size_t width, const struct row_step *steps, size_t count,
                              struct row_sums *sums)
{
    struct totals totals = {0};
    size_t left = count > 0 && steps[count - 1].op == ROW_GRAYSCALE ? 1 : planes;
    for (size_t x = 0; x < width; x += BLOCK * LANES) {
        struct block block;
        for (size_t plane = 0; plane < planes; plane++) {
            for (size_t i = 0; i < BLOCK; i++) {
                block.x[plane][i] = v_load(in[plane] + x + i * LANES);
            }
        }
        apply_steps(&block, planes, steps, count);
        if (sums != NULL) {
            sum_up(&totals, planes, &block, x, width);
        }
        for (size_t plane = 0; plane < left; plane++) {
            for (size_t i = 0; i < BLOCK; i++) {
                v_store(out[plane] + x + i * LANES, block.x[plane][i]);
            }
        }
    }
    for (size_t plane = 0; sums != NULL && plane < planes; plane++) {
        vl lanes[2];
        memcpy(lanes, sums->lane[plane], sizeof lanes);
        lanes[0] += totals.even[plane];
        lanes[1] += totals.odd[plane];
        memcpy(sums->lane[plane], lanes, sizeof lanes);
    }
}

static void apply(float *const out[3], const float *const in[3], uint32_t planes, size_t width,
                  const struct row_step *steps, size_t count, struct row_sums *sums)
{
    if (planes == 3) {
        apply_planes(out, in, 3, width, steps, count, sums);
    } else {
        apply_planes(out, in, 1, width, steps, count, sums);
    }
}

const struct color_kernels ISA_NAME(color_kernels) = {.apply = apply};
