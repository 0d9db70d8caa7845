// Maximum over windows. Each plane of channels belongs to one thread, so that the sums of
// overlapping windows are taken in row order.
#include "trainer/device/cpu.h"

#include <math.h>
#include <string.h>

#define MAX_BLOCK 16

// One output position: maximum over the window, and its tap, channel by channel.
CPU_KERNEL static void pool_window(float *maximum, uint32_t *taps, const float *plane,
                                   const struct op_desc *desc, int64_t top, int64_t left,
                                   uint32_t block)
{
    for (uint32_t c = 0; c < block; c++) {
        maximum[c] = -INFINITY;
        taps[c] = UINT32_MAX;
    }
    for (uint32_t tap = 0; tap < desc->kernel * desc->kernel; tap++) {
        int64_t y = top + tap / desc->kernel, x = left + tap % desc->kernel;
        if (y < 0 || x < 0 || y >= desc->in.h || x >= desc->in.w) {
            continue;
        }
        const float *values = plane + ((size_t)y * desc->in.w + (size_t)x) * block;
#pragma omp simd
        for (uint32_t c = 0; c < block; c++) {
            bool better = values[c] > maximum[c] || taps[c] == UINT32_MAX;
            maximum[c] = better ? values[c] : maximum[c];
            taps[c] = better ? tap : taps[c];
        }
    }
}

static void forward_plane(const struct op_desc *desc, float *y, const float *x, uint8_t *saved,
                          uint32_t block)
{
    for (uint32_t oy = 0; oy < desc->out.h; oy++) {
        int64_t top = (int64_t)oy * desc->stride - desc->pad_top;
        for (uint32_t ox = 0; ox < desc->out.w; ox++, y += block) {
            uint32_t taps[MAX_BLOCK];
            pool_window(y, taps, x, desc, top, (int64_t)ox * desc->stride - desc->pad_left, block);
            for (uint32_t c = 0; saved != NULL && c < block; c++) {
                *saved++ = (uint8_t)taps[c];
            }
        }
    }
}

static enum status pool_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    (void)device;
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout in = cpu_layout_of(desc->in), out = cpu_layout_of(desc->out);
    const float *x = buffers->x;
    float *y = buffers->y;
    uint8_t *saved = desc->need_backward && mode == OP_TRAIN ? buffers->saved : NULL;
#pragma omp parallel for
    for (size_t plane = 0; plane < desc->in.n * (size_t)in.blocks; plane++) {
        size_t at = plane * out.pixels * out.block;
        forward_plane(desc, y + at, x + plane * in.pixels * in.block,
                      saved == NULL ? NULL : saved + at, in.block);
    }
    return STATUS_OK;
}

static void backward_plane(const struct op_desc *desc, float *dx, const float *dy,
                           const uint8_t *saved, uint32_t block)
{
    for (uint32_t oy = 0; oy < desc->out.h; oy++) {
        for (uint32_t ox = 0; ox < desc->out.w; ox++) {
            for (uint32_t c = 0; c < block; c++) {
                uint32_t tap = *saved++;
                size_t y = (size_t)oy * desc->stride + tap / desc->kernel - desc->pad_top;
                size_t x = (size_t)ox * desc->stride + tap % desc->kernel - desc->pad_left;
                dx[(y * desc->in.w + x) * block + c] += *dy++;
            }
        }
    }
}

static enum status pool_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    (void)device;
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout in = cpu_layout_of(desc->in), out = cpu_layout_of(desc->out);
    const float *dy = buffers->dy;
    const uint8_t *saved = buffers->saved;
    float *dx = buffers->dx;
#pragma omp parallel for
    for (size_t plane = 0; plane < desc->in.n * (size_t)in.blocks; plane++) {
        float *target = dx + plane * in.pixels * in.block;
        size_t at = plane * out.pixels * out.block;
        memset(target, 0, in.pixels * in.block * sizeof *target);
        backward_plane(desc, target, dy + at, saved + at, in.block);
    }
    return STATUS_OK;
}

enum status cpu_max_pool_create(struct cpu_device *device, const struct op_desc *desc,
                                struct cpu_op **out, struct error *error)
{
    (void)device;
    *out = NULL;
    if (desc->kernel > 15) { // a tap has to fit into a byte
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "a pool window of %u is larger than 15", desc->kernel);
    }
    *out = cpu_op_allocate(sizeof **out, desc, error);
    if (*out == NULL) {
        return STATUS_NO_MEMORY;
    }
    (*out)->forward = pool_forward;
    (*out)->backward = pool_backward;
    (*out)->base.saved_bytes = desc->need_backward ? cpu_layout_of(desc->out).values : 0;
    return STATUS_OK;
}
