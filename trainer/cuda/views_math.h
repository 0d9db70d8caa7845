// What is done to one pixel of a view after crop and resize: the formulas of augment/color.c and
// augment/blur.c, once more for the GPU. Compiled as C they give the same bits. Private to the
// cuda device.
#ifndef TRAINER_CUDA_VIEWS_MATH_H
#define TRAINER_CUDA_VIEWS_MATH_H

#include "augment/record.h"
#include "trainer/cuda/lanes.h"

#include <math.h>
#include <stdbool.h>

struct views_pixel {
    float r, g, b; // or hue in turns, saturation, value
};

static CUDA_BOTH float views_clip(float x)
{
    return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x;
}

static CUDA_BOTH struct views_pixel views_clipped(struct views_pixel x)
{
    x.r = views_clip(x.r);
    x.g = views_clip(x.g);
    x.b = views_clip(x.b);
    return x;
}

static CUDA_BOTH struct views_pixel views_of_bytes(uint8_t r, uint8_t g, uint8_t b)
{
    const float reciprocal = 1.0f / 255.0f;
    struct views_pixel x;
    x.r = (float)r * reciprocal;
    x.g = (float)g * reciprocal;
    x.b = (float)b * reciprocal;
    return views_clipped(x);
}

static CUDA_BOTH struct views_pixel views_brightness(struct views_pixel x, float delta)
{
    x.r += delta;
    x.g += delta;
    x.b += delta;
    return x;
}

// About each channel's mean over the view, as the operations before left it.
static CUDA_BOTH struct views_pixel views_contrast(struct views_pixel x, float factor,
                                                   struct views_pixel mean)
{
    x.r = factor * (x.r - mean.r) + mean.r;
    x.g = factor * (x.g - mean.g) + mean.g;
    x.b = factor * (x.b - mean.b) + mean.b;
    return x;
}

// What a clipped value adds to the sum that a mean is made of: an integer, so that sums do not
// depend on their order.
#define VIEWS_UNIT 0x1p30f
static CUDA_BOTH uint32_t views_units(float x)
{
    return (uint32_t)(x * VIEWS_UNIT);
}

static CUDA_BOTH float views_mean(uint64_t units, double pixels)
{
    return (float)((double)units * (1.0 / (double)VIEWS_UNIT) / pixels);
}

static CUDA_BOTH struct views_pixel views_hsv_of(struct views_pixel x)
{
    float larger = x.r > x.g ? x.r : x.g, smaller = x.r < x.g ? x.r : x.g;
    float most = larger > x.b ? larger : x.b;
    float range = most - (smaller < x.b ? smaller : x.b);
    float slope = range > 0.0f ? 1.0f / (6.0f * range) : 0.0f;
    float hue = slope * (x.r - x.g) + 4.0f / 6.0f;
    hue = x.g == most ? slope * (x.b - x.r) + 2.0f / 6.0f : hue;
    hue = x.r == most ? slope * (x.g - x.b) : hue;
    struct views_pixel hsv;
    hsv.r = hue < 0.0f ? hue + 1.0f : hue;
    hsv.g = most > 0.0f ? range / most : 0.0f;
    hsv.b = most;
    return hsv;
}

static CUDA_BOTH float views_fraction(float turns)
{
    return turns - floorf(turns);
}

static CUDA_BOTH struct views_pixel views_of_hsv(struct views_pixel hsv)
{
    float chroma = hsv.g * hsv.b;
    float least = hsv.b - chroma;
    float angle = views_fraction(hsv.r) * 6.0f;
    int sector = (int)angle; // 6 where a tiny negative hue rounds up to a whole turn
    float within = angle - (float)(sector - sector % 2);
    float middle = chroma * (1.0f - fabsf(within - 1.0f)) + least, most = chroma + least;
    sector = sector == 6 ? 0 : sector;
    struct views_pixel x;
    x.r = sector == 0 || sector == 5 ? most : sector == 1 || sector == 4 ? middle : least;
    x.g = sector == 1 || sector == 2 ? most : sector == 0 || sector == 3 ? middle : least;
    x.b = sector == 3 || sector == 4 ? most : sector == 2 || sector == 5 ? middle : least;
    return x;
}

static CUDA_BOTH struct views_pixel views_saturation(struct views_pixel x, float factor)
{
    struct views_pixel hsv = views_hsv_of(x);
    hsv.g = views_clip(hsv.g * factor);
    return views_of_hsv(hsv);
}

static CUDA_BOTH struct views_pixel views_hue(struct views_pixel x, float delta)
{
    struct views_pixel hsv = views_hsv_of(x);
    hsv.r = views_fraction(hsv.r + delta);
    return views_of_hsv(hsv);
}

static CUDA_BOTH struct views_pixel views_grayscale(struct views_pixel x)
{
    x.r = x.g = x.b = 0.2989f * x.r + 0.5870f * x.g + 0.1140f * x.b;
    return x;
}

// One operation of the jitter, and the clip after it. `mean` is read by contrast.
static CUDA_BOTH struct views_pixel views_jitter(const struct view_record *record, uint8_t op,
                                                 struct views_pixel x, struct views_pixel mean)
{
    switch (op) {
    case VIEW_BRIGHTNESS:
        x = views_brightness(x, record->brightness);
        break;
    case VIEW_CONTRAST:
        x = views_contrast(x, record->contrast, mean);
        break;
    case VIEW_SATURATION:
        x = views_saturation(x, record->saturation);
        break;
    default:
        x = views_hue(x, record->hue);
        break;
    }
    return views_clipped(x);
}

// What contrast's mean is taken of: the pixel after the operations before it.
static CUDA_BOTH struct views_pixel views_before_contrast(const struct view_record *record,
                                                          struct views_pixel x)
{
    for (int i = 0; i < 4 && record->order[i] != VIEW_CONTRAST; i++) {
        x = views_jitter(record, record->order[i], x, x);
    }
    return x;
}

// The pixel after jitter and grayscale.
static CUDA_BOTH struct views_pixel views_colored(const struct view_record *record,
                                                  struct views_pixel x, struct views_pixel mean)
{
    for (int i = 0; i < 4 && record->jitter; i++) {
        x = views_jitter(record, record->order[i], x, mean);
    }
    return views_clipped(record->grayscale ? views_grayscale(x) : x);
}

// What comes last, after the blur.
static CUDA_BOTH float views_finished(bool solarize, float threshold, float x)
{
    return views_clip(solarize && x >= threshold ? 1.0f - x : x);
}

// Weight of the blur `distance` pixels away, to be divided by the sum of all.
static CUDA_BOTH double views_weight(int32_t distance, float sigma)
{
    double squared = (double)distance * (double)distance;
    return exp(-squared / (2.0 * (double)sigma * (double)sigma));
}

// Weights below this share of the largest change no pixel by more than rounding does, and are left
// out.
#define VIEWS_WEIGHT_LEAST 0x1p-24f

#endif
