// Sources that another program reads: what that program may say, how it may end, and the two that
// there are (HDF5 and Parquet files, damaged ones too).
#include "tests/support/program.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if HAVE_HDF5
#include <hdf5.h>
#endif

#include <cmocka.h>

static char path[300];
static struct source_reading reading;

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    snprintf(path, sizeof path, "%s/a.h5", scratch.path);
    source_case_write(path, "\x89HDF\r\n\x1a\n", 8);
    setenv("BYOL_LIBEXEC", scratch.path, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    source_reading_free(&reading);
    scratch_remove(&scratch);
    unsetenv("BYOL_LIBEXEC");
    return 0;
}

// --- what a program may say --------------------------------------------------------------------

// The program that is run for HDF5 files says what `commands` of a shell print.
static void say(const char *commands)
{
    char file[320], text[2000];
    snprintf(file, sizeof file, "%s/byol-hdf5-stream", scratch.path);
    snprintf(text, sizeof text,
             "#!/bin/sh\n"
             "head() { printf "
             "\"\\\\$1\\\\0\\\\0\\\\0\\\\$2\\\\0\\\\0\\\\0$3\\\\$4\\\\0\\\\0\\\\0$5$6\"; }\n"
             "none='\\0\\0\\0\\0'\n%s\n",
             commands);
    source_case_write(file, text, strlen(text));
    assert_int_equal(chmod(file, 0755), 0);
}

static void test_good(void **state)
{
    (void)state;
    say("printf BYOLIMG1\n"
        "head 5 0 \"$none\" 6 \"$none$none\" \"$none$none\"; printf layout\n"
        "head 4 0 \"$none\" 3 \"$none$none\" \"$none$none\"; printf cat\n"
        "head 4 0 \"$none\" 3 \"$none$none\" \"$none$none\"; printf dog\n"
        "head 1 1 '\\1\\0\\0\\0' 5 \"$none$none\" '\\4\\0\\0\\0\\0\\0\\0\\0'; printf 1.jpg; printf "
        "JPEG\n"
        "head 2 0 \"$none\" 5 '\\1\\0\\0\\0\\1\\0\\0\\0' '\\3\\0\\0\\0\\0\\0\\0\\0'; printf 2.png; "
        "printf RGB\n"
        "head 6 0 \"$none\" 0 \"$none$none\" \"$none$none\"");
    source_reading_good(&reading, path);
    assert_string_equal(reading.members, "a.h5/1.jpg 1\n2.png 0\n");
    assert_string_equal(reading.classes, "cat,dog");
    assert_string_equal(reading.description, "HDF5: layout");
    assert_int_equal(reading.first_len, 4);
    assert_memory_equal(reading.first, "JPEG", 4);
}

static void test_nonsense(void **state)
{
    (void)state;
    static const struct {
        const char *commands;
        enum status status;
        const char *reason;
    } cases[] = {
        {"", STATUS_IO, "ended with code 0 and without an explanation"},
        {"exit 3", STATUS_IO, "ended with code 3"},
        {"printf BYOL", STATUS_IO, "ended with code 0"},
        {"printf BYOLIMG1; kill -SEGV $$", STATUS_CORRUPT, "was ended by signal 11"},
        {"printf XYOLIMG1", STATUS_CORRUPT, "makes no sense"},
        {"printf BYOLIMG1; head 9 0 \"$none\" 0 \"$none$none\" \"$none$none\"", STATUS_CORRUPT,
         "makes no sense"},
        {"printf BYOLIMG1; head 1 0 \"$none\" 0 \"$none$none\" "
         "'\\377\\377\\377\\377\\377\\0\\0\\0'",
         STATUS_CORRUPT, "makes no sense"},
        {"printf BYOLIMG1; head 4 0 \"$none\" 0 \"$none$none\" '\\1\\0\\0\\0\\0\\0\\0\\0'",
         STATUS_CORRUPT, "makes no sense"},
        {"printf BYOLIMG1; head 10 0 \"$none\" 0 \"$none$none\" '\\221\\1\\0\\0\\0\\0\\0\\0'",
         STATUS_CORRUPT, "makes no sense"},
        {"printf BYOLIMG1; head 1 0 \"$none\" 0 \"$none$none\" '\\4\\0\\0\\0\\0\\0\\0\\0'; printf "
         "JP",
         STATUS_IO, "ended with code 0"},
        {"printf BYOLIMG1; head 7 0 '\\26\\0\\0\\0' 4 \"$none$none\" \"$none$none\"; printf 'no! '",
         STATUS_UNSUPPORTED, "no! "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        say(cases[i].commands);
        source_reading_refused(path, cases[i].status, cases[i].reason);
    }
}

// What is wrong with one image is that image's.
static void test_bad_images(void **state)
{
    (void)state;
    say("printf BYOLIMG1\n"
        "head 2 0 \"$none\" 1 '\\2\\0\\0\\0\\1\\0\\0\\0' '\\3\\0\\0\\0\\0\\0\\0\\0'; printf xRGB\n"
        "head 10 1 '\\1\\0\\0\\0' 1 \"$none$none\" '\\4\\0\\0\\0\\0\\0\\0\\0'; printf 1oops\n"
        "head 1 1 '\\1\\0\\0\\0' 5 \"$none$none\" '\\4\\0\\0\\0\\0\\0\\0\\0'; printf 2.jpgJPEG\n"
        "head 10 1 '\\1\\0\\0\\0' 1 \"$none$none\" \"$none$none\"; printf 3\n"
        "head 6 0 \"$none\" 0 \"$none$none\" \"$none$none\"");
    source_reading_good(&reading, path);
    assert_string_equal(reading.members, "x -1 !\na.h5/1 -1 !\na.h5/2.jpg 1\na.h5/3 -1 !\n");
    assert_non_null(strstr(reading.bad.reason, "3 bytes for 2 x 1 raw pixels"));
    assert_memory_equal(reading.first, "JPEG", 4);
}

// A program that goes on talking to nobody is ended.
static void test_closed_early(void **state)
{
    (void)state;
    struct source *source;
    struct source_member member;
    say("printf BYOLIMG1\n"
        "head 1 1 '\\1\\0\\0\\0' 1 \"$none$none\" '\\4\\0\\0\\0\\0\\0\\0\\0'; printf x; printf "
        "JPEG\n"
        "sleep 600");
    assert_int_equal(source_open(&source, path, NULL), STATUS_OK);
    assert_int_equal(source_next(source, &member, NULL), STATUS_OK);
    source_close(&source);
}

static void test_no_program(void **state)
{
    (void)state;
    source_reading_refused(path, STATUS_UNSUPPORTED, "install libhdf5-dev and build again");
    source_case_write(path, "PAR1", 4);
    source_reading_refused(path, STATUS_UNSUPPORTED, "parquet_stream.py, is neither beside byol");
}

// --- Parquet -----------------------------------------------------------------------------------

static void test_parquet_damaged(void **state)
{
    (void)state;
    if (access("tools/streams/parquet_stream.py", R_OK) != 0) {
        skip(); // not run where the sources are
    }
    setenv("BYOL_LIBEXEC", "tools/streams", 1);
    source_case_write(path, "PAR1 and nothing more PAR1", 26);
    source_reading_all(&reading, path);
    assert_true(reading.status == STATUS_UNSUPPORTED || reading.status == STATUS_CORRUPT);
    assert_non_null(strstr(reading.error.reason, "pyarrow"));
    char saved[4000];
    snprintf(saved, sizeof saved, "%s", getenv("PATH"));
    setenv("PATH", scratch.path, 1); // no python3 there
    source_reading_refused(path, STATUS_UNSUPPORTED, "install python3 and pyarrow");
    setenv("PATH", saved, 1);
}

// --- HDF5 --------------------------------------------------------------------------------------

#if HAVE_HDF5
static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xe0, 1, 2, 3};

// The real program, beside the tests' folder.
static void use_program(void)
{
    char folder[300];
    ssize_t len = readlink("/proc/self/exe", folder, sizeof folder - 1);
    assert_true(len > 0);
    folder[len] = '\0';
    for (int up = 0; up < 3; up++) { // BUILD/tests/formats/test_source_stream
        *strrchr(folder, '/') = '\0';
    }
    setenv("BYOL_LIBEXEC", folder, 1);
}

static void write_dataset(hid_t group, const char *name, hid_t type, int dims, const hsize_t *sizes,
                          const void *values)
{
    hid_t space = H5Screate_simple(dims, sizes, NULL);
    hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(dataset >= 0);
    assert_true(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(dataset);
    H5Sclose(space);
}

static hid_t create(void)
{
    use_program();
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void expect(const char *members, const char *description)
{
    source_reading_free(&reading);
    source_reading_good(&reading, path);
    assert_string_equal(reading.members, members);
    assert_string_equal(reading.description, description);
}

// Groups as classes; what leads out of the file is not followed.
static void write_groups(void)
{
    hid_t file = create();
    hid_t cat = H5Gcreate2(file, "cat", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t dog = H5Gcreate2(file, "dog", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hsize_t size = sizeof jpeg;
    write_dataset(cat, "1.jpg", H5T_NATIVE_UINT8, 1, &size, jpeg);
    write_dataset(dog, "2.jpg", H5T_NATIVE_UINT8, 1, &size, jpeg);
    write_dataset(dog, "note", H5T_NATIVE_UINT8, 1, &size, "nothing");
    H5Lcreate_soft("/cat/1.jpg", file, "soft.jpg", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/", file, "outside", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "/", dog, "round", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(dog);
    H5Gclose(cat);
    H5Fclose(file);
}

static void test_groups(void **state)
{
    (void)state;
    write_groups();
    source_reading_refused(path, STATUS_UNSUPPORTED, "deeper than 16"); // dog/round/dog/round/…
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, "/dog/round", H5P_DEFAULT);
    H5Fclose(file);
    expect("cat/1.jpg -2\ndog/2.jpg -2\n", "HDF5: a dataset an image, groups are classes");
    assert_memory_equal(reading.first, jpeg, sizeof jpeg);
}

static void test_arrays(void **state)
{
    (void)state;
    hid_t file = create();
    hid_t ragged = H5Tvlen_create(H5T_NATIVE_UINT8);
    hvl_t rows[3] = {{sizeof jpeg, (void *)jpeg}, {4, "none"}, {sizeof jpeg - 1, (void *)jpeg}};
    write_dataset(file, "images", ragged, 1, &(hsize_t){3}, rows);
    write_dataset(file, "labels", H5T_NATIVE_INT32, 1, &(hsize_t){3}, (int32_t[]){7, 1, 8});
    write_dataset(file, "other", H5T_NATIVE_INT32, 1, &(hsize_t){3}, (int32_t[]){1, 2, 3});
    H5Tclose(ragged);
    H5Fclose(file);
    expect("a.h5/images/000000000.jpg 7\na.h5/images/000000001 -1 !\n"
           "a.h5/images/000000002.jpg 8\n",
           "HDF5: 3 image files in 'images', labels in 'labels'");
    assert_memory_equal(reading.first, jpeg, sizeof jpeg);
    assert_non_null(strstr(reading.bad.reason, "neither a JPEG nor a PNG"));
    file = create();
    write_dataset(file, "x", H5T_NATIVE_UINT8, 4, (hsize_t[]){2, 1, 1, 3}, "abcdef");
    write_dataset(file, "y", H5T_NATIVE_UINT8, 4, (hsize_t[]){2, 1, 1, 1}, "\1\2");
    H5Fclose(file);
    source_reading_free(&reading);
    source_reading_all(&reading, path);
    assert_non_null(strstr(reading.members, "a.h5/x/000000000.png 1\na.h5/x/000000001.png 2\n"));
}

static void test_hdf5_refused(void **state)
{
    (void)state;
    hid_t file = create();
    write_dataset(file, "x", H5T_NATIVE_DOUBLE, 1, &(hsize_t){2}, (double[]){1, 2});
    H5Fclose(file);
    source_reading_refused(path, STATUS_UNSUPPORTED, "no images in it");
    file = create();
    hid_t ragged = H5Tvlen_create(H5T_NATIVE_UINT8);
    write_dataset(file, "words", ragged, 1, &(hsize_t){1}, &(hvl_t){4, "word"});
    H5Tclose(ragged);
    H5Fclose(file);
    source_reading_refused(path, STATUS_UNSUPPORTED, "the first entry of words is neither");
    source_case_write(path, "\x89HDF\r\n\x1a\n", 8);
    source_reading_refused(path, STATUS_CORRUPT, "libhdf5 cannot open it");
}

// libhdf5 may crash or find no end of memory: whatever it does, it is said.
static void test_hdf5_mutants(void **state)
{
    (void)state;
    write_groups();
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, "/dog/round", H5P_DEFAULT);
    H5Fclose(file);
    source_case_mutants(path, path, 8, 60);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_images, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closed_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_program, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parquet_damaged, setup, teardown),
#if HAVE_HDF5
        cmocka_unit_test_setup_teardown(test_groups, setup, teardown),
        cmocka_unit_test_setup_teardown(test_arrays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hdf5_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hdf5_mutants, setup, teardown),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
