// The passes over all values that both kinds of normalisation are made of: norm_sums.cu has those
// that add up, norm_values.cu those that write. What lies between them (a few numbers for each
// channel) is norm.cu's and image_norm.cu's. Private to them.
//
// Values lie in groups of rows of channels: a view's pixels for batch normalisation, one image's
// for the others. A block of threads takes a run of rows of some channels, a thread at most
// NORM_STEPS rows, of which it keeps float32 sums; blocks leave theirs in scratch ("partials",
// [groups][blocks][2][channels]), which are added up in order, in double.
#ifndef TRAINER_CUDA_NORM_PASSES_H
#define TRAINER_CUDA_NORM_PASSES_H

#include "trainer/device/device.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NORM_STEPS 64

struct norm_rows {
    uint32_t groups;
    uint64_t rows;             // of one group
    uint32_t channels, stride; // with values; from one row to the next
    bool half;
};

// Where the line y = a x + b of a channel of a group comes from: `coefficients`
// [groups][2][channels] if not NULL, else params and moments.
struct norm_lines {
    const float *coefficients;
    const float *params; // scale, then offset
    const float *saved;  // [groups][2][channels / width]: mean, 1 / deviation; NULL: 0, 1
    uint32_t width;      // channels that share their moments
    bool relu;
};

// Where the gradient behind the ReLU comes from: it is dy itself, or dy where the value that x
// makes, or the stored y, is positive.
enum norm_gate { NORM_GATE_OPEN, NORM_GATE_BY_X, NORM_GATE_BY_Y };

uint32_t norm_pass_blocks(const struct norm_rows *rows); // of one group
uint64_t norm_pass_partials(const struct norm_rows *rows);

// Partials: of the differences from the group's first row, and of their squares. The first row is
// left in `first` [groups][channels].
cudaError_t norm_pass_sums(const struct norm_rows *rows, const void *x, float *first,
                           float *partials, cudaStream_t stream);

// y = a x + b [+ x2] [ReLU]
cudaError_t norm_pass_apply(const struct norm_rows *rows, const struct norm_lines *lines,
                            const void *x, const void *x2, void *y, cudaStream_t stream);

// Partials: of the gradients g, and of g x^. g is also written to `kept` if not NULL.
cudaError_t norm_pass_gradients(const struct norm_rows *rows, const struct norm_lines *lines,
                                enum norm_gate gate, const void *x, const void *y, const void *dy,
                                void *kept, float *partials, cudaStream_t stream);

// The sums that dx depends on.
struct norm_means {
    const double *sums; // [groups][2][channels / width]; NULL: all zero
    double share;       // 1 / values in each
    bool scaled;        // they are of scale g and scale g x^, else of g and g x^
};

// dx = 1 / deviation (scale g - mean(scale g) - x^ mean(scale g x^)); the gate is not BY_Y.
cudaError_t norm_pass_differentiate(const struct norm_rows *rows, const struct norm_lines *lines,
                                    const struct norm_means *means, enum norm_gate gate,
                                    const void *x, const void *dy, void *dx, cudaStream_t stream);

// Adds up partials, [groups][blocks][2][channels], with what they need at the end: the first rows
// (sums of differences become sums of values, `rows` in each), or NULL.
struct norm_partials {
    uint32_t groups, blocks, channels;
    const float *partials, *first;
    double rows;
};

// sums [groups][2][channels]; `param_grads` [2][channels]: the second sums, then the first, over
// the groups. Either may be NULL.
cudaError_t norm_pass_collect(const struct norm_partials *partials, double *sums,
                              float *param_grads, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
