// The network's input, and images between their ways of being stored.
#include "trainer/cuda/launch.h"

#include "trainer/cuda/grid.h"
#include "trainer/cuda/image_math.h"
#include "trainer/cuda/layers.h"

extern "C" {
#include "trainer/device/op.h"
}

#define THREADS 256

struct input_scale {
    float mean[3], deviation[3];
};

static struct input_scale scale_of_inputs(void)
{
    struct input_scale scale;
    memcpy(scale.mean, op_input_mean, sizeof scale.mean);
    memcpy(scale.deviation, op_input_deviation, sizeof scale.deviation);
    return scale;
}

// --- input

// A thread writes half of a block of 2 x 2 pixels: places 8 part to 8 part + 7, which lie in x as
// pairs of floats, three pairs of each row of pixels. `x` has `width` blocks a row.
template <class T>
static __global__ void folded_input_kernel(uint32_t halves, uint32_t width,
                                           struct input_scale scale, const float *__restrict__ x,
                                           T *__restrict__ y)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= halves) {
        return;
    }
    const uint32_t part = at % 2, row = at / 2 / width, column = at / 2 - row * width;
    const float *block = x + (size_t)row * 2 * (width * 6) + column * 6;
    float2 pairs[CUDA_LANES / 2];
    CUDA_UNROLL
    for (uint32_t i = 0; i < CUDA_LANES / 2; i++) {
        uint32_t place = part * CUDA_LANES + 2 * i;
        const float *pair = block + (place < 6 ? place : width * 6 + place - 6);
        pairs[i] = make_float2(0.0f, 0.0f);
        if (place < FOLD_VALUES) {
            pairs[i] = *reinterpret_cast<const float2 *>(pair);
        }
    }
    struct lanes values;
    CUDA_UNROLL
    for (uint32_t i = 0; i < CUDA_LANES; i++) { // channel of place 8 part + i: (2 part + i) % 3
        float mean = part == 0 ? scale.mean[i % 3] : scale.mean[(i + 2) % 3];
        float deviation = part == 0 ? scale.deviation[i % 3] : scale.deviation[(i + 2) % 3];
        float value = i % 2 == 0 ? pairs[i / 2].x : pairs[i / 2].y;
        bool exists = part * CUDA_LANES + i < FOLD_VALUES;
        values.v[i] = exists ? input_value(value, mean, deviation) : 0.0f;
    }
    lanes_store(y + (size_t)at * CUDA_LANES, values);
}

template <class T>
static __global__ void plain_input_kernel(uint32_t pixels, struct input_scale scale,
                                          const float *__restrict__ x, T *__restrict__ y)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= pixels) {
        return;
    }
    struct lanes values = {};
    CUDA_UNROLL
    for (uint32_t c = 0; c < 3; c++) {
        values.v[c] = input_value(x[(size_t)at * 3 + c], scale.mean[c], scale.deviation[c]);
    }
    lanes_store(y + (size_t)at * CUDA_LANES, values);
}

template <class T>
static cudaError_t launch_input(const struct cuda_image *image, const float *x, T *y,
                                cudaStream_t stream)
{
    uint64_t groups = cuda_image_values(image) / CUDA_LANES;
    if (!grid_fits(groups)) {
        return cudaErrorInvalidValue;
    }
    unsigned blocks = grid_blocks(groups, THREADS);
    if (image->folded) {
        return CUDA_LAUNCH(folded_input_kernel<T>, blocks, THREADS, stream, (uint32_t)groups,
                           image->w, scale_of_inputs(), x, y);
    }
    return CUDA_LAUNCH(plain_input_kernel<T>, blocks, THREADS, stream, (uint32_t)groups,
                       scale_of_inputs(), x, y);
}

cudaError_t cuda_input(struct tensor_shape shape, bool half, const float *x, void *y,
                       cudaStream_t stream)
{
    struct cuda_image image = cuda_image_of(shape, half);
    return half ? launch_input(&image, x, (bfloat *)y, stream)
                : launch_input(&image, x, (float *)y, stream);
}

// --- from one way of being stored to another

// Where an image keeps channel c of a pixel, which is counted in pixels, folded or not.
static __device__ size_t value_offset(const struct cuda_image &image, uint32_t n, uint32_t y,
                                      uint32_t x, uint32_t c)
{
    uint32_t place = c;
    if (image.folded) {
        place = fold_place(y, x, c);
        y /= 2;
        x /= 2;
    }
    return (((size_t)n * image.h + y) * image.w + x) * image.stride + place;
}

// How far after the first value of a block of 2 x 2 pixels the value of a place lies in an image
// that is not folded.
static __device__ uint32_t unfolded_offset(const struct cuda_image &image, uint32_t place)
{
    const struct fold_value value = fold_value_at(place);
    return (value.y * image.w + value.x) * image.stride + value.c;
}

// A thread writes CUDA_LANES places of a pixel, or of a block of pixels.
template <class From, class To>
static __global__ void store_kernel(uint32_t groups, struct cuda_image from,
                                    const From *__restrict__ x, struct cuda_image to,
                                    To *__restrict__ y)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= groups) {
        return;
    }
    const uint32_t groups_a_pixel = to.stride / CUDA_LANES, pixels = to.folded ? 2 : 1;
    const uint32_t pixel = at / groups_a_pixel, row = pixel / to.w, n = row / to.h;
    const uint32_t first = (at - pixel * groups_a_pixel) * CUDA_LANES;
    const From *block =
        x + value_offset(from, n, (row - n * to.h) * pixels, (pixel - row * to.w) * pixels, 0);
    const bool unfolded = to.folded && !from.folded; // otherwise x has the places side by side
    struct lanes values = {};
    CUDA_UNROLL
    for (uint32_t i = 0; i < CUDA_LANES; i++) {
        const uint32_t place = first + i;
        if (place < to.channels) {
            values.v[i] = lane_value(block[unfolded ? unfolded_offset(from, place) : place]);
        }
    }
    lanes_store(y + (size_t)at * CUDA_LANES, values);
}

template <class From, class To>
static cudaError_t store(const struct cuda_image *from, const void *x, const struct cuda_image *to,
                         void *y, cudaStream_t stream)
{
    uint64_t groups = cuda_image_values(to) / CUDA_LANES;
    if (!grid_fits(groups)) {
        return cudaErrorInvalidValue;
    }
    void (*kernel)(uint32_t, struct cuda_image, const From *, struct cuda_image, To *) =
        store_kernel<From, To>;
    return CUDA_LAUNCH(kernel, grid_blocks(groups, THREADS), THREADS, stream, (uint32_t)groups,
                       *from, (const From *)x, *to, (To *)y);
}

template <class From>
static cudaError_t store_any(const struct cuda_image *from, const void *x,
                             const struct cuda_image *to, void *y, cudaStream_t stream)
{
    return to->half ? store<From, bfloat>(from, x, to, y, stream)
                    : store<From, float>(from, x, to, y, stream);
}

// Plain float32 [n][h][w][c] as an image.
static struct cuda_image plain_image(struct tensor_shape shape)
{
    struct cuda_image image = {shape.n, shape.h, shape.w, shape.c, shape.c, false, false};
    return image;
}

cudaError_t cuda_image_pack(struct tensor_shape shape, bool half, const float *x, void *image,
                            cudaStream_t stream)
{
    struct cuda_image from = plain_image(shape), to = cuda_image_of(shape, half);
    return store_any<float>(&from, x, &to, image, stream);
}

cudaError_t cuda_image_refold(const struct cuda_image *from, const void *x,
                              const struct cuda_image *to, void *y, cudaStream_t stream)
{
    return from->half ? store_any<bfloat>(from, x, to, y, stream)
                      : store_any<float>(from, x, to, y, stream);
}

// --- back to plain memory

template <class T>
static __global__ void fetch_kernel(uint32_t count, struct cuda_image from,
                                    const T *__restrict__ image, struct cuda_image plain,
                                    float *__restrict__ x)
{
    const uint32_t at = blockIdx.x * THREADS + threadIdx.x;
    if (at < count) {
        const uint32_t pixel = at / plain.channels, row = pixel / plain.w, n = row / plain.h;
        x[at] = lane_value(image[value_offset(from, n, row - n * plain.h, pixel - row * plain.w,
                                              at - pixel * plain.channels)]);
    }
}

template <class T>
static cudaError_t fetch(const struct cuda_image *from, const T *image,
                         const struct cuda_image *plain, float *x, cudaStream_t stream)
{
    uint64_t count = cuda_image_values(plain);
    if (!grid_fits(count)) {
        return cudaErrorInvalidValue;
    }
    return CUDA_LAUNCH(fetch_kernel<T>, grid_blocks(count, THREADS), THREADS, stream,
                       (uint32_t)count, *from, image, *plain, x);
}

cudaError_t cuda_image_unpack(struct tensor_shape shape, bool half, const void *image, float *x,
                              cudaStream_t stream)
{
    struct cuda_image from = cuda_image_of(shape, half), plain = plain_image(shape);
    return half ? fetch(&from, (const bfloat *)image, &plain, x, stream)
                : fetch(&from, (const float *)image, &plain, x, stream);
}
