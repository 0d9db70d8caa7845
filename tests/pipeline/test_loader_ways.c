// However records come in, the stream is the same: stores with frames shared or not, records kept
// in memory or not, page cache or not, neighbours read together or not, few threads or many.
#include "pipeline/loader.h"
#include "pipeline/order.h"
#include "tests/support/faulty_reader.h"
#include "tests/support/sample_dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 61, BATCH = 7, SIZE = 8, EPOCHS = 3 };
enum { LMDB, ALONE, GROUPED, FORMS };

static struct sample_dataset sample;
static struct dataset *forms[FORMS];

static int make_datasets(void **state)
{
    (void)state;
    sample_dataset_make(&sample, RECORDS, NOWHERE);
    forms[LMDB] = sample_dataset_open(&sample, DATASET_LMDB);
    forms[ALONE] = sample_dataset_open(&sample, DATASET_SHARDS);
    forms[GROUPED] = sample_dataset_open_grouped(&sample);
    alarm(300); // a loader that hangs kills the suite
    return 0;
}

static int remove_datasets(void **state)
{
    (void)state;
    for (int form = 0; form < FORMS; form++) {
        dataset_close(&forms[form]);
    }
    sample_dataset_remove(&sample);
    return 0;
}

static struct loader_config base_config(void)
{
    struct loader_config config;
    loader_config_init(&config);
    config.recipe.size = SIZE;
    config.batch = BATCH;
    config.seed = 3;
    config.epochs = EPOCHS;
    config.workers = 2;
    config.keep_last = true;
    return config;
}

static struct loader *open_loader(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader;
    struct error error;
    enum status status = loader_open(&loader, dataset, config, &error);
    if (status == STATUS_UNSUPPORTED) {
        printf("skipped: %s\n", error.reason);
        skip();
    }
    if (status != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
    return loader;
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t len)
{
    const uint8_t *byte = bytes;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

// Hashes the rest of the stream, or `most` batches of it.
static uint64_t stream(struct loader *loader, uint64_t hash, uint64_t most)
{
    const struct batch *batch;
    enum status status = STATUS_OK;
    while (most-- > 0 && (status = loader_next(loader, &batch, NULL)) == STATUS_OK) {
        for (int view = 0; view < 2; view++) {
            hash = mix(hash, batch->view[view],
                       (size_t)batch->count * SIZE * SIZE * 3 * sizeof(float));
        }
        hash = mix(hash, batch->records, batch->count * sizeof *batch->records);
        hash = mix(hash, batch->labels, batch->count * sizeof *batch->labels);
        loader_release(loader, batch);
    }
    assert_true(status == STATUS_OK || status == STATUS_END);
    return hash;
}

static uint64_t hash_of(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader = open_loader(dataset, config);
    uint64_t hash = stream(loader, 1, UINT64_MAX);
    loader_close(&loader);
    return hash;
}

static const uint32_t workers[] = {1, 2, 3, 7, 16}, depths[] = {1, 4, 64};
static const uint64_t caches[] = {0, 10000, UINT64_C(96) << 20};

// Every form, cache, way of reading and number of threads; depths and slots take turns.
static void check_every_way(enum loader_io io)
{
    struct loader_config config = base_config();
    config.io = LOADER_IO_PREAD;
    config.cache = 0;
    const uint64_t expected = hash_of(forms[LMDB], &config);
    config.io = io;
    unsigned turn = 0;
    for (int way = 0; way < FORMS * 3 * 2 * 5; way++, turn++) {
        int form = way % FORMS;
        config.cache = caches[way / FORMS % 3];
        config.direct = way / FORMS / 3 % 2;
        config.workers = workers[way / FORMS / 3 / 2];
        config.depth = depths[turn % 3 == 0 ? turn / 3 % 3 : turn % 3];
        config.slots = 2 + turn % 3;
        if (hash_of(forms[form], &config) != expected) {
            fail_msg("form %d, cache %llu, direct %d, %u workers, depth %u: another stream", form,
                     (unsigned long long)config.cache, config.direct, config.workers, config.depth);
        }
    }
}

static void test_uring_gives_one_stream(void **state)
{
    (void)state;
    check_every_way(LOADER_IO_URING);
}

static void test_pread_gives_one_stream(void **state)
{
    (void)state;
    check_every_way(LOADER_IO_PREAD);
}

static int remove_faults(void **state)
{
    (void)state;
    faulty_reader_remove();
    return 0;
}

// Reads that serve many records fail too; then each record is read by itself.
static void test_faults_change_nothing(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    config.io = LOADER_IO_PREAD;
    const uint64_t expected = hash_of(forms[LMDB], &config);
    for (unsigned round = 0; round < 18; round++) {
        const struct faulty_reader_plan plan = {
            .seed = round, .eio = 50, .eagain = 20, .eintr = 100, .shortened = 300, .late = 300};
        faulty_reader_install(&plan);
        config.io = round % 2 ? LOADER_IO_AUTO : LOADER_IO_PREAD;
        config.direct = round / 2 % 2;
        config.cache = caches[round % 3];
        config.depth = depths[round / 3 % 3];
        assert_int_equal(hash_of(forms[round / 6], &config), expected);
    }
}

static void test_stopping_and_going_on_is_the_same_stream(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    const uint64_t expected = hash_of(forms[GROUPED], &config);
    const uint64_t per_epoch = (RECORDS + BATCH - 1) / BATCH;
    for (uint64_t at = 1; at < EPOCHS * per_epoch; at += 4) {
        struct loader *loader = open_loader(forms[GROUPED], &config);
        uint64_t hash = stream(loader, 1, at);
        loader_close(&loader);
        struct loader_config rest = config;
        rest.start =
            (struct loader_position){.epoch = (uint32_t)(at / per_epoch), .batch = at % per_epoch};
        rest.cache = caches[at % 3];
        rest.direct = at % 2;
        loader = open_loader(forms[at % FORMS], &rest);
        assert_int_equal(stream(loader, hash, UINT64_MAX), expected);
        loader_close(&loader);
    }
}

static void test_every_record_comes_once_an_epoch(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    struct loader *loader = open_loader(forms[GROUPED], &config);
    const struct batch *batch;
    unsigned seen[RECORDS] = {0};
    bool in_order = true;
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        for (uint32_t i = 0; i < batch->count; i++) {
            seen[batch->records[i]]++;
            in_order = in_order && (i == 0 || batch->records[i] > batch->records[i - 1]);
        }
        loader_release(loader, batch);
    }
    for (int record = 0; record < RECORDS; record++) {
        assert_int_equal(seen[record], EPOCHS);
    }
    assert_false(in_order); // frames do not keep their records together
    loader_close(&loader);
}

static struct loader_counters counters_after(const struct dataset *dataset,
                                             const struct loader_config *config)
{
    struct loader *loader = open_loader(dataset, config);
    stream(loader, 1, UINT64_MAX);
    struct loader_counters counters = loader_counters(loader);
    loader_close(&loader);
    return counters;
}

static uint64_t stored_bytes(const struct dataset *dataset)
{
    uint64_t bytes = 0;
    for (uint32_t file = 0; file < dataset_file_count(dataset); file++) {
        bytes += dataset_file_length(dataset, file);
    }
    return bytes;
}

static void test_what_is_kept_is_read_once(void **state)
{
    (void)state;
    for (int form = 0; form < FORMS; form++) {
        struct loader_config config = base_config();
        struct loader_counters counters = counters_after(forms[form], &config);
        assert_int_equal(counters.kept, EPOCHS * RECORDS);
        assert_true(counters.read_bytes <= stored_bytes(forms[form]));
        assert_true(counters.reads <= RECORDS / 4);
        config.cache = 0;
        counters = counters_after(forms[form], &config);
        assert_int_equal(counters.kept, 0);
        assert_true(counters.read_bytes > stored_bytes(forms[form]));
    }
}

static void test_neighbours_are_read_together(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    config.cache = 0;
    config.shuffle = false;
    struct loader_counters counters = counters_after(forms[ALONE], &config);
    assert_int_equal(counters.reads + counters.shared, EPOCHS * RECORDS);
    assert_true(counters.shared > counters.reads);
    config.depth = 1; // nobody to be read with
    counters = counters_after(forms[ALONE], &config);
    assert_int_equal(counters.reads, EPOCHS * RECORDS);
    assert_int_equal(counters.shared, 0);
}

static void test_direct_is_told(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    struct loader *loader = open_loader(forms[LMDB], &config);
    assert_false(loader_direct_used(loader));
    loader_close(&loader);
    config.direct = true;
    loader = open_loader(forms[LMDB], &config);
    if (!loader_direct_used(loader)) {
        printf("not tested: this file system refuses O_DIRECT\n");
    }
    loader_close(&loader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uring_gives_one_stream),
        cmocka_unit_test(test_pread_gives_one_stream),
        cmocka_unit_test_teardown(test_faults_change_nothing, remove_faults),
        cmocka_unit_test(test_stopping_and_going_on_is_the_same_stream),
        cmocka_unit_test(test_every_record_comes_once_an_epoch),
        cmocka_unit_test(test_what_is_kept_is_read_once),
        cmocka_unit_test(test_neighbours_are_read_together),
        cmocka_unit_test(test_direct_is_told),
    };
    return cmocka_run_group_tests(tests, make_datasets, remove_datasets);
}
