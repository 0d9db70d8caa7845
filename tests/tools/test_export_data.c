// `byol export-data`: every byte, label and name there and back; what is refused; what a kill
// leaves.
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

#define IMAGES "tests/data/images"

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

// --- comparing -----------------------------------------------------------------------------------

static struct dataset *open_set(const char *name)
{
    struct dataset *dataset;
    assert_int_equal(dataset_open(&dataset, scratch_path(&scratch, name), NULL), STATUS_OK);
    return dataset;
}

static uint64_t find_record(const struct dataset *dataset, const char *name)
{
    for (uint64_t i = 0; i < dataset_count(dataset); i++) {
        if (strcmp(dataset_record_name(dataset, i), name) == 0) {
            return i;
        }
    }
    fail_msg("no record '%s'", name);
    return 0;
}

static void expect_same_image(const struct dataset *left, uint64_t i, const struct dataset *right,
                              uint64_t j)
{
    uint8_t *want, *got;
    size_t want_len, got_len;
    assert_int_equal(dataset_read(left, i, &want, &want_len, NULL), STATUS_OK);
    assert_int_equal(dataset_read(right, j, &got, &got_len, NULL), STATUS_OK);
    assert_int_equal(want_len, got_len);
    assert_memory_equal(want, got, got_len);
    free(want);
    free(got);
}

// The same names, bytes and labels, in whatever order, and the same classes.
static void expect_same_sets(const char *want_name, const char *got_name)
{
    struct dataset *want = open_set(want_name), *got = open_set(got_name);
    assert_int_equal(dataset_count(want), dataset_count(got));
    assert_int_equal(dataset_class_count(want), dataset_class_count(got));
    for (uint32_t i = 0; i < dataset_class_count(want); i++) {
        assert_string_equal(dataset_class_name(want, i), dataset_class_name(got, i));
    }
    for (uint64_t i = 0; i < dataset_count(want); i++) {
        uint64_t j = find_record(got, dataset_record_name(want, i));
        assert_int_equal(dataset_record(want, i).label, dataset_record(got, j).label);
        expect_same_image(want, i, got, j);
    }
    dataset_close(&want);
    dataset_close(&got);
}

// A dataset with names and classes of our choice, of the images of IMAGES.
struct entry {
    const char *name;
    int32_t label;
};

static uint8_t *some_image(unsigned number, size_t *len)
{
    struct dataset *dataset = open_set("images");
    uint8_t *bytes;
    assert_int_equal(dataset_read(dataset, number % dataset_count(dataset), &bytes, len, NULL),
                     STATUS_OK);
    dataset_close(&dataset);
    return bytes;
}

static void write_set(const char *name, const struct entry *entries, size_t count,
                      const char *const *classes, uint32_t class_count)
{
    program_expect(&scratch, 0, NULL, "convert " IMAGES " -o $DIR/images --force");
    const struct dataset_writer_config config = {.store = DATASET_LMDB};
    struct dataset_writer *writer;
    assert_int_equal(dataset_writer_open(&writer, scratch_path(&scratch, name), &config, NULL),
                     STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        size_t len;
        uint8_t *bytes = some_image((unsigned)i, &len);
        const struct dataset_item item = {.name = entries[i].name,
                                          .bytes = bytes,
                                          .len = len,
                                          .label = entries[i].label,
                                          .info = {IMAGE_JPEG, 10, 10, 3, false}};
        assert_int_equal(dataset_writer_add(writer, &item, NULL), STATUS_OK);
        free(bytes);
    }
    assert_int_equal(dataset_writer_commit(&writer, classes, class_count, NULL), STATUS_OK);
}

// --- there and back ------------------------------------------------------------------------------

static void exports_convert_to_the_same(void **state)
{
    (void)state;
    assert_int_equal(scratch_shell(&scratch, "$BYOL convert " IMAGES " -o $DIR/lmdb"), 0);
    assert_int_equal(
        scratch_shell(&scratch, "$BYOL convert " IMAGES " -o $DIR/shards --store shards"), 0);
    assert_int_equal(scratch_shell(&scratch, "$BYOL convert " IMAGES " -o $DIR/recoded --recode"),
                     0);
    static const char *const stores[] = {"lmdb", "shards", "recoded"};
    static const char *const forms[] = {"folder", "webdataset", "tfrecord"};
    static const char *const sources[] = {"$DIR/out", "$DIR/out/out-000000.tar",
                                          "$DIR/out/out.tfrecord-00000-of-00001"};
    for (int store = 0; store < 3; store++) {
        for (int form = 0; form < 3; form++) {
            char line[300];
            snprintf(line, sizeof line, "export-data $DIR/%s --to %s -o $DIR/out --force --json",
                     stores[store], forms[form]);
            assert_true(program_number(&scratch, "inexact", line) == 0);
            snprintf(line, sizeof line, "convert %s -o $DIR/again --force", sources[form]);
            program_expect(&scratch, 0, "10 classes", line);
            expect_same_sets("lmdb", "again");
            if (form == 0) {
                assert_int_equal(
                    scratch_shell(&scratch, "rm $DIR/out/export.json $DIR/out/classes.txt"), 0);
                assert_int_equal(scratch_shell(&scratch, "diff -r " IMAGES " $DIR/out"), 0);
                assert_int_equal(scratch_shell(&scratch, "rm -r $DIR/out"), 0);
            }
        }
    }
}

static const char *const odd_classes[] = {"zebra", "ant", "no images", ".hidden"};

static void labels_and_classes_survive_any_order(void **state)
{
    (void)state;
    static const struct entry entries[] = {
        {"zebra/1.jpg", 0}, {"ant/2.jpg", 1},    {"ant/a.b/3.jpg", 1}, {"other/4.jpg", 0},
        {"5.jpg", 1},       {"plain/6.jpg", -1}, {"7.jpg", -1},        {"zebra/8.jpg", 0}};
    static const char *const converts[] = {"convert $DIR/folder -o $DIR/a",
                                           "convert $DIR/webdataset/*.tar -o $DIR/b",
                                           "convert $DIR/tfrecord/*.tfrecord-* -o $DIR/c"};
    static const char *const forms[] = {"folder", "webdataset", "tfrecord"};
    write_set("odd", entries, 8, odd_classes, 4);
    struct dataset *odd = open_set("odd");
    for (int form = 0; form < 3; form++) {
        char line[300], name[2] = {(char)('a' + form), '\0'};
        snprintf(line, sizeof line, "export-data $DIR/odd --to %s -o $DIR/%s", forms[form],
                 forms[form]);
        program_expect(&scratch, 0, "8 images", line);
        program_expect(&scratch, 0, "8 images", converts[form]);
        struct dataset *again = open_set(name);
        assert_int_equal(dataset_class_count(again), 4);
        for (uint32_t i = 0; i < 4; i++) {
            assert_string_equal(dataset_class_name(again, i), odd_classes[i]);
        }
        for (uint64_t i = 0; i < 8; i++) {
            char want[100];
            bool moved = form == 0 && (i == 3 || i == 4); // into their class's folder
            snprintf(want, sizeof want, "%s%s",
                     !moved   ? ""
                     : i == 3 ? "zebra/"
                              : "ant/",
                     entries[i].name);
            uint64_t j = find_record(again, want);
            assert_int_equal(dataset_record(again, j).label, entries[i].label);
            expect_same_image(odd, i, again, j);
        }
        dataset_close(&again);
    }
    dataset_close(&odd);
}

static void datasets_without_labels_stay_so(void **state)
{
    (void)state;
    static const struct entry entries[] = {{"a/1.jpg", -1}, {"b/2.jpg", -1}, {"3.jpg", -1}};
    write_set("flat", entries, 3, NULL, 0);
    static const char *const sources[] = {"folder", "webdataset", "tfrecord"};
    for (int form = 0; form < 3; form++) {
        char line[300];
        snprintf(line, sizeof line, "export-data $DIR/flat --to %s -o $DIR/out --force",
                 sources[form]);
        program_expect(&scratch, 0, "no labels", line);
        snprintf(line, sizeof line, "convert $DIR/out%s -o $DIR/again --force",
                 form == 0 ? "" : "/out*[0-9r]");
        program_expect(&scratch, 0, "no labels", line);
        expect_same_sets("flat", "again");
    }
}

// Through all three forms; `folder`: names come back from class folders too.
static void expect_same_through_all_forms(const char *name, bool folder)
{
    static const char *const forms[] = {"folder", "webdataset", "tfrecord"};
    for (int form = folder ? 0 : 1; form < 3; form++) {
        char line[300];
        snprintf(line, sizeof line, "export-data $DIR/%s --to %s -o $DIR/out --force", name,
                 forms[form]);
        program_expect(&scratch, 0, NULL, line);
        snprintf(line, sizeof line, "convert $DIR/out%s -o $DIR/again --force",
                 form == 0 ? "" : "/out*[0-9r]");
        program_expect(&scratch, 0, NULL, line);
        expect_same_sets(name, "again");
    }
}

static void a_part_of_a_dataset_keeps_its_names(void **state)
{
    (void)state;
    static const char *const classes[] = {"ant",
                                          "bee"}; // images of the first only, as --limit does
    static const struct entry entries[] = {{"ant/1.jpg", 0}, {"ant/b/2.jpg", 0}};
    write_set("part", entries, 2, classes, 2);
    expect_same_through_all_forms("part", true);
    static const struct entry unlabelled[] = {{"x/y/1.jpg", -1}, {"x/y/2.jpg", -1}};
    write_set("flat", unlabelled, 2, NULL, 0);
    expect_same_through_all_forms("flat", true);
}

static void names_of_any_kind_come_back(void **state)
{
    (void)state;
    static const char *const classes[] = {"n01440764", "b\xc3\xa4r und \xe7\x86\x8a", ".x", "%2Ex",
                                          "%252Ex"};
    static const struct entry entries[] = {{"n01440764/n01440764_1.JPEG", 0},
                                           {"b\xc3\xa4r und \xe7\x86\x8a/\xc3\xbc 'q\".jpg", 1},
                                           {".x/1.jpg", 2},
                                           {"%2Ex/1.jpg", 3},
                                           {"%252Ex/1.jpg", 4},
                                           {"n01440764/a.b.c.JPG", 0},
                                           {"n01440764/called.png", 0},
                                           {"n01440764/noending", 0},
                                           {"n01440764/.hidden", 0},
                                           {"n01440764/noending.", 0},
                                           {"-rf/*.jpg", -1}};
    write_set("odd", entries, 11, classes, 5);
    expect_same_through_all_forms("odd", false);
    // As folders: other names, the same labels.
    program_expect(&scratch, 0, "11 images", "export-data $DIR/odd --to folder -o $DIR/f");
    program_expect(&scratch, 0, "5 classes", "convert $DIR/f -o $DIR/again --force");
    struct dataset *again = open_set("again");
    assert_int_equal(dataset_record(again, find_record(again, "%2Ex/1.jpg")).label, 2);
    assert_int_equal(dataset_record(again, find_record(again, "%252Ex/1.jpg")).label, 3);
    assert_int_equal(dataset_record(again, find_record(again, "%25252Ex/1.jpg")).label, 4);
    dataset_close(&again);
}

// --- shards and names ----------------------------------------------------------------------------

static void shards_are_cut_at_whole_images(void **state)
{
    (void)state;
    assert_int_equal(scratch_shell(&scratch, "$BYOL example $DIR/drawn --seed 3"), 0);
    assert_int_equal(scratch_shell(&scratch, "$BYOL convert $DIR/drawn/train -o $DIR/set"), 0);
    for (int form = 0; form < 2; form++) {
        const char *export = form ? "export-data $DIR/set --to tfrecord -o $DIR/t --shard-size 4"
                                  : "export-data $DIR/set --to webdataset -o $DIR/w --shard-size 4";
        char line[300];
        snprintf(line, sizeof line, "%s --json", export);
        double shards = program_number(&scratch, "shards", line);
        assert_true(shards > 2);
        snprintf(line, sizeof line, "test $(ls $DIR/%s | wc -l) = %d", form ? "t" : "w",
                 (int)shards + 2);
        assert_int_equal(scratch_shell(&scratch, line), 0);
        program_expect(&scratch, 0, "3500 images",
                       form ? "convert $DIR/t/t.tfrecord-* -o $DIR/b"
                            : "convert $DIR/w/w-*.tar -o $DIR/a");
        expect_same_sets("set", form ? "b" : "a");
    }
    assert_int_equal(scratch_shell(&scratch, "test -z \"$(find $DIR/w $DIR/t -size +4200k)\""), 0);
}

static void names_that_cannot_be_files_are_escaped(void **state)
{
    (void)state;
    static const char *const classes[] = {"cat"};
    static const struct entry entries[] = {{"cat/.hidden.jpg", 0}, {"cat/noending", 0},
                                           {"cat/1.jpg", 0},       {"cat/1.png", 0},
                                           {"cat/a.b.jpg", 0},     {"cat/8.jpg", -1}};
    write_set("odd", entries, 6, classes, 1);
    program_expect(&scratch, 0, "renamed: 3", "export-data $DIR/odd --to folder -o $DIR/f");
    assert_int_equal(
        scratch_shell(&scratch, "cd $DIR/f && test -f cat/%2Ehidden.jpg -a -f cat/noending.jpg -a "
                                "-f cat%2F8.jpg -a -f cat/a.b.jpg"),
        0);
    program_expect(&scratch, 0, "renamed: 3", "export-data $DIR/odd --to webdataset -o $DIR/w");
    if (scratch_shell(&scratch, "command -v tar") == 0) {
        assert_int_equal(
            scratch_shell(&scratch, "tar tf $DIR/w/w-000000.tar | grep -Fx cat/1%2Epng.jpg"), 0);
        assert_int_equal(
            scratch_shell(&scratch, "tar tf $DIR/w/w-000000.tar | grep -Fx cat/a%2Eb.jpg"), 0);
    }
}

static void two_images_of_one_file_are_refused(void **state)
{
    (void)state;
    static const char *const classes[] = {"cat"};
    static const struct entry entries[] = {{"cat/1.jpg", 0}, {"1.jpg", 0}};
    write_set("odd", entries, 2, classes, 1);
    program_expect(&scratch, 1, "cat/1.jpg exists: a second image for that file",
                   "export-data $DIR/odd --to folder -o $DIR/f");
    expect_same_through_all_forms("odd", false);
    assert_int_equal(scratch_shell(&scratch, "test ! -e $DIR/f -a ! -e $DIR/f.partial"), 0);
}

// --- what is there already, and what a kill leaves -----------------------------------------------

static void only_exports_are_replaced_and_only_by_force(void **state)
{
    (void)state;
    assert_int_equal(
        scratch_shell(&scratch, "$BYOL convert " IMAGES " -o $DIR/set; mkdir $DIR/mine"), 0);
    const char *export = "export-data $DIR/set --to folder -o $DIR/out";
    program_expect(&scratch, 0, "10 classes", export);
    program_expect(&scratch, 1, "exists already", export);
    program_expect(&scratch, 0, NULL, "export-data $DIR/set --to tfrecord -o $DIR/out --force");
    assert_int_equal(scratch_shell(&scratch, "test ! -e $DIR/out/arrow -a ! -e $DIR/out.partial"),
                     0);
    program_expect(&scratch, 1, "not an export",
                   "export-data $DIR/set --to folder -o $DIR/mine --force");
    program_expect(&scratch, 1, "not an export",
                   "export-data $DIR/set --to folder -o $DIR/set --force");
    program_expect(&scratch, 2, "--to", "export-data $DIR/set -o $DIR/new");
    program_expect(&scratch, 2, "folder", "export-data $DIR/set --to zip -o $DIR/new");
    program_expect(&scratch, 1, "\"status\"",
                   "export-data $DIR/none --to folder -o $DIR/new --json 1>&2");
}

static void killed_exports_are_never_taken_for_whole(void **state)
{
    (void)state;
    assert_int_equal(scratch_shell(&scratch, "$BYOL example $DIR/drawn"), 0);
    assert_int_equal(scratch_shell(&scratch, "$BYOL convert $DIR/drawn/train -o $DIR/set"), 0);
    // Killed later and later, until it has begun; one that was through is taken away again.
    assert_int_equal(scratch_shell(&scratch,
                                   "for ms in 010 020 040 060 080 120 160 240 320; do "
                                   "timeout -s KILL 0.$ms $BYOL export-data $DIR/set --to folder "
                                   "-o $DIR/out; test -f $DIR/out.partial/export.json && exit 0; "
                                   "rm -rf $DIR/out $DIR/out.partial; done; exit 1"),
                     0);
    assert_int_equal(scratch_shell(&scratch, "test ! -e $DIR/out"), 0);
    program_expect(&scratch, 1, "not finished", "convert $DIR/out.partial -o $DIR/again");
    program_expect(&scratch, 1, "exists already", "export-data $DIR/set --to folder -o $DIR/out");
    program_expect(&scratch, 0, "3500 images",
                   "export-data $DIR/set --to folder -o $DIR/out --force");
    program_expect(&scratch, 0, "3500 images", "convert $DIR/out -o $DIR/again");
    expect_same_sets("set", "again");
}

static void an_export_killed_at_once_is_no_obstacle(void **state)
{
    (void)state;
    assert_int_equal(scratch_shell(&scratch, "$BYOL convert " IMAGES " -o $DIR/set"), 0);
    assert_int_equal(scratch_shell(&scratch, "mkdir $DIR/out.partial"), 0); // no mark yet
    program_expect(&scratch, 1, "exists already", "export-data $DIR/set --to folder -o $DIR/out");
    program_expect(&scratch, 0, NULL, "export-data $DIR/set --to folder -o $DIR/out --force");
    assert_int_equal(
        scratch_shell(&scratch, "mkdir $DIR/out.partial && touch $DIR/out.partial/mine"), 0);
    program_expect(&scratch, 1, "exists already",
                   "export-data $DIR/set --to folder -o $DIR/out --force");
    assert_int_equal(scratch_shell(&scratch, "test -f $DIR/out.partial/mine -a -d $DIR/out"), 0);
}

// What links point to is left alone.
static void links_in_the_way_are_not_followed(void **state)
{
    (void)state;
    assert_int_equal(scratch_shell(&scratch, "$BYOL convert " IMAGES " -o $DIR/set"), 0);
    program_expect(&scratch, 0, NULL, "export-data $DIR/set --to folder -o $DIR/real");
    assert_int_equal(scratch_shell(&scratch, "cd $DIR && ln -s real out && ln -s real out.partial"),
                     0);
    program_expect(&scratch, 1, "exists already", "export-data $DIR/set --to tfrecord -o $DIR/out");
    program_expect(&scratch, 0, NULL, "export-data $DIR/set --to tfrecord -o $DIR/out --force");
    assert_int_equal(scratch_shell(&scratch, "cd $DIR && test -d real/arrow -a ! -L out -a ! -e "
                                             "out.partial -a -f out/export.json"),
                     0);
}

static void full_disks_are_named_and_nothing_is_left(void **state)
{
    (void)state;
    static const char *const forms[] = {"folder", "webdataset", "tfrecord"};
    assert_int_equal(scratch_shell(&scratch, "$BYOL convert " IMAGES " -o $DIR/set"), 0);
    for (int form = 0; form < 3; form++) {
        char line[300];
        snprintf(line, sizeof line,
                 "ulimit -f 2; $BYOL export-data $DIR/set --to %s -o $DIR/out 2>$DIR/why; "
                 "test $? = 1 && grep -q 'File too large' $DIR/why",
                 forms[form]);
        assert_int_equal(scratch_shell(&scratch, line), 0);
        assert_int_equal(scratch_shell(&scratch, "test ! -e $DIR/out -a ! -e $DIR/out.partial"), 0);
    }
}

static void paths_that_are_too_long_are_refused(void **state)
{
    (void)state;
    assert_int_equal(scratch_shell(&scratch, "$BYOL convert " IMAGES " -o $DIR/set"), 0);
    program_expect(
        &scratch, 1, "the path is too long",
        "export-data $DIR/set --to tfrecord -o $DIR/$(printf %0250d 0)/$(printf %0250d 0)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(exports_convert_to_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(labels_and_classes_survive_any_order, setup, teardown),
        cmocka_unit_test_setup_teardown(datasets_without_labels_stay_so, setup, teardown),
        cmocka_unit_test_setup_teardown(a_part_of_a_dataset_keeps_its_names, setup, teardown),
        cmocka_unit_test_setup_teardown(names_of_any_kind_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_are_cut_at_whole_images, setup, teardown),
        cmocka_unit_test_setup_teardown(names_that_cannot_be_files_are_escaped, setup, teardown),
        cmocka_unit_test_setup_teardown(two_images_of_one_file_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(only_exports_are_replaced_and_only_by_force, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(killed_exports_are_never_taken_for_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(an_export_killed_at_once_is_no_obstacle, setup, teardown),
        cmocka_unit_test_setup_teardown(links_in_the_way_are_not_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(paths_that_are_too_long_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disks_are_named_and_nothing_is_left, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
