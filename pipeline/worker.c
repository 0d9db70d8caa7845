// The threads that do the work: they take a record's bytes, unpack and verify them, and render its
// views into the record's place in the batch. They decide nothing, and hold no lock while they
// work.
#include "pipeline/stream.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define WORKER_NICENESS 5

enum status worker_open(struct worker *worker, struct loader *loader, struct error *error)
{
    worker->loader = loader;
    enum status status = image_decoder_open(&worker->decoder, error);
    if (status == STATUS_OK) {
        status = dataset_unpacker_open(&worker->unpacker, loader->dataset, error);
    }
    if (status == STATUS_OK) {
        status = view_scratch_open(&worker->scratch, (uint32_t)loader->config.recipe.size, error);
    }
    // Any shape with as many pixels as the largest image, so that decoding hardly ever allocates.
    uint64_t pixels = dataset_max_pixels(loader->dataset);
    uint32_t width = pixels < 2048 ? (uint32_t)pixels : 2048;
    uint32_t height = (uint32_t)((pixels + width - 1) / width);
    for (uint32_t view = 0; status == STATUS_OK && view < loader->config.recipe.views; view++) {
        status = image_planes_reserve(&worker->crops[view], width, height, error);
    }
    return status;
}

void worker_close(struct worker *worker)
{
    for (uint32_t view = 0; view < RECIPE_MAX_VIEWS; view++) {
        image_planes_free(&worker->crops[view]);
    }
    view_scratch_close(&worker->scratch);
    dataset_unpacker_close(&worker->unpacker);
    image_decoder_close(&worker->decoder);
}

// What became of the read.
static enum status check_read(const struct worker *worker, const struct task *task,
                              const struct dataset_record *record, struct error *error)
{
    const struct read_request *request = &task->request;
    const char *path = dataset_file_path(worker->loader->dataset, record->file);
    if (request->errnum != 0) {
        error_errno(error, request->errnum, path, request->offset + request->done, "read");
        error->record = task->record;
        // Whatever the cause: the bytes may be good, so this is not a bad record.
        return error->status = STATUS_IO;
    }
    if (request->done < request->len) {
        return error_set(error, STATUS_TRUNCATED, path, request->offset + request->done,
                         task->record, "the file ends %u bytes before the record does",
                         request->len - request->done);
    }
    return STATUS_OK;
}

// Completes an error of the decoder, which knows only the image's bytes.
static enum status locate(const struct worker *worker, const struct task *task,
                          const struct dataset_record *record, struct error *error)
{
    char reason[sizeof error->reason];
    memcpy(reason, error->reason, sizeof reason);
    uint64_t offset = record->offset;
    if (record->coding == DATASET_CODING_RAW && error->offset != NOWHERE) {
        offset += error->offset;
    }
    // A window outside the image is the index and the image disagreeing about its size.
    enum status status = error->status == STATUS_INVALID ? STATUS_CORRUPT : error->status;
    return error_set(error, status, dataset_file_path(worker->loader->dataset, record->file),
                     offset, task->record, "%s", reason);
}

// Charges the time since the last lap to a stage: one look at the clock for each stage.
static void lap(struct worker *worker, double *stage)
{
    double now = stream_seconds();
    *stage += now - worker->lap;
    worker->lap = now;
}

// Draws the views, decodes the windows they want, renders them.
static enum status produce_views(struct worker *worker, const struct task *task,
                                 const struct dataset_record *record, const uint8_t *bytes,
                                 size_t len, struct error *error)
{
    const struct loader_config *config = &worker->loader->config;
    uint32_t views = (uint32_t)config->recipe.views;
    struct view_params params[RECIPE_MAX_VIEWS];
    struct image_window windows[RECIPE_MAX_VIEWS];
    for (uint32_t view = 0; view < views; view++) {
        const struct view_key key = {.seed = config->seed,
                                     .record = task->record,
                                     .epoch = task->slot->batch.position.epoch,
                                     .view = view};
        view_draw(&config->recipe, key, record->width, record->height, &params[view]);
        windows[view] = params[view].crop;
    }
    enum status status =
        image_decode_windows(worker->decoder, bytes, len, windows, views, worker->crops, error);
    lap(worker, &worker->decode);
    if (status != STATUS_OK) {
        return locate(worker, task, record, error);
    }
    size_t values = (size_t)config->recipe.size * (size_t)config->recipe.size * 3;
    for (uint32_t view = 0; status == STATUS_OK && view < views; view++) {
        float *out = task->slot->batch.view[view] + task->index * values;
        status = view_render(&params[view], &worker->crops[view], &config->output, worker->scratch,
                             out, error);
    }
    lap(worker, &worker->augment);
    return status;
}

// Everything between arrived bytes and finished views of one position.
static enum status produce(struct worker *worker, struct task *task, struct error *error)
{
    struct loader *loader = worker->loader;
    struct dataset_record record = dataset_record(loader->dataset, task->record);
    worker->unpack = worker->decode = worker->augment = 0;
    worker->lap = stream_seconds();
    enum status status = check_read(worker, task, &record, error);
    if (status != STATUS_OK) {
        return status;
    }
    const uint8_t *bytes;
    size_t len;
    status = dataset_unpack(worker->unpacker, task->record, task->request.buf, &bytes, &len, error);
    lap(worker, &worker->unpack);
    if (status == STATUS_OK) {
        status = produce_views(worker, task, &record, bytes, len, error);
    }
    task->slot->records[task->index] = task->record;
    task->slot->labels[task->index] = record.label;
    return status;
}

// Whether the bytes are at fault, rather than the machine.
static bool bad_record(enum status status)
{
    return status == STATUS_CORRUPT || status == STATUS_TRUNCATED || status == STATUS_UNSUPPORTED ||
           status == STATUS_LIMIT;
}

// With the skip policy, sends the position of a bad record back for the next one of the order.
// False when too many in a row were bad: then so many of the dataset are.
static bool replace(struct loader *loader, struct task *task, struct error *error)
{
    if (task->attempt == 0) {
        skips_note(&task->slot->skips, task->index, error);
    }
    if (task->attempt >= loader->max_skips || task->attempt + 1 >= loader->records) {
        char reason[sizeof error->reason / 2];
        snprintf(reason, sizeof reason, "%.*s", (int)sizeof reason - 1, error->reason);
        snprintf(error->reason, sizeof error->reason,
                 "%llu bad records in a row, more than may be skipped; the last: %s",
                 (unsigned long long)task->attempt + 1, reason);
        return false;
    }
    task->attempt++;
    task_push(&loader->retries, task);
    stream_wake_feeder(loader);
    return true;
}

static void settle(struct loader *loader, struct task *task, enum status status,
                   struct error *error)
{
    struct slot *slot = task->slot;
    arena_give(&loader->arena, task->piece);
    if (status != STATUS_OK) {
        if (loader->config.policy == LOADER_SKIP && bad_record(status) &&
            replace(loader, task, error)) {
            return;
        }
        ring_fail(slot, task->index, error);
    }
    task_push(&loader->idle, task);
    if (--slot->remaining == 0) {
        slot->state = SLOT_READY;
        pthread_cond_signal(&loader->batch_ready);
    }
    if (loader->feeder_blocked) {
        stream_wake_feeder(loader);
    }
}

// The next task that was read; NULL at shutdown.
static struct task *wait_for_task(struct loader *loader)
{
    while (!loader->closing && !loader->ready.head) {
        stream_count_idle(loader);
        loader->idle_workers++;
        pthread_cond_wait(&loader->work_ready, &loader->lock);
        stream_count_idle(loader);
        loader->idle_workers--;
    }
    return loader->closing ? NULL : task_pop(&loader->ready);
}

// Workers give way to the trainer's threads, which meet at a barrier many times a step: when one of
// them loses its core to a worker, all of them wait. Batches are made ahead, so workers can.
static void give_way(void)
{
    setpriority(PRIO_PROCESS, 0, WORKER_NICENESS); // Linux: of the calling thread alone
}

void *worker_main(void *argument)
{
    struct worker *worker = argument;
    give_way();
    struct loader *loader = worker->loader;
    struct error error;
    struct task *task;
    pthread_mutex_lock(&loader->lock);
    while ((task = wait_for_task(loader))) {
        pthread_mutex_unlock(&loader->lock);
        enum status status = produce(worker, task, &error);
        pthread_mutex_lock(&loader->lock);
        loader->counters.unpack += worker->unpack;
        loader->counters.decode += worker->decode;
        loader->counters.augment += worker->augment;
        settle(loader, task, status, &error);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}
