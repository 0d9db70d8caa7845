// A BYOL step in bf16 against the same step in f32: losses, and the direction of every tensor's
// gradient. Skipped where the processor has no bf16.
//
// BYOL_PRECISION_VERBOSE=1 prints every tensor.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/support/byol_case.h"
#include "tests/support/real_views.h"

#define COSINE_BOUND 0.99
#define LOSS_BOUND   0.01 // of the loss
// A tensor whose gradient would move the loss by less than this share of what the tensor with the
// largest would, at equal relative steps, has no direction to compare: biases before batch
// normalisation, whose true gradient is 0.
#define NO_EFFECT 1e-5

#define R18   MODEL_RESNET18
#define R50   MODEL_RESNET50
#define SMALL MODEL_STEM_SMALL
#define POOL  MODEL_STEM_IMAGENET

// Name, encoder, stem, norm, width, size, v2, standardised weights, batch.
// clang-format off
static const struct byol_model models[] = {
    {"ResNet-18, 32 px, batch 16", R18, SMALL, MODEL_NORM_BATCH, 1, 32, 0, 0, 16},
    {"ResNet-18, 32 px, batch 32", R18, SMALL, MODEL_NORM_BATCH, 1, 32, 0, 0, 32},
    {"ResNet-18, 64 px, batch 16", R18, POOL, MODEL_NORM_BATCH, 1, 64, 0, 0, 16},
    {"ResNet-50, 64 px, batch 16", R50, POOL, MODEL_NORM_BATCH, 1, 64, 0, 0, 16},
    {"ResNet-50, 32 px, batch 16", R50, SMALL, MODEL_NORM_BATCH, 1, 32, 0, 0, 16},
    {"ResNet-18 v2, 32 px", R18, SMALL, MODEL_NORM_BATCH, 1, 32, 1, 0, 16},
    {"ResNet-18 group norm, 32 px", R18, SMALL, MODEL_NORM_GROUP, 1, 32, 0, 1, 16},
    {"ResNet-18 layer norm, 32 px", R18, SMALL, MODEL_NORM_LAYER, 1, 32, 0, 0, 16},
    {"ResNet-18 affine, 32 px", R18, SMALL, MODEL_NORM_AFFINE, 1, 32, 0, 0, 16},
};
// clang-format on

static int mistakes;

// False where the processor has no bf16.
static bool take_step(struct byol_case *out, const struct byol_model *model,
                      enum device_precision precision)
{
    struct device *device;
    if (device_open(&device, "cpu", 2, precision, NULL) != STATUS_OK) {
        return false;
    }
    byol_case_open(out, device, model);
    byol_case_step(out);
    return true;
}

static double dot(const float *a, const float *b, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

// How much a relative step of a tensor could change the loss.
static double effect(const struct byol_case *byol_case, const struct graph_param *param)
{
    const float *w = byol_case->params + param->offset, *g = byol_case->gradients + param->offset;
    return sqrt(dot(w, w, param->count) * dot(g, g, param->count));
}

static void compare(const struct byol_model *model, const struct byol_case *exact,
                    const struct byol_case *half)
{
    double loss = half->metrics.loss / exact->metrics.loss - 1, largest = 0, worst = 1;
    const char *name = "";
    size_t compared = 0, count = graph_param_count(exact->graph);
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, effect(exact, graph_param_at(exact->graph, i)));
    }
    for (size_t i = 0; i < count; i++) {
        const struct graph_param *param = graph_param_at(exact->graph, i);
        const float *a = exact->gradients + param->offset, *b = half->gradients + param->offset;
        double aa = dot(a, a, param->count), bb = dot(b, b, param->count);
        double cosine = dot(a, b, param->count) / sqrt(aa * bb);
        if (getenv("BYOL_PRECISION_VERBOSE") != NULL) {
            print_message("  %-60s cosine %.5f, length %.4f, effect %.1e\n", param->name, cosine,
                          sqrt(bb / aa), effect(exact, param) / largest);
        }
        if (effect(exact, param) < NO_EFFECT * largest) {
            continue;
        }
        compared++;
        name = cosine < worst ? param->name : name;
        worst = fmin(cosine, worst);
    }
    print_message(
        "%s: loss %.4f, bf16 %+.2f %%; worst of %zu cosines %.5f (%s); %zu without effect\n",
        model->name, exact->metrics.loss, 100 * loss, compared, worst, name, count - compared);
    if (!(worst >= COSINE_BOUND) || !(fabs(loss) <= LOSS_BOUND)) {
        mistakes++;
    }
}

static void test_bf16_against_f32(void **state)
{
    (void)state;
    mistakes = 0;
    print_message("images: %s\n", real_views_source());
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct byol_case exact, half;
        if (!take_step(&half, &models[i], DEVICE_BF16)) {
            printf("skipped: this processor has no bf16\n");
            skip();
        }
        take_step(&exact, &models[i], DEVICE_F32);
        compare(&models[i], &exact, &half);
        struct device *devices[] = {exact.device, half.device};
        byol_case_close(&exact);
        byol_case_close(&half);
        device_close(&devices[0]);
        device_close(&devices[1]);
    }
    assert_int_equal(mistakes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bf16_against_f32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
