// ImageNet's tars as sources: a tar of class tars, one class's tar, cuts, lies and tars that are
// none.
#include "formats/file.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct source_reading reading;

static const char *train(void)
{
    return scratch_path(&scratch, "train.tar");
}

// A tar of pairs of name and content up to NULL, as a member of another; `cut` bytes are left out
// at its end.
static void put_tar(FILE *outer, const char *name, size_t cut, const char *const *files)
{
    char inner[700];
    snprintf(inner, sizeof inner, "%s", scratch_path(&scratch, "inner"));
    FILE *tar = source_case_create(inner);
    for (; *files != NULL; files += 2) {
        source_case_file(tar, files[0], files[1]);
    }
    source_case_end(tar);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(inner, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    source_case_member(outer, name, '0', bytes, len - cut);
    free(bytes);
}
#define PUT_TAR(outer, name, ...) put_tar(outer, name, 0, (const char *const[]){__VA_ARGS__, NULL})

static void write_train_tar(void)
{
    FILE *tar = source_case_create(train());
    PUT_TAR(tar, "n01440764.tar", "n01440764_18.JPEG", "AAA", "n01440764_36.JPEG", "BB");
    PUT_TAR(tar, "n01443537.tar", "./n01443537_2.JPEG", "C", "notes.txt", "text");
    PUT_TAR(tar, "n01484850.tar", "n01484850_5.JPEG", "D");
    source_case_end(tar);
}
static const char train_lines[] = "n01440764/n01440764_18.JPEG -2 AAA\n"
                                  "n01440764/n01440764_36.JPEG -2 BB\n"
                                  "n01443537/n01443537_2.JPEG -2 C\n"
                                  "n01484850/n01484850_5.JPEG -2 D\n";

static void a_tar_of_class_tars(void **state)
{
    (void)state;
    write_train_tar();
    source_reading_expect(train(), "ImageNet's tars", train_lines);
    source_reading_all(&reading, train());
    assert_int_equal(reading.counts.others, 1);
    assert_string_equal(reading.description, "ImageNet's tars: a tar of 3 class tars with 5 files");
}

static void names_alone_are_read_as_well(void **state)
{
    (void)state;
    write_train_tar();
    struct source *source;
    struct source_member member;
    uint64_t images = 0;
    assert_int_equal(source_open(&source, train(), NULL), STATUS_OK);
    enum status status;
    while ((status = source_next(source, &member, NULL)) == STATUS_OK) {
        images++;
    }
    assert_string_equal(source_describe(source),
                        "ImageNet's tars: a tar of 3 class tars with 5 files");
    assert_int_equal(status, STATUS_END);
    assert_int_equal(images, 4);
    source_close(&source);
}

static void compressed_it_is_read_through(void **state)
{
    (void)state;
    char command[1000], packed[450];
    write_train_tar();
    snprintf(packed, sizeof packed, "%s.gz", train());
    snprintf(command, sizeof command, "gzip -c '%s' >'%s' 2>/dev/null", train(), packed);
    if (system(command) != 0) {
        printf("skipped: gzip is not installed\n");
        skip();
    }
    source_reading_expect(packed, "ImageNet's tars", train_lines);
}

static void a_thousand_class_tars_are_compared_with_ilsvrc2012(void **state)
{
    (void)state;
    FILE *tar = source_case_create(train());
    for (int i = 0; i < 1000; i++) {
        char name[32], image[32];
        snprintf(name, sizeof name, "n%08d.tar", i);
        snprintf(image, sizeof image, "n%08d_1.JPEG", i);
        PUT_TAR(tar, name, image, "A");
    }
    source_case_end(tar);
    source_reading_all(&reading, train());
    assert_int_equal(reading.counts.images, 1000);
    assert_string_equal(reading.description,
                        "ImageNet's tars: a tar of 1000 class tars with 1000 files; ILSVRC2012's "
                        "training set has 1281167");
}

static void one_classs_tar(void **state)
{
    (void)state;
    FILE *tar = source_case_create(train());
    source_case_file(tar, "n01440764_18.JPEG", "AAA");
    source_case_file(tar, "./n01440764_36.JPEG", "BB");
    source_case_file(tar, "other.jpg", "C");
    source_case_end(tar);
    source_reading_expect(train(), "ImageNet's tars",
                          "n01440764/n01440764_18.JPEG -2 AAA\nn01440764/n01440764_36.JPEG -2 BB\n"
                          "other.jpg -2 C\n");
}

static void other_tars_are_plain(void **state)
{
    (void)state;
    FILE *tar = source_case_create(train());
    source_case_file(tar, "ILSVRC2012_val_00000001.JPEG", "A"); // the validation tar
    source_case_file(tar, "n01440764_x.JPEG", "B");
    source_case_file(tar, "n0144_1.JPEG", "C");
    source_case_file(tar, "n01440764.tar", "not a tar");
    source_case_end(tar);
    source_reading_expect(train(), "tar",
                          "ILSVRC2012_val_00000001.JPEG -2 A\nn01440764_x.JPEG -2 B\n"
                          "n0144_1.JPEG -2 C\n");
}

static void hostile_names_and_links(void **state)
{
    (void)state;
    FILE *tar = source_case_create(train());
    PUT_TAR(tar, "n01440764.tar", "../a.jpg", "A", "/b.jpg", "B", "c/../d.jpg", "C");
    source_case_member(tar, "n01443537.tar", '2', "", 0);
    PUT_TAR(tar, "../../n02.tar", "x.jpg", "D");
    source_case_end(tar);
    source_reading_expect(train(), "ImageNet's tars",
                          "n01440764/../a.jpg -2 !its name has a \"..\" component\n"
                          "n01440764//b.jpg -2 !its name has an empty component\n"
                          "n01440764/c/../d.jpg -2 !its name has a \"..\" component\n"
                          "n02/x.jpg -2 D\n");
    source_reading_all(&reading, train());
    assert_int_equal(reading.counts.links, 1);
}

static void a_cut_class_tar_is_told(void **state)
{
    (void)state;
    FILE *tar = source_case_create(train());
    PUT_TAR(tar, "n01440764.tar", "n01440764_18.JPEG", "AAA");
    put_tar(tar, "n01443537.tar", 1024, (const char *const[]){"n01443537_2.JPEG", "C", NULL});
    PUT_TAR(tar, "n01484850.tar", "n01484850_5.JPEG", "D");
    source_case_end(tar);
    source_reading_all(&reading, train());
    assert_int_equal(reading.status, STATUS_TRUNCATED);
    assert_non_null(strstr(reading.error.path, "train.tar/n01443537.tar"));
}

static void what_is_called_a_tar_but_is_none_is_told(void **state)
{
    (void)state;
    FILE *tar = source_case_create(train());
    PUT_TAR(tar, "n01440764.tar", "n01440764_18.JPEG", "AAA");
    source_case_file(tar, "n01443537.tar", "no tar");
    source_case_end(tar);
    source_reading_all(&reading, train());
    assert_true(reading.status != STATUS_END && reading.status != STATUS_OK);
    assert_non_null(strstr(reading.error.path, "train.tar/n01443537.tar"));
}

static void damage_does_no_harm(void **state)
{
    (void)state;
    write_train_tar();
    source_case_cuts(train(), 331);
    source_case_mutants(train(), train(), 0, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOURCE_TEST(a_tar_of_class_tars),
        SOURCE_TEST(names_alone_are_read_as_well),
        SOURCE_TEST(compressed_it_is_read_through),
        SOURCE_TEST(a_thousand_class_tars_are_compared_with_ilsvrc2012),
        SOURCE_TEST(one_classs_tar),
        SOURCE_TEST(other_tars_are_plain),
        SOURCE_TEST(hostile_names_and_links),
        SOURCE_TEST(a_cut_class_tar_is_told),
        SOURCE_TEST(what_is_called_a_tar_but_is_none_is_told),
        SOURCE_TEST(damage_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
