// The losses of the reference implementation on every device.
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

#define LOSS_BOUND 2e-6 // absolute for the regression, relative for the cross-entropy

// A device with memory for one case. Pointers are device memory.
struct desk {
    struct device *device;
    const char *name;
    const char *folder;
    const struct table *index;
    size_t row;
    uint32_t n, width;
};

static struct npy array_of(const struct desk *desk, const char *column)
{
    return golden_array(desk->folder, table_cell(desk->index, desk->row, column));
}

static void *blank(const struct desk *desk, size_t bytes)
{
    void *memory;
    assert_int_equal(desk->device->ops->allocate(desk->device, &memory, bytes, NULL), STATUS_OK);
    return memory;
}

static void *input(const struct desk *desk, const char *column)
{
    struct npy array = array_of(desk, column);
    size_t bytes = (size_t)array.count * npy_type_size(array.type);
    void *memory = blank(desk, bytes);
    assert_int_equal(desk->device->ops->copy_in(desk->device, memory, array.data, bytes),
                     STATUS_OK);
    npy_free(&array);
    return memory;
}

static void *fetched(const struct desk *desk, const void *memory, size_t bytes)
{
    void *host = malloc(bytes);
    assert_non_null(host);
    assert_int_equal(desk->device->ops->copy_out(desk->device, host, memory, bytes), STATUS_OK);
    return host;
}

static void release(const struct desk *desk, void *const *memories, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        desk->device->ops->release(desk->device, memories[i]);
    }
}

// |got - wanted| <= absolute + relative |wanted|
static void check_losses(const struct desk *desk, const char *column, const float *got,
                         double absolute, double relative)
{
    struct npy wanted = array_of(desk, column);
    const float *values = wanted.data;
    for (uint64_t i = 0; i < wanted.count; i++) {
        double bound = absolute + relative * fabs((double)values[i]);
        if (!(fabs((double)got[i] - (double)values[i]) <= bound)) {
            fail_msg("%s: %s: %s[%llu] is %.9g, expected %.9g", desk->name,
                     table_cell(desk->index, desk->row, "case"), column, (unsigned long long)i,
                     (double)got[i], (double)values[i]);
        }
    }
    npy_free(&wanted);
}

// Within 1e-5 of the row's largest gradient, plus what rounding of a short row is worth.
static void check_gradient(const struct desk *desk, const char *column, const void *memory,
                           const void *factors)
{
    size_t width = desk->width;
    float *got = fetched(desk, memory, desk->n * width * sizeof *got);
    float *rows = fetched(desk, factors, desk->n * width * sizeof *rows);
    struct npy array = array_of(desk, column);
    const float *wanted = array.data;
    for (size_t n = 0; n < desk->n; n++) {
        double largest = 0, squares = 0;
        for (size_t i = n * width; i < (n + 1) * width; i++) {
            largest = fmax(largest, fabs((double)wanted[i]));
            squares += (double)rows[i] * (double)rows[i];
        }
        double bound = 1e-5 * largest + 1e-6 / fmax(sqrt(squares), 1e-6) / desk->n;
        double off = max_difference(got + n * width, wanted + n * width, width);
        if (!(off <= bound)) {
            fail_msg("%s: %s: row %zu of %s is off by %.3g, bound %.3g", desk->name,
                     table_cell(desk->index, desk->row, "case"), n, column, off, bound);
        }
    }
    npy_free(&array);
    free(got);
    free(rows);
}

static void check_regression(const struct desk *desk)
{
    const struct device_ops *ops = desk->device->ops;
    size_t bytes = (size_t)desk->n * desk->width * sizeof(float);
    float *x = input(desk, "x"), *y = input(desk, "y");
    float *losses = blank(desk, desk->n * sizeof *losses);
    float *dx = blank(desk, bytes), *dy = blank(desk, bytes);
    assert_int_equal(ops->regression_loss(desk->device, x, y, desk->n, desk->width,
                                          1.0f / (float)desk->n, losses, dx, dy),
                     STATUS_OK);
    float *got = fetched(desk, losses, desk->n * sizeof *got);
    check_losses(desk, "loss", got, LOSS_BOUND, 0);
    check_gradient(desk, "grad_x", dx, x);
    check_gradient(desk, "grad_y", dy, y);
    free(got);
    release(desk, (void *[]){x, y, losses, dx, dy}, 5);
}

// Both views: the prediction of one against the projection of the other.
static void check_byol(const struct desk *desk)
{
    const struct device_ops *ops = desk->device->ops;
    size_t bytes = (size_t)desk->n * desk->width * sizeof(float);
    float *p[2] = {input(desk, "p1"), input(desk, "p2")};
    float *z[2] = {input(desk, "z2"), input(desk, "z1")};
    float *gradients[2] = {blank(desk, bytes), blank(desk, bytes)};
    float *losses = blank(desk, desk->n * sizeof *losses), *got[2];
    for (size_t view = 0; view < 2; view++) {
        assert_int_equal(ops->regression_loss(desk->device, p[view], z[view], desk->n, desk->width,
                                              1.0f / (float)desk->n, losses, gradients[view], NULL),
                         STATUS_OK);
        got[view] = fetched(desk, losses, desk->n * sizeof *losses);
    }
    double sum = 0;
    for (uint32_t n = 0; n < desk->n; n++) {
        got[0][n] += got[1][n];
        sum += (double)got[0][n];
    }
    float mean = (float)(sum / desk->n);
    check_losses(desk, "persample", got[0], LOSS_BOUND, 0);
    check_losses(desk, "loss", &mean, LOSS_BOUND, 0);
    check_gradient(desk, "grad_p1", gradients[0], p[0]);
    check_gradient(desk, "grad_p2", gradients[1], p[1]);
    free(got[0]);
    free(got[1]);
    release(desk, (void *[]){p[0], p[1], z[0], z[1], gradients[0], gradients[1], losses}, 7);
}

static void check_ranks(const struct desk *desk, const char *column, const uint8_t *memory)
{
    uint8_t *got = fetched(desk, memory, desk->n);
    struct npy wanted = array_of(desk, column);
    assert_int_equal(wanted.count, desk->n);
    assert_memory_equal(got, wanted.data, desk->n);
    npy_free(&wanted);
    free(got);
}

static void check_softmax(const struct desk *desk)
{
    const struct device_ops *ops = desk->device->ops;
    float *logits = input(desk, "logits"), *losses = blank(desk, desk->n * sizeof *losses);
    int32_t *labels = input(desk, "labels");
    float *gradient = blank(desk, (size_t)desk->n * desk->width * sizeof *gradient);
    uint8_t *top1 = blank(desk, desk->n), *top5 = blank(desk, desk->n);
    float *scale = device_value(desk->device, 1.0f / (float)desk->n);
    assert_int_equal(ops->softmax_loss(desk->device, logits, labels, desk->n, desk->width, scale,
                                       losses, gradient, top1, top5),
                     STATUS_OK);
    float *got = fetched(desk, losses, desk->n * sizeof *got);
    check_losses(desk, "loss", got, 0, LOSS_BOUND);
    check_gradient(desk, "grad_logits", gradient, logits);
    check_ranks(desk, "top1", top1);
    check_ranks(desk, "top5", top5);
    free(got);
    release(desk, (void *[]){logits, losses, labels, gradient, top1, top5, scale}, 7);
}

static void check_case(const char *folder, const struct table *index, size_t row)
{
    const char *function = table_cell(index, row, "function");
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct desk desk = {.name = (*ops)->name,
                            .folder = folder,
                            .index = index,
                            .row = row,
                            .n = (uint32_t)table_int(table_cell(index, row, "N")),
                            .width = (uint32_t)table_int(table_cell(index, row, "D"))};
        assert_int_equal(device_open(&desk.device, (*ops)->name, 2, DEVICE_F32, NULL), STATUS_OK);
        if (strcmp(function, "regression_loss") == 0) {
            check_regression(&desk);
        } else if (strcmp(function, "byol_loss") == 0) {
            check_byol(&desk);
        } else if (strncmp(function, "softmax", 7) == 0) {
            check_softmax(&desk);
        } else {
            fail_msg("no check for the function '%s'", function);
        }
        device_close(&desk.device);
    }
}

static void test_losses(void **state)
{
    (void)state;
    golden_each("loss", check_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_losses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
