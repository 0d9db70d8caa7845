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

// Bytes of reads in flight and read but not yet decoded. Enough for a hundred photographs; more
// only evicts what the workers need from the cache.
#define LOADER_ARENA_BYTES (UINT64_C(16) << 20)

#define LOADER_CACHE_BYTES (UINT64_C(96) << 20) // CIFAR-10 needs 40 MiB

// Positions that a worker takes at once are about so many pixels of work: enough that handing them
// out costs nothing beside it, few enough that the last ones of a batch keep nobody waiting.
#define LOADER_RUN_PIXELS 65536u

// More workers only take turns on the cores, each with memory of its own that it finds cold, and
// every batch waits for the one whose turn comes last. One more than the core stands in for one
// that loses it to foreign work.
#define LOADER_WORKERS_PER_CORE 2

// Runs per worker that are kept ahead at least: one being worked on, one waiting.
#define LOADER_RUNS_PER_WORKER 2

void loader_config_init(struct loader_config *config)
{
    *config = (struct loader_config){
        .output = view_output_plain,
        .batch = 64,
        .shuffle = true,
        .io = LOADER_IO_AUTO,
        .depth = 64,
        .cache = LOADER_CACHE_BYTES,
        .slots = 2,
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
    if (config->pieces > 1 && (config->keep_last || config->batch % config->pieces != 0)) {
        return "the pieces must divide the batch, and all batches must be whole";
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

static uint32_t worker_count(const struct loader_config *config)
{
    uint32_t cores = core_count(), most = LOADER_WORKERS_PER_CORE * cores;
    uint32_t workers = config->workers ? config->workers : cores;
    return workers < most ? workers : most;
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

static enum status open_file(struct loader *loader, uint32_t file, int flags, struct error *error)
{
    const char *path = dataset_file_path(loader->dataset, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    // Read-ahead by the kernel would fetch other records than the order asks for.
    posix_fadvise(fd, 0, 0, loader->config.shuffle ? POSIX_FADV_RANDOM : POSIX_FADV_SEQUENTIAL);
    loader->fds[loader->opened++] = fd;
    return STATUS_OK;
}

// All files once more, past the page cache; none of them where the file system refuses one.
static void open_direct(struct loader *loader)
{
    uint32_t file = 0;
    while (file < loader->file_count && open_file(loader, file, O_DIRECT, NULL) == STATUS_OK) {
        file++;
    }
    loader->direct = file == loader->file_count;
    while (!loader->direct && loader->opened > loader->file_count) {
        close(loader->fds[--loader->opened]);
    }
}

static enum status open_files(struct loader *loader, struct error *error)
{
    loader->file_count = dataset_file_count(loader->dataset);
    loader->fds = calloc(2 * (size_t)loader->file_count + 1, sizeof *loader->fds);
    if (!loader->fds) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for %u open files", loader->file_count);
    }
    enum status status = STATUS_OK;
    for (uint32_t file = 0; status == STATUS_OK && file < loader->file_count; file++) {
        status = open_file(loader, file, 0, error);
    }
    if (status == STATUS_OK && loader->config.direct) {
        open_direct(loader);
    }
    return status;
}

// How much workers take at once, and how many reads there can be.
static void plan_work(struct loader *loader)
{
    const struct loader_config *config = &loader->config;
    uint64_t size = (uint64_t)config->recipe.size;
    uint64_t pixels =
        dataset_max_pixels(loader->dataset) + size * size * (uint64_t)config->recipe.views;
    uint64_t run = LOADER_RUN_PIXELS / pixels;
    loader->run_length = run < 1 ? 1 : run > STREAM_RUN_MAX ? STREAM_RUN_MAX : (uint32_t)run;
    uint32_t working = LOADER_RUNS_PER_WORKER * loader->run_length * config->workers;
    loader->fetch_count = config->depth + working;
    loader->ahead = loader->ahead_least = working > 2 ? working : 2;
}

static enum status allocate_lists(struct loader *loader, struct error *error)
{
    const struct loader_config *config = &loader->config;
    struct window *window = &loader->window;
    loader->fetches = calloc(loader->fetch_count, sizeof *loader->fetches);
    loader->finished = calloc(config->depth, sizeof(struct read_request *));
    window->wants = calloc(config->depth, sizeof *window->wants);
    window->spares = calloc(config->depth, sizeof(struct fetch *));
    window->fetches = calloc(config->depth, sizeof(struct fetch *));
    loader->workers = calloc(config->workers, sizeof *loader->workers);
    loader->worker_threads = calloc(config->workers, sizeof *loader->worker_threads);
    if (!loader->fetches || !loader->finished || !window->wants || !window->spares ||
        !window->fetches || !loader->workers || !loader->worker_threads) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for %u reads and %u workers", config->depth, config->workers);
    }
    for (uint32_t i = 0; i < loader->fetch_count; i++) {
        loader->fetches[i].next = loader->free_fetches;
        loader->free_fetches = &loader->fetches[i];
    }
    loader->free_count = loader->fetch_count;
    return STATUS_OK;
}

static enum status allocate_arena(struct loader *loader, struct error *error)
{
    uint64_t largest = dataset_max_stored_length(loader->dataset);
    if (loader->cache.longest > largest) {
        largest = loader->cache.longest;
    }
    largest += 3 * ARENA_ALIGNMENT; // widened to whole pages
    uint64_t wanted = largest * loader->fetch_count;
    uint64_t bytes = wanted < LOADER_ARENA_BYTES ? wanted : LOADER_ARENA_BYTES;
    return arena_open(&loader->arena, bytes, largest, loader->fetch_count, error);
}

// Lists, small records, the memory of reads, slots.
static enum status allocate(struct loader *loader, struct error *error)
{
    const struct loader_config *config = &loader->config;
    size_t noted = 0;
    if (config->policy == LOADER_SKIP) {
        noted = loader->max_skips < config->batch ? (size_t)loader->max_skips + 1 : config->batch;
    }
    enum status status = allocate_lists(loader, error);
    if (status == STATUS_OK) {
        status = cache_open(&loader->cache, loader->dataset, config->cache, error);
    }
    if (status == STATUS_OK) {
        status = allocate_arena(loader, error);
    }
    if (status == STATUS_OK) {
        status = ring_open(&loader->ring, config, noted, error);
    }
    if (status == STATUS_OK && config->policy == LOADER_SKIP) {
        status = skips_open(&loader->skips, (size_t)loader->max_skips, error);
    }
    for (uint32_t i = 0; status == STATUS_OK && i < config->workers; i++) {
        status = worker_open(&loader->workers[i], loader, error);
    }
    return status;
}

static uint64_t count_memory(const struct loader *loader)
{
    const struct loader_config *config = &loader->config;
    const struct ring *ring = &loader->ring;
    uint64_t notes = loader->skips.capacity + ring->count * ring->slots[0].skips.capacity;
    uint64_t slot = ring->slot_bytes + sizeof *ring->slots +
                    config->batch * (sizeof(struct place) + sizeof(struct run));
    uint64_t bytes = sizeof *loader + ring->count * slot + loader->arena.size +
                     loader->cache.bytes + loader->fetch_count * sizeof *loader->fetches +
                     config->depth * (sizeof(struct want) + 3 * sizeof(void *)) +
                     notes * sizeof(struct skip_note);
    for (uint32_t i = 0; i < config->workers; i++) {
        bytes += worker_bytes(&loader->workers[i]);
    }
    return bytes;
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
        plan_work(loader);
        status = allocate(loader, error);
    }
    if (status == STATUS_OK) {
        loader->memory = count_memory(loader);
        const struct reader_setup setup = {.fds = loader->fds,
                                           .files = loader->opened,
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
    pthread_cond_init(&loader->feeder_work, NULL);
    loader->again_end = &loader->again;
    loader->dataset = dataset;
    loader->records = dataset_count(dataset);
    loader->config = *config;
    loader->config.workers = worker_count(config);
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
    stream_wake_feeder(loader);
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
    for (uint32_t i = 0; i < loader->opened; i++) {
        close(loader->fds[i]);
    }
    ring_close(&loader->ring);
    arena_close(&loader->arena);
    cache_close(&loader->cache);
    skips_close(&loader->skips);
    free(loader->fds);
    free(loader->finished);
    free(loader->window.wants);
    free(loader->window.spares);
    free(loader->window.fetches);
    free(loader->workers);
    free(loader->worker_threads);
    free(loader->fetches);
    pthread_cond_destroy(&loader->feeder_work);
    pthread_cond_destroy(&loader->batch_ready);
    pthread_cond_destroy(&loader->work_ready);
    pthread_mutex_destroy(&loader->lock);
    free(loader);
    *out = NULL;
}
