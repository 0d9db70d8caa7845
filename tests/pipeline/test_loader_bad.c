// Bad records, failing disks: what ends a stream, what is replaced and counted, and that both are
// decided by the order alone.
#include "formats/limits.h"
#include "pipeline/loader.h"
#include "pipeline/order.h"
#include "tests/support/damaged_dataset.h"
#include "tests/support/faulty_reader.h"
#include "tests/support/watchdog.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = DAMAGED_RECORDS, BATCH = 4, SIZE = 8 };

static struct loader_config base_config(enum loader_policy policy)
{
    struct loader_config config;
    loader_config_init(&config);
    config.recipe.size = SIZE;
    config.batch = BATCH;
    config.seed = 5;
    config.epochs = 2;
    config.workers = 3;
    config.depth = 16;
    config.policy = policy;
    return config;
}

static struct loader *open_loader(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader;
    struct error error;
    watchdog_set("policy %d, depth %u, workers %u", config->policy, config->depth, config->workers);
    if (loader_open(&loader, dataset, config, &error) != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
    return loader;
}

// The record that stands at a position of the epoch when bad ones make way.
static uint64_t good_record(const struct damaged *damaged, const struct order *order,
                            uint64_t position)
{
    while (damaged->bad[order_at(order, position % RECORDS)]) {
        position++;
    }
    return order_at(order, position % RECORDS);
}

// Streams everything under the skip policy and checks records, labels and the list of skips.
static void check_skipping(const struct damaged *damaged, enum dataset_store store,
                           const struct loader_config *config)
{
    struct loader *loader = open_loader(damaged->dataset[store], config);
    const struct batch *batch;
    uint64_t expected[RECORDS];
    bool seen[RECORDS] = {false};
    size_t skipped = 0;
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        struct order order;
        order_init(&order, RECORDS, config->seed, batch->position.epoch, true);
        for (uint32_t i = 0; i < batch->count; i++) {
            uint64_t position = batch->position.batch * BATCH + i;
            uint64_t own = order_at(&order, position);
            assert_int_equal(batch->records[i], good_record(damaged, &order, position));
            assert_int_equal(batch->labels[i], batch->records[i] % SAMPLE_CLASSES);
            if (damaged->bad[own] && !seen[own]) {
                seen[own] = true;
                expected[skipped++] = own;
            }
        }
        assert_int_equal(loader_counters(loader).skips, skipped);
        loader_release(loader, batch);
    }
    struct loader_skip skips[RECORDS];
    assert_int_equal(loader_skips(loader, skips, RECORDS), skipped);
    for (size_t i = 0; i < skipped; i++) {
        assert_int_equal(skips[i].record, expected[i]);
        assert_int_equal(skips[i].error.record, expected[i]);
        assert_true(skips[i].error.offset != NOWHERE);
        assert_non_null(strstr(skips[i].error.path, damaged->sample.scratch.path));
        assert_true(strlen(skips[i].error.reason) > 5);
    }
    assert_int_equal(loader_skips(loader, NULL, 0), skipped);
    loader_close(&loader);
}

static void test_bad_records_make_way_for_the_next_of_the_order(void **state)
{
    (void)state;
    struct damaged damaged;
    damaged_make(&damaged, 17); // a JPEG cut short, with a checksum that holds
    struct loader_config config = base_config(LOADER_SKIP);
    config.max_skips = RECORDS;
    for (uint64_t record = 0; record < RECORDS; record += 6) {
        damaged_flip(&damaged, record);
        for (config.workers = 1; config.workers <= 5; config.workers += 2) {
            check_skipping(&damaged, DATASET_LMDB, &config);
            check_skipping(&damaged, DATASET_SHARDS, &config);
        }
    }
    config.depth = 1;
    config.slots = 2;
    check_skipping(&damaged, DATASET_SHARDS, &config);
    // Nearly all: one good record fills every place.
    for (uint64_t record = 0; record < RECORDS; record++) {
        if (record != 31 && !damaged.bad[record]) {
            damaged_flip(&damaged, record);
        }
    }
    config.workers = 3;
    check_skipping(&damaged, DATASET_LMDB, &config);
    damaged_remove(&damaged);
}

// Runs to the end of the stream; returns how many batches came before, with why it ended.
static uint64_t run_out(struct loader *loader, struct error *why)
{
    const struct batch *batch;
    uint64_t batches = 0;
    while (loader_next(loader, &batch, why) == STATUS_OK) {
        batches++;
        loader_release(loader, batch);
    }
    assert_null(batch);
    struct error again;
    assert_int_equal(loader_next(loader, &batch, &again), why->status);
    assert_string_equal(again.reason, why->reason);
    assert_int_equal(again.record, why->record);
    return batches;
}

static void test_all_bad_ends_the_stream(void **state)
{
    (void)state;
    struct damaged damaged;
    damaged_make(&damaged, NOWHERE);
    for (uint64_t record = 0; record < RECORDS; record++) {
        damaged_flip(&damaged, record);
    }
    struct loader_config config = base_config(LOADER_SKIP);
    config.max_skips = RECORDS;
    struct loader *loader = open_loader(damaged.dataset[DATASET_SHARDS], &config);
    struct error why;
    assert_int_equal(run_out(loader, &why), 0);
    assert_int_equal(why.status, STATUS_CORRUPT);
    loader_close(&loader);
    damaged_remove(&damaged);
}

// The cap is passed at the same batch, with the same words, at any number of workers.
static void test_the_cap_ends_the_stream_where_it_is_passed(void **state)
{
    (void)state;
    struct damaged damaged;
    damaged_make(&damaged, NOWHERE);
    for (uint64_t record = 0; record < RECORDS; record += 4) {
        damaged_flip(&damaged, record);
    }
    for (uint64_t cap = 1; cap <= damaged.bad_count; cap += 3) {
        struct order order;
        struct loader_config config = base_config(LOADER_SKIP);
        config.max_skips = cap;
        config.epochs = 1;
        config.keep_last = true;
        order_init(&order, RECORDS, config.seed, 0, true);
        uint64_t met = 0, position = 0;
        for (; position < RECORDS && met <= cap; position++) {
            met += damaged.bad[order_at(&order, position)];
        }
        for (config.workers = 1; config.workers <= 7; config.workers += 3) {
            struct loader *loader = open_loader(damaged.dataset[DATASET_LMDB], &config);
            struct error why;
            uint64_t batches = run_out(loader, &why);
            assert_int_equal(batches, (position - 1) / BATCH);
            assert_int_equal(why.status, STATUS_CORRUPT);
            assert_int_equal(why.record, order_at(&order, position - 1));
            assert_non_null(strstr(why.reason, "bad records"));
            loader_close(&loader);
        }
    }
    damaged_remove(&damaged);
}

static void test_the_default_cap_is_sixteen_for_small_datasets(void **state)
{
    (void)state;
    struct damaged damaged;
    damaged_make(&damaged, NOWHERE);
    for (uint64_t record = 0; record < 16; record++) {
        damaged_flip(&damaged, record * 2);
    }
    struct loader_config config = base_config(LOADER_SKIP);
    config.keep_last = true;
    struct loader *loader = open_loader(damaged.dataset[DATASET_SHARDS], &config);
    struct error why;
    run_out(loader, &why);
    assert_int_equal(why.status, STATUS_END); // each counted once, though met in both epochs
    assert_int_equal(loader_counters(loader).skips, 16);
    loader_close(&loader);
    damaged_flip(&damaged, 1);
    loader = open_loader(damaged.dataset[DATASET_SHARDS], &config);
    run_out(loader, &why);
    assert_int_equal(why.status, STATUS_CORRUPT);
    assert_int_equal(loader_counters(loader).skips, 16);
    loader_close(&loader);
    damaged_remove(&damaged);
}

static void check_fatal(const struct damaged *damaged, enum dataset_store store, uint64_t first_bad,
                        enum status expected)
{
    struct loader_config config = base_config(LOADER_FATAL);
    config.shuffle = false;
    for (config.workers = 1; config.workers <= 7; config.workers += 2) {
        struct loader *loader = open_loader(damaged->dataset[store], &config);
        struct error why;
        assert_int_equal(run_out(loader, &why), first_bad / BATCH);
        struct dataset_record where = dataset_record(damaged->dataset[store], first_bad);
        assert_int_equal(why.status, expected);
        assert_int_equal(why.record, first_bad);
        assert_true(why.offset >= where.offset && why.offset <= where.offset + where.stored_length);
        assert_string_equal(why.path, dataset_file_path(damaged->dataset[store], where.file));
        assert_int_equal(loader_counters(loader).skips, 0);
        loader_close(&loader);
    }
}

static void test_fatal_names_the_first_bad_record_after_all_batches_before(void **state)
{
    (void)state;
    struct damaged damaged;
    damaged_make(&damaged, NOWHERE);
    damaged_flip(&damaged, 14);
    damaged_flip(&damaged, 13); // the same batch
    damaged_flip(&damaged, 16);
    check_fatal(&damaged, DATASET_LMDB, 13, STATUS_CORRUPT);
    check_fatal(&damaged, DATASET_SHARDS, 13, STATUS_CORRUPT);
    damaged_remove(&damaged);
    damaged_make(&damaged, 22);
    check_fatal(&damaged, DATASET_LMDB, 22, STATUS_TRUNCATED);
    check_fatal(&damaged, DATASET_SHARDS, 22, STATUS_TRUNCATED);
    damaged_remove(&damaged);
}

// The file lost its end after the dataset was opened.
static void test_a_file_cut_short_is_bad_records(void **state)
{
    (void)state;
    struct damaged damaged;
    damaged_make(&damaged, NOWHERE);
    for (int store = 0; store < 2; store++) {
        const struct dataset *dataset = damaged.dataset[store];
        sample_dataset_cut(dataset, 20);
        struct dataset_record cut = dataset_record(dataset, 20);
        uint64_t first = RECORDS;
        uint32_t lost = 0;
        for (uint64_t record = 0; record < RECORDS; record++) {
            struct dataset_record where = dataset_record(dataset, record);
            damaged.bad[record] = where.file == cut.file && where.offset >= cut.offset;
            lost += damaged.bad[record];
            first = damaged.bad[record] && first == RECORDS ? record : first;
        }
        assert_true(lost >= 1);
        check_fatal(&damaged, (enum dataset_store)store, first, STATUS_TRUNCATED);
        struct loader_config config = base_config(LOADER_SKIP);
        config.max_skips = lost;
        check_skipping(&damaged, (enum dataset_store)store, &config);
    }
    damaged_remove(&damaged);
}

static int remove_faults(void **state)
{
    (void)state;
    faulty_reader_remove();
    return 0;
}

// A disk that cannot read a place is no bad record: nothing is skipped. Other faults in between
// change neither which record is named nor what comes before it.
static void check_bad_sector(const struct damaged *damaged, struct loader_config config, int errnum)
{
    const struct dataset *dataset = damaged->dataset[DATASET_SHARDS];
    struct dataset_record where = dataset_record(dataset, 18);
    const struct faulty_reader_plan plan = {.seed = config.workers,
                                            .bad_file = where.file,
                                            .bad_offset = where.offset + 3,
                                            .bad_errnum = errnum,
                                            .eio = 30,
                                            .eintr = 50,
                                            .shortened = 100,
                                            .late = 100};
    faulty_reader_install(&plan);
    struct loader *loader = open_loader(dataset, &config);
    struct error why;
    assert_int_equal(run_out(loader, &why), 18 / BATCH);
    assert_int_equal(why.status, STATUS_IO);
    assert_int_equal(why.record, 18);
    assert_string_equal(why.path, dataset_file_path(dataset, where.file));
    assert_true(why.offset >= where.offset && why.offset <= where.offset + 3);
    assert_non_null(strstr(why.reason, strerror(errnum)));
    assert_int_equal(loader_counters(loader).skips, 0);
    loader_close(&loader);
}

static void test_a_failing_disk_is_always_fatal(void **state)
{
    (void)state;
    struct damaged damaged;
    damaged_make(&damaged, NOWHERE);
    for (uint32_t workers = 1; workers <= 7; workers += 2) {
        for (int way = 0; way < 8; way++) {
            struct loader_config config = base_config(way & 1 ? LOADER_SKIP : LOADER_FATAL);
            config.shuffle = false;
            config.io = way & 2 ? LOADER_IO_PREAD : LOADER_IO_AUTO;
            config.depth = way & 4 ? 64 : 1;
            config.workers = workers;
            check_bad_sector(&damaged, config, workers == 5 ? ESTALE : EIO);
        }
    }
    damaged_remove(&damaged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_records_make_way_for_the_next_of_the_order),
        cmocka_unit_test(test_all_bad_ends_the_stream),
        cmocka_unit_test(test_the_cap_ends_the_stream_where_it_is_passed),
        cmocka_unit_test(test_the_default_cap_is_sixteen_for_small_datasets),
        cmocka_unit_test(test_fatal_names_the_first_bad_record_after_all_batches_before),
        cmocka_unit_test(test_a_file_cut_short_is_bad_records),
        cmocka_unit_test_teardown(test_a_failing_disk_is_always_fatal, remove_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
