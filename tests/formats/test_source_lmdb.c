// LMDBs of others, written by liblmdb: what values may be, trees of several levels, damage.
#include "formats/file.h"
#include "formats/image.h"
#include "formats/lmdb_walk.h"
#include "tests/support/picture.h"
#include "tests/support/program.h"
#include "tests/support/source_case.h"

#include <lmdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define NEWER_META 4096 // the second page's transaction is the newer one

static char path[300], file[320];
static struct source_reading reading;
static uint8_t *jpeg;
static size_t jpeg_len;
static MDB_env *env;
static MDB_txn *txn;
static MDB_dbi dbi;

static int setup(void **state)
{
    (void)state;
    struct image image = {0};
    scratch_make(&scratch);
    snprintf(path, sizeof path, "%s/db", scratch.path);
    snprintf(file, sizeof file, "%s/data.mdb", path);
    mkdir(path, 0755);
    picture_fill(&image, 96, 64, 1);
    jpeg = picture_jpeg(&image, &(struct picture_jpeg){.quality = 85}, &jpeg_len);
    image_free(&image);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    source_reading_free(&reading);
    free(jpeg);
    scratch_remove(&scratch);
    return 0;
}

// --- writing -----------------------------------------------------------------------------------

static void begin(unsigned flags)
{
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_mapsize(env, 64 << 20), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 2), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSYNC, 0644), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, flags, &dbi), 0);
}

static void put(const void *key, size_t key_len, const void *bytes, size_t len)
{
    MDB_val name = {.mv_size = key_len, .mv_data = (void *)key};
    MDB_val value = {.mv_size = len, .mv_data = (void *)bytes};
    assert_int_equal(mdb_put(txn, dbi, &name, &value, 0), 0);
}

static void end(void)
{
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

// An LMDB of one value.
static void write_one(const void *bytes, size_t len)
{
    begin(0);
    put("key", 3, bytes, len);
    end();
}

// `head`, then the JPEG, then `tail`.
static void write_around(const void *head, size_t head_len, const void *tail, size_t tail_len)
{
    uint8_t *value = malloc(head_len + jpeg_len + tail_len);
    assert_non_null(value);
    memcpy(value, head, head_len);
    memcpy(value + head_len, jpeg, jpeg_len);
    memcpy(value + head_len + jpeg_len, tail, tail_len);
    write_one(value, head_len + jpeg_len + tail_len);
    free(value);
}

static void expect(const char *members)
{
    source_reading_free(&reading);
    source_reading_good(&reading, path);
    assert_string_equal(reading.members, members);
}

static void expect_jpeg(const char *members)
{
    expect(members);
    assert_int_equal(reading.first_len, jpeg_len);
    assert_memory_equal(reading.first, jpeg, jpeg_len);
}

// --- values ------------------------------------------------------------------------------------

static void test_image_files(void **state)
{
    (void)state;
    begin(0);
    put("cat/1.jpg", 9, jpeg, jpeg_len);
    put("dog/2", 5, jpeg, jpeg_len);
    put("\0\0\0\1", 4, jpeg, jpeg_len);
    put("../x", 4, jpeg, jpeg_len);
    put("__len__", 7, "2", 1);
    end();
    expect_jpeg("db/000000000.jpg -1\ndb/000000001.jpg -1\ncat/1.jpg -2\ndog/2.jpg -2\n");
    assert_int_equal(reading.counts.others, 1);
    assert_string_equal(reading.kind, "LMDB");
    assert_non_null(strstr(reading.description, "image files, no labels"));
    // The file itself, as MDB_NOSUBDIR makes them, is a source too.
    struct source_reading *other = calloc(1, sizeof *other);
    assert_non_null(other);
    source_reading_all(other, file);
    assert_int_equal(other->counts.images, 4);
    source_reading_free(other);
    free(other);
}

static void test_encoded_datum(void **state)
{
    (void)state;
    uint8_t head[3] = {0x22, (uint8_t)(jpeg_len | 0x80), (uint8_t)(jpeg_len >> 7)};
    assert_in_range(jpeg_len, 2100, 16383); // no leaf holds it
    write_around(head, 3, "\x28\x85\x01\x38\x01", 5);
    expect_jpeg("key.jpg 133\n");
    assert_non_null(strstr(reading.description, "Caffe Datums with encoded images, labels"));
}

static void test_raw_datum(void **state)
{
    (void)state;
    static const char value[] = "\x08\x03\x10\x01\x18\x02\x22\x06"
                                "\x03\x06\x02\x05\x01\x04"
                                "\x28\x07";
    write_one(value, sizeof value - 1);
    expect("key.png 7\n");
    struct image_decoder *decoder;
    struct image image = {0};
    assert_int_equal(image_decoder_open(&decoder, NULL), STATUS_OK);
    assert_int_equal(image_decode(decoder, reading.first, reading.first_len, NULL, &image, NULL),
                     STATUS_OK);
    assert_int_equal(image.width, 2);
    assert_int_equal(image.height, 1);
    assert_memory_equal(image.pixels, "\1\2\3\4\5\6", 6);
    image_free(&image);
    image_decoder_close(&decoder);
}

static void test_datums_refused(void **state)
{
    (void)state;
    write_one("\x08\x03\x10\x02\x18\x02\x22\x03xyz\x28\x07", 13);
    source_reading_bad(path, STATUS_CORRUPT, "3 bytes for 2 x 2 raw pixels that take 12");
    write_one("\x08\x02\x10\x01\x18\x01\x22\x02xy", 10);
    source_reading_bad(path, STATUS_CORRUPT, "2 channels");
    write_one("\x10\x01\x18\x01\x32\x04\0\0\0\0", 10);
    source_reading_bad(path, STATUS_CORRUPT, "floating-point");
    write_one("\x08\x03\x10\xff\xff\xff\xff\x0f\x18\xff\xff\xff\xff\x0f\x22\x01x", 17);
    source_reading_bad(path, STATUS_LIMIT, "pixels");
    write_one("\x22\x7fx", 3); // longer than the value: no Datum at all
    source_reading_bad(path, STATUS_CORRUPT, "it starts with 22 7f 78 '\".x'");
    write_one("\x08\x01\x10\x01\x18\x01\x22\x01x\x28\x80\x80\x80\x80\x08", 15);
    source_reading_bad(path, STATUS_LIMIT, "the label -2147483648 is no class");
}

static void test_pickles(void **state)
{
    (void)state;
    uint8_t head[32] = "\x80\x04\x95\0\0\0\0\0\0\0\0B";
    memcpy(head + 12, &(uint32_t){(uint32_t)jpeg_len}, 4);
    write_around(head, 16, "\x94K\x09\x86\x94.", 6);
    expect_jpeg("key.jpg 9\n");
    memcpy(head, "\x80\x02(T", 4);
    memcpy(head + 4, &(uint32_t){(uint32_t)jpeg_len}, 4);
    write_around(head, 8, "q\x01J\xff\xff\xff\xfftq\x02.", 11);
    expect_jpeg("key.jpg -1\n");
    memcpy(head, "\x80\x05]\x94(\x96", 6);
    memcpy(head + 6, &(uint64_t){jpeg_len}, 8);
    write_around(head, 14, "\x94\x8c\x01xN\x8a\x02\x01\x01\x65.", 11);
    expect_jpeg("key.jpg 257\n");
    assert_non_null(strstr(reading.description, "pickled (image, label)"));
}

static void test_pickles_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *reason;
    } cases[] = {
        {"\x80\x02"
         "cos\nsystem\n(X\x04\0\0\0trueR.",
         25, "wants Python's os.system"},
        {"\x80\x04\x8c\x02os\x8c\x06system\x93.", 16, "opcode 0x93"},
        {"\x80\x04}.", 4, "holds a dict"},
        {"\x80\x04K\x01K\x02\x86.", 8, "a pickle without bytes"},
        {"\x80\x04"
         "C\x03xyzK\x02\x86.",
         11, "it starts with 78 79 7a"},
        {"\x80\x04"
         "B\xff\xff\xff\xffx.",
         9, "longer than it is"},
        {"\x80\x04\x86.", 4, "takes values that are not there"},
        {"\x80\x04h\x07.", 5, "takes values that are not there"},
        {"\x80\x04t.", 4, "takes values that are not there"},
        {"\x80\x04N", 3, "a value ends here"},
        {"\x80\x04NN.", 5, "does not end with one value"},
        {"\x80\x09N.", 4, "protocol 2 to 5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_one(cases[i].bytes, cases[i].len);
        source_reading_bad(path, STATUS_CORRUPT, cases[i].reason);
    }
    char many[200];
    memset(many, 'N', sizeof many);
    memcpy(many, "\x80\x04", 2);
    write_one(many, sizeof many);
    source_reading_bad(path, STATUS_CORRUPT, "too many values");
}

static void test_msgpack(void **state)
{
    (void)state;
    uint8_t head[] = {0x92, 0xc5, (uint8_t)(jpeg_len >> 8), (uint8_t)jpeg_len};
    write_around(head, sizeof head, "\xcd\x01\x02", 3);
    expect_jpeg("key.jpg 258\n");
    write_around(head, sizeof head, "\xff", 1);
    expect_jpeg("key.jpg -1\n");
    write_around(head, sizeof head, "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9);
    source_reading_bad(path, STATUS_LIMIT, "is no class");
    write_around(head, sizeof head, "\xc0", 1);
    source_reading_bad(path, STATUS_CORRUPT, "it starts with 92 c5");
}

static void test_unknown_values(void **state)
{
    (void)state;
    write_one("RIFF\x10\0\0\0WEBPVP8 ", 16);
    source_reading_bad(path, STATUS_CORRUPT, "a WebP image (as LSUN's");
    write_one("hello", 5);
    source_reading_bad(path, STATUS_CORRUPT, "5 bytes is no image");
    write_one("", 0);
    source_reading_bad(path, STATUS_CORRUPT, "0 bytes is no image");
}

// --- trees -------------------------------------------------------------------------------------

static void fill(unsigned count)
{
    char key[16];
    begin(0);
    for (unsigned i = 0; i < count; i++) {
        snprintf(key, sizeof key, "%08u", i);
        put(key, 8, jpeg, i % 16 == 0 ? jpeg_len : 40); // on leaves and on pages of their own
    }
    end();
}

static void test_deep_tree(void **state)
{
    (void)state;
    const uint8_t *key;
    size_t key_len;
    char want[16];
    struct source_range value;
    fill(20000);
    struct lmdb_walk *walk;
    assert_int_equal(lmdb_walk_open(&walk, file, NULL), STATUS_OK);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t bytes[40];
        snprintf(want, sizeof want, "%08u", i);
        assert_int_equal(lmdb_walk_next(walk, &key, &key_len, NULL), STATUS_OK);
        assert_int_equal(lmdb_walk_value(walk, &value, NULL), STATUS_OK);
        assert_int_equal(key_len, 8);
        assert_memory_equal(key, want, 8);
        assert_int_equal(value.len, i % 16 == 0 ? jpeg_len : 40);
        assert_int_equal(source_range_read(&value, 0, bytes, 40, NULL), STATUS_OK);
        assert_memory_equal(bytes, jpeg, 40);
    }
    assert_int_equal(lmdb_walk_next(walk, &key, &key_len, NULL), STATUS_END);
    lmdb_walk_close(&walk);
}

static void test_other_trees(void **state)
{
    (void)state;
    begin(0);
    end();
    expect("");
    begin(0);
    MDB_dbi other;
    assert_int_equal(mdb_dbi_open(txn, "inner", MDB_CREATE, &other), 0);
    end();
    source_reading_refused(path, STATUS_UNSUPPORTED, "databases of their own names");
}

static void test_several_values(void **state)
{
    (void)state;
    begin(MDB_DUPSORT);
    put("key", 3, "a", 1);
    put("key", 3, "b", 1);
    end();
    source_reading_refused(path, STATUS_UNSUPPORTED, "MDB_DUPSORT");
}

// --- damage ------------------------------------------------------------------------------------

// Changes `len` bytes at `at`, reads as `expected` does, and puts back what was there.
static void expect_damage(size_t at, const void *bytes, size_t len,
                          void (*expected)(const char *path, enum status status, const char *text),
                          enum status status, const char *text)
{
    uint8_t *whole, kept[8];
    size_t whole_len;
    assert_int_equal(file_read_all(file, 1 << 26, &whole, &whole_len, NULL), STATUS_OK);
    memcpy(kept, whole + at, len);
    memcpy(whole + at, bytes, len);
    source_case_write(file, whole, whole_len);
    expected(path, status, text);
    memcpy(whole + at, kept, len);
    source_case_write(file, whole, whole_len);
    free(whole);
}

// Where the leaf lies that is the root, and its first entry.
static void find_leaf(size_t *page, size_t *entry)
{
    uint8_t *whole;
    size_t len;
    uint64_t root;
    uint16_t first;
    assert_int_equal(file_read_all(file, 1 << 26, &whole, &len, NULL), STATUS_OK);
    memcpy(&root, whole + NEWER_META + 16 + 24 + 48 + 40, 8);
    *page = (size_t)root * 4096;
    memcpy(&first, whole + *page + 16, 2);
    *entry = *page + first;
    free(whole);
}

static void test_damaged_tree_ends_the_source(void **state)
{
    (void)state;
    size_t meta = NEWER_META, page, entry;
    fill(20); // one leaf
    find_leaf(&page, &entry);
    expect_damage(meta + 20, "\x02", 1, source_reading_refused, STATUS_VERSION, "format version 2");
    expect_damage(meta + 16 + 24, "\0\x20", 2, source_reading_refused, STATUS_CORRUPT,
                  "how large pages are");
    expect_damage(meta + 112 + 16, "\xff\xff\xff\x00", 4, source_reading_refused, STATUS_TRUNCATED,
                  "the file has");
    expect_damage(meta + 94, "\x63", 1, source_reading_refused, STATUS_CORRUPT, "too deep");
    expect_damage(meta + 94, "\x02", 1, source_reading_refused, STATUS_CORRUPT,
                  "not the page that the tree refers to");
    expect_damage(page + 12, "\x10\0", 2, source_reading_refused, STATUS_CORRUPT,
                  "without entries");
    expect_damage(page + 16, "\xff\x0f", 2, source_reading_refused, STATUS_CORRUPT,
                  "outside its page");
    expect_damage(entry + 6, "\xff\x01", 2, source_reading_refused, STATUS_CORRUPT,
                  "outside its page");
}

static void test_damaged_value_is_a_bad_image(void **state)
{
    (void)state;
    size_t page, entry;
    fill(20); // 0 and 16 on pages of their own
    find_leaf(&page, &entry);
    expect_damage(entry + 8 + 8, "\xff\xff", 2, source_reading_bad, STATUS_CORRUPT, "the file has");
    expect_damage(entry + 8 + 8, "\x02\0", 2, source_reading_bad, STATUS_CORRUPT,
                  "not the page that holds a value");
    expect_damage(entry + 2, "\xff\x7f", 2, source_reading_bad, STATUS_CORRUPT,
                  "longer than its pages");
    // The second entry's value is in the leaf.
    expect_damage(entry - 2 * 56, "\xff\x0f", 2, source_reading_bad, STATUS_CORRUPT,
                  "a value outside its page");
}

// Bad values in between are named, and what is around them is read.
static void test_bad_values_in_between(void **state)
{
    (void)state;
    begin(0);
    put("a", 1, jpeg, jpeg_len);
    put("b", 1, "\x80\x04}.", 4);
    put("c/d.jpg", 7, "hello", 5);
    put("e", 1, jpeg, jpeg_len);
    end();
    expect_jpeg("a.jpg -2\nb -1 !\nc/d.jpg -1 !\ne.jpg -2\n");
    assert_int_equal(reading.bad.record, 1);
    assert_non_null(strstr(reading.bad.reason, "holds a dict"));
}

static void test_mutants(void **state)
{
    (void)state;
    begin(0);
    for (unsigned i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "%08u", i);
        put(key, 8, jpeg, i % 8 == 0 ? jpeg_len : 200);
    }
    end();
    source_case_mutants(path, file, 0, 400);
}

static void test_own_dataset(void **state)
{
    (void)state;
    char index[340];
    write_one(jpeg, jpeg_len);
    snprintf(index, sizeof index, "%s/index.byol", path);
    source_case_write(index,
                         "\x89"
                         "BYOL\r\n\x1a\n",
                         8);
    source_reading_refused(path, STATUS_UNSUPPORTED, "a dataset of byol already");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_image_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_encoded_datum, setup, teardown),
        cmocka_unit_test_setup_teardown(test_raw_datum, setup, teardown),
        cmocka_unit_test_setup_teardown(test_datums_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pickles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pickles_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msgpack, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deep_tree, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_trees, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_tree_ends_the_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_value_is_a_bad_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_values_in_between, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mutants, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_dataset, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
