// Damaged datasets: every flipped bit is noticed, and so is every lie, also where checksums are
// good.
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/index.h"
#include "tests/support/program.h"
#include "tests/support/samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch scratch;
static char target[400];

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    snprintf(target, sizeof target, "%s/set", scratch.path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

// --- damage ------------------------------------------------------------------------------------

static void remove_tree(const char *path)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static void write_file(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void every_flipped_bit_of_the_index_is_noticed(void **state)
{
    (void)state;
    char path[500];
    snprintf(path, sizeof path, "%s/index.byol", target);
    samples_write_good(target, &sample_shards, 6);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(path, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        write_file(path, bytes, len);
        struct dataset *dataset;
        struct error error = {0};
        enum status status = dataset_open(&dataset, target, &error);
        assert_true(status == STATUS_CORRUPT || status == STATUS_VERSION ||
                    status == STATUS_TRUNCATED);
        assert_null(dataset);
        assert_string_equal(error.path, path);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++) {
        write_file(path, bytes, cut);
        struct dataset *dataset;
        assert_int_equal(dataset_open(&dataset, target, NULL), STATUS_TRUNCATED);
    }
    write_file(path, bytes, len);
    struct dataset *dataset = samples_open_good(target);
    dataset_close(&dataset);
    free(bytes);
}

// Every bit of an extent, and one in each byte of the rest of the file: see test_convert for
// `inspect --verify`, which reads whole files.
static void flipped_bits_of_a_record_are_noticed(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        samples_write_good(target, sample_configs[c], 6);
        struct dataset *dataset = samples_open_good(target);
        struct dataset_unpacker *unpacker;
        assert_int_equal(dataset_unpacker_open(&unpacker, dataset, NULL), STATUS_OK);
        for (unsigned i = 0; i < 6; i++) {
            struct dataset_record record = dataset_record(dataset, i);
            uint8_t *stored = malloc(record.stored_length);
            int fd = open(dataset_file_path(dataset, record.file), O_RDONLY);
            assert_int_equal(pread(fd, stored, record.stored_length, (off_t)record.offset),
                             record.stored_length);
            close(fd);
            const uint8_t *image;
            size_t len;
            for (size_t bit = 0; bit < 8 * (size_t)record.stored_length; bit++) {
                stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
                struct error error = {0};
                enum status status = dataset_unpack(unpacker, i, stored, &image, &len, &error);
                stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
                // A frame's header has one reserved bit that decoders ignore: the image is whole.
                if (status == STATUS_OK) {
                    assert_int_equal(crc32c(0, image, len), record.crc);
                    continue;
                }
                assert_int_equal(status, STATUS_CORRUPT);
                assert_int_equal(error.record, i);
                assert_int_equal(error.offset, record.offset);
            }
            assert_int_equal(dataset_unpack(unpacker, i, stored, &image, &len, NULL), STATUS_OK);
            free(stored);
        }
        dataset_unpacker_close(&unpacker);
        dataset_close(&dataset);
        remove_tree(target);
    }
}

static void short_long_and_missing_files_are_refused(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        samples_write_good(target, sample_configs[c], 10);
        struct dataset *dataset = samples_open_good(target);
        char path[500];
        snprintf(path, sizeof path, "%s", dataset_file_path(dataset, 0));
        uint64_t length = dataset_file_length(dataset, 0);
        dataset_close(&dataset);
        struct error error;
        assert_int_equal(truncate(path, (off_t)length - 1), 0);
        assert_int_equal(dataset_open(&dataset, target, &error), STATUS_TRUNCATED);
        assert_string_equal(error.path, path);
        assert_int_equal(truncate(path, (off_t)length + 1), 0);
        assert_int_equal(dataset_open(&dataset, target, &error), STATUS_CORRUPT);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(dataset_open(&dataset, target, &error), STATUS_NOT_FOUND);
        assert_string_equal(error.path, path);
        remove_tree(target);
        assert_int_equal(dataset_open(&dataset, target, &error), STATUS_NOT_FOUND);
    }
}

// --- lies with good checksums ------------------------------------------------------------------

struct lie {
    const char *what;
    size_t field; // of dataset_record; all 4 bytes wide but offset
    uint64_t value;
};
#define LIE(name, number)                                                                          \
    {                                                                                              \
#name " = " #number, offsetof(struct dataset_record, name), number                         \
    }

static const struct lie lies[] = {
    LIE(file, 1),
    LIE(file, UINT32_MAX),
    LIE(offset, 100000),
    LIE(offset, 5),
    LIE(offset, UINT64_MAX),
    LIE(offset, UINT64_MAX - 10),
    LIE(stored_length, 0),
    LIE(stored_length, 100001),
    LIE(stored_length, UINT32_MAX),
    LIE(length, 0),
    LIE(length, 5000),
    LIE(length, UINT32_MAX),
    LIE(inner_offset, 1),
    LIE(inner_offset, UINT32_MAX),
    LIE(frame_length, 0),
    LIE(frame_length, UINT32_MAX),
    LIE(label, 2),
    LIE(label, 0xfffffffe),
    LIE(width, 0),
    LIE(width, 65501),
    LIE(height, UINT32_MAX),
    LIE(coding, 2),
    LIE(coding, 255),
    LIE(kind, 0),
    LIE(kind, 3),
};

static const struct dataset_record honest = {.file = 0,
                                             .offset = 1000,
                                             .stored_length = 1000,
                                             .frame_length = 1000,
                                             .length = 1000,
                                             .label = 1,
                                             .width = 65500,
                                             .height = 1000,
                                             .coding = DATASET_CODING_RAW,
                                             .kind = IMAGE_PNG};

// Writes and reads an index of one file with 100000 bytes, two classes and two records, the first
// at 0 with 1000 bytes.
static enum status index_in(enum dataset_store store, const struct dataset_record *record,
                            const char *name, const char *file_name, const char *class_name)
{
    struct index_builder builder = {.store = store};
    struct index_file file = {.length = 100000};
    struct dataset_record first = honest;
    first.offset = 0;
    char path[500];
    snprintf(path, sizeof path, "%s/lying", scratch.path);
    assert_int_equal(index_builder_add_file(&builder, file_name, &file, NULL), STATUS_OK);
    assert_int_equal(index_builder_add_record(&builder, "first", &first, NULL), STATUS_OK);
    assert_int_equal(index_builder_add_record(&builder, name, record, NULL), STATUS_OK);
    assert_int_equal(index_builder_add_class(&builder, "a", NULL), STATUS_OK);
    assert_int_equal(index_builder_add_class(&builder, class_name, NULL), STATUS_OK);
    assert_int_equal(index_builder_set_provenance(&builder, "text", NULL), STATUS_OK);
    assert_int_equal(index_builder_write(&builder, path, NULL), STATUS_OK);
    index_builder_free(&builder);
    struct index index;
    enum status status = index_read(&index, path, NULL);
    index_free(&index);
    return status;
}

static enum status index_of(const struct dataset_record *record, const char *name,
                            const char *file_name, const char *class_name)
{
    return index_in(DATASET_LMDB, record, name, file_name, class_name);
}

static void lying_records_are_refused(void **state)
{
    (void)state;
    assert_int_equal(index_of(&honest, "n", "f", "c"), STATUS_OK);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct dataset_record record = honest;
        uint8_t *field = (uint8_t *)&record + lies[i].field;
        if (lies[i].field == offsetof(struct dataset_record, offset)) {
            memcpy(field, &lies[i].value, 8);
        } else {
            uint32_t value = (uint32_t)lies[i].value;
            memcpy(field, &value, 4);
        }
        if (index_of(&record, "n", "f", "c") != STATUS_CORRUPT) {
            fail_msg("not noticed: %s", lies[i].what);
        }
    }
}

static void frames_that_explode_are_refused(void **state)
{
    (void)state;
    struct dataset_record record = honest;
    record.coding = DATASET_CODING_ZSTD;
    record.frame_length = record.length = (1 << 20) - 1; // small enough to be harmless
    assert_int_equal(index_in(DATASET_SHARDS, &record, "n", "f", "c"), STATUS_OK);
    assert_int_equal(index_in(DATASET_LMDB, &record, "n", "f", "c"), STATUS_CORRUPT);
    record.frame_length = record.length = 2 << 20; // 2000 times what is stored
    assert_int_equal(index_in(DATASET_SHARDS, &record, "n", "f", "c"), STATUS_CORRUPT);
    record.frame_length = UINT32_MAX;
    assert_int_equal(index_in(DATASET_SHARDS, &record, "n", "f", "c"), STATUS_CORRUPT);
}

// Two records of one frame: what they must agree on, and that they may not overlap.
static enum status index_of_pair(struct dataset_record first, struct dataset_record second)
{
    struct index_builder builder = {.store = DATASET_SHARDS};
    struct index_file file = {.length = 100000};
    char path[500];
    snprintf(path, sizeof path, "%s/lying", scratch.path);
    assert_int_equal(index_builder_add_file(&builder, "f", &file, NULL), STATUS_OK);
    assert_int_equal(index_builder_add_record(&builder, "first", &first, NULL), STATUS_OK);
    assert_int_equal(index_builder_add_record(&builder, "second", &second, NULL), STATUS_OK);
    assert_int_equal(index_builder_add_class(&builder, "a", NULL), STATUS_OK);
    assert_int_equal(index_builder_add_class(&builder, "b", NULL), STATUS_OK);
    assert_int_equal(index_builder_set_provenance(&builder, "text", NULL), STATUS_OK);
    assert_int_equal(index_builder_write(&builder, path, NULL), STATUS_OK);
    index_builder_free(&builder);
    struct index index;
    enum status status = index_read(&index, path, NULL);
    index_free(&index);
    return status;
}

static void records_of_one_frame_must_agree(void **state)
{
    (void)state;
    struct dataset_record first = honest;
    first.coding = DATASET_CODING_ZSTD;
    first.frame_length = 4000;
    first.inner_offset = 512;
    struct dataset_record second = first;
    second.inner_offset = 1512;
    assert_int_equal(index_of_pair(first, second), STATUS_OK);
    assert_int_equal(index_of_pair(second, first), STATUS_OK); // in any order
    second.inner_offset = 1511;
    assert_int_equal(index_of_pair(first, second), STATUS_CORRUPT);
    assert_int_equal(index_of_pair(second, first), STATUS_CORRUPT);
    second.inner_offset = 1512;
    second.frame_length = 4001;
    assert_int_equal(index_of_pair(first, second), STATUS_CORRUPT);
    second.frame_length = 4000;
    second.stored_length = 1001;
    assert_int_equal(index_of_pair(first, second), STATUS_CORRUPT);
    second.stored_length = 1000;
    second.offset = 1001;
    assert_int_equal(index_of_pair(first, second), STATUS_CORRUPT);
    second.offset = 1000;
    second.frame_length = first.frame_length = LIMIT_FRAME_SHARED + 1; // too much for them to share
    assert_int_equal(index_of_pair(first, second), STATUS_CORRUPT);
}

// A header that is signed again after one of its fields was changed.
static enum status index_with(uint8_t *bytes, size_t len, size_t field, uint64_t value)
{
    char path[500];
    snprintf(path, sizeof path, "%s/index.byol", target);
    uint8_t before[8], crc[4], hash[8];
    memcpy(before, bytes + field, 8);
    memcpy(crc, bytes + INDEX_HEADER_CRC_AT, 4);
    memcpy(hash, bytes + len - 8, 8);
    index_store64(bytes + field, value);
    index_store32(bytes + INDEX_HEADER_CRC_AT, crc32c(0, bytes, INDEX_HEADER_CRC_AT));
    index_store64(bytes + len - 8, index_hash(0, bytes, len - INDEX_TRAILER_BYTES));
    write_file(path, bytes, len);
    memcpy(bytes + len - 8, hash, 8);
    memcpy(bytes + INDEX_HEADER_CRC_AT, crc, 4);
    memcpy(bytes + field, before, 8);
    struct dataset *dataset;
    enum status status = dataset_open(&dataset, target, NULL);
    dataset_close(&dataset);
    return status;
}

static void lying_headers_are_refused(void **state)
{
    (void)state;
    static const uint64_t values[] = {1,         7,          UINT32_MAX,     UINT64_C(1) << 33,
                                      INT64_MAX, UINT64_MAX, UINT64_MAX - 7, UINT64_C(1) << 40};
    samples_write_good(target, &sample_shards, 6);
    uint8_t *bytes;
    size_t len;
    char path[500];
    snprintf(path, sizeof path, "%s/index.byol", target);
    assert_int_equal(file_read_all(path, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    for (size_t section = 0; section < INDEX_SECTIONS; section++) {
        for (size_t field = 0; field < 24; field += 8) {
            size_t at = INDEX_TABLE_AT + INDEX_TABLE_ENTRY * section + field;
            assert_int_equal(index_with(bytes, len, at, index_load64(bytes + at)), STATUS_OK);
            for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                if (values[i] != index_load64(bytes + at)) {
                    enum status status = index_with(bytes, len, at, values[i]);
                    assert_true(status == STATUS_CORRUPT || status == STATUS_LIMIT);
                }
            }
            assert_int_equal(index_with(bytes, len, at, index_load64(bytes + at) + 1),
                             STATUS_CORRUPT);
        }
    }
    free(bytes);
}

static void extents_may_lie_in_any_order_but_not_overlap(void **state)
{
    (void)state;
    struct dataset_record record = honest;
    static const uint64_t good[] = {1000, 1001, 99000}, bad[] = {0, 1, 999, 99001};
    for (size_t i = 0; i < 3; i++) {
        record.offset = good[i];
        assert_int_equal(index_of(&record, "n", "f", "c"), STATUS_OK);
    }
    for (size_t i = 0; i < 4; i++) {
        record.offset = bad[i];
        assert_int_equal(index_of(&record, "n", "f", "c"), STATUS_CORRUPT);
    }
}

static void names_with_traps_are_refused(void **state)
{
    (void)state;
    static const char *const bad_names[] = {
        "",   "/etc/x", "../x", "a/../x",   "a/..",      "..",           "a//b",
        "a/", "./a",    "a\nb", "\xff\xfe", "a\xc0\xaf", "\xed\xa0\x80", "a\x7f"};
    for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++) {
        assert_int_equal(index_of(&honest, bad_names[i], "f", "c"), STATUS_CORRUPT);
        struct dataset_packer *packer;
        struct dataset_packed packed = {0};
        struct dataset_item item = {
            .name = bad_names[i], .bytes = "x", .len = 1, .info = {IMAGE_JPEG, 1, 1, 3, false}};
        assert_int_equal(dataset_packer_open(&packer, DATASET_SHARDS, NULL), STATUS_OK);
        assert_int_equal(dataset_pack(packer, &item, &packed, NULL), STATUS_INVALID);
        dataset_packed_free(&packed);
        dataset_packer_close(&packer);
    }
    assert_int_equal(index_of(&honest, "a..b/...c", "f", "c"), STATUS_OK);
    assert_int_equal(index_of(&honest, "n", "../f", "c"), STATUS_CORRUPT);
    assert_int_equal(index_of(&honest, "n", ".f", "c"), STATUS_CORRUPT);
    assert_int_equal(index_of(&honest, "n", "d/f", "c"), STATUS_CORRUPT);
    assert_int_equal(index_of(&honest, "n", "f", "c/d"), STATUS_CORRUPT);
    char name[LIMIT_NAME_BYTES + 2];
    memset(name, 'x', sizeof name);
    name[LIMIT_NAME_BYTES] = '\0';
    assert_int_equal(index_of(&honest, name, "f", "c"), STATUS_OK);
    name[LIMIT_NAME_BYTES] = 'x';
    name[LIMIT_NAME_BYTES + 1] = '\0';
    assert_int_equal(index_of(&honest, name, "f", "c"), STATUS_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_flipped_bit_of_the_index_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(flipped_bits_of_a_record_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(short_long_and_missing_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(lying_records_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(lying_headers_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(extents_may_lie_in_any_order_but_not_overlap, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(names_with_traps_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_that_explode_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(records_of_one_frame_must_agree, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
