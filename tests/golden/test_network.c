// Golden group network: outputs, running statistics, losses, gradients and whole updates of the
// reference's networks, on every device that can finish them in time.
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

struct tolerances {
    double outputs, heads; // relative L2; heads: projection and prediction, 0 = not judged
    double losses;         // absolute
    double gradients;      // relative L2, whole
    double norms;          // relative, per tensor
    double first_values;   // relative L2, of the first 8 of every tensor
};

static const struct tolerances small_case = {2e-4, 2e-4, 5e-5, 5e-4, 5e-4, 5e-4};
static const struct tolerances full_case = {3e-4, 3e-3, 3e-4, 3e-2, 3e-2, 0.3};
static const struct tolerances deep_case = {3e-2, 0, 5e-2, 0, 0, 0};

static struct {
    struct device *device;
    const char *name;
    size_t ran, left_out;
} shared;

// One case while it runs. The blocks are device memory.
struct run {
    struct network_case golden;
    const struct tolerances *tolerances;
    bool gradients;
    struct network *online;
    float *params, *target_params, *state, *target_state, *grads, *images;
    float *losses;
    int32_t *labels;
    uint8_t *top;
};

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

static void *device_block(size_t bytes)
{
    void *memory = NULL;
    check_status(device_ops()->allocate(shared.device, &memory, bytes, &error));
    return memory;
}

static void device_release(void *memory)
{
    device_ops()->release(shared.device, memory);
}

static float *fetch(const float *from, size_t count)
{
    float *host = malloc(count * sizeof *host);
    assert_non_null(host);
    assert_int_equal(device_ops()->copy_out(shared.device, host, from, count * sizeof *host), 0);
    return host;
}

static void *load(const void *host, size_t bytes)
{
    void *memory = device_block(bytes);
    assert_int_equal(device_ops()->copy_in(shared.device, memory, host, bytes), 0);
    return memory;
}

// --- comparing

static void judge(const struct run *run, const char *what, double error_found, double allowed)
{
    if (!(error_found <= allowed)) {
        fail_msg("%s on %s: %s is off by %g, allowed %g", run->golden.name, shared.name, what,
                 error_found, allowed);
    }
    if (getenv("BYOL_GOLDEN_VERBOSE") != NULL) {
        print_message("%s %s: %s %.2g of %.2g\n", shared.name, run->golden.name, what, error_found,
                      allowed);
    }
}

static void compare(const struct run *run, const char *file, const float *values, size_t count,
                    double allowed)
{
    if (!network_case_has(&run->golden, file) || allowed == 0) {
        return;
    }
    struct npy expected = network_case_array(&run->golden, file);
    assert_int_equal(expected.count, count);
    judge(run, file, relative_l2(values, expected.data, count), allowed);
    npy_free(&expected);
}

static const char *const output_names[] = {"embedding", "projection", "prediction", "logits"};

// Compares the outputs that the network plans with BRANCH_OUTPUT_viewN.npy, view by view.
static void compare_outputs(const struct run *run, const struct network *network,
                            const char *branch, unsigned views)
{
    for (size_t i = 0; i < 4; i++) {
        const float *output = network_output(network, output_names[i]);
        if (output == NULL) {
            continue;
        }
        size_t count = (size_t)run->golden.batch * network_output_width(network, output_names[i]);
        float *values = fetch(output, views * count);
        bool head = i == 1 || i == 2;
        for (unsigned view = 0; view < views; view++) {
            char file[96];
            snprintf(file, sizeof file, "%s_%s_view%u.npy", branch, output_names[i], view + 1);
            compare(run, file, values + view * count, count,
                    head ? run->tolerances->heads : run->tolerances->outputs);
        }
        free(values);
    }
}

static void compare_state(const struct run *run, const char *file, const float *state, bool average)
{
    float *host = fetch(state, graph_state_floats(run->golden.graph));
    float *tabled = calloc(run->golden.bn_total, sizeof *tabled);
    network_case_tabled_state(&run->golden, tabled, host, average);
    compare(run, file, tabled, run->golden.bn_total, run->tolerances->outputs);
    free(host);
    free(tabled);
}

// --- forward

static struct network *plan(const struct run *run, uint32_t views, bool backward,
                            const char *only_output)
{
    struct network_config config = {.images = views * run->golden.batch,
                                    .groups = views,
                                    .backward = backward,
                                    .outputs = {"embedding", "projection", only_output}};
    if (only_output == NULL) {
        config.outputs[2] = "prediction";
        config.outputs[3] = "logits";
    }
    struct network *network;
    check_status(network_open(&network, run->golden.graph, shared.device, &config, &error));
    return network;
}

static void open_run(struct run *run)
{
    const struct network_case *golden = &run->golden;
    size_t params = graph_param_floats(golden->graph), batch = golden->batch;
    float *host = network_case_params(golden, "online");
    run->params = load(host, params * sizeof *host);
    free(host);
    host = network_case_params(golden, "target");
    run->target_params = load(host, params * sizeof *host);
    free(host);
    run->state = device_block(graph_state_floats(golden->graph) * sizeof *host);
    run->target_state = device_block(graph_state_floats(golden->graph) * sizeof *host);
    run->grads = device_block(run->gradients ? params * sizeof *host : 64);
    run->losses = device_block(3 * batch * sizeof *host);
    run->top = device_block(2 * batch);

    size_t view = batch * (size_t)golden->config.size * (size_t)golden->config.size * 3;
    host = malloc(2 * view * sizeof *host);
    assert_non_null(host);
    network_case_images(golden, "input/view1", host);
    network_case_images(golden, "input/view2", host + view);
    run->images = load(host, 2 * view * sizeof *host);
    free(host);
    int32_t *labels = calloc(batch, sizeof *labels);
    network_case_labels(golden, "input/labels", labels);
    run->labels = load(labels, batch * sizeof *labels);
    free(labels);
}

static void close_run(struct run *run)
{
    void *const blocks[] = {run->params,       run->target_params, run->state,
                            run->target_state, run->grads,         run->images,
                            run->losses,       run->labels,        run->top};
    network_close(&run->online);
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        device_release(blocks[i]);
    }
    network_case_close(&run->golden);
}

static void check_evaluation(const struct run *run)
{
    struct network *network = plan(run, 1, false, NULL);
    check_status(network_forward(network, run->params, run->state, run->images, OP_EVAL, &error));
    compare_outputs(run, network, "eval", 1);
    network_close(&network);
}

// --- losses and gradients

static double sum_of(const float *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
    }
    return sum;
}

static void compute_losses(struct run *run, const struct network *target)
{
    const struct device_ops *device = device_ops();
    uint32_t batch = run->golden.batch, width = network_output_width(target, "projection");
    uint32_t classes = network_output_width(run->online, "logits");
    size_t half = (size_t)batch * width;
    const float *prediction = network_output(run->online, "prediction");
    const float *projection = network_output(target, "projection");
    // Gradients that nobody wants still need a place.
    float *spare = device_block(2 * half * sizeof *spare + (size_t)batch * classes * sizeof *spare);
    float *to_prediction =
        run->gradients ? network_output_gradient(run->online, "prediction") : spare;
    float *to_logits =
        run->gradients ? network_output_gradient(run->online, "logits") : spare + 2 * half;
    float scale = 1.0f / (float)batch;
    assert_int_equal(device->regression_loss(shared.device, prediction, projection + half, batch,
                                             width, scale, run->losses, to_prediction, NULL),
                     STATUS_OK);
    assert_int_equal(device->regression_loss(shared.device, prediction + half, projection, batch,
                                             width, scale, run->losses + batch,
                                             to_prediction + half, NULL),
                     STATUS_OK);
    assert_int_equal(device->softmax_loss(shared.device, network_output(run->online, "logits"),
                                          run->labels, batch, classes, scale,
                                          run->losses + 2 * batch, to_logits, run->top,
                                          run->top + batch),
                     STATUS_OK);
    device_release(spare);
}

static void check_losses(const struct run *run)
{
    size_t batch = run->golden.batch;
    float *rows = fetch(run->losses, 3 * batch);
    uint8_t *top = calloc(2 * batch, 1);
    assert_int_equal(device_ops()->copy_out(shared.device, top, run->top, 2 * batch), 0);
    double found[5] = {0, sum_of(rows, 2 * batch) / (double)batch,
                       sum_of(rows + 2 * batch, batch) / (double)batch, 0, 0};
    found[0] = found[1] + found[2];
    for (size_t i = 0; i < batch; i++) {
        found[3] += top[i] / (double)batch;
        found[4] += top[batch + i] / (double)batch;
    }
    struct npy expected = network_case_array(&run->golden, "losses.npy");
    assert_int_equal(expected.count, 5);
    // Where the logits themselves are uncertain, so is their order.
    size_t judged = run->tolerances == &deep_case ? 3 : 5;
    for (size_t i = 0; i < judged; i++) {
        judge(run, "losses.npy", fabs(found[i] - (double)((float *)expected.data)[i]),
              run->tolerances->losses);
    }
    npy_free(&expected);
    free(rows);
    free(top);
}

static double norm_of(const float *values, size_t count)
{
    double squares = 0;
    for (size_t i = 0; i < count; i++) {
        squares += (double)values[i] * (double)values[i];
    }
    return sqrt(squares);
}

// A bias before a normalisation has no gradient but rounding.
static bool vanishes(const struct graph_param *param)
{
    return strcmp(param->name, "projector/linear/b") == 0 ||
           strcmp(param->name, "predictor/linear/b") == 0;
}

static double largest_of(const float *values, size_t count)
{
    double largest = 0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)values[i]));
    }
    return largest;
}

// `index` of a parameter of ours in the order of params.tsv.
static size_t tabled_index(const struct run *run, const struct graph_param *param)
{
    size_t row = 0;
    while (strcmp(table_cell(&run->golden.params, row, "name"), param->name) != 0) {
        row++;
    }
    return row;
}

static void check_gradient_norms(const struct run *run, const float *grads)
{
    const struct network_case *golden = &run->golden;
    struct npy norms = network_case_array(golden, "grad_l2.npy");
    double largest = largest_of(grads, golden->params_total);
    size_t count = graph_param_count(golden->graph);
    float *first = calloc(8 * count, sizeof *first);
    assert_int_equal(norms.count, count);
    for (size_t i = 0; i < count; i++) {
        const struct graph_param *param = graph_param_at(golden->graph, i);
        const float *values = grads + golden->param_offset[i];
        size_t row = tabled_index(run, param);
        if (vanishes(param)) {
            judge(run, param->name, largest_of(values, param->count), 1e-5 * largest);
            continue; // its first values stay zero, and are too small to matter
        }
        double expected = (double)((float *)norms.data)[row];
        judge(run, param->name, fabs(norm_of(values, param->count) - expected) / expected,
              run->tolerances->norms);
        memcpy(first + 8 * row, values, (param->count < 8 ? param->count : 8) * sizeof *first);
    }
    compare(run, "grad_first8.npy", first, 8 * count, run->tolerances->first_values);
    npy_free(&norms);
    free(first);
}

static void check_gradients(struct run *run)
{
    const struct network_case *golden = &run->golden;
    for (size_t i = 0; i < 2; i++) { // seeds that no loss has written
        size_t width = network_output_width(run->online, output_names[i]);
        device_ops()->fill_zero(shared.device,
                                network_output_gradient(run->online, output_names[i]),
                                2 * golden->batch * width * sizeof(float));
    }
    size_t classes = network_output_width(run->online, "logits");
    float *second_view = network_output_gradient(run->online, "logits") + golden->batch * classes;
    device_ops()->fill_zero(shared.device, second_view, golden->batch * classes * sizeof(float));
    check_status(network_backward(run->online, run->params, run->grads, run->images, &error));
    float *ours = fetch(run->grads, golden->params_total);
    float *tabled = calloc(golden->params_total, sizeof *tabled);
    network_case_tabled(golden, tabled, ours);
    compare(run, "grads.npy", tabled, golden->params_total, run->tolerances->gradients);
    check_gradient_norms(run, tabled);
    free(ours);
    free(tabled);
}

static void check_case(const char *folder, const struct table *index, size_t row,
                       const struct tolerances *tolerances)
{
    struct run run = {.tolerances = tolerances};
    network_case_open(&run.golden, folder, index, row);
    run.gradients = network_case_has(&run.golden, "grad_l2.npy");
    open_run(&run);
    run.online = plan(&run, 2, run.gradients, NULL);
    struct network *target = plan(&run, 2, false, "prediction");
    check_status(
        network_forward(target, run.target_params, run.target_state, run.images, OP_TRAIN, &error));
    compare_outputs(&run, target, "target", 2);
    compare_state(&run, "bn_target_average.npy", run.target_state, true);
    check_status(network_forward(run.online, run.params, run.state, run.images, OP_TRAIN, &error));
    compare_outputs(&run, run.online, "online", 2);
    compare_state(&run, "bn_hidden.npy", run.state, false);
    compare_state(&run, "bn_average.npy", run.state, true);
    check_evaluation(&run);
    compute_losses(&run, target);
    check_losses(&run);
    if (run.gradients) {
        check_gradients(&run);
    }
    network_close(&target);
    close_run(&run);
}

// --- whole updates, by the method itself

struct updates {
    struct run run; // for its case and names in messages
    struct method *method;
    struct method_tensor *tensors;
    size_t tensor_count;
};

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
    const struct graph *graph = updates->run.golden.graph;
    for (size_t i = 0; i < updates->tensor_count; i++) {
        const struct method_tensor *tensor = &updates->tensors[i];
        const char *name = after(tensor->name, branch);
        for (size_t k = 0; name != NULL && k < graph_param_count(graph); k++) {
            const struct graph_param *param = graph_param_at(graph, k);
            if (strcmp(param->name, name) == 0) {
                float *values = malloc(param->count * sizeof *values);
                network_case_param(&updates->run.golden, branch, param, values);
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
    if (!network_case_has(&updates->run.golden, file)) {
        return;
    }
    struct npy expected = network_case_array(&updates->run.golden, file);
    assert_int_equal(expected.dims, 2);
    assert_int_equal(expected.shape[1], count);
    if (step < expected.shape[0]) {
        const float *row = (const float *)expected.data + step * count;
        judge(&updates->run, file, relative_l2(values + first, row + first, count - first),
              allowed);
    }
    npy_free(&expected);
}

static void compare_params(const struct updates *updates, const char *branch, const char *file,
                           size_t step, double allowed)
{
    const struct network_case *golden = &updates->run.golden;
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
    const struct network_case *golden = &updates->run.golden;
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
    struct npy logs = network_case_array(&updates->run.golden, "step_logs.npy");
    assert_int_equal(logs.shape[1], 7);
    const double found[7] = {
        metrics->loss, metrics->representation, metrics->classification,        metrics->top1,
        metrics->top5, (double)settings->tau,   (double)settings->learning_rate};
    for (size_t i = 0; i < 7; i++) {
        double expected = (double)((float *)logs.data)[step * 7 + i];
        judge(&updates->run, "step_logs.npy", fabs(found[i] - expected), 1e-3);
    }
    npy_free(&logs);
    assert_true(metrics->spread > 0 && metrics->spread < 1);
}

static void run_step(const struct updates *updates, size_t step)
{
    const struct network_case *golden = &updates->run.golden;
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
    check_status(
        updates->method->ops->step(updates->method, views, labels, &settings, &metrics, &error));
    check_logs(updates, step, &metrics, &settings);
    free(images);
    free(labels);
}

static void check_updates(const char *folder, const struct table *index, size_t row)
{
    static const double online[] = {1e-6, 1e-5, 1e-4, 1e-3}, momentum[] = {1e-4, 2e-4, 1e-3, 5e-3},
                        statistics[] = {2e-4, 2e-4, 1e-3, 5e-3};
    struct updates updates = {0};
    network_case_open(&updates.run.golden, folder, index, row);
    const struct network_case *golden = &updates.run.golden;
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
    network_case_close(&updates.run.golden);
}

// --- which cases run where

static const struct tolerances *tolerances_of(const struct table *index, size_t row)
{
    const char *encoder = table_cell(index, row, "encoder");
    if (strcmp(encoder, "TinyResNet") == 0 || table_int(table_cell(index, row, "S")) <= 64) {
        return &small_case;
    }
    return strcmp(encoder, "ResNet200") == 0 ? &deep_case : &full_case;
}

static bool in_time(const struct table *index, size_t row)
{
    if (getenv("BYOL_GOLDEN_ALL") != NULL) {
        return true;
    }
    bool tiny = strcmp(table_cell(index, row, "encoder"), "TinyResNet") == 0;
    if (strcmp(shared.name, "ref") == 0 || tiny) {
        return tiny;
    }
    return table_int(table_cell(index, row, "v2")) == 0 &&
           table_int(table_cell(index, row, "width")) == 1 &&
           tolerances_of(index, row) != &deep_case;
}

static void check_row(const char *folder, const struct table *index, size_t row)
{
    const char *only = getenv("BYOL_GOLDEN_CASE");
    if (!in_time(index, row) ||
        (only != NULL && strcmp(only, table_cell(index, row, "case")) != 0)) {
        shared.left_out++;
        return;
    }
    check_case(folder, index, row, tolerances_of(index, row));
    if (strcmp(table_cell(index, row, "mode"), "update") == 0) {
        check_updates(folder, index, row);
    }
    shared.ran++;
}

static void check_device(const char *name)
{
    shared.name = name;
    shared.ran = shared.left_out = 0;
    if (device_open(&shared.device, name, 0, &error) != STATUS_OK) {
        print_message("skipped: %s\n", error.reason);
        skip();
    }
    golden_each("network", check_row);
    device_close(&shared.device);
    print_message("golden network on %s: %zu cases ran\n", name, shared.ran);
    if (shared.left_out > 0) {
        print_message("skipped: %zu large networks on '%s'; BYOL_GOLDEN_ALL=1 runs them\n",
                      shared.left_out, name);
    }
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
