// ILSVRC2012 from its own tars, in small and end to end: training and validation images, the
// development kit's classes, and the odd files that the real tars have: CMYK JPEGs and a PNG that
// is called .JPEG.
#include "formats/dataset.h"
#include "formats/file.h"
#include "tests/support/devkit_case.h"
#include "tests/support/picture.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// --- making --------------------------------------------------------------------------------------

enum sort { PLAIN, PROGRESSIVE, GREY, CMYK, YCCK, PNG, CUT };

static uint8_t *make_file(enum sort sort, uint64_t seed, size_t *len)
{
    static const struct picture_jpeg kinds[] = {[PLAIN] = {PICTURE_YCBCR, .h = 2, .v = 2},
                                                [PROGRESSIVE] = {PICTURE_YCBCR, .progressive = 1},
                                                [GREY] = {PICTURE_GREY, .h = 1},
                                                [CMYK] = {PICTURE_CMYK, .h = 1},
                                                [YCCK] = {PICTURE_YCCK, .h = 1},
                                                [CUT] = {PICTURE_YCBCR, .h = 1}};
    struct image image = {0};
    uint8_t *bytes;
    picture_fill(&image, 40, 30, seed);
    if (sort == PNG) {
        assert_int_equal(image_encode_png(&image, &bytes, len, NULL), STATUS_OK);
    } else {
        bytes = picture_jpeg(&image, &kinds[sort], len);
        *len -= sort == CUT ? *len / 3 : 0;
    }
    image_free(&image);
    return bytes;
}

// Also beside the tar, for comparison: DIR/files/NAME.
static void put_image(FILE *tar, const char *folder, const char *name, enum sort sort)
{
    static uint64_t seed;
    char line[300], path[600];
    size_t len;
    uint8_t *bytes = make_file(sort, ++seed, &len);
    source_case_member(tar, name, '0', bytes, len);
    snprintf(line, sizeof line, "mkdir -p $DIR/files/%s", folder);
    assert_int_equal(scratch_shell(&scratch, line), 0);
    snprintf(path, sizeof path, "%s/files/%s/%s", scratch.path, folder, name);
    source_case_write(path, bytes, len);
    free(bytes);
}

static void put_class(FILE *train, const char *wnid, const enum sort *sorts, size_t count)
{
    char inner[300], name[64];
    uint8_t *bytes;
    size_t len;
    snprintf(inner, sizeof inner, "%s", scratch_path(&scratch, "inner"));
    FILE *tar = source_case_create(inner);
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s_%zu.JPEG", wnid, i + 7);
        put_image(tar, wnid, name, sorts[i]);
    }
    source_case_end(tar);
    assert_int_equal(file_read_all(inner, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    snprintf(name, sizeof name, "%s.tar", wnid);
    source_case_member(train, name, '0', bytes, len);
    free(bytes);
}
#define PUT_CLASS(train, wnid, ...)                                                                \
    put_class(train, wnid, (const enum sort[]){__VA_ARGS__},                                       \
              sizeof(const enum sort[]){__VA_ARGS__} / sizeof(enum sort))

static void write_train(enum sort last)
{
    FILE *tar = source_case_create(scratch_path(&scratch, "ILSVRC2012_img_train.tar"));
    PUT_CLASS(tar, "n02105855", PLAIN, PNG, GREY); // not in order, as in the real one
    PUT_CLASS(tar, "n01440764", PLAIN, CMYK, PROGRESSIVE, YCCK);
    PUT_CLASS(tar, "n07753592", PLAIN, last);
    source_case_end(tar);
}

static const char convert_train[] = "convert $DIR/ILSVRC2012_img_train.tar -o $DIR/train";

// --- training ------------------------------------------------------------------------------------

static double count_of(const char *key, const char *options)
{
    char line[300];
    snprintf(line, sizeof line, "%s --force --quiet --json %s", convert_train, options);
    return program_number(&scratch, key, line);
}

static void every_kind_is_read_and_reported(void **state)
{
    (void)state;
    write_train(PLAIN);
    program_expect(&scratch, 0,
                   "kinds: 8 JPEG (of them 1 progressive, 2 CMYK, 1 grey), 1 PNG; 1 named as the "
                   "other kind",
                   convert_train);
    program_expect(&scratch, 0,
                   "ILSVRC2012_img_train.tar: ImageNet's tars: a tar of 3 class tars with 9 files",
                   "convert $DIR/ILSVRC2012_img_train.tar -o $DIR/train --force");
    assert_true(count_of("images", "") == 9);
    assert_int_equal(scratch_shell(&scratch, "$BYOL inspect $DIR/train --extract $DIR/out && "
                                             "diff -r $DIR/files $DIR/out"),
                     0);
    // Recoded too: what cannot be stays as it is.
    assert_true(count_of("images", "--recode") == 9);
    assert_int_equal(scratch_shell(&scratch,
                                   "rm -r $DIR/out; $BYOL inspect $DIR/train --extract $DIR/out && "
                                   "diff -r $DIR/files $DIR/out"),
                     0);
}

static void cut_images_end_it_or_are_listed(void **state)
{
    (void)state;
    write_train(CUT);
    program_expect(&scratch, 1, "n07753592/n07753592_8.JPEG", convert_train);
    assert_true(count_of("skipped", "--bad skip") == 1);
    assert_true(count_of("images", "--bad skip") == 8);
    program_expect(&scratch, 0, "left out: 1 damaged",
                   "convert $DIR/ILSVRC2012_img_train.tar -o $DIR/train --force --bad skip");
}

// --- validation ----------------------------------------------------------------------------------

static void validation_labels_are_the_training_sets(void **state)
{
    (void)state;
    static const char *const wnids[] = {"n07753592", "n01440764", "n02105855"}; // by ILSVRC2012_ID
    FILE *tar = source_case_create(scratch_path(&scratch, "ILSVRC2012_img_val.tar"));
    for (int i = 1; i <= 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "ILSVRC2012_val_%08d.JPEG", i);
        put_image(tar, "val", name, i == 2 ? CMYK : PLAIN);
    }
    source_case_end(tar);
    devkit_case_write(scratch_path(&scratch, "devkit.tar"), wnids, 3, "3\n1\n2\n1\n");
    program_expect(&scratch, 0, "3 classes (n01440764, ...",
                   "convert $DIR/ILSVRC2012_img_val.tar -o $DIR/val --labels $DIR/devkit.tar");
    write_train(PLAIN);
    program_expect(&scratch, 0, "3 classes (n01440764, ...", convert_train);
    struct dataset *val, *train;
    static const int labels[] = {1, 2, 0, 2};
    assert_int_equal(dataset_open(&val, scratch_path(&scratch, "val"), NULL), STATUS_OK);
    assert_int_equal(dataset_open(&train, scratch_path(&scratch, "train"), NULL), STATUS_OK);
    for (uint32_t i = 0; i < 3; i++) {
        assert_string_equal(dataset_class_name(val, i), dataset_class_name(train, i));
    }
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(dataset_record(val, i).label, labels[i]);
    }
    dataset_close(&val);
    dataset_close(&train);
    devkit_case_write(scratch_path(&scratch, "devkit.tar"), wnids, 3, "3\n1\n");
    program_expect(&scratch, 1, "2 labels for 4 images",
                   "convert $DIR/ILSVRC2012_img_val.tar -o $DIR/v --labels $DIR/devkit.tar");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOURCE_TEST(every_kind_is_read_and_reported),
        SOURCE_TEST(cut_images_end_it_or_are_listed),
        SOURCE_TEST(validation_labels_are_the_training_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
