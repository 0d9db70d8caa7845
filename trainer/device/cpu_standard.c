// Standardised weights around a convolution or a linear layer: they are made anew in scratch memory
// for each pass, which costs little beside the pass itself, and the inner op never knows.
#include "trainer/device/cpu.h"

#include <math.h>
#include <string.h>

#define BLOCK 32 // columns that one thread takes at a time

struct cpu_standard {
    struct cpu_op base;
    struct cpu_op *inner;
    size_t rows, columns; // of the weights
    size_t weights_bytes, inverses_bytes;
};

// What the scratch memory holds before that of the inner op.
struct workspace {
    float *weights;  // standardised, the bias behind them
    float *inverses; // [columns]: 1 / sqrt(variance + epsilon)
    void *inner;
};

static struct workspace workspace_of(const struct cpu_standard *standard, void *scratch)
{
    char *at = scratch;
    return (struct workspace){
        .weights = (void *)at,
        .inverses = (void *)(at + standard->weights_bytes),
        .inner = at + standard->weights_bytes + standard->inverses_bytes,
    };
}

CPU_KERNEL static void standardise_block(float *to, float *inverses, const float *weights,
                                         size_t rows, size_t columns, size_t width)
{
    double sum[BLOCK] = {0}, squares[BLOCK] = {0};
    for (size_t row = 0; row < rows; row++) {
#pragma omp simd
        for (size_t c = 0; c < width; c++) {
            sum[c] += (double)weights[row * columns + c];
        }
    }
    for (size_t row = 0; row < rows; row++) {
#pragma omp simd
        for (size_t c = 0; c < width; c++) {
            double centred = (double)weights[row * columns + c] - sum[c] / (double)rows;
            squares[c] += centred * centred;
        }
    }
    float means[BLOCK];
    for (size_t c = 0; c < width; c++) {
        means[c] = (float)(sum[c] / (double)rows);
        inverses[c] = (float)(1.0 / sqrt(squares[c] / (double)rows + WEIGHT_STANDARD_EPSILON));
    }
    for (size_t row = 0; row < rows; row++) {
#pragma omp simd
        for (size_t c = 0; c < width; c++) {
            to[row * columns + c] = (weights[row * columns + c] - means[c]) * inverses[c];
        }
    }
}

// The gradient of the standardised weights becomes that of the weights, in place.
CPU_KERNEL static void differentiate_block(float *grads, const float *standard,
                                           const float *inverses, size_t rows, size_t columns,
                                           size_t width)
{
    double sum[BLOCK] = {0}, product[BLOCK] = {0};
    for (size_t row = 0; row < rows; row++) {
#pragma omp simd
        for (size_t c = 0; c < width; c++) {
            double gradient = (double)grads[row * columns + c];
            sum[c] += gradient;
            product[c] += gradient * (double)standard[row * columns + c];
        }
    }
    float mean_gradient[BLOCK], mean_product[BLOCK];
    for (size_t c = 0; c < width; c++) {
        mean_gradient[c] = (float)(sum[c] / (double)rows);
        mean_product[c] = (float)(product[c] / (double)rows);
    }
    for (size_t row = 0; row < rows; row++) {
#pragma omp simd
        for (size_t c = 0; c < width; c++) {
            size_t at = row * columns + c;
            grads[at] =
                inverses[c] * (grads[at] - mean_gradient[c] - standard[at] * mean_product[c]);
        }
    }
}

static size_t block_width(const struct cpu_standard *standard, size_t first)
{
    return standard->columns - first < BLOCK ? standard->columns - first : BLOCK;
}

static struct workspace standardise(const struct cpu_device *device,
                                    const struct cpu_standard *standard,
                                    const struct op_buffers *buffers)
{
    struct workspace work = workspace_of(standard, buffers->scratch);
#pragma omp parallel for num_threads(device->threads)
    for (size_t first = 0; first < standard->columns; first += BLOCK) {
        standardise_block(work.weights + first, work.inverses + first, buffers->params + first,
                          standard->rows, standard->columns, block_width(standard, first));
    }
    if (standard->base.base.desc.bias) {
        size_t count = standard->rows * standard->columns;
        memcpy(work.weights + count, buffers->params + count,
               standard->columns * sizeof *work.weights);
    }
    return work;
}

static enum status standard_forward(struct cpu_device *device, struct cpu_op *op,
                                    const struct op_buffers *buffers, enum op_mode mode)
{
    struct cpu_standard *standard = (struct cpu_standard *)op;
    struct workspace work = standardise(device, standard, buffers);
    struct op_buffers inner = *buffers;
    inner.params = work.weights;
    inner.scratch = work.inner;
    return standard->inner->forward(device, standard->inner, &inner, mode);
}

static enum status standard_backward(struct cpu_device *device, struct cpu_op *op,
                                     const struct op_buffers *buffers)
{
    struct cpu_standard *standard = (struct cpu_standard *)op;
    struct workspace work = standardise(device, standard, buffers);
    struct op_buffers inner = *buffers;
    inner.params = work.weights;
    inner.scratch = work.inner;
    enum status status = standard->inner->backward(device, standard->inner, &inner);
    if (status != STATUS_OK) {
        return status;
    }
#pragma omp parallel for num_threads(device->threads)
    for (size_t first = 0; first < standard->columns; first += BLOCK) {
        differentiate_block(buffers->param_grads + first, work.weights + first,
                            work.inverses + first, standard->rows, standard->columns,
                            block_width(standard, first));
    }
    return STATUS_OK;
}

static void standard_release(struct cpu_op *op)
{
    struct cpu_standard *standard = (struct cpu_standard *)op;
    cpu_op_release(NULL, (struct op *)standard->inner);
}

enum status cpu_standard_create(struct cpu_device *device, const struct op_desc *desc,
                                struct cpu_op **out, struct error *error)
{
    struct cpu_standard *standard = cpu_op_allocate(sizeof *standard, desc, error);
    if (standard == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &standard->base;
    standard->base.forward = standard_forward;
    standard->base.backward = standard_backward;
    standard->base.release = standard_release;
    enum status status = cpu_plain_create(device, desc, &standard->inner, error);
    if (status != STATUS_OK) {
        return status;
    }
    standard->rows = op_fan_in(desc);
    standard->columns = desc->out.c;
    size_t bias = desc->bias ? standard->columns : 0;
    standard->weights_bytes =
        cpu_aligned((standard->rows * standard->columns + bias) * sizeof(float));
    standard->inverses_bytes = cpu_aligned(standard->columns * sizeof(float));
    standard->base.base.saved_bytes = standard->inner->base.saved_bytes;
    standard->base.base.scratch_bytes =
        standard->weights_bytes + standard->inverses_bytes + standard->inner->base.scratch_bytes;
    return STATUS_OK;
}
