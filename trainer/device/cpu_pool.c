// Maximum over windows, a vector of channels at a time. Each plane of channels belongs to one
// thread. The backward pass gathers: an input pixel asks the windows that cover it whether it was
// their maximum, in row order, so that dx is written once.
#include "trainer/device/cpu.h"

#include <math.h>
#include <string.h>

typedef uint8_t pool_taps __attribute__((vector_size(CPU_LANES)));

// The positions [first, end) of a window along one side that lie inside the image.
struct span {
    int64_t first, end;
};

CPU_INLINE struct span window_span(int64_t start, uint32_t kernel, uint32_t size)
{
    struct span span = {start < 0 ? 0 : start, start + kernel};
    span.end = span.end < size ? span.end : size;
    return span;
}

// Moves on to the windows along one side that cover position `at`; positions come in order.
CPU_INLINE void advance(struct span *windows, int64_t at, uint32_t pad, uint32_t count,
                        const struct op_desc *desc)
{
    while (windows->first * desc->stride - pad + desc->kernel <= at) {
        windows->first++;
    }
    while (windows->end < count && windows->end * desc->stride - pad <= at) {
        windows->end++;
    }
}

// --- forward -------------------------------------------------------------------------------------

// One output position: maximum over the window, and its tap. A NaN stays only where it comes first.
CPU_INLINE void pool_window(cpu_lanes *maximum, cpu_lane_mask *best, const void *x, size_t index,
                            const struct op_desc *desc, int64_t top, int64_t left, size_t block,
                            bool half)
{
    struct span rows = window_span(top, desc->kernel, desc->in.h);
    struct span columns = window_span(left, desc->kernel, desc->in.w);
    size_t corner = index + (size_t)(rows.first * desc->in.w + columns.first) * block;
    int32_t tap = (int32_t)((rows.first - top) * desc->kernel + columns.first - left);
    cpu_lanes values, largest;
    cpu_lane_mask taps = tap - (cpu_lane_mask){0};
    cpu_lanes_load(&largest, x, corner, block, half);
    for (int64_t row = rows.first; row < rows.end; row++) {
        for (int64_t i = 0; i < columns.end - columns.first; i++) {
            cpu_lanes_load(&values, x, corner + (size_t)i * block, block, half);
            cpu_lane_mask better = values > largest;
            largest =
                (cpu_lanes)(((cpu_lane_mask)values & better) | ((cpu_lane_mask)largest & ~better));
            taps = ((tap + (int32_t)i) & better) | (taps & ~better);
        }
        corner += desc->in.w * block;
        tap += (int32_t)desc->kernel;
    }
    *maximum = largest;
    *best = taps;
}

// `index`, `out`: where the plane begins in x, in y and `taps`.
CPU_INLINE void forward_plane(const struct op_desc *desc, void *y, size_t out, const void *x,
                              size_t index, uint8_t *taps, size_t block, bool half)
{
    for (uint32_t oy = 0; oy < desc->out.h; oy++) {
        int64_t top = (int64_t)oy * desc->stride - desc->pad_top;
        int64_t left = -(int64_t)desc->pad_left;
        for (uint32_t ox = 0; ox < desc->out.w; ox++, left += desc->stride, out += block) {
            cpu_lanes maximum = {0};
            cpu_lane_mask best = {0};
            pool_window(&maximum, &best, x, index, desc, top, left, block, half);
            cpu_lanes_store(y, out, &maximum, block, half);
            if (taps != NULL) {
                pool_taps narrow = __builtin_convertvector(best, pool_taps);
                memcpy(taps + out, &narrow, block);
            }
        }
    }
}

CPU_KERNEL static void forward_floats(const struct op_desc *desc, void *y, size_t out,
                                      const void *x, size_t index, uint8_t *taps, size_t block)
{
    if (block == CPU_LANES) {
        forward_plane(desc, y, out, x, index, taps, CPU_LANES, false);
    } else {
        forward_plane(desc, y, out, x, index, taps, block, false);
    }
}

CPU_KERNEL static void forward_halves(const struct op_desc *desc, void *y, size_t out,
                                      const void *x, size_t index, uint8_t *taps, size_t block)
{
    if (block == CPU_LANES) {
        forward_plane(desc, y, out, x, index, taps, CPU_LANES, true);
    } else {
        forward_plane(desc, y, out, x, index, taps, block, true);
    }
}

static enum status pool_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout in = cpu_layout_of(desc->in), out = cpu_layout_of(desc->out);
    uint8_t *taps = desc->need_backward && mode == OP_TRAIN ? buffers->saved : NULL;
#pragma omp parallel for num_threads(device->threads)
    for (size_t plane = 0; plane < desc->in.n * (size_t)in.blocks; plane++) {
        (device->half ? forward_halves
                      : forward_floats)(desc, buffers->y, plane * out.pixels * out.block,
                                        buffers->x, plane * in.pixels * in.block, taps, in.block);
    }
    return STATUS_OK;
}

// --- backward ------------------------------------------------------------------------------------

// What the windows `rows` x `columns` give to pixel (row, column) of the image.
CPU_INLINE void gather_pixel(cpu_lanes *sum, const struct op_desc *desc, const void *dy, size_t out,
                             const uint8_t *taps, const struct span *rows,
                             const struct span *columns, int64_t row, int64_t column, size_t block,
                             bool half)
{
    for (int64_t oy = rows->first; oy < rows->end; oy++) {
        int64_t tap_row = row + desc->pad_top - oy * desc->stride;
        int64_t tap = tap_row * desc->kernel + column + desc->pad_left;
        size_t at = out + (size_t)(oy * desc->out.w + columns->first) * block;
        for (int64_t ox = columns->first; ox < columns->end; ox++, at += block) {
            cpu_lanes gradient;
            pool_taps narrow = {0};
            cpu_lanes_load(&gradient, dy, at, block, half);
            memcpy(&narrow, taps + at, block);
            cpu_lane_mask mine = __builtin_convertvector(narrow, cpu_lane_mask) ==
                                 (int32_t)(tap - ox * desc->stride);
            *sum += (cpu_lanes)((cpu_lane_mask)gradient & mine);
        }
    }
}

CPU_INLINE void backward_plane(const struct op_desc *desc, void *dx, size_t index, const void *dy,
                               size_t out, const uint8_t *taps, size_t block, bool half)
{
    struct span rows = {0};
    for (int64_t row = 0; row < desc->in.h; row++) {
        struct span columns = {0};
        advance(&rows, row, desc->pad_top, desc->out.h, desc);
        for (int64_t column = 0; column < desc->in.w; column++, index += block) {
            cpu_lanes sum = {0};
            advance(&columns, column, desc->pad_left, desc->out.w, desc);
            gather_pixel(&sum, desc, dy, out, taps, &rows, &columns, row, column, block, half);
            cpu_lanes_store(dx, index, &sum, block, half);
        }
    }
}

CPU_KERNEL static void backward_floats(const struct op_desc *desc, void *dx, size_t index,
                                       const void *dy, size_t out, const uint8_t *taps,
                                       size_t block)
{
    if (block == CPU_LANES) {
        backward_plane(desc, dx, index, dy, out, taps, CPU_LANES, false);
    } else {
        backward_plane(desc, dx, index, dy, out, taps, block, false);
    }
}

CPU_KERNEL static void backward_halves(const struct op_desc *desc, void *dx, size_t index,
                                       const void *dy, size_t out, const uint8_t *taps,
                                       size_t block)
{
    if (block == CPU_LANES) {
        backward_plane(desc, dx, index, dy, out, taps, CPU_LANES, true);
    } else {
        backward_plane(desc, dx, index, dy, out, taps, block, true);
    }
}

static enum status pool_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout in = cpu_layout_of(desc->in), out = cpu_layout_of(desc->out);
#pragma omp parallel for num_threads(device->threads)
    for (size_t plane = 0; plane < desc->in.n * (size_t)in.blocks; plane++) {
        (device->half ? backward_halves : backward_floats)(
            desc, buffers->dx, plane * in.pixels * in.block, buffers->dy,
            plane * out.pixels * out.block, buffers->saved, in.block);
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
