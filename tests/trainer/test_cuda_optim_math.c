// The arithmetic of the cuda device's optimisers and losses, value by value on the processor,
// against the reference device: the same bits for a step, rounding apart for losses.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/cuda/loss_math.h"
#include "trainer/cuda/optim_math.h"

#define PARAMS 3000
#define STEPS  4

// The third has neither weights nor gradients, the fourth no weights, the fifth no gradients.
static const struct param_span spans[] = {
    {0, 1, true, 1.0f},      {1, 999, true, 0.5f},     {1000, 300, true, 1.0f},
    {1300, 400, true, 2.0f}, {1700, 500, true, 1.0f},  {2200, 300, false, 3.0f},
    {2500, 3, true, 1e3f},   {2503, 497, false, 1.0f},
};
#define SPANS (sizeof spans / sizeof *spans)

static const float rates[STEPS] = {0.0f, 0.02f, 0.5f, 0.1f};
static const float target_rate = 0.03f;
static float rate; // where the settings point

struct values {
    float w[PARAMS], g[PARAMS], m[PARAMS], v[PARAMS], target[PARAMS], steps;
};

static float noise(uint64_t *state) // uniform in [-1, 1)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / 8388608.0f - 1.0f;
}

static void make_start(struct values *values)
{
    uint64_t seed = 1;
    memset(values, 0, sizeof *values);
    for (size_t i = 0; i < PARAMS; i++) {
        values->w[i] = i >= 1000 && i < 1700 ? 0.0f : noise(&seed);
        values->target[i] = noise(&seed);
    }
}

static void make_gradients(struct values *values, uint64_t seed)
{
    for (size_t i = 0; i < PARAMS; i++) {
        bool none = (i >= 1000 && i < 1300) || (i >= 1700 && i < 2200);
        values->g[i] = none ? 0.0f : 0.3f * noise(&seed);
    }
}

static struct square_sums sums_of(const struct values *values, const struct param_span *span,
                                  float decay)
{
    struct square_sums sums = {0, 0};
    for (size_t i = span->offset; i < span->offset + span->count; i++) {
        square_sums_add(&sums, values->w[i], values->g[i], decay);
    }
    return sums;
}

// --- one step by each optimiser: by the formulas, and by the device

typedef void formula_step(const void *settings, struct values *values);
typedef enum status device_step(struct device *device, const void *settings, struct values *values);

static void lars_formula(const void *settings, struct values *values)
{
    const struct lars_settings *lars = settings;
    for (const struct param_span *span = spans; span < spans + SPANS; span++) {
        struct square_sums sums = sums_of(values, span, lars->weight_decay);
        struct lars_factors own =
            lars_factors_of(lars, span, sqrt(sums.weights), sqrt(sums.gradients));
        for (size_t i = span->offset; i < span->offset + span->count; i++) {
            lars_move(&own, values->g[i], &values->w[i], &values->m[i]);
            target_follow(&values->target[i], values->w[i], target_rate);
        }
    }
}

static void sgd_formula(const void *settings, struct values *values)
{
    for (const struct param_span *span = spans; span < spans + SPANS; span++) {
        struct square_sums sums = sums_of(values, span, 0);
        struct sgd_factors own =
            sgd_factors_of(settings, span, sqrt(sums.weights), sqrt(sums.gradients));
        for (size_t i = span->offset; i < span->offset + span->count; i++) {
            sgd_move(&own, values->g[i], &values->w[i], &values->m[i]);
            target_follow(&values->target[i], values->w[i], target_rate);
        }
    }
}

static void adamw_formula(const void *settings, struct values *values)
{
    values->steps += 1.0f;
    for (const struct param_span *span = spans; span < spans + SPANS; span++) {
        struct adamw_factors own = adamw_factors_of(settings, span, values->steps);
        for (size_t i = span->offset; i < span->offset + span->count; i++) {
            adamw_move(&own, values->g[i], &values->w[i], &values->m[i], &values->v[i]);
            target_follow(&values->target[i], values->w[i], target_rate);
        }
    }
}

static enum status lars_device(struct device *device, const void *settings, struct values *values)
{
    struct moving_target target = {values->target, &target_rate};
    return device->ops->lars_step(device, spans, SPANS, settings, values->w, values->g, values->m,
                                  &target);
}

static enum status sgd_device(struct device *device, const void *settings, struct values *values)
{
    struct moving_target target = {values->target, &target_rate};
    return device->ops->sgd_step(device, spans, SPANS, settings, values->w, values->g, values->m,
                                 &target);
}

static enum status adamw_device(struct device *device, const void *settings, struct values *values)
{
    struct moving_target target = {values->target, &target_rate};
    return device->ops->adamw_step(device, spans, SPANS, settings, values->w, values->g, values->m,
                                   values->v, &values->steps, &target);
}

static void check_steps(formula_step *formula, device_step *step, const void *settings)
{
    static struct values got, wanted;
    struct device *device;
    assert_int_equal(device_open(&device, "ref", 1, DEVICE_F32, NULL), STATUS_OK);
    make_start(&got);
    make_start(&wanted);
    for (size_t i = 0; i < STEPS; i++) {
        rate = rates[i];
        make_gradients(&got, 100 + i);
        make_gradients(&wanted, 100 + i);
        formula(settings, &got);
        assert_int_equal(step(device, settings, &wanted), STATUS_OK);
        assert_memory_equal(&got, &wanted, sizeof got);
    }
    device_close(&device);
}

static void lars_has_the_bits_of_the_reference(void **state)
{
    (void)state;
    static const struct lars_settings variants[] = {
        {&rate, 1e-2f, 0.9f, 1e-2f}, {&rate, 0, 0.9f, 1e-3f}, {&rate, 0.5f, 0, 1.0f}};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        check_steps(lars_formula, lars_device, &variants[i]);
    }
}

#define ADAPTIVE .weight_decay = 1e-2f, .adaptive = true, .trust = 2e-2f
static void sgd_has_the_bits_of_the_reference(void **state)
{
    (void)state;
    static const struct sgd_settings variants[] = {
        {&rate, 0.9f, false, {.weight_decay = 0}},
        {&rate, 0.9f, true, {.weight_decay = 1e-2f}},
        {&rate, 0.9f, false, {ADAPTIVE}},
        {&rate, 0.9f, true, {ADAPTIVE, .clip = true}},
        {&rate, 0.9f, false, {ADAPTIVE, .rate_first = true}},
        {&rate, 0.9f, true, {ADAPTIVE, .rate_first = true}},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        check_steps(sgd_formula, sgd_device, &variants[i]);
    }
}

static void adamw_has_the_bits_of_the_reference(void **state)
{
    (void)state;
    static const struct adamw_settings variants[] = {
        {&rate, 1e-2, 0.9, 0.999, 1e-8}, {&rate, 0, 0, 0, 1e-3}, {&rate, 0.1, 0.8, 0.95, 1e-6}};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        check_steps(adamw_formula, adamw_device, &variants[i]);
    }
}

// --- losses

#define WIDTH 257
#define ROWS  8

static void assert_near(const char *what, size_t row, const float *got, const float *wanted,
                        size_t count)
{
    double largest = 0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)wanted[i]));
    }
    for (size_t i = 0; i < count; i++) {
        if (!(fabs((double)got[i] - (double)wanted[i]) <= 1e-6 * largest)) {
            fail_msg("%s of row %zu is %g at %zu, expected %g", what, row, (double)got[i], i,
                     (double)wanted[i]);
        }
    }
}

static struct loss_row measured(const float *values)
{
    double squares = 0;
    for (size_t i = 0; i < WIDTH; i++) {
        squares += (double)values[i] * (double)values[i];
    }
    return loss_row_of(squares);
}

// Loss of one row; gradient to x.
static float regress_row(const float *x, const float *y, float scale, float *dx)
{
    struct loss_row x_row = measured(x), y_row = measured(y);
    double loss = 0, along = 0;
    for (size_t i = 0; i < WIDTH; i++) {
        double difference = regression_difference(&x_row, x[i], &y_row, y[i]);
        loss += difference * difference;
        along += difference * ((double)x[i] * x_row.inverse);
    }
    for (size_t i = 0; i < WIDTH; i++) {
        double difference = regression_difference(&x_row, x[i], &y_row, y[i]);
        dx[i] = regression_gradient(&x_row, x[i], difference, along, (double)scale);
    }
    return (float)loss;
}

// Lengths from nothing over those under and over the floor to those whose cube underflows.
static void regression_agrees_with_the_reference(void **state)
{
    (void)state;
    static const float lengths[ROWS] = {0, 1e-10f, 1e-7f, 1e-3f, 1, 1e3f, 1e11f, 1e15f};
    static float x[ROWS][WIDTH], y[ROWS][WIDTH], wanted[2][ROWS][WIDTH], got[WIDTH];
    float losses[ROWS];
    uint64_t seed = 7;
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t i = 0; i < WIDTH; i++) {
            x[row][i] = lengths[row] * noise(&seed);
            y[row][i] = noise(&seed);
        }
    }
    struct device *device;
    assert_int_equal(device_open(&device, "ref", 1, DEVICE_F32, NULL), STATUS_OK);
    assert_int_equal(device->ops->regression_loss(device, x[0], y[0], ROWS, WIDTH, 0.25f, losses,
                                                  wanted[0][0], wanted[1][0]),
                     STATUS_OK);
    device_close(&device);
    for (size_t row = 0; row < ROWS; row++) {
        float loss = regress_row(x[row], y[row], 0.25f, got);
        assert_near("loss", row, &loss, &losses[row], 1);
        assert_near("gradient to x", row, got, wanted[0][row], WIDTH);
        regress_row(y[row], x[row], 0.25f, got);
        assert_near("gradient to y", row, got, wanted[1][row], WIDTH);
    }
}

// Loss of one row; its gradient, and how many classes rank before the label.
static float softmax_row(const float *logits, uint32_t label, float scale, float *gradient,
                         uint32_t *rank)
{
    float largest = logits[0];
    double sum = 0;
    *rank = 0;
    for (uint32_t c = 0; c < WIDTH; c++) {
        largest = fmaxf(largest, logits[c]);
        *rank += softmax_before(c, logits[c], label, logits[label]);
    }
    for (uint32_t c = 0; c < WIDTH; c++) {
        sum += softmax_power(logits[c], largest);
    }
    for (uint32_t c = 0; c < WIDTH; c++) {
        double share = softmax_power(logits[c], largest) / sum;
        gradient[c] = softmax_gradient(share, c == label, (double)scale);
    }
    return softmax_loss_of(largest, sum, logits[label]);
}

static void softmax_agrees_with_the_reference(void **state)
{
    (void)state;
    static float logits[ROWS][WIDTH], wanted[ROWS][WIDTH], got[WIDTH];
    const int32_t labels[ROWS] = {0, WIDTH - 1, 5, 100, 3, 200, 256, 17};
    const float scale = 0.125f;
    float losses[ROWS];
    uint8_t top1[ROWS], top5[ROWS];
    uint64_t seed = 9;
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t i = 0; i < WIDTH; i++) { // few different values: many ties
            logits[row][i] = roundf(4 * noise(&seed) * (float)row);
        }
        logits[row][labels[row]] += (float)(5 * row);
    }
    struct device *device;
    assert_int_equal(device_open(&device, "ref", 1, DEVICE_F32, NULL), STATUS_OK);
    assert_int_equal(device->ops->softmax_loss(device, logits[0], labels, ROWS, WIDTH, &scale,
                                               losses, wanted[0], top1, top5),
                     STATUS_OK);
    device_close(&device);
    for (size_t row = 0; row < ROWS; row++) {
        uint32_t rank;
        float loss = softmax_row(logits[row], (uint32_t)labels[row], scale, got, &rank);
        assert_near("loss", row, &loss, &losses[row], 1);
        assert_near("gradient", row, got, wanted[row], WIDTH);
        assert_int_equal(rank < 1, top1[row]);
        assert_int_equal(rank < 5, top5[row]);
    }
}

static void a_logit_that_is_no_number_ranks_first(void **state)
{
    (void)state;
    assert_true(softmax_before(1, NAN, 0, 1.0f) && softmax_before(0, NAN, 1, 1.0f));
    assert_true(softmax_before(1, 1.0f, 0, NAN) && softmax_before(0, 1.0f, 1, NAN));
    assert_false(softmax_before(1, NAN, 1, NAN));
    assert_true(softmax_before(2, 1.0f, 1, 1.0f) && !softmax_before(0, 1.0f, 1, 1.0f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lars_has_the_bits_of_the_reference),
        cmocka_unit_test(sgd_has_the_bits_of_the_reference),
        cmocka_unit_test(adamw_has_the_bits_of_the_reference),
        cmocka_unit_test(regression_agrees_with_the_reference),
        cmocka_unit_test(softmax_agrees_with_the_reference),
        cmocka_unit_test(a_logit_that_is_no_number_ranks_first),
    };
    return cmocka_run_group_tests_name("cuda optim math", tests, NULL, NULL);
}
