// Normalisations: which passes run, and where their sums lie.
#include "trainer/cuda/cuda.h"

#include "trainer/cuda/image_norm.h"
#include "trainer/cuda/norm.h"

static uint32_t stride_of(struct tensor_shape shape)
{
    return shape.kind == TENSOR_IMAGE ? cuda_image_of(shape, false).stride : shape.c;
}

// --- over the batch

struct batch_norm {
    struct cuda_op base;
    struct cuda_norm norm;
    size_t sums, coefficients, partial; // places in the scratch memory
};

static size_t sum_count(const struct batch_norm *op) // of sums, and of coefficients
{
    return 2 * (size_t)op->norm.groups * op->norm.channels;
}

static enum status train(struct cuda_device *device, const struct batch_norm *op,
                         const struct op_buffers *buffers, bool saves, float *coefficients)
{
    double *sums = cuda_at(buffers->scratch, op->sums);
    void *partial = cuda_at(buffers->scratch, op->partial);
    enum status status =
        cuda_check(device, cuda_norm_sums(&op->norm, buffers->x, sums, partial, device->stream),
                   "sums of a normalisation");
    if (status == STATUS_OK) {
        status = cuda_peers_sum(device, sums, sum_count(op));
    }
    if (status != STATUS_OK) {
        return status;
    }
    return cuda_check(device,
                      cuda_norm_statistics(&op->norm, sums,
                                           op->norm.rows * cuda_peers_count(device),
                                           buffers->params, saves ? buffers->saved : NULL,
                                           coefficients, buffers->state, device->stream),
                      "statistics of a normalisation");
}

static enum status batch_norm_forward(struct cuda_device *device, struct cuda_op *own,
                                      const struct op_buffers *buffers, enum op_mode mode)
{
    const struct batch_norm *op = (const struct batch_norm *)own;
    float *coefficients = cuda_at(buffers->scratch, op->coefficients);
    enum status status =
        mode == OP_TRAIN ? train(device, op, buffers, cuda_op_saves(own, mode), coefficients)
                         : cuda_check(device,
                                      cuda_norm_running(&op->norm, buffers->params, buffers->state,
                                                        coefficients, device->stream),
                                      "running statistics");
    if (status != STATUS_OK) {
        return status;
    }
    return cuda_check(device,
                      cuda_norm_apply(&op->norm, buffers->x, buffers->x2, coefficients, buffers->y,
                                      device->stream),
                      "a normalisation");
}

static enum status batch_norm_backward(struct cuda_device *device, struct cuda_op *own,
                                       const struct op_buffers *buffers)
{
    const struct batch_norm *op = (const struct batch_norm *)own;
    double *sums = cuda_at(buffers->scratch, op->sums);
    void *masked = buffers->dx2 != NULL ? buffers->dx2 : buffers->dx; // of a join
    const void *dy = op->norm.join && masked != NULL ? masked : buffers->dy;
    enum status status =
        cuda_check(device,
                   cuda_norm_backward_sums(&op->norm, buffers->x, buffers->y, buffers->dy,
                                           buffers->params, buffers->saved, sums,
                                           buffers->param_grads, op->norm.join ? masked : NULL,
                                           cuda_at(buffers->scratch, op->partial), device->stream),
                   "sums of a normalisation's gradient");
    if (status == STATUS_OK) {
        status = cuda_peers_sum(device, sums, sum_count(op));
    }
    if (status != STATUS_OK || !own->base.desc.need_input_gradient || buffers->dx == NULL) {
        return status;
    }
    return cuda_check(device,
                      cuda_norm_backward_apply(
                          &op->norm, buffers->x, dy, buffers->params, buffers->saved, sums,
                          op->norm.rows * cuda_peers_count(device), buffers->dx, device->stream),
                      "a normalisation's gradient");
}

enum status cuda_batch_norm_create(struct cuda_device *device, const struct op_desc *desc,
                                   struct cuda_op **out, struct error *error)
{
    struct batch_norm *op = cuda_op_allocate(sizeof *op, desc, error);
    if (op == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &op->base;
    op->base.forward = batch_norm_forward;
    op->base.backward = desc->need_backward ? batch_norm_backward : NULL;
    op->norm = (struct cuda_norm){
        .groups = desc->groups,
        .rows = (uint64_t)desc->in.n / desc->groups * desc->in.h * desc->in.w,
        .channels = desc->in.c,
        .stride = stride_of(desc->in),
        .half = cuda_stored_half(device, desc->in),
        .relu = desc->relu,
        .join = desc->join,
    };
    struct op *base = &op->base.base;
    op->sums = cuda_piece(&base->scratch_bytes, sum_count(op) * sizeof(double));
    op->coefficients = cuda_piece(&base->scratch_bytes, sum_count(op) * sizeof(float));
    op->partial = cuda_piece(&base->scratch_bytes, cuda_norm_scratch_bytes(&op->norm));
    base->saved_bytes = desc->need_backward ? sum_count(op) * sizeof(float) : 0;
    return STATUS_OK;
}

// --- of each image by itself, and affine maps

struct image_norm {
    struct cuda_op base;
    struct cuda_image_norm norm;
};

static enum status image_norm_forward(struct cuda_device *device, struct cuda_op *own,
                                      const struct op_buffers *buffers, enum op_mode mode)
{
    const struct image_norm *op = (const struct image_norm *)own;
    float *saved = cuda_op_saves(own, mode) ? buffers->saved : NULL;
    return cuda_check(device,
                      cuda_image_norm_forward(&op->norm, buffers->x, buffers->params, buffers->y,
                                              saved, buffers->scratch, device->stream),
                      "a normalisation of images");
}

static enum status image_norm_backward(struct cuda_device *device, struct cuda_op *own,
                                       const struct op_buffers *buffers)
{
    const struct image_norm *op = (const struct image_norm *)own;
    void *dx = own->base.desc.need_input_gradient ? buffers->dx : NULL;
    return cuda_check(device,
                      cuda_image_norm_backward(&op->norm, buffers->x, buffers->dy, buffers->params,
                                               buffers->saved, dx, buffers->param_grads,
                                               buffers->scratch, device->stream),
                      "the gradient of a normalisation of images");
}

enum status cuda_image_norm_create(struct cuda_device *device, const struct op_desc *desc,
                                   struct cuda_op **out, struct error *error)
{
    struct image_norm *op = cuda_op_allocate(sizeof *op, desc, error);
    if (op == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &op->base;
    op->base.forward = image_norm_forward;
    op->base.backward = desc->need_backward ? image_norm_backward : NULL;
    op->norm = (struct cuda_image_norm){
        .images = desc->in.n,
        .pixels = desc->in.h * desc->in.w,
        .channels = desc->in.c,
        .stride = stride_of(desc->in),
        .channel_groups = desc->kind == OP_GROUP_NORM ? desc->channel_groups : 0,
        .half = cuda_stored_half(device, desc->in),
        .relu = desc->relu,
    };
    struct op *base = &op->base.base;
    base->scratch_bytes = cuda_image_norm_scratch_bytes(&op->norm);
    base->saved_bytes = desc->need_backward ? cuda_image_norm_saved_bytes(&op->norm) : 0;
    return STATUS_OK;
}
