// Creating ops, and running them on the device's stream.
#include "trainer/cuda/cuda.h"

#include "trainer/cuda/grid.h"

#include <stdlib.h>

#define PIECE_ALIGNMENT 256u

size_t cuda_piece(size_t *total, size_t bytes)
{
    size_t offset = *total;
    *total += (bytes + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
    return offset;
}

bool cuda_op_saves(const struct cuda_op *op, enum op_mode mode)
{
    return op->base.desc.need_backward && mode == OP_TRAIN;
}

void *cuda_op_allocate(size_t bytes, const struct op_desc *desc, struct error *error)
{
    struct cuda_op *op = calloc(1, bytes);
    if (op == NULL) {
        error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for an op");
        return NULL;
    }
    op->base.desc = *desc;
    return op;
}

// Folded images have no channels of their own: what works channel by channel cannot read them.
static enum status check_layout(const struct op_desc *desc, struct error *error)
{
    struct cuda_image in = cuda_image_of(desc->in, false), out = cuda_image_of(desc->out, false);
    bool by_channel = desc->kind == OP_BATCH_NORM || desc->kind == OP_GROUP_NORM ||
                      desc->kind == OP_AFFINE || desc->kind == OP_MAX_POOL ||
                      desc->kind == OP_MEAN_POOL;
    bool folded =
        (desc->in.kind == TENSOR_IMAGE && in.folded && by_channel) ||
        (desc->out.kind == TENSOR_IMAGE && out.folded && (by_channel || desc->kind == OP_CONV));
    if (!folded) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                     "device 'cuda' has no %s of images of 3 channels and %ux%u pixels",
                     op_kind_names[desc->kind], desc->in.h, desc->in.w);
}

static uint64_t tensor_groups(const struct cuda_device *device, struct tensor_shape shape)
{
    return (cuda_stored_values(device, shape) + CUDA_LANES - 1) / CUDA_LANES;
}

// Kernels count in 32 bits: the groups of lanes of a tensor, weights, and the runs of channels that
// are normalised.
static enum status check_counts(const struct cuda_device *device, const struct op_desc *desc,
                                struct error *error)
{
    bool weighted = desc->kind == OP_CONV || desc->kind == OP_LINEAR;
    uint64_t runs = desc->kind == OP_GROUP_NORM ? (uint64_t)desc->in.n * desc->channel_groups : 1;
    if (grid_fits(tensor_groups(device, desc->in)) && grid_fits(tensor_groups(device, desc->out)) &&
        grid_fits(runs) && (!weighted || op_fan_in(desc) <= CUDA_MOST_WORK / desc->out.c)) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                     "a %s of %ux%ux%ux%u -> %ux%ux%ux%u is too large for device 'cuda'",
                     op_kind_names[desc->kind], desc->in.n, desc->in.h, desc->in.w, desc->in.c,
                     desc->out.n, desc->out.h, desc->out.w, desc->out.c);
}

static enum status create(struct cuda_device *device, const struct op_desc *desc,
                          struct cuda_op **out, struct error *error)
{
    switch (desc->kind) {
    case OP_CONV:
        return cuda_conv_create(device, desc, out, error);
    case OP_BATCH_NORM:
        return cuda_batch_norm_create(device, desc, out, error);
    case OP_GROUP_NORM:
    case OP_AFFINE:
        return cuda_image_norm_create(device, desc, out, error);
    case OP_LINEAR:
        return cuda_linear_create(device, desc, out, error);
    case OP_INPUT:
    case OP_ADD:
    case OP_RELU:
    case OP_MAX_POOL:
    case OP_MEAN_POOL:
        return cuda_layer_create(device, desc, out, error);
    }
    return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "unknown kind of op");
}

enum status cuda_op_create(struct device *device, const struct op_desc *desc, struct op **out,
                           struct error *error)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    struct cuda_op *op = NULL;
    *out = NULL;
    enum status status = op_desc_check(desc, error);
    if (status == STATUS_OK) {
        status = check_layout(desc, error);
    }
    if (status == STATUS_OK) {
        status = check_counts(cuda, desc, error);
    }
    if (status == STATUS_OK) {
        status = cuda_explain(cuda, cuda_enter(cuda), error);
    }
    if (status == STATUS_OK) {
        status = create(cuda, desc, &op, error);
    }
    if (status != STATUS_OK) {
        cuda_op_release(device, (struct op *)op);
        return status;
    }
    *out = &op->base;
    return STATUS_OK;
}

void cuda_op_release(struct device *device, struct op *op)
{
    struct cuda_op *own = (struct cuda_op *)op;
    if (own != NULL && own->release != NULL) {
        cuda_enter((struct cuda_device *)device);
        own->release(own);
    }
    free(own);
}

enum status cuda_op_forward(struct device *device, struct op *op, const struct op_buffers *buffers,
                            enum op_mode mode)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    struct cuda_op *own = (struct cuda_op *)op;
    enum status status = cuda_enter(cuda);
    return status == STATUS_OK ? own->forward(cuda, own, buffers, mode) : status;
}

enum status cuda_op_backward(struct device *device, struct op *op, const struct op_buffers *buffers)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    struct cuda_op *own = (struct cuda_op *)op;
    enum status status = cuda_enter(cuda);
    if (status != STATUS_OK || own->backward == NULL) {
        return status;
    }
    return own->backward(cuda, own, buffers);
}
