// Gaussian blur as the reference computes it: two passes of a normalised kernel, zero outside the
// image and no renormalisation there, so that borders darken.
#include "augment/kernels.h"

#include <math.h>

void blur_weights_fill(float *weights, uint32_t taps, float sigma)
{
    int64_t radius = taps / 2;
    double sum = 0;
    for (int64_t t = -radius; t <= radius; t++) {
        sum += exp(-(double)(t * t) / (2.0 * (double)sigma * (double)sigma));
    }
    // In double, so that one rounding to float hides how math libraries differ in their last bit.
    for (int64_t t = -radius; t <= radius; t++) {
        double weight = exp(-(double)(t * t) / (2.0 * (double)sigma * (double)sigma)) / sum;
        weights[t + radius] = (float)weight;
    }
}

// out = sum over taps of weight * the sample `stride` values apart, for `size` samples in a line.
static void blur_sample(float *out, const float *in, int64_t at, int64_t size, int64_t stride,
                        const float *weights, int64_t radius)
{
    int64_t first = at - radius < 0 ? 0 : at - radius;
    int64_t last = at + radius >= size ? size - 1 : at + radius;
    float sums[3] = {0, 0, 0};
    for (int64_t i = first; i <= last; i++) {
        float weight = weights[i - at + radius];
        for (int64_t channel = 0; channel < 3; channel++) {
            sums[channel] += weight * in[i * stride + channel];
        }
    }
    out[0] = sums[0];
    out[1] = sums[1];
    out[2] = sums[2];
}

void blur_c(float *pixels, uint32_t size, const float *weights, uint32_t taps, float *work)
{
    int64_t side = size, radius = taps / 2, row_len = side * 3;
    for (int64_t y = 0; y < side; y++) {
        for (int64_t x = 0; x < side; x++) {
            blur_sample(work + y * row_len + x * 3, pixels + y * row_len, x, side, 3, weights,
                        radius);
        }
    }
    for (int64_t y = 0; y < side; y++) {
        for (int64_t x = 0; x < side; x++) {
            blur_sample(pixels + y * row_len + x * 3, work + x * 3, y, side, row_len, weights,
                        radius);
        }
    }
}
