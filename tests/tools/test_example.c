// `byol example`: the same bytes everywhere, complete or not there at all.
#include "tests/support/program.h"

#include "formats/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

// Of the drawn pixels, and of the JPEG files made of them, of the first 40 pictures. Whoever
// changes what is drawn changes these, and the README's figures with them.
#define PIXELS_CRC "997f67b4"
#define FILES_CRC  "f8ec7db5"

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

static void checksum(char text[16], const char *key, const char *arguments)
{
    program_string(&scratch, key, text, 16, arguments);
}

static void bytes_are_the_same_everywhere(void **state)
{
    (void)state;
    char pixels[16], files[16];
    checksum(pixels, "pixels_crc32c", "example \"$DIR/a\" --count 40 --json");
    checksum(files, "files_crc32c", "example \"$DIR/b\" --count 40 --json");
    assert_string_equal(pixels, PIXELS_CRC);
    assert_string_equal(files, FILES_CRC);
}

static void bytes_do_not_depend_on_threads(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "example \"$DIR/t1\" --count 50 --size 32 --json --threads 1",
        "example \"$DIR/t2\" --count 50 --size 32 --json --threads 2",
        "example \"$DIR/t7\" --count 50 --size 32 --json --threads 7",
    };
    char first[16], other[16];
    checksum(first, "files_crc32c", lines[0]);
    for (int i = 1; i < 3; i++) {
        checksum(other, "files_crc32c", lines[i]);
        assert_string_equal(first, other);
    }
}

static void seeds_draw_other_pictures(void **state)
{
    (void)state;
    char one[16], two[16];
    checksum(one, "pixels_crc32c", "example \"$DIR/s1\" --count 10 --size 32 --json --seed 1");
    checksum(two, "pixels_crc32c", "example \"$DIR/s2\" --count 10 --size 32 --json --seed 2");
    assert_string_not_equal(one, two);
}

static void a_picture_does_not_depend_on_how_many_there_are(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL, "example \"$DIR/few\" --count 20 --size 32 -q");
    program_expect(&scratch, 0, NULL, "example \"$DIR/many\" --count 60 --size 32 -q");
    program_expect(&scratch, 0, NULL,
                   "--version && cmp \"$DIR/few/train/star/0001.jpg\" "
                   "\"$DIR/many/train/star/0001.jpg\"");
}

static void classes_and_halves_are_even(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "30 training and 10 test pictures of 10 classes",
                   "example \"$DIR/even\" --count 40 --size 16 --test-share 0.25 -q");
    program_expect(&scratch, 0, "=3=1=10=10=",
                   "--version && cd \"$DIR/even\" && printf '=%d=%d=%d=%d=' "
                   "$(ls train/gear | wc -l) $(ls test/gear | wc -l) "
                   "$(ls train | wc -l) $(ls test | wc -l)");
}

static void an_existing_directory_is_left_alone(void **state)
{
    (void)state;
    program_expect(&scratch, 1, "exists already",
                   "--version && mkdir \"$DIR/mine\" && echo kept >\"$DIR/mine/file\" && "
                   "$BYOL example \"$DIR/mine\" --count 10 --size 16");
    char path[300];
    snprintf(path, sizeof path, "%s/mine/file", scratch.path);
    assert_true(file_exists(path));
    program_expect(&scratch, 0, "10 training",
                   "--version && mkdir \"$DIR/empty\" && $BYOL example \"$DIR/empty/\" "
                   "--count 10 --size 16 --test-share 0");
}

static void a_failure_leaves_nothing_behind(void **state)
{
    (void)state;
    // A limit on file sizes stands for a full disk.
    program_expect(&scratch, 1, "byol example: ",
                   "--version && mkdir \"$DIR/full\" && trap '' XFSZ && ulimit -f 1 && "
                   "$BYOL example \"$DIR/full/x\" --count 20 --size 256");
    program_expect(&scratch, 0, "=0=", "--version && printf '=%d=' $(ls -A \"$DIR/full\" | wc -l)");
    program_expect(&scratch, 1, "byol example: ", "example /dev/null/x --count 10");
}

static void its_two_halves_are_told_from_classes(void **state)
{
    (void)state;
    program_expect(&scratch, 0, "look like splits, not classes",
                   "example \"$DIR/halves\" --count 40 --size 16 -q && "
                   "\"$BYOL\" inspect \"$DIR/halves\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_same_everywhere),
        cmocka_unit_test(its_two_halves_are_told_from_classes),
        cmocka_unit_test(bytes_do_not_depend_on_threads),
        cmocka_unit_test(seeds_draw_other_pictures),
        cmocka_unit_test(a_picture_does_not_depend_on_how_many_there_are),
        cmocka_unit_test(classes_and_halves_are_even),
        cmocka_unit_test(an_existing_directory_is_left_alone),
        cmocka_unit_test(a_failure_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
