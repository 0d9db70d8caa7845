// Batches of bytes and records: the same stream for any number of workers, and, finished by plain
// C, the views of the batches of floats.
#include "pipeline/loader.h"
#include "tests/support/batch_hash.h"
#include "tests/support/sample_dataset.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 37, BATCH = 5, SIZE = 24, EPOCHS = 2 };
#define VALUES ((size_t)SIZE * SIZE * 3)

static struct sample_dataset sample;
static struct dataset *dataset;

static int make_dataset(void **state)
{
    (void)state;
    sample_dataset_make(&sample, RECORDS, NOWHERE);
    dataset = sample_dataset_open(&sample, DATASET_SHARDS);
    alarm(120); // a loader that hangs kills the suite
    return 0;
}

static int remove_dataset(void **state)
{
    (void)state;
    dataset_close(&dataset);
    sample_dataset_remove(&sample);
    return 0;
}

static struct loader *open_loader(const struct loader_config *config)
{
    struct loader *loader;
    struct error error;
    if (loader_open(&loader, dataset, config, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    return loader;
}

static struct loader_config config_of(bool bytes)
{
    struct loader_config config;
    loader_config_init(&config);
    config.recipe.size = SIZE;
    config.bytes = bytes;
    config.batch = BATCH;
    config.seed = 11;
    config.epochs = EPOCHS;
    config.keep_last = true;
    return config;
}

static uint64_t hash_of(const struct loader_config *config)
{
    struct loader *loader = open_loader(config);
    const struct batch *batch;
    uint64_t hash = 1;
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        hash = batch_hash(hash, batch);
        loader_release(loader, batch);
    }
    loader_close(&loader);
    return hash;
}

static void test_any_number_of_workers_gives_the_same_bytes(void **state)
{
    (void)state;
    struct loader_config config = config_of(true);
    config.workers = 1;
    const uint64_t expected = hash_of(&config);
    for (uint32_t workers = 2; workers <= 4; workers++) {
        config.workers = workers;
        config.slots = workers;
        config.io = workers % 2 ? LOADER_IO_PREAD : LOADER_IO_AUTO;
        assert_int_equal(hash_of(&config), expected);
    }
    config.seed++;
    assert_int_not_equal(hash_of(&config), expected);
}

// Colour operations make more of the rounding of a byte in places (augment/README.md), not on
// average.
static bool is_near(const float *view, const float *finished)
{
    double sum = 0;
    for (size_t i = 0; i < VALUES; i++) {
        sum += fabs((double)view[i] - (double)finished[i]);
    }
    return sum / (double)VALUES <= 1.0 / 510;
}

// Other operations leave the rounding as it is.
static bool is_rounded(const float *view, const float *finished)
{
    for (size_t i = 0; i < VALUES; i++) {
        if (!(fabs((double)view[i] - (double)finished[i]) <= 1.0 / 510 + 1e-5)) {
            return false;
        }
    }
    return true;
}

static void compare(const struct batch *floats, const struct batch *bytes)
{
    float out[SIZE * SIZE * 3], *work = malloc(view_finish_floats(SIZE) * sizeof *work);
    assert_non_null(work);
    assert_int_equal(floats->count, bytes->count);
    assert_memory_equal(floats->records, bytes->records, floats->count * sizeof *floats->records);
    assert_memory_equal(floats->labels, bytes->labels, floats->count * sizeof *floats->labels);
    for (uint32_t view = 0; view < 2; view++) {
        assert_null(floats->bytes[view]);
        assert_null(floats->drawn[view]);
        assert_null(bytes->view[view]);
        for (uint32_t i = 0; i < floats->count; i++) {
            const struct view_record *record = &bytes->drawn[view][i];
            const float *expected = floats->view[view] + i * VALUES;
            view_finish(record, SIZE, bytes->bytes[view] + i * VALUES, out, work);
            assert_true(record->jitter ? is_near(expected, out) : is_rounded(expected, out));
        }
    }
    free(work);
}

static void test_finished_bytes_are_the_views(void **state)
{
    (void)state;
    const struct loader_config with = config_of(true), without = config_of(false);
    struct loader *bytes = open_loader(&with), *floats = open_loader(&without);
    const struct batch *some, *same;
    unsigned batches = 0;
    while (loader_next(bytes, &some, NULL) == STATUS_OK) {
        assert_int_equal(loader_next(floats, &same, NULL), STATUS_OK);
        compare(same, some);
        loader_release(bytes, some);
        loader_release(floats, same);
        batches++;
    }
    assert_int_equal(batches, EPOCHS * ((RECORDS + BATCH - 1) / BATCH));
    loader_close(&bytes);
    loader_close(&floats);
}

static void test_bytes_take_a_quarter_of_the_memory(void **state)
{
    (void)state;
    struct loader_config config = config_of(true);
    config.workers = 1;
    struct loader *bytes = open_loader(&config);
    config.bytes = false;
    struct loader *floats = open_loader(&config);
    uint64_t pixels = config.slots * 2 * BATCH * VALUES;
    uint64_t records = config.slots * 2 * BATCH * sizeof(struct view_record);
    uint64_t saved = loader_memory(floats) - loader_memory(bytes);
    assert_true(saved <= 3 * pixels - records);
    assert_true(saved + config.slots * 4 * 64 >= 3 * pixels - records); // but for alignment
    loader_close(&bytes);
    loader_close(&floats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_workers_gives_the_same_bytes),
        cmocka_unit_test(test_finished_bytes_are_the_views),
        cmocka_unit_test(test_bytes_take_a_quarter_of_the_memory),
    };
    return cmocka_run_group_tests(tests, make_dataset, remove_dataset);
}
