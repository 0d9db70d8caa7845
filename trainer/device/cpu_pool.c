// Maximum over windows, a vector of channels at a time. Each plane of channels belongs to one
// thread. The backward pass gathers: an input pixel asks the windows that cover it whether it was
// their maximum, in row order, so that dx is written once.
#include "trainer/device/cpu.h"

#include <string.h>

typedef uint8_t pool_taps __attribute__((vector_size(CPU_LANES)));

// A plane of channels of one image: what the passes read and write, and where it begins there.
// `block`, `half`, `kernel` and `stride` of a pass are passed on as constants where they can be.
struct plane {
    const struct op_desc *desc;
    const void *from; // x or dy
    void *to;         // y or dx
    uint8_t *taps;    // of the largest values, laid out like y; NULL: not wanted
    size_t in, out;   // values before the plane in images like x and like y
};

// --- forward -------------------------------------------------------------------------------------

// A part of a window: taps [low, high) along each side.
struct window {
    int64_t top, left; // of the whole window; negative in the padding
    int64_t low_row, high_row, low_column, high_column;
};

// Maximum over the window, and its tap. A NaN stays only where it comes first.
CPU_INLINE void pool_window(cpu_lanes *maximum, cpu_lane_mask *taps, const struct plane *plane,
                            const struct window *window, uint32_t kernel, size_t block, bool half)
{
    size_t width = plane->desc->in.w;
    size_t corner = plane->in + ((size_t)(window->top + window->low_row) * width +
                                 (size_t)(window->left + window->low_column)) *
                                    block;
    int32_t tap = (int32_t)(window->low_row * kernel + window->low_column);
    cpu_lanes values, largest;
    cpu_lane_mask best = tap - (cpu_lane_mask){0};
    cpu_lanes_load(&largest, plane->from, corner, block, half);
#pragma GCC unroll 3
    for (int64_t row = 0; row < window->high_row - window->low_row; row++) {
#pragma GCC unroll 3
        for (int64_t i = 0; i < window->high_column - window->low_column; i++) {
            size_t at = corner + ((size_t)row * width + (size_t)i) * block;
            cpu_lanes_load(&values, plane->from, at, block, half);
            cpu_lane_mask better = values > largest;
            largest =
                (cpu_lanes)(((cpu_lane_mask)values & better) | ((cpu_lane_mask)largest & ~better));
            best = ((tap + (int32_t)(row * kernel + i)) & better) | (best & ~better);
        }
    }
    *maximum = largest;
    *taps = best;
}

CPU_INLINE int64_t low_tap(int64_t start)
{
    return start < 0 ? -start : 0;
}

CPU_INLINE int64_t high_tap(int64_t start, uint32_t kernel, uint32_t size)
{
    return start + kernel <= size ? kernel : size - start;
}

CPU_INLINE void forward_plane(const struct plane *given, uint32_t kernel, uint32_t stride,
                              size_t block, bool half)
{
    const struct plane own = *given, *plane = &own; // known to stay as it is
    const struct op_desc *desc = plane->desc;
    size_t at = plane->out;
    for (uint32_t oy = 0; oy < desc->out.h; oy++) {
        struct window part = {.top = (int64_t)oy * stride - desc->pad_top};
        part.low_row = low_tap(part.top);
        part.high_row = high_tap(part.top, kernel, desc->in.h);
        for (uint32_t ox = 0; ox < desc->out.w; ox++, at += block) {
            cpu_lanes maximum = {0};
            cpu_lane_mask best = {0};
            part.left = (int64_t)ox * stride - desc->pad_left;
            part.low_column = low_tap(part.left);
            part.high_column = high_tap(part.left, kernel, desc->in.w);
            if (part.high_row - part.low_row == kernel &&
                part.high_column - part.low_column == kernel) {
                struct window whole = {part.top, part.left, 0, kernel, 0, kernel};
                pool_window(&maximum, &best, plane, &whole, kernel, block, half);
            } else {
                pool_window(&maximum, &best, plane, &part, kernel, block, half);
            }
            cpu_lanes_store(plane->to, at, &maximum, block, half);
            if (plane->taps != NULL) {
                pool_taps narrow = __builtin_convertvector(best, pool_taps);
                memcpy(plane->taps + at, &narrow, block);
            }
        }
    }
}

CPU_INLINE void forward_block(const struct plane *plane, size_t block, bool half)
{
    if (plane->desc->kernel == 3 && plane->desc->stride == 2) {
        forward_plane(plane, 3, 2, block, half);
    } else {
        forward_plane(plane, plane->desc->kernel, plane->desc->stride, block, half);
    }
}

CPU_KERNEL static void forward_floats(const struct plane *plane, size_t block)
{
    if (block == CPU_LANES) {
        forward_block(plane, CPU_LANES, false);
    } else if (block == CPU_LANES / 2) {
        forward_block(plane, CPU_LANES / 2, false);
    } else {
        forward_block(plane, 1, false);
    }
}

CPU_KERNEL static void forward_halves(const struct plane *plane, size_t block)
{
    if (block == CPU_LANES) {
        forward_block(plane, CPU_LANES, true);
    } else {
        forward_block(plane, 1, true);
    }
}

static enum status pool_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout in = cpu_layout_of(desc->in), out = cpu_layout_of(desc->out);
    uint8_t *taps = desc->need_backward && mode == OP_TRAIN ? buffers->saved : NULL;
#pragma omp parallel for num_threads(device->threads)
    for (size_t i = 0; i < desc->in.n * (size_t)in.blocks; i++) {
        struct plane plane = {desc,
                              buffers->x,
                              buffers->y,
                              taps,
                              i * in.pixels * in.block,
                              i * out.pixels * out.block};
        (device->half ? forward_halves : forward_floats)(&plane, in.block);
    }
    return STATUS_OK;
}

// --- backward ------------------------------------------------------------------------------------

// Windows of one input row: rows [first, end) of y; the row is tap row `tap` of the first of them.
struct rows {
    int64_t first, end, tap;
};

// Position `at` counts from the first window's start, padding included.
CPU_INLINE struct rows covering_rows(int64_t at, uint32_t kernel, uint32_t stride, uint32_t count)
{
    int64_t first = at < kernel ? 0 : (at - kernel) / stride + 1, end = at / stride + 1;
    return (struct rows){first, end < count ? end : count, at - first * stride};
}

// What the windows give to the pixel that is tap `phase` of window column `ox`, and a later tap of
// the ones before it.
CPU_INLINE void gather_pixel(cpu_lanes *to, const struct plane *plane, const struct rows *rows,
                             int64_t ox, uint32_t phase, uint32_t kernel, uint32_t stride,
                             size_t block, bool half)
{
    int64_t width = plane->desc->out.w, before = ((int64_t)kernel - 1 - phase) / stride;
    int64_t tap_row = rows->tap;
    cpu_lanes sum = {0};
    for (int64_t oy = rows->first; oy < rows->end; oy++, tap_row -= stride) {
#pragma GCC unroll 3
        for (int64_t back = before; back >= 0; back--) {
            if (ox < back || ox - back >= width) {
                continue;
            }
            cpu_lanes gradient;
            pool_taps narrow = {0};
            size_t at = plane->out + (size_t)(oy * width + ox - back) * block;
            int32_t tap = (int32_t)(tap_row * kernel + phase + back * stride);
            cpu_lanes_load(&gradient, plane->from, at, block, half);
            memcpy(&narrow, plane->taps + at, block);
            cpu_lane_halves wide = __builtin_convertvector(narrow, cpu_lane_halves);  // one step at
            cpu_lane_mask mine = __builtin_convertvector(wide, cpu_lane_mask) == tap; // a time
            sum += (cpu_lanes)((cpu_lane_mask)gradient & mine);
        }
    }
    *to = sum;
}

CPU_INLINE void backward_row(const struct plane *plane, const struct rows *rows, size_t at,
                             uint32_t kernel, uint32_t stride, size_t block, bool half)
{
    const struct op_desc *desc = plane->desc;
    int64_t column = -(int64_t)desc->pad_left;
    for (int64_t ox = 0; column < desc->in.w; ox++) {
#pragma GCC unroll 2
        for (uint32_t phase = 0; phase < stride; phase++, column++) {
            cpu_lanes sum = {0};
            if (column < 0 || column >= desc->in.w) {
                continue;
            }
            if (phase < kernel) {
                gather_pixel(&sum, plane, rows, ox, phase, kernel, stride, block, half);
            }
            cpu_lanes_store(plane->to, at + (size_t)column * block, &sum, block, half);
        }
    }
}

CPU_INLINE void backward_plane(const struct plane *given, uint32_t kernel, uint32_t stride,
                               size_t block, bool half)
{
    const struct plane own = *given, *plane = &own; // known to stay as it is
    const struct op_desc *desc = plane->desc;
    for (int64_t row = 0; row < desc->in.h; row++) {
        struct rows rows = covering_rows(row + desc->pad_top, kernel, stride, desc->out.h);
        backward_row(plane, &rows, plane->in + (size_t)row * desc->in.w * block, kernel, stride,
                     block, half);
    }
}

CPU_INLINE void backward_block(const struct plane *plane, size_t block, bool half)
{
    if (plane->desc->kernel == 3 && plane->desc->stride == 2) {
        backward_plane(plane, 3, 2, block, half);
    } else {
        backward_plane(plane, plane->desc->kernel, plane->desc->stride, block, half);
    }
}

CPU_KERNEL static void backward_floats(const struct plane *plane, size_t block)
{
    if (block == CPU_LANES) {
        backward_block(plane, CPU_LANES, false);
    } else if (block == CPU_LANES / 2) {
        backward_block(plane, CPU_LANES / 2, false);
    } else {
        backward_block(plane, 1, false);
    }
}

CPU_KERNEL static void backward_halves(const struct plane *plane, size_t block)
{
    if (block == CPU_LANES) {
        backward_block(plane, CPU_LANES, true);
    } else {
        backward_block(plane, 1, true);
    }
}

static enum status pool_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.desc;
    struct cpu_layout in = cpu_layout_of(desc->in), out = cpu_layout_of(desc->out);
#pragma omp parallel for num_threads(device->threads)
    for (size_t i = 0; i < desc->in.n * (size_t)in.blocks; i++) {
        struct plane plane = {desc,
                              buffers->dy,
                              buffers->dx,
                              buffers->saved,
                              i * in.pixels * in.block,
                              i * out.pixels * out.block};
        (device->half ? backward_halves : backward_floats)(&plane, in.block);
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
