// TFRecord framing: TensorFlow's own bytes, the way back, gzip, cuts, damage and lies.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/file.h"
#include "formats/limits.h"
#include "formats/tfrecord.h"
#include "tests/support/mutate.h"
#include "tests/support/program.h"

static struct scratch scratch;
static char path[400];

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    snprintf(path, sizeof path, "%s/in.tfrecord", scratch.path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static void write_bytes(const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void append(const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    assert_true(fd >= 0);
    assert_int_equal(tfrecord_append(fd, path, bytes, len, NULL), STATUS_OK);
    assert_int_equal(close(fd), 0);
}

// tf.io.TFRecordWriter(path).write(b"first"); .write(b""), TensorFlow 2.21.
static const uint8_t written_by_tensorflow[] = "\x05\0\0\0\0\0\0\0\xea\xb2\x04\x3e"
                                               "first\x55\xff\x23\xe5"
                                               "\0\0\0\0\0\0\0\0\x29\x03\x98\x07\xd8\xea\x82\xa2";
#define WRITTEN_LEN (sizeof written_by_tensorflow - 1)

static void expect_record(struct tfrecord_reader *reader, const char *text, uint64_t offset)
{
    const uint8_t *bytes;
    size_t len;
    struct error error = {0};
    if (tfrecord_next(reader, &bytes, &len, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    assert_int_equal(len, strlen(text));
    assert_memory_equal(bytes, text, len);
    assert_int_equal(tfrecord_offset(reader), offset);
}

static void expect_end(struct tfrecord_reader *reader, enum status status, const char *reason)
{
    const uint8_t *bytes;
    size_t len;
    for (int i = 0; i < 2; i++) {
        struct error error = {0};
        assert_int_equal(tfrecord_next(reader, &bytes, &len, &error), status);
        assert_false(tfrecord_goes_on(reader));
        if (reason != NULL) {
            assert_non_null(strstr(error.reason, reason));
            assert_string_equal(error.path, path);
        }
    }
}

static void test_the_bytes_are_tensorflows(void **state)
{
    (void)state;
    append("first", 5);
    append("", 0);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(path, 1000, &bytes, &len, NULL), STATUS_OK);
    assert_int_equal(len, WRITTEN_LEN);
    assert_memory_equal(bytes, written_by_tensorflow, len);
    assert_true(tfrecord_starts(bytes, len));
    assert_false(tfrecord_starts(bytes, 11));
    assert_false(tfrecord_starts(bytes + 1, len - 1));
    free(bytes);

    struct tfrecord_reader *reader;
    assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
    expect_record(reader, "first", 0);
    expect_record(reader, "", 21);
    assert_int_equal(tfrecord_number(reader), 1);
    assert_false(tfrecord_compressed(reader));
    expect_end(reader, STATUS_END, NULL);
    tfrecord_close(&reader);
    assert_null(reader);
    tfrecord_close(&reader);
}

static void test_records_larger_than_the_window_read_back(void **state)
{
    (void)state;
    size_t len = (3u << 20) + 17, got_len;
    uint8_t *large = malloc(len);
    assert_non_null(large);
    for (size_t i = 0; i < len; i++) {
        large[i] = (uint8_t)(i * 31 + i / 4096);
    }
    struct tfrecord_reader *reader;
    const uint8_t *got;
    append("small", 5);
    append(large, len);
    append("after", 5);
    assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
    expect_record(reader, "small", 0);
    assert_int_equal(tfrecord_next(reader, &got, &got_len, NULL), STATUS_OK);
    assert_int_equal(got_len, len);
    assert_memory_equal(got, large, len);
    expect_record(reader, "after", 21 + 16 + len);
    expect_end(reader, STATUS_END, NULL);
    tfrecord_close(&reader);
    free(large);
}

static void test_a_damaged_record_is_told_and_the_next_is_read(void **state)
{
    (void)state;
    uint8_t bytes[WRITTEN_LEN];
    memcpy(bytes, written_by_tensorflow, sizeof bytes);
    bytes[13] ^= 4;
    write_bytes(bytes, sizeof bytes);
    struct tfrecord_reader *reader;
    struct error error;
    const uint8_t *got;
    size_t len;
    assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
    assert_int_equal(tfrecord_next(reader, &got, &len, &error), STATUS_CORRUPT);
    assert_true(tfrecord_goes_on(reader));
    assert_int_equal(error.offset, 0);
    assert_int_equal(error.record, 0);
    expect_record(reader, "", 21);
    expect_end(reader, STATUS_END, NULL);
    tfrecord_close(&reader);
}

static void test_a_damaged_length_ends_it(void **state)
{
    (void)state;
    uint8_t bytes[WRITTEN_LEN];
    for (size_t at = 0; at < TFRECORD_HEAD_BYTES; at++) {
        memcpy(bytes, written_by_tensorflow, sizeof bytes);
        bytes[21 + at] ^= 0x10;
        write_bytes(bytes, sizeof bytes);
        struct tfrecord_reader *reader;
        assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
        expect_record(reader, "first", 0);
        expect_end(reader, STATUS_CORRUPT, "checksum of a record's length");
        tfrecord_close(&reader);
    }
}

static void test_every_cut_is_found(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < WRITTEN_LEN; cut++) {
        write_bytes(written_by_tensorflow, cut);
        struct tfrecord_reader *reader;
        assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
        if (cut >= 21) {
            expect_record(reader, "first", 0);
        }
        bool whole = cut == 0 || cut == 21;
        expect_end(reader, whole ? STATUS_END : STATUS_TRUNCATED,
                   whole ? NULL : "the file ends inside a record");
        tfrecord_close(&reader);
    }
}

static void test_lengths_that_lie_allocate_nothing_and_are_told(void **state)
{
    (void)state;
    const uint64_t lengths[] = {LIMIT_TFRECORD_BYTES, LIMIT_TFRECORD_BYTES + 1, UINT64_MAX / 2,
                                UINT64_MAX - 3, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t bytes[40] = {0};
        tfrecord_head(bytes, (size_t)lengths[i]);
        write_bytes(bytes, sizeof bytes);
        struct tfrecord_reader *reader;
        assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
        expect_end(reader, STATUS_TRUNCATED, "the file ends inside a record");
        tfrecord_close(&reader);
    }
}

static void test_records_above_the_limit_are_passed_over(void **state)
{
    (void)state;
    size_t len = (size_t)LIMIT_TFRECORD_BYTES + 1;
    uint8_t *large = calloc(1, len);
    assert_non_null(large);
    append(large, len);
    append("after", 5);
    free(large);
    struct tfrecord_reader *reader;
    struct error error;
    const uint8_t *got;
    assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
    assert_int_equal(tfrecord_next(reader, &got, &len, &error), STATUS_LIMIT);
    assert_true(tfrecord_goes_on(reader));
    expect_record(reader, "after", LIMIT_TFRECORD_BYTES + 17);
    expect_end(reader, STATUS_END, NULL);
    tfrecord_close(&reader);
}

static void test_gzip_is_read_through(void **state)
{
    (void)state;
    char command[1300];
    write_bytes(written_by_tensorflow, WRITTEN_LEN);
    snprintf(command, sizeof command, "gzip '%s' 2>/dev/null && mv '%s.gz' '%s'", path, path, path);
    if (system(command) != 0) {
        printf("skipped: gzip is not installed\n");
        skip();
    }
    struct tfrecord_reader *reader;
    assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
    assert_true(tfrecord_compressed(reader));
    expect_record(reader, "first", 0);
    expect_record(reader, "", 21);
    expect_end(reader, STATUS_END, NULL);
    tfrecord_close(&reader);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(path, 1000, &bytes, &len, NULL), STATUS_OK);
    write_bytes(bytes, len / 2); // cut inside the compressed data
    free(bytes);
    struct error error;
    enum status status = tfrecord_open(&reader, path, &error);
    while (status == STATUS_OK) {
        const uint8_t *got;
        status = tfrecord_next(reader, &got, &len, &error);
    }
    assert_int_equal(status, STATUS_TRUNCATED);
    tfrecord_close(&reader);
}

static void test_a_length_that_looks_like_gzip_is_a_length(void **state)
{
    (void)state;
    size_t len = 0x00088b1f, got_len;
    uint8_t *bytes = calloc(1, len);
    assert_non_null(bytes);
    append(bytes, len);
    free(bytes);
    struct tfrecord_reader *reader;
    const uint8_t *got;
    assert_int_equal(tfrecord_open(&reader, path, NULL), STATUS_OK);
    assert_false(tfrecord_compressed(reader));
    assert_int_equal(tfrecord_next(reader, &got, &got_len, NULL), STATUS_OK);
    assert_int_equal(got_len, len);
    tfrecord_close(&reader);
}

static void test_mutants_do_no_harm(void **state)
{
    (void)state;
    uint64_t random = 11;
    for (unsigned i = 0; i < 2000; i++) {
        size_t len, record_len;
        uint8_t *mutant = mutate_copy(written_by_tensorflow, WRITTEN_LEN, 0, &random, &len);
        write_bytes(mutant, len);
        free(mutant);
        struct tfrecord_reader *reader;
        const uint8_t *bytes;
        struct error error = {0};
        enum status status = tfrecord_open(&reader, path, &error);
        for (unsigned records = 0; status != STATUS_END && reader != NULL; records++) {
            assert_in_range(records, 0, 10);
            status = tfrecord_next(reader, &bytes, &record_len, &error);
            if (!tfrecord_goes_on(reader)) {
                break;
            }
        }
        assert_true(status == STATUS_END || error.reason[0] != '\0');
        tfrecord_close(&reader);
    }
}

static void test_what_cannot_be_opened_is_named(void **state)
{
    (void)state;
    struct tfrecord_reader *reader;
    struct error error;
    assert_int_equal(tfrecord_open(&reader, path, &error), STATUS_NOT_FOUND);
    assert_null(reader);
    assert_string_equal(error.path, path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_bytes_are_tensorflows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_records_larger_than_the_window_read_back, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_record_is_told_and_the_next_is_read, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_length_ends_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_cut_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lengths_that_lie_allocate_nothing_and_are_told, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_records_above_the_limit_are_passed_over, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_gzip_is_read_through, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_length_that_looks_like_gzip_is_a_length, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_mutants_do_no_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_opened_is_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
