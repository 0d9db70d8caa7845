// Datasets: what is written comes back, other programs can read it, damage and lies are noticed,
// and failures destroy nothing.
#include "formats/crc32c.h"
#include "formats/dataset.h"
#include "formats/file.h"
#include "formats/index.h"
#include "formats/limits.h"
#include "tests/support/mutate.h"
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <malloc.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch scratch;
static char target[400], other[420];

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    snprintf(target, sizeof target, "%s/set", scratch.path);
    snprintf(other, sizeof other, "%s/other", scratch.path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    file_fault = NULL;
    scratch_remove(&scratch);
    return 0;
}

// --- items -------------------------------------------------------------------------------------

#define COUNT   60
#define LONGEST 150000

static const char *const class_names[] = {"apple", "b\xc3\xa4r", "c"};

struct sample {
    char name[LIMIT_NAME_BYTES + 1];
    uint8_t *bytes;
    size_t len;
    int32_t label;
};

// Sizes on both sides of every edge: of a tar block, of LMDB's inline values, of a page.
static size_t sample_length(unsigned number)
{
    static const size_t edges[] = {1, 2, 511, 512, 513, 2000, 2020, 2040, 2100, 4079, 4080, 4081};
    size_t edge_count = sizeof edges / sizeof *edges;
    return number < edge_count ? edges[number] : 1 + number * 2503 % LONGEST;
}

static void sample_make(struct sample *sample, unsigned number)
{
    uint64_t random = number + 1;
    sample->len = sample_length(number);
    sample->bytes = malloc(sample->len);
    for (size_t i = 0; i < sample->len; i++) {
        sample->bytes[i] = (uint8_t)mutate_next(&random);
    }
    sample->label = (int32_t)(number % 4) - 1;
    const char *folder = sample->label < 0 ? "unlabelled" : class_names[sample->label];
    snprintf(sample->name, sizeof sample->name, "%s/%04u.jpg", folder, number);
    if (number % 10 == 3) { // needs a pax header
        memset(sample->name, 'n', 250);
        snprintf(sample->name + 250, 100, "/%04u.jpg", number);
    }
    if (number % 10 == 7) { // needs ustar's second field
        memset(sample->name, 'n', 140);
        snprintf(sample->name + 140, 100, "/p/%080u.jpg", number);
    }
}

static struct dataset_item sample_item(const struct sample *sample, unsigned number)
{
    return (struct dataset_item){
        .name = sample->name,
        .bytes = sample->bytes,
        .len = sample->len,
        .label = sample->label,
        .info = {.kind = IMAGE_JPEG, .width = 10 + number, .height = 5, .components = 3}};
}

static enum status write_samples(const char *directory, const struct dataset_writer_config *config,
                                 unsigned count, struct error *error)
{
    struct dataset_writer *writer;
    enum status status = dataset_writer_open(&writer, directory, config, error);
    for (unsigned i = 0; i < count && status == STATUS_OK; i++) {
        struct sample sample;
        sample_make(&sample, i);
        struct dataset_item item = sample_item(&sample, i);
        status = dataset_writer_add(writer, &item, error);
        free(sample.bytes);
    }
    if (status == STATUS_OK) {
        status = dataset_writer_commit(&writer, class_names, 3, error);
    }
    dataset_writer_abort(&writer);
    return status;
}

static const struct dataset_writer_config lmdb_config = {.store = DATASET_LMDB,
                                                         .provenance = "made by a test\n"};
static const struct dataset_writer_config shard_config = {
    .store = DATASET_SHARDS, .shard_bytes = 1000000, .provenance = "made by a test\n"};
static const struct dataset_writer_config *const configs[] = {&lmdb_config, &shard_config};

static void write_good(const char *directory, const struct dataset_writer_config *config,
                       unsigned count)
{
    struct error error;
    if (write_samples(directory, config, count, &error) != STATUS_OK) {
        char text[1200];
        fail_msg("%s", error_text(&error, text, sizeof text));
    }
}

static struct dataset *open_good(const char *directory)
{
    struct dataset *dataset;
    struct error error;
    if (dataset_open(&dataset, directory, &error) != STATUS_OK) {
        char text[1200];
        fail_msg("%s", error_text(&error, text, sizeof text));
    }
    return dataset;
}

static void remove_tree(const char *path)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static bool same_trees(const char *left, const char *right)
{
    char command[1000];
    snprintf(command, sizeof command, "diff -r '%s' '%s'", left, right);
    return system(command) == 0;
}

// --- coming back -------------------------------------------------------------------------------

static void check_record(const struct dataset *dataset, unsigned number)
{
    struct sample sample;
    sample_make(&sample, number);
    struct dataset_record record = dataset_record(dataset, number);
    assert_string_equal(dataset_record_name(dataset, number), sample.name);
    assert_int_equal(record.label, sample.label);
    assert_int_equal(record.length, sample.len);
    assert_int_equal(record.width, 10 + number);
    assert_int_equal(record.height, 5);
    assert_int_equal(record.kind, IMAGE_JPEG);
    assert_int_equal(record.crc, crc32c(0, sample.bytes, sample.len));
    assert_true(record.stored_length <= dataset_max_stored_length(dataset));
    assert_true(record.frame_length <= dataset_max_frame_length(dataset));
    uint8_t *bytes;
    size_t len;
    assert_int_equal(dataset_read(dataset, number, &bytes, &len, NULL), STATUS_OK);
    assert_int_equal(len, sample.len);
    assert_memory_equal(bytes, sample.bytes, len);
    free(bytes);
    free(sample.bytes);
}

static void what_is_written_comes_back(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        write_good(target, configs[c], COUNT);
        struct dataset *dataset = open_good(target);
        assert_int_equal(dataset_store(dataset), configs[c]->store);
        assert_int_equal(dataset_count(dataset), COUNT);
        assert_int_equal(dataset_class_count(dataset), 3);
        assert_string_equal(dataset_class_name(dataset, 1), class_names[1]);
        assert_string_equal(dataset_provenance(dataset), "made by a test\n");
        assert_string_equal(dataset_directory(dataset), target);
        assert_int_equal(dataset_max_pixels(dataset), (10 + COUNT - 1) * 5);
        if (c == 1) {
            assert_in_range(dataset_file_count(dataset), 3, 10);
        } else {
            assert_int_equal(dataset_file_count(dataset), 1);
        }
        for (unsigned i = 0; i < COUNT; i++) {
            check_record(dataset, i);
        }
        uint8_t *bytes;
        size_t len;
        assert_int_equal(dataset_read(dataset, COUNT, &bytes, &len, NULL), STATUS_INVALID);
        dataset_close(&dataset);
        remove_tree(target);
    }
}

static void lmdb_opens_with_liblmdb(void **state)
{
    (void)state;
    write_good(target, &lmdb_config, COUNT);
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_stat about;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, target, MDB_RDONLY, 0), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_stat(txn, dbi, &about), 0);
    assert_int_equal(about.ms_entries, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        struct sample sample;
        sample_make(&sample, i);
        char digits[16];
        snprintf(digits, sizeof digits, "%010u", i);
        MDB_val key = {.mv_size = 10, .mv_data = digits}, value;
        assert_int_equal(mdb_get(txn, dbi, &key, &value), 0);
        assert_int_equal(value.mv_size, sample.len);
        assert_memory_equal(value.mv_data, sample.bytes, sample.len);
        free(sample.bytes);
    }
    mdb_txn_abort(txn);
    mdb_env_close(env);
    // The lock file that a reader leaves does no harm.
    struct dataset *dataset = open_good(target);
    dataset_close(&dataset);
}

static void shards_open_with_zstd_and_tar(void **state)
{
    (void)state;
    if (system("command -v zstd tar >/dev/null 2>&1") != 0) {
        printf("skipped: the programs zstd and tar are not installed\n");
        skip();
    }
    write_good(target, &shard_config, COUNT);
    char command[5000];
    snprintf(command, sizeof command,
             "cd '%s' && zstd -tq shard-*.tar.zst && mkdir x && for s in shard-*; do "
             "zstd -dcq $s | tar xf - -C x && zstd -dcq $s | tar tf - >>list || exit 1; done",
             target);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s/list", target);
    uint8_t *list;
    size_t len;
    assert_int_equal(file_read_all(command, 1 << 20, &list, &len, NULL), STATUS_OK);
    assert_non_null(strstr((char *)list, "apple/0001.jpg\n"));
    free(list);
    for (unsigned i = 0; i < COUNT; i++) {
        struct sample sample;
        sample_make(&sample, i);
        snprintf(command, sizeof command, "%s/x/%s", target, sample.name);
        uint8_t *bytes;
        assert_int_equal(file_read_all(command, 1 << 20, &bytes, &len, NULL), STATUS_OK);
        assert_int_equal(len, sample.len);
        assert_memory_equal(bytes, sample.bytes, len);
        free(bytes);
        free(sample.bytes);
    }
}

// The zstd seekable format: frames of the lengths the table tells, which together fill the file.
static void shards_end_with_a_seek_table(void **state)
{
    (void)state;
    write_good(target, &shard_config, COUNT);
    struct dataset *dataset = open_good(target);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(dataset_file_path(dataset, 0), 1 << 24, &bytes, &len, NULL),
                     STATUS_OK);
    assert_int_equal(index_load32(bytes + len - 4), 0x8f92eab1);
    uint32_t frames = index_load32(bytes + len - 9);
    size_t table = 12 * (size_t)frames + 9, at = 0;
    assert_int_equal(index_load32(bytes + len - table - 8), 0x184d2a5e);
    assert_int_equal(index_load32(bytes + len - table - 4), table);
    for (uint32_t i = 0; i < frames; i++) {
        const uint8_t *entry = bytes + len - table + 12 * (size_t)i;
        if (i + 1 < frames) { // the last one ends the tar
            struct dataset_record record = dataset_record(dataset, i);
            assert_int_equal(record.offset, at);
            assert_int_equal(record.stored_length, index_load32(entry));
            assert_int_equal(record.frame_length, index_load32(entry + 4));
        }
        at += index_load32(entry);
    }
    assert_int_equal(at, len - table - 8);
    free(bytes);
    dataset_close(&dataset);
}

static void same_items_give_the_same_bytes(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        write_good(target, configs[c], COUNT);
        mallopt(M_PERTURB, 0x5a); // fresh memory now holds other bytes
        write_good(other, configs[c], COUNT);
        mallopt(M_PERTURB, 0);
        assert_true(same_trees(target, other));
        remove_tree(target);
        remove_tree(other);
    }
}

// Many transactions and a map that has to grow.
static void large_lmdb_comes_back(void **state)
{
    (void)state;
    struct dataset_writer *writer;
    struct error error;
    assert_int_equal(dataset_writer_open(&writer, target, &lmdb_config, &error), STATUS_OK);
    size_t len = 3 << 20;
    uint8_t *bytes = calloc(1, len);
    for (unsigned i = 0; i < 60; i++) {
        char name[32];
        snprintf(name, sizeof name, "%u.jpg", i);
        bytes[i * 1000] = (uint8_t)i;
        struct dataset_item item = {.name = name,
                                    .bytes = bytes,
                                    .len = i % 3 ? len : 700,
                                    .label = DATASET_NO_LABEL,
                                    .info = {IMAGE_PNG, 1, 1, 3, false}};
        assert_int_equal(dataset_writer_add(writer, &item, &error), STATUS_OK);
    }
    assert_int_equal(dataset_writer_commit(&writer, NULL, 0, &error), STATUS_OK);
    assert_null(writer);
    struct dataset *dataset = open_good(target);
    assert_int_equal(dataset_class_count(dataset), 0);
    memset(bytes, 0, len);
    for (unsigned i = 0; i < 60; i++) {
        uint8_t *read;
        size_t read_len;
        bytes[i * 1000] = (uint8_t)i;
        assert_int_equal(dataset_read(dataset, i, &read, &read_len, &error), STATUS_OK);
        assert_int_equal(read_len, i % 3 ? len : 700);
        assert_memory_equal(read, bytes, read_len);
        free(read);
    }
    free(bytes);
    dataset_close(&dataset);
}

// --- damage ------------------------------------------------------------------------------------

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
    write_good(target, &shard_config, 6);
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
    struct dataset *dataset = open_good(target);
    dataset_close(&dataset);
    free(bytes);
}

// Every bit of an extent, and one in each byte of the rest of the file: see test_convert for
// `inspect --verify`, which reads whole files.
static void flipped_bits_of_a_record_are_noticed(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        write_good(target, configs[c], 6);
        struct dataset *dataset = open_good(target);
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
        write_good(target, configs[c], 10);
        struct dataset *dataset = open_good(target);
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
static enum status index_of(const struct dataset_record *record, const char *name,
                            const char *file_name, const char *class_name)
{
    struct index_builder builder = {.store = DATASET_LMDB};
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

// --- writing and failing -----------------------------------------------------------------------

static void existing_targets_are_kept(void **state)
{
    (void)state;
    struct error error;
    write_good(target, &lmdb_config, 5);
    assert_int_equal(write_samples(target, &shard_config, 6, &error), STATUS_EXISTS);
    struct dataset *dataset = open_good(target);
    assert_int_equal(dataset_count(dataset), 5);
    dataset_close(&dataset);

    struct dataset_writer_config replacing = shard_config;
    replacing.replace = true;
    assert_int_equal(write_samples(target, &replacing, 6, &error), STATUS_OK);
    dataset = open_good(target);
    assert_int_equal(dataset_count(dataset), 6);
    assert_int_equal(dataset_store(dataset), DATASET_SHARDS);
    dataset_close(&dataset);
    snprintf(other, sizeof other, "%s.partial", target);
    assert_false(file_exists(other));

    remove_tree(target);
    assert_int_equal(mkdir(target, 0755), 0);
    assert_int_equal(write_samples(target, &replacing, 6, &error), STATUS_EXISTS);
    assert_int_equal(rmdir(target), 0); // still there, still empty
}

static void remains_are_cleared_but_not_a_persons_files(void **state)
{
    (void)state;
    char partial[450], path[500];
    struct error error;
    snprintf(partial, sizeof partial, "%s.partial", target);
    assert_int_equal(mkdir(partial, 0755), 0);
    snprintf(path, sizeof path, "%s/shard-00007.tar.zst", partial);
    write_file(path, "half", 4);
    snprintf(path, sizeof path, "%s/index.byol.tmp-1", partial);
    write_file(path, "half", 4);
    write_good(target, &shard_config, 5);
    write_good(other, &shard_config, 5);
    assert_true(same_trees(target, other));
    assert_false(file_exists(partial));

    remove_tree(target);
    assert_int_equal(mkdir(partial, 0755), 0);
    snprintf(path, sizeof path, "%s/thesis.tex", partial);
    write_file(path, "half", 4);
    assert_int_equal(write_samples(target, &shard_config, 5, &error), STATUS_EXISTS);
    assert_true(file_exists(path));
}

static void second_writer_is_turned_away(void **state)
{
    (void)state;
    struct dataset_writer *first, *second;
    struct error error;
    assert_int_equal(dataset_writer_open(&first, target, &lmdb_config, &error), STATUS_OK);
    assert_int_equal(dataset_writer_open(&second, target, &lmdb_config, &error), STATUS_DENIED);
    assert_null(second);
    struct sample sample;
    sample_make(&sample, 20);
    struct dataset_item item = sample_item(&sample, 20);
    assert_int_equal(dataset_writer_add(first, &item, &error), STATUS_OK);
    free(sample.bytes);
    assert_int_equal(dataset_writer_commit(&first, class_names, 3, &error), STATUS_OK);
    struct dataset *dataset = open_good(target);
    dataset_close(&dataset);
}

static void twins_strays_and_nothing_are_refused(void **state)
{
    (void)state;
    struct dataset_writer *writer;
    struct error error;
    struct sample sample;
    sample_make(&sample, 2);
    struct dataset_item item = sample_item(&sample, 2);
    assert_int_equal(dataset_writer_open(&writer, target, &lmdb_config, &error), STATUS_OK);
    assert_int_equal(dataset_writer_commit(&writer, NULL, 0, &error), STATUS_INVALID);
    dataset_writer_abort(&writer);
    assert_int_equal(dataset_writer_open(&writer, target, &lmdb_config, &error), STATUS_OK);
    assert_int_equal(dataset_writer_add(writer, &item, &error), STATUS_OK);
    assert_int_equal(dataset_writer_add(writer, &item, &error), STATUS_INVALID);
    assert_non_null(strstr(error.reason, "unique"));
    dataset_writer_abort(&writer);
    assert_int_equal(dataset_writer_open(&writer, target, &lmdb_config, &error), STATUS_OK);
    assert_int_equal(dataset_writer_add(writer, &item, &error), STATUS_OK);
    assert_int_equal(dataset_writer_commit(&writer, class_names, 1, &error), STATUS_INVALID);
    dataset_writer_abort(&writer);
    assert_false(file_exists(target));
    free(sample.bytes);
}

static unsigned calls, failing_call;
static int failing_errno;

static int fail_the_nth(const char *call, const char *path)
{
    (void)call;
    (void)path;
    return ++calls == failing_call ? failing_errno : 0;
}

// Each call that changes the disk fails once: a clear status, nothing half-written under the name,
// nothing left beside it, and the next attempt succeeds.
static void every_failing_call_destroys_nothing(void **state)
{
    (void)state;
    static const int errnums[] = {ENOSPC, EIO};
    char partial[450];
    snprintf(partial, sizeof partial, "%s.partial", target);
    for (int c = 0; c < 4; c++) {
        failing_errno = errnums[c / 2];
        failing_call = 0;
        do {
            failing_call++;
            calls = 0;
            file_fault = fail_the_nth;
            struct error error;
            enum status status = write_samples(target, configs[c % 2], 30, &error);
            file_fault = NULL;
            assert_false(file_exists(partial));
            if (status != STATUS_OK) {
                assert_int_equal(status, failing_errno == EIO ? STATUS_IO : STATUS_NO_SPACE);
            }
            // Making a directory that exists may fail without harm, and the last call syncs the
            // parent, when the dataset is whole already.
            if (file_exists(target)) {
                struct dataset *dataset = open_good(target);
                dataset_close(&dataset);
                remove_tree(target);
            }
        } while (calls >= failing_call);
        assert_in_range(failing_call, 8, 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(lmdb_opens_with_liblmdb, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_open_with_zstd_and_tar, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_end_with_a_seek_table, setup, teardown),
        cmocka_unit_test_setup_teardown(same_items_give_the_same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(large_lmdb_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(every_flipped_bit_of_the_index_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(flipped_bits_of_a_record_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(short_long_and_missing_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(lying_records_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(extents_may_lie_in_any_order_but_not_overlap, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(names_with_traps_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(existing_targets_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(remains_are_cleared_but_not_a_persons_files, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(second_writer_is_turned_away, setup, teardown),
        cmocka_unit_test_setup_teardown(twins_strays_and_nothing_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(every_failing_call_destroys_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
