// Datasets: what is written comes back, other programs can read it, and failures destroy
// nothing. Damage: test_dataset_damage.c.
#include "formats/crc32c.h"
#include "formats/dataset.h"
#include "formats/file.h"
#include "formats/index.h"
#include "formats/jpeg/recode.h"
#include "formats/limits.h"
#include "formats/store.h"
#include "formats/tar.h"
#include "tests/support/mutate.h"
#include "tests/support/program.h"
#include "tests/support/samples.h"

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
#include <zstd.h>

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

#define COUNT 60

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

static void write_file(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
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
        samples_write_good(target, sample_configs[c], COUNT);
        struct dataset *dataset = samples_open_good(target);
        assert_int_equal(dataset_store(dataset), sample_configs[c]->store);
        assert_int_equal(dataset_count(dataset), COUNT);
        assert_int_equal(dataset_class_count(dataset), 3);
        assert_string_equal(dataset_class_name(dataset, 1), sample_classes[1]);
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
    samples_write_good(target, &sample_lmdb, COUNT);
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
    struct dataset *dataset = samples_open_good(target);
    dataset_close(&dataset);
}

static void shards_open_with_zstd_and_tar(void **state)
{
    (void)state;
    if (system("command -v zstd tar >/dev/null 2>&1") != 0) {
        printf("skipped: the programs zstd and tar are not installed\n");
        skip();
    }
    samples_write_good(target, &sample_shards, COUNT);
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
    samples_write_good(target, &sample_shards, COUNT);
    struct dataset *dataset = samples_open_good(target);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(dataset_file_path(dataset, 0), 1 << 24, &bytes, &len, NULL),
                     STATUS_OK);
    assert_int_equal(index_load32(bytes + len - 4), 0x8f92eab1);
    uint32_t frames = index_load32(bytes + len - 9);
    size_t table = 12 * (size_t)frames + 9, at = 0;
    assert_int_equal(index_load32(bytes + len - table - 8), 0x184d2a5e);
    assert_int_equal(index_load32(bytes + len - table - 4), table);
    uint64_t number = 0; // of the next record
    for (uint32_t i = 0; i < frames; i++) {
        const uint8_t *entry = bytes + len - table + 12 * (size_t)i;
        struct dataset_record record = {0};
        uint64_t before = number;
        while (number < COUNT && (record = dataset_record(dataset, number)).file == 0 &&
               record.offset == at) {
            assert_int_equal(record.stored_length, index_load32(entry));
            assert_int_equal(record.frame_length, index_load32(entry + 4));
            number++;
        }
        assert_int_equal(number > before, i + 1 < frames); // the last one ends the tar
        at += index_load32(entry);
    }
    assert_int_equal(at, len - table - 8);
    free(bytes);
    dataset_close(&dataset);
}

struct gathered {
    uint8_t *bytes;
    size_t len;
};

static enum status gather(void *context, const void *bytes, size_t len, struct error *error)
{
    (void)error;
    struct gathered *gathered = context;
    memcpy(gathered->bytes + gathered->len, bytes, len);
    gathered->len += len;
    return STATUS_OK;
}

// A frame made of raw blocks: libzstd unpacks it to the tar's member, and knows its window.
static void check_frame(struct dataset_packer *packer, const char *name, const uint8_t *bytes,
                        size_t len)
{
    struct dataset_packed packed = {0};
    const struct dataset_item item = {
        .name = name, .bytes = bytes, .len = len, .info = {IMAGE_JPEG, 1, 1, 3, false}};
    assert_int_equal(dataset_pack(packer, &item, &packed, NULL), STATUS_OK);
    assert_false(packed.member);
    struct gathered frame = {.bytes = malloc(len + 2 * TAR_HEAD_BYTES)};
    assert_int_equal(shard_frame_pieces(&item, &packed, gather, &frame, NULL), STATUS_OK);
    assert_int_equal(frame.len, packed.record.stored_length);
    assert_true(frame.len < len + strlen(name) + 400);
    assert_int_equal(crc32c(0, frame.bytes, frame.len), packed.stored_crc);
    assert_int_equal(crc32c(0, bytes, len), packed.record.crc);

    uint8_t head[TAR_HEAD_BYTES];
    size_t head_len = tar_head(head, name, len), whole = head_len + len + tar_padding(len);
    uint8_t *content = malloc(whole);
    ZSTD_DCtx *zstd = ZSTD_createDCtx();
    ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, 17);
    ZSTD_inBuffer in = {.src = frame.bytes, .size = frame.len};
    ZSTD_outBuffer out = {.dst = content, .size = whole};
    size_t left = 1;
    while (left > 0 && in.pos < in.size) {
        left = ZSTD_decompressStream(zstd, &out, &in);
        assert_false(ZSTD_isError(left));
    }
    assert_int_equal(left, 0);
    assert_int_equal(in.pos, in.size);
    assert_int_equal(out.pos, whole);
    assert_int_equal(packed.record.frame_length, whole);
    assert_int_equal(packed.record.inner_offset, head_len);
    assert_memory_equal(content, head, head_len);
    assert_memory_equal(content + head_len, bytes, len);
    for (size_t i = head_len + len; i < whole; i++) {
        assert_int_equal(content[i], 0);
    }
    ZSTD_freeDCtx(zstd);
    free(content);
    free(frame.bytes);
    dataset_packed_free(&packed);
}

static void frames_of_raw_blocks_are_zstd(void **state)
{
    (void)state;
    static const size_t lengths[] = {8192,   8193,   8704,       130559,     131071,        131072,
                                     131073, 131584, 2 * 131072, 3 * 131072, 3 * 131072 + 7};
    static uint8_t bytes[3 * 131072 + 7];
    uint64_t random = 5;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)mutate_next(&random);
    }
    char name[LIMIT_NAME_BYTES + 1];
    struct dataset_packer *packer;
    assert_int_equal(dataset_packer_open(&packer, DATASET_SHARDS, NULL), STATUS_OK);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        check_frame(packer, "a/b.jpg", bytes, lengths[i]);
        memset(name, 'n', sizeof name);
        for (size_t len = LIMIT_NAME_BYTES; len > 60; len /= 3) {
            name[len] = '\0';
            check_frame(packer, name, bytes, lengths[i]);
        }
    }
    dataset_packer_close(&packer);
}

// Version of the index, frames of the first shard, and how many records share one with another.
static void count_sharing(uint32_t frame_bytes, uint32_t *version, uint32_t *shared)
{
    struct dataset_writer_config config = sample_shards;
    config.frame_bytes = frame_bytes;
    samples_write_good(target, &config, COUNT);
    struct dataset *dataset = samples_open_good(target);
    *shared = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        check_record(dataset, i);
        struct dataset_record record = dataset_record(dataset, i);
        assert_true(record.frame_length <= (frame_bytes > 8192 ? frame_bytes : 8192) ||
                    record.frame_length - record.length <= LIMIT_FRAME_OVERHEAD);
        if (i > 0) {
            struct dataset_record last = dataset_record(dataset, i - 1);
            *shared += last.file == record.file && last.offset == record.offset;
        }
    }
    dataset_close(&dataset);
    char path[500];
    uint8_t *bytes;
    size_t len;
    snprintf(path, sizeof path, "%s/index.byol", target);
    assert_int_equal(file_read_all(path, 1 << 24, &bytes, &len, NULL), STATUS_OK);
    *version = index_load32(bytes + 8);
    free(bytes);
    remove_tree(target);
}

static void small_images_share_frames(void **state)
{
    (void)state;
    uint32_t version, alone, some, many;
    count_sharing(1, &version, &alone);
    assert_int_equal(alone, 0);
    assert_int_equal(version, 1); // as programs that know no shared frames wrote it
    count_sharing(0, &version, &some);
    assert_true(some > 0);
    assert_int_equal(version, 2);
    count_sharing(65536, &version, &many);
    assert_true(many > some);
}

static void same_items_give_the_same_bytes(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        samples_write_good(target, sample_configs[c], COUNT);
        mallopt(M_PERTURB, 0x5a); // fresh memory now holds other bytes
        samples_write_good(other, sample_configs[c], COUNT);
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
    assert_int_equal(dataset_writer_open(&writer, target, &sample_lmdb, &error), STATUS_OK);
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
    struct dataset *dataset = samples_open_good(target);
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

// --- writing and failing -----------------------------------------------------------------------

static void existing_targets_are_kept(void **state)
{
    (void)state;
    struct error error;
    samples_write_good(target, &sample_lmdb, 5);
    assert_int_equal(samples_write(target, &sample_shards, 6, &error), STATUS_EXISTS);
    struct dataset *dataset = samples_open_good(target);
    assert_int_equal(dataset_count(dataset), 5);
    dataset_close(&dataset);

    struct dataset_writer_config replacing = sample_shards;
    replacing.replace = true;
    assert_int_equal(samples_write(target, &replacing, 6, &error), STATUS_OK);
    dataset = samples_open_good(target);
    assert_int_equal(dataset_count(dataset), 6);
    assert_int_equal(dataset_store(dataset), DATASET_SHARDS);
    dataset_close(&dataset);
    snprintf(other, sizeof other, "%s.partial", target);
    assert_false(file_exists(other));

    remove_tree(target);
    assert_int_equal(mkdir(target, 0755), 0);
    assert_int_equal(samples_write(target, &replacing, 6, &error), STATUS_EXISTS);
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
    samples_write_good(target, &sample_shards, 5);
    samples_write_good(other, &sample_shards, 5);
    assert_true(same_trees(target, other));
    assert_false(file_exists(partial));

    remove_tree(target);
    assert_int_equal(mkdir(partial, 0755), 0);
    snprintf(path, sizeof path, "%s/thesis.tex", partial);
    write_file(path, "half", 4);
    assert_int_equal(samples_write(target, &sample_shards, 5, &error), STATUS_EXISTS);
    assert_true(file_exists(path));
}

static void second_writer_is_turned_away(void **state)
{
    (void)state;
    struct dataset_writer *first, *second;
    struct error error;
    assert_int_equal(dataset_writer_open(&first, target, &sample_lmdb, &error), STATUS_OK);
    assert_int_equal(dataset_writer_open(&second, target, &sample_lmdb, &error), STATUS_DENIED);
    assert_null(second);
    struct sample sample;
    sample_make(&sample, 20);
    struct dataset_item item = sample_item(&sample, 20);
    assert_int_equal(dataset_writer_add(first, &item, &error), STATUS_OK);
    free(sample.bytes);
    assert_int_equal(dataset_writer_commit(&first, sample_classes, 3, &error), STATUS_OK);
    struct dataset *dataset = samples_open_good(target);
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
    assert_int_equal(dataset_writer_open(&writer, target, &sample_lmdb, &error), STATUS_OK);
    assert_int_equal(dataset_writer_commit(&writer, NULL, 0, &error), STATUS_INVALID);
    dataset_writer_abort(&writer);
    assert_int_equal(dataset_writer_open(&writer, target, &sample_lmdb, &error), STATUS_OK);
    assert_int_equal(dataset_writer_add(writer, &item, &error), STATUS_OK);
    assert_int_equal(dataset_writer_add(writer, &item, &error), STATUS_INVALID);
    assert_non_null(strstr(error.reason, "unique"));
    dataset_writer_abort(&writer);
    assert_int_equal(dataset_writer_open(&writer, target, &sample_lmdb, &error), STATUS_OK);
    assert_int_equal(dataset_writer_add(writer, &item, &error), STATUS_OK);
    assert_int_equal(dataset_writer_commit(&writer, sample_classes, 1, &error), STATUS_INVALID);
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
            enum status status = samples_write(target, sample_configs[c % 2], 30, &error);
            file_fault = NULL;
            assert_false(file_exists(partial));
            if (status != STATUS_OK) {
                assert_int_equal(status, failing_errno == EIO ? STATUS_IO : STATUS_NO_SPACE);
            }
            // Making a directory that exists may fail without harm, and the last call syncs the
            // parent, when the dataset is whole already.
            if (file_exists(target)) {
                struct dataset *dataset = samples_open_good(target);
                dataset_close(&dataset);
                remove_tree(target);
            }
        } while (calls >= failing_call);
        assert_in_range(failing_call, 8, 100);
    }
}

// Written by the first release of the format; they must open for ever, or be refused by version.
static void datasets_of_version_1_open(void **state)
{
    (void)state;
    static const char *const directories[] = {"tests/data/dataset-1-lmdb",
                                              "tests/data/dataset-1-shards"};
    for (int i = 0; i < 2; i++) {
        struct dataset *dataset = samples_open_good(directories[i]);
        assert_int_equal(dataset_count(dataset), 10);
        assert_int_equal(dataset_class_count(dataset), 10);
        struct image_decoder *decoder;
        struct image image = {0};
        assert_int_equal(image_decoder_open(&decoder, NULL), STATUS_OK);
        for (uint64_t record = 0; record < 10; record++) {
            uint8_t *bytes;
            size_t len;
            assert_int_equal(dataset_read(dataset, record, &bytes, &len, NULL), STATUS_OK);
            assert_int_equal(image_decode(decoder, bytes, len, NULL, &image, NULL), STATUS_OK);
            assert_int_equal(image.width, 24);
            free(bytes);
        }
        image_free(&image);
        image_decoder_close(&decoder);
        dataset_close(&dataset);
    }
}

// The first to hold recoded JPEGs and frames that records share.
static void a_dataset_of_version_2_opens(void **state)
{
    (void)state;
    struct dataset *dataset = samples_open_good("tests/data/dataset-2-shards");
    struct image_decoder *decoder;
    struct image image = {0}, again = {0};
    assert_int_equal(image_decoder_open(&decoder, NULL), STATUS_OK);
    assert_int_equal(dataset_count(dataset), 4);
    assert_int_equal(dataset_record(dataset, 2).offset, dataset_record(dataset, 3).offset);
    for (uint64_t record = 0; record < 4; record++) {
        uint8_t *bytes, *jpeg;
        size_t len, jpeg_len;
        bool exact;
        size_t side = record < 2 ? 176 : 64;
        assert_int_equal(dataset_record(dataset, record).kind, IMAGE_RECODED);
        assert_int_equal(dataset_read(dataset, record, &bytes, &len, NULL), STATUS_OK);
        assert_int_equal(image_decode(decoder, bytes, len, NULL, &image, NULL), STATUS_OK);
        assert_int_equal(image.width, side);
        assert_int_equal(recode_restore(bytes, len, &exact, &jpeg, &jpeg_len, NULL), STATUS_OK);
        assert_true(exact);
        assert_int_equal(image_decode(decoder, jpeg, jpeg_len, NULL, &again, NULL), STATUS_OK);
        assert_memory_equal(image.pixels, again.pixels, 3 * side * side);
        free(jpeg);
        free(bytes);
    }
    image_free(&image);
    image_free(&again);
    image_decoder_close(&decoder);
    dataset_close(&dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(lmdb_opens_with_liblmdb, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_open_with_zstd_and_tar, setup, teardown),
        cmocka_unit_test_setup_teardown(small_images_share_frames, setup, teardown),
        cmocka_unit_test(frames_of_raw_blocks_are_zstd),
        cmocka_unit_test_setup_teardown(shards_end_with_a_seek_table, setup, teardown),
        cmocka_unit_test_setup_teardown(datasets_of_version_1_open, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dataset_of_version_2_opens, setup, teardown),
        cmocka_unit_test_setup_teardown(same_items_give_the_same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(large_lmdb_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(existing_targets_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(remains_are_cleared_but_not_a_persons_files, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(second_writer_is_turned_away, setup, teardown),
        cmocka_unit_test_setup_teardown(twins_strays_and_nothing_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(every_failing_call_destroys_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
