// Every op on every device: one table of cases. The reference device is checked against central
// differences, the others against the reference device.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/golden.h"
#include "trainer/device/device.h"

#define I TENSOR_IMAGE
#define M TENSOR_MATRIX

// Bounds are ||a - b|| / ||b|| against the reference device, and for the reference device itself
// the share of the largest gradient by which a central difference may miss.
struct device_case {
    const char *name;
    enum op_kind kind;
    enum tensor_kind tensors;
    uint32_t n, h, w, c, out_c, groups;
    uint32_t kernel, stride, pads[4]; // top, left, bottom, right
    bool relu, bias;
    double forward, backward, difference;
};

// One row a line: name, kind, tensors, n, h, w, c, out_c, groups, kernel, stride, pads, relu, bias,
// the three bounds.
// clang-format off
#define ONE   {1, 1, 1, 1}
#define THREE {3, 3, 3, 3}
#define HIGH  {0, 0, 1, 1}
static const struct device_case cases[] = {
    {"input", OP_INPUT, I, 2, 5, 7, 3, 3, 1, 0, 0, {0}, 0, 0, 1e-7, 0, 0},

    {"conv 1x1, 1 to 1", OP_CONV, I, 2, 1, 1, 1, 1, 1, 1, 1, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 1x1, 3 to 17", OP_CONV, I, 2, 5, 3, 3, 17, 1, 1, 1, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 1x1, 64 to 16", OP_CONV, I, 2, 7, 7, 64, 16, 2, 1, 1, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 1x1 / 2, odd", OP_CONV, I, 2, 7, 5, 16, 64, 1, 1, 2, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 1x1 / 2, even", OP_CONV, I, 4, 8, 8, 8, 16, 2, 1, 2, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, 3 to 16", OP_CONV, I, 2, 9, 8, 3, 16, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, 4 to 8", OP_CONV, I, 2, 5, 6, 4, 8, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, 17 to 4", OP_CONV, I, 1, 6, 5, 17, 4, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, 8 to 1", OP_CONV, I, 2, 4, 4, 8, 1, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, winograd", OP_CONV, I, 4, 8, 8, 64, 64, 2, 3, 1, ONE, 0, 0, 3e-6, 1e-5, 1e-3},
    {"conv 3x3, winograd, odd", OP_CONV, I, 2, 7, 15, 16, 32, 1, 3, 1, ONE, 0, 0, 3e-6, 1e-5, 1e-3},
    {"conv 3x3 on 1 pixel", OP_CONV, I, 4, 1, 1, 16, 16, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3 on 2 pixels", OP_CONV, I, 4, 2, 2, 32, 16, 1, 3, 1, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3 / 2, same, even", OP_CONV, I, 2, 8, 6, 16, 16, 2, 3, 2, HIGH, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3 / 2, same, odd", OP_CONV, I, 2, 7, 9, 16, 32, 1, 3, 2, ONE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3 / 2, mixed", OP_CONV, I, 2, 7, 8, 17, 3, 1, 3, 2, {1, 0, 1, 1}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 3x3, no padding", OP_CONV, I, 1, 5, 4, 4, 4, 1, 3, 1, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 7x7 / 2, same", OP_CONV, I, 2, 16, 16, 3, 64, 2, 7, 2, {2, 2, 3, 3}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 7x7 / 2, torch", OP_CONV, I, 2, 13, 11, 3, 16, 1, 7, 2, THREE, 0, 0, 1e-6, 1e-6, 1e-3},
    {"conv 7x7 / 2, 1 pixel", OP_CONV, I, 2, 1, 1, 3, 8, 1, 7, 2, THREE, 0, 0, 1e-6, 1e-6, 1e-3},

    {"norm, 16", OP_BATCH_NORM, I, 4, 5, 3, 16, 16, 1, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm, 16, 2 groups", OP_BATCH_NORM, I, 4, 5, 3, 16, 16, 2, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm relu, 64, 2 groups", OP_BATCH_NORM, I, 6, 4, 4, 64, 64, 2, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm relu, 17", OP_BATCH_NORM, I, 4, 3, 7, 17, 17, 2, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm relu, 4", OP_BATCH_NORM, I, 4, 6, 5, 4, 4, 1, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm, 3", OP_BATCH_NORM, I, 2, 9, 2, 3, 3, 2, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm relu, 1", OP_BATCH_NORM, I, 8, 3, 3, 1, 1, 2, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm, 8, 1 pixel", OP_BATCH_NORM, I, 16, 1, 1, 8, 8, 2, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm matrix, 17", OP_BATCH_NORM, M, 12, 1, 1, 17, 17, 1, 0, 0, {0}, 0, 0, 1e-6, 5e-6, 2e-3},
    {"norm matrix relu, 65", OP_BATCH_NORM, M, 24, 1, 1, 65, 65, 2, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},
    {"norm matrix relu, 1", OP_BATCH_NORM, M, 9, 1, 1, 1, 1, 1, 0, 0, {0}, 1, 0, 1e-6, 5e-6, 2e-3},

    {"add, 16", OP_ADD, I, 2, 5, 5, 16, 16, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},
    {"add relu, 17", OP_ADD, I, 3, 4, 7, 17, 17, 1, 0, 0, {0}, 1, 0, 0, 0, 1e-3},
    {"add relu, 3", OP_ADD, I, 1, 2, 9, 3, 3, 1, 0, 0, {0}, 1, 0, 0, 0, 1e-3},
    {"relu, 1", OP_RELU, I, 2, 3, 3, 1, 1, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},
    {"relu, 4", OP_RELU, I, 2, 5, 3, 4, 4, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},
    {"relu, 64", OP_RELU, I, 2, 32, 32, 64, 64, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},
    {"relu matrix", OP_RELU, M, 5, 1, 1, 33, 33, 1, 0, 0, {0}, 0, 0, 0, 0, 1e-3},

    {"max 3x3 / 2, same, even", OP_MAX_POOL, I, 2, 8, 6, 16, 16, 1, 3, 2, HIGH, 0, 0, 0, 1e-7, 1e-3},
    {"max 3x3 / 2, same, odd", OP_MAX_POOL, I, 2, 7, 9, 17, 17, 1, 3, 2, ONE, 0, 0, 0, 1e-7, 1e-3},
    {"max 3x3 / 1", OP_MAX_POOL, I, 2, 5, 4, 4, 4, 1, 3, 1, ONE, 0, 0, 0, 1e-7, 1e-3},
    {"max 2x2 / 2", OP_MAX_POOL, I, 1, 5, 4, 3, 3, 1, 2, 2, {0}, 0, 0, 0, 0, 1e-3},
    {"max 3x3 on 1 pixel", OP_MAX_POOL, I, 2, 1, 1, 8, 8, 1, 3, 2, ONE, 0, 0, 0, 0, 1e-3},

    {"mean, 16", OP_MEAN_POOL, I, 2, 7, 7, 16, 16, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-7, 1e-3},
    {"mean, 17", OP_MEAN_POOL, I, 3, 4, 5, 17, 17, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-7, 1e-3},
    {"mean, 3", OP_MEAN_POOL, I, 2, 2, 3, 3, 3, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-7, 1e-3},
    {"mean, 64, 1 pixel", OP_MEAN_POOL, I, 2, 1, 1, 64, 64, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-7, 1e-3},

    {"linear", OP_LINEAR, M, 6, 1, 1, 33, 17, 1, 0, 0, {0}, 0, 0, 1e-6, 1e-6, 1e-3},
    {"linear with bias", OP_LINEAR, M, 16, 1, 1, 64, 130, 2, 0, 0, {0}, 0, 1, 1e-6, 1e-6, 1e-3},
    {"linear, 1 to 1", OP_LINEAR, M, 1, 1, 1, 1, 1, 1, 0, 0, {0}, 0, 1, 1e-6, 1e-6, 1e-3},
    {"linear, 5 to 1000", OP_LINEAR, M, 3, 1, 1, 5, 1000, 1, 0, 0, {0}, 0, 1, 1e-6, 1e-6, 1e-3},
};
// clang-format on

// --- values

static uint64_t random_state;

static float random_value(void) // uniform in [-1, 1)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(random_state >> 40) / 8388608.0f - 1.0f;
}

static float *values_make(size_t count)
{
    float *values = malloc((count + 1) * sizeof *values); // never of size 0
    assert_non_null(values);
    return values;
}

static float *values_random(size_t count)
{
    float *values = values_make(count);
    for (size_t i = 0; i < count; i++) {
        values[i] = random_value();
    }
    return values;
}

// Multiples of 1/64, no two alike in a small image: a small step does not change which is largest.
static float *values_shuffled(size_t count)
{
    float *values = values_make(count);
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)i / 64.0f - 1.0f;
    }
    for (size_t i = count; i > 1; i--) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        size_t other = (size_t)(random_state >> 33) % i;
        float held = values[i - 1];
        values[i - 1] = values[other];
        values[other] = held;
    }
    return values;
}

static size_t count_of(struct tensor_shape shape)
{
    return (size_t)shape.n * shape.h * shape.w * shape.c;
}

static uint32_t pooled(uint32_t in, uint32_t low, uint32_t high, const struct device_case *row)
{
    return (in + low + high - row->kernel) / row->stride + 1;
}

static struct op_desc desc_of(const struct device_case *row)
{
    struct op_desc desc = {.kind = row->kind,
                           .in = {row->tensors, row->n, row->h, row->w, row->c},
                           .out = {row->tensors, row->n, row->h, row->w, row->out_c},
                           .groups = row->groups,
                           .kernel = row->kernel,
                           .stride = row->stride,
                           .pad_top = row->pads[0],
                           .pad_left = row->pads[1],
                           .pad_bottom = row->pads[2],
                           .pad_right = row->pads[3],
                           .relu = row->relu,
                           .bias = row->bias,
                           .need_backward = row->kind != OP_INPUT,
                           .need_input_gradient = row->kind != OP_INPUT};
    if (row->kind == OP_CONV || row->kind == OP_MAX_POOL) {
        desc.out.h = pooled(row->h, row->pads[0], row->pads[2], row);
        desc.out.w = pooled(row->w, row->pads[1], row->pads[3], row);
    }
    if (row->kind == OP_MEAN_POOL) {
        desc.out = (struct tensor_shape){TENSOR_MATRIX, row->n, 1, 1, row->c};
    }
    return desc;
}

static size_t param_count(const struct op_desc *desc)
{
    switch (desc->kind) {
    case OP_CONV:
        return (size_t)desc->kernel * desc->kernel * desc->in.c * desc->out.c;
    case OP_BATCH_NORM:
        return 2 * (size_t)desc->in.c;
    case OP_LINEAR:
        return (size_t)desc->in.c * desc->out.c + (desc->bias ? desc->out.c : 0);
    default:
        return 0;
    }
}

// The host side of a case: what goes in, what comes out.
struct host {
    struct op_desc desc;
    size_t in, out, params, states;
    float *x, *x2, *weights, *dy;            // given
    float *y, *dx, *dx2, *gradients, *state; // results
};

static struct host host_make(const struct device_case *row)
{
    random_state = 12345;
    struct host host = {.desc = desc_of(row)};
    host.in = count_of(host.desc.in);
    host.out = count_of(host.desc.out);
    host.params = param_count(&host.desc);
    host.states = row->kind == OP_BATCH_NORM ? BATCH_NORM_STATE(row->c) : 0;
    host.x = row->kind == OP_MAX_POOL ? values_shuffled(host.in) : values_random(host.in);
    host.x2 = values_random(host.in);
    host.weights = values_random(host.params);
    host.dy = values_random(host.out);
    host.y = values_make(host.out);
    host.dx = values_make(host.in);
    host.dx2 = values_make(host.in);
    host.gradients = values_make(host.params);
    host.state = values_make(host.states);
    for (size_t i = 0; i < host.states; i++) { // as if three steps had been made
        host.state[i] = i == 0 ? 3.0f : 0.1f * (float)(i % 7);
    }
    return host;
}

static void host_free(struct host *host)
{
    float *all[] = {host->x,  host->x2,  host->weights,   host->dy,   host->y,
                    host->dx, host->dx2, host->gradients, host->state};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

// --- the device side

static void *device_memory(struct device *device, size_t bytes)
{
    void *memory;
    assert_int_equal(device->ops->allocate(device, &memory, bytes, NULL), STATUS_OK);
    unsigned char *garbage = malloc(bytes + 1); // NaN: whoever reads before writing shows it
    assert_non_null(garbage);
    memset(garbage, 0xff, bytes + 1);
    assert_int_equal(device->ops->copy_in(device, memory, garbage, bytes), STATUS_OK);
    free(garbage);
    return memory;
}

static void *device_tensor(struct device *device, struct tensor_shape shape, const float *values)
{
    void *memory = device_memory(device, device->ops->tensor_bytes(device, shape));
    if (values != NULL) {
        assert_int_equal(device->ops->tensor_store(device, shape, memory, values), STATUS_OK);
    }
    return memory;
}

static float *device_floats(struct device *device, const float *values, size_t count)
{
    float *memory = device_memory(device, count * sizeof *values);
    assert_int_equal(device->ops->copy_in(device, memory, values, count * sizeof *values),
                     STATUS_OK);
    return memory;
}

// Also proves that the channels which only fill up a block are zero.
static void fetch(struct device *device, struct tensor_shape shape, float *values, void *memory)
{
    size_t bytes = device->ops->tensor_bytes(device, shape);
    assert_int_equal(device->ops->tensor_fetch(device, shape, values, memory), STATUS_OK);
    void *again = device_tensor(device, shape, values);
    unsigned char *raw = malloc(2 * bytes);
    assert_non_null(raw);
    assert_int_equal(device->ops->copy_out(device, raw, memory, bytes), STATUS_OK);
    assert_int_equal(device->ops->copy_out(device, raw + bytes, again, bytes), STATUS_OK);
    assert_true(bytes == 0 || memcmp(raw, raw + bytes, bytes) == 0);
    free(raw);
    device->ops->release(device, again);
}

struct rig {
    struct device *device;
    struct op *op;
    struct op_buffers buffers;
};

static struct rig rig_make(struct device *device, const struct host *host)
{
    const struct device_ops *ops = device->ops;
    struct rig rig = {.device = device};
    struct error error;
    if (ops->op_create(device, &host->desc, &rig.op, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    bool plain = host->desc.kind == OP_INPUT;
    rig.buffers = (struct op_buffers){
        .x = plain ? device_floats(device, host->x, host->in)
                   : device_tensor(device, host->desc.in, host->x),
        .x2 = host->desc.kind == OP_ADD ? device_tensor(device, host->desc.in, host->x2) : NULL,
        .y = device_tensor(device, host->desc.out, NULL),
        .params = device_floats(device, host->weights, host->params),
        .param_grads = device_memory(device, host->params * sizeof(float)),
        .state = device_floats(device, host->state, host->states),
        .saved = device_memory(device, ops->op_saved_bytes(rig.op)),
        .scratch = device_memory(device, ops->op_scratch_bytes(rig.op)),
        .dy = device_tensor(device, host->desc.out, host->dy),
        .dx = device_tensor(device, host->desc.in, NULL),
        .dx2 = host->desc.kind == OP_ADD ? device_tensor(device, host->desc.in, NULL) : NULL};
    return rig;
}

static void rig_free(struct rig *rig)
{
    const struct op_buffers *own = &rig->buffers;
    const void *all[] = {own->x,           own->x2,    own->y,     own->params,
                         own->param_grads, own->state, own->saved, own->scratch,
                         own->dy,          own->dx,    own->dx2};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rig->device->ops->release(rig->device, (void *)(uintptr_t)all[i]);
    }
    rig->device->ops->op_release(rig->device, rig->op);
}

static void forward(struct rig *rig, enum op_mode mode)
{
    const struct device_ops *ops = rig->device->ops;
    assert_int_equal(ops->op_forward(rig->device, rig->op, &rig->buffers, mode), STATUS_OK);
}

static void backward(struct rig *rig)
{
    const struct device_ops *ops = rig->device->ops;
    assert_int_equal(ops->op_backward(rig->device, rig->op, &rig->buffers), STATUS_OK);
}

// Runs the case forward and backward and brings the results into `host`.
static void run_case(struct device *device, struct host *host)
{
    struct rig rig = rig_make(device, host);
    const struct device_ops *ops = device->ops;
    forward(&rig, OP_TRAIN);
    fetch(device, host->desc.out, host->y, rig.buffers.y);
    ops->copy_out(device, host->state, rig.buffers.state, host->states * sizeof(float));
    if (host->desc.need_backward) {
        backward(&rig);
        ops->copy_out(device, host->gradients, rig.buffers.param_grads,
                      host->params * sizeof(float));
    }
    if (host->desc.need_input_gradient) {
        fetch(device, host->desc.in, host->dx, rig.buffers.dx);
    }
    if (host->desc.kind == OP_ADD && host->desc.need_backward) {
        fetch(device, host->desc.in, host->dx2, rig.buffers.dx2);
    }
    rig_free(&rig);
}

static struct device *open_device(const struct device_ops *ops, int threads)
{
    struct device *device;
    struct error error;
    if (device_open(&device, ops->name, threads, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    return device;
}

// --- checks

static int mistakes;

static void near(const struct device_case *row, const char *what, const float *got,
                 const float *wanted, size_t count, double bound)
{
    double distance = count == 0 ? 0 : relative_l2(got, wanted, count);
    if (!(distance <= bound)) {
        print_error("%s: %s is off by %.2e, bound %.0e\n", row->name, what, distance, bound);
        mistakes++;
    }
}

static void compare_with_reference(struct device *device, struct device *ref,
                                   const struct device_case *row)
{
    struct host got = host_make(row), wanted = host_make(row);
    run_case(device, &got);
    run_case(ref, &wanted);
    near(row, "y", got.y, wanted.y, got.out, row->forward);
    near(row, "state", got.state, wanted.state, got.states, 1e-6);
    if (got.desc.need_backward) {
        near(row, "dx", got.dx, wanted.dx, got.in, row->backward);
        near(row, "dparams", got.gradients, wanted.gradients, got.params, row->backward);
    }
    if (row->kind == OP_ADD) {
        near(row, "dx2", got.dx2, wanted.dx2, got.in, row->backward);
    }
    host_free(&got);
    host_free(&wanted);
}

static void test_devices_agree(void **state)
{
    (void)state;
    struct device *ref;
    assert_int_equal(device_open(&ref, "ref", 1, NULL), STATUS_OK);
    mistakes = 0;
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        struct device *device = open_device(*ops, 2);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            compare_with_reference(device, ref, &cases[i]);
        }
        device_close(&device);
    }
    device_close(&ref);
    assert_int_equal(mistakes, 0);
}

// The scalar that is differentiated: sum of dy y. False when the step crossed a kink of the ReLU.
static bool objective(struct device *device, const struct host *host, const float *base_y,
                      double *sum)
{
    struct rig rig = rig_make(device, host);
    forward(&rig, OP_TRAIN);
    float *y = values_make(host->out);
    assert_int_equal(device->ops->tensor_fetch(device, host->desc.out, y, rig.buffers.y),
                     STATUS_OK);
    bool smooth = true, relu = host->desc.relu || host->desc.kind == OP_RELU;
    *sum = 0;
    for (size_t i = 0; i < host->out; i++) {
        *sum += (double)y[i] * (double)host->dy[i];
        smooth = smooth && (!relu || (y[i] > 0) == (base_y[i] > 0));
    }
    free(y);
    rig_free(&rig);
    return smooth;
}

#define STEP    0.00390625f // exact in binary
#define SAMPLES 12

// Central differences at some places of `values` against `gradient`; `host` points to `values`.
static void check_differences(struct device *device, const struct device_case *row,
                              struct host *host, const char *what, float *values,
                              const float *gradient, size_t count)
{
    double largest = 0;
    size_t tried = count < SAMPLES ? count : SAMPLES, smooth = 0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)gradient[i]));
    }
    for (size_t i = 0; i < tried; i++) {
        size_t at = i * (count / tried);
        float held = values[at];
        double above, below;
        values[at] = held + STEP;
        bool kink = !objective(device, host, host->y, &above);
        values[at] = held - STEP;
        kink |= !objective(device, host, host->y, &below);
        double difference = (above - below) / (double)((held + STEP) - (held - STEP));
        values[at] = held;
        double miss = fabs(difference - (double)gradient[at]);
        smooth += !kink;
        if (!kink && !(miss <= row->difference * largest)) {
            print_error("%s: %s[%zu] is %g, by differences %g\n", row->name, what, at,
                        (double)gradient[at], difference);
            mistakes++;
        }
    }
    if (smooth * 2 < tried) {
        print_error("%s: %s: too few smooth places\n", row->name, what);
        mistakes++;
    }
}

static void test_reference_against_differences(void **state)
{
    (void)state;
    struct device *ref;
    assert_int_equal(device_open(&ref, "ref", 1, NULL), STATUS_OK);
    mistakes = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct device_case *row = &cases[i];
        if (row->kind == OP_INPUT) {
            continue;
        }
        struct host host = host_make(row);
        run_case(ref, &host);
        check_differences(ref, row, &host, "dx", host.x, host.dx, host.in);
        if (row->kind == OP_ADD) {
            check_differences(ref, row, &host, "dx2", host.x2, host.dx2, host.in);
        }
        if (host.params > 0) {
            check_differences(ref, row, &host, "dparams", host.weights, host.gradients,
                              host.params);
        }
        host_free(&host);
    }
    device_close(&ref);
    assert_int_equal(mistakes, 0);
}

// The same bits again, whatever the scratch memory held, and with dx in the place of dy.
static void repeat_case(struct device *device, const struct device_case *row)
{
    struct host first = host_make(row), second = host_make(row);
    run_case(device, &first);
    struct rig rig = rig_make(device, &second);
    bool in_place = row->kind == OP_ADD || row->kind == OP_RELU || row->kind == OP_BATCH_NORM;
    if (in_place) {
        device->ops->release(device, rig.buffers.dx);
        rig.buffers.dx = (void *)(uintptr_t)rig.buffers.dy;
    }
    forward(&rig, OP_TRAIN);
    backward(&rig);
    fetch(device, second.desc.in, second.dx, rig.buffers.dx);
    device->ops->copy_out(device, second.gradients, rig.buffers.param_grads,
                          second.params * sizeof(float));
    if (max_difference(first.dx, second.dx, first.in) != 0 ||
        (first.params && max_difference(first.gradients, second.gradients, first.params) != 0)) {
        print_error("%s, %s: not the same bits again\n", device->ops->name, row->name);
        mistakes++;
    }
    if (in_place) {
        rig.buffers.dx = NULL;
    }
    rig_free(&rig);
    host_free(&first);
    host_free(&second);
}

static void test_same_bits_again_and_in_place(void **state)
{
    (void)state;
    mistakes = 0;
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        struct device *device = open_device(*ops, 2);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            if (cases[i].kind != OP_INPUT) {
                repeat_case(device, &cases[i]);
            }
        }
        device_close(&device);
    }
    assert_int_equal(mistakes, 0);
}

// Without a backward pass the result is the same and nothing is saved; without the input's gradient
// the parameters' is the same.
static void reduced_case(struct device *device, const struct device_case *row)
{
    struct host whole = host_make(row), part = host_make(row), fore = host_make(row);
    run_case(device, &whole);
    part.desc.need_input_gradient = false;
    run_case(device, &part);
    fore.desc.need_input_gradient = fore.desc.need_backward = false;
    run_case(device, &fore);
    assert_int_equal(max_difference(fore.y, whole.y, whole.out) != 0, 0);
    if (whole.params > 0) {
        near(row, "dparams without dx", part.gradients, whole.gradients, whole.params, 0);
    }
    if (whole.states > 0) {
        near(row, "state without backward", fore.state, whole.state, whole.states, 0);
    }
    struct op *op;
    assert_int_equal(device->ops->op_create(device, &fore.desc, &op, NULL), STATUS_OK);
    assert_int_equal(device->ops->op_saved_bytes(op), 0);
    device->ops->op_release(device, op);
    host_free(&whole);
    host_free(&part);
    host_free(&fore);
}

static void test_without_backward(void **state)
{
    (void)state;
    mistakes = 0;
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        struct device *device = open_device(*ops, 2);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            reduced_case(device, &cases[i]);
        }
        device_close(&device);
    }
    assert_int_equal(mistakes, 0);
}

// Evaluation uses the running averages, for all groups alike, and moves nothing.
static void evaluate_norm(struct device *device, const struct device_case *row)
{
    struct host host = host_make(row);
    struct rig rig = rig_make(device, &host);
    float *wanted = values_make(host.out), *after = values_make(host.states);
    const float *mean = host.state + 1 + 2 * (size_t)row->c, *variance = mean + row->c;
    forward(&rig, OP_EVAL);
    fetch(device, host.desc.out, host.y, rig.buffers.y);
    device->ops->copy_out(device, after, rig.buffers.state, host.states * sizeof(float));
    for (size_t i = 0; i < host.out; i++) {
        size_t c = i % row->c;
        double value = (double)(host.x[i] - mean[c]) / sqrt((double)variance[c] + 1e-5) *
                           (double)host.weights[c] +
                       (double)host.weights[row->c + c];
        wanted[i] = row->relu && value < 0 ? 0.0f : (float)value;
    }
    near(row, "evaluation", host.y, wanted, host.out, 1e-6);
    near(row, "state after evaluation", after, host.state, host.states, 0);
    free(wanted);
    free(after);
    rig_free(&rig);
    host_free(&host);
}

static void test_evaluation_uses_running_averages(void **state)
{
    (void)state;
    mistakes = 0;
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        struct device *device = open_device(*ops, 2);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            if (cases[i].kind == OP_BATCH_NORM) {
                evaluate_norm(device, &cases[i]);
            }
        }
        device_close(&device);
    }
    assert_int_equal(mistakes, 0);
}

// One channel, two groups of two values each, worked out by hand.
static void test_running_statistics_by_hand(void **state)
{
    (void)state;
    static const struct device_case row = {"by hand", OP_BATCH_NORM, M, 4, 1, 1, 1, 1, 2, 0,
                                           0,         {0},           0, 0, 0, 0, 0};
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        struct device *device = open_device(*ops, 2);
        struct host host = host_make(&row);
        memcpy(host.x, (float[]){1, 3, 10, 20}, 4 * sizeof(float));
        memset(host.state, 0, host.states * sizeof(float));
        run_case(device, &host);
        // Group 1: mean 2, variance 1; group 2: mean 15, variance 25.
        const float wanted[] = {2, 0.9f * 0.2f + 1.5f, 0.9f * 0.1f + 2.5f, 1.68f / 0.19f,
                                2.59f / 0.19f};
        assert_true(max_difference(host.state, wanted, 5) < 1e-5);
        host_free(&host);
        device_close(&device);
    }
}

// Four equal values in a window: the first in row order takes the gradient.
static void test_first_maximum_takes_the_gradient(void **state)
{
    (void)state;
    static const struct device_case row = {"ties", OP_MAX_POOL, I,   1, 2, 2, 17, 17, 1,
                                           2,      2,           {0}, 0, 0, 0, 0,  0};
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        struct device *device = open_device(*ops, 2);
        struct host host = host_make(&row);
        for (size_t i = 0; i < host.in; i++) {
            host.x[i] = -2.0f;
        }
        run_case(device, &host);
        for (size_t i = 0; i < host.in; i++) {
            assert_true(host.dx[i] == (i < 17 ? host.dy[i] : 0.0f));
        }
        host_free(&host);
        device_close(&device);
    }
}

static void test_wrong_descriptions_are_refused(void **state)
{
    (void)state;
    const struct op_desc good = desc_of(&cases[8]);
    struct op_desc wrong[8];
    for (size_t i = 0; i < 8; i++) {
        wrong[i] = good;
    }
    wrong[0].out.h++;
    wrong[1].groups = 3;
    wrong[2].groups = 0;
    wrong[3].in.c = 0;
    wrong[4].stride = 0;
    wrong[5].out.n++;
    wrong[6].pad_top = wrong[6].pad_bottom = 3;
    wrong[7].in.n = wrong[7].out.n = UINT32_MAX;
    wrong[7].in.h = wrong[7].in.w = wrong[7].out.h = wrong[7].out.w = 60000;
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        struct device *device = open_device(*ops, 2);
        for (size_t i = 0; i < 8; i++) {
            struct op *op = (struct op *)device;
            struct error error = {0};
            assert_int_equal((*ops)->op_create(device, &wrong[i], &op, &error), STATUS_INVALID);
            assert_null(op);
            assert_true(error.reason[0] != '\0');
        }
        (*ops)->op_release(device, NULL);
        device_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices_agree),
        cmocka_unit_test(test_reference_against_differences),
        cmocka_unit_test(test_same_bits_again_and_in_place),
        cmocka_unit_test(test_without_backward),
        cmocka_unit_test(test_evaluation_uses_running_averages),
        cmocka_unit_test(test_running_statistics_by_hand),
        cmocka_unit_test(test_first_maximum_takes_the_gradient),
        cmocka_unit_test(test_wrong_descriptions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
