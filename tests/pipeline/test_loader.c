// Batches hold exactly what the recipe says of the records that the order says, whatever the number
// of workers, the way of reading, the depth, the store, the place where the stream was resumed, or
// the number of ranks.
#include "augment/view.h"
#include "pipeline/loader.h"
#include "pipeline/order.h"
#include "tests/support/batch_hash.h"
#include "tests/support/render.h"
#include "tests/support/sample_dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 37, BATCH = 5, SIZE = 16, EPOCHS = 2 };

static struct sample_dataset sample;
static struct dataset *datasets[2];

static int make_datasets(void **state)
{
    (void)state;
    sample_dataset_make(&sample, RECORDS, NOWHERE);
    datasets[DATASET_LMDB] = sample_dataset_open(&sample, DATASET_LMDB);
    datasets[DATASET_SHARDS] = sample_dataset_open(&sample, DATASET_SHARDS);
    alarm(120); // a loader that hangs kills the suite
    return 0;
}

static int remove_datasets(void **state)
{
    (void)state;
    dataset_close(&datasets[DATASET_LMDB]);
    dataset_close(&datasets[DATASET_SHARDS]);
    sample_dataset_remove(&sample);
    return 0;
}

static struct loader_config base_config(void)
{
    struct loader_config config;
    loader_config_init(&config);
    config.recipe.size = SIZE;
    config.batch = BATCH;
    config.seed = 11;
    config.epochs = EPOCHS;
    config.workers = 2;
    config.depth = 8;
    return config;
}

static struct loader *open_loader(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader;
    struct error error;
    enum status status = loader_open(&loader, dataset, config, &error);
    if (status == STATUS_UNSUPPORTED && config->io == LOADER_IO_URING) {
        printf("skipped: %s\n", error.reason);
        skip();
    }
    if (status != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
    return loader;
}

// The rest of the stream, hashed record by record; checks that positions and sequence run on.
static uint64_t drain_stream(struct loader *loader, const struct loader_config *config,
                             uint64_t hash)
{
    struct loader_position expected = config->start;
    const struct batch *batch;
    struct error error;
    enum status status;
    uint64_t sequence = 0;
    while ((status = loader_next(loader, &batch, &error)) == STATUS_OK) {
        assert_int_equal(batch->sequence, sequence++);
        assert_int_equal(batch->position.epoch, expected.epoch);
        assert_int_equal(batch->position.batch, expected.batch);
        if (++expected.batch == loader_batches_per_epoch(loader)) {
            expected = (struct loader_position){.epoch = expected.epoch + 1};
        }
        hash = batch_hash(hash, batch);
        loader_release(loader, batch);
    }
    assert_int_equal(status, STATUS_END);
    assert_null(batch);
    return hash;
}

static uint64_t hash_of(const struct dataset *dataset, const struct loader_config *config)
{
    struct loader *loader = open_loader(dataset, config);
    uint64_t hash = drain_stream(loader, config, 1);
    loader_close(&loader);
    return hash;
}

// What one record's view must be, by the plain road.
static void render_alone(const struct dataset *dataset, const struct loader_config *config,
                         uint64_t record, uint32_t epoch, uint32_t view, float *out)
{
    struct dataset_record where = dataset_record(dataset, record);
    struct view_key key = {config->seed, record, epoch, view};
    struct view_params params;
    struct view_scratch *scratch;
    struct image_decoder *decoder;
    struct image image = {0};
    uint8_t *bytes;
    size_t len;
    assert_int_equal(dataset_read(dataset, record, &bytes, &len, NULL), STATUS_OK);
    assert_int_equal(view_scratch_open(&scratch, SIZE, NULL), STATUS_OK);
    assert_int_equal(image_decoder_open(&decoder, NULL), STATUS_OK);
    view_draw(&config->recipe, key, where.width, where.height, &params);
    assert_int_equal(image_decode(decoder, bytes, len, &params.crop, &image, NULL), STATUS_OK);
    assert_int_equal(render_image(&params, &image, scratch, out, NULL), STATUS_OK);
    image_free(&image);
    image_decoder_close(&decoder);
    view_scratch_close(&scratch);
    free(bytes);
}

static void test_batches_hold_the_views_of_the_order(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    struct loader *loader = open_loader(datasets[DATASET_SHARDS], &config);
    assert_int_equal(loader_batches_per_epoch(loader), RECORDS / BATCH);
    const struct batch *batch;
    size_t values = (size_t)SIZE * SIZE * 3, batches = 0;
    float *expected = malloc(values * sizeof *expected);
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        assert_int_equal(batch->count, BATCH);
        assert_int_equal(batch->size, SIZE);
        struct order order;
        order_init(&order, RECORDS, config.seed, batch->position.epoch, true);
        for (uint32_t i = 0; i < BATCH; i++) {
            uint64_t record = order_at(&order, batch->position.batch * BATCH + i);
            assert_int_equal(batch->records[i], record);
            assert_int_equal(batch->labels[i], record % SAMPLE_CLASSES);
            for (uint32_t view = 0; view < 2; view++) {
                render_alone(datasets[DATASET_SHARDS], &config, record, batch->position.epoch, view,
                             expected);
                assert_memory_equal(batch->view[view] + i * values, expected,
                                    values * sizeof *expected);
            }
        }
        loader_release(loader, batch);
        batches++;
    }
    assert_int_equal(batches, EPOCHS * (RECORDS / BATCH));
    free(expected);
    loader_close(&loader);
}

static void check_every_way(enum loader_io io)
{
    static const uint32_t workers[] = {1, 2, 3, 7}, depths[] = {1, 4, 64};
    struct loader_config config = base_config();
    config.io = LOADER_IO_PREAD;
    const uint64_t expected = hash_of(datasets[DATASET_LMDB], &config);
    config.io = io;
    for (int store = DATASET_LMDB; store <= DATASET_SHARDS; store++) {
        for (size_t w = 0; w < sizeof workers / sizeof workers[0]; w++) {
            for (size_t d = 0; d < sizeof depths / sizeof depths[0]; d++) {
                config.workers = workers[w];
                config.depth = depths[d];
                config.slots = 2 + (uint32_t)(w + d) % 3;
                assert_int_equal(hash_of(datasets[store], &config), expected);
            }
        }
    }
    config.seed++;
    assert_int_not_equal(hash_of(datasets[DATASET_LMDB], &config), expected);
}

static void test_uring_gives_the_same_at_any_width_and_depth(void **state)
{
    (void)state;
    check_every_way(LOADER_IO_URING);
}

static void test_pread_gives_the_same_at_any_width_and_depth(void **state)
{
    (void)state;
    check_every_way(LOADER_IO_PREAD);
}

static void test_resuming_anywhere_gives_the_rest(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    struct loader *loader = open_loader(datasets[DATASET_SHARDS], &config);
    const struct batch *batch;
    uint64_t begin = 1; // hash of everything before the batch
    uint64_t whole = hash_of(datasets[DATASET_SHARDS], &config);
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        struct loader_config rest = config;
        rest.start = batch->position;
        struct loader *resumed = open_loader(datasets[DATASET_LMDB], &rest);
        assert_int_equal(drain_stream(resumed, &rest, begin), whole);
        loader_close(&resumed);
        begin = batch_hash(begin, batch);
        loader_release(loader, batch);
    }
    assert_int_equal(begin, whole);
    loader_close(&loader);
}

static void test_a_position_at_the_end_of_an_epoch_is_the_next_ones_start(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    config.start = (struct loader_position){.epoch = 0, .batch = RECORDS / BATCH};
    struct loader *loader = open_loader(datasets[DATASET_LMDB], &config);
    const struct batch *batch;
    assert_int_equal(loader_next(loader, &batch, NULL), STATUS_OK);
    assert_int_equal(batch->position.epoch, 1);
    assert_int_equal(batch->position.batch, 0);
    loader_close(&loader);
    config.start = (struct loader_position){.epoch = EPOCHS};
    loader = open_loader(datasets[DATASET_LMDB], &config);
    assert_int_equal(loader_next(loader, &batch, NULL), STATUS_END);
    assert_int_equal(loader_next(loader, &batch, NULL), STATUS_END);
    loader_close(&loader);
    config.start = (struct loader_position){.batch = RECORDS / BATCH + 1};
    assert_int_equal(loader_open(&loader, datasets[DATASET_LMDB], &config, NULL), STATUS_INVALID);
    assert_null(loader);
}

// Ranks side by side against one rank with a batch of their sum.
static void check_ranks(uint32_t ranks, bool keep_last)
{
    struct loader_config config = base_config();
    config.keep_last = keep_last;
    config.batch = BATCH * ranks;
    struct loader *whole = open_loader(datasets[DATASET_SHARDS], &config), *part[8];
    config.batch = BATCH;
    config.ranks = ranks;
    for (config.rank = 0; config.rank < ranks; config.rank++) {
        part[config.rank] = open_loader(datasets[DATASET_SHARDS], &config);
        assert_int_equal(loader_batches_per_epoch(part[config.rank]),
                         loader_batches_per_epoch(whole));
    }
    const struct batch *all, *piece;
    while (loader_next(whole, &all, NULL) == STATUS_OK) {
        uint64_t expected = batch_hash(1, all), together = 1;
        uint32_t count = 0;
        for (uint32_t rank = 0; rank < ranks; rank++) {
            assert_int_equal(loader_next(part[rank], &piece, NULL), STATUS_OK);
            together = batch_hash(together, piece);
            count += piece->count;
            loader_release(part[rank], piece);
        }
        assert_int_equal(count, all->count);
        assert_int_equal(together, expected);
        loader_release(whole, all);
    }
    for (uint32_t rank = 0; rank < ranks; rank++) {
        assert_int_equal(loader_next(part[rank], &piece, NULL), STATUS_END);
        loader_close(&part[rank]);
    }
    loader_close(&whole);
}

// Every piece of a batch is split by itself.
static void test_ranks_split_the_pieces_of_batches(void **state)
{
    (void)state;
    enum { RANKS = 2, PIECES = 3, PART = 2 };
    struct loader_config config = base_config();
    config.batch = RANKS * PIECES * PART;
    struct loader *whole = open_loader(datasets[DATASET_SHARDS], &config), *own[RANKS];
    config.batch = PIECES * PART;
    config.ranks = RANKS;
    config.pieces = PIECES;
    for (config.rank = 0; config.rank < RANKS; config.rank++) {
        own[config.rank] = open_loader(datasets[DATASET_SHARDS], &config);
    }
    const struct batch *all, *mine;
    assert_int_equal(loader_next(whole, &all, NULL), STATUS_OK);
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        assert_int_equal(loader_next(own[rank], &mine, NULL), STATUS_OK);
        for (uint32_t i = 0; i < PIECES * PART; i++) {
            uint32_t at = i / PART * RANKS * PART + rank * PART + i % PART;
            assert_int_equal(mine->records[i], all->records[at]);
            assert_int_equal(mine->labels[i], all->labels[at]);
        }
        loader_release(own[rank], mine);
        loader_close(&own[rank]);
    }
    loader_close(&whole);
}

static void test_ranks_split_the_same_batches(void **state)
{
    (void)state;
    check_ranks(1, false);
    check_ranks(2, false);
    check_ranks(3, false);
    check_ranks(2, true); // the last batch has 7 of 10
    check_ranks(7, true); // 2 records for 7 ranks: some parts are empty
}

static void test_keeping_the_last_batch_shows_every_record_once(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    config.keep_last = true;
    config.shuffle = false;
    config.epochs = 1;
    struct loader *loader = open_loader(datasets[DATASET_LMDB], &config);
    assert_int_equal(loader_batches_per_epoch(loader), (RECORDS + BATCH - 1) / BATCH);
    const struct batch *batch;
    uint64_t next = 0;
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        for (uint32_t i = 0; i < batch->count; i++) {
            assert_int_equal(batch->records[i], next++);
        }
        assert_int_equal(batch->count, next == RECORDS ? RECORDS % BATCH : BATCH);
        loader_release(loader, batch);
    }
    assert_int_equal(next, RECORDS);
    loader_close(&loader);
}

static void test_one_view_recipes_fill_one_view(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    assert_int_equal(recipe_builtin("eval", &config.recipe, NULL), STATUS_OK);
    config.recipe.size = SIZE;
    struct loader *loader = open_loader(datasets[DATASET_LMDB], &config);
    const struct batch *batch;
    assert_int_equal(loader_next(loader, &batch, NULL), STATUS_OK);
    assert_non_null(batch->view[0]);
    assert_null(batch->view[1]);
    loader_close(&loader);
}

static void test_an_endless_stream_goes_on(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    config.epochs = 0;
    struct loader *loader = open_loader(datasets[DATASET_SHARDS], &config);
    const struct batch *batch;
    for (uint64_t i = 0; i < 5 * (RECORDS / BATCH); i++) {
        assert_int_equal(loader_next(loader, &batch, NULL), STATUS_OK);
        assert_int_equal(batch->position.epoch, i / (RECORDS / BATCH));
        loader_release(loader, batch);
    }
    loader_close(&loader);
}

static void test_counters_add_up(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    config.keep_last = true;
    struct loader *loader = open_loader(datasets[DATASET_LMDB], &config);
    drain_stream(loader, &config, 1);
    struct loader_counters counters = loader_counters(loader);
    uint64_t bytes = 0;
    for (uint64_t record = 0; record < RECORDS; record++) {
        bytes += dataset_record(datasets[DATASET_LMDB], record).stored_length;
    }
    assert_int_equal(counters.bytes, bytes * EPOCHS);
    assert_int_equal(counters.records, RECORDS * EPOCHS);
    assert_int_equal(counters.batches, EPOCHS * loader_batches_per_epoch(loader));
    assert_int_equal(counters.skips, 0);
    assert_true(counters.decode > 0 && counters.augment > 0);
    assert_true(counters.read_wait >= 0 && counters.slot_wait >= 0);
    loader_close(&loader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches_hold_the_views_of_the_order),
        cmocka_unit_test(test_uring_gives_the_same_at_any_width_and_depth),
        cmocka_unit_test(test_pread_gives_the_same_at_any_width_and_depth),
        cmocka_unit_test(test_resuming_anywhere_gives_the_rest),
        cmocka_unit_test(test_a_position_at_the_end_of_an_epoch_is_the_next_ones_start),
        cmocka_unit_test(test_ranks_split_the_same_batches),
        cmocka_unit_test(test_ranks_split_the_pieces_of_batches),
        cmocka_unit_test(test_keeping_the_last_batch_shows_every_record_once),
        cmocka_unit_test(test_one_view_recipes_fill_one_view),
        cmocka_unit_test(test_an_endless_stream_goes_on),
        cmocka_unit_test(test_counters_add_up),
    };
    return cmocka_run_group_tests(tests, make_datasets, remove_datasets);
}
