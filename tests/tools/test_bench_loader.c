// `byol bench loader`: one hash for one stream, however it is run, stopped and continued.
#include "tests/support/sample_dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STREAM "--epochs 2 --hash --recipe small --size 16 --batch 4 --seed 9 "

static struct sample_dataset sample;

static int make_datasets(void **state)
{
    (void)state;
    sample_dataset_make(&sample, 23, NOWHERE);
    setenv("LMDB", sample.path[DATASET_LMDB], 1);
    setenv("SHARDS", sample.path[DATASET_SHARDS], 1);
    return 0;
}

static int remove_datasets(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    return 0;
}

static void expect_hash(const char *expected, const char *arguments)
{
    char hash[32];
    program_string(&sample.scratch, "hash", hash, sizeof hash, arguments);
    assert_string_equal(hash, expected);
}

static void test_the_hash_does_not_depend_on_how(void **state)
{
    (void)state;
    char hash[32];
    program_string(&sample.scratch, "hash", hash, sizeof hash,
                   "bench loader \"$LMDB\" --json " STREAM);
    assert_int_equal(strlen(hash), 16);
    expect_hash(hash, "bench loader \"$SHARDS\" --json --workers 1 --depth 1 " STREAM);
    expect_hash(hash, "bench loader \"$SHARDS\" --json --workers 3 --io pread " STREAM);
    expect_hash(hash, "bench loader \"$LMDB\" --json --io pread --depth 1 --slots 2 " STREAM);
    program_expect(&sample.scratch, 0, hash, "bench loader \"$SHARDS\" " STREAM);
    char other[32];
    program_string(&sample.scratch, "hash", other, sizeof other,
                   "bench loader \"$LMDB\" --json " STREAM "--seed 10");
    assert_string_not_equal(other, hash);
}

static void test_stopping_and_continuing_gives_the_same_hash(void **state)
{
    (void)state;
    char hash[32], arguments[256];
    program_string(&sample.scratch, "hash", hash, sizeof hash,
                   "bench loader \"$LMDB\" --json " STREAM);
    for (int stop = 1; stop <= 9; stop += 2) { // 5 batches an epoch; 5 is its end
        snprintf(arguments, sizeof arguments,
                 "bench loader \"$SHARDS\" " STREAM
                 "--stop-after %d --position-out \"$DIR/position\"",
                 stop);
        program_expect(&sample.scratch, 0, "next position", arguments);
        expect_hash(hash, "bench loader \"$SHARDS\" --json " STREAM "$(cat \"$DIR/position\")");
    }
}

static void test_json_has_what_scripts_want(void **state)
{
    (void)state;
    const char *arguments = "bench loader \"$LMDB\" --json " STREAM;
    assert_true(program_number(&sample.scratch, "pairs_per_second", arguments) > 0);
    assert_true(program_number(&sample.scratch, "peak_memory_bytes", arguments) > 1e6);
    assert_true(program_number(&sample.scratch, "pairs", arguments) == 40);
    program_expect(&sample.scratch, 0, "\"waits\"", arguments);
    program_expect(&sample.scratch, 0, "\"unpack\"", arguments);
    assert_true(program_number(&sample.scratch, "pss_bytes", arguments) > 1e6);
}

#define TIMED "bench loader \"$LMDB\" --recipe small --batch 4 --seconds 0.02 --windows 3 "

static void test_windows_of_time_are_measured(void **state)
{
    (void)state;
    const char *arguments = TIMED "--warm-up 0.01 --json";
    assert_true(program_number(&sample.scratch, "pairs_per_second", arguments) > 0);
    assert_true(program_number(&sample.scratch, "view_megabytes_per_second", arguments) > 0);
    assert_true(program_number(&sample.scratch, "seconds", arguments) >= 0.06);
    program_expect(&sample.scratch, 0, "\"ratio\"", arguments);
    program_expect(&sample.scratch, 0, "\"floor\": null", TIMED "--json --no-floor");
    program_expect(&sample.scratch, 0, "(median of 3", TIMED);
    program_expect(&sample.scratch, 0, "of the floor", TIMED "--floor 5 --workers 1");
    program_expect(&sample.scratch, 0, "waiting for a slot", TIMED "--cold --io pread --no-floor");
}

static void test_the_output_is_as_asked_for(void **state)
{
    (void)state;
    char plain[32], planes[32], normal[32];
    const char *hwc = "bench loader \"$LMDB\" --json " STREAM "--layout hwc";
    program_string(&sample.scratch, "hash", plain, sizeof plain, hwc);
    expect_hash(plain, "bench loader \"$LMDB\" --json --cold --no-floor " STREAM);
    program_string(&sample.scratch, "hash", planes, sizeof planes,
                   "bench loader \"$LMDB\" --json " STREAM "--layout chw");
    program_string(&sample.scratch, "hash", normal, sizeof normal,
                   "bench loader \"$LMDB\" --json " STREAM "--layout chw --normalise");
    assert_string_not_equal(plain, planes);
    assert_string_not_equal(planes, normal);
    expect_hash(normal,
                "bench loader \"$SHARDS\" --json --workers 3 " STREAM "--layout chw --normalise");
}

static void test_wrong_usage_is_told(void **state)
{
    (void)state;
    program_expect(&sample.scratch, 2, "want --seconds", "bench loader \"$LMDB\" --windows 3");
    program_expect(&sample.scratch, 2, "endless stream",
                   "bench loader \"$LMDB\" --seconds 1 --hash");
    program_expect(&sample.scratch, 2, "--layout does not know",
                   "bench loader \"$LMDB\" --layout wide");
    program_expect(&sample.scratch, 2, "say what to measure", "bench");
    program_expect(&sample.scratch, 2, "did you mean 'loader'", "bench loadr");
    program_expect(&sample.scratch, 2, "name one dataset", "bench loader");
    program_expect(&sample.scratch, 2, "--io does not know", "bench loader \"$LMDB\" --io fast");
    program_expect(&sample.scratch, 2, "EPOCH:BATCH", "bench loader \"$LMDB\" --start 3");
    program_expect(&sample.scratch, 2, "hexadecimal", "bench loader \"$LMDB\" --hash-from xyz");
    program_expect(&sample.scratch, 1, "did you mean", "bench loader \"$LMDB\" --recipe bylo");
    program_expect(&sample.scratch, 1, "smaller batch", "bench loader \"$LMDB\" --batch 100");
    program_expect(&sample.scratch, 1, "absent", "bench loader \"$DIR/absent\"");
    program_expect(&sample.scratch, 0, "--position-out FILE", "bench loader --help");
    program_expect(&sample.scratch, 0, "loader", "bench --help");
}

static void test_damage_is_fatal_or_counted(void **state)
{
    (void)state;
    struct dataset *dataset = sample_dataset_open(&sample, DATASET_SHARDS);
    sample_dataset_flip(dataset, 7);
    program_expect(&sample.scratch, 1, "record 7",
                   "bench loader \"$SHARDS\" --batch 1 --recipe small");
    program_expect(&sample.scratch, 1, "record 7",
                   "bench loader \"$SHARDS\" --batch 1 --recipe small --json");
    assert_true(program_number(&sample.scratch, "skips",
                               "bench loader \"$SHARDS\" --batch 1 --recipe small --json "
                               "--policy skip --epochs 2") == 1);
    sample_dataset_flip(dataset, 7);
    dataset_close(&dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_hash_does_not_depend_on_how),
        cmocka_unit_test(test_stopping_and_continuing_gives_the_same_hash),
        cmocka_unit_test(test_json_has_what_scripts_want),
        cmocka_unit_test(test_windows_of_time_are_measured),
        cmocka_unit_test(test_the_output_is_as_asked_for),
        cmocka_unit_test(test_wrong_usage_is_told),
        cmocka_unit_test(test_damage_is_fatal_or_counted),
    };
    return cmocka_run_group_tests(tests, make_datasets, remove_datasets);
}
