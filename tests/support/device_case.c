// Values, buffers and runs of one op.
#include "tests/support/device_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// --- values

static uint64_t random_state;

static float random_value(void) // uniform in [-1, 1)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(random_state >> 40) / 8388608.0f - 1.0f;
}

float *device_case_values(size_t count)
{
    float *values = malloc((count + 1) * sizeof *values); // never of size 0
    assert_non_null(values);
    return values;
}

static float *values_random(size_t count)
{
    float *values = device_case_values(count);
    for (size_t i = 0; i < count; i++) {
        values[i] = random_value();
    }
    return values;
}

// Multiples of 1/64, no two alike in a small image: a small step does not change which is largest.
static float *values_shuffled(size_t count)
{
    float *values = device_case_values(count);
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

struct op_desc device_case_desc(const struct device_case *row)
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
    if (row->kind == OP_CONV || row->kind == OP_LINEAR) {
        desc.standardise = row->relu;
        desc.relu = false;
    }
    if (row->kind == OP_GROUP_NORM) {
        desc.channel_groups = row->kernel;
    }
    if (row->kind == OP_BATCH_NORM) {
        desc.join = row->bias;
        desc.bias = false;
    }
    if (row->kind == OP_CONV || row->kind == OP_MAX_POOL) {
        desc.out.h = pooled(row->h, row->pads[0], row->pads[2], row);
        desc.out.w = pooled(row->w, row->pads[1], row->pads[3], row);
    }
    if (row->kind == OP_MEAN_POOL) {
        desc.out = (struct tensor_shape){TENSOR_MATRIX, row->n, 1, 1, row->c};
    }
    return desc;
}

bool device_case_adds(const struct op_desc *desc)
{
    return desc->kind == OP_ADD || desc->join;
}

static size_t param_count(const struct op_desc *desc)
{
    switch (desc->kind) {
    case OP_CONV:
        return (size_t)desc->kernel * desc->kernel * desc->in.c * desc->out.c;
    case OP_BATCH_NORM:
    case OP_GROUP_NORM:
    case OP_AFFINE:
        return 2 * (size_t)desc->in.c;
    case OP_LINEAR:
        return (size_t)desc->in.c * desc->out.c + (desc->bias ? desc->out.c : 0);
    default:
        return 0;
    }
}

struct host host_make(const struct device_case *row)
{
    random_state = 12345;
    struct host host = {.desc = device_case_desc(row)};
    host.in = count_of(host.desc.in);
    host.out = count_of(host.desc.out);
    host.params = param_count(&host.desc);
    host.states = row->kind == OP_BATCH_NORM ? BATCH_NORM_STATE(row->c) : 0;
    host.x = row->kind == OP_MAX_POOL ? values_shuffled(host.in) : values_random(host.in);
    host.x2 = values_random(host.in);
    host.weights = values_random(host.params);
    host.dy = values_random(host.out);
    host.y = device_case_values(host.out);
    host.dx = device_case_values(host.in);
    host.dx2 = device_case_values(host.in);
    host.gradients = device_case_values(host.params);
    host.state = device_case_values(host.states);
    for (size_t i = 0; i < host.states; i++) { // as if three steps had been made
        host.state[i] = i == 0 ? 3.0f : 0.1f * (float)(i % 7);
    }
    return host;
}

void host_free(struct host *host)
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
void rig_fetch(struct device *device, struct tensor_shape shape, float *values, void *memory)
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

struct rig rig_make(struct device *device, const struct host *host)
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
        .x2 = device_case_adds(&host->desc) ? device_tensor(device, host->desc.in, host->x2) : NULL,
        .y = device_tensor(device, host->desc.out, NULL),
        .params = device_floats(device, host->weights, host->params),
        .param_grads = device_memory(device, host->params * sizeof(float)),
        .state = device_floats(device, host->state, host->states),
        .saved = device_memory(device, ops->op_saved_bytes(rig.op)),
        .scratch = device_memory(device, ops->op_scratch_bytes(rig.op)),
        .dy = device_tensor(device, host->desc.out, host->dy),
        .dx = device_tensor(device, host->desc.in, NULL),
        .dx2 = device_case_adds(&host->desc) ? device_tensor(device, host->desc.in, NULL) : NULL};
    return rig;
}

void rig_free(struct rig *rig)
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

void rig_forward(struct rig *rig, enum op_mode mode)
{
    const struct device_ops *ops = rig->device->ops;
    assert_int_equal(ops->op_forward(rig->device, rig->op, &rig->buffers, mode), STATUS_OK);
}

void rig_backward(struct rig *rig)
{
    const struct device_ops *ops = rig->device->ops;
    assert_int_equal(ops->op_backward(rig->device, rig->op, &rig->buffers), STATUS_OK);
}

// Runs the case forward and backward and brings the results into `host`.
void host_run(struct device *device, struct host *host)
{
    struct rig rig = rig_make(device, host);
    const struct device_ops *ops = device->ops;
    rig_forward(&rig, OP_TRAIN);
    rig_fetch(device, host->desc.out, host->y, rig.buffers.y);
    ops->copy_out(device, host->state, rig.buffers.state, host->states * sizeof(float));
    if (host->desc.need_backward) {
        rig_backward(&rig);
        ops->copy_out(device, host->gradients, rig.buffers.param_grads,
                      host->params * sizeof(float));
    }
    if (host->desc.need_input_gradient) {
        rig_fetch(device, host->desc.in, host->dx, rig.buffers.dx);
    }
    if (device_case_adds(&host->desc) && host->desc.need_input_gradient) {
        rig_fetch(device, host->desc.in, host->dx2, rig.buffers.dx2);
    }
    rig_free(&rig);
}

struct device *rig_open_device(const struct device_ops *ops, int threads)
{
    struct device *device;
    struct error error;
    if (device_open(&device, ops->name, threads, DEVICE_F32, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    return device;
}

struct device *rig_open_any(size_t index, int threads)
{
    static const enum device_precision precisions[] = {DEVICE_F32, DEVICE_BF16};
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++) {
            struct device *device;
            if (device_open(&device, (*ops)->name, threads, precisions[i], NULL) == STATUS_OK &&
                index-- == 0) {
                return device;
            }
            device_close(&device);
        }
    }
    return NULL;
}
