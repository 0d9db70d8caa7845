// Checks and sums that do not depend on the device.
#include "trainer/device/op.h"

// Far above any real network; keeps every index inside 32 bits per image and 48 bits in all.
#define MAX_SIDE     65536u
#define MAX_CHANNELS (1u << 20)
#define MAX_IMAGE    (1ull << 30)
#define MAX_TENSOR   (1ull << 40)

const char *const op_kind_names[OP_KINDS] = {
    [OP_INPUT] = "input",
    [OP_CONV] = "conv",
    [OP_BATCH_NORM] = "batch_norm",
    [OP_ADD] = "add",
    [OP_RELU] = "relu",
    [OP_MAX_POOL] = "max_pool",
    [OP_MEAN_POOL] = "mean_pool",
    [OP_LINEAR] = "linear",
    [OP_GROUP_NORM] = "group_norm",
    [OP_AFFINE] = "affine",
};

const float op_input_mean[3] = {0.485f, 0.456f, 0.406f};
const float op_input_deviation[3] = {0.229f, 0.224f, 0.225f};

size_t tensor_count(struct tensor_shape shape)
{
    return (size_t)shape.n * shape.h * shape.w * shape.c;
}

size_t op_fan_in(const struct op_desc *desc)
{
    size_t window = desc->kind == OP_CONV ? (size_t)desc->kernel * desc->kernel : 1;
    return window * desc->in.c;
}

size_t op_saved_size(const struct op *op)
{
    return op->saved_bytes;
}

size_t op_scratch_size(const struct op *op)
{
    return op->scratch_bytes;
}

static bool shape_fits(struct tensor_shape shape)
{
    if (shape.n == 0 || shape.h == 0 || shape.w == 0 || shape.c == 0) {
        return false;
    }
    if (shape.h > MAX_SIDE || shape.w > MAX_SIDE || shape.c > MAX_CHANNELS) {
        return false;
    }
    uint64_t image = (uint64_t)shape.h * shape.w;
    if (image > MAX_IMAGE / shape.c) {
        return false;
    }
    if (shape.kind == TENSOR_MATRIX && (shape.h != 1 || shape.w != 1)) {
        return false;
    }
    return image * shape.c <= MAX_TENSOR / shape.n;
}

static bool same_size(struct tensor_shape a, struct tensor_shape b)
{
    return a.n == b.n && a.h == b.h && a.w == b.w && a.c == b.c;
}

// out = (in + low + high - kernel) / stride + 1, with every window touching the image.
static bool window_fits(uint32_t in, uint32_t out, uint32_t low, uint32_t high,
                        const struct op_desc *desc)
{
    uint64_t padded = (uint64_t)in + low + high;
    if (desc->kernel == 0 || desc->stride == 0 || padded < desc->kernel) {
        return false;
    }
    if (low >= desc->kernel || high >= desc->kernel) {
        return false;
    }
    return (padded - desc->kernel) / desc->stride + 1 == out;
}

static bool windows_fit(const struct op_desc *desc)
{
    return desc->in.n == desc->out.n &&
           window_fits(desc->in.h, desc->out.h, desc->pad_top, desc->pad_bottom, desc) &&
           window_fits(desc->in.w, desc->out.w, desc->pad_left, desc->pad_right, desc);
}

static const char *mistake_of_kind(const struct op_desc *desc)
{
    struct tensor_shape in = desc->in, out = desc->out;
    bool images = in.kind == TENSOR_IMAGE && out.kind == TENSOR_IMAGE;
    bool matrices = in.kind == TENSOR_MATRIX && out.kind == TENSOR_MATRIX;
    switch (desc->kind) {
    case OP_INPUT:
        return out.kind == TENSOR_IMAGE && in.c == 3 && same_size(in, out)
                   ? NULL
                   : "an input needs equal images of 3 channels";
    case OP_CONV:
        return images && windows_fit(desc) ? NULL : "the windows of a convolution do not fit";
    case OP_MAX_POOL:
        return images && in.c == out.c && windows_fit(desc) ? NULL
                                                            : "the windows of a pool do not fit";
    case OP_GROUP_NORM:
        if (desc->channel_groups == 0 || in.c % desc->channel_groups != 0) {
            return "the channels are not a multiple of their groups";
        }
        return in.kind == out.kind && same_size(in, out) ? NULL
                                                         : "input and output differ in shape";
    case OP_BATCH_NORM:
    case OP_AFFINE:
    case OP_RELU:
        return in.kind == out.kind && same_size(in, out) ? NULL
                                                         : "input and output differ in shape";
    case OP_ADD:
        return images && same_size(in, out) ? NULL : "a sum needs images of equal shape";
    case OP_MEAN_POOL:
        return in.kind == TENSOR_IMAGE && out.kind == TENSOR_MATRIX && in.n == out.n &&
                       in.c == out.c
                   ? NULL
                   : "a mean needs an image and a matrix of the same channels";
    case OP_LINEAR:
        return matrices && in.n == out.n ? NULL : "a linear layer needs matrices of equal rows";
    }
    return "unknown kind of op";
}

enum status op_desc_check(const struct op_desc *desc, struct error *error)
{
    const char *mistake = NULL;
    if (!shape_fits(desc->in) || !shape_fits(desc->out)) {
        mistake = "a dimension is zero or too large";
    } else if (desc->groups == 0 || desc->in.n % desc->groups != 0) {
        mistake = "the batch is not a multiple of its groups";
    } else if (desc->standardise && desc->kind != OP_CONV && desc->kind != OP_LINEAR) {
        mistake = "only weights can be standardised";
    } else if (desc->join && (desc->kind != OP_BATCH_NORM || desc->in.kind != TENSOR_IMAGE)) {
        mistake = "only batch normalisation of images can be joined by a sum";
    } else {
        mistake = mistake_of_kind(desc);
    }
    if (mistake == NULL) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                     "op %d on %ux%ux%ux%u -> %ux%ux%ux%u: %s", (int)desc->kind, desc->in.n,
                     desc->in.h, desc->in.w, desc->in.c, desc->out.n, desc->out.h, desc->out.w,
                     desc->out.c, mistake);
}
