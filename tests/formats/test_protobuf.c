// Protocol buffers' wire format: Google's own bytes, the way back, and messages that lie.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/protobuf.h"
#include "tests/support/mutate.h"

static void expect_bytes(const struct protobuf_writer *writer, const char *bytes, size_t len)
{
    assert_int_equal(protobuf_finish(writer, NULL), STATUS_OK);
    assert_int_equal(writer->len, len);
    assert_memory_equal(writer->bytes, bytes, len);
}

// The examples of https://protobuf.dev/programming-guides/encoding.
static void test_the_documented_bytes_are_written(void **state)
{
    (void)state;
    struct protobuf_writer writer = {0};
    protobuf_put_varint(&writer, 1, 150);
    expect_bytes(&writer, "\x08\x96\x01", 3);
    writer.len = 0;
    protobuf_put_string(&writer, 2, "testing");
    expect_bytes(&writer, "\x12\x07testing", 9);
    writer.len = 0;
    size_t mark = protobuf_begin(&writer, 3);
    protobuf_put_varint(&writer, 1, 150);
    protobuf_end(&writer, mark);
    expect_bytes(&writer, "\x1a\x03\x08\x96\x01", 5);
    writer.len = 0;
    const int64_t packed[] = {3, 270, 86942};
    protobuf_put_packed_varints(&writer, 6, packed, 3);
    expect_bytes(&writer, "\x32\x06\x03\x8e\x02\x9e\xa7\x05", 8);
    writer.len = 0;
    protobuf_put_varint(&writer, 1, (uint64_t)-2); // as an int64
    expect_bytes(&writer, "\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11);
    writer.len = 0;
    protobuf_put_float(&writer, 2, 1.0f);
    protobuf_put_double(&writer, 16, -2.0);
    protobuf_put_bytes(&writer, 4, NULL, 0);
    expect_bytes(&writer, "\x15\0\0\x80\x3f\x81\x01\0\0\0\0\0\0\0\xc0\x22\0", 17);
    writer.len = 0;
    const float floats[] = {1.0f, 0.0f};
    protobuf_put_packed_floats(&writer, 3, floats, 2);
    expect_bytes(&writer, "\x1a\x08\0\0\x80\x3f\0\0\0\0", 10);
    protobuf_free(&writer);
}

static void test_what_is_written_reads_back(void **state)
{
    (void)state;
    struct protobuf_writer writer = {0};
    uint8_t blob[300];
    memset(blob, 7, sizeof blob);
    size_t outer = protobuf_begin(&writer, 1);
    size_t inner = protobuf_begin(&writer, 0x1fffffff);
    protobuf_put_bytes(&writer, 5, blob, sizeof blob);
    protobuf_end(&writer, inner);
    protobuf_put_varint(&writer, 2, UINT64_MAX);
    protobuf_put_float(&writer, 3, -0.5f);
    protobuf_put_double(&writer, 4, 1e300);
    protobuf_end(&writer, outer);
    assert_int_equal(protobuf_finish(&writer, NULL), STATUS_OK);

    struct protobuf_reader top = protobuf_read(writer.bytes, writer.len), message, nested;
    struct protobuf_field field;
    assert_true(protobuf_next(&top, &field));
    assert_int_equal(field.number, 1);
    message = protobuf_enter(&field);
    assert_true(protobuf_next(&message, &field));
    assert_int_equal(field.number, 0x1fffffff);
    nested = protobuf_enter(&field);
    assert_true(protobuf_next(&nested, &field));
    assert_int_equal(field.len, sizeof blob);
    assert_memory_equal(field.bytes, blob, sizeof blob);
    assert_false(protobuf_next(&nested, &field));
    assert_null(nested.fault);
    assert_true(protobuf_next(&message, &field));
    assert_true(field.wire == PROTOBUF_VARINT && field.value == UINT64_MAX);
    assert_true(protobuf_next(&message, &field));
    assert_true(protobuf_float(&field) == -0.5f);
    assert_true(protobuf_next(&message, &field));
    assert_true(protobuf_double(&field) == 1e300);
    assert_false(protobuf_next(&message, &field));
    assert_null(message.fault);
    assert_false(protobuf_next(&top, &field));
    assert_null(top.fault);
    protobuf_free(&writer);
}

static void test_packed_numbers_read_one_by_one(void **state)
{
    (void)state;
    struct protobuf_reader top = protobuf_read("\x32\x06\x03\x8e\x02\x9e\xa7\x05", 8);
    struct protobuf_field field;
    uint64_t value;
    assert_true(protobuf_next(&top, &field));
    struct protobuf_reader numbers = protobuf_enter(&field);
    assert_true(protobuf_next_varint(&numbers, &value) && value == 3);
    assert_true(protobuf_next_varint(&numbers, &value) && value == 270);
    assert_true(protobuf_next_varint(&numbers, &value) && value == 86942);
    assert_false(protobuf_next_varint(&numbers, &value));
    assert_null(numbers.fault);

    float real;
    struct protobuf_reader floats = protobuf_read("\0\0\x80\x3f\0\0", 6);
    assert_true(protobuf_next_float(&floats, &real) && real == 1.0f);
    assert_false(protobuf_next_float(&floats, &real));
    assert_non_null(floats.fault);
}

struct lie {
    const char *bytes;
    size_t len;
    const char *fault;
};

static void test_lies_are_told(void **state)
{
    (void)state;
    static const struct lie lies[] = {
        {"\x12\x08testing", 9, "longer than the message"},
        {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01testing", 18, "longer than the message"},
        {"\x12", 1, "ends inside a number"},
        {"\x08\x96", 2, "ends inside a number"},
        {"\x0d\1\2\3", 4, "ends inside a number"},
        {"\x09\1\2\3\4\5\6\7", 8, "ends inside a number"},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, "more than 64 bits"},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, "longer than ten bytes"},
        {"\x00\x01", 2, "impossible number"},
        {"\x80\x80\x80\x80\x10\x01", 6, "impossible number"},
        {"\x0b\x0c", 2, "wire type"},
        {"\x0f\x01", 2, "wire type"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        uint8_t *exact = malloc(lies[i].len);
        assert_non_null(exact);
        memcpy(exact, lies[i].bytes, lies[i].len);
        struct protobuf_reader reader = protobuf_read(exact, lies[i].len);
        struct protobuf_field field;
        assert_false(protobuf_next(&reader, &field));
        assert_non_null(reader.fault);
        assert_non_null(strstr(reader.fault, lies[i].fault));
        assert_false(protobuf_next(&reader, &field)); // and stays there
        assert_non_null(reader.fault);
        free(exact);
    }
}

static void test_a_number_is_no_message(void **state)
{
    (void)state;
    struct protobuf_reader reader = protobuf_read("\x08\x01", 2);
    struct protobuf_field field;
    assert_true(protobuf_next(&reader, &field));
    struct protobuf_reader inner = protobuf_enter(&field);
    assert_false(protobuf_next(&inner, &field));
    assert_non_null(inner.fault);
    reader = protobuf_read(NULL, 0);
    assert_false(protobuf_next(&reader, &field));
    assert_null(reader.fault);
}

static void test_mutants_are_walked_within_their_bounds(void **state)
{
    (void)state;
    struct protobuf_writer writer = {0};
    for (uint32_t i = 1; i < 6; i++) {
        size_t mark = protobuf_begin(&writer, i);
        protobuf_put_string(&writer, 1, "some text");
        protobuf_put_varint(&writer, 2, UINT64_C(1) << (12 * i));
        protobuf_put_double(&writer, 3, i);
        protobuf_end(&writer, mark);
    }
    uint64_t random = 3, sum = 0;
    unsigned faults = 0;
    for (unsigned i = 0; i < 5000; i++) {
        size_t len;
        uint8_t *mutant = mutate_copy(writer.bytes, writer.len, 0, &random, &len);
        struct protobuf_reader reader = protobuf_read(mutant, len);
        struct protobuf_field field;
        while (protobuf_next(&reader, &field)) {
            for (size_t at = 0; at < field.len; at++) { // a sanitizer sees each byte
                sum += field.bytes[at];
            }
        }
        faults += reader.fault != NULL;
        free(mutant);
    }
    assert_true(sum > 0);
    assert_in_range(faults, 100, 5000);
    protobuf_free(&writer);
}

static void test_messages_above_two_gib_are_refused(void **state)
{
    (void)state;
    struct protobuf_writer writer = {0};
    struct error error;
    protobuf_put_bytes(&writer, 1, "x", (size_t)INT32_MAX);
    protobuf_put_varint(&writer, 2, 1);
    size_t mark = protobuf_begin(&writer, 3);
    protobuf_end(&writer, mark);
    assert_int_equal(writer.len, 0);
    assert_int_equal(protobuf_finish(&writer, &error), STATUS_LIMIT);
    assert_non_null(strstr(error.reason, "2 GiB"));
    protobuf_free(&writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_documented_bytes_are_written),
        cmocka_unit_test(test_what_is_written_reads_back),
        cmocka_unit_test(test_packed_numbers_read_one_by_one),
        cmocka_unit_test(test_lies_are_told),
        cmocka_unit_test(test_a_number_is_no_message),
        cmocka_unit_test(test_mutants_are_walked_within_their_bounds),
        cmocka_unit_test(test_messages_above_two_gib_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
