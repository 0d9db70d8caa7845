// Which convolutions go through Winograd's filtering, in blocks of how many tiles, and the threads.
#include "trainer/device/cpu_winograd.h"

#include "trainer/device/cpu_winograd_kernel.h"
#include "trainer/device/cpu_winograd_weights.h"

#include <omp.h>

#define TAPS_WIDE 3

// Groups of tiles in a block, from measurements: as many as leave room for weights in the second
// level cache, within bounds. Weights that do not stay in the third level cache are fetched from
// memory for each block, which should then be large.
#define BLOCK_BYTES  (320 << 10)
#define LEAST_GROUPS 3
#define MOST_GROUPS  4
#define FAR_WEIGHTS  (16 << 20)
#define FAR_GROUPS   8

// With far weights, the library's kernels are faster from about this many tiles on.
#define FAR_TILES 96

struct plan {
    const struct winograd_kernel *kernel;
    struct winograd_shape shape;
    size_t block_tiles, blocks;
    size_t tiles_bytes, products_bytes; // of the scratch of each thread
};

// What is written side by side, in many places at once, lies an odd number of lines apart: at even
// distances the places would compete for a few sets of the first level cache.
static size_t odd_lines(size_t bytes)
{
    return bytes | WINOGRAD_LINE;
}

// NULL where this machine has none for the device's precision.
static const struct winograd_kernel *kernel_of(const struct cpu_device *device)
{
#if defined(__x86_64__)
    if (device->half) {
        return __builtin_cpu_supports("avx512bf16") ? &winograd_half_kernel : NULL;
    }
    return __builtin_cpu_supports("avx512f") ? &winograd_float_kernel : NULL;
#else
    (void)device;
    return NULL;
#endif
}

// --- the plan

static size_t divide_up(size_t count, size_t step)
{
    return (count + step - 1) / step;
}

static struct winograd_shape shape_of(const struct winograd_kernel *kernel,
                                      const struct op_desc *desc, enum cpu_winograd_pass pass)
{
    bool forward = pass == WINOGRAD_FORWARD;
    struct winograd_shape shape = {
        .height = desc->in.h,
        .width = desc->in.w,
        .in_blocks = (forward ? desc->in.c : desc->out.c) / WINOGRAD_LANES,
        .out_blocks = (forward ? desc->out.c : desc->in.c) / WINOGRAD_LANES,
        .tiles_high = (uint32_t)divide_up(desc->in.h, kernel->tile),
        .tiles_wide = (uint32_t)divide_up(desc->in.w, kernel->tile),
    };
    shape.tiles = (size_t)desc->in.n * shape.tiles_high * shape.tiles_wide;
    return shape;
}

static uint32_t vectors_of(const struct winograd_shape *shape, size_t panel)
{
    size_t left = shape->out_blocks - panel * WINOGRAD_VECTORS;
    return left < WINOGRAD_VECTORS ? (uint32_t)left : WINOGRAD_VECTORS;
}

// Transformed weights of one place of a panel.
static size_t place_bytes(const struct plan *plan, uint32_t vectors)
{
    return odd_lines((size_t)plan->shape.in_blocks * plan->kernel->steps * vectors * WINOGRAD_LINE);
}

// Where a panel begins; all before it are full.
static size_t panel_offset(const struct plan *plan, size_t panel)
{
    return panel * plan->kernel->places * place_bytes(plan, WINOGRAD_VECTORS);
}

static size_t weights_bytes(const struct plan *plan)
{
    size_t last = divide_up(plan->shape.out_blocks, WINOGRAD_VECTORS) - 1;
    return panel_offset(plan, last) +
           plan->kernel->places * place_bytes(plan, vectors_of(&plan->shape, last));
}

static struct plan plan_of(const struct cpu_device *device, const struct op_desc *desc,
                           enum cpu_winograd_pass pass)
{
    const struct winograd_kernel *kernel = kernel_of(device);
    struct plan plan = {.kernel = kernel, .shape = shape_of(kernel, desc, pass)};
    size_t group_bytes = WINOGRAD_ROWS * (size_t)plan.shape.in_blocks * WINOGRAD_LINE;
    size_t products = WINOGRAD_ROWS * kernel->places * vectors_of(&plan.shape, 0) * WINOGRAD_LINE;
    size_t groups = BLOCK_BYTES / (kernel->slabs * group_bytes + products);
    groups = groups > MOST_GROUPS ? MOST_GROUPS : groups < LEAST_GROUPS ? LEAST_GROUPS : groups;
    groups = weights_bytes(&plan) > FAR_WEIGHTS ? FAR_GROUPS : groups;
    // As many blocks for every thread, all of about the same size.
    size_t threads = (size_t)device->threads;
    size_t rounds = divide_up(plan.shape.tiles, groups * WINOGRAD_ROWS * threads);
    groups = divide_up(plan.shape.tiles, rounds * WINOGRAD_ROWS * threads);
    plan.block_tiles = groups * WINOGRAD_ROWS;
    plan.blocks = divide_up(plan.shape.tiles, plan.block_tiles);
    plan.shape.slab_bytes = odd_lines(groups * group_bytes);
    plan.tiles_bytes = kernel->slabs * plan.shape.slab_bytes;
    plan.products_bytes = groups * products;
    return plan;
}

bool cpu_winograd_fits(const struct cpu_device *device, const struct op_desc *desc,
                       enum cpu_winograd_pass pass)
{
    if (pass == WINOGRAD_BACKWARD_WEIGHTS) {
        return cpu_winograd_weights_fits(device, desc);
    }
    return kernel_of(device) != NULL && desc->kernel == TAPS_WIDE && desc->stride == 1 &&
           desc->pad_top == 1 && desc->pad_left == 1 && desc->pad_bottom == 1 &&
           desc->pad_right == 1 && cpu_layout_of(desc->in).block == WINOGRAD_LANES &&
           desc->in.c % WINOGRAD_LANES == 0 &&
           desc->out.c % WINOGRAD_LANES == 0;
}

bool cpu_winograd_pays(const struct cpu_device *device, const struct op_desc *desc,
                       enum cpu_winograd_pass pass)
{
    if (pass == WINOGRAD_BACKWARD_WEIGHTS) {
        return cpu_winograd_weights_pays(device, desc);
    }
    if (!cpu_winograd_fits(device, desc, pass)) {
        return false;
    }
    struct plan plan = plan_of(device, desc, pass);
    size_t pixels = (size_t)desc->in.n * desc->in.h * desc->in.w;
    size_t outputs = plan.shape.tiles * plan.kernel->tile * plan.kernel->tile;
    if (device->half) {
        return pixels * 4 > outputs * 3 && desc->in.c > WINOGRAD_LANES &&
               desc->out.c > WINOGRAD_LANES;
    }
    bool far = weights_bytes(&plan) > FAR_WEIGHTS && plan.shape.tiles > FAR_TILES;
    return pixels * 2 > outputs && !far;
}

size_t cpu_winograd_scratch_bytes(const struct cpu_device *device, const struct op_desc *desc,
                                  enum cpu_winograd_pass pass)
{
    if (pass == WINOGRAD_BACKWARD_WEIGHTS) {
        return cpu_winograd_weights_scratch(device, desc);
    }
    struct plan plan = plan_of(device, desc, pass);
    return (size_t)device->threads * (plan.tiles_bytes + plan.products_bytes);
}

// --- weights

size_t cpu_winograd_weights_bytes(const struct cpu_device *device, const struct op_desc *desc)
{
    struct plan forward = plan_of(device, desc, WINOGRAD_FORWARD);
    struct plan backward = plan_of(device, desc, WINOGRAD_BACKWARD_DATA);
    size_t bytes = weights_bytes(&forward), other = weights_bytes(&backward);
    return bytes > other ? bytes : other;
}

// Weights of 16 channels read and up to WINOGRAD_VECTORS times 16 channels written.
static void transform_panel(const struct plan *plan, const struct op_desc *desc,
                            enum cpu_winograd_pass pass, char *to, const float *weights,
                            size_t panel, size_t in_block)
{
    const struct winograd_kernel *kernel = plan->kernel;
    uint32_t vectors = vectors_of(&plan->shape, panel);
    size_t step_stride = (size_t)vectors * WINOGRAD_LINE;
    size_t tap_stride = (size_t)desc->in.c * desc->out.c;
    to += panel_offset(plan, panel) + in_block * kernel->steps * step_stride;
    for (uint32_t v = 0; v < vectors; v++) {
        size_t in = in_block * WINOGRAD_LANES;
        size_t out = (panel * WINOGRAD_VECTORS + v) * WINOGRAD_LANES;
        float turned[WINOGRAD_TAPS * WINOGRAD_LANES * WINOGRAD_LANES];
        struct winograd_taps taps = {weights + in * desc->out.c + out, tap_stride, desc->out.c};
        if (pass == WINOGRAD_BACKWARD_DATA) {
            kernel->turn(turned, weights + out * desc->out.c + in, tap_stride, desc->out.c);
            taps = (struct winograd_taps){turned, WINOGRAD_LANES * WINOGRAD_LANES, WINOGRAD_LANES};
        }
        kernel->transform(&taps, to + v * WINOGRAD_LINE, place_bytes(plan, vectors), step_stride);
    }
}

void cpu_winograd_weights(const struct cpu_device *device, const struct op_desc *desc,
                          enum cpu_winograd_pass pass, void *to, const float *weights)
{
    struct plan plan = plan_of(device, desc, pass);
    size_t panels = divide_up(plan.shape.out_blocks, WINOGRAD_VECTORS);
#pragma omp parallel for schedule(static) collapse(2) num_threads(device->threads)
    for (size_t panel = 0; panel < panels; panel++) {
        for (size_t block = 0; block < plan.shape.in_blocks; block++) {
            transform_panel(&plan, desc, pass, to, weights, panel, block);
        }
    }
}

// --- images

// The tiles from `first` of the block on that lie in one row; `end` is the first tile after it.
static struct winograd_run run_of(const struct winograd_shape *shape, size_t tile, size_t end,
                                  size_t block_start)
{
    size_t row = tile / shape->tiles_wide;
    uint32_t column = (uint32_t)(tile % shape->tiles_wide);
    size_t left = shape->tiles_wide - column;
    return (struct winograd_run){
        .image = row / shape->tiles_high,
        .row = (uint32_t)(row % shape->tiles_high),
        .column = column,
        .count = (uint32_t)(end - tile < left ? end - tile : left),
        .first = tile - block_start,
    };
}

// Asks for the pixels of a tile that its neighbours before it do not have. Inlined, because gcc
// takes a function that only prefetches for one without effect, and drops its calls.
CPU_INLINE void prefetch_tile(const struct plan *plan, const void *x, size_t tile)
{
    const struct winograd_shape *shape = &plan->shape;
    size_t pixel_bytes = plan->kernel->pixel_bytes, side = plan->kernel->tile;
    size_t row_bytes = shape->width * pixel_bytes, plane_bytes = shape->height * row_bytes;
    struct winograd_run run = run_of(shape, tile, tile + 1, tile);
    const char *plane = (const char *)x + run.image * shape->in_blocks * plane_bytes;
    size_t last_row =
        (run.row + 1) * side < shape->height ? (run.row + 1) * side : shape->height - 1;
    size_t first = run.column * side * pixel_bytes;
    size_t end = first + side * pixel_bytes < row_bytes ? first + side * pixel_bytes : row_bytes;
    for (uint32_t block = 0; block < shape->in_blocks; block++, plane += plane_bytes) {
        for (size_t row = run.row * side + 1; row <= last_row; row++) {
            for (size_t at = first; at < end; at += WINOGRAD_LINE) {
                __builtin_prefetch(plane + row * row_bytes + at, 0, 2);
            }
        }
    }
}

// One place after the other; meanwhile, the pixels of the block of tiles from `next` on come
// nearer.
static void multiply_places(const struct plan *plan, struct winograd_product *product,
                            const char *tiles, const char *weights, const void *x, size_t next)
{
    const struct winograd_shape *shape = &plan->shape;
    const struct winograd_kernel *kernel = plan->kernel;
    size_t end = next + plan->block_tiles < shape->tiles ? next + plan->block_tiles : shape->tiles;
    size_t share = divide_up(plan->block_tiles, kernel->places);
    float *products = product->products;
    product->weights = weights;
    for (uint32_t place = 0; place < kernel->places; place++) {
        for (size_t tile = next; tile < end && tile < next + share; tile++) {
            prefetch_tile(plan, x, tile);
        }
        next += share;
        product->tiles = tiles + kernel->place_offset(place, shape->slab_bytes);
        kernel->multiply(product);
        product->products += (size_t)WINOGRAD_ROWS * product->vectors * WINOGRAD_LANES;
        product->weights += place_bytes(plan, product->vectors);
    }
    product->products = products;
}

static void convolve_block(const struct plan *plan, void *y, const void *x, const char *weights,
                           char *scratch, size_t block)
{
    const struct winograd_shape *shape = &plan->shape;
    size_t start = block * plan->block_tiles;
    size_t end =
        start + plan->block_tiles < shape->tiles ? start + plan->block_tiles : shape->tiles;
    char *tiles = scratch;
    struct winograd_product product = {
        .products = (void *)(scratch + plan->tiles_bytes),
        .groups = divide_up(end - start, WINOGRAD_ROWS),
        .in_blocks = shape->in_blocks,
    };
    struct winograd_run run;
    for (size_t tile = start; tile < end; tile += run.count) {
        run = run_of(shape, tile, end, start);
        plan->kernel->gather(shape, tiles, x, &run);
    }
    for (uint32_t out = 0; out < shape->out_blocks; out += WINOGRAD_VECTORS) {
        size_t panel = out / WINOGRAD_VECTORS;
        product.vectors = vectors_of(shape, panel);
        multiply_places(plan, &product, tiles, weights + panel_offset(plan, panel), x,
                        panel == 0 ? end : shape->tiles);
        for (size_t tile = start; tile < end; tile += run.count) {
            run = run_of(shape, tile, end, start);
            plan->kernel->scatter(shape, y, product.products, &run, out, product.vectors);
        }
    }
}

static void convolve(const struct cpu_device *device, const struct plan *plan, void *y,
                     const void *x, const void *weights, char *scratch)
{
    size_t thread_bytes = plan->tiles_bytes + plan->products_bytes;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t block = 0; block < plan->blocks; block++) {
        char *own = scratch + (size_t)omp_get_thread_num() * thread_bytes;
        convolve_block(plan, y, x, weights, own, block);
    }
}

void cpu_winograd_forward(const struct cpu_device *device, const struct op_desc *desc, void *y,
                          const void *x, const void *weights, void *scratch)
{
    struct plan plan = plan_of(device, desc, WINOGRAD_FORWARD);
    convolve(device, &plan, y, x, weights, scratch);
}

void cpu_winograd_backward_data(const struct cpu_device *device, const struct op_desc *desc,
                                void *dx, const void *dy, const void *weights, void *scratch)
{
    struct plan plan = plan_of(device, desc, WINOGRAD_BACKWARD_DATA);
    convolve(device, &plan, dx, dy, weights, scratch);
}
