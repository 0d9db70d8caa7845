// What `byol convert` takes of its sources, into which datasets, with which labels and in which
// shape.
#include "formats/dataset.h"
#include "formats/file.h"
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct scratch scratch;

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(scratch_path(&scratch, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void draw(const char *name, uint32_t width, uint32_t height, unsigned seed, bool png)
{
    struct image image = {0};
    assert_int_equal(image_reserve(&image, width, height, NULL), STATUS_OK);
    for (size_t i = 0; i < (size_t)width * height * 3; i++) {
        image.pixels[i] = (uint8_t)(i / 9 * (seed + 3) ^ i >> 8);
    }
    uint8_t *bytes;
    size_t len;
    enum status status = png ? image_encode_png(&image, &bytes, &len, NULL)
                             : image_encode_jpeg(&image, 80, &bytes, &len, NULL);
    assert_int_equal(status, STATUS_OK);
    char path[700];
    snprintf(path, sizeof path, "%s", scratch_path(&scratch, name));
    *strrchr(path, '/') = '\0';
    assert_int_equal(file_make_directories(path, NULL), STATUS_OK);
    FILE *file = fopen(scratch_path(&scratch, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    free(bytes);
    image_free(&image);
}

// in/CLASS/00.jpg to NN.jpg, in turn of the classes.
static void draw_classes(unsigned count)
{
    static const char *const classes[] = {"ant", "bee", "cow"};
    for (unsigned i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "in/%s/%02u.jpg", classes[i % 3], i);
        draw(name, 24 + i, 20, i, false);
    }
}

// "name label" of all records, one a line.
static void expect_records(const char *directory, const char *want)
{
    struct dataset *dataset;
    char got[8192] = "";
    assert_int_equal(dataset_open(&dataset, scratch_path(&scratch, directory), NULL), STATUS_OK);
    for (uint64_t i = 0; i < dataset_count(dataset); i++) {
        size_t used = strlen(got);
        snprintf(got + used, sizeof got - used, "%s %d\n", dataset_record_name(dataset, i),
                 dataset_record(dataset, i).label);
    }
    assert_string_equal(got, want);
    dataset_close(&dataset);
}

// --- sources -----------------------------------------------------------------------------------

static void several_sources_make_one_dataset(void **state)
{
    (void)state;
    if (scratch_shell(&scratch, "command -v tar") != 0) {
        printf("skipped: tar is not installed\n");
        skip();
    }
    draw_classes(6);
    assert_int_equal(scratch_shell(&scratch, "cd $DIR/in && tar --sort=name -cf ../p-00.tar ant && "
                                             "tar --sort=name -cf ../p-01.tar bee && "
                                             "tar --sort=name -cf ../p-02.tar cow"),
                     0);
    program_expect(&scratch, 1, "names must be unique",
                   "convert \"$DIR/p-{00..02}.tar\" $DIR/p-00.tar -o $DIR/x");
    program_expect(&scratch, 0, "p-02.tar: tar", "convert \"$DIR/p-{00..02}.tar\" -o $DIR/set");
    expect_records("set", "ant/00.jpg 0\nant/03.jpg 0\nbee/01.jpg 1\nbee/04.jpg 1\n"
                          "cow/02.jpg 2\ncow/05.jpg 2\n");
    program_expect(&scratch, 0, "kind      tar", "inspect $DIR/p-00.tar");
    program_expect(&scratch, 0, "images    2, ", "inspect $DIR/p-00.tar");
    program_expect(&scratch, 0, "\"kind\": \"folder of images\"", "inspect $DIR/in --json");
    program_expect(&scratch, 0, "classes   3: ant, bee, cow", "inspect $DIR/in");
}

// --- labels ------------------------------------------------------------------------------------

static void labels_come_from_files(void **state)
{
    (void)state;
    draw("flat/b.jpg", 20, 20, 1, false);
    draw("flat/a.jpg", 21, 20, 2, false);
    draw("flat/c.jpg", 22, 20, 3, false);
    write_text("truth", "3\n1\n3\n");
    program_expect(&scratch, 0, "3 classes (1, ...)",
                   "convert $DIR/flat -o $DIR/t --labels $DIR/truth --labels-from 1");
    expect_records("t", "a.jpg 2\nb.jpg 0\nc.jpg 2\n");
    write_text("classes", "tench\ngold/fish\nshark\n");
    program_expect(&scratch, 0, "3 classes (tench, ...)",
                   "convert $DIR/flat -o $DIR/u --labels $DIR/truth --labels-from 1 "
                   "--classes $DIR/classes");
    write_text("named", "# a comment\nc.jpg shark\na.jpg tench\nz.jpg eel\n");
    program_expect(&scratch, 0, "3 classes (eel, ...",
                   "convert $DIR/flat -o $DIR/v --labels $DIR/named");
    expect_records("v", "a.jpg 2\nb.jpg -1\nc.jpg 1\n");
    write_text("folders", "ant/00.jpg tench\n01.jpg eel\n");
    write_text("numbers", "c.jpg 7\nb.jpg 0\n");
    program_expect(&scratch, 0, "8 classes (0, ...",
                   "convert $DIR/flat -o $DIR/w --labels $DIR/numbers");
    expect_records("w", "a.jpg -1\nb.jpg 0\nc.jpg 7\n");
    program_expect(&scratch, 1, "names 3 classes, but there are labels up to 7",
                   "convert $DIR/flat -o $DIR/x --labels $DIR/numbers --classes $DIR/classes");
    program_expect(&scratch, 1, "does not have the class 'eel'",
                   "convert $DIR/flat -o $DIR/x --labels $DIR/named --classes $DIR/classes");
    program_expect(&scratch, 1, "line 2: '0' is no label counted from 1",
                   "convert $DIR/flat -o $DIR/x --labels $DIR/numbers --labels-from 1");
    write_text("short", "1\n2\n");
    program_expect(&scratch, 1, "2 labels for 3 images",
                   "convert $DIR/flat -o $DIR/x --labels $DIR/short");
    write_text("mixed", "1\nb.jpg 2\n");
    program_expect(&scratch, 1, "have one word", "convert $DIR/flat -o $DIR/x --labels $DIR/mixed");
    write_text("paths", "tench\n..\nshark\n");
    program_expect(&scratch, 1, "the name of class 1, '..'",
                   "convert $DIR/flat -o $DIR/x --labels $DIR/truth --labels-from 1 "
                   "--classes $DIR/paths");
    draw_classes(3); // folders do not matter then
    program_expect(&scratch, 0, "2 classes (eel, tench)",
                   "convert $DIR/in -o $DIR/y --labels $DIR/folders");
    expect_records("y", "ant/00.jpg 1\nbee/01.jpg 0\ncow/02.jpg -1\n");
    write_text("twice", "b.jpg 1\nb.jpg 2\n");
    program_expect(&scratch, 1, "comes twice", "convert $DIR/flat -o $DIR/x --labels $DIR/twice");
}

static void classes_may_come_in_an_order_of_their_own(void **state)
{
    (void)state;
    draw_classes(3);
    write_text("classes", "cow big, brown\nant\nbee\ndodo\n");
    program_expect(&scratch, 0, "4 classes (cow big, brown, ...",
                   "convert $DIR/in -o $DIR/set --classes $DIR/classes");
    expect_records("set", "ant/00.jpg 1\nbee/01.jpg 2\ncow/02.jpg 0\n");
    write_text("few", "cow\nant\n");
    program_expect(&scratch, 1, "does not name the class 'bee'",
                   "convert $DIR/in -o $DIR/x --classes $DIR/few");
}

// CIFAR-10's binary files number their images.
static void sources_that_number_keep_their_numbers(void **state)
{
    (void)state;
    enum { RECORD = 3073, COUNT = 20 };
    FILE *file = fopen(scratch_path(&scratch, "data_batch_1.bin"), "wb");
    assert_non_null(file);
    for (int i = 0; i < COUNT * RECORD; i++) {
        putc(i % RECORD == 0 ? i / RECORD % 7 : i * 31 % 251, file);
    }
    assert_int_equal(fclose(file), 0);
    assert_int_equal(scratch_shell(&scratch, "cp $DIR/data_batch_1.bin $DIR/data_batch_2.bin"), 0);
    program_expect(&scratch, 0, "40 images", "convert \"$DIR/data_batch_{1..2}.bin\" -o $DIR/set");
    struct dataset *dataset;
    assert_int_equal(dataset_open(&dataset, scratch_path(&scratch, "set"), NULL), STATUS_OK);
    for (uint64_t i = 0; i < 2 * COUNT; i++) {
        assert_int_equal(dataset_record(dataset, i).label, i % COUNT % 7);
    }
    dataset_close(&dataset);
    draw_classes(3);
    program_expect(&scratch, 1, "numbers its images: convert them apart",
                   "convert $DIR/data_batch_1.bin $DIR/in -o $DIR/x");
}

// --- which images ------------------------------------------------------------------------------

static void lists_and_limits_choose(void **state)
{
    (void)state;
    draw_classes(7);
    write_text("list", "ant/00.jpg\n04.jpg\nnowhere.jpg\n");
    program_expect(&scratch, 0, "not chosen: 5 of 7",
                   "convert $DIR/in -o $DIR/only --only $DIR/list");
    expect_records("only", "ant/00.jpg 0\nbee/04.jpg 1\n");
    program_expect(&scratch, 0, "--only: 1 of the 3 names",
                   "convert $DIR/in -o $DIR/again --only $DIR/list 2>&1");
    program_expect(&scratch, 0, NULL,
                   "convert $DIR/in -o $DIR/without --without $DIR/list --limit 3");
    expect_records("without", "ant/03.jpg 0\nant/06.jpg 0\nbee/01.jpg 1\n");
    write_text("none", "nothing.jpg\n");
    program_expect(&scratch, 1, "none of the 7 images is chosen",
                   "convert $DIR/in -o $DIR/x --only $DIR/none");
    program_expect(&scratch, 1, "no line in it says anything",
                   "convert $DIR/in -o $DIR/x --only /dev/null; : >$DIR/e; $BYOL convert $DIR/in "
                   "-o $DIR/x --only $DIR/e");
    assert_false(file_exists(scratch_path(&scratch, "x")));
}

static void splits_make_several_datasets(void **state)
{
    (void)state;
    draw_classes(9);
    program_expect(&scratch, 0, "2 images",
                   "convert $DIR/in -o $DIR/set --split train=first:6,val=last:2");
    expect_records("set/train", "ant/00.jpg 0\nant/03.jpg 0\nant/06.jpg 0\nbee/01.jpg 1\n"
                                "bee/04.jpg 1\nbee/07.jpg 1\n");
    expect_records("set/val", "cow/05.jpg 2\ncow/08.jpg 2\n");
    program_expect(&scratch, 0, "\"not_chosen\": 0",
                   "convert $DIR/in -o $DIR/p --split a=33.4%,b=33.3%,c=rest --seed 5 --json");
    struct dataset *part;
    uint64_t all = 0;
    static const char *const names[] = {"p/a", "p/b", "p/c"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(dataset_open(&part, scratch_path(&scratch, names[i]), NULL), STATUS_OK);
        assert_int_equal(dataset_class_count(part), 3);
        all += dataset_count(part);
        dataset_close(&part);
    }
    assert_int_equal(all, 9);
    program_expect(&scratch, 1, "'b' wants 5 images, but 3 of 9 are left",
                   "convert $DIR/in -o $DIR/x --split a=first:6,b=last:5");
    program_expect(&scratch, 1, "'half' is none of first:N",
                   "convert $DIR/in -o $DIR/x --split a=half");
    program_expect(&scratch, 1, "named twice", "convert $DIR/in -o $DIR/x --split a=rest,a=rest");
    program_expect(&scratch, 1, "not NAME=RULE", "convert $DIR/in -o $DIR/x --split ../a=rest");
}

// --- what they are -----------------------------------------------------------------------------

static void kinds_are_counted(void **state)
{
    (void)state;
    draw("in/a.jpg", 20, 20, 1, false);
    draw("in/b.JPEG", 20, 20, 2, true);
    draw("in/c.png", 20, 20, 3, true);
    program_expect(&scratch, 0, "kinds: 1 JPEG, 2 PNG; 1 named as the other kind",
                   "convert $DIR/in -o $DIR/set");
    program_expect(&scratch, 0, "\"named_otherwise\": 1", "convert $DIR/in -o $DIR/two --json");
}

static void resized_datasets_say_so(void **state)
{
    (void)state;
    draw("in/a/wide.jpg", 200, 100, 1, false);
    draw("in/a/small.jpg", 40, 30, 2, false);
    draw("in/b/tall.png", 70, 150, 3, true);
    program_expect(&scratch, 0, "resized: 2 images: the dataset is marked as not exact",
                   "convert $DIR/in -o $DIR/set --resize short=50,quality=85");
    program_expect(&scratch, 0, "not exact larger images were resized to a short side of 50",
                   "inspect $DIR/set");
    program_expect(&scratch, 0, "\t100\t50\ta\ta/wide.jpg\n", "inspect $DIR/set --records");
    program_expect(&scratch, 0, "\t40\t30\ta\ta/small.jpg\n", "inspect $DIR/set --records");
    program_expect(&scratch, 0, "\t50\t107\tb\tb/tall.png\n", "inspect $DIR/set --records");
    program_expect(&scratch, 0, "verified", "inspect $DIR/set --verify");
    program_expect(&scratch, 0, "\"not_exact\": null",
                   "convert $DIR/in -o $DIR/exact --quiet; $BYOL inspect $DIR/exact --json");
    program_expect(&scratch, 0, NULL, "convert $DIR/in -o $DIR/r --resize short=50 --recode");
    program_expect(&scratch, 2, "--resize is short=N", "convert $DIR/in -o $DIR/x --resize 50");
    program_expect(&scratch, 2, "--resize is short=N",
                   "convert $DIR/in -o $DIR/x --resize short=50,quality=101");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(several_sources_make_one_dataset, setup, teardown),
        cmocka_unit_test_setup_teardown(labels_come_from_files, setup, teardown),
        cmocka_unit_test_setup_teardown(classes_may_come_in_an_order_of_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(sources_that_number_keep_their_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_and_limits_choose, setup, teardown),
        cmocka_unit_test_setup_teardown(splits_make_several_datasets, setup, teardown),
        cmocka_unit_test_setup_teardown(kinds_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(resized_datasets_say_so, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
