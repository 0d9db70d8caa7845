// The pixel operations of a view, one function each, behind one table, in plain C: the reference
// for the vector kernels of rows.h (so no fused multiply-add, and sums only in a stated order or in
// integers).
//
// Pixels are float32 RGB, interleaved; `count` counts pixels, not values. Colour kernels work in
// place and do not clip: clipping is a kernel of its own, as the reference clips after some
// operations and not after others.
#ifndef AUGMENT_KERNELS_H
#define AUGMENT_KERNELS_H

#include "formats/status.h"

#include <stddef.h>

// The four source positions of one output position along an axis, with their weights.
struct resize_taps {
    uint32_t index[4];
    float weight[4];
};

// What a resize needs besides pixels: `rows` and `columns` hold one entry per output position,
// `line` one vertically resized row (width * 3 values).
struct resize_work {
    struct resize_taps *rows, *columns;
    float *line;
};

// Bicubic (Keys, a = -0.5, weights from a table of 1024 steps) without antialiasing, half-pixel
// centres: TensorFlow's `resize_bicubic` with half_pixel_centers, which the reference uses.
#define RESIZE_STEPS 1024
void resize_taps_fill(struct resize_taps *taps, uint32_t in, uint32_t out);
// One output position, at `position` between the source's; and the weights of any position whose
// four taps lie inside the image, the second of them `step` / RESIZE_STEPS before it.
void resize_taps_at(struct resize_taps *taps, uint32_t in, float position);
void resize_inner_weights(float weights[4], long step);

struct kernels {
    const char *name;
    // From width x height 8-bit pixels to size x size floats in 0..255 units, overshoot included.
    void (*resize)(float *out, const uint8_t *in, uint32_t width, uint32_t height, uint32_t size,
                   const struct resize_work *work);
    // Multiplies by the float nearest to 1/255, then clips to [0, 1].
    void (*scale)(float *pixels, size_t count);
    void (*clip)(float *pixels, size_t count);                      // to [0, 1]
    void (*flip)(float *pixels, uint32_t size);                     // left and right
    void (*brightness)(float *pixels, size_t count, float delta);   // x + delta
    void (*contrast)(float *pixels, size_t count, float factor);    // about the channel's mean
    void (*saturation)(float *pixels, size_t count, float factor);  // s * factor in HSV
    void (*hue)(float *pixels, size_t count, float delta);          // turns in HSV
    void (*grayscale)(float *pixels, size_t count);                 // ITU-R 601 luma
    void (*solarize)(float *pixels, size_t count, float threshold); // x < threshold ? x : 1 - x
    // Separable blur of a size x size image, rows first, zero outside. `weights` has `taps` (odd)
    // entries, `work` room for the image.
    void (*blur)(float *pixels, uint32_t size, const float *weights, uint32_t taps, float *work);
    void (*rgb_to_hsv)(float *pixels, size_t count); // each in [0, 1); h in turns
    void (*hsv_to_rgb)(float *pixels, size_t count);
};

extern const struct kernels kernels_c;

// Gaussian weights exp(-t^2 / (2 sigma^2)) normalised to sum 1.
void blur_weights_fill(float *weights, uint32_t taps, float sigma);

// Everything a view does after resize and scale, on a size x size image. `weights` has room for
// params->taps values, `work` for the image.
struct view_params;
void view_postprocess(const struct view_params *params, const struct kernels *kernels,
                      float *pixels, float *weights, float *work);

// STATUS_INVALID for parameters that cannot be rendered (they may come from a file) or that do not
// fit a crop of width x height.
enum status view_check(const struct view_params *params, uint32_t width, uint32_t height,
                       uint32_t max_size, struct error *error);

// The entries of kernels_c.
void resize_c(float *out, const uint8_t *in, uint32_t width, uint32_t height, uint32_t size,
              const struct resize_work *work);
void color_scale_c(float *pixels, size_t count);
void color_clip_c(float *pixels, size_t count);
void color_brightness_c(float *pixels, size_t count, float delta);
void color_contrast_c(float *pixels, size_t count, float factor);
void color_saturation_c(float *pixels, size_t count, float factor);
void color_hue_c(float *pixels, size_t count, float delta);
void color_grayscale_c(float *pixels, size_t count);
void color_solarize_c(float *pixels, size_t count, float threshold);
void color_rgb_to_hsv_c(float *pixels, size_t count);
void color_hsv_to_rgb_c(float *pixels, size_t count);
void blur_c(float *pixels, uint32_t size, const float *weights, uint32_t taps, float *work);
void flip_c(float *pixels, uint32_t size);

#endif
