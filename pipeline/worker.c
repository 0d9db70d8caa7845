// The threads that do the work: they take a record's bytes, unpack and verify them, and render its
// views into the record's place in the batch. They decide nothing, and hold no lock while they
// work.
#include "pipeline/stream.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define WORKER_NICENESS     5
#define WORKER_THREAD_BYTES (256u << 10) // what a thread touches of its stack, at most

enum status worker_open(struct worker *worker, struct loader *loader, struct error *error)
{
    worker->loader = loader;
    enum status status = image_decoder_open(&worker->decoder, error);
    if (status == STATUS_OK) {
        status = image_decoder_reserve(worker->decoder, dataset_max_width(loader->dataset),
                                       dataset_max_pixels(loader->dataset), error);
    }
    if (status == STATUS_OK) {
        status = dataset_unpacker_open(&worker->unpacker, loader->dataset, error);
    }
    if (status == STATUS_OK) {
        status = view_scratch_open(&worker->scratch, (uint32_t)loader->config.recipe.size, error);
    }
    // No window of any image needs more, so decoding never allocates planes.
    struct dataset_record widest = dataset_record(loader->dataset, dataset_widest(loader->dataset));
    for (uint32_t view = 0; status == STATUS_OK && view < loader->config.recipe.views; view++) {
        status = image_planes_reserve(&worker->crops[view], widest.width, widest.height, error);
    }
    return status;
}

uint64_t worker_bytes(const struct worker *worker)
{
    uint64_t bytes = sizeof *worker + WORKER_THREAD_BYTES +
                     dataset_unpacker_bytes(worker->unpacker) +
                     image_decoder_memory(worker->decoder) +
                     view_scratch_memory((uint32_t)worker->loader->config.recipe.size);
    for (uint32_t view = 0; view < RECIPE_MAX_VIEWS; view++) {
        bytes += worker->crops[view].capacity;
    }
    return bytes;
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

// What became of the read that brings the record.
static enum status check_read(struct worker *worker, const struct place *place,
                              const struct dataset_record *record, struct error *error)
{
    const struct fetch *fetch = place->fetch;
    const struct read_request *request = &fetch->request;
    uint64_t end = record->offset - request->offset + record->stored_length;
    if (request->done >= end) {
        return STATUS_OK;
    }
    if (fetch->shared) { // perhaps another record's fault
        worker->again = true;
        return STATUS_IO;
    }
    const char *path = dataset_file_path(worker->loader->dataset, record->file);
    if (request->errnum != 0) {
        error_errno(error, request->errnum, path, request->offset + request->done, "read");
        error->record = place->record;
        // Whatever the cause: the bytes may be good, so this is not a bad record.
        return error->status = STATUS_IO;
    }
    return error_set(error, STATUS_TRUNCATED, path, request->offset + request->done, place->record,
                     "the file ends %u bytes before the record does", request->len - request->done);
}

// The image file's bytes: from memory, or out of what was read.
static enum status get_bytes(struct worker *worker, const struct place *place,
                             const struct dataset_record *record, const uint8_t **bytes,
                             size_t *len, struct error *error)
{
    const struct fetch *fetch = place->fetch;
    if (!fetch) {
        *bytes = cache_find(&worker->loader->cache, place->record);
        *len = record->length;
        worker->again = *bytes == NULL;
        worker->kept += *bytes != NULL;
        return *bytes ? STATUS_OK : STATUS_IO;
    }
    enum status status = check_read(worker, place, record, error);
    if (status != STATUS_OK) {
        return status;
    }
    const uint8_t *stored = fetch->request.buf + (record->offset - fetch->request.offset);
    return dataset_unpack(worker->unpacker, place->record, stored, bytes, len, error);
}

// Completes an error of the decoder, which knows only the image's bytes.
static enum status locate(const struct worker *worker, const struct place *place,
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
                     offset, place->record, "%s", reason);
}

// Charges the time since the last lap to a stage: one look at the clock for each stage.
static void lap(struct worker *worker, double *stage)
{
    double now = stream_seconds();
    *stage += now - worker->lap;
    worker->lap = now;
}

static enum status render(struct worker *worker, const struct slot *slot, uint32_t index,
                          uint32_t view, const struct view_params *params, struct error *error)
{
    const struct loader_config *config = &worker->loader->config;
    const struct batch *batch = &slot->batch;
    const struct image_planes *crop = &worker->crops[view];
    size_t at = index * (size_t)params->size * params->size * 3;
    if (config->bytes) {
        batch->drawn[view][index] = view_record_of(params);
        return view_render_bytes(params, crop, worker->scratch, batch->bytes[view] + at, error);
    }
    return view_render(params, crop, &config->output, worker->scratch, batch->view[view] + at,
                       error);
}

// Draws the views, decodes the windows they want, renders them into the position's place.
static enum status produce_views(struct worker *worker, const struct slot *slot, uint32_t index,
                                 const struct dataset_record *record, const uint8_t *bytes,
                                 size_t len, struct error *error)
{
    const struct loader_config *config = &worker->loader->config;
    uint32_t views = (uint32_t)config->recipe.views;
    struct view_params params[RECIPE_MAX_VIEWS];
    struct image_window windows[RECIPE_MAX_VIEWS];
    for (uint32_t view = 0; view < views; view++) {
        const struct view_key key = {.seed = config->seed,
                                     .record = slot->places[index].record,
                                     .epoch = slot->batch.position.epoch,
                                     .view = view};
        view_draw(&config->recipe, key, record->width, record->height, &params[view]);
        windows[view] = params[view].crop;
    }
    enum status status =
        image_decode_windows(worker->decoder, bytes, len, windows, views, worker->crops, error);
    lap(worker, &worker->decode);
    if (status != STATUS_OK) {
        return locate(worker, &slot->places[index], record, error);
    }
    for (uint32_t view = 0; status == STATUS_OK && view < views; view++) {
        status = render(worker, slot, index, view, &params[view], error);
    }
    lap(worker, &worker->augment);
    return status;
}

// Everything between arrived bytes and finished views of one position.
static enum status produce(struct worker *worker, struct slot *slot, uint32_t index,
                           struct error *error)
{
    const struct place *place = &slot->places[index];
    struct dataset_record record = dataset_record(worker->loader->dataset, place->record);
    const uint8_t *bytes;
    size_t len;
    worker->again = false;
    enum status status = get_bytes(worker, place, &record, &bytes, &len, error);
    lap(worker, &worker->unpack);
    if (status == STATUS_OK) {
        status = produce_views(worker, slot, index, &record, bytes, len, error);
        worker->bytes += len;
    }
    slot->records[index] = place->record;
    slot->labels[index] = record.label;
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
static bool replace(struct loader *loader, struct slot *slot, uint32_t index, struct error *error)
{
    struct place *place = &slot->places[index];
    if (place->attempt == 0) {
        skips_note(&slot->skips, index, error);
    }
    if (place->attempt >= loader->max_skips || place->attempt + 1 >= loader->records) {
        char reason[sizeof error->reason / 2];
        snprintf(reason, sizeof reason, "%.*s", (int)sizeof reason - 1, error->reason);
        snprintf(error->reason, sizeof error->reason,
                 "%llu bad records in a row, more than may be skipped; the last: %s",
                 (unsigned long long)place->attempt + 1, reason);
        return false;
    }
    place->attempt++;
    place->alone = false;
    stream_again(loader, place, slot, index);
    return true;
}

static void give_bytes(struct loader *loader, const struct place *place)
{
    if (place->fetch) {
        stream_give(loader, place->fetch);
    }
}

static void settle(struct loader *loader, struct slot *slot, uint32_t count)
{
    slot->remaining -= count;
    if (slot->remaining == 0) {
        slot->state = SLOT_READY;
        if (slot->batch.sequence == loader->delivered && loader->consumer_waits) {
            pthread_cond_signal(&loader->batch_ready);
        }
    }
}

// A position that did not come out well: it is decided again, or ends the stream.
static void settle_failed(struct worker *worker, struct slot *slot, uint32_t index,
                          enum status status, struct error *error)
{
    struct loader *loader = worker->loader;
    struct place *place = &slot->places[index];
    pthread_mutex_lock(&loader->lock);
    give_bytes(loader, place);
    if (worker->again) {
        place->alone = true;
        stream_again(loader, place, slot, index);
    } else if (loader->config.policy != LOADER_SKIP || !bad_record(status) ||
               !replace(loader, slot, index, error)) {
        ring_fail(slot, index, error);
        settle(loader, slot, 1);
    }
    pthread_mutex_unlock(&loader->lock);
}

// Of random records in a large dataset every look at one is a wait for memory, unless it is fetched
// in time.
static void expect(const struct loader *loader, const struct place *place)
{
    dataset_expect(loader->dataset, place->record);
    if (!place->fetch) {
        cache_expect(&loader->cache, place->record);
    }
}

// Works on a run; which of its positions did not come out well, as bits.
static uint32_t work_on(struct worker *worker, struct slot *slot, uint32_t first, uint32_t count)
{
    struct error error;
    uint32_t failed = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i + 1 < count) {
            expect(worker->loader, &slot->places[first + i + 1]);
        }
        enum status status = produce(worker, slot, first + i, &error);
        if (status != STATUS_OK) {
            settle_failed(worker, slot, first + i, status, &error);
            failed |= 1u << i;
        }
    }
    return failed;
}

static void take_run(struct worker *worker)
{
    struct loader *loader = worker->loader;
    struct run *run = loader->ready.head;
    loader->ready.head = run->next;
    loader->ready_count--;
    struct slot *slot = run->slot;
    uint32_t first = run->first, count = run->count, good = 0; // a failed position reuses the run
    pthread_mutex_unlock(&loader->lock);
    uint32_t failed = work_on(worker, slot, first, count);
    pthread_mutex_lock(&loader->lock);
    for (uint32_t i = 0; i < count; i++) {
        if (!(failed >> i & 1)) {
            give_bytes(loader, &slot->places[first + i]);
            good++;
        }
    }
    settle(loader, slot, good);
}

static void take_block(struct worker *worker)
{
    struct loader *loader = worker->loader;
    struct fetch *fetch = loader->arrived;
    struct cache_block *block = fetch->block;
    loader->arrived = fetch->next;
    loader->ready_count--;
    pthread_mutex_unlock(&loader->lock);
    cache_fill(&loader->cache, block, worker->unpacker,
               fetch->request.buf + (block->offset - fetch->request.offset));
    lap(worker, &worker->unpack);
    pthread_mutex_lock(&loader->lock);
    block->state = CACHE_PRESENT;
    block->fetch = NULL;
    stream_wake_workers(loader, stream_arrive(loader, fetch));
    stream_give(loader, fetch);
}

// Waits until there is something to do; false at shutdown.
static bool wait_for_work(struct loader *loader)
{
    while (!loader->closing && loader->ready_count == 0) {
        stream_count_idle(loader);
        loader->idle_workers++;
        pthread_cond_wait(&loader->work_ready, &loader->lock);
        stream_count_idle(loader);
        loader->idle_workers--;
    }
    return !loader->closing;
}

static void account(struct worker *worker)
{
    struct loader_counters *counters = &worker->loader->counters;
    counters->unpack += worker->unpack;
    counters->decode += worker->decode;
    counters->augment += worker->augment;
    counters->bytes += worker->bytes;
    counters->kept += worker->kept;
    worker->unpack = worker->decode = worker->augment = 0;
    worker->bytes = worker->kept = 0;
}

// Wakes the feeder when it can do something that it could not.
static void nudge_feeder(struct loader *loader)
{
    bool has_room = stream_fetches_in_use(loader) <= loader->ahead / 2;
    bool half_empty = loader->arena.head - loader->arena.tail <= loader->arena.size / 2;
    if (loader->again || (loader->wants_room && has_room) || (loader->wants_arena && half_empty) ||
        (loader->in_flight > 0 && loader->feeder == FEEDER_ASLEEP && !stream_plenty(loader))) {
        stream_wake_feeder(loader);
    }
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
    pthread_mutex_lock(&loader->lock);
    while (wait_for_work(loader)) {
        worker->lap = stream_seconds();
        if (loader->arrived) {
            take_block(worker);
        } else {
            take_run(worker);
        }
        account(worker);
        nudge_feeder(loader);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}
