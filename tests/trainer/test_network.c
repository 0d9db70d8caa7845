// Planned networks: gradients through values with several consumers, pruning, views, and calls out
// of order. Their memory: test_arena.c.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "trainer/net/network.h"

#define SIDE          9u
#define IMAGES        6u
#define LARGEST_PARAM 256u

static struct error error;

static void check_status(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

// In [-1, 1), the same every run.
static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) * 0x1p-23f - 1.0f;
}

// Values with two, three and four consumers, an op that reads one value twice, outputs that feed
// further ops, and a stopped branch.
static struct graph *tangled_graph(void)
{
    struct graph *graph;
    check_status(graph_open(&graph, &error));
    graph_value v =
        graph_conv(graph, "a", graph_input(graph, SIDE, SIDE), 4, 3, 1, GRAPH_PADDING_SAME);
    v = graph_batch_norm(graph, "a/norm", v, true, 1);
    graph_value b =
        graph_standardise(graph, graph_conv(graph, "b", v, 4, 3, 1, GRAPH_PADDING_SAME));
    graph_value c = graph_conv(graph, "c", v, 4, 1, 1, GRAPH_PADDING_SAME);
    c = graph_affine(graph, "c/affine", graph_group_norm(graph, "c/norm", c, 2, false, 1), false,
                     1);
    graph_value d = graph_add(graph, b, c, true);
    graph_value e = graph_add(graph, graph_add(graph, d, v, false), graph_relu(graph, v), false);
    graph_value f = graph_max_pool(graph, e, 3, 2, GRAPH_PADDING_TORCH);
    f = graph_relu(graph, graph_batch_norm(graph, "f/norm", f, false, 1));
    f = graph_add(graph, f, f, true);
    graph_value m = graph_mean_pool(graph, f);
    graph_value p = graph_linear(graph, "p", m, 5, true);
    graph_value q = graph_batch_norm(graph, "q/norm", p, true, 1);
    q = graph_linear(graph, "q", q, 3, false);
    graph_output_add(graph, "m", m);
    graph_output_add(graph, "p", p);
    graph_output_add(graph, "q", q);
    graph_output_add(graph, "s", graph_linear(graph, "s", graph_stop_gradient(graph, m), 2, true));
    check_status(graph_finish(graph, &error));
    return graph;
}

// Two blocks that end with a normalisation and a sum; outputs q and s look between the two.
static struct graph *residual_graph(void)
{
    struct graph *graph;
    check_status(graph_open(&graph, &error));
    graph_value v =
        graph_conv(graph, "a", graph_input(graph, SIDE, SIDE), 4, 3, 1, GRAPH_PADDING_SAME);
    v = graph_batch_norm(graph, "a/norm", v, true, 1);
    graph_value b = graph_conv(graph, "b", v, 5, 3, 2, GRAPH_PADDING_SAME);
    b = graph_batch_norm(graph, "b/norm", b, false, 1);
    graph_value c = graph_conv(graph, "c", v, 5, 1, 2, GRAPH_PADDING_SAME);
    c = graph_batch_norm(graph, "c/norm", c, false, 1);
    graph_value d = graph_add(graph, b, c, true);
    graph_value e = graph_conv(graph, "e", d, 5, 3, 1, GRAPH_PADDING_SAME);
    e = graph_batch_norm(graph, "e/norm", e, false, 1);
    graph_value f = graph_add(graph, e, d, false);
    graph_output_add(graph, "m", graph_mean_pool(graph, f));
    graph_output_add(graph, "q", graph_mean_pool(graph, c));
    graph_output_add(graph, "s", graph_mean_pool(graph, e));
    check_status(graph_finish(graph, &error));
    return graph;
}

struct fixture {
    struct device *device;
    struct graph *graph;
    struct network *network;
    float *params, *state, *grads, *images; // device memory
    float *host_params;
};

static float *block(struct device *device, uint64_t count)
{
    void *memory = NULL;
    check_status(device->ops->allocate(device, &memory, count * sizeof(float), &error));
    return memory;
}

static void put(struct device *device, float *to, const float *host, uint64_t count)
{
    assert_int_equal(device->ops->copy_in(device, to, host, count * sizeof *host), STATUS_OK);
}

static float *get(struct device *device, const float *from, uint64_t count)
{
    float *host = malloc(count * sizeof *host);
    assert_non_null(host);
    assert_int_equal(device->ops->copy_out(device, host, from, count * sizeof *host), STATUS_OK);
    return host;
}

static struct network *plan_recomputing(const struct fixture *fixture, bool recompute,
                                        uint32_t images, uint32_t groups, bool backward,
                                        const char *outputs)
{
    // Output names are single letters.
    static const char *const names[] = {"m", "p", "q", "s"};
    struct network_config config = {
        .images = images, .groups = groups, .backward = backward, .recompute = recompute};
    size_t count = 0;
    for (size_t i = 0; i < 4; i++) {
        if (strchr(outputs, names[i][0]) != NULL) {
            config.outputs[count++] = names[i];
        }
    }
    struct network *network;
    check_status(network_open(&network, fixture->graph, fixture->device, &config, &error));
    return network;
}

static struct network *plan(const struct fixture *fixture, uint32_t images, uint32_t groups,
                            bool backward, const char *outputs)
{
    return plan_recomputing(fixture, false, images, groups, backward, outputs);
}

static struct fixture open_graph(const char *device, struct graph *graph, const char *outputs)
{
    struct fixture fixture = {.graph = graph};
    check_status(device_open(&fixture.device, device, 1, DEVICE_F32, &error));
    fixture.network = plan(&fixture, IMAGES, 2, true, outputs);
    uint64_t params = graph_param_floats(fixture.graph);
    uint64_t pixels = (uint64_t)IMAGES * SIDE * SIDE * 3;
    fixture.params = block(fixture.device, params);
    fixture.grads = block(fixture.device, params);
    fixture.state = block(fixture.device, graph_state_floats(fixture.graph));
    fixture.images = block(fixture.device, pixels);
    fixture.host_params = malloc(params * sizeof(float));
    float *images = malloc(pixels * sizeof *images);
    uint32_t seed = 5;
    for (uint64_t i = 0; i < params; i++) {
        fixture.host_params[i] = noise(&seed);
    }
    for (uint64_t i = 0; i < pixels; i++) {
        images[i] = 0.5f + 0.5f * noise(&seed);
    }
    put(fixture.device, fixture.params, fixture.host_params, params);
    put(fixture.device, fixture.images, images, pixels);
    free(images);
    return fixture;
}

static struct fixture open_fixture(const char *device, const char *outputs)
{
    return open_graph(device, tangled_graph(), outputs);
}

static void close_fixture(struct fixture *fixture)
{
    network_close(&fixture->network);
    float *const blocks[] = {fixture->params, fixture->grads, fixture->state, fixture->images};
    for (size_t i = 0; i < 4; i++) {
        fixture->device->ops->release(fixture->device, blocks[i]);
    }
    free(fixture->host_params);
    graph_close(&fixture->graph);
    device_close(&fixture->device);
}

static void forward(const struct fixture *fixture)
{
    check_status(network_forward(fixture->network, fixture->params, fixture->state, fixture->images,
                                 OP_TRAIN, &error));
}

// The weight of an output's element in the loss: fixed noise.
static void fill_weights(float *to, size_t count, char output)
{
    uint32_t seed = (uint32_t)output;
    for (size_t i = 0; i < count; i++) {
        to[i] = noise(&seed);
    }
}

static double loss_of(const struct fixture *fixture, const char *outputs)
{
    forward(fixture);
    double loss = 0;
    for (; *outputs; outputs++) {
        const char name[2] = {*outputs, '\0'};
        size_t count = (size_t)IMAGES * network_output_width(fixture->network, name);
        float *values = get(fixture->device, network_output(fixture->network, name), count);
        float weights[IMAGES * 8];
        fill_weights(weights, count, *outputs);
        for (size_t i = 0; i < count; i++) {
            loss += (double)values[i] * (double)weights[i];
        }
        free(values);
    }
    return loss;
}

// Gradients of the loss over `outputs`; others that are planned get a zero seed.
static float *gradients(const struct fixture *fixture, const char *outputs)
{
    forward(fixture);
    for (const char *at = "mpqs"; *at; at++) {
        const char name[2] = {*at, '\0'};
        float *seed = network_output_gradient(fixture->network, name);
        size_t count = (size_t)IMAGES * network_output_width(fixture->network, name);
        if (seed != NULL) {
            float weights[IMAGES * 8] = {0};
            if (strchr(outputs, *at) != NULL) {
                fill_weights(weights, count, *at);
            }
            put(fixture->device, seed, weights, count);
        }
    }
    uint64_t params = graph_param_floats(fixture->graph);
    float poison[1024];
    assert_in_range(params, 1, 1024);
    for (uint64_t i = 0; i < params; i++) {
        poison[i] = NAN;
    }
    put(fixture->device, fixture->grads, poison, params);
    check_status(network_backward(fixture->network, fixture->params, fixture->grads,
                                  fixture->images, &error));
    return get(fixture->device, fixture->grads, params);
}

// Central difference of the loss along `direction` of one parameter tensor.
static double slope(const struct fixture *fixture, const struct graph_param *param,
                    const float *direction, const char *outputs)
{
    const double step = 1.0 / 4096; // small: the loss has many kinks
    double loss[2];
    float moved[LARGEST_PARAM];
    for (int side = 0; side < 2; side++) {
        for (uint64_t i = 0; i < param->count; i++) {
            moved[i] = fixture->host_params[param->offset + i] +
                       (side ? -1.0f : 1.0f) * (float)step * direction[i];
        }
        put(fixture->device, fixture->params + param->offset, moved, param->count);
        loss[side] = loss_of(fixture, outputs);
    }
    put(fixture->device, fixture->params + param->offset, fixture->host_params + param->offset,
        param->count);
    return (loss[0] - loss[1]) / (2 * step);
}

static void test_gradients_by_differences(void **state)
{
    (void)state;
    struct fixture fixture = open_fixture("ref", "mpqs");
    float *grads = gradients(&fixture, "mpqs");
    for (size_t i = 0; i < graph_param_count(fixture.graph); i++) {
        const struct graph_param *param = graph_param_at(fixture.graph, i);
        // What lies before the stop must not feel the branch behind it.
        const char *outputs = param->name[0] == 's' ? "s" : "mpq";
        float direction[LARGEST_PARAM];
        assert_true(param->count <= LARGEST_PARAM);
        uint32_t seed = 99;
        double expected = 0, size = 0;
        for (uint64_t k = 0; k < param->count; k++) {
            direction[k] = noise(&seed);
            expected += (double)grads[param->offset + k] * (double)direction[k];
            size += fabs((double)grads[param->offset + k] * (double)direction[k]);
        }
        double found = slope(&fixture, param, direction, outputs);
        if (!(fabs(found - expected) <= 0.01 * size + 1e-3)) {
            fail_msg("%s: slope %g, gradient says %g", param->name, found, expected);
        }
    }
    free(grads);
    close_fixture(&fixture);
}

static double worst_difference(const float *a, const float *b, uint64_t count)
{
    double worst = 0;
    for (uint64_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        worst = difference <= worst ? worst : difference;
        assert_true(difference >= 0); // not NaN
    }
    return worst;
}

// A network that plans less gives the same gradients, and zero where nothing leads.
static void check_pruning(const char *device)
{
    static const char *const plans[] = {"m", "p", "mp", "q", "s", "mpqs"};
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        struct fixture whole = open_fixture(device, "mpqs");
        struct fixture part = open_fixture(device, plans[i]);
        uint64_t params = graph_param_floats(whole.graph);
        float *expected = gradients(&whole, plans[i]), *found = gradients(&part, plans[i]);
        assert_true(worst_difference(found, expected, params) <= 2e-5);
        assert_true(network_arena_bytes(part.network) <= network_arena_bytes(whole.network));
        if (strcmp(plans[i], "s") == 0) { // the stopped branch moves only itself
            for (size_t k = 0; k < graph_param_count(part.graph); k++) {
                const struct graph_param *param = graph_param_at(part.graph, k);
                bool zero = found[param->offset] == 0;
                assert_int_equal(zero, param->name[0] != 's');
            }
        }
        free(expected);
        free(found);
        close_fixture(&whole);
        close_fixture(&part);
    }
}

// Two views in one batch are what two batches of one view are, statistics included.
static void check_views(const char *device)
{
    struct fixture fixture = open_fixture(device, "mpqs");
    forward(&fixture);
    uint64_t floats = graph_state_floats(fixture.graph), half = IMAGES / 2;
    float *state = block(fixture.device, floats);
    struct network *single = plan(&fixture, (uint32_t)half, 1, false, "q");
    float *together = get(fixture.device, network_output(fixture.network, "q"), 3 * IMAGES);
    for (unsigned view = 0; view < 2; view++) {
        check_status(network_forward(single, fixture.params, state,
                                     fixture.images + view * half * SIDE * SIDE * 3, OP_TRAIN,
                                     &error));
        float *alone = get(fixture.device, network_output(single, "q"), 3 * half);
        assert_true(worst_difference(alone, together + view * 3 * half, 3 * half) <= 2e-5);
        free(alone);
    }
    // The smaller plan leaves out nothing that has statistics.
    float *a = get(fixture.device, state, floats), *b = get(fixture.device, fixture.state, floats);
    assert_true(worst_difference(a, b, floats) <= 2e-5);
    assert_true(a[0] == 2);
    free(a);
    free(b);
    free(together);
    network_close(&single);
    fixture.device->ops->release(fixture.device, state);
    close_fixture(&fixture);
}

static void on_every_device(void (*check)(const char *))
{
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        check((*ops)->name);
    }
}

static void test_pruning(void **state)
{
    (void)state;
    on_every_device(check_pruning);
}

static void test_views(void **state)
{
    (void)state;
    on_every_device(check_views);
}

// Running again overwrites everything: same inputs, same bits, whatever lay in the arena.
static void test_reruns(void **state)
{
    (void)state;
    struct fixture fixture = open_fixture("ref", "mpqs");
    float *first = gradients(&fixture, "mq"), *second = gradients(&fixture, "mq");
    assert_memory_equal(first, second, graph_param_floats(fixture.graph) * sizeof *first);
    free(first);
    free(second);
    close_fixture(&fixture);
}

// What is computed again instead of kept has the same bits, running statistics included.
static void check_recompute(const char *device)
{
    static const char *const plans[] = {"m", "mp", "q", "mpqs"};
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        struct fixture kept = open_fixture(device, plans[i]);
        struct fixture again = open_fixture(device, plans[i]);
        network_close(&again.network);
        again.network = plan_recomputing(&again, true, IMAGES, 2, true, plans[i]);
        uint64_t params = graph_param_floats(kept.graph), floats = graph_state_floats(kept.graph);
        for (int run = 0; run < 2; run++) {
            float *wanted = gradients(&kept, plans[i]), *found = gradients(&again, plans[i]);
            assert_memory_equal(found, wanted, params * sizeof *found);
            free(wanted);
            free(found);
        }
        float *wanted = get(kept.device, kept.state, floats);
        float *found = get(again.device, again.state, floats);
        assert_memory_equal(found, wanted, floats * sizeof *found);
        free(wanted);
        free(found);
        close_fixture(&kept);
        close_fixture(&again);
    }
}

static void test_recompute(void **state)
{
    (void)state;
    on_every_device(check_recompute);
}

static void same_floats(const struct fixture *a, const float *from_a, const struct fixture *b,
                        const float *from_b, size_t count)
{
    float *left = get(a->device, from_a, count), *right = get(b->device, from_b, count);
    assert_memory_equal(left, right, count * sizeof *left);
    free(left);
    free(right);
}

static bool adds(const struct fixture *fixture)
{
    double seconds[OP_KINDS], backward[OP_KINDS];
    network_times(fixture->network, seconds, backward);
    return seconds[OP_ADD] > 0 || backward[OP_ADD] > 0;
}

// A sum that joins the normalisation before it gives the bits that both would give alone, which
// they do where something else reads what lies between.
static void check_joined(const char *device)
{
    struct fixture joined = open_graph(device, residual_graph(), "m");
    struct fixture apart = open_graph(device, residual_graph(), "mqs");
    float *found = gradients(&joined, "m"), *wanted = gradients(&apart, "m");
    assert_memory_equal(found, wanted, graph_param_floats(joined.graph) * sizeof *found);
    assert_false(adds(&joined));
    assert_true(adds(&apart));
    size_t values = IMAGES * 5, states = graph_state_floats(joined.graph);
    for (int mode = 0; mode < 2; mode++) {
        same_floats(&joined, network_output(joined.network, "m"), &apart,
                    network_output(apart.network, "m"), values);
        same_floats(&joined, joined.state, &apart, apart.state, states);
        const struct fixture *both[] = {&joined, &apart};
        for (int i = 0; i < 2; i++) {
            check_status(network_forward(both[i]->network, both[i]->params, both[i]->state,
                                         both[i]->images, OP_EVAL, &error));
        }
    }
    free(found);
    free(wanted);
    close_fixture(&joined);
    close_fixture(&apart);
}

static void test_sums_join_normalisations(void **state)
{
    (void)state;
    on_every_device(check_joined);
}

static void test_evaluation_changes_no_state(void **state)
{
    (void)state;
    struct fixture fixture = open_fixture("ref", "mpqs");
    forward(&fixture);
    uint64_t floats = graph_state_floats(fixture.graph);
    float *before = get(fixture.device, fixture.state, floats);
    check_status(network_forward(fixture.network, fixture.params, fixture.state, fixture.images,
                                 OP_EVAL, &error));
    float *after = get(fixture.device, fixture.state, floats);
    assert_memory_equal(before, after, floats * sizeof *before);
    free(before);
    free(after);
    close_fixture(&fixture);
}

static enum status backward(const struct fixture *fixture)
{
    return network_backward(fixture->network, fixture->params, fixture->grads, fixture->images,
                            &error);
}

static void test_calls_out_of_order(void **state)
{
    (void)state;
    struct fixture fixture = open_fixture("ref", "mq");
    assert_int_equal(backward(&fixture), STATUS_INVALID);
    forward(&fixture);
    assert_int_equal(backward(&fixture), STATUS_OK);
    assert_int_equal(backward(&fixture), STATUS_INVALID); // activations are gone
    check_status(network_forward(fixture.network, fixture.params, fixture.state, fixture.images,
                                 OP_EVAL, &error));
    assert_int_equal(backward(&fixture), STATUS_INVALID);
    assert_null(network_output(fixture.network, "p"));
    assert_null(network_output_gradient(fixture.network, "p"));
    assert_int_equal(network_output_width(fixture.network, "p"), 0);
    network_close(&fixture.network);
    fixture.network = plan(&fixture, IMAGES, 2, false, "mq");
    forward(&fixture);
    assert_int_equal(backward(&fixture), STATUS_INVALID);
    assert_null(network_output_gradient(fixture.network, "m"));
    close_fixture(&fixture);
}

static void test_refusals(void **state)
{
    (void)state;
    struct fixture fixture = open_fixture("ref", "m");
    static const struct network_config wrong[] = {
        {.images = 5, .groups = 2, .outputs = {"m"}}, {.images = 0, .groups = 1, .outputs = {"m"}},
        {.images = 4, .groups = 0, .outputs = {"m"}}, {.images = 4, .groups = 1},
        {.images = 4, .groups = 1, .outputs = {"x"}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct network *network;
        assert_int_equal(network_open(&network, fixture.graph, fixture.device, &wrong[i], &error),
                         STATUS_INVALID);
        assert_null(network);
    }
    close_fixture(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_by_differences),
        cmocka_unit_test(test_pruning),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_reruns),
        cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_sums_join_normalisations),
        cmocka_unit_test(test_evaluation_changes_no_state),
        cmocka_unit_test(test_calls_out_of_order),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
