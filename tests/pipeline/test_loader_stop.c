// A loader can be closed at any moment, its slots come back in any order, its memory is the
// caller's, and what cannot work is refused at open.
#include "pipeline/loader.h"
#include "tests/support/faulty_reader.h"
#include "tests/support/sample_dataset.h"
#include "tests/support/watchdog.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 30, BATCH = 3, SIZE = 8 };

static struct sample_dataset sample;
static struct dataset *dataset;

static int make_dataset(void **state)
{
    (void)state;
    sample_dataset_make(&sample, RECORDS, NOWHERE);
    dataset = sample_dataset_open(&sample, DATASET_SHARDS);
    watchdog_set("a suite of short tests");
    return 0;
}

static int remove_dataset(void **state)
{
    (void)state;
    dataset_close(&dataset);
    sample_dataset_remove(&sample);
    return 0;
}

static int remove_faults(void **state)
{
    (void)state;
    faulty_reader_remove();
    watchdog_set("what follows the closing");
    return 0;
}

static struct loader_config base_config(void)
{
    struct loader_config config;
    loader_config_init(&config);
    config.recipe.size = SIZE;
    config.batch = BATCH;
    config.workers = 2;
    config.depth = 8;
    return config;
}

static uint32_t draw(uint64_t *random, uint32_t below)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*random >> 33) % below;
}

// Entries of a directory of /proc/self: file descriptors, threads.
static size_t count_own(const char *what)
{
    size_t count = 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/%s", what);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    while (folder != NULL && readdir(folder)) {
        count++;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return count;
}

static size_t open_descriptors(void)
{
    return count_own("fd");
}

// Faults of every kind on the way, in every third loader also a place that cannot be read at all.
static void install_faults(uint64_t seed, uint64_t *random)
{
    struct dataset_record where = dataset_record(dataset, draw(random, RECORDS));
    const struct faulty_reader_plan plan = {.seed = seed,
                                            .eio = 10 + draw(random, 90),
                                            .eagain = draw(random, 30),
                                            .eintr = draw(random, 100),
                                            .shortened = draw(random, 200),
                                            .flipped = draw(random, 2) * draw(random, 100),
                                            .late = draw(random, 400),
                                            .slow = draw(random, 2) * 500,
                                            .bad_file = where.file,
                                            .bad_offset = where.offset,
                                            .bad_errnum = draw(random, 3) ? 0 : EIO};
    faulty_reader_install(&plan);
}

// Takes some batches, keeps some of them, and closes without a word, whether or not the stream has
// failed meanwhile.
static void open_use_and_close(uint64_t seed)
{
    uint64_t random = seed * 77 + 1;
    install_faults(seed, &random);
    struct loader_config config = base_config();
    config.io = seed % 2 ? LOADER_IO_AUTO : LOADER_IO_PREAD;
    config.workers = 1 + draw(&random, 7);
    config.depth = draw(&random, 3) ? 1 + draw(&random, 64) : 1;
    config.slots = 2 + draw(&random, 3);
    config.epochs = draw(&random, 3);
    config.policy = draw(&random, 2) ? LOADER_SKIP : LOADER_FATAL;
    watchdog_set("closing, seed %llu", (unsigned long long)seed);
    struct loader *loader;
    assert_int_equal(loader_open(&loader, dataset, &config, NULL), STATUS_OK);
    uint32_t take = draw(&random, 8), kept = 0;
    const struct batch *batch;
    for (uint32_t i = 0; i < take && loader_next(loader, &batch, NULL) == STATUS_OK; i++) {
        if (kept + 1 < config.slots && draw(&random, 3) == 0) {
            kept++;
        } else {
            loader_release(loader, batch);
        }
    }
    if (draw(&random, 2)) {
        usleep(draw(&random, 3000));
    }
    loader_close(&loader);
    assert_null(loader);
}

static void test_closing_at_any_moment_is_clean(void **state)
{
    (void)state;
    open_use_and_close(0); // a sanitizer's own thread starts with our first one
    size_t descriptors = open_descriptors(), threads = count_own("task");
    for (uint64_t seed = 1; seed < 400; seed++) {
        open_use_and_close(seed);
    }
    assert_int_equal(open_descriptors(), descriptors);
    for (int i = 0; i < 2000 && count_own("task") > threads; i++) {
        usleep(1000); // a joined thread leaves /proc a moment later
    }
    assert_int_equal(count_own("task"), threads);
    struct loader *none = NULL;
    loader_close(&none);
}

// The narrowest pipeline there is still flows.
static void test_depth_one_never_stalls(void **state)
{
    (void)state;
    for (int io = LOADER_IO_AUTO; io <= LOADER_IO_PREAD; io += LOADER_IO_PREAD) {
        struct loader_config config = base_config();
        config.io = (enum loader_io)io;
        config.depth = 1;
        config.workers = 1;
        config.slots = 2;
        config.epochs = 3;
        struct loader *loader;
        assert_int_equal(loader_open(&loader, dataset, &config, NULL), STATUS_OK);
        const struct batch *batch;
        uint32_t count = 0;
        while (loader_next(loader, &batch, NULL) == STATUS_OK) {
            count++;
            loader_release(loader, batch);
        }
        assert_int_equal(count, 3 * RECORDS / BATCH);
        loader_close(&loader);
    }
}

// While the consumer holds batches their contents stay; they come back last first.
static void test_batches_may_be_released_in_any_order(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    config.slots = 4;
    config.epochs = 8;
    struct loader *loader;
    assert_int_equal(loader_open(&loader, dataset, &config, NULL), STATUS_OK);
    const struct batch *held[4];
    uint64_t sequence = 0;
    for (int round = 0; round < 20; round++) {
        float first[4];
        for (int i = 0; i < 4; i++) {
            assert_int_equal(loader_next(loader, &held[i], NULL), STATUS_OK);
            assert_int_equal(held[i]->sequence, sequence++);
            first[i] = held[i]->view[0][0];
        }
        usleep(500);
        for (int i = 0; i < 4; i++) {
            assert_true(held[i]->view[0][0] == first[i]);
            assert_int_equal(held[i]->sequence, sequence - 4 + (uint64_t)i);
        }
        for (int i = 3; i >= 0; i--) {
            loader_release(loader, held[(i + round) % 4]);
            loader_release(loader, held[(i + round) % 4]); // a second time does nothing
        }
    }
    loader_close(&loader);
}

// Images followed by so many zeros that a few of them fill the memory of reads.
static void write_bulky(const char *path)
{
    static const size_t sizes[] = {7u << 20, 7u << 20, 1200u << 10, 1200u << 10, 1200u << 10};
    const struct dataset_writer_config config = {.store = DATASET_LMDB};
    struct dataset_writer *writer;
    assert_int_equal(dataset_writer_open(&writer, path, &config, NULL), STATUS_OK);
    for (uint32_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        uint8_t *jpeg, *bytes = calloc(1, sizes[i % 5]);
        size_t len;
        char name[32];
        struct dataset_record record = dataset_record(dataset, i);
        assert_non_null(bytes);
        assert_int_equal(dataset_read(dataset, i, &jpeg, &len, NULL), STATUS_OK);
        memcpy(bytes, jpeg, len);
        snprintf(name, sizeof name, "%05u.jpg", i);
        const struct dataset_item item = {
            .name = name,
            .bytes = bytes,
            .len = sizes[i % 5],
            .label = DATASET_NO_LABEL,
            .info = {.kind = IMAGE_JPEG, .width = record.width, .height = record.height}};
        assert_int_equal(dataset_writer_add(writer, &item, NULL), STATUS_OK);
        free(jpeg);
        free(bytes);
    }
    assert_int_equal(dataset_writer_commit(&writer, NULL, 0, NULL), STATUS_OK);
}

static void test_bulky_records_never_stall(void **state)
{
    (void)state;
    char path[400];
    snprintf(path, sizeof path, "%s/bulky", sample.scratch.path);
    write_bulky(path);
    struct dataset *bulky;
    assert_int_equal(dataset_open(&bulky, path, NULL), STATUS_OK);
    for (uint32_t depth = 1; depth <= 64; depth *= 4) {
        struct loader_config config = base_config();
        config.recipe.size = 224; // so much work that records are taken one by one
        config.batch = 5;
        config.shuffle = depth > 4;
        config.epochs = 2;
        config.depth = depth;
        config.direct = depth == 16;
        struct loader *loader;
        assert_int_equal(loader_open(&loader, bulky, &config, NULL), STATUS_OK);
        const struct batch *batch;
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(loader_next(loader, &batch, NULL), STATUS_OK);
            loader_release(loader, batch);
        }
        assert_int_equal(loader_next(loader, &batch, NULL), STATUS_END);
        loader_close(&loader);
    }
    dataset_close(&bulky);
}

struct counted {
    unsigned allowed, live, total;
    size_t bytes;
};

static void *count_allocate(void *context, size_t bytes)
{
    struct counted *counted = context;
    if (counted->total == counted->allowed) {
        return NULL;
    }
    counted->live++;
    counted->total++;
    counted->bytes += bytes;
    return aligned_alloc(64, bytes);
}

static void count_release(void *context, void *memory, size_t bytes)
{
    struct counted *counted = context;
    counted->live--;
    counted->bytes -= bytes;
    free(memory);
}

static void test_slots_lie_in_the_callers_memory(void **state)
{
    (void)state;
    struct counted counted = {.allowed = 100};
    struct loader_config config = base_config();
    config.slots = 5;
    config.allocator = (struct loader_allocator){count_allocate, count_release, &counted};
    struct loader *loader;
    assert_int_equal(loader_open(&loader, dataset, &config, NULL), STATUS_OK);
    assert_int_equal(counted.live, 5);
    assert_true(counted.bytes >= 5 * 2 * (size_t)BATCH * SIZE * SIZE * 3 * sizeof(float));
    assert_true(loader_memory(loader) > counted.bytes);
    const struct batch *batch;
    assert_int_equal(loader_next(loader, &batch, NULL), STATUS_OK);
    for (int view = 0; view < 2; view++) {
        assert_int_equal((uintptr_t)batch->view[view] % 64, 0);
    }
    loader_close(&loader);
    assert_int_equal(counted.live, 0);
    assert_int_equal(counted.bytes, 0);
    assert_int_equal(counted.total, 5);
}

static void test_no_memory_for_slots_is_told_and_leaks_nothing(void **state)
{
    (void)state;
    size_t before = open_descriptors();
    for (unsigned allowed = 0; allowed < 3; allowed++) {
        struct counted counted = {.allowed = allowed};
        struct loader_config config = base_config();
        config.slots = 3;
        config.allocator = (struct loader_allocator){count_allocate, count_release, &counted};
        struct loader *loader;
        assert_int_equal(loader_open(&loader, dataset, &config, NULL), STATUS_NO_MEMORY);
        assert_null(loader);
        assert_int_equal(counted.live, 0);
    }
    assert_int_equal(open_descriptors(), before);
}

static void assert_refused(const struct loader_config *config, enum status expected)
{
    struct loader *loader;
    struct error error;
    assert_int_equal(loader_open(&loader, dataset, config, &error), expected);
    assert_null(loader);
    assert_true(strlen(error.reason) > 10);
}

static void test_what_cannot_work_is_refused(void **state)
{
    (void)state;
    struct loader_config config = base_config();
    config.batch = 0;
    assert_refused(&config, STATUS_INVALID);
    config.batch = 65537;
    assert_refused(&config, STATUS_INVALID);
    config.batch = RECORDS + 1;
    assert_refused(&config, STATUS_INVALID);
    config = base_config();
    config.depth = 0;
    assert_refused(&config, STATUS_INVALID);
    config.depth = 1025;
    assert_refused(&config, STATUS_INVALID);
    config = base_config();
    config.slots = 1;
    assert_refused(&config, STATUS_INVALID);
    config = base_config();
    config.rank = config.ranks = 2;
    assert_refused(&config, STATUS_INVALID);
    config.ranks = 0;
    assert_refused(&config, STATUS_INVALID);
    config = base_config();
    config.pieces = config.batch + 1;
    assert_refused(&config, STATUS_INVALID);
    config.pieces = config.batch;
    config.keep_last = true;
    assert_refused(&config, STATUS_INVALID);
    config = base_config();
    config.recipe.view[0].area_min = 2;
    assert_refused(&config, STATUS_CONFIG);
    config = base_config();
    config.allocator.allocate = count_allocate;
    assert_refused(&config, STATUS_INVALID);
    config = base_config();
    config.batch = RECORDS + 1;
    config.keep_last = true; // one short batch is an epoch then
    struct loader *loader;
    assert_int_equal(loader_open(&loader, dataset, &config, NULL), STATUS_OK);
    loader_close(&loader);
}

static void test_a_missing_store_is_named(void **state)
{
    (void)state;
    char away[600];
    const char *path = dataset_file_path(dataset, 1);
    snprintf(away, sizeof away, "%s.away", path);
    assert_int_equal(rename(path, away), 0);
    struct loader_config config = base_config();
    struct loader *loader;
    struct error error;
    size_t before = open_descriptors();
    assert_int_equal(loader_open(&loader, dataset, &config, &error), STATUS_NOT_FOUND);
    assert_string_equal(error.path, path);
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(rename(away, path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_closing_at_any_moment_is_clean, remove_faults),
        cmocka_unit_test(test_depth_one_never_stalls),
        cmocka_unit_test(test_bulky_records_never_stall),
        cmocka_unit_test(test_batches_may_be_released_in_any_order),
        cmocka_unit_test(test_slots_lie_in_the_callers_memory),
        cmocka_unit_test(test_no_memory_for_slots_is_told_and_leaks_nothing),
        cmocka_unit_test(test_what_cannot_work_is_refused),
        cmocka_unit_test(test_a_missing_store_is_named),
    };
    return cmocka_run_group_tests(tests, make_dataset, remove_dataset);
}
