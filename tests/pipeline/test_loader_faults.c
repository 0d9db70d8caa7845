// Reads that fail, come short, late, out of order or wrong, in every mixture: the stream is the
// same, or ends with an error that names the place; it never hangs and never shows a wrong pixel.
#include "pipeline/loader.h"
#include "pipeline/order.h"
#include "tests/support/batch_hash.h"
#include "tests/support/damaged_dataset.h"
#include "tests/support/faulty_reader.h"
#include "tests/support/mutate.h"
#include "tests/support/watchdog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RECORDS = DAMAGED_RECORDS, BATCH = 4, SIZE = 8, EPOCHS = 2, BATCHES = 22, MOST_WORKERS = 7 };

static struct damaged damaged;              // record 9 is bad
static uint64_t expected[EPOCHS * RECORDS]; // hash of each record's views in each epoch

static struct loader_config base_config(enum loader_policy policy)
{
    struct loader_config config;
    loader_config_init(&config);
    config.recipe.size = SIZE;
    config.batch = BATCH;
    config.seed = 5;
    config.epochs = EPOCHS;
    config.keep_last = true; // so that every good record is seen
    config.policy = policy;
    config.max_skips = RECORDS;
    config.cache = 0;
    return config;
}

static struct loader *open_loader(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader;
    struct error error;
    watchdog_set("io %d, depth %u, workers %u, policy %d", config->io, config->depth,
                 config->workers, config->policy);
    if (loader_open(&loader, dataset, config, &error) != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
    return loader;
}

static uint64_t *expected_of(const struct batch *batch, uint32_t index)
{
    return &expected[batch->position.epoch * RECORDS + batch->records[index]];
}

static int make_dataset(void **state)
{
    (void)state;
    damaged_make(&damaged, NOWHERE);
    damaged_flip(&damaged, 9);
    struct loader_config config = base_config(LOADER_SKIP);
    struct loader *loader = open_loader(damaged.dataset[0], &config);
    const struct batch *batch;
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        for (uint32_t i = 0; i < batch->count; i++) {
            *expected_of(batch, i) = batch_hash_record(1, batch, i);
        }
        loader_release(loader, batch);
    }
    loader_close(&loader);
    return 0;
}

static int remove_dataset(void **state)
{
    (void)state;
    damaged_remove(&damaged);
    return 0;
}

static int remove_faults(void **state)
{
    (void)state;
    faulty_reader_remove();
    watchdog_off();
    return 0;
}

// --- mixtures ----------------------------------------------------------------------------------

static uint32_t draw(uint64_t *random, uint32_t below)
{
    return (uint32_t)(mutate_next(random) % below);
}

// 1 to 10 %, or none.
static unsigned share(uint64_t *random)
{
    return draw(random, 3) ? 10 + draw(random, 91) : 0;
}

static struct faulty_reader_plan mixture(uint64_t *random)
{
    return (struct faulty_reader_plan){.seed = mutate_next(random),
                                       .eio = share(random),
                                       .eagain = share(random) / 4, // each costs a millisecond
                                       .eintr = share(random),
                                       .shortened = share(random),
                                       .late = share(random),
                                       .slow = share(random)};
}

// Every combination of I/O path, depth, store and number of workers, in turn.
static const struct dataset *set_way(struct loader_config *config, unsigned round)
{
    config->io = round & 1 ? LOADER_IO_PREAD : LOADER_IO_AUTO;
    config->depth = round & 2 ? 64 : 1;
    config->workers = 1 + round / 8 % MOST_WORKERS;
    config->slots = 2 + round % 3;
    config->cache = round % 5 ? 0 : 1 << 20; // which leaves few reads to fail
    return damaged.dataset[round / 4 & 1];
}

enum { WAYS = 8 * MOST_WORKERS };

static void assert_right_pixels(const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        assert_false(damaged.bad[batch->records[i]]);
        assert_int_equal(batch_hash_record(1, batch, i), *expected_of(batch, i));
    }
}

static uint64_t hash_of_stream(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader = open_loader(dataset, config);
    const struct batch *batch;
    struct error why;
    uint64_t hash = 1;
    enum status status;
    while ((status = loader_next(loader, &batch, &why)) == STATUS_OK) {
        hash = batch_hash(hash, batch);
        loader_release(loader, batch);
    }
    if (status != STATUS_END) {
        fail_msg("%s", why.reason);
    }
    assert_int_equal(loader_counters(loader).skips, 1);
    loader_close(&loader);
    return hash;
}

static void test_passing_faults_give_the_same_hash(void **state)
{
    (void)state;
    struct loader_config config = base_config(LOADER_SKIP);
    const uint64_t undisturbed = hash_of_stream(damaged.dataset[0], &config);
    uint64_t random = 1, faults = 0;
    for (unsigned round = 0; round < 2 * WAYS; round++) {
        const struct faulty_reader_plan plan = mixture(&random);
        faulty_reader_install(&plan);
        const struct dataset *dataset = set_way(&config, round);
        assert_int_equal(hash_of_stream(dataset, &config), undisturbed);
        faults += faulty_reader_faults();
    }
    assert_true(faults > 10 * WAYS);
}

// --- wrong bytes -------------------------------------------------------------------------------

static void assert_names_a_record(const struct dataset *dataset, const struct error *why)
{
    assert_int_equal(why->status, STATUS_CORRUPT);
    assert_true(why->record < RECORDS);
    struct dataset_record where = dataset_record(dataset, why->record);
    assert_string_equal(why->path, dataset_file_path(dataset, where.file));
    assert_in_range(why->offset, where.offset, where.offset + where.stored_length);
    assert_true(strlen(why->reason) > 10);
}

static void test_flipped_bits_end_the_stream_with_the_records_name(void **state)
{
    (void)state;
    struct loader_config config = base_config(LOADER_FATAL);
    uint64_t random = 2;
    for (unsigned round = 0; round < WAYS; round++) {
        struct faulty_reader_plan plan = mixture(&random);
        plan.flipped = 10 + draw(&random, 91);
        faulty_reader_install(&plan);
        const struct dataset *dataset = set_way(&config, round);
        struct loader *loader = open_loader(dataset, &config);
        const struct batch *batch;
        struct error why;
        while (loader_next(loader, &batch, &why) == STATUS_OK) {
            assert_right_pixels(batch);
            loader_release(loader, batch);
        }
        assert_names_a_record(dataset, &why); // record 9 at the latest
        loader_close(&loader);
    }
}

// The place of a record that was read wrong goes to the next good one of the order; everything
// delivered is right, and the list tells each record that was met, once.
static void check_skipping_flips(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader = open_loader(dataset, config);
    const struct batch *batch;
    struct error why;
    struct loader_skip skips[RECORDS];
    bool listed[RECORDS] = {false};
    size_t batches = 0;
    while (loader_next(loader, &batch, &why) == STATUS_OK) {
        assert_right_pixels(batch);
        loader_release(loader, batch);
        batches++;
    }
    assert_int_equal(why.status, STATUS_END);
    assert_int_equal(batches, BATCHES);
    size_t count = loader_skips(loader, skips, RECORDS);
    assert_int_equal(loader_counters(loader).skips, count);
    for (size_t i = 0; i < count; i++) {
        assert_names_a_record(dataset, &skips[i].error);
        assert_false(listed[skips[i].record]);
        listed[skips[i].record] = true;
    }
    assert_true(listed[9]);
    loader_close(&loader);
}

static void test_flipped_bits_are_skipped_and_listed(void **state)
{
    (void)state;
    struct loader_config config = base_config(LOADER_SKIP);
    uint64_t random = 3;
    for (unsigned round = 0; round < WAYS; round++) {
        struct faulty_reader_plan plan = mixture(&random);
        plan.flipped = 10 + draw(&random, 91);
        faulty_reader_install(&plan);
        const struct dataset *dataset = set_way(&config, round);
        check_skipping_flips(dataset, &config);
    }
}

// --- the skip policy, from one bad record to all -----------------------------------------------

static uint64_t good_record(const struct damaged *set, const struct order *order, uint64_t position)
{
    while (set->bad[order_at(order, position % RECORDS)]) {
        position++;
    }
    return order_at(order, position % RECORDS);
}

// Streams from `start`; the hash of each batch is compared with `hashes`, or put there.
static void stream_skipping(const struct damaged *set, const struct loader_config *config,
                            uint64_t hashes[BATCHES], bool compare)
{
    const uint64_t per_epoch = BATCHES / EPOCHS;
    struct loader *loader = open_loader(set->dataset[config->workers & 1], config);
    const struct batch *batch;
    bool seen[RECORDS] = {false};
    size_t skips = 0;
    uint64_t number = config->start.epoch * per_epoch + config->start.batch;
    for (; loader_next(loader, &batch, NULL) == STATUS_OK; number++) {
        struct order order;
        order_init(&order, RECORDS, config->seed, batch->position.epoch, true);
        for (uint32_t i = 0; i < batch->count; i++) {
            uint64_t position = batch->position.batch * BATCH + i;
            uint64_t own = order_at(&order, position);
            skips += set->bad[own] && !seen[own];
            seen[own] = true;
            assert_int_equal(batch->records[i], good_record(set, &order, position));
        }
        uint64_t hash = batch_hash(1, batch);
        assert_true(!compare || hash == hashes[number]);
        hashes[number] = hash;
        assert_int_equal(loader_counters(loader).skips, skips);
        loader_release(loader, batch);
    }
    assert_int_equal(number, BATCHES);
    assert_int_equal(loader_skips(loader, NULL, 0), skips);
    loader_close(&loader);
}

// So many in a row end a stream earlier.
static bool all_in_a_row(const struct damaged *set, const struct order *order)
{
    unsigned ends = 0;
    for (uint64_t at = 0; at < RECORDS; at++) {
        ends += set->bad[order_at(order, at)] && !set->bad[order_at(order, (at + 1) % RECORDS)];
    }
    return ends == 1;
}

// One record fewer may be skipped than are bad: the stream ends where the last of them stands.
static void check_cap(const struct damaged *set, struct loader_config config)
{
    struct order order;
    order_init(&order, RECORDS, config.seed, 0, true);
    if (all_in_a_row(set, &order)) {
        return;
    }
    uint64_t last = RECORDS - 1;
    while (!set->bad[order_at(&order, last)]) {
        last--;
    }
    config.max_skips = set->bad_count - 1;
    struct loader *loader = open_loader(set->dataset[0], &config);
    const struct batch *batch;
    struct error why;
    uint64_t batches = 0;
    while (loader_next(loader, &batch, &why) == STATUS_OK) {
        batches++;
        loader_release(loader, batch);
    }
    assert_int_equal(why.status, STATUS_CORRUPT);
    assert_int_equal(batches, last / BATCH);
    assert_int_equal(why.record, order_at(&order, last));
    assert_int_equal(loader_counters(loader).skips, config.max_skips);
    loader_close(&loader);
}

static void check_all_bad(const struct damaged *set, struct loader_config config)
{
    for (config.workers = 1; config.workers <= MOST_WORKERS; config.workers += 3) {
        struct loader *loader = open_loader(set->dataset[1], &config);
        const struct batch *batch;
        struct error why;
        assert_int_equal(loader_next(loader, &batch, &why), STATUS_CORRUPT);
        assert_int_equal(loader_counters(loader).batches, 0);
        loader_close(&loader);
    }
}

static void test_skipping_from_one_bad_record_to_all(void **state)
{
    (void)state;
    struct damaged set;
    uint64_t random = 4;
    damaged_make(&set, NOWHERE);
    for (uint32_t bad = 1; bad <= RECORDS; bad++) {
        uint64_t record = draw(&random, RECORDS);
        while (set.bad[record]) {
            record = (record + 1) % RECORDS;
        }
        damaged_flip(&set, record);
        struct loader_config config = base_config(LOADER_SKIP);
        uint64_t hashes[BATCHES];
        if (bad == RECORDS) {
            check_all_bad(&set, config);
            break;
        }
        config.workers = 1;
        stream_skipping(&set, &config, hashes, false);
        config.workers = 2 + bad % (MOST_WORKERS - 1);
        config.depth = bad % 2 ? 1 : 64;
        stream_skipping(&set, &config, hashes, true);
        config.start = (struct loader_position){.epoch = draw(&random, EPOCHS),
                                                .batch = draw(&random, BATCHES / EPOCHS)};
        stream_skipping(&set, &config, hashes, true);
        config.start = (struct loader_position){0};
        if (bad > 1) {
            check_cap(&set, config);
        }
    }
    damaged_remove(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_passing_faults_give_the_same_hash, remove_faults),
        cmocka_unit_test_teardown(test_flipped_bits_end_the_stream_with_the_records_name,
                                  remove_faults),
        cmocka_unit_test_teardown(test_flipped_bits_are_skipped_and_listed, remove_faults),
        cmocka_unit_test_teardown(test_skipping_from_one_bad_record_to_all, remove_faults),
    };
    return cmocka_run_group_tests(tests, make_dataset, remove_dataset);
}
