// Every op of the table of cases on the devices that have bf16, against the reference device, which
// is given the same values: those that a bf16 device stores are rounded before.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_cases.h"
#include "tests/support/golden.h"

// Relative L2. Rounding an image once, when it is stored, is worth 1.7e-3 (up to 2.1e-3 where there
// are few values); weights that are standardised first and then rounded bring it to 2.3e-3.
// Matrices and the gradients of parameters are float32: they keep the bounds of the table, but on
// GPUs, which multiply matrices with 11 bits of precision and round gradients of convolutions.
#define ROUNDED  3e-3
#define WINOGRAD 1e-2 // tiles and weights are rounded again when they have been transformed
#define PRODUCT  1e-3

static struct device *ref, *half; // half: NULL where this machine has none
static bool gpu;                  // half is one
static int mistakes;

static bool may_be_winograd(const struct device_case *row)
{
    return !gpu && row->kind == OP_CONV && row->kernel == 3 && row->stride == 1;
}

static double image_bound(const struct device_case *row)
{
    return may_be_winograd(row) ? WINOGRAD : ROUNDED;
}

static double matrix_bound(const struct device_case *row, double bound)
{
    return gpu && row->kind == OP_LINEAR ? PRODUCT : bound;
}

static double forward_bound(const struct device_case *row, const struct op_desc *desc)
{
    bool moves = row->kind == OP_RELU || row->kind == OP_MAX_POOL;
    return desc->out.kind == TENSOR_MATRIX || moves ? matrix_bound(row, row->forward)
                                                    : image_bound(row);
}

static double backward_bound(const struct device_case *row, const struct op_desc *desc)
{
    bool moves = row->kind == OP_RELU || row->kind == OP_ADD;
    return desc->in.kind == TENSOR_MATRIX || moves ? matrix_bound(row, row->backward)
                                                   : image_bound(row);
}

static double params_bound(const struct device_case *row)
{
    bool rounded = may_be_winograd(row) || (gpu && row->kind == OP_CONV);
    return rounded ? image_bound(row) : matrix_bound(row, row->backward);
}

static int open_reference(void **state)
{
    (void)state;
    assert_int_equal(device_open(&ref, "ref", 1, DEVICE_F32, NULL), STATUS_OK);
    return 0;
}

static int close_reference(void **state)
{
    (void)state;
    device_close(&ref);
    return 0;
}

// The upper half of a float32, rounded to the nearest, ties to even.
static void round_values(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
        memcpy(&values[i], &bits, sizeof bits);
    }
}

static struct host host_rounded(const struct device_case *row)
{
    struct host host = host_make(row);
    if (row->kind != OP_INPUT && host.desc.in.kind == TENSOR_IMAGE) {
        round_values(host.x, host.in);
        round_values(host.x2, host.in);
    }
    if (host.desc.out.kind == TENSOR_IMAGE) {
        round_values(host.dy, host.out);
    }
    if (row->kind == OP_CONV && !host.desc.standardise) {
        round_values(host.weights, host.params);
    }
    return host;
}

static void near(const struct device_case *row, const char *what, const float *got,
                 const float *wanted, size_t count, double bound)
{
    double distance = count == 0 ? 0 : relative_l2(got, wanted, count);
    if (!(distance <= bound)) {
        print_error("%s: %s is off by %.2e, bound %.0e\n", row->name, what, distance, bound);
        mistakes++;
    }
}

static void compare_with_reference(const struct device_case *row)
{
    struct host got = host_rounded(row), wanted = host_rounded(row);
    double forward = forward_bound(row, &got.desc), backward = backward_bound(row, &got.desc);
    host_run(half, &got);
    host_run(ref, &wanted);
    near(row, "y", got.y, wanted.y, got.out, forward);
    near(row, "state", got.state, wanted.state, got.states, 1e-6);
    if (got.desc.need_backward) {
        near(row, "dx", got.dx, wanted.dx, got.in, backward);
        near(row, "dparams", got.gradients, wanted.gradients, got.params, params_bound(row));
    }
    if (got.desc.need_backward && device_case_adds(&got.desc)) {
        near(row, "dx2", got.dx2, wanted.dx2, got.in, backward);
    }
    host_free(&got);
    host_free(&wanted);
}

static void check_device(const char *name)
{
    struct error error;
    if (device_open(&half, name, 2, DEVICE_BF16, &error) != STATUS_OK) {
        print_message("skipped: device '%s': %s\n", name, error.reason);
        skip();
    }
    gpu = half->ops->steps_ahead > 0;
    mistakes = 0;
    for (size_t i = 0; i < device_case_count; i++) {
        compare_with_reference(&device_cases[i]);
    }
    device_close(&half);
    assert_int_equal(mistakes, 0);
}

static void test_half_on_cpu(void **state)
{
    (void)state;
    check_device("cpu");
}

static void test_half_on_cuda(void **state)
{
    (void)state;
    check_device("cuda");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_on_cpu),
        cmocka_unit_test(test_half_on_cuda),
    };
    return cmocka_run_group_tests(tests, open_reference, close_reference);
}
