// Convolutions: the library's plans between images as they are stored and weights that are packed
// for each forward pass.
#include "trainer/cuda/cuda.h"

#include "trainer/cuda/layers.h"
#include "trainer/cuda/weights.h"
#include "trainer/cuda/weights_math.h"

struct conv_op {
    struct cuda_op base;
    struct cuda_image stored, read; // the input as it lies, and as the convolution reads it
    struct cuda_filter filter;
    struct cuda_conv_plan *plans[CUDA_CONV_PASSES];
    bool refold; // they differ
    // Places in the scratch memory.
    size_t input;   // refolded
    size_t weights; // packed, of a forward pass that saves nothing; their gradient, of a backward
    size_t master;  // standardised weights, before they are packed
    size_t deviations;
    size_t workspace;
    // Places in the saved memory.
    size_t saved_weights;    // packed, for the gradient of the input
    size_t saved_deviations; // of standardised weights
};

// --- folded images (image.h, weights_math.h)

static bool reads_folded(const struct op_desc *desc, const struct cuda_image *stored)
{
    return stored->folded && desc->stride == 2;
}

static void plan_folded(struct conv_op *op, struct cuda_conv *conv)
{
    const struct op_desc *desc = &op->base.base.desc;
    uint32_t rows = fold_blocks(desc->kernel, desc->pad_top);
    uint32_t columns = fold_blocks(desc->kernel, desc->pad_left);
    uint32_t size = rows > columns ? rows : columns;
    conv->kernel = size;
    conv->stride = 1;
    conv->pad_top = fold_padding(desc->pad_top);
    conv->pad_left = fold_padding(desc->pad_left);
    conv->pad_bottom = conv->out_h - 1 + size - conv->pad_top - conv->h;
    conv->pad_right = conv->out_w - 1 + size - conv->pad_left - conv->w;
    op->filter.folded = size;
    op->filter.shift_y = fold_shift(desc->pad_top);
    op->filter.shift_x = fold_shift(desc->pad_left);
}

// --- planning

static struct cuda_conv plan_shape(struct conv_op *op, bool half)
{
    const struct op_desc *desc = &op->base.base.desc;
    struct cuda_image out = cuda_image_of(desc->out, half);
    op->stored = cuda_image_of(desc->in, half);
    op->refold = op->stored.folded && !reads_folded(desc, &op->stored);
    op->read = op->stored;
    if (op->refold) {
        op->read = (struct cuda_image){desc->in.n, desc->in.h, desc->in.w, desc->in.c,
                                       CUDA_LANES, half,       false};
    }
    op->filter = (struct cuda_filter){.kernel = desc->kernel,
                                      .in = desc->in.c,
                                      .out = desc->out.c,
                                      .in_stride = op->read.stride,
                                      .out_stride = out.stride,
                                      .half = half};
    struct cuda_conv conv = {op->read.n,      op->read.h,    op->read.w,     op->read.stride,
                             out.h,           out.w,         out.stride,     desc->kernel,
                             desc->stride,    desc->pad_top, desc->pad_left, desc->pad_bottom,
                             desc->pad_right, half};
    if (op->read.folded) {
        plan_folded(op, &conv);
    }
    return conv;
}

static enum status open_plans(struct cuda_device *device, struct conv_op *op,
                              const struct cuda_conv *conv, struct error *error)
{
    const struct op_desc *desc = &op->base.base.desc;
    const bool wanted[CUDA_CONV_PASSES] = {
        [CUDA_CONV_FORWARD] = true,
        [CUDA_CONV_DATA] = desc->need_backward && desc->need_input_gradient,
        [CUDA_CONV_WEIGHTS] = desc->need_backward,
    };
    enum status status = STATUS_OK;
    for (int pass = 0; pass < CUDA_CONV_PASSES && status == STATUS_OK; pass++) {
        if (wanted[pass]) {
            status =
                cuda_choose_plan(device, conv, (enum cuda_conv_pass)pass, &op->plans[pass], error);
        }
    }
    return status;
}

static size_t largest_workspace(const struct conv_op *op)
{
    size_t largest = 0;
    for (int pass = 0; pass < CUDA_CONV_PASSES; pass++) {
        size_t bytes = op->plans[pass] == NULL ? 0 : cuda_conv_plan_workspace(op->plans[pass]);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static void plan_memory(struct conv_op *op)
{
    struct op *base = &op->base.base;
    const struct op_desc *desc = &base->desc;
    size_t packed =
        cuda_filter_values(&op->filter) * (op->filter.half ? sizeof(bfloat) : sizeof(float));
    size_t deviations = 2 * (size_t)desc->out.c * sizeof(float);
    size_t master = op_fan_in(desc) * desc->out.c * sizeof(float);
    size_t *scratch = &base->scratch_bytes, *saved = &base->saved_bytes;
    op->input = cuda_piece(scratch, op->refold ? cuda_image_bytes(&op->read) : 0);
    op->weights = cuda_piece(scratch, packed);
    op->master = cuda_piece(scratch, desc->standardise ? master : 0);
    op->deviations = cuda_piece(scratch, desc->standardise ? deviations : 0);
    op->workspace = cuda_piece(scratch, largest_workspace(op));
    if (desc->need_backward) {
        op->saved_weights = cuda_piece(saved, desc->need_input_gradient ? packed : 0);
        op->saved_deviations = cuda_piece(saved, desc->standardise ? deviations : 0);
    }
}

// --- running

// What the library takes is never written, but for the result.
static void *readable(const void *memory)
{
    return (void *)(uintptr_t)memory;
}

// The input as the convolution reads it.
static enum status read_input(struct cuda_device *device, const struct conv_op *op,
                              const struct op_buffers *buffers, void **x)
{
    if (!op->refold) {
        *x = readable(buffers->x);
        return STATUS_OK;
    }
    *x = cuda_at(buffers->scratch, op->input);
    return cuda_check(device,
                      cuda_image_refold(&op->stored, buffers->x, &op->read, *x, device->stream),
                      "unfolding an image");
}

static enum status pack_weights(struct cuda_device *device, const struct conv_op *op,
                                const struct op_buffers *buffers, bool saves, void *packed)
{
    const struct op_desc *desc = &op->base.base.desc;
    const float *master = buffers->params;
    cudaError_t code = cudaSuccess;
    if (desc->standardise) {
        float *standard = cuda_at(buffers->scratch, op->master);
        float *deviations = saves ? cuda_at(buffers->saved, op->saved_deviations)
                                  : cuda_at(buffers->scratch, op->deviations);
        code = cuda_standardise((uint32_t)op_fan_in(desc), desc->out.c, master, standard,
                                deviations, device->stream);
        master = standard;
    }
    if (code == cudaSuccess) {
        code = cuda_filter_pack(&op->filter, master, packed, device->stream);
    }
    return cuda_check(device, code, "packing weights");
}

static enum status run(struct cuda_device *device, const struct conv_op *op,
                       enum cuda_conv_pass pass, void *x, void *w, void *y, void *scratch)
{
    enum status status =
        cuda_conv_run(device->library, op->plans[pass], x, w, y, cuda_at(scratch, op->workspace));
    return status == STATUS_OK
               ? STATUS_OK
               : cuda_fail(device, "a convolution", cuda_library_failure(device->library));
}

static enum status conv_forward(struct cuda_device *device, struct cuda_op *own,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    struct conv_op *op = (struct conv_op *)own;
    bool saves = cuda_op_saves(own, mode);
    void *x, *weights = saves && own->base.desc.need_input_gradient
                            ? cuda_at(buffers->saved, op->saved_weights)
                            : cuda_at(buffers->scratch, op->weights);
    enum status status = pack_weights(device, op, buffers, saves, weights);
    if (status == STATUS_OK) {
        status = read_input(device, op, buffers, &x);
    }
    return status == STATUS_OK
               ? run(device, op, CUDA_CONV_FORWARD, x, weights, buffers->y, buffers->scratch)
               : status;
}

static enum status differentiate_weights(struct cuda_device *device, const struct conv_op *op,
                                         const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.base.desc;
    void *x, *packed = cuda_at(buffers->scratch, op->weights);
    enum status status = read_input(device, op, buffers, &x);
    if (status == STATUS_OK) {
        status =
            run(device, op, CUDA_CONV_WEIGHTS, x, packed, readable(buffers->dy), buffers->scratch);
    }
    if (status != STATUS_OK) {
        return status;
    }
    cudaError_t code =
        cuda_filter_unpack(&op->filter, packed, buffers->param_grads, device->stream);
    if (code == cudaSuccess && desc->standardise) {
        code = cuda_standardise_backward((uint32_t)op_fan_in(desc), desc->out.c, buffers->params,
                                         cuda_at(buffers->saved, op->saved_deviations),
                                         buffers->param_grads, device->stream);
    }
    return cuda_check(device, code, "gradients of weights");
}

static enum status differentiate_input(struct cuda_device *device, const struct conv_op *op,
                                       const struct op_buffers *buffers)
{
    void *dx = op->refold ? cuda_at(buffers->scratch, op->input) : buffers->dx;
    enum status status =
        run(device, op, CUDA_CONV_DATA, dx, cuda_at(buffers->saved, op->saved_weights),
            readable(buffers->dy), buffers->scratch);
    if (status != STATUS_OK || !op->refold) {
        return status;
    }
    return cuda_check(device,
                      cuda_image_refold(&op->read, dx, &op->stored, buffers->dx, device->stream),
                      "folding an image");
}

static enum status conv_backward(struct cuda_device *device, struct cuda_op *own,
                                 const struct op_buffers *buffers)
{
    struct conv_op *op = (struct conv_op *)own;
    enum status status = differentiate_weights(device, op, buffers);
    if (status == STATUS_OK && own->base.desc.need_input_gradient && buffers->dx != NULL) {
        status = differentiate_input(device, op, buffers);
    }
    return status;
}

static void conv_release(struct cuda_op *own)
{
    struct conv_op *op = (struct conv_op *)own;
    for (int pass = 0; pass < CUDA_CONV_PASSES; pass++) {
        cuda_conv_plan_close(&op->plans[pass]);
    }
}

enum status cuda_conv_create(struct cuda_device *device, const struct op_desc *desc,
                             struct cuda_op **out, struct error *error)
{
    struct conv_op *op = cuda_op_allocate(sizeof *op, desc, error);
    if (op == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &op->base;
    op->base.forward = conv_forward;
    op->base.backward = desc->need_backward ? conv_backward : NULL;
    op->base.release = conv_release;
    struct cuda_conv conv = plan_shape(op, device->half);
    enum status status = open_plans(device, op, &conv, error);
    if (status == STATUS_OK) {
        plan_memory(op);
    }
    return status;
}
