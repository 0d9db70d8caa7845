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

#include "augment/view.h"
#include "tests/support/device_rows.h"
#include "trainer/method/byol_internal.h"
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

static struct fixture open_configured(const char *device, struct method_config config)
{
    struct fixture fixture = {0};
    check_status(device_open(&fixture.device, device, 1, DEVICE_F32, &error));
    check_status(method_open(&fixture.method, "byol", fixture.device, &config, &error));
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
    return open_configured(device, small_config(classes));
}

static void close_fixture(struct fixture *fixture)
{
    method_close(&fixture->method);
    device_close(&fixture->device);
    free(fixture->views[0]);
    free(fixture->views[1]);
    free(fixture->tensors);
}

// From the image `first` of the views on.
static void step_from(struct fixture *fixture, size_t first, const int32_t *labels, float rate,
                      float tau)
{
    size_t at = first * SIDE * SIDE * 3;
    const float *const views[2] = {fixture->views[0] + at, fixture->views[1] + at};
    struct method_step settings = {rate, tau};
    const struct method_ops *ops = fixture->method->ops;
    check_status(ops->step(fixture->method, views, labels, &settings, &error));
    check_status(ops->collect(fixture->method, &fixture->metrics, &error));
}

static void step(struct fixture *fixture, const int32_t *labels, float rate, float tau)
{
    step_from(fixture, 0, labels, rate, tau);
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
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        check((*ops)->name);
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
    check_status(device_open(&device, "ref", 1, DEVICE_F32, &error));
    struct method_config config = small_config(0);
    config.model.predictor_hidden = 0;
    assert_int_equal(method_open(&method, "byol", device, &config, &error), STATUS_CONFIG);
    config = small_config(0);
    config.batch = 0;
    assert_int_equal(method_open(&method, "byol", device, &config, &error), STATUS_CONFIG);
    config = small_config(0);
    config.accumulate = 4;
    assert_int_equal(method_open(&method, "byol", device, &config, &error), STATUS_CONFIG);
    assert_non_null(strstr(error.reason, "micro-batches"));
    config = small_config(0);
    config.model.size = 3;
    assert_int_equal(method_open(&method, "byol", device, &config, &error), STATUS_INVALID);
    assert_null(method);
    device_close(&device);
}

// Bytes and records of BATCH images, which plain C finishes into the fixture's views.
static void make_bytes(struct fixture *fixture, uint8_t *bytes[2], struct view_record *drawn[2])
{
    enum { VALUES = SIDE * SIDE * 3 };
    uint32_t seed = 5;
    float *work = malloc(view_finish_floats(SIDE) * sizeof *work);
    for (unsigned v = 0; v < 2; v++) {
        bytes[v] = malloc((size_t)BATCH * VALUES);
        drawn[v] = calloc(BATCH, sizeof **drawn);
        for (size_t i = 0; i < (size_t)BATCH * VALUES; i++) {
            bytes[v][i] = (uint8_t)(255 * noise(&seed));
        }
        for (size_t i = 0; i < BATCH; i++) {
            drawn[v][i] = (struct view_record){.flip = i % 2,
                                               .jitter = i % 3 > 0,
                                               .blur = i % 2 == v,
                                               .solarize = i == 1,
                                               .order = {2, 1, 3, 0},
                                               .taps = 5,
                                               .brightness = 0.2f,
                                               .contrast = 1.2f,
                                               .saturation = 0.9f,
                                               .hue = -0.05f,
                                               .sigma = 1.5f,
                                               .threshold = 0.5f};
            view_finish(&drawn[v][i], SIDE, bytes[v] + i * VALUES, fixture->views[v] + i * VALUES,
                        work);
        }
    }
    free(work);
}

static enum status step_bytes(struct fixture *fixture, uint8_t *const bytes[2],
                              struct view_record *const drawn[2], const int32_t *labels)
{
    const struct method_step settings = {0.1f, 0.9f};
    return fixture->method->ops->step_bytes(fixture->method, (const uint8_t *const *)bytes,
                                            (const struct view_record *const *)drawn, labels,
                                            &settings, &error);
}

// Batches of the kind that a method was not opened for.
static void check_wrong_batches(struct fixture *floats, struct fixture *finishing,
                                uint8_t *const bytes[2], struct view_record *const drawn[2])
{
    const struct method_step settings = {0.1f, 0.9f};
    const float *const *views = (const float *const *)floats->views;
    assert_int_equal(
        finishing->method->ops->step(finishing->method, views, NULL, &settings, &error),
        STATUS_INVALID);
    assert_int_equal(step_bytes(floats, bytes, drawn, NULL), STATUS_INVALID);
}

// As many steps as it takes to record one. Devices round views as they like, but for ref.
static void check_bytes(const char *device, int64_t classes, uint32_t accumulate)
{
    struct method_config config = small_config(classes);
    config.accumulate = accumulate;
    struct fixture floats = open_configured(device, config);
    config.bytes = true;
    struct fixture finishing = open_configured(device, config);
    const int32_t *labels = classes > 0 ? floats.labels : NULL;
    uint8_t *bytes[2];
    struct view_record *drawn[2];
    make_bytes(&floats, bytes, drawn);
    bool exact = strcmp(device, "ref") == 0;
    for (int i = 0; i < 3; i++) {
        step(&floats, labels, 0.1f, 0.9f);
        check_status(step_bytes(&finishing, bytes, drawn, labels));
        check_status(finishing.method->ops->collect(finishing.method, &finishing.metrics, &error));
        double difference = fabs(finishing.metrics.loss - floats.metrics.loss);
        assert_true(difference <= (exact ? 0 : 1e-3));
    }
    assert_true(!exact || same_saved(&floats, "", &finishing, ""));
    check_wrong_batches(&floats, &finishing, bytes, drawn);
    for (unsigned v = 0; v < 2; v++) {
        free(bytes[v]);
        free(drawn[v]);
    }
    close_fixture(&floats);
    close_fixture(&finishing);
}

static bool finishes_views(const char *name)
{
    struct device *device;
    check_status(device_open(&device, name, 1, DEVICE_F32, &error));
    bool finishes = device->ops->render_views != NULL;
    device_close(&device);
    return finishes;
}

static void check_bytes_on(const char *device)
{
    if (finishes_views(device)) {
        check_bytes(device, CLASSES, 2);
    }
}

static void test_bytes_give_the_steps_of_the_views_they_become(void **state)
{
    (void)state;
    on_every_device(check_bytes_on);
    check_bytes("ref", 0, 1);
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
    fixture.device->timed = true; // no news for devices that compute at once
    step(&fixture, fixture.labels, 0.3f, 1);
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
    struct fixture fixture = open_configured(device, config);
    struct fixture untouched = open_configured(device, config);
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

// Queues `steps` steps of other images, rates and labels each, with up to `ahead` in flight beside
// the one that is collected next.
static void run_ahead(struct fixture *fixture, unsigned steps, unsigned ahead, double *losses)
{
    const struct method_ops *ops = fixture->method->ops;
    const size_t shift = (size_t)SIDE * 3;
    for (unsigned queued = 0, collected = 0; collected < steps;) {
        while (queued < steps && queued - collected <= ahead) {
            const float *const views[2] = {fixture->views[0] + queued * shift,
                                           fixture->views[1] + queued * shift};
            struct method_step settings = {0.1f + 0.05f * (float)queued, 0.9f};
            check_status(ops->step(fixture->method, views, queued == 3 ? NULL : fixture->labels,
                                   &settings, &error));
            queued++;
        }
        check_status(ops->collect(fixture->method, &fixture->metrics, &error));
        losses[collected++] = fixture->metrics.loss + fixture->metrics.classification;
    }
}

// Steps in flight do what steps one by one do, bit for bit.
static void check_steps_in_flight(const char *device)
{
    struct method_config config = small_config(CLASSES);
    config.batch = BATCH - 2; // so that steps can begin elsewhere in the views
    struct fixture first = open_configured(device, config);
    struct fixture second = open_configured(device, config);
    double one_by_one[8], in_flight[8];
    run_ahead(&first, 8, 0, one_by_one);
    run_ahead(&second, 8, second.device->ops->steps_ahead, in_flight);
    assert_memory_equal(one_by_one, in_flight, sizeof in_flight);
    assert_true(same_saved(&first, "", &second, ""));
    close_fixture(&first);
    close_fixture(&second);
}

static void test_steps_in_flight(void **state)
{
    (void)state;
    on_every_device(check_steps_in_flight);
}

// Only so many steps may wait, and a refused one changes nothing.
static void check_too_many_steps(const char *device)
{
    struct fixture fixture = open_fixture(device, CLASSES), other = open_fixture(device, CLASSES);
    const struct method_ops *ops = fixture.method->ops;
    const float *const views[2] = {fixture.views[0], fixture.views[1]};
    const struct method_step settings = {0.2f, 0.9f};
    assert_int_equal(ops->collect(fixture.method, &fixture.metrics, &error), STATUS_INVALID);
    unsigned takes = 1 + fixture.device->ops->steps_ahead;
    for (unsigned i = 0; i < takes; i++) {
        check_status(ops->step(fixture.method, views, fixture.labels, &settings, &error));
        step(&other, other.labels, 0.2f, 0.9f);
    }
    assert_int_equal(ops->step(fixture.method, views, fixture.labels, &settings, &error),
                     STATUS_INVALID);
    for (unsigned i = 0; i < takes; i++) {
        check_status(ops->collect(fixture.method, &fixture.metrics, &error));
    }
    assert_int_equal(ops->collect(fixture.method, &fixture.metrics, &error), STATUS_INVALID);
    assert_true(same_saved(&fixture, "", &other, ""));
    close_fixture(&fixture);
    close_fixture(&other);
}

static void test_too_many_steps(void **state)
{
    (void)state;
    on_every_device(check_too_many_steps);
}

// A label that no class has never reaches the device.
static void check_wrong_label(const char *device)
{
    struct fixture fixture = open_fixture(device, CLASSES);
    const float *const views[2] = {fixture.views[0], fixture.views[1]};
    const struct method_step settings = {0.2f, 0.9f};
    fixture.labels[4] = CLASSES;
    assert_int_equal(
        fixture.method->ops->step(fixture.method, views, fixture.labels, &settings, &error),
        STATUS_INVALID);
    assert_non_null(strstr(error.reason, "class 5"));
    fixture.labels[4] = 0;
    step(&fixture, fixture.labels, 0.2f, 0.9f);
    close_fixture(&fixture);
}

static void test_wrong_label(void **state)
{
    (void)state;
    on_every_device(check_wrong_label);
}

static void test_resume(void **state)
{
    (void)state;
    on_every_device(check_resume);
}

// --- accumulation

static float *gradients_of(const struct fixture *fixture, size_t count)
{
    float *host = malloc(count * sizeof *host);
    assert_non_null(host);
    fixture->device->ops->copy_out(fixture->device, host, byol_of(fixture->method)->gradients,
                                   count * sizeof *host);
    return host;
}

// The mean over the micro-batches of plain steps' gradients, all at the first parameters.
static float *mean_gradients(struct fixture *plain, uint32_t micro_batches, size_t count)
{
    uint32_t micro = BATCH / micro_batches;
    double *sum = calloc(count, sizeof *sum);
    float *mean = malloc(count * sizeof *mean);
    assert_true(sum && mean);
    for (uint32_t first = 0; first < BATCH; first += micro) {
        step_from(plain, first, plain->labels + first, 0, 1); // moves running statistics only
        float *gradients = gradients_of(plain, count);
        for (size_t i = 0; i < count; i++) {
            sum[i] += (double)gradients[i];
        }
        free(gradients);
    }
    for (size_t i = 0; i < count; i++) {
        mean[i] = (float)(sum[i] / micro_batches);
    }
    free(sum);
    return mean;
}

// The optimiser's step and the target's by hand, with these gradients, from fresh parameters.
static void update_by_hand(struct fixture *fresh, const float *gradients, size_t count, float rate,
                           float tau)
{
    struct byol *byol = byol_of(fresh->method);
    const struct device_ops *ops = fresh->device->ops;
    float *rate_there = device_value(fresh->device, rate);
    const struct lars_settings lars = {rate_there, 1e-4f, 0.9f, 1e-2f};
    ops->copy_in(fresh->device, byol->gradients, gradients, count * sizeof *gradients);
    assert_int_equal(ops->lars_step(fresh->device, byol->spans, graph_param_count(byol->graph),
                                    &lars, byol->online_params, byol->gradients, byol->momentum,
                                    NULL),
                     STATUS_OK);
    assert_int_equal(ops->moving_average(fresh->device, byol->target_params, byol->online_params,
                                         count, 1.0f - tau),
                     STATUS_OK);
    ops->release(fresh->device, rate_there);
}

// `bound`: of the relative difference.
static void assert_near_saved(const struct fixture *a, const struct fixture *b, const char *prefix,
                              double bound)
{
    size_t count_a, count_b;
    float *x = saved(a, prefix, &count_a), *y = saved(b, prefix, &count_b);
    assert_int_equal(count_a, count_b);
    double size = 0, off = 0;
    for (size_t i = 0; i < count_a; i++) {
        size += (double)x[i] * (double)x[i];
        off += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    }
    if (!(off <= bound * bound * size)) {
        fail_msg("%s: relative difference %g", prefix, sqrt(off / size));
    }
    free(x);
    free(y);
}

// One step over micro-batches is the plain computation of the mean of their gradients, one update
// with it, and running statistics that saw the micro-batches one after the other.
static void check_accumulation(const char *device)
{
    double bound = strcmp(device, "cuda") == 0 ? 2e-5 : 1e-6; // a GPU sums in float32 throughout
    for (uint32_t micro_batches = 2; micro_batches <= 3; micro_batches++) {
        struct method_config config = small_config(CLASSES);
        config.accumulate = micro_batches;
        struct fixture whole = open_configured(device, config);
        struct fixture by_hand = open_fixture(device, CLASSES);
        config.accumulate = 0;
        config.batch = BATCH / micro_batches;
        struct fixture plain = open_configured(device, config);
        size_t count = graph_param_floats(plain.method->ops->graph(plain.method));

        float *mean = mean_gradients(&plain, micro_batches, count);
        update_by_hand(&by_hand, mean, count, 0.1f, 0.9f);
        step(&whole, whole.labels, 0.1f, 0.9f);
        float *found = gradients_of(&whole, count);
        if (micro_batches == 2) { // halving is exact
            assert_memory_equal(found, mean, count * sizeof *mean);
        }
        assert_near_saved(&by_hand, &whole, "online/", bound);
        assert_near_saved(&by_hand, &whole, "momentum/", bound);
        assert_near_saved(&by_hand, &whole, "target/", bound);
        assert_true(same_saved(&plain, "state/", &whole, "state/"));
        free(mean);
        free(found);
        close_fixture(&whole);
        close_fixture(&by_hand);
        close_fixture(&plain);
    }
}

static void test_accumulation(void **state)
{
    (void)state;
    on_every_device(check_accumulation);
}

// Metrics are those of the whole batch: here the micro-batches are alike, and so is their whole.
static void test_metrics_of_micro_batches(void **state)
{
    (void)state;
    struct method_config config = small_config(CLASSES);
    config.accumulate = 2;
    struct fixture whole = open_configured("ref", config);
    config.accumulate = 1;
    config.batch = BATCH / 2;
    struct fixture half = open_configured("ref", config);
    size_t floats = (size_t)BATCH / 2 * SIDE * SIDE * 3;
    for (unsigned v = 0; v < 2; v++) {
        memmove(whole.views[v] + floats, whole.views[v], floats * sizeof(float));
    }
    const int32_t labels[BATCH] = {0, 1, -1, 0, 1, -1};
    step(&whole, labels, 0.1f, 0.9f);
    step(&half, labels, 0.1f, 0.9f);
    assert_true(fabs(whole.metrics.loss - half.metrics.loss) < 1e-9);
    assert_true(fabs(whole.metrics.spread - half.metrics.spread) < 1e-7);
    assert_true(fabs(whole.metrics.positive_cosine - half.metrics.positive_cosine) < 1e-6);
    assert_true(whole.metrics.top1 == half.metrics.top1);
    assert_true(whole.metrics.top5 == half.metrics.top5);
    assert_true(same_saved(&whole, "online/", &half, "online/"));
    assert_false(same_saved(&whole, "state/", &half, "state/")); // twice as many updates
    close_fixture(&whole);
    close_fixture(&half);
}

// A batch of labels that lie in one micro-batch only: the mean is over the batch's labelled images.
static void test_labels_in_one_micro_batch(void **state)
{
    (void)state;
    struct method_config config = small_config(CLASSES);
    config.accumulate = 3;
    struct fixture fixture = open_configured("ref", config);
    const int32_t labels[BATCH] = {-1, -1, -1, 2, -1, -1};
    step(&fixture, labels, 0, 1);
    double untrained = log(CLASSES); // give or take what random weights do
    assert_true(fixture.metrics.classification > 0.2 * untrained);
    assert_true(fixture.metrics.classification < 5 * untrained);
    assert_true(fixture.metrics.top1 == 0 || fixture.metrics.top1 == 1);
    close_fixture(&fixture);
}

static void test_accumulation_takes_less_memory(void **state)
{
    (void)state;
    struct method_config config = small_config(CLASSES);
    config.batch = 192;
    uint64_t bytes[2];
    for (uint32_t i = 0; i < 2; i++) {
        config.accumulate = i ? 16 : 1;
        struct device *device;
        struct method *method;
        check_status(device_open(&device, "ref", 1, DEVICE_F32, &error));
        check_status(method_open(&method, "byol", device, &config, &error));
        bytes[i] = method->ops->memory(method);
        method_close(&method);
        device_close(&device);
    }
    assert_true(bytes[1] < bytes[0] / 8);
}

static struct spread spread_of_rows(float *values, size_t images, size_t micro, size_t width)
{
    double sums[SPREAD_SUMS(3)];
    spread_sums(values, images, micro, width, sums);
    return spread_of(sums, images, width);
}

static void test_spread(void **state)
{
    (void)state;
    float same[] = {1, 2, 3, 2, 4, 6, 0.5f, 1, 1.5f, 3, 6, 9}; // one direction, four lengths
    struct spread spread = spread_of_rows(same, 2, 2, 3);
    assert_true(spread.deviation < 1e-3);
    assert_true(fabs(spread.positive_cosine - 1) < 1e-6);
    assert_true(fabs(spread.negative_cosine - 1) < 1e-6);
    float axes[] = {2, 0, -3, 0, 0, 1, 0, -0.5f}; // every axis both ways: 1/sqrt(2)
    assert_true(fabs(spread_of_rows(axes, 2, 2, 2).deviation - sqrt(0.5)) < 1e-6);
    float nothing[] = {0, 0, 0, 0};
    spread = spread_of_rows(nothing, 1, 1, 2);
    assert_true(spread.deviation == 0 && spread.positive_cosine == 0);
    assert_true(isnan(spread.negative_cosine)); // of a single image
}

// Four images in two micro-batches, which know their pairs by place: cosines counted one by one.
static void test_cosines(void **state)
{
    (void)state;
    float rows[] = {1, 0, 0, 0, 2, 0, /* their second views: */ 3, 0, 0,  0,  3, 4,
                    0, 0, 5, 1, 1, 0, /* their second views: */ 0, 0, -2, -1, 1, 0};
    static const int image_of[] = {0, 1, 0, 1, 2, 3, 2, 3};
    float unit[24];
    memcpy(unit, rows, sizeof rows);
    struct spread spread = spread_of_rows(rows, 4, 2, 3);
    assert_true(fabs(spread.positive_cosine - (1 + 0.6 - 1 + 0) / 4) < 1e-6);
    double sum = 0;
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < 8; k++) {
            const float *a = unit + i * 3, *b = unit + k * 3;
            float dot = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
            float lengths = (a[0] * a[0] + a[1] * a[1] + a[2] * a[2]) *
                            (b[0] * b[0] + b[1] * b[1] + b[2] * b[2]);
            sum += image_of[i] != image_of[k] ? (double)dot / sqrt((double)lengths) : 0;
        }
    }
    assert_true(fabs(spread.negative_cosine - sum / (8 * 6)) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_method),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_tensor_names),
        cmocka_unit_test(test_bytes_give_the_steps_of_the_views_they_become),
        cmocka_unit_test(test_learning),
        cmocka_unit_test(test_every_optimizer_learns),
        cmocka_unit_test(test_target_follows),
        cmocka_unit_test(test_rate_zero),
        cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_missing_labels),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_steps_in_flight),
        cmocka_unit_test(test_too_many_steps),
        cmocka_unit_test(test_wrong_label),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_metrics_of_micro_batches),
        cmocka_unit_test(test_labels_in_one_micro_batch),
        cmocka_unit_test(test_accumulation_takes_less_memory),
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_cosines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
