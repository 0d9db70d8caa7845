// Convolution: each pass by Winograd's filtering of our own where that is faster, else by oneDNN.
// Weights stay plain HWIO; each call brings them into the layout that its kernel wants, in scratch
// memory (about one part in a hundred of the time).
#include "trainer/device/cpu_weights.h"
#include "trainer/device/cpu_winograd.h"

// How one pass is computed.
struct route {
    bool winograd;
    struct cpu_primitive kernel;      // of oneDNN, else
    struct cpu_weights_layout layout; // of its weights
    struct cpu_primitive reorder;     // to or from them, when the layout is an unusual one
    size_t weights_bytes;             // of the weights as the kernel wants or gives them
    size_t scratch_bytes;             // for everything, those weights included
};

struct cpu_conv {
    struct cpu_op base;
    struct route routes[CONV_PASSES];
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

// --- making the routes ---------------------------------------------------------------------------

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void take_winograd(const struct cpu_device *device, struct route *route,
                          const struct op_desc *desc, enum cpu_winograd_pass pass)
{
    route->winograd = true;
    route->weights_bytes = pass == WINOGRAD_BACKWARD_WEIGHTS
                               ? 0
                               : cpu_aligned(cpu_winograd_weights_bytes(device, desc));
    route->scratch_bytes =
        route->weights_bytes + cpu_aligned(cpu_winograd_scratch_bytes(device, desc, pass));
}

// `arguments` of the kernel, and which of them are its weights.
static enum status take_kernel(struct cpu_device *device, struct cpu_conv *conv,
                               enum cpu_conv_pass pass, dnnl_primitive_desc_t kernel,
                               const int arguments[3], int weights, struct error *error)
{
    struct route *route = &conv->routes[pass];
    const struct op_desc *desc = &conv->base.base.desc;
    bool gradient = pass == CONV_BACKWARD_WEIGHTS;
    route->weights_bytes = cpu_argument_bytes(kernel, weights);
    route->layout = cpu_weights_layout_of(cpu_argument_desc(kernel, weights), desc);
    enum status status = cpu_primitive_create(device, &route->kernel, kernel, arguments, 3, error);
    bool known = route->layout.order != WEIGHTS_OTHER &&
                 (!gradient || route->layout.order == WEIGHTS_IN_OUT);
    if (!known && status == STATUS_OK) {
        route->layout.order = WEIGHTS_OTHER;
        status = cpu_reorder_create(device, &route->reorder, desc, pass, kernel, error);
    }
    route->scratch_bytes =
        route->weights_bytes + larger(route->kernel.scratch_bytes, route->reorder.scratch_bytes);
    return status;
}

// `forward`: oneDNN's description of the forward pass, the other two build on it.
static enum status create_route(struct cpu_device *device, struct cpu_conv *conv,
                                enum cpu_conv_pass pass, dnnl_primitive_desc_t forward,
                                struct error *error)
{
    static const struct {
        enum cpu_winograd_pass winograd;
        int arguments[3], weights;
    } passes[CONV_PASSES] = {
        [CONV_FORWARD] = {WINOGRAD_FORWARD,
                          {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                          DNNL_ARG_WEIGHTS},
        [CONV_BACKWARD_DATA] = {WINOGRAD_BACKWARD_DATA,
                                {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
                                DNNL_ARG_WEIGHTS},
        [CONV_BACKWARD_WEIGHTS] = {WINOGRAD_BACKWARD_WEIGHTS,
                                   {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS},
                                   DNNL_ARG_DIFF_WEIGHTS},
    };
    const struct op_desc *desc = &conv->base.base.desc;
    if (cpu_winograd_pays(device, desc, passes[pass].winograd)) {
        take_winograd(device, &conv->routes[pass], desc, passes[pass].winograd);
        return STATUS_OK;
    }
    dnnl_primitive_desc_t kernel = forward;
    enum status status = pass == CONV_FORWARD
                             ? STATUS_OK
                             : describe_conv(device, &kernel, desc, pass, forward, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = take_kernel(device, conv, pass, kernel, passes[pass].arguments, passes[pass].weights,
                         error);
    if (pass != CONV_FORWARD) {
        cpu_description_release(kernel);
    }
    return status;
}

// --- running -------------------------------------------------------------------------------------

// Brings the parameters to `weights`, as the kernel wants them.
static enum status prepare_weights(struct cpu_device *device, struct cpu_conv *conv,
                                   enum cpu_conv_pass pass, void *weights, const float *params)
{
    struct route *route = &conv->routes[pass];
    const struct op_desc *desc = &conv->base.base.desc;
    if (route->winograd) {
        cpu_winograd_weights(device, desc,
                             pass == CONV_FORWARD ? WINOGRAD_FORWARD : WINOGRAD_BACKWARD_DATA,
                             weights, params);
        return STATUS_OK;
    }
    if (route->layout.order != WEIGHTS_OTHER) {
        cpu_weights_pack(device, desc, route->layout, weights, params);
        return STATUS_OK;
    }
    return cpu_run(device, &route->reorder, (const void *[]){params, weights},
                   (char *)weights + route->weights_bytes);
}

// The kernel's weights first, then the scratchpad of whatever runs.
static enum status conv_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    (void)mode;
    struct cpu_conv *conv = (struct cpu_conv *)op;
    struct route *route = &conv->routes[CONV_FORWARD];
    char *weights = buffers->scratch, *scratchpad = weights + route->weights_bytes;
    enum status status = prepare_weights(device, conv, CONV_FORWARD, weights, buffers->params);
    if (status != STATUS_OK) {
        return status;
    }
    if (route->winograd) {
        cpu_winograd_forward(device, &op->base.desc, buffers->y, buffers->x, weights, scratchpad);
        return STATUS_OK;
    }
    return cpu_run(device, &route->kernel, (const void *[]){buffers->x, weights, buffers->y},
                   scratchpad);
}

static enum status backward_weights(struct cpu_device *device, struct cpu_conv *conv,
                                    const struct op_buffers *buffers)
{
    struct route *route = &conv->routes[CONV_BACKWARD_WEIGHTS];
    const struct op_desc *desc = &conv->base.base.desc;
    char *gradient = buffers->scratch, *scratchpad = gradient + route->weights_bytes;
    if (route->winograd) {
        cpu_winograd_backward_weights(device, desc, buffers->param_grads, buffers->x, buffers->dy,
                                      scratchpad);
        return STATUS_OK;
    }
    enum status status = cpu_run(device, &route->kernel,
                                 (const void *[]){buffers->x, buffers->dy, gradient}, scratchpad);
    if (status == STATUS_OK && route->layout.order != WEIGHTS_OTHER) {
        cpu_weights_unpack(device, desc, route->layout, buffers->param_grads, gradient);
    } else if (status == STATUS_OK) {
        status = cpu_run(device, &route->reorder, (const void *[]){gradient, buffers->param_grads},
                         scratchpad);
    }
    return status;
}

static enum status backward_data(struct cpu_device *device, struct cpu_conv *conv,
                                 const struct op_buffers *buffers)
{
    struct route *route = &conv->routes[CONV_BACKWARD_DATA];
    char *weights = buffers->scratch, *scratchpad = weights + route->weights_bytes;
    enum status status =
        prepare_weights(device, conv, CONV_BACKWARD_DATA, weights, buffers->params);
    if (status != STATUS_OK) {
        return status;
    }
    if (route->winograd) {
        cpu_winograd_backward_data(device, &conv->base.base.desc, buffers->dx, buffers->dy, weights,
                                   scratchpad);
        return STATUS_OK;
    }
    return cpu_run(device, &route->kernel, (const void *[]){buffers->dy, weights, buffers->dx},
                   scratchpad);
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

// --- the op --------------------------------------------------------------------------------------

static void conv_release(struct cpu_op *op)
{
    struct cpu_conv *conv = (struct cpu_conv *)op;
    for (size_t pass = 0; pass < CONV_PASSES; pass++) {
        cpu_primitive_release(&conv->routes[pass].kernel);
        cpu_primitive_release(&conv->routes[pass].reorder);
    }
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
    conv->base.forward = conv_forward;
    conv->base.backward = conv_backward;
    conv->base.release = conv_release;
    enum status status = describe_conv(device, &forward, desc, CONV_FORWARD, NULL, error);
    if (status != STATUS_OK) {
        return status;
    }
    const bool needed[CONV_PASSES] = {
        [CONV_FORWARD] = true,
        [CONV_BACKWARD_DATA] = desc->need_backward && desc->need_input_gradient,
        [CONV_BACKWARD_WEIGHTS] = desc->need_backward,
    };
    for (enum cpu_conv_pass pass = CONV_FORWARD; pass < CONV_PASSES && status == STATUS_OK;
         pass++) {
        if (needed[pass]) {
            status = create_route(device, conv, pass, forward, error);
            conv->base.base.scratch_bytes =
                larger(conv->base.base.scratch_bytes, conv->routes[pass].scratch_bytes);
        }
    }
    cpu_description_release(forward);
    return status;
}
