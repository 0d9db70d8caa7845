// The table of the plain C kernels, and the one kernel that moves pixels without computing.
#include "augment/kernels.h"

const struct kernels kernels_c = {
    .name = "c",
    .resize = resize_c,
    .scale = color_scale_c,
    .clip = color_clip_c,
    .flip = flip_c,
    .brightness = color_brightness_c,
    .contrast = color_contrast_c,
    .saturation = color_saturation_c,
    .hue = color_hue_c,
    .grayscale = color_grayscale_c,
    .solarize = color_solarize_c,
    .blur = blur_c,
    .rgb_to_hsv = color_rgb_to_hsv_c,
    .hsv_to_rgb = color_hsv_to_rgb_c,
};

void flip_c(float *pixels, uint32_t size)
{
    for (size_t y = 0; y < size; y++) {
        float *row = pixels + y * size * 3;
        for (size_t left = 0, right = size - 1; left < right; left++, right--) {
            for (size_t channel = 0; channel < 3; channel++) {
                float kept = row[left * 3 + channel];
                row[left * 3 + channel] = row[right * 3 + channel];
                row[right * 3 + channel] = kept;
            }
        }
    }
}
