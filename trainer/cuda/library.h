// What NVIDIA's libraries do for the cuda device: convolutions (cuDNN's graph API) and matrix
// products (cuBLASLt). Private to the cuda device. Plans are made once, on the host; running one
// only enqueues.
#ifndef TRAINER_CUDA_LIBRARY_H
#define TRAINER_CUDA_LIBRARY_H

#include "trainer/device/device.h"

#include <cuda_runtime_api.h>

struct cuda_library;

// `strict`: products and sums in float32, no tensor cores, no algorithm that rounds otherwise.
// Never an engine whose result may differ from run to run.
enum status cuda_library_open(struct cuda_library **out, bool strict, cudaStream_t stream,
                              struct error *error);
void cuda_library_close(struct cuda_library **library);
void cuda_library_describe(const struct cuda_library *library, char *text, size_t capacity);

// Why the last run of a plan or product that failed did; "" when none has.
const char *cuda_library_failure(const struct cuda_library *library);

// One convolution over stored images [n][h][w][c], weights (out, kernel, kernel, in), all of one
// type; sums in float32.
struct cuda_conv {
    uint32_t n, h, w, c; // input; c and out_c are multiples of CUDA_LANES
    uint32_t out_h, out_w, out_c;
    uint32_t kernel, stride;
    uint32_t pad_top, pad_left, pad_bottom, pad_right;
    bool half;
};
enum cuda_conv_pass { CUDA_CONV_FORWARD, CUDA_CONV_DATA, CUDA_CONV_WEIGHTS };
#define CUDA_CONV_PASSES 3

struct cuda_conv_plan;

// The fastest plan of one pass, tried out on buffers of its own unless the cache on disk knows it
// (plan_cache.h). Waits for the device; not while recording.
enum status cuda_conv_plan_open(struct cuda_conv_plan **out, struct cuda_library *library,
                                const struct cuda_conv *conv, enum cuda_conv_pass pass,
                                struct error *error);
void cuda_conv_plan_close(struct cuda_conv_plan **plan);

// A plan as text without tabs and line ends, and the same plan from it on another GPU of the kind.
#define CUDA_CONV_PLAN_TEXT 1024
void cuda_conv_plan_text(const struct cuda_conv_plan *plan, char text[CUDA_CONV_PLAN_TEXT]);
enum status cuda_conv_plan_open_text(struct cuda_conv_plan **out, struct cuda_library *library,
                                     const struct cuda_conv *conv, enum cuda_conv_pass pass,
                                     const char *text, struct error *error);
size_t cuda_conv_plan_workspace(const struct cuda_conv_plan *plan);

// FORWARD: y from x, w. DATA: x from y, w. WEIGHTS: w from x, y. Overwrites.
enum status cuda_conv_run(struct cuda_library *library, const struct cuda_conv_plan *plan, void *x,
                          void *w, void *y, void *workspace);

// Row-major c[m][n] = a[m][k] b[k][n] (+ c), either factor transposed in memory; float32 (TF32
// products unless strict).
enum status cuda_product(struct cuda_library *library, bool transpose_a, bool transpose_b,
                         uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
                         float *c, bool accumulate);

#endif
