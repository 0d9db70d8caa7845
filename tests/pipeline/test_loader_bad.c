// Bad records, failing disks: what ends a stream, what is replaced and counted, and that both are
// decided by the order alone.
#include "formats/limits.h"
#include "pipeline/loader.h"
#include "pipeline/order.h"
#include "tests/support/faulty_reader.h"
#include "tests/support/sample_dataset.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 41, BATCH = 4, SIZE = 8 };

// One damaged dataset in both stores.
struct damaged {
    struct sample_dataset sample;
    struct dataset *dataset[2];
    bool bad[RECORDS];
    uint32_t bad_count;
};

static void damaged_make(struct damaged *damaged, uint64_t bad_image)
{
    *damaged = (struct damaged){0};
    sample_dataset_make(&damaged->sample, RECORDS, bad_image);
    for (int store = 0; store < 2; store++) {
        damaged->dataset[store] = sample_dataset_open(&damaged->sample, (enum dataset_store)store);
    }
    if (bad_image != NOWHERE) {
        damaged->bad[bad_image] = true;
        damaged->bad_count++;
    }
    alarm(120);
}

static void damaged_flip(struct damaged *damaged, uint64_t record)
{
    sample_dataset_flip(damaged->dataset[0], record);
    sample_dataset_flip(damaged->dataset[1], record);
    damaged->bad[record] = true;
    damaged->bad_count++;
}

static void damaged_remove(struct damaged *damaged)
{
    dataset_close(&damaged->dataset[0]);
    dataset_close(&damaged->dataset[1]);
    sample_dataset_remove(&damaged->sample);
}

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

static uint64_t sum_of_stream(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader = open_loader(dataset, config);
    const struct batch *batch;
    uint64_t sum = 1;
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        size_t values = (size_t)batch->count * SIZE * SIZE * 3;
        for (int view = 0; view < 2; view++) {
            for (size_t i = 0; i < values; i++) {
                uint32_t bits;
                memcpy(&bits, &batch->view[view][i], sizeof bits);
                sum = (sum ^ bits) * UINT64_C(0x100000001b3);
            }
        }
        loader_release(loader, batch);
    }
    loader_close(&loader);
    return sum;
}

static int remove_faults(void **state)
{
    (void)state;
    faulty_reader_remove();
    return 0;
}

static void test_passing_faults_change_nothing(void **state)
{
    (void)state;
    struct damaged damaged;
    damaged_make(&damaged, NOWHERE);
    damaged_flip(&damaged, 9);
    struct loader_config config = base_config(LOADER_SKIP);
    uint64_t expected = sum_of_stream(damaged.dataset[0], &config);
    config.cache = 0; // which would leave few reads to fail
    for (unsigned round = 0; round < 6; round++) {
        const struct faulty_reader_plan plan = {.seed = round,
                                                .eio = 20,
                                                .eagain = 20,
                                                .eintr = 100,
                                                .shortened = 300,
                                                .late = 400,
                                                .slow = 200};
        faulty_reader_install(&plan);
        config.io = round % 2 ? LOADER_IO_AUTO : LOADER_IO_PREAD;
        config.depth = round < 2 ? 1 : 16;
        config.workers = 1 + round % 3;
        assert_int_equal(sum_of_stream(damaged.dataset[round / 2 % 2], &config), expected);
        assert_true(faulty_reader_faults() > 10);
    }
    damaged_remove(&damaged);
}

// A disk that cannot read a place is no bad record: nothing is skipped.
static void check_bad_sector(enum loader_policy policy, enum loader_io io, int errnum)
{
    struct damaged damaged;
    damaged_make(&damaged, NOWHERE);
    const struct dataset *dataset = damaged.dataset[DATASET_SHARDS];
    struct dataset_record where = dataset_record(dataset, 18);
    const struct faulty_reader_plan plan = {.bad_file = where.file,
                                            .bad_offset = where.offset + 3,
                                            .bad_errnum = errnum,
                                            .shortened = 100};
    faulty_reader_install(&plan);
    struct loader_config config = base_config(policy);
    config.shuffle = false;
    config.io = io;
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
    damaged_remove(&damaged);
}

static void test_a_failing_disk_is_always_fatal(void **state)
{
    (void)state;
    check_bad_sector(LOADER_FATAL, LOADER_IO_AUTO, EIO);
    check_bad_sector(LOADER_SKIP, LOADER_IO_AUTO, EIO);
    check_bad_sector(LOADER_SKIP, LOADER_IO_PREAD, EIO);
    check_bad_sector(LOADER_SKIP, LOADER_IO_PREAD, ESTALE);
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
        cmocka_unit_test_teardown(test_passing_faults_change_nothing, remove_faults),
        cmocka_unit_test_teardown(test_a_failing_disk_is_always_fatal, remove_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
