// Steps of the reference implementation's optimisers on every device.
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

#define MAX_SPANS 64

struct layout {
    struct param_span spans[MAX_SPANS];
    size_t count;
};

static struct layout read_layout(const char *folder)
{
    struct layout layout = {0};
    struct table table;
    char path[600];
    snprintf(path, sizeof path, "%s/params.tsv", folder);
    table_read(&table, path);
    assert_true(table.rows <= MAX_SPANS);
    for (size_t row = 0; row < table.rows; row++) {
        layout.spans[layout.count++] = (struct param_span){
            .offset = (uint64_t)table_int(table_cell(&table, row, "offset")),
            .count = (uint64_t)table_int(table_cell(&table, row, "numel")),
            .decay = table_int(table_cell(&table, row, "weight_decay_and_lars_apply")) == 1,
            .learning_rate_scale = 1.0f};
    }
    table_free(&table);
    return layout;
}

// |got - wanted| <= 1e-7 + 2e-6 |wanted|
static void check_near(const char *where, const char *what, size_t step, const float *got,
                       const float *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double bound = 1e-7 + 2e-6 * fabs((double)wanted[i]);
        if (!(fabs((double)got[i] - (double)wanted[i]) <= bound)) {
            fail_msg("%s: %s[%zu] after step %zu is %.9g, expected %.9g", where, what, i, step,
                     (double)got[i], (double)wanted[i]);
        }
    }
}

// The arrays of one case, on the host: one row a step.
struct trace {
    struct npy params, grads, momentum;
    size_t width, steps;
};

static struct trace read_trace(const char *folder, const struct table *index, size_t row)
{
    struct trace trace = {
        .params = golden_array(folder, table_cell(index, row, "params")),
        .grads = golden_array(folder, table_cell(index, row, "grads")),
        .momentum = golden_array(folder, table_cell(index, row, "momentum_buffers")),
        .steps = (size_t)table_int(table_cell(index, row, "steps")),
    };
    trace.width = (size_t)trace.params.shape[1];
    assert_int_equal(trace.params.count, (trace.steps + 1) * trace.width);
    assert_int_equal(trace.grads.count, trace.steps * trace.width);
    assert_int_equal(trace.momentum.count, trace.steps * trace.width);
    return trace;
}

static void free_trace(struct trace *trace)
{
    npy_free(&trace->params);
    npy_free(&trace->grads);
    npy_free(&trace->momentum);
}

static enum status make_step(struct device *device, const struct layout *layout,
                             const struct table *index, size_t row, const float *rate,
                             float *const block[3])
{
    const char *optimizer = table_cell(index, row, "optimizer");
    float momentum = table_float(table_cell(index, row, "momentum"));
    if (strcmp(optimizer, "lars") == 0) {
        struct lars_settings settings = {rate, table_float(table_cell(index, row, "weight_decay")),
                                         momentum, table_float(table_cell(index, row, "eta"))};
        return device->ops->lars_step(device, layout->spans, layout->count, &settings, block[0],
                                      block[1], block[2], NULL);
    }
    assert_string_equal(optimizer, "sgd");
    struct sgd_settings settings = {.learning_rate = rate,
                                    .momentum = momentum,
                                    .nesterov = table_int(table_cell(index, row, "nesterov")) == 1};
    return device->ops->sgd_step(device, layout->spans, layout->count, &settings, block[0],
                                 block[1], block[2], NULL);
}

static float *device_block(struct device *device, const float *values, size_t count)
{
    void *memory;
    assert_int_equal(device->ops->allocate(device, &memory, count * sizeof(float), NULL),
                     STATUS_OK);
    if (values != NULL) {
        device->ops->copy_in(device, memory, values, count * sizeof(float));
    }
    return memory;
}

// Parameters, gradients and momentum on the device, moved step by step from the start as in
// training.
static void check_trace(struct device *device, const struct layout *layout,
                        const struct table *index, size_t row, const struct trace *trace)
{
    const float *params = trace->params.data, *grads = trace->grads.data;
    const float *momentum = trace->momentum.data;
    const char *rates = table_cell(index, row, "learning_rates");
    size_t width = trace->width, bytes = width * sizeof(float);
    float *block[3] = {device_block(device, params, width), device_block(device, NULL, width),
                       device_block(device, NULL, width)};
    float *got = malloc(bytes);
    assert_non_null(got);
    char where[256];
    snprintf(where, sizeof where, "%s: %s", device->ops->name, table_cell(index, row, "case"));
    for (size_t step = 0; step < trace->steps; step++) {
        char *end;
        float *rate = device_value(device, strtof(rates, &end));
        assert_true(end != rates);
        rates = *end == ',' ? end + 1 : end;
        device->ops->copy_in(device, block[1], grads + step * width, bytes);
        assert_int_equal(make_step(device, layout, index, row, rate, block), STATUS_OK);
        device->ops->release(device, rate);
        device->ops->copy_out(device, got, block[2], bytes);
        check_near(where, "momentum", step, got, momentum + step * width, width);
        device->ops->copy_out(device, got, block[0], bytes);
        check_near(where, "parameter", step, got, params + (step + 1) * width, width);
    }
    assert_int_equal(*rates, '\0');
    for (size_t i = 0; i < 3; i++) {
        device->ops->release(device, block[i]);
    }
    free(got);
}

static void check_case(const char *folder, const struct table *index, size_t row)
{
    struct layout layout = read_layout(folder);
    struct trace trace = read_trace(folder, index, row);
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device;
        assert_int_equal(device_open(&device, (*ops)->name, 2, DEVICE_F32, NULL), STATUS_OK);
        check_trace(device, &layout, index, row, &trace);
        device_close(&device);
    }
    free_trace(&trace);
}

static void test_optimizers(void **state)
{
    (void)state;
    golden_each("optimizer", check_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_optimizers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
