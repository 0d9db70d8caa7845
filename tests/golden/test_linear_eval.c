// The linear classifier's update against the reference's, on every device that was built in. Source
// of the arrays and tolerances: group linear_eval (2e-6 relative + 1e-6).
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "tests/support/golden.h"
#include "tests/support/tiny_run.h"
#include "trainer/optim/schedule.h"
#include "trainer/probe/classifier.h"

static const char *const array_columns[] = {"w",          "b",         "embeddings", "labels",
                                            "train_loss", "lr",        "trace_w",    "trace_b",
                                            "eval_loss",  "eval_top1", "eval_top5"};
enum { W, B, EMBEDDINGS, LABELS, LOSS, RATE, TRACE_W, TRACE_B, EVAL_LOSS, EVAL_TOP1, EVAL_TOP5 };
#define ARRAYS (sizeof array_columns / sizeof array_columns[0])

struct golden_case {
    const char *name;
    uint32_t batch, width, classes;
    uint64_t steps, total;
    float base_learning_rate;
    struct npy array[ARRAYS];
};

static const float *floats(const struct golden_case *golden, int array, uint64_t row, uint64_t size)
{
    return (const float *)golden->array[array].data + row * size;
}

static void assert_close(const struct golden_case *golden, const char *what, uint64_t step,
                         const float *ours, const float *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double allowed = 2e-6 * fabs((double)wanted[i]) + 1e-6;
        if (!(fabs((double)ours[i] - (double)wanted[i]) <= allowed)) {
            fail_msg("%s: %s after step %llu: value %zu is %.9g, expected %.9g", golden->name, what,
                     (unsigned long long)step, i, (double)ours[i], (double)wanted[i]);
        }
    }
}

static void check_evaluation(const struct golden_case *golden, struct device *device,
                             const struct linear_classifier *trained)
{
    struct classifier classifier;
    struct error error;
    struct classifier_counts counts = {0};
    assert_status(
        classifier_open(&classifier, device, golden->width, golden->classes, golden->batch, &error),
        STATUS_OK, &error);
    assert_status(classifier_load(&classifier, trained, &error), STATUS_OK, &error);
    assert_status(classifier_evaluate(&classifier, floats(golden, EMBEDDINGS, 0, 0),
                                      golden->array[LABELS].data, golden->batch, &counts, &error),
                  STATUS_OK, &error);
    assert_close(golden, "evaluation loss", golden->steps, classifier.host_losses,
                 floats(golden, EVAL_LOSS, 0, 0), golden->batch);
    assert_memory_equal(classifier.host_top1, golden->array[EVAL_TOP1].data, golden->batch);
    assert_memory_equal(classifier.host_top5, golden->array[EVAL_TOP5].data, golden->batch);
    assert_int_equal(counts.rows, golden->batch);
    classifier_close(&classifier);
}

static void check_step(const struct golden_case *golden, struct device *device,
                       struct linear_classifier *classifier, uint64_t step)
{
    struct error error;
    float loss;
    size_t weights = (size_t)golden->width * golden->classes, classes = golden->classes;
    const float *rows = floats(golden, EMBEDDINGS, step, (uint64_t)golden->batch * golden->width);
    const int32_t *labels = (const int32_t *)golden->array[LABELS].data + step * golden->batch;
    float rate =
        schedule_learning_rate(step, golden->base_learning_rate, golden->batch, 0, golden->total);
    assert_close(golden, "learning rate", step, &rate, floats(golden, RATE, step, 1), 1);
    assert_status(
        linear_update(device, classifier, rows, labels, golden->batch, rate, &loss, &error),
        STATUS_OK, &error);
    assert_close(golden, "loss", step, &loss, floats(golden, LOSS, step, 1), 1);
    assert_close(golden, "weights", step, classifier->weights, floats(golden, W, step + 1, weights),
                 weights);
    assert_close(golden, "bias", step, classifier->bias, floats(golden, B, step + 1, classes),
                 classes);
    assert_close(golden, "trace of weights", step, classifier->weights_trace,
                 floats(golden, TRACE_W, step, weights), weights);
    assert_close(golden, "trace of bias", step, classifier->bias_trace,
                 floats(golden, TRACE_B, step, classes), classes);
}

static void check_device(const struct golden_case *golden, const char *name)
{
    struct device *device;
    struct error error;
    size_t weights = (size_t)golden->width * golden->classes, classes = golden->classes;
    assert_status(device_open(&device, name, 0, DEVICE_F32, &error), STATUS_OK, &error);
    struct linear_classifier classifier = {
        .width = golden->width,
        .classes = golden->classes,
        .weights = malloc(weights * sizeof(float)),
        .bias = malloc(classes * sizeof(float)),
        .weights_trace = calloc(weights, sizeof(float)),
        .bias_trace = calloc(classes, sizeof(float)),
    };
    memcpy(classifier.weights, floats(golden, W, 0, 0), weights * sizeof(float));
    memcpy(classifier.bias, floats(golden, B, 0, 0), classes * sizeof(float));
    for (uint64_t step = 0; step < golden->steps; step++) {
        check_step(golden, device, &classifier, step);
    }
    check_evaluation(golden, device, &classifier);
    free(classifier.weights);
    free(classifier.bias);
    free(classifier.weights_trace);
    free(classifier.bias_trace);
    device_close(&device);
}

static void check_case(const char *folder, const struct table *index, size_t row)
{
    struct golden_case golden = {
        .name = table_cell(index, row, "case"),
        .batch = (uint32_t)table_int(table_cell(index, row, "batch")),
        .width = (uint32_t)table_int(table_cell(index, row, "dim")),
        .classes = (uint32_t)table_int(table_cell(index, row, "classes")),
        .steps = (uint64_t)table_int(table_cell(index, row, "steps")),
        .total = (uint64_t)table_int(table_cell(index, row, "max_steps")),
        .base_learning_rate = table_float(table_cell(index, row, "base_learning_rate")),
    };
    assert_string_equal(table_cell(index, row, "momentum"), "0.9");
    assert_string_equal(table_cell(index, row, "nesterov"), "1");
    for (size_t i = 0; i < ARRAYS; i++) {
        golden.array[i] = golden_array(folder, table_cell(index, row, array_columns[i]));
    }
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        check_device(&golden, (*ops)->name);
    }
    for (size_t i = 0; i < ARRAYS; i++) {
        npy_free(&golden.array[i]);
    }
}

static void updates_equal_the_reference(void **state)
{
    (void)state;
    golden_each("linear_eval", check_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_equal_the_reference),
    };
    return cmocka_run_group_tests_name("linear_eval", tests, NULL, NULL);
}
