// Colour operations on a row, as many in one go as there are: pixels stay in registers from the
// first step to the last.
#include "augment/rows.h"
#include "augment/simd.h"

// Fields rather than arrays, which compilers would keep in memory.
struct pixels {
    vf r, g, b;
};

SIMD_INLINE void brighten(struct pixels *pixels, vf amount)
{
    pixels->r = v_clip(pixels->r + amount);
    pixels->g = v_clip(pixels->g + amount);
    pixels->b = v_clip(pixels->b + amount);
}

SIMD_INLINE void contrast(struct pixels *pixels, vf amount, const float mean[3])
{
    pixels->r = v_clip(amount * (pixels->r - v_all(mean[0])) + v_all(mean[0]));
    pixels->g = v_clip(amount * (pixels->g - v_all(mean[1])) + v_all(mean[1]));
    pixels->b = v_clip(amount * (pixels->b - v_all(mean[2])) + v_all(mean[2]));
}

// With v = max, range = max - min and chroma' = min(range * amount, v), which is s' * v: each
// channel becomes v - chroma' * a, where a depends on the angle to that channel's own hue.
SIMD_INLINE void hsv(struct pixels *pixels, vf amount, vf sixths)
{
    vf r = pixels->r, g = pixels->g, b = pixels->b, one = v_all(1), six = v_all(6);
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
    pixels->r = most - chroma * v_clip(v_all(2) - v_magnitude(angle - v_all(3)));
    pixels->g = most - chroma * v_clip(v_magnitude(angle - v_all(2)) - one);
    pixels->b = most - chroma * v_clip(v_magnitude(angle - v_all(4)) - one);
}

// The same with no turn: every channel keeps its share of the range.
SIMD_INLINE void saturate(struct pixels *pixels, vf amount, bool limited)
{
    vf r = pixels->r, g = pixels->g, b = pixels->b;
    vf most = v_larger(v_larger(r, g), b);
    vf range = most - v_smaller(v_smaller(r, g), b);
    // A factor of at most 1 cannot lift s above 1.
    vf factor = limited ? v_smaller(amount, most / v_larger(range, v_all(1e-30f))) : amount;
    pixels->r = v_larger(most - (most - r) * factor, v_all(0));
    pixels->g = v_larger(most - (most - g) * factor, v_all(0));
    pixels->b = v_larger(most - (most - b) * factor, v_all(0));
}

SIMD_INLINE void grayscale(struct pixels *pixels)
{
    pixels->r =
        v_all(0.2989f) * pixels->r + v_all(0.5870f) * pixels->g + v_all(0.1140f) * pixels->b;
}

SIMD_INLINE void apply_steps(struct pixels *pixels, bool grey, const struct row_step *steps,
                             size_t count)
{
    for (const struct row_step *step = steps; step < steps + count; step++) {
        vf amount = v_all(step->amount);
        switch (step->op) {
        case ROW_BRIGHTNESS:
            brighten(pixels, amount);
            break;
        case ROW_CONTRAST:
            contrast(pixels, amount, step->mean);
            break;
        case ROW_HSV:
            if (!grey && step->turn != 0) {
                hsv(pixels, amount, v_all(step->turn * 6.0f));
            } else if (!grey && step->amount > 1) {
                saturate(pixels, amount, true);
            } else if (!grey) {
                saturate(pixels, amount, false);
            }
            break;
        case ROW_GRAYSCALE:
            grayscale(pixels);
            break;
        }
    }
}

// A vector of sums holds half as many lanes as there are pixels: even and odd ones by themselves.
struct total {
    vl even, odd;
};

SIMD_INLINE void sum_up(struct total *total, vf pixels, vi mask)
{
    vl units = (vl)((vi)v_truncate(pixels * v_all(0x1p30f)) & mask);
    total->even += units & 0xffffffff;
    total->odd += units >> 32;
}

// All ones in the first `left` lanes.
SIMD_INLINE vi first_lanes(size_t left)
{
    static const int32_t ones[2 * ROW_LANES] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                -1, -1, -1, -1, -1, -1, -1, -1};
    vi mask;
    memcpy(&mask, ones + ROW_LANES - (left < ROW_LANES ? left : ROW_LANES), sizeof mask);
    return mask;
}

static void add_total(uint64_t lane[ROW_LANES], const struct total *total)
{
    struct total sum;
    memcpy(&sum, lane, sizeof sum);
    sum.even += total->even;
    sum.odd += total->odd;
    memcpy(lane, &sum, sizeof sum);
}

SIMD_INLINE struct pixels load(const float *const in[3], bool grey, size_t x)
{
    vf r = v_load(in[0] + x);
    return grey ? (struct pixels){r, r, r}
                : (struct pixels){r, v_load(in[1] + x), v_load(in[2] + x)};
}

SIMD_INLINE void store(float *const out[3], bool grey, size_t x, const struct pixels *pixels)
{
    v_store(out[0] + x, pixels->r);
    if (!grey) {
        v_store(out[1] + x, pixels->g);
        v_store(out[2] + x, pixels->b);
    }
}

SIMD_INLINE void apply_row(float *const out[3], const float *const in[3], bool grey, size_t width,
                           const struct row_step *steps, size_t count, struct row_sums *sums)
{
    struct total r = {0}, g = {0}, b = {0};
    bool ends_grey = grey || (count > 0 && steps[count - 1].op == ROW_GRAYSCALE);
    for (size_t x = 0; x < width; x += LANES) {
        struct pixels pixels = load(in, grey, x);
        apply_steps(&pixels, grey, steps, count);
        if (sums != NULL) {
            vi mask = first_lanes(width - x);
            sum_up(&r, pixels.r, mask);
            if (!grey) {
                sum_up(&g, pixels.g, mask);
                sum_up(&b, pixels.b, mask);
            }
        }
        store(out, ends_grey, x, &pixels);
    }
    if (sums != NULL) {
        add_total(sums->lane[0], &r);
        add_total(sums->lane[1], &g);
        add_total(sums->lane[2], &b);
    }
}

static void apply(float *const out[3], const float *const in[3], uint32_t planes, size_t width,
                  const struct row_step *steps, size_t count, struct row_sums *sums)
{
    float *const to[3] = {out[0], out[1], out[2]};
    const float *const from[3] = {in[0], in[1], in[2]};
    if (planes == 1) {
        apply_row(to, from, true, width, steps, count, sums);
    } else if (sums != NULL) {
        apply_row(to, from, false, width, steps, count, sums);
    } else {
        apply_row(to, from, false, width, steps, count, NULL);
    }
}

const struct color_kernels ISA_NAME(color_kernels) = {.apply = apply};
