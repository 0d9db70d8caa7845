// `byol bench step`: times steps on any device, tells where the time went, and refuses nonsense.
#include "tests/support/program.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "trainer/device/device.h"

// The cheapest step there is.
#define STEP                                                                                       \
    "bench step --net tiny --stem small --size 16 --batch 4 --hidden 16 --output 8 --steps 2 "

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
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, STEP "--classes 3 --json --device %s", (*ops)->name);
        assert_true(program_number(&scratch, "pairs_per_second", arguments) > 0);
        assert_true(program_number(&scratch, "peak_memory_bytes", arguments) > 1e6);
        assert_true(program_number(&scratch, "planned_memory_bytes", arguments) > 1e4);
        assert_true(program_number(&scratch, "steps", arguments) == 2);
        program_expect(&scratch, 0, "\"batch_norm\"", arguments);
    }
}

// The batch and the start are always the same, so devices agree about the loss after two steps.
static void test_devices_agree_about_the_loss(void **state)
{
    (void)state;
    double wanted = program_number(&scratch, "loss", STEP "--json --device ref");
    assert_true(wanted > 0 && wanted < 8);
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, STEP "--json --device %s", (*ops)->name);
        assert_true(fabs(program_number(&scratch, "loss", arguments) - wanted) < 1e-3);
    }
}

static void test_wrong_usage_is_told(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "pairs/s", STEP "--device ref");
    program_expect(&scratch, 0, "Usage: byol bench step", "bench step --help");
    program_expect(&scratch, 2, "--net is one of", "bench step --net resnet19");
    program_expect(&scratch, 2, "--stem is one of", "bench step --stem large");
    program_expect(&scratch, 2, "not an option", "bench step dataset");
    program_expect(&scratch, 1, "no device", STEP "--device abacus");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_has_what_scripts_want),
        cmocka_unit_test(test_devices_agree_about_the_loss),
        cmocka_unit_test(test_wrong_usage_is_told),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
