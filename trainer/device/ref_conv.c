// Convolution by its definition.
#include "trainer/device/ref.h"

#include <string.h>

// A row or column of the input that tap `tap` of output `out` reads; false when it is padding.
static bool tap_position(uint32_t *in, uint32_t out, uint32_t tap, uint32_t stride, uint32_t pad,
                         uint32_t size)
{
    int64_t at = (int64_t)out * stride + tap - pad;
    *in = (uint32_t)at;
    return at >= 0 && at < size;
}

// The output whose tap `tap` reads input `in`; false when there is none.
static bool output_position(uint32_t *out, uint32_t in, uint32_t tap, uint32_t stride, uint32_t pad,
                            uint32_t size)
{
    int64_t at = (int64_t)in + pad - tap;
    *out = (uint32_t)(at / stride);
    return at >= 0 && at % stride == 0 && at / stride < size;
}

static const float *pixel(const float *image, struct tensor_shape shape, uint32_t n, uint32_t y,
                          uint32_t x)
{
    return image + (((size_t)n * shape.h + y) * shape.w + x) * shape.c;
}

static void round_to(float *to, const double *sums, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = (float)sums[i];
    }
}

// sums[o] += sum over i of x[i] w[i][o]
static void gather_tap(double *sums, const float *x, const float *weights, uint32_t in,
                       uint32_t out)
{
    for (uint32_t i = 0; i < in; i++) {
        for (uint32_t o = 0; o < out; o++) {
            sums[o] += (double)x[i] * (double)weights[(size_t)i * out + o];
        }
    }
}

static void forward_pixel(const struct op_desc *desc, double *sums, const float *x,
                          const float *weights, uint32_t n, uint32_t oy, uint32_t ox)
{
    size_t tap = (size_t)desc->in.c * desc->out.c;
    for (uint32_t ky = 0; ky < desc->kernel; ky++) {
        for (uint32_t kx = 0; kx < desc->kernel; kx++) {
            uint32_t iy, ix;
            if (tap_position(&iy, oy, ky, desc->stride, desc->pad_top, desc->in.h) &&
                tap_position(&ix, ox, kx, desc->stride, desc->pad_left, desc->in.w)) {
                gather_tap(sums, pixel(x, desc->in, n, iy, ix),
                           weights + ((size_t)ky * desc->kernel + kx) * tap, desc->in.c,
                           desc->out.c);
            }
        }
    }
}

void ref_conv_forward(const struct op_desc *desc, float *y, const float *x, const float *weights,
                      double *scratch)
{
    for (uint32_t n = 0; n < desc->out.n; n++) {
        for (uint32_t oy = 0; oy < desc->out.h; oy++) {
            for (uint32_t ox = 0; ox < desc->out.w; ox++) {
                memset(scratch, 0, desc->out.c * sizeof *scratch);
                forward_pixel(desc, scratch, x, weights, n, oy, ox);
                round_to(y, scratch, desc->out.c);
                y += desc->out.c;
            }
        }
    }
}

// sums[i] += sum over o of dy[o] w[i][o]
static void scatter_tap(double *sums, const float *dy, const float *weights, uint32_t in,
                        uint32_t out)
{
    for (uint32_t i = 0; i < in; i++) {
        for (uint32_t o = 0; o < out; o++) {
            sums[i] += (double)dy[o] * (double)weights[(size_t)i * out + o];
        }
    }
}

static void backward_pixel(const struct op_desc *desc, double *sums, const float *dy,
                           const float *weights, uint32_t n, uint32_t iy, uint32_t ix)
{
    size_t tap = (size_t)desc->in.c * desc->out.c;
    for (uint32_t ky = 0; ky < desc->kernel; ky++) {
        for (uint32_t kx = 0; kx < desc->kernel; kx++) {
            uint32_t oy, ox;
            if (output_position(&oy, iy, ky, desc->stride, desc->pad_top, desc->out.h) &&
                output_position(&ox, ix, kx, desc->stride, desc->pad_left, desc->out.w)) {
                scatter_tap(sums, pixel(dy, desc->out, n, oy, ox),
                            weights + ((size_t)ky * desc->kernel + kx) * tap, desc->in.c,
                            desc->out.c);
            }
        }
    }
}

void ref_conv_backward_data(const struct op_desc *desc, float *dx, const float *dy,
                            const float *weights, double *scratch)
{
    for (uint32_t n = 0; n < desc->in.n; n++) {
        for (uint32_t iy = 0; iy < desc->in.h; iy++) {
            for (uint32_t ix = 0; ix < desc->in.w; ix++) {
                memset(scratch, 0, desc->in.c * sizeof *scratch);
                backward_pixel(desc, scratch, dy, weights, n, iy, ix);
                round_to(dx, scratch, desc->in.c);
                dx += desc->in.c;
            }
        }
    }
}

// sums[o] = sum over images and pixels of x[i] dy[o], for one tap and one input channel
static void weight_sums(const struct op_desc *desc, double *sums, const float *x, const float *dy,
                        uint32_t ky, uint32_t kx, uint32_t i)
{
    memset(sums, 0, desc->out.c * sizeof *sums);
    for (uint32_t n = 0; n < desc->out.n; n++) {
        for (uint32_t oy = 0; oy < desc->out.h; oy++) {
            uint32_t iy, ix;
            if (!tap_position(&iy, oy, ky, desc->stride, desc->pad_top, desc->in.h)) {
                continue;
            }
            for (uint32_t ox = 0; ox < desc->out.w; ox++) {
                if (!tap_position(&ix, ox, kx, desc->stride, desc->pad_left, desc->in.w)) {
                    continue;
                }
                double value = (double)pixel(x, desc->in, n, iy, ix)[i];
                const float *gradient = pixel(dy, desc->out, n, oy, ox);
                for (uint32_t o = 0; o < desc->out.c; o++) {
                    sums[o] += value * (double)gradient[o];
                }
            }
        }
    }
}

void ref_conv_backward_weights(const struct op_desc *desc, float *dweights, const float *x,
                               const float *dy, double *scratch)
{
    for (uint32_t ky = 0; ky < desc->kernel; ky++) {
        for (uint32_t kx = 0; kx < desc->kernel; kx++) {
            for (uint32_t i = 0; i < desc->in.c; i++) {
                weight_sums(desc, scratch, x, dy, ky, kx, i);
                round_to(dweights, scratch, desc->out.c);
                dweights += desc->out.c;
            }
        }
    }
}
