// Building a loader and taking it down. Everything it will ever use is allocated here; close takes
// what there is of it, so open has one way out.
#include "formats/limits.h"
#include "pipeline/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOADER_MAX_BATCH   65536
#define LOADER_MAX_DEPTH   1024
#define LOADER_MAX_SLOTS   1024
#define LOADER_MAX_WORKERS 1024
#define LOADER_MAX_RANKS   (1u << 20)

// Bytes of reads in flight and read but not yet decoded. Enough for hundreds of photographs; more
// only evicts what the workers need from the cache.
#define LOADER_ARENA_BYTES (UINT64_C(64) << 20)

// Tasks per worker beyond the reads in flight: one being worked on, one waiting.
#define LOADER_TASKS_PER_WORKER 2

void loader_config_init(struct loader_config *config)
{
    *config = (struct loader_config){
        .output = view_output_plain,
        .batch = 64,
        .shuffle = true,
        .io = LOADER_IO_AUTO,
        .depth = 64,
        .slots = 3,
        .policy = LOADER_FATAL,
        .ranks = 1,
    };
    recipe_builtin("byol", &config->recipe, NULL);
}

static const char *complaint(const struct loader_config *config)
{
    if (config->batch < 1 || config->batch > LOADER_MAX_BATCH) {
        return "the batch must have 1 to 65536 records";
    }
    if (config->depth < 1 || config->depth > LOADER_MAX_DEPTH) {
        return "the reads in flight must be 1 to 1024";
    }
    if (config->slots < 2 || config->slots > LOADER_MAX_SLOTS) {
        return "the batch buffers must be 2 to 1024";
    }
    if (config->workers > LOADER_MAX_WORKERS) {
        return "the workers must be at most 1024";
    }
    if (config->ranks < 1 || config->ranks > LOADER_MAX_RANKS || config->rank >= config->ranks) {
        return "the rank must be less than the number of ranks, which must be 1 to 1048576";
    }
    if ((unsigned)config->io > LOADER_IO_PREAD || (unsigned)config->policy > LOADER_SKIP) {
        return "the way of reading or the policy does not exist";
    }
    if (!config->allocator.allocate != !config->allocator.release) {
        return "an allocator needs both of its functions";
    }
    return NULL;
}

static enum status validate(const struct loader_config *config, struct error *error)
{
    const char *reason = complaint(config);
    if (reason) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "%s", reason);
    }
    return recipe_validate(&config->recipe, error);
}

static uint32_t core_count(void)
{
    cpu_set_t cores;
    int count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    return count > 0 ? (uint32_t)count : 1;
}

// How long an epoch is, and where in it the stream starts.
static enum status plan_stream(struct loader *loader, struct error *error)
{
    struct loader_config *config = &loader->config;
    const char *directory = dataset_directory(loader->dataset);
    uint64_t whole = (uint64_t)config->batch * config->ranks, records = loader->records;
    loader->batches_per_epoch = records / whole + (config->keep_last && records % whole ? 1 : 0);
    if (loader->batches_per_epoch == 0) {
        return error_set(error, STATUS_INVALID, directory, NOWHERE, NOWHERE,
                         "%llu records are less than one batch of %llu; choose a smaller batch",
                         (unsigned long long)records, (unsigned long long)whole);
    }
    struct loader_position *start = &config->start;
    if (start->batch > loader->batches_per_epoch) {
        return error_set(error, STATUS_INVALID, directory, NOWHERE, NOWHERE,
                         "cannot start at batch %llu of an epoch of %llu batches",
                         (unsigned long long)start->batch,
                         (unsigned long long)loader->batches_per_epoch);
    }
    if (start->batch == loader->batches_per_epoch) { // saved after the last batch of an epoch
        *start = (struct loader_position){.epoch = start->epoch + 1};
    }
    loader->feeding = loader->position = *start;
    uint64_t share = records / 1000;
    loader->max_skips = config->max_skips ? config->max_skips : share > 16 ? share : 16;
    if (loader->max_skips > records) {
        loader->max_skips = records;
    }
    return STATUS_OK;
}

static enum status open_files(struct loader *loader, struct error *error)
{
    uint32_t count = dataset_file_count(loader->dataset);
    loader->fds = calloc(count ? count : 1, sizeof *loader->fds);
    if (!loader->fds) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for %u open files", count);
    }
    while (loader->file_count < count) {
        const char *path = dataset_file_path(loader->dataset, loader->file_count);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            return error_errno(error, errno, path, NOWHERE, "open");
        }
        if (loader->config.shuffle) {
            posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); // read-ahead would fetch other records
        }
        loader->fds[loader->file_count++] = fd;
    }
    return STATUS_OK;
}

// Tasks, the memory of reads, slots, and lists.
static enum status allocate(struct loader *loader, struct error *error)
{
    const struct loader_config *config = &loader->config;
    uint64_t largest = dataset_max_stored_length(loader->dataset);
    loader->task_count = config->depth + LOADER_TASKS_PER_WORKER * config->workers;
    loader->tasks = calloc(loader->task_count, sizeof *loader->tasks);
    loader->finished = calloc(config->depth, sizeof(struct read_request *));
    loader->workers = calloc(config->workers, sizeof *loader->workers);
    loader->worker_threads = calloc(config->workers, sizeof *loader->worker_threads);
    if (!loader->tasks || !loader->finished || !loader->workers || !loader->worker_threads) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for %u reads and %u workers", config->depth, config->workers);
    }
    for (uint32_t i = 0; i < loader->task_count; i++) {
        task_push(&loader->idle, &loader->tasks[i]);
    }
    uint64_t wanted = (largest + ARENA_ALIGNMENT) * loader->task_count;
    uint64_t bytes = wanted < LOADER_ARENA_BYTES ? wanted : LOADER_ARENA_BYTES;
    size_t noted = 0;
    if (config->policy == LOADER_SKIP) {
        noted = loader->max_skips < config->batch ? (size_t)loader->max_skips + 1 : config->batch;
    }
    enum status status = arena_open(&loader->arena, bytes, largest, loader->task_count, error);
    if (status == STATUS_OK) {
        status = ring_open(&loader->ring, config, noted, error);
    }
    if (status == STATUS_OK && config->policy == LOADER_SKIP) {
        status = skips_open(&loader->skips, (size_t)loader->max_skips, error);
    }
    return status;
}

// What a worker holds; decoders' own state (libjpeg's tables and rows) is small beside it.
static uint64_t worker_bytes(const struct loader *loader)
{
    uint64_t size = (uint64_t)loader->config.recipe.size;
    return dataset_max_pixels(loader->dataset) * 3 * (uint64_t)loader->config.recipe.views +
           dataset_max_frame_length(loader->dataset) + size * size * 3 * sizeof(float) +
           LIMIT_IMAGE_SIDE * 3 * sizeof(float);
}

static uint64_t count_memory(const struct loader *loader)
{
    const struct ring *ring = &loader->ring;
    uint64_t notes = loader->skips.capacity + ring->count * ring->slots[0].skips.capacity;
    return sizeof *loader + ring->count * (ring->slot_bytes + sizeof *ring->slots) +
           loader->arena.size + loader->task_count * sizeof *loader->tasks +
           notes * sizeof(struct skip_note) +
           loader->config.workers * (worker_bytes(loader) + sizeof *loader->workers);
}

static enum status start_thread(pthread_t *thread, void *(*run)(void *), void *argument,
                                struct error *error)
{
    int errnum = pthread_create(thread, NULL, run, argument);
    return errnum == 0 ? STATUS_OK
                       : error_set(error, STATUS_THREAD, NULL, NOWHERE, NOWHERE,
                                   "cannot start a thread: %s", strerror(errnum));
}

static enum status start_threads(struct loader *loader, struct error *error)
{
    enum status status = STATUS_OK;
    for (uint32_t i = 0; status == STATUS_OK && i < loader->config.workers; i++) {
        status = worker_open(&loader->workers[i], loader, error);
    }
    while (status == STATUS_OK && loader->workers_started < loader->config.workers) {
        uint32_t i = loader->workers_started;
        status = start_thread(&loader->worker_threads[i], worker_main, &loader->workers[i], error);
        loader->workers_started += status == STATUS_OK;
    }
    if (status == STATUS_OK) {
        status = start_thread(&loader->feeder_thread, feeder_main, loader, error);
        loader->feeder_started = status == STATUS_OK;
    }
    return status;
}

static enum status build(struct loader *loader, struct error *error)
{
    enum status status = plan_stream(loader, error);
    if (status == STATUS_OK) {
        status = open_files(loader, error);
    }
    if (status == STATUS_OK) {
        status = allocate(loader, error);
    }
    if (status == STATUS_OK) {
        loader->memory = count_memory(loader);
        const struct reader_setup setup = {.fds = loader->fds,
                                           .files = loader->file_count,
                                           .memory = loader->arena.memory,
                                           .bytes = loader->arena.size,
                                           .depth = loader->config.depth};
        status = reader_open(&loader->reader, &setup, loader->config.io, error);
    }
    return status == STATUS_OK ? start_threads(loader, error) : status;
}

enum status loader_open(struct loader **out, const struct dataset *dataset,
                        const struct loader_config *config, struct error *error)
{
    *out = NULL;
    enum status status = validate(config, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct loader *loader = calloc(1, sizeof *loader);
    if (!loader) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a loader");
    }
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->work_ready, NULL);
    pthread_cond_init(&loader->batch_ready, NULL);
    loader->dataset = dataset;
    loader->records = dataset_count(dataset);
    loader->config = *config;
    if (config->workers == 0) {
        loader->config.workers = core_count();
    }
    loader->idle_since = stream_seconds();
    status = build(loader, error);
    if (status != STATUS_OK) {
        loader_close(&loader);
    }
    *out = loader;
    return status;
}

static void stop_threads(struct loader *loader)
{
    pthread_mutex_lock(&loader->lock);
    loader->closing = true;
    pthread_cond_broadcast(&loader->work_ready);
    if (loader->feeder_started) {
        reader_wake(&loader->reader);
    }
    pthread_mutex_unlock(&loader->lock);
    if (loader->feeder_started) {
        pthread_join(loader->feeder_thread, NULL);
    }
    for (uint32_t i = 0; i < loader->workers_started; i++) {
        pthread_join(loader->worker_threads[i], NULL);
    }
}

// The order matters: threads first, then the reader, whose reads the feeder has reaped, then the
// memory they were for.
void loader_close(struct loader **out)
{
    struct loader *loader = *out;
    if (!loader) {
        return;
    }
    stop_threads(loader);
    reader_close(&loader->reader);
    for (uint32_t i = 0; loader->workers && i < loader->config.workers; i++) {
        worker_close(&loader->workers[i]);
    }
    for (uint32_t i = 0; i < loader->file_count; i++) {
        close(loader->fds[i]);
    }
    ring_close(&loader->ring);
    arena_close(&loader->arena);
    skips_close(&loader->skips);
    free(loader->fds);
    free(loader->finished);
    free(loader->workers);
    free(loader->worker_threads);
    free(loader->tasks);
    pthread_cond_destroy(&loader->batch_ready);
    pthread_cond_destroy(&loader->work_ready);
    pthread_mutex_destroy(&loader->lock);
    free(loader);
    *out = NULL;
}
