// `byol convert` on containers that others wrote, some of whose records are damaged.
#include "formats/file.h"
#include "formats/image.h"
#include "tests/support/picture.h"
#include "tests/support/program.h"

#include <lmdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct scratch scratch;

// DIR/db: the pictures a and d, a pickle that is no picture at b, one that is cut short at c.
static int setup(void **state)
{
    (void)state;
    static const char dict[] = "\x80\x04}.", cut[] = "\x80\x04"
                                                     "B\xff\xff\xff\xff\xff\xd8\xff";
    struct image image = {0};
    size_t len;
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    scratch_make(&scratch);
    picture_fill(&image, 24, 16, 1);
    uint8_t *jpeg = picture_jpeg(&image, &(struct picture_jpeg){.quality = 50}, &len);
    image_free(&image);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(
        mdb_env_open(env, scratch_path(&scratch, "db"), MDB_NOSUBDIR | MDB_NOLOCK, 0644), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    MDB_val values[] = {{.mv_size = len, .mv_data = jpeg},
                        {.mv_size = sizeof dict - 1, .mv_data = (void *)dict},
                        {.mv_size = sizeof cut - 1, .mv_data = (void *)cut},
                        {.mv_size = len, .mv_data = jpeg}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char name = (char)('a' + i);
        assert_int_equal(
            mdb_put(txn, dbi, &(MDB_val){.mv_size = 1, .mv_data = &name}, &values[i], 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    free(jpeg);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static void bad_records_stop_the_conversion_by_name(void **state)
{
    (void)state;
    program_expect(&scratch, 1, "db/b: byte ", "convert $DIR/db -o $DIR/set");
    program_expect(&scratch, 1, "a pickle that holds a dict", "convert $DIR/db -o $DIR/set");
    assert_false(file_exists(scratch_path(&scratch, "set")));
}

static void bad_records_are_skipped_counted_and_listed(void **state)
{
    (void)state;
    struct program_result result;
    program_run(&result, &scratch, "convert $DIR/db -o $DIR/set --bad skip --json");
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.out, "\"images\": 2"));
    assert_non_null(strstr(result.out, "\"skipped\": 2"));
    assert_non_null(strstr(result.out, "\"b\""));
    assert_non_null(strstr(result.out, "\"c\""));
    assert_non_null(strstr(result.err, "db/c: byte "));
    program_free(&result);
    program_expect(&scratch, 0, "verified", "inspect $DIR/set --verify");
}

static void a_damaged_container_is_an_error_even_when_skipping(void **state)
{
    (void)state;
    assert_int_equal(scratch_shell(&scratch, "head -c 8300 $DIR/db >$DIR/cut"), 0);
    program_expect(&scratch, 1, "cut short, or is damaged",
                   "convert $DIR/cut -o $DIR/set --bad skip");
    assert_false(file_exists(scratch_path(&scratch, "set")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bad_records_stop_the_conversion_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_records_are_skipped_counted_and_listed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_damaged_container_is_an_error_even_when_skipping, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
