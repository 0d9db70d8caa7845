// `byol doctor`: what it says of this machine and of a run.
#include "tests/support/sample_dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// The cheapest run there is.
#define RUN                                                                                        \
    "doctor --recipe small --set views.size=16 --set encoder=tiny --set stem=small --set batch=4 " \
    "--set projector_hidden=16 --set projector_output=8 --set predictor_hidden=16 "

static struct sample_dataset sample;

static int make_datasets(void **state)
{
    (void)state;
    sample_dataset_make(&sample, 23, NOWHERE);
    setenv("SHARDS", sample.path[DATASET_SHARDS], 1);
    return 0;
}

static int remove_datasets(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    return 0;
}

static void expect_all(const char *arguments, const char *const *texts)
{
    struct program_result result;
    program_run(&result, &sample.scratch, arguments);
    assert_int_equal(result.code, 0);
    assert_string_equal(result.err, ""); // no terminal, no progress
    for (; *texts; texts++) {
        if (strstr(result.out, *texts) == NULL) {
            fail_msg("no '%s' in:\n%s", *texts, result.out);
        }
    }
    for (const char *at = result.out; *at && result.out[0] != '{'; at += strcspn(at, "\n") + 1) {
        assert_in_range(strcspn(at, "\n"), 0, 80);
    }
    program_free(&result);
}

static void test_the_machine_is_described(void **state)
{
    (void)state;
    static const char *const texts[] = {"processor",  "instructions", "memory", "io_uring",
                                        "device cpu", "device cuda",  "MPI",    "zstd ",
                                        "LMDB ",      "libjpeg",      "disk",   NULL};
    expect_all("doctor --machine", texts);
}

#if HAVE_DNNL
static void test_the_stages_of_a_run_are_compared(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "these images", "decode", "augment", "step", "<- the limit", "A batch of 4 needs", NULL};
    expect_all(RUN "--data \"$SHARDS\"", texts);
}

static void test_images_are_made_up_without_a_dataset_and_leave_nothing(void **state)
{
    (void)state;
    struct program_result result;
    setenv("TMPDIR", sample.scratch.path, 1);
    program_run(&result, &sample.scratch, RUN "&& ls -d \"$DIR\"/byol-doctor-* | wc -l");
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.out, "made-up images"));
    assert_non_null(strstr(result.out, "\n0\n"));
    unsetenv("TMPDIR");
    program_free(&result);
}

static void test_json_has_what_scripts_want(void **state)
{
    (void)state;
    static const char *const texts[] = {"\"machine\"", "\"cores\"",  "\"instructions\"",
                                        "\"disk\"",    "\"stages\"", "\"limit\"",
                                        "\"advice\"",  "\"usable\"", NULL};
    expect_all(RUN "--json --data \"$SHARDS\"", texts);
}
#endif

static void test_what_is_missing_fails(void **state)
{
    (void)state;
    program_expect(&sample.scratch, 1, "no device 'abacus'", RUN "--set device=abacus");
    program_expect(&sample.scratch, 1, "nowhere", "doctor --data /nowhere");
    program_expect(&sample.scratch, 1, "encoder", "doctor --set encoder=resnet19");
    program_expect(&sample.scratch, 2, "named by --data", "doctor train");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_machine_is_described),
#if HAVE_DNNL
        cmocka_unit_test(test_the_stages_of_a_run_are_compared),
        cmocka_unit_test(test_images_are_made_up_without_a_dataset_and_leave_nothing),
        cmocka_unit_test(test_json_has_what_scripts_want),
#endif
        cmocka_unit_test(test_what_is_missing_fails),
    };
    return cmocka_run_group_tests(tests, make_datasets, remove_datasets);
}
