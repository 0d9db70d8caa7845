// Losses, optimisers, products and buffers of every device: against the reference device, and the
// same bits for any number of threads.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "tests/support/golden.h"
#include "trainer/device/device.h"

static uint64_t random_state;

static float random_value(void) // uniform in [-1, 1)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(random_state >> 40) / 8388608.0f - 1.0f;
}

static struct device *open_device(const char *name, int threads)
{
    struct device *device;
    struct error error;
    if (device_open(&device, name, threads, DEVICE_F32, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    return device;
}

static void *device_zeros(struct device *device, size_t bytes)
{
    void *memory;
    assert_int_equal(device->ops->allocate(device, &memory, bytes, NULL), STATUS_OK);
    return memory;
}

static float *device_random(struct device *device, size_t count)
{
    float *host = malloc(count * sizeof *host);
    assert_non_null(host);
    for (size_t i = 0; i < count; i++) {
        host[i] = random_value();
    }
    float *memory = device_zeros(device, count * sizeof *host);
    assert_int_equal(device->ops->copy_in(device, memory, host, count * sizeof *host), STATUS_OK);
    free(host);
    return memory;
}

static float *fetched(struct device *device, const void *memory, size_t bytes)
{
    float *host = malloc(bytes);
    assert_non_null(host);
    assert_int_equal(device->ops->copy_out(device, host, memory, bytes), STATUS_OK);
    return host;
}

// --- matrix products

// c = op(a) op(b) + c0 with c0 random when `accumulate`, brought to the host.
static float *product(struct device *device, bool transpose_a, bool transpose_b, uint32_t m,
                      uint32_t n, uint32_t k, bool accumulate)
{
    random_state = 7;
    float *a = device_random(device, (size_t)m * k), *b = device_random(device, (size_t)k * n);
    float *c = device_random(device, (size_t)m * n);
    assert_int_equal(
        device->ops->matrix_product(device, transpose_a, transpose_b, m, n, k, a, b, c, accumulate),
        STATUS_OK);
    float *host = fetched(device, c, (size_t)m * n * sizeof *c);
    device->ops->release(device, a);
    device->ops->release(device, b);
    device->ops->release(device, c);
    return host;
}

static void test_products_agree(void **state)
{
    (void)state;
    static const uint32_t sizes[][3] = {{1, 1, 1}, {3, 17, 5}, {64, 48, 33}, {2, 300, 7}};
    struct device *ref = open_device("ref", 1);
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = open_device((*ops)->name, 2);
        for (size_t i = 0; i < 4 * 8; i++) {
            const uint32_t *size = sizes[i / 8];
            uint32_t m = size[0], n = size[1], k = size[2];
            float *got = product(device, i & 1, i & 2, m, n, k, i & 4);
            float *wanted = product(ref, i & 1, i & 2, m, n, k, i & 4);
            assert_true(relative_l2(got, wanted, (size_t)m * n) < 1e-6);
            free(got);
            free(wanted);
        }
        device_close(&device);
    }
    device_close(&ref);
}

// By hand, so that the reference device's own idea of rows and transposes is checked too.
static void test_product_by_hand(void **state)
{
    (void)state;
    const float left[] = {1, 2, 3, 4, 5, 6};                            // [2][3]
    const float right[2][6] = {{1, 0, 0, 1, 2, 1}, {1, 0, 2, 0, 1, 1}}; // and transposed
    const float wanted[] = {7, 5, 16, 11};
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = open_device((*ops)->name, 1);
        float *a = device_zeros(device, sizeof left), *b = device_zeros(device, sizeof right[0]);
        float *c = device_zeros(device, sizeof wanted);
        (*ops)->copy_in(device, a, left, sizeof left);
        for (int transposed = 0; transposed < 2; transposed++) {
            (*ops)->copy_in(device, b, right[transposed], sizeof right[0]);
            (*ops)->matrix_product(device, false, transposed == 1, 2, 2, 3, a, b, c, false);
            float *got = fetched(device, c, sizeof wanted);
            assert_memory_equal(got, wanted, sizeof wanted);
            free(got);
        }
        (*ops)->release(device, a);
        (*ops)->release(device, b);
        (*ops)->release(device, c);
        device_close(&device);
    }
}

// --- optimisers

#define PARAMS 30000

static const struct param_span spans[] = {{0, 1, true, 1.0f},
                                          {1, 4095, false, 1.0f},
                                          {4096, 12289, true, 1.0f},
                                          {17000, 13000, true, 0.5f}};
#define SPANS (sizeof spans / sizeof *spans)

enum optimiser { LARS, SGD, NESTEROV, AVERAGE, ACCUMULATE, OPTIMISERS };

// Three steps from the same start; returns parameters then momentum.
static float *optimised(const char *name, int threads, enum optimiser optimiser)
{
    struct device *device = open_device(name, threads);
    float *rate = device_value(device, optimiser == LARS ? 0.3f : 0.1f);
    const struct lars_settings lars = {rate, 1e-3f, 0.9f, 0.02f};
    const struct sgd_settings sgd = {
        .learning_rate = rate, .momentum = 0.9f, .nesterov = optimiser == NESTEROV};
    const struct device_ops *ops = device->ops;
    random_state = 99;
    float *params = device_random(device, 2 * PARAMS), *momentum = params + PARAMS;
    for (int step = 0; step < 3; step++) {
        float *grads = device_random(device, PARAMS);
        enum status status;
        if (optimiser == LARS) {
            status = ops->lars_step(device, spans, SPANS, &lars, params, grads, momentum, NULL);
        } else if (optimiser == AVERAGE) {
            status = ops->moving_average(device, params, grads, PARAMS, 0.01f);
        } else if (optimiser == ACCUMULATE) {
            status = ops->block_add(device, params, grads, PARAMS);
        } else {
            status = ops->sgd_step(device, spans, SPANS, &sgd, params, grads, momentum, NULL);
        }
        assert_int_equal(status, STATUS_OK);
        ops->release(device, grads);
    }
    float *host = fetched(device, params, 2 * PARAMS * sizeof *params);
    ops->release(device, params);
    ops->release(device, rate);
    device_close(&device);
    return host;
}

static void test_optimisers_agree_for_any_thread_count(void **state)
{
    (void)state;
    for (int optimiser = LARS; optimiser < OPTIMISERS; optimiser++) {
        float *wanted = optimised("ref", 1, (enum optimiser)optimiser);
        for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
            float *one = optimised((*ops)->name, 1, (enum optimiser)optimiser);
            float *three = optimised((*ops)->name, 3, (enum optimiser)optimiser);
            assert_memory_equal(one, three, 2 * PARAMS * sizeof *one);
            assert_true(relative_l2(one, wanted, PARAMS) < 1e-6);
            assert_true(relative_l2(one + PARAMS, wanted + PARAMS, PARAMS) < 1e-6);
            free(one);
            free(three);
        }
        free(wanted);
    }
}

// Spans leave a hole at [16385, 17000): nobody touches it.
static void test_parameters_outside_of_spans_stay(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = open_device((*ops)->name, 1);
        random_state = 99;
        float *start = device_random(device, 2 * PARAMS);
        float *before = fetched(device, start, 2 * PARAMS * sizeof *before);
        float *after = optimised((*ops)->name, 2, LARS);
        assert_memory_equal(before + 16385, after + 16385, 615 * sizeof *after);
        assert_memory_not_equal(before, after, 16385 * sizeof *after);
        free(before);
        free(after);
        device->ops->release(device, start);
        device_close(&device);
    }
}

// --- losses

struct loss_result {
    float *losses, *dx, *dy;
};

#define ROWS  37
#define WIDTH 129

static struct loss_result regression(const char *name, int threads)
{
    struct device *device = open_device(name, threads);
    const struct device_ops *ops = device->ops;
    random_state = 3;
    float *x = device_random(device, ROWS * WIDTH), *y = device_random(device, ROWS * WIDTH);
    float *losses = device_zeros(device, ROWS * sizeof *losses);
    float *dx = device_random(device, ROWS * WIDTH), *dy = device_random(device, ROWS * WIDTH);
    assert_int_equal(ops->regression_loss(device, x, y, ROWS, WIDTH, 0.25f, losses, dx, dy),
                     STATUS_OK);
    struct loss_result result = {fetched(device, losses, ROWS * sizeof *losses),
                                 fetched(device, dx, ROWS * WIDTH * sizeof *dx),
                                 fetched(device, dy, ROWS * WIDTH * sizeof *dy)};
    // Without gradients the losses are the same.
    assert_int_equal(ops->regression_loss(device, x, y, ROWS, WIDTH, 0.25f, losses, NULL, NULL),
                     STATUS_OK);
    float *again = fetched(device, losses, ROWS * sizeof *losses);
    assert_memory_equal(again, result.losses, ROWS * sizeof *again);
    free(again);
    float *all[] = {x, y, losses, dx, dy};
    for (size_t i = 0; i < 5; i++) {
        ops->release(device, all[i]);
    }
    device_close(&device);
    return result;
}

static void free_result(struct loss_result *result)
{
    free(result->losses);
    free(result->dx);
    free(result->dy);
}

static void test_regression_losses_agree(void **state)
{
    (void)state;
    struct loss_result wanted = regression("ref", 1);
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct loss_result one = regression((*ops)->name, 1), three = regression((*ops)->name, 3);
        assert_memory_equal(one.losses, three.losses, ROWS * sizeof(float));
        assert_memory_equal(one.dx, three.dx, ROWS * WIDTH * sizeof(float));
        assert_true(max_difference(one.losses, wanted.losses, ROWS) < 1e-6);
        assert_true(relative_l2(one.dx, wanted.dx, ROWS * WIDTH) < 1e-6);
        assert_true(relative_l2(one.dy, wanted.dy, ROWS * WIDTH) < 1e-6);
        free_result(&one);
        free_result(&three);
    }
    free_result(&wanted);
}

// Four classes by hand: a known label, a missing one, and a tie.
static void test_softmax_by_hand(void **state)
{
    (void)state;
    const float logits[] = {0, 0, 0, 0, 1, 2, 3, 4, 5, 5, 0, 0};
    const int32_t labels[] = {3, -1, 0}, too_large[] = {3, -1, 4};
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = open_device((*ops)->name, 2);
        float *x = device_zeros(device, sizeof logits), *dx = device_random(device, 12);
        float *losses = device_random(device, 3), *scale = device_value(device, 2);
        int32_t *y = device_zeros(device, sizeof labels);
        uint8_t *top1 = device_zeros(device, 3), *top5 = device_zeros(device, 3);
        (*ops)->copy_in(device, x, logits, sizeof logits);
        (*ops)->copy_in(device, y, labels, sizeof labels);
        assert_int_equal((*ops)->softmax_loss(device, x, y, 3, 4, scale, losses, dx, top1, top5),
                         STATUS_OK);
        float *got = fetched(device, losses, 3 * sizeof *got);
        float *gradient = fetched(device, dx, 12 * sizeof *gradient);
        uint8_t ranks[3];
        assert_true(fabs((double)got[0] - log(4)) < 1e-6);
        assert_true(got[1] == 0.0f);
        assert_true(fabs((double)gradient[0] - 0.5) < 1e-6); // 2 (1/4 - 0)
        assert_true(fabs((double)gradient[3] + 1.5) < 1e-6); // 2 (1/4 - 1)
        assert_true(gradient[4] == 0.0f && gradient[7] == 0.0f);
        (*ops)->copy_out(device, ranks, top1, 3);
        assert_memory_equal(ranks, ((uint8_t[]){1, 0, 0}), 3); // the tie goes to the higher index
        (*ops)->copy_out(device, ranks, top5, 3);
        assert_memory_equal(ranks, ((uint8_t[]){1, 0, 1}), 3);
        (*ops)->copy_in(device, y, too_large, sizeof too_large);
        if ((*ops)->steps_ahead == 0) { // others learn it too late to say so
            assert_int_equal(
                (*ops)->softmax_loss(device, x, y, 3, 4, scale, losses, NULL, NULL, NULL),
                STATUS_INVALID);
        }
        free(got);
        free(gradient);
        void *all[] = {x, dx, losses, y, top1, top5, scale};
        for (size_t i = 0; i < 7; i++) {
            (*ops)->release(device, all[i]);
        }
        device_close(&device);
    }
}

// A NaN must reach the loss, where training looks for it, and never count as a right answer.
static void test_nan_reaches_the_loss(void **state)
{
    (void)state;
    const float values[] = {NAN, 1, 2, 3};
    const int32_t label = 2;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = open_device((*ops)->name, 2);
        float *x = device_zeros(device, sizeof values), *y = device_random(device, 4);
        float *loss = device_zeros(device, sizeof *loss), *scale = device_value(device, 1);
        int32_t *labels = device_zeros(device, sizeof label);
        uint8_t *top1 = device_zeros(device, 1), rank;
        (*ops)->copy_in(device, x, values, sizeof values);
        (*ops)->copy_in(device, labels, &label, sizeof label);
        (*ops)->regression_loss(device, x, y, 1, 4, 1.0f, loss, NULL, NULL);
        float *got = fetched(device, loss, sizeof *got);
        assert_true(isnan(*got));
        free(got);
        (*ops)->softmax_loss(device, x, labels, 1, 4, scale, loss, NULL, top1, NULL);
        got = fetched(device, loss, sizeof *got);
        assert_true(isnan(*got));
        (*ops)->copy_out(device, &rank, top1, 1);
        assert_int_equal(rank, 0);
        free(got);
        void *all[] = {x, y, loss, labels, top1, scale};
        for (size_t i = 0; i < 6; i++) {
            (*ops)->release(device, all[i]);
        }
        device_close(&device);
    }
}

// --- buffers and opening

static void test_buffers(void **state)
{
    (void)state;
    const struct tensor_shape shapes[] = {
        {TENSOR_IMAGE, 2, 3, 5, 17}, {TENSOR_IMAGE, 1, 2, 2, 3}, {TENSOR_MATRIX, 4, 1, 1, 7}};
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = open_device((*ops)->name, 2);
        for (size_t i = 0; i < 3; i++) {
            size_t count = (size_t)shapes[i].n * shapes[i].h * shapes[i].w * shapes[i].c;
            size_t bytes = (*ops)->tensor_bytes(device, shapes[i]);
            float *host = malloc(count * sizeof *host), *back = malloc(count * sizeof *back);
            void *a = device_zeros(device, bytes), *b = device_zeros(device, bytes);
            assert_true(host != NULL && back != NULL && bytes >= count * sizeof *host);
            assert_int_equal((uintptr_t)a % 64, 0);
            for (size_t j = 0; j < count; j++) {
                host[j] = (float)j + 1;
            }
            (*ops)->tensor_store(device, shapes[i], a, host);
            (*ops)->copy(device, b, a, bytes);
            (*ops)->tensor_add(device, shapes[i], b, a);
            (*ops)->synchronise(device);
            (*ops)->tensor_fetch(device, shapes[i], back, b);
            for (size_t j = 0; j < count; j++) {
                assert_true(back[j] == 2 * host[j]);
            }
            (*ops)->fill_zero(device, b, bytes);
            (*ops)->tensor_fetch(device, shapes[i], back, b);
            assert_true(back[0] == 0 && back[count - 1] == 0);
            (*ops)->release(device, a);
            (*ops)->release(device, b);
            free(host);
            free(back);
        }
        device_close(&device);
        assert_null(device);
    }
}

static void test_failures_say_why(void **state)
{
    (void)state;
    struct device *device;
    struct error error = {0};
    assert_int_equal(device_open(&device, "gpu", 1, DEVICE_F32, &error), STATUS_NO_DEVICE);
    assert_null(device);
    assert_non_null(strstr(error.reason, "gpu"));
    assert_non_null(strstr(error.reason, "ref"));
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        void *memory;
        char text[128] = "";
        device = open_device((*ops)->name, 0);
        error = (struct error){0};
        assert_int_equal((*ops)->allocate(device, &memory, SIZE_MAX - 8, &error), STATUS_NO_MEMORY);
        assert_null(memory);
        assert_true(error.reason[0] != '\0');
        (*ops)->describe(device, text, sizeof text);
        assert_true(text[0] != '\0');
        assert_true((*ops)->steps_ahead > 0 || strstr(text, "thread") != NULL);
        (*ops)->release(device, NULL);
        device_close(&device);
        device_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_agree),
        cmocka_unit_test(test_product_by_hand),
        cmocka_unit_test(test_optimisers_agree_for_any_thread_count),
        cmocka_unit_test(test_parameters_outside_of_spans_stay),
        cmocka_unit_test(test_regression_losses_agree),
        cmocka_unit_test(test_softmax_by_hand),
        cmocka_unit_test(test_nan_reaches_the_loss),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_failures_say_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
