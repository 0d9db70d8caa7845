// The layers without windows or statistics of their own, and the pools.
#include "trainer/device/ref.h"

#include <math.h>
#include <string.h>

void ref_input_forward(const struct op_desc *desc, float *y, const float *x)
{
    for (size_t i = 0; i < tensor_count(desc->in); i++) {
        y[i] = (x[i] - op_input_mean[i % 3]) / op_input_deviation[i % 3];
    }
}

void ref_relu_forward(float *y, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        y[i] = x[i] < 0 ? 0.0f : x[i]; // a NaN passes
    }
}

void ref_relu_backward(float *dx, const float *dy, const float *y, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dx[i] = y[i] > 0 ? dy[i] : 0.0f;
    }
}

void ref_add_forward(const struct op_desc *desc, const struct op_buffers *buffers)
{
    const float *x = buffers->x, *x2 = buffers->x2;
    float *y = buffers->y;
    for (size_t i = 0; i < tensor_count(desc->in); i++) {
        float sum = x[i] + x2[i];
        y[i] = desc->relu && sum < 0 ? 0.0f : sum;
    }
}

void ref_add_backward(const struct op_desc *desc, const struct op_buffers *buffers)
{
    const float *dy = buffers->dy, *y = buffers->y;
    float *dx = buffers->dx, *dx2 = buffers->dx2;
    for (size_t i = 0; i < tensor_count(desc->in); i++) {
        float gradient = desc->relu && !(y[i] > 0) ? 0.0f : dy[i];
        if (dx != NULL) {
            dx[i] = gradient;
        }
        if (dx2 != NULL) {
            dx2[i] = gradient;
        }
    }
}

// The first maximum in row order of one window of one channel; returns its tap.
static uint32_t window_maximum(const struct op_desc *desc, float *maximum, const float *image,
                               uint32_t oy, uint32_t ox)
{
    uint32_t best = 0;
    *maximum = -INFINITY;
    bool found = false;
    for (uint32_t tap = 0; tap < desc->kernel * desc->kernel; tap++) {
        int64_t y = (int64_t)oy * desc->stride + tap / desc->kernel - desc->pad_top;
        int64_t x = (int64_t)ox * desc->stride + tap % desc->kernel - desc->pad_left;
        if (y < 0 || x < 0 || y >= desc->in.h || x >= desc->in.w) {
            continue;
        }
        float value = image[((size_t)y * desc->in.w + (size_t)x) * desc->in.c];
        if (!found || value > *maximum) {
            *maximum = value;
            best = tap;
            found = true;
        }
    }
    return best;
}

void ref_max_pool_forward(const struct op_desc *desc, float *y, const float *x, uint32_t *saved)
{
    size_t image = (size_t)desc->in.h * desc->in.w * desc->in.c, at = 0;
    for (uint32_t n = 0; n < desc->out.n; n++) {
        for (uint32_t oy = 0; oy < desc->out.h; oy++) {
            for (uint32_t ox = 0; ox < desc->out.w; ox++) {
                for (uint32_t c = 0; c < desc->out.c; c++, at++) {
                    uint32_t tap = window_maximum(desc, y + at, x + n * image + c, oy, ox);
                    if (saved != NULL) {
                        saved[at] = tap;
                    }
                }
            }
        }
    }
}

void ref_max_pool_backward(const struct op_desc *desc, float *dx, const float *dy,
                           const uint32_t *saved)
{
    memset(dx, 0, tensor_count(desc->in) * sizeof *dx);
    size_t at = 0;
    for (uint32_t n = 0; n < desc->out.n; n++) {
        for (uint32_t oy = 0; oy < desc->out.h; oy++) {
            for (uint32_t ox = 0; ox < desc->out.w; ox++) {
                for (uint32_t c = 0; c < desc->out.c; c++, at++) {
                    size_t y = (size_t)oy * desc->stride + saved[at] / desc->kernel - desc->pad_top;
                    size_t x =
                        (size_t)ox * desc->stride + saved[at] % desc->kernel - desc->pad_left;
                    dx[((n * (size_t)desc->in.h + y) * desc->in.w + x) * desc->in.c + c] += dy[at];
                }
            }
        }
    }
}

void ref_mean_pool_forward(const struct op_desc *desc, float *y, const float *x)
{
    uint32_t channels = desc->in.c;
    size_t pixels = (size_t)desc->in.h * desc->in.w;
    for (uint32_t n = 0; n < desc->in.n; n++) {
        for (uint32_t c = 0; c < channels; c++) {
            double sum = 0;
            for (size_t i = 0; i < pixels; i++) {
                sum += (double)x[(n * pixels + i) * channels + c];
            }
            y[(size_t)n * channels + c] = (float)(sum / (double)pixels);
        }
    }
}

void ref_mean_pool_backward(const struct op_desc *desc, float *dx, const float *dy)
{
    uint32_t channels = desc->in.c;
    size_t pixels = (size_t)desc->in.h * desc->in.w;
    for (size_t i = 0; i < desc->in.n * pixels; i++) {
        for (uint32_t c = 0; c < channels; c++) {
            dx[i * channels + c] = (float)((double)dy[i / pixels * channels + c] / (double)pixels);
        }
    }
}

void ref_linear_forward(const struct op_desc *desc, const struct op_buffers *buffers)
{
    uint32_t rows = desc->in.n, in = desc->in.c, out = desc->out.c;
    float *y = buffers->y;
    ref_matrix_product(NULL, false, false, rows, out, in, buffers->x, buffers->params, y, false);
    const float *bias = buffers->params + (size_t)in * out;
    for (size_t i = 0; desc->bias && i < (size_t)rows * out; i++) {
        y[i] += bias[i % out];
    }
}

void ref_linear_backward(const struct op_desc *desc, const struct op_buffers *buffers)
{
    uint32_t rows = desc->in.n, in = desc->in.c, out = desc->out.c;
    const float *dy = buffers->dy;
    float *grads = buffers->param_grads;
    ref_matrix_product(NULL, true, false, in, out, rows, buffers->x, dy, grads, false);
    for (uint32_t o = 0; desc->bias && o < out; o++) {
        double sum = 0;
        for (uint32_t row = 0; row < rows; row++) {
            sum += (double)dy[(size_t)row * out + o];
        }
        grads[(size_t)in * out + o] = (float)sum;
    }
    if (desc->need_input_gradient && buffers->dx != NULL) {
        ref_matrix_product(NULL, false, true, rows, in, out, dy, buffers->params, buffers->dx,
                           false);
    }
}

enum status ref_matrix_product(struct device *device, bool transpose_a, bool transpose_b,
                               uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
                               float *c, bool accumulate)
{
    (void)device;
    size_t a_row = transpose_a ? 1 : k, a_column = transpose_a ? m : 1;
    size_t b_row = transpose_b ? 1 : n, b_column = transpose_b ? k : 1;
    for (size_t row = 0; row < m; row++) {
        for (size_t column = 0; column < n; column++) {
            double sum = accumulate ? (double)c[row * n + column] : 0.0;
            for (size_t i = 0; i < k; i++) {
                sum += (double)a[row * a_row + i * a_column] *
                       (double)b[i * b_row + column * b_column];
            }
            c[row * n + column] = (float)sum;
        }
    }
    return STATUS_OK;
}
