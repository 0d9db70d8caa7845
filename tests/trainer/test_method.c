// BYOL behind the method interface: what a step does and does not change, metrics, saving.
// Numbers against the reference: tests/golden/test_updates.c.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/method/method.h"
#include "trainer/method/spread.h"

#define BATCH   6u
#define SIDE    16u
#define CLASSES 5u

static struct error error;

static void check_status(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

struct fixture {
    struct device *device;
    struct method *method;
    float *views[2];
    int32_t labels[BATCH];
    struct method_tensor *tensors;
    size_t tensor_count;
    struct method_metrics metrics; // of the last step
};

static struct method_config small_config(int64_t classes)
{
    struct method_config config = {
        .batch = BATCH, .seed = 3, .weight_decay = 1e-4, .momentum = 0.9, .trust = 1e-2};
    model_config_init(&config.model);
    config.model.encoder = MODEL_TINY;
    config.model.width = 0.5;
    config.model.stem = MODEL_STEM_SMALL;
    config.model.size = SIDE;
    config.model.projector_hidden = 24;
    config.model.projector_output = 8;
    config.model.predictor_hidden = 24;
    config.model.classes = classes;
    return config;
}

static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) * 0x1p-24f;
}

static struct fixture open_fixture_with(const char *device, const struct method_config *config)
{
    struct fixture fixture = {0};
    check_status(device_open(&fixture.device, device, 1, &error));
    check_status(method_open(&fixture.method, "byol", fixture.device, config, &error));
    const struct method_ops *ops = fixture.method->ops;
    fixture.tensor_count = ops->tensors(fixture.method, NULL, 0);
    fixture.tensors = calloc(fixture.tensor_count, sizeof *fixture.tensors);
    assert_int_equal(ops->tensors(fixture.method, fixture.tensors, fixture.tensor_count),
                     fixture.tensor_count);
    uint32_t seed = 17;
    for (unsigned v = 0; v < 2; v++) {
        fixture.views[v] = malloc((size_t)BATCH * SIDE * SIDE * 3 * sizeof(float));
        for (size_t i = 0; i < (size_t)BATCH * SIDE * SIDE * 3; i++) {
            fixture.views[v][i] = noise(&seed);
        }
    }
    for (size_t i = 0; i < BATCH; i++) {
        fixture.labels[i] = (int32_t)(i % CLASSES);
    }
    return fixture;
}

static struct fixture open_fixture(const char *device, int64_t classes)
{
    struct method_config config = small_config(classes);
    return open_fixture_with(device, &config);
}

static void close_fixture(struct fixture *fixture)
{
    method_close(&fixture->method);
    device_close(&fixture->device);
    free(fixture->views[0]);
    free(fixture->views[1]);
    free(fixture->tensors);
}

static void step(struct fixture *fixture, const int32_t *labels, float rate, float tau)
{
    const float *const views[2] = {fixture->views[0], fixture->views[1]};
    struct method_step settings = {rate, tau};
    check_status(fixture->method->ops->step(fixture->method, views, labels, &settings,
                                            &fixture->metrics, &error));
}

// All saved tensors one after the other, or only those whose name starts with `prefix`.
static float *saved(const struct fixture *fixture, const char *prefix, size_t *count)
{
    size_t total = 1;
    for (size_t i = 0; i < fixture->tensor_count; i++) {
        total += fixture->tensors[i].count;
    }
    float *all = malloc(total * sizeof *all);
    assert_non_null(all);
    *count = 0;
    for (size_t i = 0; i < fixture->tensor_count; i++) {
        const struct method_tensor *tensor = &fixture->tensors[i];
        if (strncmp(tensor->name, prefix, strlen(prefix)) == 0) {
            assert_int_equal(fixture->device->ops->copy_out(fixture->device, all + *count,
                                                            tensor->device,
                                                            tensor->count * sizeof *all),
                             STATUS_OK);
            *count += tensor->count;
        }
    }
    return all;
}

static bool same_saved(const struct fixture *a, const char *prefix_a, const struct fixture *b,
                       const char *prefix_b)
{
    size_t count_a, count_b;
    float *values_a = saved(a, prefix_a, &count_a), *values_b = saved(b, prefix_b, &count_b);
    assert_int_equal(count_a, count_b);
    assert_true(count_a > 0);
    bool same = memcmp(values_a, values_b, count_a * sizeof *values_a) == 0;
    free(values_a);
    free(values_b);
    return same;
}

static void on_every_device(void (*check)(const char *))
{
    for (size_t i = 0; device_table[i] != NULL; i++) {
        check(device_table[i]->name);
    }
}

static void test_unknown_method(void **state)
{
    (void)state;
    struct method *method;
    struct method_config config = small_config(0);
    assert_int_equal(method_open(&method, "boyl", NULL, &config, &error), STATUS_CONFIG);
    assert_non_null(strstr(error.reason, "'byol'"));
    assert_null(method);
    method_close(&method);
}

static void test_refusals(void **state)
{
    (void)state;
    struct device *device;
    struct method *method;
    check_status(device_open(&device, "ref", 1, &error));
    struct method_config config = small_config(0);
    config.model.predictor_hidden = 0;
    assert_int_equal(method_open(&method, "byol", device, &config, &error), STATUS_CONFIG);
    config = small_config(0);
    config.batch = 0;
    assert_int_equal(method_open(&method, "byol", device, &config, &error), STATUS_CONFIG);
    config = small_config(0);
    config.model.size = 3;
    assert_int_equal(method_open(&method, "byol", device, &config, &error), STATUS_INVALID);
    assert_null(method);
    device_close(&device);
}

static void test_tensor_names(void **state)
{
    (void)state;
    struct fixture fixture = open_fixture("ref", CLASSES);
    const struct graph *graph = fixture.method->ops->graph(fixture.method);
    assert_int_equal(fixture.tensor_count,
                     3 * graph_param_count(graph) + 2 * graph_state_count(graph));
    size_t floats = 0;
    for (size_t i = 0; i < fixture.tensor_count; i++) {
        const struct method_tensor *tensor = &fixture.tensors[i];
        uint64_t product = 1;
        for (unsigned k = 0; k < tensor->dims; k++) {
            product *= tensor->shape[k];
        }
        assert_int_equal(product, tensor->count);
        assert_non_null(tensor->device);
        floats += tensor->count;
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(tensor->name, fixture.tensors[k].name);
        }
    }
    assert_int_equal(floats, 3 * graph_param_floats(graph) + 2 * graph_state_floats(graph));
    assert_string_equal(fixture.tensors[0].name, "online/classifier/w");
    assert_ptr_equal(fixture.tensors[0].device, fixture.method->ops->online_params(fixture.method));
    assert_true(fixture.method->ops->memory(fixture.method) > 4 * floats);
    // With too little room, no more than that is written.
    struct method_tensor few[2] = {{.name = ""}, {.name = "untouched"}};
    assert_int_equal(fixture.method->ops->tensors(fixture.method, few, 1), fixture.tensor_count);
    assert_string_equal(few[0].name, "online/classifier/w");
    assert_string_equal(few[1].name, "untouched");
    close_fixture(&fixture);
}

// Towards a target that stays, the regression must get better.
static void check_learning(const char *device)
{
    struct fixture fixture = open_fixture(device, CLASSES);
    step(&fixture, fixture.labels, 0.0f, 1);
    struct method_metrics first = fixture.metrics;
    for (int i = 0; i < 60; i++) {
        step(&fixture, fixture.labels, 0.3f, 1);
    }
    print_message("%s: representation %.3f -> %.3f, classification %.3f -> %.3f, top1 %.2f -> "
                  "%.2f, spread %.3f\n",
                  device, first.representation, fixture.metrics.representation,
                  first.classification, fixture.metrics.classification, first.top1,
                  fixture.metrics.top1, fixture.metrics.spread);
    assert_true(fixture.metrics.representation < 0.5 * first.representation);
    assert_true(fixture.metrics.classification < 0.8 * first.classification);
    assert_true(fixture.metrics.top1 > 0 && fixture.metrics.top5 == 1); // of 5 classes
    assert_true(fabs(fixture.metrics.loss - fixture.metrics.representation -
                     fixture.metrics.classification) < 1e-12);
    double seconds = 0;
    for (size_t i = 0; i < 8; i++) {
        assert_true(fixture.metrics.seconds[i] >= 0);
        seconds += fixture.metrics.seconds[i];
    }
    assert_true(seconds > 0 && fixture.metrics.optimiser_seconds > 0);
    close_fixture(&fixture);
}

static size_t count_named(const struct fixture *fixture, const char *prefix)
{
    size_t count = 0;
    for (size_t i = 0; i < fixture->tensor_count; i++) {
        count += strncmp(fixture->tensors[i].name, prefix, strlen(prefix)) == 0;
    }
    return count;
}

// Every optimiser learns at a rate that suits it; a module at rate 0 stays, another does not.
static void check_optimizer(const char *device, int optimizer, float rate)
{
    struct method_config config = small_config(CLASSES);
    config.optimizer = optimizer;
    config.beta1 = 0.9;
    config.beta2 = 0.99;
    config.epsilon = 1e-8;
    config.rates[0] = (struct method_rate){"projector", 0};
    config.rates[1] = (struct method_rate){"classifier", 2};
    struct fixture fixture = open_fixture_with(device, &config);
    struct fixture untouched = open_fixture_with(device, &config);
    step(&fixture, fixture.labels, 0.0f, 1);
    double first = fixture.metrics.representation;
    for (int i = 0; i < 60; i++) {
        step(&fixture, fixture.labels, rate, 1);
    }
    print_message("%s, optimizer %d: representation %.3f -> %.3f\n", device, optimizer, first,
                  fixture.metrics.representation);
    assert_true(fixture.metrics.representation < 0.5 * first);
    assert_true(same_saved(&fixture, "online/projector", &untouched, "online/projector"));
    assert_false(same_saved(&fixture, "online/predictor", &untouched, "online/predictor"));
    bool adamw = optimizer == OPTIMIZER_ADAMW;
    assert_int_equal(count_named(&fixture, "second_moment/"),
                     adamw ? count_named(&fixture, "momentum/") : 0);
    assert_int_equal(count_named(&fixture, "optimizer/steps"), adamw);
    close_fixture(&fixture);
    close_fixture(&untouched);
}

static void check_optimizers(const char *device)
{
    check_optimizer(device, OPTIMIZER_LARS, 0.3f);
    check_optimizer(device, OPTIMIZER_LARS_SOLO_LEARN, 0.3f);
    check_optimizer(device, OPTIMIZER_LARS_SUNCET, 0.3f);
    check_optimizer(device, OPTIMIZER_SGD, 0.05f);
    check_optimizer(device, OPTIMIZER_ADAMW, 0.01f);
}

static void test_every_optimizer_learns(void **state)
{
    (void)state;
    on_every_device(check_optimizers);
}

static void test_learning(void **state)
{
    (void)state;
    on_every_device(check_learning);
}

static void test_target_follows(void **state)
{
    (void)state;
    struct fixture fixture = open_fixture("ref", CLASSES), fresh = open_fixture("ref", CLASSES);
    assert_false(same_saved(&fixture, "online/", &fixture, "target/")); // drawn apart
    step(&fixture, fixture.labels, 0.1f, 1);
    assert_true(same_saved(&fixture, "target/", &fresh, "target/")); // tau 1: stays
    assert_false(same_saved(&fixture, "online/", &fresh, "online/"));
    assert_false(same_saved(&fixture, "state/online/", &fixture, "state/target/"));
    // tau 0: becomes the new online network, up to the rounding of a + (b - a).
    step(&fixture, fixture.labels, 0.1f, 0);
    size_t count;
    float *online = saved(&fixture, "online/", &count);
    float *target = saved(&fixture, "target/", &count);
    for (size_t i = 0; i < count; i++) {
        assert_true(fabsf(online[i] - target[i]) < 1e-6f);
    }
    free(online);
    free(target);
    close_fixture(&fixture);
    close_fixture(&fresh);
}

// Rate 0 fills the momentum and the statistics, and moves nothing.
static void test_rate_zero(void **state)
{
    (void)state;
    struct fixture fixture = open_fixture("ref", CLASSES), fresh = open_fixture("ref", CLASSES);
    step(&fixture, fixture.labels, 0, 1);
    assert_true(same_saved(&fixture, "online/", &fresh, "online/"));
    assert_false(same_saved(&fixture, "momentum/", &fresh, "momentum/"));
    assert_false(same_saved(&fixture, "state/online/", &fresh, "state/online/"));
    close_fixture(&fixture);
    close_fixture(&fresh);
}

// The classifier learns beside the rest and never moves it.
static void check_classifier(const char *device)
{
    struct fixture with = open_fixture(device, CLASSES), without = open_fixture(device, 0);
    for (int i = 0; i < 3; i++) {
        step(&with, with.labels, 0.1f, 0.9f);
        step(&without, NULL, 0.1f, 0.9f);
    }
    static const char *const parts[] = {"online/resnet/", "online/projector/", "online/predictor/",
                                        "target/resnet/", "momentum/resnet/",  "state/online/"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        assert_true(same_saved(&with, parts[i], &without, parts[i]));
    }
    assert_true(with.metrics.representation == without.metrics.representation);
    assert_true(without.metrics.classification == 0);
    assert_true(isnan(without.metrics.top1) && isnan(without.metrics.top5));
    close_fixture(&with);
    close_fixture(&without);
}

static void test_classifier(void **state)
{
    (void)state;
    on_every_device(check_classifier);
}

static void test_missing_labels(void **state)
{
    (void)state;
    struct fixture none = open_fixture("ref", CLASSES), negative = open_fixture("ref", CLASSES);
    const int32_t all_negative[BATCH] = {-1, -1, -1, -1, -1, -1};
    step(&none, NULL, 0.1f, 0.9f);
    step(&negative, all_negative, 0.1f, 0.9f);
    assert_true(same_saved(&none, "", &negative, ""));
    assert_true(isnan(none.metrics.top1) && none.metrics.classification == 0);
    close_fixture(&none);
    close_fixture(&negative);

    // Some labelled: the mean is over those, as if the batch held no others.
    struct fixture some = open_fixture("ref", CLASSES), whole = open_fixture("ref", CLASSES);
    const int32_t first_only[BATCH] = {2, -1, -1, -1, -1, -1};
    const int32_t other[BATCH] = {2, 2, 2, 2, 2, 2};
    step(&some, first_only, 0, 1);
    for (unsigned i = 1; i < BATCH; i++) { // six times the same image has the same logits
        size_t floats = (size_t)SIDE * SIDE * 3;
        memcpy(whole.views[0] + i * floats, whole.views[0], floats * sizeof(float));
        memcpy(some.views[0] + i * floats, some.views[0], floats * sizeof(float));
    }
    step(&some, first_only, 0, 1);
    step(&whole, other, 0, 1);
    assert_true(fabs(some.metrics.classification - whole.metrics.classification) < 1e-6);
    assert_true(some.metrics.top1 == whole.metrics.top1);
    close_fixture(&some);
    close_fixture(&whole);
}

// What `tensors` lists is all that a resume needs.
static void check_resume(const char *device)
{
    struct fixture first = open_fixture(device, CLASSES), second = open_fixture(device, CLASSES);
    for (int i = 0; i < 3; i++) {
        step(&first, first.labels, 0.2f, 0.9f);
    }
    for (size_t i = 0; i < first.tensor_count; i++) {
        size_t bytes = first.tensors[i].count * sizeof(float);
        float *host = malloc(bytes);
        assert_string_equal(first.tensors[i].name, second.tensors[i].name);
        first.device->ops->copy_out(first.device, host, first.tensors[i].device, bytes);
        second.device->ops->copy_in(second.device, second.tensors[i].device, host, bytes);
        free(host);
    }
    step(&first, first.labels, 0.2f, 0.9f);
    step(&second, second.labels, 0.2f, 0.9f);
    assert_true(same_saved(&first, "", &second, ""));
    assert_true(first.metrics.loss == second.metrics.loss);
    assert_true(first.metrics.spread == second.metrics.spread);
    close_fixture(&first);
    close_fixture(&second);
}

static void test_resume(void **state)
{
    (void)state;
    on_every_device(check_resume);
}

static void test_spread(void **state)
{
    (void)state;
    float same[] = {1, 2, 3, 2, 4, 6, 0.5f, 1, 1.5f}; // one direction, three lengths
    assert_true(spread_of(same, 3, 3) < 1e-3);
    float axes[] = {2, 0, -3, 0, 0, 1, 0, -0.5f}; // every axis both ways: 1/sqrt(2)
    assert_true(fabs(spread_of(axes, 4, 2) - sqrt(0.5)) < 1e-6);
    float nothing[] = {0, 0, 0, 0};
    assert_true(spread_of(nothing, 2, 2) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_method),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_tensor_names),
        cmocka_unit_test(test_learning),
        cmocka_unit_test(test_every_optimizer_learns),
        cmocka_unit_test(test_target_follows),
        cmocka_unit_test(test_rate_zero),
        cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_missing_labels),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
