// Convolution by oneDNN. Weights stay plain HWIO; each call reorders them into the layout that its
// kernel chose, in scratch memory (about one part in a hundred of the time).
#include "trainer/device/cpu.h"

struct cpu_conv {
    struct cpu_op base;
    struct cpu_primitive forward, backward_data, backward_weights;
    struct cpu_primitive to_forward, to_backward, from_gradient; // reorders of the weights
    size_t forward_bytes, backward_bytes, gradient_bytes;        // of the reordered weights
};

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
                                 const struct op_desc *desc, enum cpu_conv_pass pass,
                                 dnnl_primitive_desc_t hint, struct error *error)
{
    bool winograd = !device->half && winograd_pays(desc);
    return cpu_conv_describe(device, out, desc, pass, winograd, hint, error);
}

static enum status create_forward(struct cpu_device *device, struct cpu_conv *conv,
                                  dnnl_primitive_desc_t desc, struct error *error)
{
    static const int arguments[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    conv->forward_bytes = cpu_argument_bytes(desc, DNNL_ARG_WEIGHTS);
    enum status status = cpu_primitive_create(device, &conv->forward, desc, arguments, 3, error);
    if (status == STATUS_OK) {
        status = cpu_reorder_create(device, &conv->to_forward, &conv->base.base.desc, CONV_FORWARD,
                                    desc, error);
    }
    return status;
}

static enum status create_backward_data(struct cpu_device *device, struct cpu_conv *conv,
                                        dnnl_primitive_desc_t hint, struct error *error)
{
    static const int arguments[] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC};
    const struct op_desc *op = &conv->base.base.desc;
    dnnl_primitive_desc_t desc = NULL;
    enum status status = describe_conv(device, &desc, op, CONV_BACKWARD_DATA, hint, error);
    if (status != STATUS_OK) {
        return status;
    }
    conv->backward_bytes = cpu_argument_bytes(desc, DNNL_ARG_WEIGHTS);
    status = cpu_primitive_create(device, &conv->backward_data, desc, arguments, 3, error);
    if (status == STATUS_OK) {
        status =
            cpu_reorder_create(device, &conv->to_backward, op, CONV_BACKWARD_DATA, desc, error);
    }
    cpu_description_release(desc);
    return status;
}

static enum status create_backward_weights(struct cpu_device *device, struct cpu_conv *conv,
                                           dnnl_primitive_desc_t hint, struct error *error)
{
    static const int arguments[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS};
    const struct op_desc *op = &conv->base.base.desc;
    dnnl_primitive_desc_t desc = NULL;
    enum status status = describe_conv(device, &desc, op, CONV_BACKWARD_WEIGHTS, hint, error);
    if (status != STATUS_OK) {
        return status;
    }
    conv->gradient_bytes = cpu_argument_bytes(desc, DNNL_ARG_DIFF_WEIGHTS);
    status = cpu_primitive_create(device, &conv->backward_weights, desc, arguments, 3, error);
    if (status == STATUS_OK) {
        status = cpu_reorder_create(device, &conv->from_gradient, op, CONV_BACKWARD_WEIGHTS, desc,
                                    error);
    }
    cpu_description_release(desc);
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
    enum status status = describe_conv(device, &forward, desc, CONV_FORWARD, NULL, error);
    if (status == STATUS_OK) {
        status = create_forward(device, conv, forward, error);
    }
    if (status == STATUS_OK && desc->need_backward) {
        status = create_backward_weights(device, conv, forward, error);
    }
    if (status == STATUS_OK && desc->need_backward && desc->need_input_gradient) {
        status = create_backward_data(device, conv, forward, error);
    }
    cpu_description_release(forward);
    conv->base.forward = conv_forward;
    conv->base.backward = conv_backward;
    conv->base.release = conv_release;
    conv->base.base.scratch_bytes = scratch_needed(conv);
    return status;
}
