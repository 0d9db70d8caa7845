// Every op on every device: one table of cases (device_cases.h). The reference device is checked
// against central differences, the others against the reference device.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_cases.h"
#include "tests/support/device_rows.h"
#include "tests/support/golden.h"

#define I TENSOR_IMAGE
#define M TENSOR_MATRIX

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
    host_run(device, &got);
    host_run(ref, &wanted);
    near(row, "y", got.y, wanted.y, got.out, row->forward);
    near(row, "state", got.state, wanted.state, got.states, 1e-6);
    if (got.desc.need_backward) {
        near(row, "dx", got.dx, wanted.dx, got.in, row->backward);
        near(row, "dparams", got.gradients, wanted.gradients, got.params, row->backward);
    }
    if (device_case_adds(&got.desc)) {
        near(row, "dx2", got.dx2, wanted.dx2, got.in, row->backward);
    }
    host_free(&got);
    host_free(&wanted);
}

static void test_devices_agree(void **state)
{
    (void)state;
    struct device *ref;
    assert_int_equal(device_open(&ref, "ref", 1, DEVICE_F32, NULL), STATUS_OK);
    mistakes = 0;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = rig_open_device(*ops, 2);
        for (size_t i = 0; i < device_case_count; i++) {
            compare_with_reference(device, ref, &device_cases[i]);
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
    rig_forward(&rig, OP_TRAIN);
    float *y = device_case_values(host->out);
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

// Parameters of the bias or the offset, which come last.
static size_t last_vector(const struct host *host)
{
    const struct op_desc *desc = &host->desc;
    bool normalises = desc->kind == OP_BATCH_NORM || desc->kind == OP_GROUP_NORM;
    return desc->bias || normalises || desc->kind == OP_AFFINE ? desc->out.c : 0;
}

static void test_reference_against_differences(void **state)
{
    (void)state;
    struct device *ref;
    assert_int_equal(device_open(&ref, "ref", 1, DEVICE_F32, NULL), STATUS_OK);
    mistakes = 0;
    for (size_t i = 0; i < device_case_count; i++) {
        const struct device_case *row = &device_cases[i];
        if (row->kind == OP_INPUT) {
            continue;
        }
        struct host host = host_make(row);
        host_run(ref, &host);
        check_differences(ref, row, &host, "dx", host.x, host.dx, host.in);
        if (device_case_adds(&host.desc)) {
            check_differences(ref, row, &host, "dx2", host.x2, host.dx2, host.in);
        }
        size_t last = last_vector(&host), first = host.params - last;
        check_differences(ref, row, &host, "weights or scale", host.weights, host.gradients, first);
        check_differences(ref, row, &host, "bias or offset", host.weights + first,
                          host.gradients + first, last);
        host_free(&host);
    }
    device_close(&ref);
    assert_int_equal(mistakes, 0);
}

// The same bits again, whatever the scratch memory held, with dx (place 1) or dx2 (2) in
// the place of dy.
static void repeat_case(struct device *device, const struct device_case *row, size_t place)
{
    struct host first = host_make(row), second = host_make(row);
    host_run(device, &first);
    struct rig rig = rig_make(device, &second);
    void **moved = place == 0 ? NULL : place == 1 ? &rig.buffers.dx : &rig.buffers.dx2;
    if (moved != NULL) {
        device->ops->release(device, *moved);
        *moved = (void *)(uintptr_t)rig.buffers.dy;
    }
    rig_forward(&rig, OP_TRAIN);
    rig_backward(&rig);
    rig_fetch(device, second.desc.in, second.dx, rig.buffers.dx);
    bool two = device_case_adds(&second.desc);
    if (two) {
        rig_fetch(device, second.desc.in, second.dx2, rig.buffers.dx2);
    }
    device->ops->copy_out(device, second.gradients, rig.buffers.param_grads,
                          second.params * sizeof(float));
    if (max_difference(first.dx, second.dx, first.in) != 0 ||
        (two && max_difference(first.dx2, second.dx2, first.in) != 0) ||
        (first.params && max_difference(first.gradients, second.gradients, first.params) != 0)) {
        print_error("%s, %s: not the same bits again\n", device->ops->name, row->name);
        mistakes++;
    }
    if (moved != NULL) {
        *moved = NULL;
    }
    rig_free(&rig);
    host_free(&first);
    host_free(&second);
}

static size_t places(const struct device_case *row)
{
    struct op_desc desc = device_case_desc(row);
    bool in_place = row->kind == OP_ADD || row->kind == OP_RELU || row->kind == OP_BATCH_NORM ||
                    row->kind == OP_GROUP_NORM || row->kind == OP_AFFINE;
    return 1u + (in_place ? 1u : 0u) + (device_case_adds(&desc) ? 1u : 0u);
}

static void test_same_bits_again_and_in_place(void **state)
{
    (void)state;
    mistakes = 0;
    struct device *device;
    for (size_t any = 0; (device = rig_open_any(any, 2)) != NULL; any++) {
        for (size_t i = 0; i < device_case_count; i++) {
            bool backward = device_cases[i].kind != OP_INPUT;
            for (size_t place = 0; backward && place < places(&device_cases[i]); place++) {
                repeat_case(device, &device_cases[i], place);
            }
        }
        device_close(&device);
    }
    assert_int_equal(mistakes, 0);
}

// Threads share the work of a normalisation by blocks of channels or by images.
static void compare_threads(const struct device_ops *ops, const struct device_case *row)
{
    struct host wanted = host_make(row);
    struct device *device = rig_open_device(ops, 1);
    host_run(device, &wanted);
    device_close(&device);
    for (int threads = 2; threads <= 5; threads++) {
        struct host found = host_make(row);
        device = rig_open_device(ops, threads);
        host_run(device, &found);
        device_close(&device);
        near(row, "y by more threads", found.y, wanted.y, found.out, 0);
        near(row, "dx by more threads", found.dx, wanted.dx, found.in, 0);
        near(row, "dparams by more threads", found.gradients, wanted.gradients, found.params, 0);
        near(row, "state by more threads", found.state, wanted.state, found.states, 0);
        host_free(&found);
    }
    host_free(&wanted);
}

static void test_threads_do_not_change_normalisations(void **state)
{
    (void)state;
    mistakes = 0;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        for (size_t i = 0; i < device_case_count; i++) {
            if (device_cases[i].kind == OP_BATCH_NORM) {
                compare_threads(*ops, &device_cases[i]);
            }
        }
    }
    assert_int_equal(mistakes, 0);
}

// Without a backward pass the result is the same and nothing is saved; without the input's gradient
// the parameters' is the same.
static void reduced_case(struct device *device, const struct device_case *row)
{
    struct host whole = host_make(row), part = host_make(row), fore = host_make(row);
    host_run(device, &whole);
    part.desc.need_input_gradient = false;
    host_run(device, &part);
    fore.desc.need_input_gradient = fore.desc.need_backward = false;
    host_run(device, &fore);
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
    struct device *device;
    for (size_t any = 0; (device = rig_open_any(any, 2)) != NULL; any++) {
        for (size_t i = 0; i < device_case_count; i++) {
            reduced_case(device, &device_cases[i]);
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
    float *wanted = device_case_values(host.out), *after = device_case_values(host.states);
    const float *mean = host.state + 1 + 2 * (size_t)row->c, *variance = mean + row->c;
    rig_forward(&rig, OP_EVAL);
    rig_fetch(device, host.desc.out, host.y, rig.buffers.y);
    device->ops->copy_out(device, after, rig.buffers.state, host.states * sizeof(float));
    for (size_t i = 0; i < host.out; i++) {
        size_t c = i % row->c;
        double value = (double)(host.x[i] - mean[c]) / sqrt((double)variance[c] + 1e-5) *
                           (double)host.weights[c] +
                       (double)host.weights[row->c + c];
        value += host.desc.join ? (double)host.x2[i] : 0;
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
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = rig_open_device(*ops, 2);
        for (size_t i = 0; i < device_case_count; i++) {
            if (device_cases[i].kind == OP_BATCH_NORM) {
                evaluate_norm(device, &device_cases[i]);
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
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = rig_open_device(*ops, 2);
        struct host host = host_make(&row);
        memcpy(host.x, (float[]){1, 3, 10, 20}, 4 * sizeof(float));
        memset(host.state, 0, host.states * sizeof(float));
        host_run(device, &host);
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
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = rig_open_device(*ops, 2);
        struct host host = host_make(&row);
        for (size_t i = 0; i < host.in; i++) {
            host.x[i] = -2.0f;
        }
        host_run(device, &host);
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
    const struct op_desc good = device_case_desc(&device_cases[8]);
    struct op_desc wrong[13];
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
    for (size_t i = 8; i < 10; i++) {
        wrong[i] = good;
        wrong[i].kind = OP_GROUP_NORM;
        wrong[i].out = wrong[i].in;
        wrong[i].channel_groups = i == 8 ? 0 : wrong[i].in.c + 1;
    }
    wrong[10] = good;
    wrong[10].kind = OP_RELU;
    wrong[10].out = wrong[10].in;
    wrong[10].standardise = true;
    for (size_t i = 11; i < 13; i++) {
        wrong[i] = good;
        wrong[i].kind = i == 11 ? OP_ADD : OP_BATCH_NORM;
        wrong[i].in.kind = i == 11 ? TENSOR_IMAGE : TENSOR_MATRIX;
        wrong[i].in.h = wrong[i].in.w = 1;
        wrong[i].out = wrong[i].in;
        wrong[i].join = true;
    }
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = rig_open_device(*ops, 2);
        for (size_t i = 0; i < 13; i++) {
            struct op *op = (struct op *)device;
            struct error error = {0};
            assert_int_equal(device->ops->op_create(device, &wrong[i], &op, &error),
                             STATUS_INVALID);
            assert_null(op);
            assert_true(error.reason[0] != '\0');
        }
        device->ops->op_release(device, NULL);
        device_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices_agree),
        cmocka_unit_test(test_reference_against_differences),
        cmocka_unit_test(test_same_bits_again_and_in_place),
        cmocka_unit_test(test_threads_do_not_change_normalisations),
        cmocka_unit_test(test_without_backward),
        cmocka_unit_test(test_evaluation_uses_running_averages),
        cmocka_unit_test(test_running_statistics_by_hand),
        cmocka_unit_test(test_first_maximum_takes_the_gradient),
        cmocka_unit_test(test_wrong_descriptions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
