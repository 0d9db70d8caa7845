// The table of the reference device and the dispatch to its loops.
#include "trainer/device/ref.h"

#include "trainer/device/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status ref_open(struct device **out, int threads, enum device_precision precision,
                            struct error *error)
{
    (void)threads;
    *out = NULL;
    if (precision == DEVICE_BF16) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "device 'ref' computes in f32 only");
    }
    struct device *device = calloc(1, sizeof *device);
    *out = device;
    if (device == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    device->ops = &ref_device_ops;
    device->precision = DEVICE_F32;
    return STATUS_OK;
}

static void ref_close(struct device *device)
{
    free(device);
}

static void ref_describe(const struct device *device, char *text, size_t capacity)
{
    (void)device;
    snprintf(text, capacity, "plain C loops, f32, 1 thread");
}

static size_t ref_tensor_bytes(const struct device *device, struct tensor_shape shape)
{
    (void)device;
    return tensor_count(shape) * sizeof(float);
}

static enum status ref_tensor_store(struct device *device, struct tensor_shape shape, void *to,
                                    const float *host)
{
    return host_copy(device, to, host, tensor_count(shape) * sizeof(float));
}

static enum status ref_tensor_fetch(struct device *device, struct tensor_shape shape, float *host,
                                    const void *from)
{
    return host_copy(device, host, from, tensor_count(shape) * sizeof(float));
}

static enum status ref_tensor_add(struct device *device, struct tensor_shape shape, void *to,
                                  const void *from)
{
    (void)device;
    float *sum = to;
    const float *term = from;
    for (size_t i = 0; i < tensor_count(shape); i++) {
        sum[i] += term[i];
    }
    return STATUS_OK;
}

static size_t weight_count(const struct op_desc *desc)
{
    return op_fan_in(desc) * desc->out.c + (desc->bias ? desc->out.c : 0);
}

static size_t widest(const struct op_desc *desc)
{
    return desc->in.c > desc->out.c ? desc->in.c : desc->out.c;
}

static void plan_memory(struct op *op)
{
    const struct op_desc *desc = &op->desc;
    switch (desc->kind) {
    case OP_CONV:
        op->scratch_bytes = widest(desc) * sizeof(double);
        break;
    case OP_GROUP_NORM:
        op->saved_bytes = desc->need_backward ? ref_group_norm_stats_bytes(desc) : 0;
        op->scratch_bytes = ref_group_norm_stats_bytes(desc);
        break;
    case OP_BATCH_NORM:
        op->saved_bytes = desc->need_backward ? ref_norm_stats_bytes(desc) : 0;
        op->scratch_bytes = ref_norm_stats_bytes(desc);
        break;
    case OP_MAX_POOL:
        op->saved_bytes = desc->need_backward ? tensor_count(desc->out) * sizeof(uint32_t) : 0;
        break;
    default:
        break;
    }
    if (desc->standardise) { // the standardised weights stand at the end
        op->scratch_bytes += weight_count(desc) * sizeof(float);
    }
}

static float *standard_weights(const struct op *op, const struct op_buffers *buffers)
{
    size_t bytes = weight_count(&op->desc) * sizeof(float);
    return (void *)((char *)buffers->scratch + op->scratch_bytes - bytes);
}

// The same buffers with standardised weights in the place of the parameters.
static struct op_buffers standardised(const struct op *op, const struct op_buffers *buffers)
{
    struct op_buffers own = *buffers;
    if (op->desc.standardise) {
        float *weights = standard_weights(op, buffers);
        ref_standardise(&op->desc, weights, buffers->params);
        own.params = weights;
    }
    return own;
}

static enum status ref_op_create(struct device *device, const struct op_desc *desc, struct op **out,
                                 struct error *error)
{
    (void)device;
    *out = NULL;
    enum status status = op_desc_check(desc, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct op *op = calloc(1, sizeof *op);
    if (op == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for an op");
    }
    op->desc = *desc;
    plan_memory(op);
    *out = op;
    return STATUS_OK;
}

static void ref_op_release(struct device *device, struct op *op)
{
    (void)device;
    free(op);
}

static enum status ref_op_forward(struct device *device, struct op *op,
                                  const struct op_buffers *given, enum op_mode mode)
{
    const struct op_desc *desc = &op->desc;
    struct op_buffers own = standardised(op, given);
    const struct op_buffers *buffers = &own;
    bool save = desc->need_backward && mode == OP_TRAIN;
    switch (desc->kind) {
    case OP_INPUT:
        ref_input_forward(desc, buffers->y, buffers->x);
        break;
    case OP_CONV:
        ref_conv_forward(desc, buffers->y, buffers->x, buffers->params, buffers->scratch);
        break;
    case OP_BATCH_NORM:
        return ref_norm_forward(desc, buffers, save ? buffers->saved : buffers->scratch, mode,
                                device->peers);
    case OP_ADD:
        ref_add_forward(desc, buffers);
        break;
    case OP_RELU:
        ref_relu_forward(buffers->y, buffers->x, tensor_count(desc->in));
        break;
    case OP_MAX_POOL:
        ref_max_pool_forward(desc, buffers->y, buffers->x, save ? buffers->saved : NULL);
        break;
    case OP_MEAN_POOL:
        ref_mean_pool_forward(desc, buffers->y, buffers->x);
        break;
    case OP_LINEAR:
        ref_linear_forward(desc, buffers);
        break;
    case OP_GROUP_NORM:
        ref_group_norm_forward(desc, buffers, save ? buffers->saved : buffers->scratch);
        break;
    case OP_AFFINE:
        ref_affine_forward(desc, buffers);
        break;
    }
    return STATUS_OK;
}

static void conv_backward(const struct op_desc *desc, const struct op_buffers *buffers)
{
    ref_conv_backward_weights(desc, buffers->param_grads, buffers->x, buffers->dy,
                              buffers->scratch);
    if (desc->need_input_gradient && buffers->dx != NULL) {
        ref_conv_backward_data(desc, buffers->dx, buffers->dy, buffers->params, buffers->scratch);
    }
}

static enum status ref_op_backward(struct device *device, struct op *op,
                                   const struct op_buffers *given)
{
    const struct op_desc *desc = &op->desc;
    struct op_buffers own = standardised(op, given);
    const struct op_buffers *buffers = &own;
    switch (desc->kind) {
    case OP_INPUT:
        break;
    case OP_CONV:
        conv_backward(desc, buffers);
        break;
    case OP_BATCH_NORM:
        return ref_norm_backward(desc, buffers, buffers->saved, device->peers);
    case OP_ADD:
        ref_add_backward(desc, buffers);
        break;
    case OP_RELU:
        ref_relu_backward(buffers->dx, buffers->dy, buffers->y, tensor_count(desc->in));
        break;
    case OP_MAX_POOL:
        ref_max_pool_backward(desc, buffers->dx, buffers->dy, buffers->saved);
        break;
    case OP_MEAN_POOL:
        ref_mean_pool_backward(desc, buffers->dx, buffers->dy);
        break;
    case OP_LINEAR:
        ref_linear_backward(desc, buffers);
        break;
    case OP_GROUP_NORM:
        ref_group_norm_backward(desc, buffers, buffers->saved);
        break;
    case OP_AFFINE:
        ref_affine_backward(desc, buffers);
        break;
    }
    if (desc->standardise) {
        ref_standard_backward(desc, buffers->param_grads, given->params);
    }
    return STATUS_OK;
}

const struct device_ops ref_device_ops = {
    .name = "ref",
    .summary = "plain loops in double, one thread: the oracle of the tests, not for training",
    .open = ref_open,
    .close = ref_close,
    .describe = ref_describe,
    .allocate = host_allocate,
    .release = host_release,
    .copy_in = host_copy,
    .copy_out = host_copy,
    .copy = host_copy,
    .fill_zero = host_fill_zero,
    .synchronise = host_synchronise,
    .tensor_bytes = ref_tensor_bytes,
    .tensor_store = ref_tensor_store,
    .tensor_fetch = ref_tensor_fetch,
    .tensor_add = ref_tensor_add,
    .render_views_scratch = ref_render_views_scratch,
    .render_views = ref_render_views,
    .op_create = ref_op_create,
    .op_release = ref_op_release,
    .op_saved_bytes = op_saved_size,
    .op_scratch_bytes = op_scratch_size,
    .op_forward = ref_op_forward,
    .op_backward = ref_op_backward,
    .regression_loss = ref_regression_loss,
    .softmax_loss = ref_softmax_loss,
    .lars_step = ref_lars_step,
    .sgd_step = ref_sgd_step,
    .adamw_step = ref_adamw_step,
    .moving_average = ref_moving_average,
    .block_add = ref_block_add,
    .block_sum_peers = host_block_sum_peers,
    .matrix_product = ref_matrix_product,
};
