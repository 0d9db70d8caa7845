// Maximum and mean over windows and whole images. A thread owns CUDA_LANES channels of a pixel.
#include "trainer/cuda/launch.h"

#include "trainer/cuda/grid.h"
#include "trainer/cuda/layers.h"
#include "trainer/cuda/pool_math.h"

#define THREADS 128

// --- maximum

struct pool {
    uint32_t in_h, in_w, out_h, out_w;
    uint32_t groups; // of CUDA_LANES channels
    uint32_t kernel, stride, pad_top, pad_left;
    uint32_t work_h, work_w; // what the threads are spread over: outputs, pixels or cells
};

// What a thread works at.
struct place {
    uint32_t n, y, x, group;
};

static __device__ struct place place_of(const struct pool &pool, uint32_t at)
{
    uint32_t pixel = at / pool.groups, row = pixel / pool.work_w, n = row / pool.work_h;
    struct place place = {n, row - n * pool.work_h, pixel - row * pool.work_w,
                          at - pixel * pool.groups};
    return place;
}

// Number of the place's lanes at pixel (y, x) of an image of h x w, which may lie outside of it.
static __device__ int64_t lanes_at(const struct place &place, uint32_t groups, uint32_t h,
                                   uint32_t w, int32_t y, int32_t x)
{
    return (((int64_t)place.n * h + y) * w + x) * groups + place.group;
}

// The eight taps of a thread's channels as one number, a byte each.
static __device__ uint64_t taps_pack(const uint32_t *taps)
{
    uint32_t low = taps[0] | taps[1] << 8 | taps[2] << 16 | taps[3] << 24;
    uint32_t high = taps[4] | taps[5] << 8 | taps[6] << 16 | taps[7] << 24;
    return (uint64_t)high << 32 | low;
}

static __device__ uint32_t taps_at(uint64_t taps, int lane)
{
    uint32_t half = (uint32_t)(taps >> (lane / 4 * 32));
    return half >> (lane % 4 * 8) & 0xffu;
}

// Lanes that are larger take the place of the best so far, and of its tap.
static __device__ void keep_larger(struct lanes *best, uint32_t *taps, const struct lanes &values,
                                   uint32_t tap, bool first)
{
    CUDA_UNROLL
    for (int i = 0; i < CUDA_LANES; i++) {
        const bool larger = first || values.v[i] > best->v[i]; // a NaN stays where it comes first
        best->v[i] = larger ? values.v[i] : best->v[i];
        taps[i] = larger ? tap : taps[i];
    }
}

// KERNEL 0: of any size; otherwise a row of the window is asked for before it is compared.
template <class T, uint32_t KERNEL>
static __global__ void max_pool_kernel(uint32_t work, struct pool pool, const T *__restrict__ x,
                                       T *__restrict__ y, uint8_t *__restrict__ saved)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= work) {
        return;
    }
    const struct place out = place_of(pool, at);
    const uint32_t kernel = KERNEL > 0 ? KERNEL : pool.kernel, batch = KERNEL > 0 ? KERNEL : 1;
    const struct pool_range rows = pool_taps(out.y, kernel, pool.stride, pool.pad_top, pool.in_h);
    const struct pool_range columns =
        pool_taps(out.x, kernel, pool.stride, pool.pad_left, pool.in_w);
    const int64_t corner = lanes_at(out, pool.groups, pool.in_h, pool.in_w,
                                    (int32_t)(out.y * pool.stride - pool.pad_top),
                                    (int32_t)(out.x * pool.stride - pool.pad_left));
    struct lanes best = {};
    uint32_t taps[CUDA_LANES] = {};
    CUDA_UNROLL
    for (uint32_t row = 0; row < kernel; row++) {
        const uint32_t tap_y = (uint32_t)pool_clamp((int32_t)row, rows);
        CUDA_UNROLL
        for (uint32_t first = 0; first < kernel; first += batch) {
            struct lanes values[KERNEL > 0 ? KERNEL : 1];
            uint32_t tap_x[KERNEL > 0 ? KERNEL : 1];
            CUDA_UNROLL
            for (uint32_t k = 0; k < batch; k++) {
                tap_x[k] = (uint32_t)pool_clamp((int32_t)(first + k), columns);
                const uint32_t further = (tap_y * pool.in_w + tap_x[k]) * pool.groups;
                values[k] = lanes_load(x + (corner + further) * CUDA_LANES);
            }
            CUDA_UNROLL
            for (uint32_t k = 0; k < batch; k++) {
                keep_larger(&best, taps, values[k], tap_y * kernel + tap_x[k],
                            row == 0 && first + k == 0);
            }
        }
    }
    lanes_store(y + (size_t)at * CUDA_LANES, best);
    if (saved != NULL) {
        *reinterpret_cast<uint64_t *>(saved + (size_t)at * CUDA_LANES) = taps_pack(taps);
    }
}

// One window as the backward pass sees it.
struct window {
    struct lanes dy;
    uint64_t taps;
};

template <class T>
static __device__ struct window window_load(const T *dy, const uint8_t *saved, int64_t lanes)
{
    struct window window;
    window.dy = lanes_load(dy + lanes * CUDA_LANES);
    window.taps = *reinterpret_cast<const uint64_t *>(saved + lanes * CUDA_LANES);
    return window;
}

// Adds the gradient of the lanes whose maximum was at `tap`.
static __device__ void window_add(struct lanes *sum, const struct window &window, uint32_t tap)
{
    CUDA_UNROLL
    for (int i = 0; i < CUDA_LANES; i++) {
        sum->v[i] += taps_at(window.taps, i) == tap ? window.dy.v[i] : 0.0f;
    }
}

// A thread writes one pixel: windows of any size.
template <class T>
static __global__ void max_pool_pixel_kernel(uint32_t work, struct pool pool,
                                             const T *__restrict__ dy,
                                             const uint8_t *__restrict__ saved, T *__restrict__ dx)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= work) {
        return;
    }
    const struct place in = place_of(pool, at);
    const struct pool_range rows =
        pool_windows(in.y, pool.kernel, pool.stride, pool.pad_top, pool.out_h);
    const struct pool_range columns =
        pool_windows(in.x, pool.kernel, pool.stride, pool.pad_left, pool.out_w);
    struct lanes sum = {};
    for (int32_t row = rows.low; row < rows.high; row++) {
        const uint32_t tap_y = in.y + pool.pad_top - (uint32_t)row * pool.stride;
        for (int32_t column = columns.low; column < columns.high; column++) {
            const uint32_t tap_x = in.x + pool.pad_left - (uint32_t)column * pool.stride;
            const int64_t lanes = lanes_at(in, pool.groups, pool.out_h, pool.out_w, row, column);
            window_add(&sum, window_load(dy, saved, lanes), tap_y * pool.kernel + tap_x);
        }
    }
    lanes_store(dx + (size_t)at * CUDA_LANES, sum);
}

// A thread writes the pixels (STRIDE y + r, STRIDE x + q) of the padded image, r and q below
// STRIDE: cell (y, x). They lie in the same windows, (y, x) and those just before it.
template <class T, uint32_t KERNEL, uint32_t STRIDE>
static __global__ void max_pool_cell_kernel(uint32_t work, struct pool pool,
                                            const T *__restrict__ dy,
                                            const uint8_t *__restrict__ saved, T *__restrict__ dx)
{
    const uint32_t MOST = (KERNEL + STRIDE - 1) / STRIDE; // windows along one side
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= work) {
        return;
    }
    const struct place place = place_of(pool, at);
    const uint32_t cell_y = place.y + pool.pad_top / STRIDE;
    const uint32_t cell_x = place.x + pool.pad_left / STRIDE;
    const int64_t last =
        lanes_at(place, pool.groups, pool.out_h, pool.out_w, (int32_t)cell_y, (int32_t)cell_x);
    struct window windows[MOST * MOST];
    CUDA_UNROLL
    for (uint32_t k = 0; k < MOST * MOST; k++) { // past either end: wraps around to a large number
        const uint32_t before_y = k / MOST, before_x = k % MOST;
        const uint32_t before = (before_y * pool.out_w + before_x) * pool.groups;
        windows[k].dy = {};
        windows[k].taps = ~(uint64_t)0; // of no tap
        if (cell_y - before_y < pool.out_h && cell_x - before_x < pool.out_w) {
            windows[k] = window_load(dy, saved, last - before);
        }
    }
    const uint32_t y = cell_y * STRIDE - pool.pad_top, x = cell_x * STRIDE - pool.pad_left;
    const int64_t first =
        lanes_at(place, pool.groups, pool.in_h, pool.in_w, (int32_t)y, (int32_t)x);
    CUDA_UNROLL
    for (uint32_t k = 0; k < STRIDE * STRIDE; k++) {
        const uint32_t r = k / STRIDE, q = k % STRIDE;
        struct lanes sum = {};
        CUDA_UNROLL
        for (int32_t i = (int32_t)(MOST * MOST) - 1; i >= 0; i--) { // windows in row order
            const uint32_t tap_y = r + (uint32_t)i / MOST * STRIDE;
            const uint32_t tap_x = q + (uint32_t)i % MOST * STRIDE;
            if (tap_y < KERNEL && tap_x < KERNEL) {
                window_add(&sum, windows[i], tap_y * KERNEL + tap_x);
            }
        }
        if (y + r < pool.in_h && x + q < pool.in_w) {
            const uint32_t further = (r * pool.in_w + q) * pool.groups;
            lanes_store(dx + (first + further) * CUDA_LANES, sum);
        }
    }
}

static struct pool pool_of(const struct op_desc *desc)
{
    struct pool pool = {};
    pool.in_h = desc->in.h, pool.in_w = desc->in.w;
    pool.out_h = desc->out.h, pool.out_w = desc->out.w;
    pool.groups = (desc->in.c + CUDA_LANES - 1) / CUDA_LANES;
    pool.kernel = desc->kernel, pool.stride = desc->stride;
    pool.pad_top = desc->pad_top, pool.pad_left = desc->pad_left;
    return pool;
}

static uint64_t pool_work(const struct op_desc *desc, const struct pool *pool)
{
    uint64_t work = (uint64_t)desc->in.n * pool->work_h * pool->work_w * pool->groups;
    return desc->kernel <= CUDA_MOST_TAPS && grid_fits(work) ? work : 0;
}

template <class T>
static cudaError_t max_pool(const struct op_desc *desc, const T *x, T *y, uint8_t *saved,
                            cudaStream_t stream)
{
    struct pool pool = pool_of(desc);
    pool.work_h = pool.out_h, pool.work_w = pool.out_w;
    uint64_t work = pool_work(desc, &pool);
    if (work == 0) {
        return cudaErrorInvalidValue;
    }
    void (*kernel)(uint32_t, struct pool, const T *, T *, uint8_t *) = max_pool_kernel<T, 0>;
    if (desc->kernel == 3) {
        kernel = max_pool_kernel<T, 3>;
    }
    return CUDA_LAUNCH(kernel, grid_blocks(work, THREADS), THREADS, stream, (uint32_t)work, pool, x,
                       y, saved);
}

cudaError_t cuda_max_pool(const struct op_desc *desc, bool half, const void *x, void *y,
                          uint8_t *saved, cudaStream_t stream)
{
    return half ? max_pool(desc, (const bfloat *)x, (bfloat *)y, saved, stream)
                : max_pool(desc, (const float *)x, (float *)y, saved, stream);
}

// Cells along one side that have pixels of the image.
static uint32_t cells(uint32_t size, uint32_t stride, uint32_t pad)
{
    return (size - 1 + pad) / stride - pad / stride + 1;
}

template <class T>
static cudaError_t max_pool_backward(const struct op_desc *desc, const T *dy, const uint8_t *saved,
                                     T *dx, cudaStream_t stream)
{
    struct pool pool = pool_of(desc);
    void (*kernel)(uint32_t, struct pool, const T *, const uint8_t *, T *) =
        max_pool_pixel_kernel<T>;
    pool.work_h = pool.in_h, pool.work_w = pool.in_w;
    if (desc->kernel == 3 && desc->stride == 2) {
        kernel = max_pool_cell_kernel<T, 3, 2>;
        pool.work_h = cells(pool.in_h, pool.stride, pool.pad_top);
        pool.work_w = cells(pool.in_w, pool.stride, pool.pad_left);
    }
    uint64_t work = pool_work(desc, &pool);
    if (work == 0) {
        return cudaErrorInvalidValue;
    }
    return CUDA_LAUNCH(kernel, grid_blocks(work, THREADS), THREADS, stream, (uint32_t)work, pool,
                       dy, saved, dx);
}

cudaError_t cuda_max_pool_backward(const struct op_desc *desc, bool half, const void *dy,
                                   const uint8_t *saved, void *dx, cudaStream_t stream)
{
    return half ? max_pool_backward(desc, (const bfloat *)dy, saved, (bfloat *)dx, stream)
                : max_pool_backward(desc, (const float *)dy, saved, (float *)dx, stream);
}

// --- mean

#define AHEAD 8  // pixels that a thread asks for before it uses the first
#define CHUNK 64 // pixels that a thread of the backward pass writes

template <class T>
static __global__ void mean_pool_kernel(uint32_t work, uint32_t pixels, uint32_t channels,
                                        uint32_t groups, const T *__restrict__ x,
                                        float *__restrict__ y)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= work) {
        return;
    }
    const uint32_t n = at / groups, group = at - n * groups;
    const T *from = x + ((size_t)n * pixels * groups + group) * CUDA_LANES;
    double sums[CUDA_LANES] = {};
    for (uint32_t first = 0; first < pixels; first += AHEAD) {
        struct lanes values[AHEAD] = {};
        CUDA_UNROLL
        for (uint32_t k = 0; k < AHEAD; k++) {
            if (first + k < pixels) {
                values[k] = lanes_load(from + (size_t)(first + k) * groups * CUDA_LANES);
            }
        }
        CUDA_UNROLL
        for (int i = 0; i < CUDA_LANES; i++) {
            float part = 0;
            CUDA_UNROLL
            for (uint32_t k = 0; k < AHEAD; k++) {
                part += values[k].v[i];
            }
            sums[i] += (double)part;
        }
    }
    CUDA_UNROLL
    for (uint32_t i = 0; i < CUDA_LANES; i++) {
        uint32_t channel = group * CUDA_LANES + i;
        if (channel < channels) {
            y[(size_t)n * channels + channel] = (float)(sums[i] / pixels);
        }
    }
}

// A thread writes the same gradient to CHUNK pixels of an image.
template <class T>
static __global__ void mean_pool_backward_kernel(uint32_t work, uint32_t pixels, uint32_t channels,
                                                 uint32_t groups, const float *__restrict__ dy,
                                                 T *__restrict__ dx)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= work) {
        return;
    }
    const uint32_t chunks = (pixels + CHUNK - 1) / CHUNK;
    const uint32_t part = at / groups, group = at - part * groups;
    const uint32_t n = part / chunks, low = (part - n * chunks) * CHUNK;
    struct lanes values = {};
    CUDA_UNROLL
    for (uint32_t i = 0; i < CUDA_LANES; i++) {
        uint32_t channel = group * CUDA_LANES + i;
        if (channel < channels) {
            values.v[i] = dy[(size_t)n * channels + channel] / (float)pixels;
        }
    }
    const uint32_t count = pixels - low < CHUNK ? pixels - low : CHUNK;
    T *to = dx + (((size_t)n * pixels + low) * groups + group) * CUDA_LANES;
    for (uint32_t pixel = 0; pixel < count; pixel++) {
        lanes_store(to + (size_t)pixel * groups * CUDA_LANES, values);
    }
}

struct mean_shape {
    uint32_t pixels, channels, groups;
    uint64_t rows; // images x groups of lanes
};

static struct mean_shape mean_shape_of(const struct op_desc *desc)
{
    struct mean_shape shape = {desc->in.h * desc->in.w, desc->in.c,
                               (desc->in.c + CUDA_LANES - 1) / CUDA_LANES, 0};
    shape.rows = (uint64_t)desc->in.n * shape.groups;
    return shape;
}

template <class T>
static cudaError_t mean_pool(const struct op_desc *desc, const T *x, float *y, cudaStream_t stream)
{
    struct mean_shape shape = mean_shape_of(desc);
    if (!grid_fits(shape.rows)) {
        return cudaErrorInvalidValue;
    }
    return CUDA_LAUNCH(mean_pool_kernel<T>, grid_blocks(shape.rows, THREADS), THREADS, stream,
                       (uint32_t)shape.rows, shape.pixels, shape.channels, shape.groups, x, y);
}

cudaError_t cuda_mean_pool(const struct op_desc *desc, bool half, const void *x, float *y,
                           cudaStream_t stream)
{
    return half ? mean_pool(desc, (const bfloat *)x, y, stream)
                : mean_pool(desc, (const float *)x, y, stream);
}

template <class T>
static cudaError_t mean_pool_backward(const struct op_desc *desc, const float *dy, T *dx,
                                      cudaStream_t stream)
{
    struct mean_shape shape = mean_shape_of(desc);
    uint64_t work = shape.rows * grid_blocks(shape.pixels, CHUNK);
    if (!grid_fits(work)) {
        return cudaErrorInvalidValue;
    }
    return CUDA_LAUNCH(mean_pool_backward_kernel<T>, grid_blocks(work, THREADS), THREADS, stream,
                       (uint32_t)work, shape.pixels, shape.channels, shape.groups, dy, dx);
}

cudaError_t cuda_mean_pool_backward(const struct op_desc *desc, bool half, const float *dy,
                                    void *dx, cudaStream_t stream)
{
    return half ? mean_pool_backward(desc, dy, (bfloat *)dx, stream)
                : mean_pool_backward(desc, dy, (float *)dx, stream);
}
