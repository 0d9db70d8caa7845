// CIFAR's and STL-10's binary files as sources: pixels, labels, names of classes, archives, lies.
#include "formats/file.h"
#include "formats/image.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char kind[] = "CIFAR and STL-10 binaries";
static struct source_reading reading;

// --- making ------------------------------------------------------------------------------------

static const char *in_scratch(const char *name)
{
    return scratch_path(&scratch, name);
}

// Sample `at` of channel `channel` at column x, row y of record `number`: planes hold these.
static uint8_t sample(size_t number, size_t channel, size_t x, size_t y)
{
    return (uint8_t)(number * 11 + channel * 70 + x * 2 + y * 3);
}

static uint8_t *put_planes(uint8_t *to, size_t number, size_t side, bool columns)
{
    for (size_t channel = 0; channel < 3; channel++) {
        for (size_t i = 0; i < side * side; i++) {
            size_t slow = i / side, fast = i % side;
            *to++ =
                columns ? sample(number, channel, slow, fast) : sample(number, channel, fast, slow);
        }
    }
    return to;
}

// Records with the labels in `labels`; `header` bytes of label before the pixels, the last counts.
static uint8_t *make_records(const char *labels, size_t header, size_t side, size_t *len)
{
    size_t count = strlen(labels), record = header + 3 * side * side;
    uint8_t *bytes = calloc(count, record), *at = bytes;
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++) {
        at += header;
        if (header > 0) {
            at[-1] = (uint8_t)(labels[i] - '0');
        }
        at = put_planes(at, i, side, side == 96);
    }
    *len = count * record;
    return bytes;
}

static void put_records(const char *name, const char *labels, size_t header, size_t side)
{
    size_t len;
    uint8_t *bytes = make_records(labels, header, side, &len);
    source_case_write(in_scratch(name), bytes, len);
    free(bytes);
}

static void put_text(const char *name, const char *text)
{
    source_case_write(in_scratch(name), text, strlen(text));
}

static const char ten_names[] = "a\nb\nc\r\nd\ne\nf\ng\nh\ni\nj\n\n";

// --- reading -----------------------------------------------------------------------------------

// The pictures are those that were made: `numbers` says which, image by image.
static void expect_pixels(const char *name, size_t side)
{
    struct source *source;
    struct source_member member;
    struct image_decoder *decoder;
    struct image image = {0};
    uint8_t *bytes = NULL;
    size_t len, capacity = 0;
    assert_int_equal(image_decoder_open(&decoder, NULL), STATUS_OK);
    assert_int_equal(source_open(&source, in_scratch(name), NULL), STATUS_OK);
    for (size_t number = 0; source_next(source, &member, NULL) == STATUS_OK; number++) {
        assert_int_equal(source_read(source, &bytes, &len, &capacity, NULL), STATUS_OK);
        assert_int_equal(image_decode(decoder, bytes, len, NULL, &image, NULL), STATUS_OK);
        assert_int_equal(image.width, side);
        assert_int_equal(image.height, side);
        for (size_t i = 0; i < side * side * 3; i++) {
            size_t pixel = i / 3;
            assert_int_equal(image.pixels[i], sample(number, i % 3, pixel % side, pixel / side));
        }
    }
    source_close(&source);
    image_decoder_close(&decoder);
    image_free(&image);
    free(bytes);
}

static void expect_classes(const char *name, const char *first, uint32_t expected)
{
    struct source *source;
    struct source_member member;
    uint32_t count;
    assert_int_equal(source_open(&source, in_scratch(name), NULL), STATUS_OK);
    while (source_next(source, &member, NULL) == STATUS_OK) {
    }
    for (int i = 0; i < 2; i++) { // also when asked again
        const char *const *classes = source_classes(source, &count);
        assert_int_equal(count, expected);
        assert_true((classes != NULL) == (expected > 0));
        if (classes != NULL) {
            assert_string_equal(classes[0], first);
        }
    }
    source_close(&source);
}

static void cifar_10(void **state)
{
    (void)state;
    put_records("data_batch_1.bin", "309", 1, 32);
    source_reading_expect(in_scratch("data_batch_1.bin"), kind,
                          "data_batch_1/00000.png 3 \ndata_batch_1/00001.png 0 \n"
                          "data_batch_1/00002.png 9 \n");
    expect_pixels("data_batch_1.bin", 32);
    expect_classes("data_batch_1.bin", NULL, 0);
    put_text("batches.meta.txt", ten_names);
    expect_classes("data_batch_1.bin", "a", 10);
    put_text("batches.meta.txt", "a\nb\n");
    expect_classes("data_batch_1.bin", NULL, 0);
    put_text("batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n"); // one too many
    expect_classes("data_batch_1.bin", NULL, 0);
    source_reading_all(&reading, in_scratch("data_batch_1.bin"));
    assert_string_equal(reading.description, "CIFAR and STL-10 binaries: CIFAR-10");
}

static void cifar_100(void **state)
{
    (void)state;
    put_records("train.bin", "1\x93", 2, 32); // label 99
    source_reading_expect(in_scratch("train.bin"), kind,
                          "train/00000.png 1 \ntrain/00001.png 99 \n");
    expect_pixels("train.bin", 32);
}

static void stl_10(void **state)
{
    (void)state;
    put_records("train_X.bin", "xxx", 0, 96);
    source_reading_expect(in_scratch("train_X.bin"), kind,
                          "train_X/00000.png -1 \ntrain_X/00001.png -1 \ntrain_X/00002.png -1 \n");
    expect_pixels("train_X.bin", 96);
    put_text("train_y.bin", "\x01\x0a\x05");
    put_text("class_names.txt", ten_names);
    source_reading_expect(in_scratch("train_X.bin"), kind,
                          "train_X/00000.png 0 \ntrain_X/00001.png 9 \ntrain_X/00002.png 4 \n");
    expect_classes("train_X.bin", "a", 10);
    put_text("train_y.bin", "\x01\x0b\x05");
    source_reading_expect(in_scratch("train_X.bin"), kind,
                          "train_X/00000.png 0 \n"
                          "train_X/00001.png -1 !label 10; the classes are 0 to 9\n"
                          "train_X/00002.png 4 \n");
    put_text("train_y.bin", "\x01\x0a");
    source_reading_refused(in_scratch("train_X.bin"), STATUS_CORRUPT,
                           "train_y.bin has 2 labels for 3 images");
}

static void folders_hold_several_files(void **state)
{
    (void)state;
    put_records("data_batch_1.bin", "12", 1, 32);
    put_records("data_batch_2.bin", "3", 1, 32);
    put_records("test_batch.bin", "4", 1, 32);
    put_text("batches.meta.txt", ten_names);
    put_text("readme.html", "text");
    source_reading_expect(scratch.path, kind,
                          "data_batch_1/00000.png 1 \ndata_batch_1/00001.png 2 \n"
                          "data_batch_2/00000.png 3 \ntest_batch/00000.png 4 \n");
    expect_classes("", "a", 10);
    put_records("test_batch.bin", "4", 1, 31);
    source_reading_refused(in_scratch(""), STATUS_TRUNCATED, "test_batch.bin is 2884 bytes long");
    put_records("test_batch.bin", "4", 1, 32);
    put_records("train_X.bin", "x", 0, 96);
    source_reading_refused(in_scratch(""), STATUS_UNSUPPORTED,
                           "train_X.bin is of another data set (STL-10)");
}

static void archives_are_read_through(void **state)
{
    (void)state;
    size_t len, cifar_len;
    uint8_t *stl = make_records("xx", 0, 96, &len), *cifar = make_records("07", 1, 32, &cifar_len);
    FILE *tar = source_case_create(in_scratch("x.tar"));
    source_case_member(tar, "stl10_binary/", '5', "", 0);
    source_case_member(tar, "stl10_binary/test_X.bin", '0', stl, len);
    source_case_member(tar, "stl10_binary/test_y.bin", '0', "\x02\x03", 2);
    source_case_file(tar, "stl10_binary/class_names.txt", ten_names);
    source_case_member(tar, "stl10_binary/unlabeled_X.bin", '0', stl, len);
    source_case_end(tar);
    source_reading_expect(in_scratch("x.tar"), kind,
                          "test_X/00000.png 1 \ntest_X/00001.png 2 \nunlabeled_X/00000.png -1 \n"
                          "unlabeled_X/00001.png -1 \n");
    expect_classes("x.tar", "a", 10);
    source_case_cuts(in_scratch("x.tar"), 4999);

    tar = source_case_create(in_scratch("x.tar"));
    source_case_member(tar, "c/data_batch_1.bin", '0', cifar, cifar_len);
    source_case_file(tar, "c/batches.meta.txt", ten_names);
    source_case_end(tar);
    source_reading_expect(in_scratch("x.tar"), kind,
                          "data_batch_1/00000.png 0 \ndata_batch_1/00001.png 7 \n");
    source_case_mutants(in_scratch("x.tar"), in_scratch("x.tar"), 0, 300);
    free(stl);
    free(cifar);
}

static void the_labels_alone_tell_a_long_file(void **state)
{
    (void)state;
    char labels[101];
    for (size_t i = 0; i < 100; i++) {
        labels[i] = (char)('0' + i % 10);
    }
    labels[100] = '\0';
    put_records("anything", labels, 1, 32);
    source_reading_all(&reading, in_scratch("anything"));
    assert_string_equal(reading.kind, kind);
    assert_int_equal(reading.counts.images, 100);
    put_records("few", "0123", 1, 32); // too few to be sure
    source_reading_all(&reading, in_scratch("few"));
    assert_int_equal(reading.status, STATUS_UNSUPPORTED);
    memset(labels, '3', 100); // all the same: zeros and padding look so
    put_records("same", labels, 1, 32);
    source_reading_all(&reading, in_scratch("same"));
    assert_int_equal(reading.status, STATUS_UNSUPPORTED);
}

static void labels_out_of_range_are_bad(void **state)
{
    (void)state;
    char labels[601];
    memset(labels, '3', 600);
    labels[600] = '\0';
    labels[1] = '0' + 10; // one that the first look does not meet
    put_records("test_batch.bin", labels, 1, 32);
    source_reading_all(&reading, in_scratch("test_batch.bin"));
    assert_int_equal(reading.status, STATUS_END);
    assert_non_null(strstr(reading.lines, "00001.png -1 !label 10; the classes are 0 to 9\n"));
    put_records("data_batch_1.bin", "\x70", 1, 32); // the first one: not such a file
    source_reading_all(&reading, in_scratch("data_batch_1.bin"));
    assert_int_equal(reading.status, STATUS_UNSUPPORTED);
}

static void pickles_are_refused_with_advice(void **state)
{
    (void)state;
    put_text("batches.meta", "\x80\x02.");
    source_reading_refused(in_scratch(""), STATUS_UNSUPPORTED, "take the binary version");
    FILE *tar = source_case_create(in_scratch("x.tar"));
    source_case_file(tar, "cifar-100-python/train", "\x80\x02.");
    source_case_end(tar);
    source_reading_refused(in_scratch("x.tar"), STATUS_UNSUPPORTED, "take the binary version");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOURCE_TEST(cifar_10),
        SOURCE_TEST(cifar_100),
        SOURCE_TEST(stl_10),
        SOURCE_TEST(folders_hold_several_files),
        SOURCE_TEST(archives_are_read_through),
        SOURCE_TEST(the_labels_alone_tell_a_long_file),
        SOURCE_TEST(labels_out_of_range_are_bad),
        SOURCE_TEST(pickles_are_refused_with_advice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
