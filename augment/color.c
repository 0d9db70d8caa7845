// Colour operations of the reference (google-deepmind/deepmind-research, byol/utils/
// augmentations.py), in its order of float32 operations.
#include "augment/kernels.h"

#include <math.h>

static float clip(float x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

static float larger(float a, float b)
{
    return a > b ? a : b;
}

static float smaller(float a, float b)
{
    return a < b ? a : b;
}

void color_scale_c(float *pixels, size_t count)
{
    const float reciprocal = 1.0f / 255.0f; // the reference's graph optimiser does the same
    for (size_t i = 0; i < count * 3; i++) {
        pixels[i] = clip(pixels[i] * reciprocal);
    }
}

void color_clip_c(float *pixels, size_t count)
{
    for (size_t i = 0; i < count * 3; i++) {
        pixels[i] = clip(pixels[i]);
    }
}

void color_brightness_c(float *pixels, size_t count, float delta)
{
    for (size_t i = 0; i < count * 3; i++) {
        pixels[i] += delta;
    }
}

// The mean of each channel of clipped pixels, summed as integers of 2^-30: exact down to 1/128,
// and the same in any order, so that a wider version gives the same bits.
static void channel_means(float means[3], const float *pixels, size_t count)
{
    int64_t sums[3] = {0, 0, 0};
    for (size_t i = 0; i < count; i++) {
        for (size_t channel = 0; channel < 3; channel++) {
            sums[channel] += (int64_t)(pixels[i * 3 + channel] * 0x1p30f);
        }
    }
    for (size_t channel = 0; channel < 3; channel++) {
        means[channel] = (float)((double)sums[channel] * 0x1p-30 / (double)count);
    }
}

void color_contrast_c(float *pixels, size_t count, float factor)
{
    float means[3];
    channel_means(means, pixels, count);
    for (size_t i = 0; i < count; i++) {
        for (size_t channel = 0; channel < 3; channel++) {
            float *value = &pixels[i * 3 + channel];
            *value = factor * (*value - means[channel]) + means[channel];
        }
    }
}

static void rgb_to_hsv(float *pixel)
{
    float r = pixel[0], g = pixel[1], b = pixel[2];
    float most = larger(larger(r, g), b);
    float range = most - smaller(smaller(r, g), b);
    float slope = range > 0 ? 1.0f / (6.0f * range) : 0;
    float hue;
    if (r == most) {
        hue = slope * (g - b);
    } else if (g == most) {
        hue = slope * (b - r) + 2.0f / 6.0f;
    } else {
        hue = slope * (r - g) + 4.0f / 6.0f;
    }
    pixel[0] = hue < 0 ? hue + 1.0f : hue;
    pixel[1] = most > 0 ? range / most : 0;
    pixel[2] = most;
}

// The part of a turn, in [0, 1]: 1 only where a tiny negative angle rounds up to it.
static float fraction(float turns)
{
    return turns - floorf(turns);
}

static void hsv_to_rgb(float *pixel)
{
    float chroma = pixel[1] * pixel[2];
    float least = pixel[2] - chroma;
    float angle = fraction(pixel[0]) * 6.0f;
    int sector = (int)angle;
    float within = angle - (float)(sector - sector % 2);
    float middle = chroma * (1.0f - fabsf(within - 1.0f));
    static const uint8_t places[6][3] = {{2, 1, 0}, {1, 2, 0}, {0, 2, 1},
                                         {0, 1, 2}, {1, 0, 2}, {2, 0, 1}};
    const float levels[3] = {least, middle + least, chroma + least};
    const uint8_t *place = places[sector % 6];
    for (size_t channel = 0; channel < 3; channel++) {
        pixel[channel] = levels[place[channel]];
    }
}

void color_rgb_to_hsv_c(float *pixels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        rgb_to_hsv(pixels + i * 3);
    }
}

void color_hsv_to_rgb_c(float *pixels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        hsv_to_rgb(pixels + i * 3);
    }
}

void color_saturation_c(float *pixels, size_t count, float factor)
{
    for (size_t i = 0; i < count; i++) {
        rgb_to_hsv(pixels + i * 3);
        pixels[i * 3 + 1] = clip(pixels[i * 3 + 1] * factor);
        hsv_to_rgb(pixels + i * 3);
    }
}

void color_hue_c(float *pixels, size_t count, float delta)
{
    for (size_t i = 0; i < count; i++) {
        rgb_to_hsv(pixels + i * 3);
        pixels[i * 3] = fraction(pixels[i * 3] + delta);
        hsv_to_rgb(pixels + i * 3);
    }
}

void color_grayscale_c(float *pixels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float *pixel = pixels + i * 3;
        float luma = 0.2989f * pixel[0] + 0.5870f * pixel[1] + 0.1140f * pixel[2];
        pixel[0] = pixel[1] = pixel[2] = luma;
    }
}

void color_solarize_c(float *pixels, size_t count, float threshold)
{
    for (size_t i = 0; i < count * 3; i++) {
        pixels[i] = pixels[i] < threshold ? pixels[i] : 1.0f - pixels[i];
    }
}
