// TFRecords as sources: the layouts of keys, names, labels, damaged records, and what is refused.
// (What TensorFlow itself writes is read in the suites of real writers.)
#include "formats/protobuf.h"
#include "formats/tfrecord.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

static struct source_reading reading;

static const char *records(void)
{
    return scratch_path(&scratch, "x.tfrecord");
}

// --- making ------------------------------------------------------------------------------------

enum sort { BYTES = 1, FLOATS = 2, INTEGERS = 3, UNPACKED = 4 };

struct feature {
    const char *key;
    enum sort sort;
    const char *text;
    int64_t number;
};

static void put_feature(struct protobuf_writer *writer, const struct feature *feature)
{
    size_t entry = protobuf_begin(writer, 1);
    protobuf_put_string(writer, 1, feature->key);
    size_t value = protobuf_begin(writer, 2);
    size_t list = protobuf_begin(writer, feature->sort == UNPACKED ? INTEGERS : feature->sort);
    if (feature->sort == BYTES) {
        protobuf_put_string(writer, 1, feature->text);
    } else if (feature->sort == FLOATS) {
        const float values[] = {0.5f, 2};
        protobuf_put_packed_floats(writer, 1, values, 2);
    } else if (feature->sort == INTEGERS) {
        protobuf_put_packed_varints(writer, 1, &feature->number, 1);
    } else {
        protobuf_put_varint(writer, 1, (uint64_t)feature->number);
    }
    protobuf_end(writer, list);
    protobuf_end(writer, value);
    protobuf_end(writer, entry);
}

static void append(const void *bytes, size_t len)
{
    int fd = open(records(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    assert_true(fd >= 0);
    assert_int_equal(tfrecord_append(fd, records(), bytes, len, NULL), STATUS_OK);
    assert_int_equal(close(fd), 0);
}

// Features up to one without a key.
static void put_example(const struct feature *features)
{
    struct protobuf_writer writer = {0};
    size_t mark = protobuf_begin(&writer, 1);
    for (; features->key != NULL; features++) {
        put_feature(&writer, features);
    }
    protobuf_end(&writer, mark);
    assert_int_equal(protobuf_finish(&writer, NULL), STATUS_OK);
    append(writer.bytes, writer.len);
    protobuf_free(&writer);
}
#define EXAMPLE(...) put_example((const struct feature[]){__VA_ARGS__, {NULL, BYTES, NULL, 0}})

// --- layouts -----------------------------------------------------------------------------------

static void the_keys_of_tensorflow_datasets(void **state)
{
    (void)state;
    EXAMPLE({"file_name", BYTES, "a.jpg", 0}, {"image", BYTES, "AAA", 0},
            {"label", INTEGERS, NULL, 0});
    EXAMPLE({"label", UNPACKED, NULL, 7}, {"image", BYTES, "BB", 0}, {"extra", FLOATS, NULL, 0},
            {"file_name", BYTES, "b.png", 0});
    EXAMPLE({"label", INTEGERS, NULL, -1}, {"image", BYTES, "C", 0},
            {"file_name", BYTES, "c", 0}); // a test set's
    source_reading_expect(records(), "TFRecord", "a.jpg 0 AAA\nb.png 7 BB\nc -1 C\n");
    source_reading_described(records(), "TFRecord: image, label from 0, file_name");
}

static void the_classic_keys_of_imagenet(void **state)
{
    (void)state;
    EXAMPLE({"image/encoded", BYTES, "AAA", 0}, {"image/class/label", INTEGERS, NULL, 1},
            {"image/filename", BYTES, "n1_1.JPEG", 0}, {"image/class/text", BYTES, "tench", 0},
            {"image/format", BYTES, "JPEG", 0});
    EXAMPLE({"image/class/label", INTEGERS, NULL, 1000}, {"image/encoded", BYTES, "B", 0},
            {"image/filename", BYTES, "n2_1.JPEG", 0});
    EXAMPLE({"image/class/label", INTEGERS, NULL, 0}, {"image/encoded", BYTES, "C", 0},
            {"image/filename", BYTES, "n3_1.JPEG", 0});
    source_reading_expect(records(), "TFRecord",
                          "n1_1.JPEG 0 AAA\nn2_1.JPEG 999 B\n"
                          "n3_1.JPEG -1 !image/class/label is 0, but counts from 1 to 1048576\n");
    source_reading_described(
        records(), "TFRecord: image/encoded, image/class/label from 1 named by image/class/text, "
                   "image/filename");
}

static void slims_labels_count_from_zero(void **state)
{
    (void)state;
    EXAMPLE({"image/encoded", BYTES, "AAA", 0}, {"image/class/label", INTEGERS, NULL, 0},
            {"image/format", BYTES, "jpg", 0});
    EXAMPLE({"image/encoded", BYTES, "\x89PNG", 0}, {"image/class/label", INTEGERS, NULL, 3},
            {"image/format", BYTES, "png", 0});
    source_reading_expect(records(), "TFRecord",
                          "x.tfrecord/000000000.jpg 0 AAA\nx.tfrecord/000000001.png 3 \n");
    source_reading_described(records(),
                             "TFRecord: image/encoded, image/class/label from 0, no names");
}

static void images_without_labels(void **state)
{
    (void)state;
    EXAMPLE({"image", BYTES, "AAA", 0}, {"label", BYTES, "cat", 0}, {"id", BYTES, "train_7", 0});
    source_reading_expect(records(), "TFRecord", "train_7 -1 AAA\n");
    source_reading_described(records(), "TFRecord: image, no labels, id");
}

static void unknown_keys_are_refused_and_listed(void **state)
{
    (void)state;
    EXAMPLE({"img_raw", BYTES, "AAA", 0}, {"h", INTEGERS, NULL, 3}, {"f", FLOATS, NULL, 0});
    source_reading_refused(records(), STATUS_UNSUPPORTED,
                           "it has img_raw (bytes), h (integers), f (floats)");
}

static void other_records_are_no_examples(void **state)
{
    (void)state;
    // The first record of a TensorBoard event file: 1 wall time, 3 "brain.Event:2".
    append("\x09\0\0\x80\x98\xd4\x68\xda\x41\x1a\x0d"
           "brain.Event:2",
           24);
    source_reading_refused(records(), STATUS_UNSUPPORTED, "something else than tf.train.Example");
}

// --- names of classes --------------------------------------------------------------------------

// The classes and the remark of a plan of these files.
static void expect_classes(const char *const *names, size_t count, const char *classes,
                           const char *remark)
{
    struct source_plan *plan;
    char text[400] = "";
    assert_int_equal(source_plan_open(&plan, NULL), STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        struct source *source;
        struct error error;
        assert_int_equal(source_open(&source, scratch_path(&scratch, names[i]), NULL), STATUS_OK);
        if (source_plan_scan(plan, source, NULL, NULL, &error) != STATUS_OK) {
            fail_msg("%s", error.reason);
        }
        source_close(&source);
    }
    assert_int_equal(source_plan_finish(plan, NULL), STATUS_OK);
    for (uint32_t i = 0; i < source_plan_class_count(plan); i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? "," : "",
                 source_plan_classes(plan)[i]);
    }
    assert_string_equal(text, classes);
    if (remark == NULL) {
        assert_null(source_plan_remark(plan));
    } else {
        assert_string_equal(source_plan_remark(plan), remark);
    }
    source_plan_close(&plan);
}
#define EXPECT_CLASSES(classes, remark, ...)                                                       \
    expect_classes((const char *const[]){__VA_ARGS__},                                             \
                   sizeof(const char *const[]){__VA_ARGS__} / sizeof(const char *), classes,       \
                   remark)

static void keep_as(const char *name)
{
    assert_int_equal(rename(records(), scratch_path(&scratch, name)), 0);
}

static void put_classic(int64_t label, const char *key, const char *name)
{
    EXAMPLE({"image/encoded", BYTES, "A", 0}, {"image/class/label", INTEGERS, NULL, label},
            {"image/filename", BYTES, "a", 0}, {key, BYTES, name, 0});
}

static void classes_are_called_as_the_records_say(void **state)
{
    (void)state;
    put_classic(1, "image/class/text", "tench, Tinca tinca");
    put_classic(4, "image/class/text", "hen/cock");
    put_classic(-1, "image/class/text", "");
    keep_as("one");
    // other classes than in the first
    put_classic(2, "image/class/text", "goldfish");
    put_classic(2, "image/class/text", "");
    put_classic(1, "image/class/text", "tench, Tinca tinca");
    keep_as("two");
    EXPECT_CLASSES("tench, Tinca tinca,goldfish,2,hen_cock", NULL, "one", "two");
    // of the two the synset counts: texts may come twice
    EXAMPLE({"image/encoded", BYTES, "A", 0}, {"image/class/label", INTEGERS, NULL, 2},
            {"image/class/text", BYTES, "crane", 0}, {"image/class/synset", BYTES, "n02", 0});
    EXAMPLE({"image/class/synset", BYTES, "n01", 0}, {"image/class/label", INTEGERS, NULL, 1},
            {"image/class/text", BYTES, "crane", 0}, {"image/encoded", BYTES, "A", 0});
    keep_as("three");
    EXPECT_CLASSES("n01,n02", NULL, "three");
}

static void names_that_do_not_fit_the_labels_leave_numbers(void **state)
{
    (void)state;
    put_classic(1, "image/class/text", "cat");
    put_classic(2, "image/class/text", "dog");
    keep_as("one");
    put_classic(1, "image/class/text", "cow");
    keep_as("other");
    put_classic(3, "image/class/text", "cat");
    keep_as("twice");
    put_classic(1, "image/class/text", "..");
    keep_as("odd");
    EXPECT_CLASSES("0,1", "label 0 is called 'cat' and 'cow'", "one", "other");
    EXPECT_CLASSES("0,1,2", "label 2 is not the only one called 'cat'", "one", "twice");
    EXPECT_CLASSES("0", "the name of label 0 has a \"..\" component", "odd");
}

static void classes_are_called_as_the_file_beside_says(void **state)
{
    (void)state;
    EXAMPLE({"image", BYTES, "A", 0}, {"label", INTEGERS, NULL, 2}, {"file_name", BYTES, "a", 0});
    char beside[400];
    snprintf(beside, sizeof beside, "%s", scratch_path(&scratch, "label.labels.txt"));
    source_case_write(beside, "cat\ndog\r\n\n#cow\nhen\n", 19);
    EXPECT_CLASSES("cat,dog,#cow,hen", NULL, "x.tfrecord");
    source_reading_described(records(),
                             "TFRecord: image, label from 0 named by label.labels.txt, file_name");
    source_case_write(beside, "cat\ndog\n", 8);
    EXPECT_CLASSES("0,1,2", NULL, "x.tfrecord");
    source_reading_described(
        records(), "TFRecord: image, label from 0 (label.labels.txt names 2 classes, which do not "
                   "fit label 2), file_name");
    source_case_write(beside, "", 0);
    EXPECT_CLASSES("0,1,2", NULL, "x.tfrecord");
    source_reading_described(records(), "TFRecord: image, label from 0, file_name");
}

// --- damage ------------------------------------------------------------------------------------

static void three_records(void)
{
    EXAMPLE({"image", BYTES, "AAA", 0}, {"label", INTEGERS, NULL, 1});
    EXAMPLE({"image", BYTES, "BBB", 0}, {"label", INTEGERS, NULL, 2});
    EXAMPLE({"image", BYTES, "CCC", 0}, {"label", INTEGERS, NULL, 3});
}

static void flip(long at)
{
    FILE *file = fopen(records(), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    int byte = getc(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    putc(byte ^ 1, file);
    assert_int_equal(fclose(file), 0);
}

static void a_damaged_record_leaves_the_others(void **state)
{
    (void)state;
    three_records();
    flip(14); // in the first record
    source_reading_all(&reading, records());
    assert_int_equal(reading.status, STATUS_END);
    assert_non_null(strstr(reading.lines, "000000000.jpg -1 !the record's checksum is "));
    assert_non_null(strstr(reading.lines, "000000001.jpg 2 BBB\n"));
    assert_non_null(strstr(reading.lines, "000000002.jpg 3 CCC\n"));
    assert_int_equal(reading.counts.images, 3);
}

static void records_that_do_not_fit_are_told(void **state)
{
    (void)state;
    three_records();
    EXAMPLE({"label", INTEGERS, NULL, 4});
    EXAMPLE({"image", BYTES, "D", 0}, {"label", FLOATS, NULL, 0});
    EXAMPLE({"image", BYTES, "E", 0}, {"label", INTEGERS, NULL, INT64_C(1) << 40});
    EXAMPLE({"image", INTEGERS, NULL, 7}, {"label", INTEGERS, NULL, 1});
    append("\x0a\x7f", 2);
    append("", 0);
    source_reading_all(&reading, records());
    assert_int_equal(reading.status, STATUS_END);
    assert_int_equal(reading.counts.images, 9);
    assert_non_null(strstr(reading.lines, "3.jpg -1 !no image under image\n"));
    assert_non_null(strstr(reading.lines, "5.jpg -1 !label is 1099511627776, but"));
    assert_non_null(strstr(reading.lines, "6.jpg -1 !no image under image\n"));
    assert_non_null(strstr(reading.lines, "7.jpg -1 !a damaged record: a field is longer"));
    assert_non_null(strstr(reading.lines, "8.jpg -1 !no image under image\n"));
}

static void hostile_names_are_found_out(void **state)
{
    (void)state;
    EXAMPLE({"image", BYTES, "A", 0}, {"file_name", BYTES, "../a.jpg", 0});
    EXAMPLE({"image", BYTES, "B", 0}, {"file_name", BYTES, "/etc/b.jpg", 0});
    EXAMPLE({"image", BYTES, "C", 0}, {"file_name", BYTES, "c\n.jpg", 0});
    EXAMPLE({"image", BYTES, "D", 0}, {"file_name", BYTES, "", 0});
    source_reading_expect(records(), "TFRecord",
                          "../a.jpg -1 !its name has a \"..\" component\n"
                          "/etc/b.jpg -1 !its name is an absolute path\n"
                          "c\n.jpg -1 !its name holds a control character\n"
                          "x.tfrecord/000000003.jpg -1 D\n");
}

static void cuts_never_pass_for_whole(void **state)
{
    (void)state;
    EXAMPLE({"image", BYTES, "AAA", 0}, {"label", INTEGERS, NULL, 1});
    source_case_cuts(records(), 1);
}

static void mutants_do_no_harm(void **state)
{
    (void)state;
    three_records();
    source_case_mutants(records(), records(), 0, 300);
    source_case_mutants(records(), records(), TFRECORD_HEAD_BYTES, 300);
}

static void gzip_is_read_through(void **state)
{
    (void)state;
    char command[1400];
    three_records();
    snprintf(command, sizeof command, "gzip -c '%s' >'%s/gz' 2>/dev/null && mv '%s/gz' '%s'",
             records(), scratch.path, scratch.path, records());
    if (system(command) != 0) {
        printf("skipped: gzip is not installed\n");
        skip();
    }
    source_reading_expect(records(), "TFRecord",
                          "x.tfrecord/000000000.jpg 1 AAA\nx.tfrecord/000000001.jpg 2 BBB\n"
                          "x.tfrecord/000000002.jpg 3 CCC\n");
    source_reading_described(records(), "TFRecord: image, label from 0, no names, gzip");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOURCE_TEST(the_keys_of_tensorflow_datasets),
        SOURCE_TEST(the_classic_keys_of_imagenet),
        SOURCE_TEST(slims_labels_count_from_zero),
        SOURCE_TEST(images_without_labels),
        SOURCE_TEST(classes_are_called_as_the_records_say),
        SOURCE_TEST(names_that_do_not_fit_the_labels_leave_numbers),
        SOURCE_TEST(classes_are_called_as_the_file_beside_says),
        SOURCE_TEST(unknown_keys_are_refused_and_listed),
        SOURCE_TEST(other_records_are_no_examples),
        SOURCE_TEST(a_damaged_record_leaves_the_others),
        SOURCE_TEST(records_that_do_not_fit_are_told),
        SOURCE_TEST(hostile_names_are_found_out),
        SOURCE_TEST(cuts_never_pass_for_whole),
        SOURCE_TEST(mutants_do_no_harm),
        SOURCE_TEST(gzip_is_read_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
