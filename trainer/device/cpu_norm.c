// Batch normalisation of images by oneDNN: one primitive for the images of a group, run on each
// group by itself.
#include "trainer/device/cpu.h"

#include <math.h>

// What a forward pass leaves behind for each group: mean, variance, then oneDNN's workspace (which
// outputs the ReLU cut).
struct cpu_norm {
    struct cpu_op base;
    struct cpu_primitive train, backward, eval;
    size_t vector_bytes, workspace_bytes; // of one channel vector, of one workspace
    size_t image_bytes;                   // of one group's images
};

void cpu_running_update(float *state, const float *mean, const float *variance, uint32_t channels)
{
    float *hidden_mean = state + 1, *hidden_variance = hidden_mean + channels;
    float *average_mean = hidden_variance + channels, *average_variance = average_mean + channels;
    const float fresh = 1.0f - BATCH_NORM_DECAY;
    state[0] += 1.0f;
    float weight = 1.0f - powf(BATCH_NORM_DECAY, state[0]);
    for (uint32_t c = 0; c < channels; c++) {
        hidden_mean[c] = BATCH_NORM_DECAY * hidden_mean[c] + fresh * mean[c];
        hidden_variance[c] = BATCH_NORM_DECAY * hidden_variance[c] + fresh * variance[c];
        average_mean[c] = hidden_mean[c] / weight;
        average_variance[c] = hidden_variance[c] / weight;
    }
}

static struct tensor_shape group_shape(const struct op_desc *desc)
{
    struct tensor_shape shape = desc->in;
    shape.n /= desc->groups;
    return shape;
}

// --- creation

static enum status describe_forward(struct cpu_device *device, dnnl_primitive_desc_t *out,
                                    const struct op_desc *desc, enum op_mode mode,
                                    struct error *error)
{
    bool train = mode == OP_TRAIN;
    unsigned flags = dnnl_use_scale | dnnl_use_shift;
    flags |= desc->relu ? dnnl_fuse_norm_relu : 0u;
    flags |= train ? 0u : dnnl_use_global_stats;
    dnnl_memory_desc_t image = cpu_image_desc(train ? group_shape(desc) : desc->in);
    dnnl_batch_normalization_desc_t operation;
    dnnl_status_t status = dnnl_batch_normalization_forward_desc_init(
        &operation, train ? dnnl_forward_training : dnnl_forward_inference, &image,
        BATCH_NORM_EPSILON, flags);
    if (status == dnnl_success) {
        status = cpu_describe_primitive(device, out, &operation, NULL);
    }
    return cpu_failed(status, "describe a batch normalisation", error);
}

static enum status create_eval(struct cpu_device *device, struct cpu_norm *norm,
                               struct error *error)
{
    static const int arguments[] = {DNNL_ARG_SRC,   DNNL_ARG_MEAN,  DNNL_ARG_VARIANCE,
                                    DNNL_ARG_SCALE, DNNL_ARG_SHIFT, DNNL_ARG_DST};
    dnnl_primitive_desc_t desc = NULL;
    enum status status = describe_forward(device, &desc, &norm->base.base.desc, OP_EVAL, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = cpu_primitive_create(device, &norm->eval, desc, arguments, 6, error);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

static enum status create_backward(struct cpu_device *device, struct cpu_norm *norm,
                                   dnnl_primitive_desc_t hint, struct error *error)
{
    static const int arguments[] = {DNNL_ARG_SRC,      DNNL_ARG_DIFF_DST,   DNNL_ARG_MEAN,
                                    DNNL_ARG_VARIANCE, DNNL_ARG_SCALE,      DNNL_ARG_SHIFT,
                                    DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_SCALE, DNNL_ARG_DIFF_SHIFT,
                                    DNNL_ARG_WORKSPACE};
    const struct op_desc *op = &norm->base.base.desc;
    unsigned flags = dnnl_use_scale | dnnl_use_shift | (op->relu ? dnnl_fuse_norm_relu : 0u);
    dnnl_memory_desc_t image = cpu_image_desc(group_shape(op));
    dnnl_batch_normalization_desc_t operation;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t described = dnnl_batch_normalization_backward_desc_init(
        &operation, dnnl_backward, &image, &image, BATCH_NORM_EPSILON, flags);
    if (described == dnnl_success) {
        described = cpu_describe_primitive(device, &desc, &operation, hint);
    }
    if (described != dnnl_success) {
        return cpu_failed(described, "describe the gradient of a batch normalisation", error);
    }
    enum status status =
        cpu_primitive_create(device, &norm->backward, desc, arguments, op->relu ? 10 : 9, error);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

static enum status create_train(struct cpu_device *device, struct cpu_norm *norm,
                                struct error *error)
{
    static const int arguments[] = {DNNL_ARG_SRC,      DNNL_ARG_MEAN,  DNNL_ARG_VARIANCE,
                                    DNNL_ARG_SCALE,    DNNL_ARG_SHIFT, DNNL_ARG_DST,
                                    DNNL_ARG_WORKSPACE};
    const struct op_desc *op = &norm->base.base.desc;
    dnnl_primitive_desc_t desc = NULL;
    enum status status = describe_forward(device, &desc, op, OP_TRAIN, error);
    if (status != STATUS_OK) {
        return status;
    }
    norm->image_bytes = dnnl_memory_desc_get_size(cpu_argument_desc(desc, DNNL_ARG_SRC));
    norm->vector_bytes = cpu_aligned(op->in.c * sizeof(float));
    norm->workspace_bytes = op->relu ? cpu_argument_bytes(desc, DNNL_ARG_WORKSPACE) : 0;
    status = cpu_primitive_create(device, &norm->train, desc, arguments, op->relu ? 7 : 6, error);
    if (status == STATUS_OK && op->need_backward) {
        status = create_backward(device, norm, desc, error);
    }
    dnnl_primitive_desc_destroy(desc);
    return status;
}

// --- running

struct group_saved {
    float *mean, *variance;
    void *workspace;
};

static struct group_saved saved_of(const struct cpu_norm *norm, void *saved, uint32_t group)
{
    char *at = (char *)saved + group * (2 * norm->vector_bytes + norm->workspace_bytes);
    void *mean = at, *variance = at + norm->vector_bytes;
    return (struct group_saved){mean, variance, at + 2 * norm->vector_bytes};
}

static size_t saved_bytes(const struct cpu_norm *norm)
{
    return norm->base.base.desc.groups * (2 * norm->vector_bytes + norm->workspace_bytes);
}

static enum status forward_train(struct cpu_device *device, struct cpu_norm *norm,
                                 const struct op_buffers *buffers)
{
    const struct op_desc *desc = &norm->base.base.desc;
    // Without a backward pass the statistics live in scratch memory.
    void *saved = desc->need_backward ? buffers->saved : buffers->scratch;
    char *scratchpad = buffers->scratch;
    scratchpad += desc->need_backward ? 0 : saved_bytes(norm);
    for (uint32_t group = 0; group < desc->groups; group++) {
        struct group_saved own = saved_of(norm, saved, group);
        const char *x = (const char *)buffers->x + group * norm->image_bytes;
        char *y = (char *)buffers->y + group * norm->image_bytes;
        const void *pointers[] = {
            x, own.mean,     own.variance, buffers->params, buffers->params + desc->in.c,
            y, own.workspace};
        enum status status = cpu_run(device, &norm->train, pointers, scratchpad);
        if (status != STATUS_OK) {
            return status;
        }
        cpu_running_update(buffers->state, own.mean, own.variance, desc->in.c);
    }
    return STATUS_OK;
}

static enum status norm_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    struct cpu_norm *norm = (struct cpu_norm *)op;
    if (mode == OP_TRAIN) {
        return forward_train(device, norm, buffers);
    }
    uint32_t channels = op->base.desc.in.c;
    const float *mean = buffers->state + 1 + 2 * (size_t)channels;
    const void *pointers[] = {
        buffers->x, mean, mean + channels, buffers->params, buffers->params + channels, buffers->y};
    return cpu_run(device, &norm->eval, pointers, buffers->scratch);
}

// Scratch memory: the vectors of later groups' gradients, then dx where nobody wants it, then
// oneDNN's own.
static enum status norm_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    struct cpu_norm *norm = (struct cpu_norm *)op;
    const struct op_desc *desc = &op->base.desc;
    uint32_t channels = desc->in.c;
    char *unwanted = (char *)buffers->scratch + 2 * norm->vector_bytes;
    char *scratchpad = unwanted + (desc->need_input_gradient ? 0 : norm->image_bytes);
    for (uint32_t group = 0; group < desc->groups; group++) {
        struct group_saved own = saved_of(norm, buffers->saved, group);
        size_t first = group * norm->image_bytes;
        float *grads = group == 0 ? buffers->param_grads : buffers->scratch;
        char *dx = desc->need_input_gradient ? (char *)buffers->dx + first : unwanted;
        const void *pointers[] = {(const char *)buffers->x + first,
                                  (const char *)buffers->dy + first,
                                  own.mean,
                                  own.variance,
                                  buffers->params,
                                  buffers->params + channels,
                                  dx,
                                  grads,
                                  grads + channels,
                                  own.workspace};
        enum status status = cpu_run(device, &norm->backward, pointers, scratchpad);
        if (status != STATUS_OK) {
            return status;
        }
        for (uint32_t i = 0; group > 0 && i < 2 * channels; i++) {
            buffers->param_grads[i] += grads[i];
        }
    }
    return STATUS_OK;
}

static void norm_release(struct cpu_op *op)
{
    struct cpu_norm *norm = (struct cpu_norm *)op;
    cpu_primitive_release(&norm->train);
    cpu_primitive_release(&norm->backward);
    cpu_primitive_release(&norm->eval);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void plan_memory(struct cpu_norm *norm)
{
    struct op *op = &norm->base.base;
    size_t train = norm->train.scratch_bytes, backward = 0;
    if (op->desc.need_backward) {
        op->saved_bytes = saved_bytes(norm);
        backward = 2 * norm->vector_bytes + norm->backward.scratch_bytes;
        backward += op->desc.need_input_gradient ? 0 : norm->image_bytes;
    } else {
        train += saved_bytes(norm);
    }
    op->scratch_bytes = larger(norm->eval.scratch_bytes, larger(train, backward));
}

enum status cpu_norm_create(struct cpu_device *device, const struct op_desc *desc,
                            struct cpu_op **out, struct error *error)
{
    struct cpu_norm *norm = cpu_op_allocate(sizeof *norm, desc, error);
    if (norm == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &norm->base;
    norm->base.forward = norm_forward;
    norm->base.backward = norm_backward;
    norm->base.release = norm_release;
    enum status status = create_train(device, norm, error);
    if (status == STATUS_OK) {
        status = create_eval(device, norm, error);
    }
    plan_memory(norm);
    return status;
}
