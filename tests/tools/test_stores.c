// Files that other libraries really wrote, and what byol writes read by them (tests/stores/run.py).
// Runs where BYOL_STORES names the folder of their Python environments.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void other_libraries_and_ours_agree(void **state)
{
    (void)state;
    if (getenv("BYOL_STORES") == NULL) {
        printf("skipped: BYOL_STORES names no folder of Python environments\n");
        skip();
    }
    assert_int_equal(system("python3 tests/stores/run.py \"$BYOL_STORES\" "
                            "--byol \"${BYOL_PROGRAM:-build/byol}\""),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(other_libraries_and_ours_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
