// Bicubic resize as TensorFlow computes it (core/kernels/image/resize_bicubic_op.cc, with
// half_pixel_centers): the weights come from a table of 1024 steps, taps outside the image weigh
// nothing and the rest is renormalised. The golden data tell these apart from exact weights (4e-4)
// and from replicated borders (0.04).
#include "augment/kernels.h"

#include <math.h>

#define KEYS_A (-0.5)

// Weight of a sample at distance x from the output position: Keys' cubic convolution.
static float near_weight(long step) // 0 <= x <= 1
{
    double x = (double)step / RESIZE_STEPS;
    return (float)(((KEYS_A + 2) * x - (KEYS_A + 3)) * x * x + 1);
}

static float far_weight(long step) // 1 <= x <= 2
{
    double x = (double)step / RESIZE_STEPS + 1;
    return (float)(((KEYS_A * x - 5 * KEYS_A) * x + 8 * KEYS_A) * x - 4 * KEYS_A);
}

static void weights_at(float weights[4], long step)
{
    weights[0] = far_weight(step);
    weights[1] = near_weight(step);
    weights[2] = near_weight(RESIZE_STEPS - step);
    weights[3] = far_weight(RESIZE_STEPS - step);
}

static void renormalise(float weights[4])
{
    float sum = 0;
    for (int tap = 0; tap < 4; tap++) {
        sum += weights[tap];
    }
    float inverse = 1.0f / sum;
    for (int tap = 0; tap < 4; tap++) {
        weights[tap] *= inverse;
    }
}

void resize_inner_weights(float weights[4], long step)
{
    weights_at(weights, step);
    renormalise(weights);
}

void resize_taps_at(struct resize_taps *taps, uint32_t in, float position)
{
    float below = floorf(position);
    float weights[4];
    weights_at(weights, lrintf((position - below) * RESIZE_STEPS));
    for (int tap = 0; tap < 4; tap++) {
        int64_t index = (int64_t)below - 1 + tap;
        int64_t last = (int64_t)in - 1;
        taps->index[tap] = (uint32_t)(index < 0 ? 0 : index > last ? last : index);
        taps->weight[tap] = index == taps->index[tap] ? weights[tap] : 0;
    }
    renormalise(taps->weight);
}

void resize_taps_fill(struct resize_taps *taps, uint32_t in, uint32_t out)
{
    float scale = (float)in / (float)out;
    for (uint32_t i = 0; i < out; i++) {
        resize_taps_at(&taps[i], in, ((float)i + 0.5f) * scale - 0.5f);
    }
}

static void resize_vertically(float *line, const uint8_t *in, size_t row_len,
                              const struct resize_taps *taps)
{
    const uint8_t *row0 = in + taps->index[0] * row_len, *row1 = in + taps->index[1] * row_len;
    const uint8_t *row2 = in + taps->index[2] * row_len, *row3 = in + taps->index[3] * row_len;
    const float *weight = taps->weight;
    for (size_t i = 0; i < row_len; i++) {
        line[i] = weight[0] * (float)row0[i] + weight[1] * (float)row1[i] +
                  weight[2] * (float)row2[i] + weight[3] * (float)row3[i];
    }
}

static void resize_horizontally(float *out, const float *line, const struct resize_taps *taps)
{
    const float *weight = taps->weight;
    for (size_t channel = 0; channel < 3; channel++) {
        out[channel] = weight[0] * line[taps->index[0] * 3 + channel] +
                       weight[1] * line[taps->index[1] * 3 + channel] +
                       weight[2] * line[taps->index[2] * 3 + channel] +
                       weight[3] * line[taps->index[3] * 3 + channel];
    }
}

void resize_c(float *out, const uint8_t *in, uint32_t width, uint32_t height, uint32_t size,
              const struct resize_work *work)
{
    resize_taps_fill(work->rows, height, size);
    resize_taps_fill(work->columns, width, size);
    for (size_t y = 0; y < size; y++) {
        resize_vertically(work->line, in, (size_t)width * 3, &work->rows[y]);
        for (size_t x = 0; x < size; x++) {
            resize_horizontally(out + (y * size + x) * 3, work->line, &work->columns[x]);
        }
    }
}
