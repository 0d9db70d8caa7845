// Once a loader runs it allocates nothing, its memory does not grow, and all of it was planned.
// BYOL_SOAK_BATCHES=10000 makes the run long.
#include "pipeline/loader.h"
#include "tests/support/sample_dataset.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 61, BATCH = 6, SIZE = 16, SHORT_RUN = 600 };

// --- counting allocations --------------------------------------------------------------------------

// Sanitizers bring an allocator of their own, and memory beside it.
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define MEASURED 0
#else
#define MEASURED 1
#endif

static atomic_bool counting;
static atomic_ulong ours, others; // by our code, and by the libraries it calls

#if MEASURED
extern char __executable_start, etext; // the linker's: where this program's code lies
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *memory);

static void count(const void *caller)
{
    if (atomic_load_explicit(&counting, memory_order_relaxed)) {
        bool here = (const char *)caller >= &__executable_start && (const char *)caller < &etext;
        atomic_fetch_add(here ? &ours : &others, 1);
    }
}

void *malloc(size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_malloc(bytes);
}

void *calloc(size_t members, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_calloc(members, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    count(__builtin_return_address(0));
    *out = __libc_memalign(alignment, bytes);
    return *out ? 0 : ENOMEM;
}

void free(void *memory)
{
    __libc_free(memory);
}
#endif

// --- the suite -------------------------------------------------------------------------------------

static struct sample_dataset sample;
static struct dataset *datasets[3];

static int make_datasets(void **state)
{
    (void)state;
    sample_dataset_make(&sample, RECORDS, NOWHERE);
    datasets[0] = sample_dataset_open(&sample, DATASET_LMDB);
    datasets[1] = sample_dataset_open(&sample, DATASET_SHARDS);
    datasets[2] = sample_dataset_open_grouped(&sample);
    return 0;
}

static int remove_datasets(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        dataset_close(&datasets[i]);
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
    config.workers = 2;
    return config;
}

static void take(struct loader *loader, uint64_t batches)
{
    const struct batch *batch;
    struct error error;
    while (batches-- > 0) {
        if (loader_next(loader, &batch, &error) != STATUS_OK) {
            fail_msg("%s: %s", error.path, error.reason);
        }
        loader_release(loader, batch);
    }
}

static uint64_t run_length(void)
{
    const char *text = getenv("BYOL_SOAK_BATCHES");
    return text ? strtoull(text, NULL, 10) : SHORT_RUN;
}

static uint64_t resident(void)
{
    unsigned long long total = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu %llu", &total, &pages), 2);
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
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

// All ways of getting at records, the way of reading among them.
static struct loader_config config_of(int way)
{
    struct loader_config config = base_config();
    config.cache = way % 2 ? 0 : UINT64_C(96) << 20;
    config.io = way / 2 % 2 ? LOADER_IO_PREAD : LOADER_IO_AUTO;
    config.direct = way / 4;
    return config;
}

static void test_a_running_loader_allocates_nothing(void **state)
{
    (void)state;
    if (!MEASURED) {
        skip();
    }
    for (int way = 0; way < 8; way++) {
        struct loader_config config = config_of(way);
        struct loader *loader = open_loader(datasets[way % 3], &config);
        take(loader, 60);
        atomic_store(&ours, 0);
        atomic_store(&others, 0);
        atomic_store(&counting, true);
        take(loader, 200);
        atomic_store(&counting, false);
        print_message("way %d: %lu allocations of ours, %lu of libraries\n", way,
                      atomic_load(&ours), atomic_load(&others));
        assert_int_equal(atomic_load(&ours), 0);
        loader_close(&loader);
    }
}

// In steps, so that slow growth shows too.
static void test_memory_stays_flat_and_within_the_plan(void **state)
{
    (void)state;
    if (!MEASURED) {
        skip();
    }
    enum { STEPS = 5, SLACK = 256 << 10 };
    for (int way = 0; way < 4; way++) {
        struct loader_config config = config_of(way);
        uint64_t before = resident();
        struct loader *loader = open_loader(datasets[2 - way % 3], &config);
        take(loader, run_length() / STEPS);
        uint64_t warm = resident(), now = warm;
        for (int step = 1; step < STEPS; step++) {
            take(loader, run_length() / STEPS);
            now = resident();
        }
        print_message("way %d: %llu KiB planned, grew by %llu KiB, later by %lld KiB\n", way,
                      (unsigned long long)loader_memory(loader) >> 10,
                      (unsigned long long)(warm - before) >> 10,
                      ((long long)now - (long long)warm) / 1024);
        assert_true(now <= warm + SLACK);
        assert_true(now <= before + loader_memory(loader));
        loader_close(&loader);
    }
}

// The plan knows what each part of it needs.
static void test_the_plan_follows_the_settings(void **state)
{
    (void)state;
    struct loader_config config = base_config(), more;
    config.workers = 1; // one core may have two
    struct loader *loader = open_loader(datasets[0], &config);
    uint64_t plan = loader_memory(loader);
    loader_close(&loader);
    more = config;
    more.slots += 2;
    loader = open_loader(datasets[0], &more);
    uint64_t views = 2 * (uint64_t)BATCH * SIZE * SIZE * 3 * sizeof(float);
    assert_true(loader_memory(loader) >= plan + 2 * views);
    loader_close(&loader);
    more = config;
    more.cache = 0;
    loader = open_loader(datasets[0], &more);
    assert_true(loader_memory(loader) < plan);
    loader_close(&loader);
    more = config;
    more.workers += 1;
    loader = open_loader(datasets[0], &more);
    assert_true(loader_memory(loader) > plan);
    loader_close(&loader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        // First, while there is no free memory that growth could hide in.
        cmocka_unit_test(test_memory_stays_flat_and_within_the_plan),
        cmocka_unit_test(test_a_running_loader_allocates_nothing),
        cmocka_unit_test(test_the_plan_follows_the_settings),
    };
    return cmocka_run_group_tests(tests, make_datasets, remove_datasets);
}
