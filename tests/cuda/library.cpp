// trainer/cuda/library.h by plain loops, queued like kernels: convolutions and products with sums
// in float32, over pixels of an image in float32 and over images in double.
//
// BYOL_EMULATE_PLANS in the environment makes this process's library another one: "turned" finds
// plans fastest that round otherwise, "none" finds no plan by itself, "refused" opens none of text,
// "other" is another version.
extern "C" {
#include "trainer/cuda/library.h"
}

#include "tests/cuda/memory.h"
#include "tests/cuda/streams.h"
#include "tests/cuda/threads.h"
#include "trainer/cuda/lanes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define WORKSPACE 192 // so that callers have to find room for it

struct cuda_library {
    cudaStream_t stream;
};

struct cuda_conv_plan {
    struct cuda_conv conv;
    enum cuda_conv_pass pass;
    bool turned; // forward sums over channels from the last to the first
};

static bool plans_are(const char *what)
{
    const char *wanted = getenv("BYOL_EMULATE_PLANS");
    return wanted != nullptr && strcmp(wanted, what) == 0;
}

// --- images as floats

static std::vector<float> read_values(const void *from, size_t count, bool half)
{
    std::vector<float> values(count);
    if (!half) {
        memcpy(values.data(), from, count * sizeof(float));
        return values;
    }
    for (size_t i = 0; i < count; i++) {
        values[i] = bfloat_value(static_cast<const bfloat *>(from)[i]);
    }
    return values;
}

static void write_values(void *to, const std::vector<float> &values, bool half)
{
    if (!half) {
        memcpy(to, values.data(), values.size() * sizeof(float));
        return;
    }
    for (size_t i = 0; i < values.size(); i++) {
        static_cast<bfloat *>(to)[i] = bfloat_of(values[i]);
    }
}

struct sizes {
    size_t x, w, y, taps;
};

static struct sizes sizes_of(const struct cuda_conv &conv)
{
    size_t taps = (size_t)conv.kernel * conv.kernel;
    return {(size_t)conv.n * conv.h * conv.w * conv.c, (size_t)conv.out_c * taps * conv.c,
            (size_t)conv.n * conv.out_h * conv.out_w * conv.out_c, taps};
}

// Calls visit(x place, w tap, y place) for every pixel of the output of image `n` and tap that
// falls into the image.
template <class Visit>
static void for_taps(const struct cuda_conv &conv, uint32_t n, const Visit &visit)
{
    for (uint32_t oy = 0; oy < conv.out_h; oy++) {
        for (uint32_t ox = 0; ox < conv.out_w; ox++) {
            size_t out = (((size_t)n * conv.out_h + oy) * conv.out_w + ox) * conv.out_c;
            for (uint32_t tap = 0; tap < conv.kernel * conv.kernel; tap++) {
                // Below zero wraps around, and lies outside too.
                uint32_t y = oy * conv.stride + tap / conv.kernel - conv.pad_top;
                uint32_t x = ox * conv.stride + tap % conv.kernel - conv.pad_left;
                if (y < conv.h && x < conv.w) {
                    visit((((size_t)n * conv.h + y) * conv.w + x) * conv.c, tap, out);
                }
            }
        }
    }
}

// --- passes

static void forward(const struct cuda_conv &conv, bool turned, const void *x_in, const void *w_in,
                    void *y_out)
{
    struct sizes sizes = sizes_of(conv);
    std::vector<float> x = read_values(x_in, sizes.x, conv.half), y(sizes.y);
    std::vector<float> w = read_values(w_in, sizes.w, conv.half), by_tap(sizes.w);
    for (uint32_t o = 0; o < conv.out_c; o++) { // (tap, in, out): the inner loop goes along out
        for (size_t i = 0; i < sizes.taps * conv.c; i++) {
            by_tap[i * conv.out_c + o] = w[o * sizes.taps * conv.c + i];
        }
    }
    for (uint32_t n = 0; n < conv.n; n++) {
        for_taps(conv, n, [&](size_t in, uint32_t tap, size_t out) {
            float *to = &y[out];
            for (uint32_t i = 0; i < conv.c; i++) {
                uint32_t c = turned ? conv.c - 1 - i : i;
                const float *weights = &by_tap[((size_t)tap * conv.c + c) * conv.out_c];
                float value = x[in + c];
                for (uint32_t o = 0; o < conv.out_c; o++) {
                    to[o] += value * weights[o];
                }
            }
        });
    }
    write_values(y_out, y, conv.half);
}

static void backward_data(const struct cuda_conv &conv, void *x_out, const void *w_in,
                          const void *y_in)
{
    struct sizes sizes = sizes_of(conv);
    std::vector<float> x(sizes.x), w = read_values(w_in, sizes.w, conv.half);
    std::vector<float> y = read_values(y_in, sizes.y, conv.half);
    for (uint32_t n = 0; n < conv.n; n++) {
        for_taps(conv, n, [&](size_t in, uint32_t tap, size_t out) {
            float *to = &x[in];
            for (uint32_t o = 0; o < conv.out_c; o++) {
                const float *weights = &w[((size_t)o * sizes.taps + tap) * conv.c];
                float value = y[out + o];
                for (uint32_t c = 0; c < conv.c; c++) {
                    to[c] += value * weights[c];
                }
            }
        });
    }
    write_values(x_out, x, conv.half);
}

static void backward_weights(const struct cuda_conv &conv, const void *x_in, void *w_out,
                             const void *y_in)
{
    struct sizes sizes = sizes_of(conv);
    std::vector<float> x = read_values(x_in, sizes.x, conv.half), of_image(sizes.w);
    std::vector<float> y = read_values(y_in, sizes.y, conv.half);
    std::vector<double> sum(sizes.w);
    for (uint32_t n = 0; n < conv.n; n++) {
        std::fill(of_image.begin(), of_image.end(), 0.0f);
        for_taps(conv, n, [&](size_t in, uint32_t tap, size_t out) {
            const float *from = &x[in];
            for (uint32_t o = 0; o < conv.out_c; o++) {
                float *weights = &of_image[((size_t)o * sizes.taps + tap) * conv.c];
                float value = y[out + o];
                for (uint32_t c = 0; c < conv.c; c++) {
                    weights[c] += value * from[c];
                }
            }
        });
        for (size_t i = 0; i < sizes.w; i++) {
            sum[i] += (double)of_image[i];
        }
    }
    write_values(w_out, std::vector<float>(sum.begin(), sum.end()), conv.half);
}

// a b + c, all of them plain and row-major. Summed in double: cuBLASLt sums in many short runs,
// which is nearer to that than one long sum in float.
static void multiply(const std::vector<float> &a, const std::vector<float> &b, float *c, uint32_t m,
                     uint32_t n, uint32_t k)
{
    std::vector<double> sums(n);
    for (uint32_t row = 0; row < m; row++) {
        float *to = c + (size_t)row * n;
        std::copy(to, to + n, sums.begin());
        for (uint32_t i = 0; i < k; i++) {
            double value = a[(size_t)row * k + i];
            const float *from = &b[(size_t)i * n];
            for (uint32_t column = 0; column < n; column++) {
                sums[column] += value * from[column];
            }
        }
        std::copy(sums.begin(), sums.end(), to);
    }
}

static std::vector<float> plain(const float *from, bool transposed, uint32_t rows, uint32_t columns)
{
    std::vector<float> values((size_t)rows * columns);
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t column = 0; column < columns; column++) {
            values[(size_t)row * columns + column] = transposed
                                                         ? from[(size_t)column * rows + row]
                                                         : from[(size_t)row * columns + column];
        }
    }
    return values;
}

// --- the library

extern "C" {

enum status cuda_library_open(struct cuda_library **out, bool, cudaStream_t stream, struct error *)
{
    *out = new cuda_library{stream};
    return STATUS_OK;
}

void cuda_library_close(struct cuda_library **library)
{
    delete *library;
    *library = nullptr;
}

void cuda_library_describe(const struct cuda_library *, char *text, size_t capacity)
{
    snprintf(text, capacity, "plain loops%s", plans_are("other") ? " of others" : "");
}

static void make_plan(struct cuda_conv_plan **out, const struct cuda_conv *conv,
                      enum cuda_conv_pass pass, bool turned)
{
    if (conv->c % CUDA_LANES != 0 || conv->out_c % CUDA_LANES != 0) {
        emulated_stop("a convolution of %u to %u channels, not multiples of %d", conv->c,
                      conv->out_c, CUDA_LANES);
    }
    *out = new cuda_conv_plan{*conv, pass, turned};
}

enum status cuda_conv_plan_open(struct cuda_conv_plan **out, struct cuda_library *,
                                const struct cuda_conv *conv, enum cuda_conv_pass pass,
                                struct error *error)
{
    *out = nullptr;
    if (emulated_unsafe_now()) { // trying plans out waits for the device
        emulated_stop("a plan of a convolution was opened while capturing");
    }
    if (plans_are("none")) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE, "no plan is found");
    }
    make_plan(out, conv, pass, plans_are("turned"));
    return STATUS_OK;
}

#define PLAIN  "plain loops"
#define TURNED "turned loops"

void cuda_conv_plan_text(const struct cuda_conv_plan *plan, char text[CUDA_CONV_PLAN_TEXT])
{
    snprintf(text, CUDA_CONV_PLAN_TEXT, "%s", plan->turned ? TURNED : PLAIN);
}

enum status cuda_conv_plan_open_text(struct cuda_conv_plan **out, struct cuda_library *,
                                     const struct cuda_conv *conv, enum cuda_conv_pass pass,
                                     const char *text, struct error *error)
{
    bool turned = strcmp(text, TURNED) == 0;
    *out = nullptr;
    if (plans_are("refused") || (!turned && strcmp(text, PLAIN) != 0)) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "no plan: '%s'", text);
    }
    make_plan(out, conv, pass, turned);
    return STATUS_OK;
}

void cuda_conv_plan_close(struct cuda_conv_plan **plan)
{
    delete *plan;
    *plan = nullptr;
}

size_t cuda_conv_plan_workspace(const struct cuda_conv_plan *)
{
    return WORKSPACE;
}

static void need_device(const char *what, const void *memory, size_t bytes)
{
    if (emulated_find(memory, bytes) != EMULATED_DEVICE) {
        emulated_stop("%s: %zu bytes at %p are not one piece of device memory", what, bytes,
                      memory);
    }
}

enum status cuda_conv_run(struct cuda_library *library, const struct cuda_conv_plan *plan, void *x,
                          void *w, void *y, void *workspace)
{
    struct cuda_conv conv = plan->conv;
    struct sizes sizes = sizes_of(conv);
    size_t value = conv.half ? sizeof(bfloat) : sizeof(float);
    need_device("input of a convolution", x, sizes.x * value);
    need_device("weights of a convolution", w, sizes.w * value);
    need_device("output of a convolution", y, sizes.y * value);
    need_device("workspace of a convolution", workspace, WORKSPACE);
    enum cuda_conv_pass pass = plan->pass;
    bool turned = plan->turned;
    cudaError_t code = emulated_enqueue(library->stream, [=] {
        memset(workspace, 0xff, WORKSPACE);
        if (pass == CUDA_CONV_FORWARD) {
            forward(conv, turned, x, w, y);
        } else if (pass == CUDA_CONV_DATA) {
            backward_data(conv, x, w, y);
        } else {
            backward_weights(conv, x, w, y);
        }
        emulated_guards_check("a convolution");
    });
    return code == cudaSuccess ? STATUS_OK : STATUS_DEVICE;
}

enum status cuda_product(struct cuda_library *library, bool transpose_a, bool transpose_b,
                         uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
                         float *c, bool accumulate)
{
    need_device("first factor", a, (size_t)m * k * sizeof *a);
    need_device("second factor", b, (size_t)k * n * sizeof *b);
    need_device("product", c, (size_t)m * n * sizeof *c);
    cudaError_t code = emulated_enqueue(library->stream, [=] {
        if (!accumulate) {
            memset(c, 0, (size_t)m * n * sizeof *c);
        }
        multiply(plain(a, transpose_a, m, k), plain(b, transpose_b, k, n), c, m, n, k);
        emulated_guards_check("a product");
    });
    return code == cudaSuccess ? STATUS_OK : STATUS_DEVICE;
}

const char *cuda_library_failure(const struct cuda_library *)
{
    return "";
}
}
