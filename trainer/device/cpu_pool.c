// Maximum over windows, a vector of channels at a time. Each plane of channels belongs to one
// thread. The backward pass gathers: an input pixel asks the windows that cover it whether it was
// their maximum, in row order, so that dx is written once.
#include "trainer/device/cpu.h"

#include <string.h>

#define MOST_TAPS 15u // along one side: those of a window have to fit into a byte

// A plane of channels of one image: what the passes read and write, and where it begins there.
// `block`, `half`, `kernel` and `stride` of a pass are passed on as constants where they can be.
struct plane {
    const struct op_desc *desc;
    const void *from; // x or dy
    void *to;         // y or dx
    uint8_t *taps;    // of the largest values, laid out like y; NULL: not wanted
    size_t in, out;   // values before the plane in images like x and like y
};

// Whole vectors of bfloat16 are only met in a CPU_HALF_KERNEL.
CPU_INLINE void load_values(cpu_lanes *to, const void *base, size_t index, size_t block, bool half)
{
    if (half && block == CPU_LANES) {
        cpu_halves_load(to, base, index);
    } else {
        cpu_lanes_load(to, base, index, block, half);
    }
}

CPU_INLINE void store_values(void *base, size_t index, const cpu_lanes *from, size_t block,
                             bool half)
{
    if (half && block == CPU_LANES) {
        cpu_halves_store(base, index, from);
    } else {
        cpu_lanes_store(base, index, from, block, half);
    }
}

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
    load_values(&largest, plane->from, corner, block, half);
#pragma GCC unroll 3
    for (int64_t row = 0; row < window->high_row - window->low_row; row++) {
#pragma GCC unroll 3
        for (int64_t i = 0; i < window->high_column - window->low_column; i++) {
            size_t at = corner + ((size_t)row * width + (size_t)i) * block;
            load_values(&values, plane->from, at, block, half);
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

#define LINE 64 // bytes that come from memory together

// Asks for what the windows in the row below this one will see first.
CPU_INLINE void ask_ahead(const struct plane *plane, const struct window *window, uint32_t kernel,
                          uint32_t stride, size_t block, bool half)
{
    size_t width = plane->desc->in.w, bytes = cpu_value_bytes(half);
    size_t corner = (size_t)(window->top + kernel) * width + (size_t)window->left;
    const char *from = (const char *)plane->from + (plane->in + corner * block) * bytes;
    for (uint32_t row = 0; row < stride; row++, from += width * block * bytes) {
        for (size_t at = 0; at < stride * block * bytes; at += LINE) {
            __builtin_prefetch(from + at);
        }
    }
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
                ask_ahead(plane, &whole, kernel, stride, block, half);
                pool_window(&maximum, &best, plane, &whole, kernel, block, half);
            } else {
                pool_window(&maximum, &best, plane, &part, kernel, block, half);
            }
            store_values(plane->to, at, &maximum, block, half);
            if (plane->taps != NULL) {
                cpu_lane_bytes narrow = __builtin_convertvector(best, cpu_lane_bytes);
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

CPU_HALF_KERNEL static void forward_halves(const struct plane *plane, size_t block)
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

CPU_INLINE void load_taps(cpu_lane_mask *to, const uint8_t *taps, size_t block, bool half)
{
    if (half && block == CPU_LANES) {
        cpu_bytes_load(to, taps);
        return;
    }
    cpu_lane_bytes narrow = {0};
    memcpy(&narrow, taps, block);
    cpu_lane_halves wide = __builtin_convertvector(narrow, cpu_lane_halves); // compilers do this
    *to = __builtin_convertvector(wide, cpu_lane_mask);                      // well in two steps
}

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

// What window column `ox`, and those before it that reach as far, give to the pixels that are its
// first taps: to sums[phase] what belongs to tap column `phase`.
CPU_INLINE void gather_pixels(cpu_lanes *sums, const struct plane *plane, const struct rows *rows,
                              int64_t ox, uint32_t kernel, uint32_t stride, size_t block, bool half)
{
    int64_t width = plane->desc->out.w;
    size_t row_at = plane->out + (size_t)(rows->first * width + ox) * block;
    int32_t tap_row = (int32_t)(rows->tap * kernel);
    for (int64_t oy = rows->first; oy < rows->end; oy++) {
#pragma GCC unroll 2
        for (uint32_t back = (kernel - 1) / stride + 1; back-- > 0;) {
            if (ox < back || ox - back >= width) {
                continue;
            }
            uint32_t left = kernel - back * stride, phases = left < stride ? left : stride;
            cpu_lanes gradient;
            cpu_lane_mask taps;
            load_values(&gradient, plane->from, row_at - back * block, block, half);
            load_taps(&taps, plane->taps + row_at - back * block, block, half);
#pragma GCC unroll 2
            for (uint32_t phase = 0; phase < phases; phase++) {
                cpu_lane_mask mine = taps == tap_row + (int32_t)(back * stride + phase);
                sums[phase] += (cpu_lanes)((cpu_lane_mask)gradient & mine);
            }
        }
        row_at += (size_t)width * block;
        tap_row -= (int32_t)(stride * kernel);
    }
}

CPU_INLINE void backward_row(const struct plane *plane, const struct rows *rows, size_t at,
                             uint32_t kernel, uint32_t stride, size_t block, bool half)
{
    const struct op_desc *desc = plane->desc;
    int64_t column = -(int64_t)desc->pad_left;
    for (int64_t ox = 0; column < desc->in.w; ox++) {
        cpu_lanes sums[MOST_TAPS] = {0};
        const cpu_lanes none = {0}; // between windows
        gather_pixels(sums, plane, rows, ox, kernel, stride, block, half);
#pragma GCC unroll 2
        for (uint32_t phase = 0; phase < stride; phase++, column++) {
            if (column >= 0 && column < desc->in.w) {
                store_values(plane->to, at + (size_t)column * block,
                             phase < kernel ? &sums[phase] : &none, block, half);
            }
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

CPU_HALF_KERNEL static void backward_halves(const struct plane *plane, size_t block)
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
    if (desc->kernel > MOST_TAPS) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "a pool window of %u is larger than %u", desc->kernel, MOST_TAPS);
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
