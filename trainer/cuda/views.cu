// The second half of views: means for contrast and weights of the blur first; then, some images at
// a time, so that what passes from one kernel to the next stays in the cache:
//
//   rows_kernel   flip and colours of some rows; then out, or blurred along the rows into scratch
//   down_kernel   of blurred images: scratch blurred down the columns, and out
//
// Every image goes through the same launches, whatever its record says, as recordings replay them.
#include "trainer/cuda/block_sum.h"
#include "trainer/cuda/grid.h"
#include "trainer/cuda/launch.h"
#include "trainer/cuda/views.h"
#include "trainer/cuda/views_math.h"

#define THREADS     256
#define WARPS       (THREADS / CUDA_WARP)
#define PARTS       16            // of an image, whose sums are taken by a block each
#define TILE        CUDA_VIEW_MAX // pixels of a block's rows: at least one row of the widest view
#define DOWN        8             // outputs of a thread down a column
#define PAD         (DOWN - 1)    // zeros on both sides of the weights
#define CHUNK_BYTES (32u << 20)   // of scratch for images, in the second-level cache

// What the kernels share.
struct views {
    uint32_t images, size;
    uint32_t rows;  // of a block
    uint32_t chunk; // images at a time
    uint32_t first; // image of this launch
    uint32_t weights_stride;
    const uint8_t *bytes;
    const struct view_record *records;
    float *out;
    uint64_t *sums;    // [images][PARTS][3] in views_units
    uint32_t *radii;   // [images] of blurred ones
    float *weights;    // [images][weights_stride]: PAD zeros, 2 radius + 1 weights, PAD zeros
    float *horizontal; // [chunk][size][size][3], blurred along the rows
};

static __device__ __forceinline__ struct views_pixel pixel_at(const uint8_t *bytes)
{
    return views_of_bytes(__ldg(bytes), __ldg(bytes + 1), __ldg(bytes + 2));
}

static __device__ __forceinline__ size_t image_values(const struct views &views)
{
    return (size_t)views.size * views.size * 3;
}

// --- what is known of a whole image --------------------------------------------------------------

// Block (image, part): sums of the channels over a part of the image, as contrast finds it.
static __global__ void __launch_bounds__(THREADS) sums_kernel(struct views views)
{
    __shared__ uint64_t warps[WARPS][3];
    const struct view_record *record = views.records + blockIdx.x;
    if (!record->jitter) {
        return;
    }
    const uint8_t *bytes = views.bytes + blockIdx.x * image_values(views);
    uint32_t pixels = views.size * views.size, part = (pixels + PARTS - 1) / PARTS;
    uint32_t end = min(pixels, (blockIdx.y + 1) * part);
    uint64_t r = 0, g = 0, b = 0;
    for (uint32_t i = blockIdx.y * part + threadIdx.x; i < end; i += THREADS) {
        struct views_pixel x = views_before_contrast(record, pixel_at(bytes + i * 3));
        r += views_units(x.r);
        g += views_units(x.g);
        b += views_units(x.b);
    }
    r = warp_join<sum_of>(r);
    g = warp_join<sum_of>(g);
    b = warp_join<sum_of>(b);
    if (threadIdx.x % CUDA_WARP == 0) {
        uint64_t *warp = warps[threadIdx.x / CUDA_WARP];
        warp[0] = r;
        warp[1] = g;
        warp[2] = b;
    }
    __syncthreads();
    if (threadIdx.x < 3) {
        uint64_t sum = 0;
        for (uint32_t warp = 0; warp < WARPS; warp++) {
            sum += warps[warp][threadIdx.x];
        }
        views.sums[(blockIdx.x * PARTS + blockIdx.y) * 3 + threadIdx.x] = sum;
    }
}

// Block (image): the blur's weights, without those too small to matter.
static __global__ void __launch_bounds__(THREADS) weights_kernel(struct views views)
{
    __shared__ double weights[CUDA_VIEW_MAX]; // by distance
    __shared__ double whole;
    __shared__ uint32_t radius;
    const struct view_record *record = views.records + blockIdx.x;
    if (!record->blur) {
        return;
    }
    uint32_t reach = min(record->taps / 2, views.size - 1);
    for (uint32_t i = threadIdx.x; i <= reach; i += THREADS) {
        weights[i] = views_weight((int32_t)i, record->sigma);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double sum = 0;
        for (uint32_t i = 0; i <= 2 * reach; i++) {
            sum += weights[i < reach ? reach - i : i - reach];
        }
        uint32_t most = reach;
        while (most > 0 && weights[most] < (double)VIEWS_WEIGHT_LEAST) {
            most--;
        }
        whole = sum;
        radius = most;
        views.radii[blockIdx.x] = most;
    }
    __syncthreads();
    float *to = views.weights + (size_t)blockIdx.x * views.weights_stride;
    for (uint32_t i = threadIdx.x; i < 2 * radius + 1 + 2 * PAD; i += THREADS) {
        int32_t distance = (int32_t)i - (int32_t)(PAD + radius);
        uint32_t away = (uint32_t)(distance < 0 ? -distance : distance);
        to[i] = away <= radius ? (float)(weights[away] / whole) : 0.0f;
    }
}

// --- values side by side -------------------------------------------------------------------------

template <uint32_t WIDTH> struct run {
    float v[WIDTH];
};

static __device__ __forceinline__ void run_load(struct run<1> &run, const float *from)
{
    run.v[0] = *from;
}

static __device__ __forceinline__ void run_load(struct run<4> &run, const float *from)
{
    float4 values = *reinterpret_cast<const float4 *>(from);
    run.v[0] = values.x, run.v[1] = values.y, run.v[2] = values.z, run.v[3] = values.w;
}

static __device__ __forceinline__ void run_store(float *to, const struct run<1> &run)
{
    *to = run.v[0];
}

static __device__ __forceinline__ void run_store(float *to, const struct run<4> &run)
{
    float4 values;
    values.x = run.v[0], values.y = run.v[1], values.z = run.v[2], values.w = run.v[3];
    *reinterpret_cast<float4 *>(to) = values;
}

template <uint32_t WIDTH>
static __device__ __forceinline__ void run_finish(struct run<WIDTH> &run, bool solarize,
                                                  float threshold)
{
    for (uint32_t i = 0; i < WIDTH; i++) {
        run.v[i] = views_finished(solarize, threshold, run.v[i]);
    }
}

// --- rows ----------------------------------------------------------------------------------------

// A thread's pixels of a block's rows: every THREADS-th, without dividing for each.
struct walk {
    uint32_t pixel, x, y, step_x, step_y;
};

static __device__ __forceinline__ struct walk walk_from(uint32_t thread, uint32_t size)
{
    struct walk walk = {thread, thread % size, thread / size, THREADS % size, THREADS / size};
    return walk;
}

static __device__ __forceinline__ void walk_on(struct walk &walk, uint32_t size)
{
    walk.pixel += THREADS;
    walk.x += walk.step_x;
    walk.y += walk.step_y;
    if (walk.x >= size) {
        walk.x -= size;
        walk.y++;
    }
}

static __device__ __forceinline__ float mean_of(const struct views &views, uint32_t image,
                                                uint32_t channel)
{
    uint64_t sum = 0;
    for (uint32_t part = 0; part < PARTS; part++) {
        sum += views.sums[(image * PARTS + part) * 3 + channel];
    }
    return views_mean(sum, (double)views.size * (double)views.size);
}

static __device__ __forceinline__ void color_rows(const struct view_record *record,
                                                  const uint8_t *bytes, uint32_t pixels,
                                                  uint32_t size, struct views_pixel mean, float *to)
{
    for (struct walk at = walk_from(threadIdx.x, size); at.pixel < pixels; walk_on(at, size)) {
        uint32_t from = record->flip ? size - 1 - at.x : at.x;
        struct views_pixel x = pixel_at(bytes + (at.y * size + from) * 3);
        x = views_colored(record, x, mean);
        to[at.pixel * 3] = x.r;
        to[at.pixel * 3 + 1] = x.g;
        to[at.pixel * 3 + 2] = x.b;
    }
}

static __device__ __forceinline__ void blur_rows(const float *weights, int32_t radius,
                                                 const float *from, uint32_t pixels, uint32_t size,
                                                 float *to)
{
    for (struct walk at = walk_from(threadIdx.x, size); at.pixel < pixels; walk_on(at, size)) {
        int32_t first = max(-radius, -(int32_t)at.x);
        int32_t last = min(radius, (int32_t)(size - 1 - at.x));
        const float *value = from + (int32_t)at.pixel * 3 + first * 3;
        float r = 0, g = 0, b = 0;
        for (int32_t i = first; i <= last; i++, value += 3) {
            float weight = __ldg(weights + radius + i);
            r += weight * value[0];
            g += weight * value[1];
            b += weight * value[2];
        }
        to[at.pixel * 3] = r;
        to[at.pixel * 3 + 1] = g;
        to[at.pixel * 3 + 2] = b;
    }
}

// Block (image of the chunk, rows).
template <uint32_t WIDTH>
static __global__ void __launch_bounds__(THREADS) rows_kernel(struct views views)
{
    __shared__ __align__(16) float colored[TILE * 3];
    __shared__ __align__(16) float blurred[TILE * 3];
    __shared__ float means[3];
    uint32_t size = views.size, image = views.first + blockIdx.x;
    uint32_t row = blockIdx.y * views.rows, pixels = min(views.rows, size - row) * size;
    const struct view_record *record = views.records + image;
    size_t at = (size_t)row * size * 3;
    if (threadIdx.x < 3) {
        means[threadIdx.x] = record->jitter ? mean_of(views, image, threadIdx.x) : 0.0f;
    }
    __syncthreads();
    struct views_pixel mean = {means[0], means[1], means[2]};
    color_rows(record, views.bytes + image * image_values(views) + at, pixels, size, mean, colored);
    __syncthreads();
    bool blur = record->blur, solarize = record->solarize;
    float threshold = record->threshold;
    float *to = views.out + image * image_values(views) + at;
    if (blur) {
        const float *weights = views.weights + (size_t)image * views.weights_stride + PAD;
        blur_rows(weights, (int32_t)views.radii[image], colored, pixels, size, blurred);
        to = views.horizontal + blockIdx.x * image_values(views) + at;
        __syncthreads();
    }
    const float *from = blur ? blurred : colored;
    for (uint32_t i = threadIdx.x * WIDTH; i < pixels * 3; i += THREADS * WIDTH) {
        struct run<WIDTH> values;
        run_load(values, from + i);
        if (!blur) {
            run_finish(values, solarize, threshold);
        }
        run_store(to + i, values);
    }
}

// --- columns -------------------------------------------------------------------------------------

// WIDTH columns of DOWN outputs from `row` on. A row is read once for all of them; `window` holds
// its weight for each, 0 where it is none of theirs.
template <uint32_t WIDTH>
static __device__ __forceinline__ void blur_down(struct run<WIDTH> *sums, const float *from,
                                                 uint32_t row, uint32_t size, uint32_t radius,
                                                 const float *weights)
{
    uint32_t stride = size * 3;
    uint32_t first = row < radius ? radius - row : 0; // counted from row - radius
    uint32_t last = min(2 * radius + DOWN - 1, size - 1 - row + radius);
    const float *value = from + (row + first - radius) * stride;
    float window[DOWN];
    for (uint32_t j = 0; j < DOWN; j++) {
        window[j] = j < PAD ? __ldg(weights + PAD + first - 1 - j) : 0.0f;
        for (uint32_t k = 0; k < WIDTH; k++) {
            sums[j].v[k] = 0;
        }
    }
    for (uint32_t i = first; i <= last; i++, value += stride) {
        struct run<WIDTH> values;
        run_load(values, value);
        for (uint32_t j = DOWN - 1; j > 0; j--) {
            window[j] = window[j - 1];
        }
        window[0] = __ldg(weights + PAD + i);
        for (uint32_t j = 0; j < DOWN; j++) {
            for (uint32_t k = 0; k < WIDTH; k++) {
                sums[j].v[k] += window[j] * values.v[k];
            }
        }
    }
}

// Block (image of the chunk, some columns and rows).
template <uint32_t WIDTH>
static __global__ void __launch_bounds__(THREADS) down_kernel(struct views views)
{
    uint32_t size = views.size, image = views.first + blockIdx.x, columns = size * 3 / WIDTH;
    uint32_t index = blockIdx.y * THREADS + threadIdx.x;
    uint32_t row = index / columns * DOWN, at = index % columns * WIDTH;
    const struct view_record *record = views.records + image;
    if (!record->blur || row >= size) {
        return;
    }
    struct run<WIDTH> sums[DOWN];
    blur_down<WIDTH>(sums, views.horizontal + blockIdx.x * image_values(views) + at, row, size,
                     views.radii[image], views.weights + (size_t)image * views.weights_stride);
    bool solarize = record->solarize;
    float threshold = record->threshold;
    float *to = views.out + image * image_values(views) + (size_t)row * size * 3 + at;
    for (uint32_t j = 0; j < DOWN; j++, to += size * 3) {
        if (row + j < size) {
            run_finish(sums[j], solarize, threshold);
            run_store(to, sums[j]);
        }
    }
}

// --- on the host ---------------------------------------------------------------------------------

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static struct views plan(uint32_t images, uint32_t size)
{
    struct views views = {};
    size_t image = (size_t)size * size * 3 * sizeof(float), most = CHUNK_BYTES / image;
    views.images = images;
    views.size = size;
    views.rows = TILE / size;
    views.chunk = most < 1 ? 1 : most < images ? (uint32_t)most : images;
    views.weights_stride = 2 * size - 1 + 2 * PAD;
    return views;
}

// Where the pieces of scratch are; returns where they end.
static size_t lay_out(struct views *views, char *scratch)
{
    size_t images = views->images, area = (size_t)views->size * views->size;
    size_t radii = aligned(images * PARTS * 3 * sizeof(uint64_t));
    size_t weights = radii + aligned(images * sizeof(uint32_t));
    size_t horizontal = weights + aligned(images * views->weights_stride * sizeof(float));
    views->sums = reinterpret_cast<uint64_t *>(scratch);
    views->radii = reinterpret_cast<uint32_t *>(scratch + radii);
    views->weights = reinterpret_cast<float *>(scratch + weights);
    views->horizontal = reinterpret_cast<float *>(scratch + horizontal);
    return horizontal + views->chunk * area * 3 * sizeof(float);
}

extern "C" size_t cuda_render_views_scratch_bytes(uint32_t images, uint32_t size)
{
    struct views views = plan(images, size);
    return lay_out(&views, NULL);
}

static cudaError_t prepare(const struct views &views, cudaStream_t stream)
{
    cudaError_t error = CUDA_LAUNCH(sums_kernel, dim3(views.images, PARTS), THREADS, stream, views);
    return error == cudaSuccess ? CUDA_LAUNCH(weights_kernel, views.images, THREADS, stream, views)
                                : error;
}

template <uint32_t WIDTH>
static cudaError_t finish(const struct views &views, uint32_t images, cudaStream_t stream)
{
    uint32_t columns = views.size * 3 / WIDTH, groups = grid_blocks(views.size, DOWN);
    dim3 rows(images, grid_blocks(views.size, views.rows));
    dim3 down(images, grid_blocks(columns * groups, THREADS));
    cudaError_t error = CUDA_LAUNCH(rows_kernel<WIDTH>, rows, THREADS, stream, views);
    return error == cudaSuccess ? CUDA_LAUNCH(down_kernel<WIDTH>, down, THREADS, stream, views)
                                : error;
}

extern "C" cudaError_t cuda_render_views(uint32_t images, uint32_t size, const uint8_t *bytes,
                                         const struct view_record *records, float *out,
                                         void *scratch, cudaStream_t stream)
{
    if (size < 1 || size > CUDA_VIEW_MAX || images > CUDA_MOST_WORK / (PARTS * 3)) {
        return cudaErrorInvalidValue;
    }
    struct views views = plan(images, size);
    lay_out(&views, static_cast<char *>(scratch));
    views.bytes = bytes;
    views.records = records;
    views.out = out;
    bool wide = size % 4 == 0 && reinterpret_cast<uintptr_t>(out) % sizeof(float4) == 0;
    cudaError_t error = images > 0 ? prepare(views, stream) : cudaSuccess;
    for (; error == cudaSuccess && views.first < images; views.first += views.chunk) {
        uint32_t left = images - views.first, some = left < views.chunk ? left : views.chunk;
        error = wide ? finish<4>(views, some, stream) : finish<1>(views, some, stream);
    }
    return error;
}
