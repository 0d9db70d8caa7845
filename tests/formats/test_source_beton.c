// FFCV's betons, built by hand: fields in any order, both modes, headers that lie.
#include "formats/image.h"
#include "tests/support/picture.h"
#include "tests/support/program.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIELDS    4u
#define METADATA  (24u + FIELDS * 1041u)
#define STRIDE    48u // f64 weight, packed image (13), packed bytes (16), i64 label from 40 on
#define DATA      (METADATA + 2 * STRIDE)
#define RAW_BYTES 6u

static char path[300];
static struct source_reading reading;
static uint8_t *bytes, *jpeg;
static size_t len, jpeg_len;

static void put(size_t at, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++) {
        bytes[at + i] = (uint8_t)(value >> 8 * i);
    }
}

static void put_field(unsigned number, uint8_t type, const char *name)
{
    size_t at = 24 + (size_t)number * 1041;
    bytes[at] = type;
    memcpy(bytes + at + 1, name, strlen(name));
}

static void put_sample(unsigned number, uint8_t mode, unsigned width, unsigned height,
                       uint64_t where, int64_t label)
{
    size_t at = METADATA + (size_t)number * STRIDE;
    bytes[at + 8] = mode;
    put(at + 9, width, 2);
    put(at + 11, height, 2);
    put(at + 13, where, 8);
    put(at + 40, (uint64_t)label, 8);
}

// Sample 0 is a JPEG, sample 1 raw pixels; the allocations are in the other order.
static int setup(void **state)
{
    (void)state;
    struct image image = {0};
    scratch_make(&scratch);
    snprintf(path, sizeof path, "%s/a.beton", scratch.path);
    picture_fill(&image, 24, 16, 1);
    jpeg = picture_jpeg(&image, &(struct picture_jpeg){.quality = 50}, &jpeg_len);
    image_free(&image);
    size_t table = DATA + jpeg_len + RAW_BYTES;
    len = table + 48;
    bytes = calloc(1, len);
    put(0, 2, 2);
    put(2, FIELDS, 2);
    put(4, 1 << 21, 4);
    put(8, 2, 8);
    put(16, table, 8);
    put_field(0, 0, "weight");
    put_field(1, 2, "covariate");
    put_field(2, 3, "note");
    put_field(3, 1, "target");
    put_sample(0, 0, 24, 16, DATA, 5);
    put_sample(1, 1, 2, 1, DATA + jpeg_len, -1);
    memcpy(bytes + DATA, jpeg, jpeg_len);
    memcpy(bytes + DATA + jpeg_len, "\1\2\3\4\5\6", RAW_BYTES);
    put(table, 1, 8);
    put(table + 8, DATA + jpeg_len, 8);
    put(table + 16, RAW_BYTES, 8);
    put(table + 32, DATA, 8);
    put(table + 40, jpeg_len, 8);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    source_reading_free(&reading);
    free(bytes);
    free(jpeg);
    scratch_remove(&scratch);
    return 0;
}

static void test_both_modes(void **state)
{
    (void)state;
    source_case_write(path, bytes, len);
    source_reading_good(&reading, path);
    assert_string_equal(reading.members, "a.beton/000000000.jpg 5\na.beton/000000001.png -1\n");
    assert_int_equal(reading.first_len, jpeg_len);
    assert_memory_equal(reading.first, jpeg, jpeg_len);
    assert_string_equal(reading.description,
                        "FFCV beton: 2 samples, images from 'covariate', JPEG, raw, labels from "
                        "'target'; not used: 'weight' (float), 'note' (bytes)");
}

static void test_pixels(void **state)
{
    (void)state;
    struct image_decoder *decoder;
    struct image image = {0};
    put_sample(0, 1, 2, 1, DATA + jpeg_len, 0);
    source_case_write(path, bytes, len);
    source_reading_all(&reading, path);
    assert_int_equal(reading.status, STATUS_END);
    assert_int_equal(image_decoder_open(&decoder, NULL), STATUS_OK);
    assert_int_equal(image_decode(decoder, reading.first, reading.first_len, NULL, &image, NULL),
                     STATUS_OK);
    assert_memory_equal(image.pixels, "\1\2\3\4\5\6", RAW_BYTES);
    image_free(&image);
    image_decoder_close(&decoder);
}

typedef void expectation(const char *path, enum status status, const char *text);

static void expect_lie(size_t at, uint64_t value, unsigned width, expectation *expected,
                       enum status status, const char *text)
{
    uint8_t kept[8];
    memcpy(kept, bytes + at, width);
    put(at, value, width);
    source_case_write(path, bytes, len);
    expected(path, status, text);
    memcpy(bytes + at, kept, width);
}

static void test_damaged_tables_end_the_source(void **state)
{
    (void)state;
    expectation *refused = source_reading_refused;
    expect_lie(0, 1, 2, refused, STATUS_VERSION, "version 1");
    expect_lie(16, 0, 8, refused, STATUS_TRUNCATED, "never finished");
    expect_lie(16, len + 1, 8, refused, STATUS_TRUNCATED, "cut short");
    expect_lie(16, UINT64_MAX, 8, refused, STATUS_TRUNCATED, "cut short");
    expect_lie(16, len - 7, 8, refused, STATUS_CORRUPT, "allocation table has 7 bytes");
    expect_lie(8, 1u << 31, 8, refused, STATUS_CORRUPT, "too small for its 2147483648 samples");
    expect_lie(24 + 1041, 255, 1, refused, STATUS_UNSUPPORTED, "of its writer's own");
    expect_lie(24 + 1041, 0, 1, refused, STATUS_UNSUPPORTED, "none of the 4 fields is an image");
}

static void test_damaged_sample_is_a_bad_image(void **state)
{
    (void)state;
    size_t sample = METADATA + 8;
    static const char outside[] = "not in the file's allocations";
    expectation *bad = source_reading_bad;
    expect_lie(sample, 2, 1, bad, STATUS_CORRUPT, outside);
    expect_lie(sample + 5, 1, 8, bad, STATUS_CORRUPT, outside);
    expect_lie(sample + 5, UINT64_MAX, 8, bad, STATUS_CORRUPT, outside);
    expect_lie(len - 8, UINT64_MAX, 8, bad, STATUS_CORRUPT, outside);
    expect_lie(sample + STRIDE + 1, 3, 2, bad, STATUS_CORRUPT, "6 bytes for 3 x 1 raw pixels");
    expect_lie(sample + STRIDE + 1, 0, 2, bad, STATUS_CORRUPT, "without pixels");
    expect_lie(sample + STRIDE + 1, 0xffff, 2, bad, STATUS_LIMIT, "65535 x 1 pixels");
    expect_lie(METADATA + 40, 1u << 31, 4, bad, STATUS_LIMIT, "is no class");
    put(METADATA + 8 + 5, 7, 8);
    source_case_write(path, bytes, len);
    source_reading_good(&reading, path);
    assert_string_equal(reading.members, "a.beton/000000000.jpg -1 !\na.beton/000000001.png -1\n");
    assert_int_equal(reading.bad.record, 0);
    assert_int_equal(reading.bad.offset, METADATA);
}

static void test_cut_short(void **state)
{
    (void)state;
    for (size_t end = 41; end < len; end += 97) {
        source_case_write(path, bytes, end);
        source_reading_all(&reading, path);
        assert_int_not_equal(reading.status, STATUS_END);
        assert_string_not_equal(reading.error.reason, "");
        source_reading_free(&reading);
    }
}

static void test_mutants(void **state)
{
    (void)state;
    source_case_write(path, bytes, len);
    source_case_mutants(path, path, 0, 300);
    source_case_mutants(path, path, METADATA, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_modes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pixels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_tables_end_the_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_sample_is_a_bad_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mutants, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
