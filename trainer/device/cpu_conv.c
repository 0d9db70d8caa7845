// Convolution by oneDNN. Weights stay plain HWIO; each call reorders them into the layout that its
// kernel chose, in scratch memory (about one part in a hundred of the time).
#include "trainer/device/cpu.h"

#include <string.h>

struct cpu_conv {
    struct cpu_op base;
    struct cpu_primitive forward, backward_data, backward_weights;
    struct cpu_primitive to_forward, to_backward, from_gradient; // reorders of the weights
    size_t forward_bytes, backward_bytes, gradient_bytes;        // of the reordered weights
};

enum pass { PASS_FORWARD, PASS_BACKWARD_DATA, PASS_BACKWARD_WEIGHTS };

static dnnl_memory_desc_t weights_desc(const struct op_desc *desc, dnnl_format_tag_t tag,
                                       dnnl_data_type_t type)
{
    dnnl_dims_t dims = {desc->out.c, desc->in.c, desc->kernel, desc->kernel};
    dnnl_memory_desc_t weights;
    memset(&weights, 0, sizeof weights);
    dnnl_memory_desc_init_by_tag(&weights, 4, dims, type, tag);
    return weights;
}

static dnnl_status_t describe_pass(const struct cpu_device *device, dnnl_convolution_desc_t *out,
                                   const struct op_desc *desc, enum pass pass,
                                   dnnl_alg_kind_t algorithm)
{
    dnnl_memory_desc_t in = cpu_image_desc(device, desc->in);
    dnnl_memory_desc_t result = cpu_image_desc(device, desc->out);
    bool half = device->half && pass != PASS_BACKWARD_WEIGHTS;
    dnnl_memory_desc_t weights =
        weights_desc(desc, dnnl_format_tag_any, half ? dnnl_bf16 : dnnl_f32);
    dnnl_dims_t strides = {desc->stride, desc->stride};
    dnnl_dims_t low = {desc->pad_top, desc->pad_left}, high = {desc->pad_bottom, desc->pad_right};
    switch (pass) {
    case PASS_FORWARD:
        return dnnl_convolution_forward_desc_init(out, dnnl_forward_training, algorithm, &in,
                                                  &weights, NULL, &result, strides, low, high);
    case PASS_BACKWARD_DATA:
        return dnnl_convolution_backward_data_desc_init(out, algorithm, &in, &weights, &result,
                                                        strides, low, high);
    case PASS_BACKWARD_WEIGHTS:
        return dnnl_convolution_backward_weights_desc_init(out, algorithm, &in, &weights, NULL,
                                                           &result, strides, low, high);
    }
    return dnnl_invalid_arguments;
}

// Winograd works on tiles of 4x4 outputs. It pays where the tiles are filled well and there are
// enough of them to make up for transforming the weights, which happens in each call.
#define WINOGRAD_TILES 64

static bool winograd_pays(const struct op_desc *desc)
{
    if (desc->kernel != 3 || desc->stride != 1) {
        return false;
    }
    uint64_t tiles = (uint64_t)((desc->out.h + 3) / 4) * ((desc->out.w + 3) / 4);
    bool filled = (uint64_t)desc->out.h * desc->out.w * 4 >= tiles * 16 * 3;
    return filled && tiles * desc->out.n >= WINOGRAD_TILES;
}

static enum status describe_conv(struct cpu_device *device, dnnl_primitive_desc_t *out,
                                 const struct op_desc *desc, enum pass pass,
                                 dnnl_primitive_desc_t hint, struct error *error)
{
    static const dnnl_alg_kind_t algorithms[] = {dnnl_convolution_winograd,
                                                 dnnl_convolution_direct};
    dnnl_status_t status = dnnl_unimplemented;
    for (size_t i = !device->half && winograd_pays(desc) ? 0 : 1; i < 2; i++) {
        dnnl_convolution_desc_t operation;
        status = describe_pass(device, &operation, desc, pass, algorithms[i]);
        if (status == dnnl_success) {
            status = cpu_describe_primitive(device, out, &operation, hint);
        }
        if (status == dnnl_success) {
            return STATUS_OK;
        }
    }
    return cpu_failed(status, "describe a convolution", error);
}

static enum status create_forward(struct cpu_device *device, struct cpu_conv *conv,
                                  dnnl_primitive_desc_t desc, struct error *error)
{
    static const int arguments[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    dnnl_memory_desc_t plain = weights_desc(&conv->base.base.desc, dnnl_hwio, dnnl_f32);
    conv->forward_bytes = cpu_argument_bytes(desc, DNNL_ARG_WEIGHTS);
    enum status status = cpu_primitive_create(device, &conv->forward, desc, arguments, 3, error);
    if (status == STATUS_OK) {
        status = cpu_reorder_create(device, &conv->to_forward, &plain,
                                    cpu_argument_desc(desc, DNNL_ARG_WEIGHTS), error);
    }
    return status;
}

static enum status create_backward_data(struct cpu_device *device, struct cpu_conv *conv,
                                        dnnl_primitive_desc_t hint, struct error *error)
{
    static const int arguments[] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC};
    const struct op_desc *op = &conv->base.base.desc;
    dnnl_memory_desc_t plain = weights_desc(op, dnnl_hwio, dnnl_f32);
    dnnl_primitive_desc_t desc = NULL;
    enum status status = describe_conv(device, &desc, op, PASS_BACKWARD_DATA, hint, error);
    if (status != STATUS_OK) {
        return status;
    }
    conv->backward_bytes = cpu_argument_bytes(desc, DNNL_ARG_WEIGHTS);
    status = cpu_primitive_create(device, &conv->backward_data, desc, arguments, 3, error);
    if (status == STATUS_OK) {
        status = cpu_reorder_create(device, &conv->to_backward, &plain,
                                    cpu_argument_desc(desc, DNNL_ARG_WEIGHTS), error);
    }
    dnnl_primitive_desc_destroy(desc);
    return status;
}

static enum status create_backward_weights(struct cpu_device *device, struct cpu_conv *conv,
                                           dnnl_primitive_desc_t hint, struct error *error)
{
    static const int arguments[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS};
    const struct op_desc *op = &conv->base.base.desc;
    dnnl_memory_desc_t plain = weights_desc(op, dnnl_hwio, dnnl_f32);
    dnnl_primitive_desc_t desc = NULL;
    enum status status = describe_conv(device, &desc, op, PASS_BACKWARD_WEIGHTS, hint, error);
    if (status != STATUS_OK) {
        return status;
    }
    conv->gradient_bytes = cpu_argument_bytes(desc, DNNL_ARG_DIFF_WEIGHTS);
    status = cpu_primitive_create(device, &conv->backward_weights, desc, arguments, 3, error);
    if (status == STATUS_OK) {
        status = cpu_reorder_create(device, &conv->from_gradient,
                                    cpu_argument_desc(desc, DNNL_ARG_DIFF_WEIGHTS), &plain, error);
    }
    dnnl_primitive_desc_destroy(desc);
    return status;
}

// Reordered weights first, then the scratchpad of whatever runs.
static enum status conv_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    struct cpu_conv *conv = (struct cpu_conv *)op;
    char *weights = buffers->scratch, *scratchpad = weights + conv->forward_bytes;
    enum status status =
        cpu_run(device, &conv->to_forward, (const void *[]){buffers->params, weights}, scratchpad);
    if (status != STATUS_OK) {
        return status;
    }
    return cpu_run(device, &conv->forward, (const void *[]){buffers->x, weights, buffers->y},
                   scratchpad);
}

static enum status backward_weights(struct cpu_device *device, struct cpu_conv *conv,
                                    const struct op_buffers *buffers)
{
    char *gradient = buffers->scratch, *scratchpad = gradient + conv->gradient_bytes;
    enum status status = cpu_run(device, &conv->backward_weights,
                                 (const void *[]){buffers->x, buffers->dy, gradient}, scratchpad);
    if (status != STATUS_OK) {
        return status;
    }
    return cpu_run(device, &conv->from_gradient, (const void *[]){gradient, buffers->param_grads},
                   scratchpad);
}

static enum status backward_data(struct cpu_device *device, struct cpu_conv *conv,
                                 const struct op_buffers *buffers)
{
    char *weights = buffers->scratch, *scratchpad = weights + conv->backward_bytes;
    enum status status =
        cpu_run(device, &conv->to_backward, (const void *[]){buffers->params, weights}, scratchpad);
    if (status != STATUS_OK) {
        return status;
    }
    return cpu_run(device, &conv->backward_data,
                   (const void *[]){buffers->dy, weights, buffers->dx}, scratchpad);
}

static enum status conv_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    struct cpu_conv *conv = (struct cpu_conv *)op;
    enum status status = backward_weights(device, conv, buffers);
    if (status == STATUS_OK && op->base.desc.need_input_gradient && buffers->dx != NULL) {
        status = backward_data(device, conv, buffers);
    }
    return status;
}

static void conv_release(struct cpu_op *op)
{
    struct cpu_conv *conv = (struct cpu_conv *)op;
    cpu_primitive_release(&conv->forward);
    cpu_primitive_release(&conv->backward_data);
    cpu_primitive_release(&conv->backward_weights);
    cpu_primitive_release(&conv->to_forward);
    cpu_primitive_release(&conv->to_backward);
    cpu_primitive_release(&conv->from_gradient);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t scratch_needed(const struct cpu_conv *conv)
{
    size_t forward =
        conv->forward_bytes + larger(conv->forward.scratch_bytes, conv->to_forward.scratch_bytes);
    size_t data = conv->backward_bytes +
                  larger(conv->backward_data.scratch_bytes, conv->to_backward.scratch_bytes);
    size_t weights = conv->gradient_bytes + larger(conv->backward_weights.scratch_bytes,
                                                   conv->from_gradient.scratch_bytes);
    return larger(forward, larger(data, weights));
}

enum status cpu_conv_create(struct cpu_device *device, const struct op_desc *desc,
                            struct cpu_op **out, struct error *error)
{
    dnnl_primitive_desc_t forward = NULL;
    struct cpu_conv *conv = cpu_op_allocate(sizeof *conv, desc, error);
    if (conv == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &conv->base;
    enum status status = describe_conv(device, &forward, desc, PASS_FORWARD, NULL, error);
    if (status == STATUS_OK) {
        status = create_forward(device, conv, forward, error);
    }
    if (status == STATUS_OK && desc->need_backward) {
        status = create_backward_weights(device, conv, forward, error);
    }
    if (status == STATUS_OK && desc->need_backward && desc->need_input_gradient) {
        status = create_backward_data(device, conv, forward, error);
    }
    if (forward != NULL) {
        dnnl_primitive_desc_destroy(forward);
    }
    conv->base.forward = conv_forward;
    conv->base.backward = conv_backward;
    conv->base.release = conv_release;
    conv->base.base.scratch_bytes = scratch_needed(conv);
    return status;
}
