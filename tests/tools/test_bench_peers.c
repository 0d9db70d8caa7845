// `make bench-loader` without any peer installed: what it prepares, measures, leaves out and tells.
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

// After the program's name; the rest is shell.
#define RUN                                                                                        \
    "--version && python3 tests/bench/run.py --byol \"$BYOL\" --work \"$DIR/work\" "               \
    "--venvs \"$DIR/absent\" --recipe small --rounds 1 --window 0.05 --cores 1 "

static struct scratch scratch;

// A batch's worth of images.
static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    program_expect(
        &scratch, 0, NULL,
        "--version; mkdir \"$DIR/images\"; for file in $(find tests/data/images -type f); "
        "do for copy in 1 2 3 4 5 6 7 8; do "
        "cp $file \"$DIR/images/$copy-$(basename $(dirname $file))-$(basename $file)\"; "
        "done; done; tar -cf \"$DIR/images.tar\" -C \"$DIR/images\" .");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static void need_python(void)
{
    if (system("python3 -c 'import json' >/dev/null 2>&1") != 0) {
        printf("skipped: python3 is not installed\n");
        skip();
    }
}

static void test_ours_is_measured_and_absent_peers_are_named(void **state)
{
    (void)state;
    need_python();
    const char *table = RUN "--data \"$DIR/images.tar\" --only 'JPEGs|floor'";
    program_expect(&scratch, 0, "byol, JPEGs in shards", table);
    program_expect(&scratch, 0, "FFCV, JPEGs: not installed", table);
    program_expect(&scratch, 0, "| ---: |",
                   RUN "--data \"$DIR/images\" --only '^byol, JPEGs$' --markdown");
}

static void test_a_picture_is_drawn_from_the_results(void **state)
{
    (void)state;
    need_python();
    program_expect(&scratch, 0, "</svg>",
                   RUN "--data \"$DIR/images.tar\" --only byol --svg \"$DIR/first.svg\" && "
                       "python3 tests/bench/report.py \"$DIR\"/work/images.tar-*/results.jsonl "
                       "--svg \"$DIR/second.svg\" && "
                       "cmp \"$DIR/first.svg\" \"$DIR/second.svg\" && cat \"$DIR/second.svg\"");
}

static void test_what_is_missing_is_said(void **state)
{
    (void)state;
    need_python();
    program_expect(&scratch, 1, "absent.tar: not found", RUN "--data \"$DIR/absent.tar\"");
    program_expect(&scratch, 1, "no row matches", RUN "--data \"$DIR/images\" --only nothing");
    program_expect(&scratch, 1, "fewer than a batch", RUN "--data tests/support");
    program_expect(&scratch, 1, "nothing was measured", RUN "--data \"$DIR/images\" --only FFCV");
    program_expect(&scratch, 1, "run make first",
                   RUN "--data \"$DIR/images\" --byol \"$DIR/absent\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ours_is_measured_and_absent_peers_are_named),
        cmocka_unit_test(test_a_picture_is_drawn_from_the_results),
        cmocka_unit_test(test_what_is_missing_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
