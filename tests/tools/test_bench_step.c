// `byol bench step`: times steps on any device, tells where the time went, and refuses nonsense.
#include "tests/support/program.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_rows.h"
#include "trainer/device/device.h"

// The cheapest step there is.
#define STEP                                                                                       \
    "bench step --net tiny --stem small --size 16 --batch 4 --hidden 16 --output 8 --steps 2 "
#define EXACT "--precision f32 "

static struct scratch scratch;

static int make_scratch(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

static int remove_scratch(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static void test_json_has_what_scripts_want(void **state)
{
    (void)state;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, STEP EXACT "--classes 3 --json --device %s",
                 (*ops)->name);
        assert_true(program_number(&scratch, "pairs_per_second", arguments) > 0);
        assert_true(program_number(&scratch, "peak_memory_bytes", arguments) > 1e6);
        assert_true(program_number(&scratch, "planned_memory_bytes", arguments) > 1e4);
        assert_true(program_number(&scratch, "steps", arguments) == 2);
        assert_true(program_number(&scratch, "layout_changes", arguments) == 0);
        assert_true(program_number(&scratch, "parameters", arguments) > 1e3);
        program_expect(&scratch, 0, "\"precision\": \"f32\"", arguments);
        program_expect(&scratch, 0, "\"upper_quartile\"", arguments);
        program_expect(&scratch, 0, "\"backward_shares\"", arguments);
        program_expect(&scratch, 0, "\"batch_norm\"", arguments);
    }
}

// The batch and the start are always the same, so devices agree about the loss after two steps.
static void test_devices_agree_about_the_loss(void **state)
{
    (void)state;
    double wanted = program_number(&scratch, "loss", STEP EXACT "--json --device ref");
    assert_true(wanted > 0 && wanted < 8);
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, STEP EXACT "--json --device %s", (*ops)->name);
        assert_true(fabs(program_number(&scratch, "loss", arguments) - wanted) < 1e-3);
    }
}

// The device of plain loops has everything it needs before the first step; oneDNN has not.
static void test_allocations_are_counted(void **state)
{
    (void)state;
    struct program_result result;
    program_run(&result, &scratch, STEP "--json --device ref");
    assert_true(strstr(result.out, "\"allocations\": 0,") != NULL ||
                strstr(result.out, "\"allocations\": null,") != NULL);
    program_free(&result);
}

static void test_the_plan_comes_first(void **state)
{
    (void)state;
    struct program_result result;
    program_run(&result, &scratch, STEP "--device ref --precision auto --quiet");
    const char *plan = strstr(result.out, "planned "), *rate = strstr(result.out, "pairs/s");
    assert_true(plan != NULL && rate != NULL && plan < rate);
    assert_non_null(strstr(result.out, "precision        f32\n"));
    assert_non_null(strstr(result.out, "online ops       1 input, 13 conv,"));
    program_free(&result);
}

// The block at the start of ResNet-18 has a convolution beside it, or none.
static void test_shortcuts(void **state)
{
    (void)state;
#define NET "bench step --net resnet18 --width 0.0625 --size 16 --batch 2 --device ref --steps 1 "
    double first = program_number(&scratch, "parameters", NET "--json");
    double torch = program_number(&scratch, "parameters", NET "--json --shortcut torch");
    assert_true(torch < first);
}

static void test_wrong_usage_is_told(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "pairs/s", STEP "--device ref");
    program_expect(&scratch, 0, "Usage: byol bench step", "bench step --help");
    program_expect(&scratch, 2, "--net is one of", "bench step --net resnet19");
    program_expect(&scratch, 2, "--stem is one of", "bench step --stem large");
    program_expect(&scratch, 2, "--precision is one of", "bench step --precision f16");
    program_expect(&scratch, 2, "--shortcut is one of", "bench step --shortcut none");
    program_expect(&scratch, 1, "f32", STEP "--device ref --precision bf16");
    program_expect(&scratch, 2, "not an option", "bench step dataset");
    program_expect(&scratch, 1, "no device", STEP "--device abacus");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_has_what_scripts_want),
        cmocka_unit_test(test_devices_agree_about_the_loss),
        cmocka_unit_test(test_allocations_are_counted),
        cmocka_unit_test(test_the_plan_comes_first),
        cmocka_unit_test(test_shortcuts),
        cmocka_unit_test(test_wrong_usage_is_told),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
