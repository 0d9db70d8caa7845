// Every optimiser on every device against the formulas of its authors, computed here in double
// precision one value after the other, and the same bits for any number of threads.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "trainer/method/optimiser.h"

#define PARAMS 20000
#define STEPS  5

#define TARGET_RATE 0.03f

// The last decay span is all zeros at the start, another has no gradient; 15000 on is nobody's.
static const struct param_span spans[] = {
    {0, 1, true, 1.0f},        {1, 4000, false, 1.0f},    {4001, 6000, true, 1.0f},
    {10001, 2000, true, 0.5f}, {12001, 1000, true, 2.0f}, {13001, 1999, false, 3.0f},
};
#define SPANS (sizeof spans / sizeof *spans)

static const float rates[STEPS] = {0.0f, 0.02f, 0.3f, 0.1f, 0.05f}; // a warm-up begins at 0

struct variant {
    const char *name;
    struct method_config config;
};

#define DECAY .weight_decay = 1e-2, .momentum = 0.9
#define BETAS .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8
static const struct variant variants[] = {
    {"lars", {DECAY, .trust = 1e-2, .optimizer = OPTIMIZER_LARS}},
    {"solo-learn", {DECAY, .trust = 2e-2, .optimizer = OPTIMIZER_LARS_SOLO_LEARN}},
    {"solo-learn, clip",
     {DECAY, .trust = 2e-2, .optimizer = OPTIMIZER_LARS_SOLO_LEARN, .lars_clip = true}},
    {"solo-learn, Nesterov",
     {DECAY, .trust = 2e-2, .optimizer = OPTIMIZER_LARS_SOLO_LEARN, .nesterov = true}},
    {"suncet", {DECAY, .trust = 1e-2, .optimizer = OPTIMIZER_LARS_SUNCET}},
    {"suncet, Nesterov",
     {DECAY, .trust = 1e-2, .optimizer = OPTIMIZER_LARS_SUNCET, .nesterov = true}},
    {"sgd", {DECAY, .optimizer = OPTIMIZER_SGD}},
    {"sgd, Nesterov", {DECAY, .optimizer = OPTIMIZER_SGD, .nesterov = true}},
    {"sgd, plain", {.optimizer = OPTIMIZER_SGD}},
    {"adamw", {.weight_decay = 1e-2, BETAS, .optimizer = OPTIMIZER_ADAMW}},
    {"adamw, no memory", {.epsilon = 1e-3, .optimizer = OPTIMIZER_ADAMW}},
};
#define VARIANTS (sizeof variants / sizeof *variants)

// --- data ------------------------------------------------------------------------------------

static float noise(uint64_t *state) // uniform in [-1, 1)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / 8388608.0f - 1.0f;
}

static void make_start(float *params)
{
    uint64_t seed = 1;
    for (size_t i = 0; i < PARAMS; i++) {
        params[i] = i >= 12001 && i < 13001 ? 0.0f : noise(&seed);
    }
}

static void make_gradients(float *grads, int step)
{
    uint64_t seed = 100 + (uint64_t)step;
    for (size_t i = 0; i < PARAMS; i++) {
        float value = 0.3f * noise(&seed);
        grads[i] = i >= 10001 && i < 12001 && step == 2 ? 0.0f : value;
    }
}

// --- the formulas ----------------------------------------------------------------------------

struct plain {
    double w[PARAMS], m[PARAMS], v[PARAMS];
};

static double plain_norm(const double *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += values[i] * values[i];
    }
    return sqrt(sum);
}

// google-deepmind/deepmind-research byol/utils/optimizers.py
static void plain_lars(const struct method_config *config, const struct param_span *span,
                       double rate, double *w, double *g, double *m)
{
    for (size_t i = 0; span->decay && i < span->count; i++) {
        g[i] += config->weight_decay * w[i];
    }
    double weights = plain_norm(w, span->count), gradients = plain_norm(g, span->count);
    double ratio = weights > 0 && gradients > 0 ? config->trust * weights / gradients : 1;
    for (size_t i = 0; i < span->count; i++) {
        m[i] = config->momentum * m[i] + (span->decay ? ratio : 1) * g[i];
        w[i] -= rate * m[i];
    }
}

// vturrisi/solo-learn solo/utils/lars.py, facebookresearch/suncet src/lars.py: decay and ratio.
static void plain_adapt(const struct method_config *config, const struct param_span *span,
                        double rate, const double *w, double *g)
{
    double weights = plain_norm(w, span->count), gradients = plain_norm(g, span->count);
    if (!span->decay || weights == 0 || gradients == 0) {
        return;
    }
    double ratio = config->trust * weights / (gradients + weights * config->weight_decay + 1e-8);
    if (config->lars_clip) {
        ratio = fmin(ratio / rate, 1);
    }
    for (size_t i = 0; i < span->count; i++) {
        g[i] = (g[i] + config->weight_decay * w[i]) * ratio;
    }
}

// torch.optim.SGD; suncet's own (src/sgd.py) takes the rate into the momentum.
static void plain_sgd(const struct method_config *config, const struct param_span *span,
                      double rate, double *w, double *g, double *m)
{
    bool suncet = config->optimizer == OPTIMIZER_LARS_SUNCET;
    for (size_t i = 0; i < span->count; i++) {
        if (config->optimizer == OPTIMIZER_SGD && span->decay) {
            g[i] += config->weight_decay * w[i];
        }
        // The part's multiplier is a constant: left out of suncet's momentum, and put in here.
        double scale = (double)span->learning_rate_scale;
        double in = suncet ? rate / scale * g[i] : g[i], out = suncet ? scale : rate;
        m[i] = config->momentum * m[i] + in;
        w[i] -= out * (config->nesterov ? in + config->momentum * m[i] : m[i]);
    }
}

// Loshchilov and Hutter, as torch.optim.AdamW.
static void plain_adamw(const struct method_config *config, const struct param_span *span,
                        double rate, int t, double *w, const double *g, double *m, double *v)
{
    for (size_t i = 0; i < span->count; i++) {
        w[i] *= 1 - (span->decay ? rate * config->weight_decay : 0);
        m[i] = config->beta1 * m[i] + (1 - config->beta1) * g[i];
        v[i] = config->beta2 * v[i] + (1 - config->beta2) * g[i] * g[i];
        double mean = m[i] / (1 - pow(config->beta1, t));
        double square = v[i] / (1 - pow(config->beta2, t));
        w[i] -= rate * mean / (sqrt(square) + config->epsilon);
    }
}

static void plain_step(const struct method_config *config, int step, struct plain *plain)
{
    float grads[PARAMS];
    static double g[PARAMS];
    make_gradients(grads, step);
    for (size_t i = 0; i < PARAMS; i++) {
        g[i] = (double)grads[i];
    }
    for (const struct param_span *span = spans; span < spans + SPANS; span++) {
        size_t at = span->offset;
        double rate = (double)rates[step] * (double)span->learning_rate_scale;
        double *w = plain->w + at, *m = plain->m + at;
        if (config->optimizer == OPTIMIZER_LARS) {
            plain_lars(config, span, rate, w, g + at, m);
        } else if (config->optimizer == OPTIMIZER_ADAMW) {
            plain_adamw(config, span, rate, step + 1, w, g + at, m, plain->v + at);
        } else {
            if (config->optimizer != OPTIMIZER_SGD) {
                plain_adapt(config, span, rate, w, g + at);
            }
            plain_sgd(config, span, rate, w, g + at, m);
        }
    }
}

static struct plain *plain_run(const struct method_config *config)
{
    float start[PARAMS];
    struct plain *plain = calloc(1, sizeof *plain);
    assert_non_null(plain);
    make_start(start);
    for (size_t i = 0; i < PARAMS; i++) {
        plain->w[i] = (double)start[i];
    }
    for (int step = 0; step < STEPS; step++) {
        plain_step(config, step, plain);
    }
    return plain;
}

// --- the devices -----------------------------------------------------------------------------

struct device_run {
    float w[PARAMS], m[PARAMS], v[PARAMS], target[PARAMS], steps;
};

static void *zeros(struct device *device, size_t bytes)
{
    void *memory;
    assert_int_equal(device->ops->allocate(device, &memory, bytes, NULL), STATUS_OK);
    return memory;
}

static void fetch(struct device *device, float *to, float *from, size_t count)
{
    assert_int_equal(device->ops->copy_out(device, to, from, count * sizeof *to), STATUS_OK);
    device->ops->release(device, from);
}

// How a target follows the parameters.
enum following { NOT_AT_ALL, IN_THE_SAME_PASS, AFTERWARDS };

static struct device_run *device_run(const char *name, int threads, enum following following,
                                     const struct method_config *config)
{
    struct device *device;
    struct device_run *run = calloc(1, sizeof *run);
    assert_non_null(run);
    assert_int_equal(device_open(&device, name, threads, DEVICE_F32, NULL), STATUS_OK);
    size_t bytes = sizeof run->w;
    float *grads = zeros(device, bytes);
    struct optimiser_blocks blocks = {.params = zeros(device, bytes),
                                      .grads = grads,
                                      .momentum = zeros(device, bytes),
                                      .second_moment = zeros(device, bytes),
                                      .steps = zeros(device, sizeof run->steps)};
    float *target = zeros(device, bytes), *learning_rates = zeros(device, sizeof rates);
    float *target_rate = device_value(device, TARGET_RATE);
    assert_int_equal(device->ops->copy_in(device, learning_rates, rates, sizeof rates), STATUS_OK);
    if (following == IN_THE_SAME_PASS) {
        blocks.target = (struct moving_target){target, target_rate};
    }
    make_start(run->w);
    assert_int_equal(device->ops->copy_in(device, blocks.params, run->w, bytes), STATUS_OK);
    for (int step = 0; step < STEPS; step++) {
        make_gradients(run->w, step);
        assert_int_equal(device->ops->copy_in(device, grads, run->w, bytes), STATUS_OK);
        assert_int_equal(
            optimiser_step(device, config, spans, SPANS, learning_rates + step, &blocks),
            STATUS_OK);
        if (following == AFTERWARDS) {
            assert_int_equal(
                device->ops->moving_average(device, target, blocks.params, PARAMS, TARGET_RATE),
                STATUS_OK);
        }
    }
    device->ops->release(device, grads);
    device->ops->release(device, learning_rates);
    device->ops->release(device, target_rate);
    fetch(device, run->target, target, PARAMS);
    fetch(device, run->w, blocks.params, PARAMS);
    fetch(device, run->m, blocks.momentum, PARAMS);
    fetch(device, run->v, blocks.second_moment, PARAMS);
    fetch(device, &run->steps, blocks.steps, 1);
    device_close(&device);
    return run;
}

// Largest difference, in parts of the largest value.
static double difference(const float *got, const double *wanted)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < PARAMS; i++) {
        worst = fmax(worst, fabs((double)got[i] - wanted[i]));
        largest = fmax(largest, fabs(wanted[i]));
    }
    return largest > 0 ? worst / largest : worst;
}

static void check_variant(const struct variant *variant, const char *device)
{
    struct plain *wanted = plain_run(&variant->config);
    struct device_run *one = device_run(device, 1, NOT_AT_ALL, &variant->config);
    struct device_run *three = device_run(device, 3, NOT_AT_ALL, &variant->config);
    assert_memory_equal(one, three, sizeof *one);
    double w = difference(one->w, wanted->w), m = difference(one->m, wanted->m);
    double v = difference(one->v, wanted->v);
    if (!(w < 1e-6 && m < 1e-6 && v < 1e-6)) {
        fail_msg("%s on %s: parameters differ by %g, momentum by %g, second moment by %g",
                 variant->name, device, w, m, v);
    }
    bool adamw = variant->config.optimizer == OPTIMIZER_ADAMW;
    assert_true(one->steps == (adamw ? STEPS : 0));
    free(wanted);
    free(one);
    free(three);
}

static void optimisers_do_what_their_authors_wrote(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        for (size_t i = 0; i < VARIANTS; i++) {
            check_variant(&variants[i], (*ops)->name);
        }
    }
}

// What has no span stays as it was.
static void what_is_not_learnt_stays(void **state)
{
    (void)state;
    float start[PARAMS];
    make_start(start);
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        for (size_t i = 0; i < VARIANTS; i++) {
            struct device_run *run =
                device_run((*ops)->name, 2, IN_THE_SAME_PASS, &variants[i].config);
            assert_memory_equal(run->w + 15000, start + 15000, 5000 * sizeof *start);
            assert_true(run->target[14999] != 0 && run->target[15000] == 0);
            assert_memory_not_equal(run->w + 13001, start + 13001, 1999 * sizeof *start);
            free(run);
        }
    }
}

// The target's bits are those of a moving average after the step, and nothing else is moved by it.
// Outside of the spans only the latter follows.
static void a_target_follows_in_the_same_pass(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        for (size_t i = 0; i < VARIANTS; i++) {
            const struct method_config *config = &variants[i].config;
            struct device_run *wanted = device_run((*ops)->name, 1, AFTERWARDS, config);
            for (int threads = 1; threads <= 3; threads++) {
                struct device_run *got =
                    device_run((*ops)->name, threads, IN_THE_SAME_PASS, config);
                memset(wanted->target + 15000, 0, 5000 * sizeof(float));
                assert_memory_equal(got, wanted, sizeof *got);
                free(got);
            }
            free(wanted);
        }
    }
}

// The variants are variants: no two of them end at the same place.
static void every_variant_differs(void **state)
{
    (void)state;
    for (size_t i = 0; i < VARIANTS; i++) {
        struct plain *one = plain_run(&variants[i].config);
        for (size_t k = 0; k < i; k++) {
            struct plain *other = plain_run(&variants[k].config);
            assert_memory_not_equal(one->w, other->w, sizeof one->w);
            free(other);
        }
        free(one);
    }
}

static void a_module_has_its_own_rate(void **state)
{
    (void)state;
    struct method_config config = {.rates = {{"predictor", 10}, {"resnet", 0}}};
    assert_true(optimiser_rate_of(&config, "predictor/linear/w") == 10);
    assert_true(optimiser_rate_of(&config, "resnet/initial_conv/w") == 0);
    assert_true(optimiser_rate_of(&config, "projector/linear/w") == 1);
    assert_true(optimiser_rate_of(&config, "predictors/linear/w") == 1);
    assert_true(optimiser_rate_of(&(struct method_config){0}, "resnet/initial_conv/w") == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimisers_do_what_their_authors_wrote),
        cmocka_unit_test(what_is_not_learnt_stays),
        cmocka_unit_test(a_target_follows_in_the_same_pass),
        cmocka_unit_test(every_variant_differs),
        cmocka_unit_test(a_module_has_its_own_rate),
    };
    return cmocka_run_group_tests_name("optimisers", tests, NULL, NULL);
}
