// A BYOL step in bf16 against the same step in f32: losses, and the direction of every tensor's
// gradient. Skipped where the processor has no bf16.
//
// How near the directions can be is a property of the network. With batch statistics, rounding the
// images and the weights to bfloat16 once and doing everything else in f32 already turns gradients
// of an untrained network by a quarter of a radian, in places by more: small errors are amplified
// by each normalisation and change the sides of ReLUs. That is the control: any arithmetic in bf16
// begins with these two roundings. bf16 may be FACTOR times as far from f32 as the control is.
// Where the network does not amplify (`steady`), every cosine has to be above 0.99.
//
// BYOL_PRECISION_VERBOSE=1 prints every tensor.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/byol_compare.h"
#include "tests/support/real_views.h"

#define COSINE_BOUND 0.99
#define LOSS_BOUND   0.02 // of the loss
#define FACTOR       2.0
#define R18          MODEL_RESNET18
#define R50          MODEL_RESNET50
#define SMALL        MODEL_STEM_SMALL
#define POOL         MODEL_STEM_IMAGENET

struct precision_check {
    struct byol_model model;
    bool steady;
};

// Name, encoder, stem, norm, width, size, v2, standardised weights, batch; steady.
// clang-format off
static const struct precision_check checks[] = {
    {{"ResNet-18, layer norm", R18, SMALL, MODEL_NORM_LAYER, 0.5, 32, 0, 0, 16}, true},
    {{"ResNet-18", R18, SMALL, MODEL_NORM_BATCH, 0.5, 32, 0, 0, 16}, false},
    {{"ResNet-18 v2", R18, SMALL, MODEL_NORM_BATCH, 0.25, 32, 1, 0, 16}, false},
    {{"ResNet-18, group norm", R18, SMALL, MODEL_NORM_GROUP, 0.25, 32, 0, 1, 16}, false},
    {{"ResNet-50, layer norm", R50, POOL, MODEL_NORM_LAYER, 0.5, 64, 0, 0, 16}, true},
    {{"ResNet-50", R50, POOL, MODEL_NORM_BATCH, 0.5, 64, 0, 0, 16}, false},
};
// clang-format on

static int mistakes;

static void open_case(struct byol_case *out, const struct byol_model *model,
                      enum device_precision precision)
{
    struct device *device;
    assert_int_equal(device_open(&device, "cpu", 2, precision, NULL), STATUS_OK);
    byol_case_open(out, device, model);
}

static void close_case(struct byol_case *byol_case)
{
    struct device *device = byol_case->device;
    byol_case_close(byol_case);
    device_close(&device);
}

static void judge(const struct precision_check *check, double loss,
                  const struct byol_cosines *summary)
{
    double tensors = (double)summary->compared;
    print_message("%s: loss %+.2f %%; %zu cosines, mean %.4f (control %.4f), worst %.4f (control "
                  "%.4f), %s\n",
                  check->model.name, 100 * loss, summary->compared, 1 - summary->distance / tensors,
                  1 - summary->control / tensors, summary->worst, summary->worst_control,
                  summary->worst_name);
    bool near = check->steady ? summary->worst >= COSINE_BOUND
                              : summary->distance <= FACTOR * summary->control;
    if (!near || !(fabs(loss) <= LOSS_BOUND) || summary->compared == 0) {
        print_error("%s: too far from f32\n", check->model.name);
        mistakes++;
    }
}

static void compare(const struct precision_check *check)
{
    struct byol_case exact, half, control;
    open_case(&exact, &check->model, DEVICE_F32);
    open_case(&half, &check->model, DEVICE_BF16);
    open_case(&control, &check->model, DEVICE_F32);
    byol_case_round(&control);
    byol_case_step(&exact);
    byol_case_step(&half);
    byol_case_step(&control);
    struct byol_cosines summary = byol_case_cosines(&exact, &half, &control);
    judge(check, half.metrics.loss / exact.metrics.loss - 1, &summary);
    close_case(&exact);
    close_case(&half);
    close_case(&control);
}

static void test_bf16_against_f32(void **state)
{
    (void)state;
    struct device *device;
    if (device_open(&device, "cpu", 1, DEVICE_BF16, NULL) != STATUS_OK) {
        printf("skipped: this processor has no bf16\n");
        skip();
    }
    device_close(&device);
    mistakes = 0;
    print_message("images: %s\n", real_views_source());
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        compare(&checks[i]);
    }
    assert_int_equal(mistakes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bf16_against_f32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
