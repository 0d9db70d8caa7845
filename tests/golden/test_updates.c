// Golden group network, update cases: whole steps of the method byol (both networks, losses,
// gradients, LARS, moving average) against the reference's, on every device.
#include "tests/support/golden_network.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/method/method.h"
#include "trainer/optim/schedule.h"

static struct {
    struct device *device;
    const char *name;
    size_t ran;
} shared;

static struct error error;

static void check_status(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

static const struct device_ops *device_ops(void)
{
    return shared.device->ops;
}

struct updates {
    struct network_case golden;
    struct method *method;
    struct method_tensor *tensors;
    size_t tensor_count;
};

static void judge(const struct updates *updates, const char *what, double error_found,
                  double allowed)
{
    if (!(error_found <= allowed)) {
        fail_msg("%s on %s: %s is off by %g, allowed %g", updates->golden.name, shared.name, what,
                 error_found, allowed);
    }
    if (getenv("BYOL_GOLDEN_VERBOSE") != NULL) {
        print_message("%s %s: %s %.2g of %.2g\n", shared.name, updates->golden.name, what,
                      error_found, allowed);
    }
}

// The part of a tensor's name after "branch/", or NULL.
static const char *after(const char *name, const char *branch)
{
    size_t len = strlen(branch);
    return strncmp(name, branch, len) == 0 && name[len] == '/' ? name + len + 1 : NULL;
}

// All tensors of a branch, in the order of our own layout: the method lists them so.
static float *gather(const struct updates *updates, const char *branch, size_t total)
{
    float *block = calloc(total, sizeof *block);
    size_t at = 0;
    for (size_t i = 0; i < updates->tensor_count; i++) {
        const struct method_tensor *tensor = &updates->tensors[i];
        if (after(tensor->name, branch) != NULL) {
            assert_true(at + tensor->count <= total);
            assert_int_equal(device_ops()->copy_out(shared.device, block + at, tensor->device,
                                                    tensor->count * sizeof *block),
                             STATUS_OK);
            at += tensor->count;
        }
    }
    assert_int_equal(at, total);
    return block;
}

static void set_weights(const struct updates *updates, const char *branch)
{
    const struct graph *graph = updates->golden.graph;
    for (size_t i = 0; i < updates->tensor_count; i++) {
        const struct method_tensor *tensor = &updates->tensors[i];
        const char *name = after(tensor->name, branch);
        for (size_t k = 0; name != NULL && k < graph_param_count(graph); k++) {
            const struct graph_param *param = graph_param_at(graph, k);
            if (strcmp(param->name, name) == 0) {
                float *values = malloc(param->count * sizeof *values);
                network_case_param(&updates->golden, branch, param, values);
                assert_int_equal(device_ops()->copy_in(shared.device, tensor->device, values,
                                                       param->count * sizeof *values),
                                 STATUS_OK);
                free(values);
            }
        }
    }
}

// Compares one row of a [steps][count] array from `first` on; rows that the file lacks are not
// judged.
static void compare_step(const struct updates *updates, const char *file, size_t step,
                         const float *values, size_t first, size_t count, double allowed)
{
    if (!network_case_has(&updates->golden, file)) {
        return;
    }
    struct npy expected = network_case_array(&updates->golden, file);
    assert_int_equal(expected.dims, 2);
    assert_int_equal(expected.shape[1], count);
    if (step < expected.shape[0]) {
        const float *row = (const float *)expected.data + step * count;
        judge(updates, file, relative_l2(values + first, row + first, count - first), allowed);
    }
    npy_free(&expected);
}

static void compare_params(const struct updates *updates, const char *branch, const char *file,
                           size_t step, double allowed)
{
    const struct network_case *golden = &updates->golden;
    float *block = gather(updates, branch, golden->params_total);
    float *tabled = calloc(golden->params_total, sizeof *tabled);
    network_case_tabled(golden, tabled, block);
    compare_step(updates, file, step, tabled, 0, golden->params_total, allowed);
    free(block);
    free(tabled);
}

// The reference also runs the target's predictor, whose result nobody uses. We do not: its
// statistics, which the tables list first, stay zero.
static size_t skipped_statistics(const struct network_case *golden, const char *branch)
{
    bool target = strcmp(branch, "state/target") == 0;
    return target ? 2 * (size_t)golden->config.predictor_hidden : 0;
}

static void compare_states(const struct updates *updates, const char *branch, const char *file,
                           size_t step, double allowed)
{
    const struct network_case *golden = &updates->golden;
    float *block = gather(updates, branch, graph_state_floats(golden->graph));
    float *tabled = calloc(golden->bn_total, sizeof *tabled);
    network_case_tabled_state(golden, tabled, block, true);
    compare_step(updates, file, step, tabled, skipped_statistics(golden, branch), golden->bn_total,
                 allowed);
    free(block);
    free(tabled);
}

static void check_logs(const struct updates *updates, size_t step,
                       const struct method_metrics *metrics, const struct method_step *settings)
{
    struct npy logs = network_case_array(&updates->golden, "step_logs.npy");
    assert_int_equal(logs.shape[1], 7);
    const double found[7] = {
        metrics->loss, metrics->representation, metrics->classification,        metrics->top1,
        metrics->top5, (double)settings->tau,   (double)settings->learning_rate};
    for (size_t i = 0; i < 7; i++) {
        double expected = (double)((float *)logs.data)[step * 7 + i];
        judge(updates, "step_logs.npy", fabs(found[i] - expected), 1e-3);
    }
    npy_free(&logs);
    assert_true(metrics->spread > 0 && metrics->spread < 1);
}

static void run_step(const struct updates *updates, size_t step)
{
    const struct network_case *golden = &updates->golden;
    size_t floats = golden->batch * (size_t)golden->config.size * (size_t)golden->config.size * 3;
    float *images = malloc(2 * floats * sizeof *images);
    int32_t *labels = calloc(golden->batch, sizeof *labels);
    char name[64];
    for (unsigned view = 0; view < 2; view++) {
        snprintf(name, sizeof name, "input/step%zu/view%u", step, view + 1);
        network_case_images(golden, name, images + view * floats);
    }
    snprintf(name, sizeof name, "input/step%zu/labels", step);
    network_case_labels(golden, name, labels);
    float base = 0.5f * 256 / (float)golden->batch;
    struct method_step settings = {schedule_learning_rate(step, base, golden->batch, 2, 10),
                                   schedule_tau(step, 0.97f, 10)};
    struct method_metrics metrics;
    const float *views[2] = {images, images + floats};
    check_status(updates->method->ops->step(updates->method, views, labels, &settings, &error));
    check_status(updates->method->ops->collect(updates->method, &metrics, &error));
    check_logs(updates, step, &metrics, &settings);
    free(images);
    free(labels);
}

static void check_updates(const char *folder, const struct table *index, size_t row)
{
    static const double online[] = {1e-6, 1e-5, 1e-4, 1e-3}, momentum[] = {1e-4, 2e-4, 1e-3, 5e-3},
                        statistics[] = {2e-4, 2e-4, 1e-3, 5e-3};
    struct updates updates = {0};
    network_case_open(&updates.golden, folder, index, row);
    const struct network_case *golden = &updates.golden;
    struct method_config config = {.model = golden->config,
                                   .batch = golden->batch,
                                   .weight_decay = 1e-2,
                                   .momentum = 0.9,
                                   .trust = 1e-2};
    check_status(method_open(&updates.method, "byol", shared.device, &config, &error));
    updates.tensor_count = updates.method->ops->tensors(updates.method, NULL, 0);
    updates.tensors = calloc(updates.tensor_count, sizeof *updates.tensors);
    updates.method->ops->tensors(updates.method, updates.tensors, updates.tensor_count);
    set_weights(&updates, "online");
    set_weights(&updates, "target");
    struct npy logs = network_case_array(golden, "step_logs.npy");
    size_t steps = logs.shape[0];
    npy_free(&logs);
    assert_in_range(steps, 1, 4);
    for (size_t step = 0; step < steps; step++) {
        run_step(&updates, step);
        compare_params(&updates, "online", "step_online.npy", step, online[step]);
        compare_params(&updates, "target", "step_target.npy", step, online[step] / 10);
        compare_params(&updates, "momentum", "step_momentum.npy", step, momentum[step]);
        compare_states(&updates, "state/online", "step_bn_average.npy", step, statistics[step]);
        compare_states(&updates, "state/target", "step_bn_target_average.npy", step,
                       statistics[step]);
    }
    free(updates.tensors);
    method_close(&updates.method);
    network_case_close(&updates.golden);
}

static void check_row(const char *folder, const struct table *index, size_t row)
{
    if (strcmp(table_cell(index, row, "mode"), "update") == 0) {
        check_updates(folder, index, row);
        shared.ran++;
    }
}

static void check_device(const char *name)
{
    shared.name = name;
    shared.ran = 0;
    if (device_open(&shared.device, name, 0, DEVICE_F32, &error) != STATUS_OK) {
        print_message("skipped: %s\n", error.reason);
        skip();
    }
    golden_each("network", check_row);
    device_close(&shared.device);
    print_message("golden updates on %s: %zu cases ran\n", name, shared.ran);
    assert_true(shared.ran > 0);
}

static void test_ref(void **state)
{
    (void)state;
    check_device("ref");
}

static void test_cpu(void **state)
{
    (void)state;
    check_device("cpu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ref),
        cmocka_unit_test(test_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
