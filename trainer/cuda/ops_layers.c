// Linear layers, and the ops without parameters.
#include "trainer/cuda/cuda.h"

#include "trainer/cuda/layers.h"
#include "trainer/cuda/weights.h"

// --- linear

struct linear_op {
    struct cuda_op base;
    size_t weights, deviations, partial; // places in the scratch memory; the first two of
                                         // standardised weights
};

// Standardised weights are made anew in each direction: they are small.
static enum status linear_weights(struct cuda_device *device, const struct linear_op *op,
                                  const struct op_buffers *buffers, const float **weights)
{
    const struct op_desc *desc = &op->base.base.desc;
    *weights = buffers->params;
    if (!desc->standardise) {
        return STATUS_OK;
    }
    float *standard = cuda_at(buffers->scratch, op->weights);
    *weights = standard;
    return cuda_check(device,
                      cuda_standardise(desc->in.c, desc->out.c, buffers->params, standard,
                                       cuda_at(buffers->scratch, op->deviations), device->stream),
                      "standardising weights");
}

static enum status product(struct cuda_device *device, bool transpose_a, bool transpose_b,
                           const uint32_t sizes[3], const float *a, const float *b, float *c)
{
    return cuda_device_matrix_product(&device->base, transpose_a, transpose_b, sizes[0], sizes[1],
                                      sizes[2], a, b, c, false);
}

static enum status linear_forward(struct cuda_device *device, struct cuda_op *own,
                                  const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    const struct op_desc *desc = &own->base.desc;
    uint32_t rows = desc->in.n, in = desc->in.c, out = desc->out.c;
    const float *weights;
    enum status status = linear_weights(device, (struct linear_op *)own, buffers, &weights);
    if (status == STATUS_OK) {
        status = product(device, false, false, (uint32_t[]){rows, out, in}, buffers->x, weights,
                         buffers->y);
    }
    if (status != STATUS_OK || !desc->bias) {
        return status;
    }
    return cuda_check(
        device,
        cuda_bias(rows, out, buffers->params + (size_t)in * out, buffers->y, device->stream),
        "a bias");
}

static enum status differentiate_parameters(struct cuda_device *device, const struct linear_op *op,
                                            const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.base.desc;
    uint32_t rows = desc->in.n, in = desc->in.c, out = desc->out.c;
    enum status status = product(device, true, false, (uint32_t[]){in, out, rows}, buffers->x,
                                 buffers->dy, buffers->param_grads);
    if (status == STATUS_OK && desc->standardise) {
        status = cuda_check(device,
                            cuda_standardise_backward(in, out, buffers->params,
                                                      cuda_at(buffers->scratch, op->deviations),
                                                      buffers->param_grads, device->stream),
                            "gradients of weights");
    }
    if (status == STATUS_OK && desc->bias) {
        status = cuda_check(
            device,
            cuda_bias_backward(rows, out, buffers->dy, buffers->param_grads + (size_t)in * out,
                               cuda_at(buffers->scratch, op->partial), device->stream),
            "the gradient of a bias");
    }
    return status;
}

static enum status linear_backward(struct cuda_device *device, struct cuda_op *own,
                                   const struct op_buffers *buffers)
{
    struct linear_op *op = (struct linear_op *)own;
    const struct op_desc *desc = &own->base.desc;
    const float *weights;
    enum status status = linear_weights(device, op, buffers, &weights);
    if (status == STATUS_OK) {
        status = differentiate_parameters(device, op, buffers);
    }
    if (status != STATUS_OK || !desc->need_input_gradient || buffers->dx == NULL) {
        return status;
    }
    return product(device, false, true, (uint32_t[]){desc->in.n, desc->in.c, desc->out.c},
                   buffers->dy, weights, buffers->dx);
}

enum status cuda_linear_create(struct cuda_device *device, const struct op_desc *desc,
                               struct cuda_op **out, struct error *error)
{
    (void)device;
    struct linear_op *op = cuda_op_allocate(sizeof *op, desc, error);
    if (op == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &op->base;
    op->base.forward = linear_forward;
    op->base.backward = desc->need_backward ? linear_backward : NULL;
    size_t *scratch = &op->base.base.scratch_bytes, columns = desc->out.c;
    size_t values = desc->standardise ? desc->in.c * columns : 0;
    op->weights = cuda_piece(scratch, values * sizeof(float));
    op->deviations = cuda_piece(scratch, desc->standardise ? 2 * columns * sizeof(float) : 0);
    bool partial = desc->bias && desc->need_backward;
    op->partial =
        cuda_piece(scratch, partial ? cuda_bias_scratch_bytes(desc->in.n, desc->out.c) : 0);
    return STATUS_OK;
}

// --- without parameters

static enum status input_forward(struct cuda_device *device, struct cuda_op *op,
                                 const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    return cuda_check(
        device, cuda_input(op->base.desc.out, device->half, buffers->x, buffers->y, device->stream),
        "the input");
}

static enum status relu_forward(struct cuda_device *device, struct cuda_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    struct tensor_shape shape = op->base.desc.in;
    return cuda_check(device,
                      cuda_relu(cuda_stored_values(device, shape), cuda_stored_half(device, shape),
                                buffers->x, buffers->y, device->stream),
                      "a ReLU");
}

static enum status rectified(struct cuda_device *device, const struct op_desc *desc,
                             const struct op_buffers *buffers, void *dx)
{
    return cuda_check(device,
                      cuda_relu_backward(cuda_stored_values(device, desc->in),
                                         cuda_stored_half(device, desc->in), buffers->y,
                                         buffers->dy, dx, device->stream),
                      "the gradient of a ReLU");
}

static enum status relu_backward(struct cuda_device *device, struct cuda_op *op,
                                 const struct op_buffers *buffers)
{
    return buffers->dx == NULL ? STATUS_OK
                               : rectified(device, &op->base.desc, buffers, buffers->dx);
}

static enum status add_forward(struct cuda_device *device, struct cuda_op *op,
                               const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    const struct op_desc *desc = &op->base.desc;
    return cuda_check(device,
                      cuda_add(cuda_stored_values(device, desc->in),
                               cuda_stored_half(device, desc->in), desc->relu, buffers->x,
                               buffers->x2, buffers->y, device->stream),
                      "a sum");
}

static enum status copy_tensor(struct cuda_device *device, struct tensor_shape shape, void *to,
                               const void *from)
{
    if (to == NULL || to == from) {
        return STATUS_OK;
    }
    return cuda_copy(&device->base, to, from, cuda_tensor_bytes(&device->base, shape));
}

static enum status add_backward(struct cuda_device *device, struct cuda_op *op,
                                const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.desc;
    const void *gradient = buffers->dy;
    void *first = buffers->dx != NULL ? buffers->dx : buffers->dx2;
    enum status status = STATUS_OK;
    if (desc->relu && first != NULL) {
        status = rectified(device, desc, buffers, first);
        gradient = first;
    }
    if (status == STATUS_OK) {
        status = copy_tensor(device, desc->in, buffers->dx, gradient);
    }
    return status == STATUS_OK ? copy_tensor(device, desc->in, buffers->dx2, gradient) : status;
}

static enum status max_pool_forward(struct cuda_device *device, struct cuda_op *op,
                                    const struct op_buffers *buffers, enum op_mode mode)
{
    uint8_t *saved = cuda_op_saves(op, mode) ? buffers->saved : NULL;
    return cuda_check(
        device,
        cuda_max_pool(&op->base.desc, device->half, buffers->x, buffers->y, saved, device->stream),
        "a max pool");
}

static enum status max_pool_backward(struct cuda_device *device, struct cuda_op *op,
                                     const struct op_buffers *buffers)
{
    if (buffers->dx == NULL) {
        return STATUS_OK;
    }
    return cuda_check(device,
                      cuda_max_pool_backward(&op->base.desc, device->half, buffers->dy,
                                             buffers->saved, buffers->dx, device->stream),
                      "the gradient of a max pool");
}

static enum status mean_pool_forward(struct cuda_device *device, struct cuda_op *op,
                                     const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    return cuda_check(
        device,
        cuda_mean_pool(&op->base.desc, device->half, buffers->x, buffers->y, device->stream),
        "a mean pool");
}

static enum status mean_pool_backward(struct cuda_device *device, struct cuda_op *op,
                                      const struct op_buffers *buffers)
{
    if (buffers->dx == NULL) {
        return STATUS_OK;
    }
    return cuda_check(device,
                      cuda_mean_pool_backward(&op->base.desc, device->half, buffers->dy,
                                              buffers->dx, device->stream),
                      "the gradient of a mean pool");
}

static void choose(struct cuda_op *op)
{
    switch (op->base.desc.kind) {
    case OP_INPUT:
        op->forward = input_forward;
        break;
    case OP_RELU:
        op->forward = relu_forward;
        op->backward = relu_backward;
        break;
    case OP_ADD:
        op->forward = add_forward;
        op->backward = add_backward;
        break;
    case OP_MAX_POOL:
        op->forward = max_pool_forward;
        op->backward = max_pool_backward;
        break;
    default:
        op->forward = mean_pool_forward;
        op->backward = mean_pool_backward;
        break;
    }
}

enum status cuda_layer_create(struct cuda_device *device, const struct op_desc *desc,
                              struct cuda_op **out, struct error *error)
{
    struct cuda_op *op = cuda_op_allocate(sizeof *op, desc, error);
    if (op == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = op;
    choose(op);
    if (desc->kind == OP_MAX_POOL && desc->kernel > CUDA_MOST_TAPS) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "device 'cuda' has no max pool of windows of %u pixels", desc->kernel);
    }
    if (desc->kind == OP_MAX_POOL && desc->need_backward) {
        op->base.saved_bytes = cuda_stored_values(device, desc->out);
    }
    return STATUS_OK;
}
