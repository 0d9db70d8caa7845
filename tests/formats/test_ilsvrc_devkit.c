// ILSVRC2012's development kit: MATLAB's tables, what the numbers mean, damage.
#include "formats/file.h"
#include "formats/ilsvrc_devkit.h"
#include "formats/mat_table.h"
#include "tests/support/devkit_case.h"
#include "tests/support/mutate.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const wnids[] = {"n02119789", "n02100735", "n01440764"};

static const char *kit(void)
{
    return scratch_path(&scratch, "kit.tar");
}

// --- tables --------------------------------------------------------------------------------------

static enum status note_row(void *context, const struct mat_cell *cells, struct error *error)
{
    (void)error;
    char *text = context;
    size_t used = strlen(text);
    assert_true(cells[1].is_number);
    snprintf(text + used, 200 - used, "%s %d\n", cells[0].text, (int)cells[1].number);
    return STATUS_OK;
}

static void expect_table(const uint8_t *bytes, size_t len, const char *name, const char *field,
                         enum status status, const char *expected)
{
    const char *const fields[] = {"WNID", field};
    char text[200] = "";
    struct error error;
    enum status found =
        mat_table_read(bytes, len, "meta.mat", name, fields, 2, note_row, text, &error);
    assert_int_equal(found, status);
    assert_string_equal(status == STATUS_OK ? text : error.reason, expected);
}

static void tables_are_read_packed_or_not(void **state)
{
    (void)state;
    for (int packed = 0; packed < 2; packed++) {
        size_t len;
        uint8_t *bytes = devkit_case_meta(wnids, 3, packed, &len);
        expect_table(bytes, len, "synsets", "ILSVRC2012_ID", STATUS_OK,
                     "n02119789 1\nn02100735 2\nn01440764 3\n");
        expect_table(bytes, len, "synset", "ILSVRC2012_ID", STATUS_UNSUPPORTED,
                     "no table 'synset' in it");
        expect_table(bytes, len, "synsets", "ID", STATUS_UNSUPPORTED,
                     "the table 'synsets' lacks a field that is wanted of it");
        expect_table(bytes, 127, "synsets", "WNID", STATUS_UNSUPPORTED,
                     "no MATLAB file of level 5");
        bytes[127] = 'I'; // the other byte order
        expect_table(bytes, len, "synsets", "WNID", STATUS_UNSUPPORTED,
                     "no MATLAB file of level 5");
        free(bytes);
    }
}

static void cut_tables_are_told(void **state)
{
    (void)state;
    for (int packed = 0; packed < 2; packed++) {
        static const char *const fields[] = {"WNID", "ILSVRC2012_ID"};
        size_t len;
        uint8_t *bytes = devkit_case_meta(wnids, 3, packed, &len);
        for (size_t cut = 0; cut < len; cut++) {
            char text[200] = "";
            uint8_t *copy = malloc(cut + 1); // its end is watched
            assert_non_null(copy);
            memcpy(copy, bytes, cut);
            assert_int_not_equal(
                mat_table_read(copy, cut, "", "synsets", fields, 2, note_row, text, NULL),
                STATUS_OK);
            free(copy);
        }
        free(bytes);
    }
}

static enum status ignore_row(void *context, const struct mat_cell *cells, struct error *error)
{
    (void)context, (void)cells, (void)error;
    return STATUS_OK;
}

static void damaged_tables_do_no_harm(void **state)
{
    (void)state;
    static const char *const fields[] = {"WNID", "ILSVRC2012_ID"};
    uint64_t random = 3;
    for (int packed = 0; packed < 2; packed++) {
        size_t len;
        uint8_t *bytes = devkit_case_meta(wnids, 3, packed, &len);
        for (int i = 0; i < 3000; i++) {
            size_t mutant_len;
            uint8_t *mutant = mutate_copy(bytes, len, 128, &random, &mutant_len);
            struct error error = {0};
            enum status status = mat_table_read(mutant, mutant_len, "", "synsets", fields, 2,
                                                ignore_row, NULL, &error);
            assert_true(status == STATUS_OK || error.reason[0] != '\0');
            free(mutant);
        }
        free(bytes);
    }
}

// --- the kit -------------------------------------------------------------------------------------

static void expect_labels(const char *from, const char *expected)
{
    struct name_list labels = {0};
    struct error error;
    char text[200] = "";
    if (ilsvrc_devkit_read(&labels, from, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    for (size_t i = 0; i < labels.count; i++) {
        assert_int_equal(labels.lines[i].number, i + 1);
        strcat(strcat(text, labels.lines[i].name), " ");
    }
    assert_string_equal(text, expected);
    name_list_free(&labels);
}

static void expect_failure(enum status status, const char *reason)
{
    struct name_list labels = {0};
    struct error error;
    assert_int_equal(ilsvrc_devkit_read(&labels, kit(), &error), status);
    assert_non_null(strstr(error.reason, reason));
    name_list_free(&labels);
}

static void numbers_become_wnids(void **state)
{
    (void)state;
    bool is;
    devkit_case_write(kit(), wnids, 3, "3\n1\r\n3\n\n2");
    assert_int_equal(ilsvrc_devkit_is(kit(), &is, NULL), STATUS_OK);
    assert_true(is);
    expect_labels(kit(), "n01440764 n02119789 n01440764 n02100735 ");
    if (scratch_shell(&scratch, "cd $DIR && tar xf kit.tar") == 0) { // the folder as well
        expect_labels(scratch_path(&scratch, "ILSVRC2012_devkit_t12"),
                      "n01440764 n02119789 n01440764 n02100735 ");
    }
    source_case_write(kit(), "1\n2\n", 4);
    assert_int_equal(ilsvrc_devkit_is(kit(), &is, NULL), STATUS_OK);
    assert_false(is);
}

static void what_does_not_fit_is_told(void **state)
{
    (void)state;
    static const char *const bad[] = {"4\n", "0\n", "-1\n", "1 2\n", "x\n", "1\r1\r1\r9\r"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        devkit_case_write(kit(), wnids, 3, bad[i]);
        expect_failure(STATUS_CORRUPT, "is the number of no synset");
    }
    static const char *const slash[] = {"n/1"};
    devkit_case_write(kit(), slash, 1, "1\n");
    expect_failure(STATUS_CORRUPT, "a synset without a number and a WNID");
    FILE *tar = source_case_create(kit());
    source_case_file(tar, "a/ILSVRC2012_validation_ground_truth.txt", "1\n");
    source_case_end(tar);
    expect_failure(STATUS_UNSUPPORTED, "it has no meta.mat");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_read_packed_or_not), cmocka_unit_test(cut_tables_are_told),
        cmocka_unit_test(damaged_tables_do_no_harm),     SOURCE_TEST(numbers_become_wnids),
        SOURCE_TEST(what_does_not_fit_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
