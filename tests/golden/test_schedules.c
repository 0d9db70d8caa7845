// Golden group schedules: learning rate and target decay of every preset of the reference.
#include "tests/support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/optim/schedule.h"

static const char *preset_cell(const struct table *presets, const char *name, const char *column)
{
    for (size_t row = 0; row < presets->rows; row++) {
        if (strcmp(table_cell(presets, row, "case"), name) == 0) {
            return table_cell(presets, row, column);
        }
    }
    fail_msg("no preset '%s'", name);
    return NULL;
}

static void check_tau(const char *folder, const struct table *index, size_t row,
                      const struct npy *steps, float base, uint64_t total)
{
    struct npy expected = golden_array(folder, table_cell(index, row, "tau"));
    assert_int_equal(expected.count, steps->count);
    for (uint64_t i = 0; i < steps->count; i++) {
        int32_t step = ((int32_t *)steps->data)[i];
        float found = schedule_tau((uint64_t)step, base, total);
        float wanted = ((float *)expected.data)[i];
        if (!(fabs((double)found - (double)wanted) <= 2e-7)) {
            fail_msg("tau at step %d: %.9g, expected %.9g", step, (double)found, (double)wanted);
        }
    }
    npy_free(&expected);
}

static void check_rates(const char *folder, const struct table *index, size_t row,
                        const struct npy *steps, const struct table *presets)
{
    const char *name = table_cell(index, row, "case");
    float base = table_float(preset_cell(presets, name, "base_learning_rate"));
    float scaled = table_float(preset_cell(presets, name, "scaled_learning_rate"));
    uint64_t batch = (uint64_t)table_int(preset_cell(presets, name, "batch_size"));
    uint64_t warmup = (uint64_t)table_int(preset_cell(presets, name, "warmup_steps"));
    uint64_t total = (uint64_t)table_int(preset_cell(presets, name, "max_steps"));
    struct npy expected = golden_array(folder, table_cell(index, row, "lr"));
    assert_int_equal(expected.count, steps->count);
    for (uint64_t i = 0; i < steps->count; i++) {
        int32_t step = ((int32_t *)steps->data)[i];
        float found = schedule_learning_rate((uint64_t)step, base, batch, warmup, total);
        float wanted = ((float *)expected.data)[i];
        if (!(fabs((double)found - (double)wanted) <= 2e-6 * (double)scaled)) {
            fail_msg("%s: rate at step %d: %.9g, expected %.9g", name, step, (double)found,
                     (double)wanted);
        }
    }
    npy_free(&expected);
    if (!table_empty(table_cell(index, row, "tau"))) {
        check_tau(folder, index, row, steps,
                  table_float(preset_cell(presets, name, "base_target_ema")), total);
    }
}

static void check_case(const char *folder, const struct table *index, size_t row)
{
    char path[560];
    struct table presets;
    snprintf(path, sizeof path, "%s/presets.tsv", folder);
    table_read(&presets, path);
    struct npy steps = golden_array(folder, table_cell(index, row, "steps"));
    assert_int_equal(steps.type, NPY_INT32);
    assert_true(steps.count > 0);
    check_rates(folder, index, row, &steps, &presets);
    npy_free(&steps);
    table_free(&presets);
}

static void test_schedules(void **state)
{
    (void)state;
    golden_each("schedules", check_case);
}

static void test_ends(void **state)
{
    (void)state;
    assert_true(schedule_learning_rate(0, 0.2f, 256, 10, 100) == 0);
    assert_true(schedule_learning_rate(10, 0.2f, 256, 10, 100) == 0.2f);
    assert_true(schedule_learning_rate(100, 0.2f, 256, 10, 100) == 0);
    assert_true(schedule_learning_rate(1000, 0.2f, 256, 10, 100) == 0);
    // All warm-up, or nothing at all.
    assert_true(schedule_learning_rate(5, 0.2f, 256, 10, 10) == 0.1f);
    assert_true(schedule_learning_rate(10, 0.2f, 256, 10, 10) == 0);
    assert_true(schedule_tau(0, 0.99f, 100) == 0.99f);
    assert_true(schedule_tau(100, 0.99f, 100) == 1);
    assert_true(schedule_tau(0, 0.99f, 0) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
