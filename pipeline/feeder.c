// The one thread that decides. It walks the stream position by position, names the record and the
// place in the ring for each, and keeps up to `depth` reads in flight; workers take what arrived.
// Nothing that a worker does changes what is decided here, except that a bad record's position
// comes back and gets the next record of the order.
#include "pipeline/stream.h"

// Where this rank's part of a batch of `total` records begins; `rank` may be `ranks`.
static uint64_t share_begin(uint64_t total, uint32_t rank, uint32_t ranks)
{
    return total / ranks * rank + total % ranks * rank / ranks;
}

// Begins the next batch in a free slot. False when the stream is over or no slot is free.
static bool begin_batch(struct loader *loader)
{
    const struct loader_config *config = &loader->config;
    if (stream_over(loader, loader->feeding)) {
        return false;
    }
    struct slot *slot = ring_free_slot(&loader->ring);
    if (!slot) {
        return false;
    }
    uint64_t whole = (uint64_t)config->batch * config->ranks;
    uint64_t first = loader->feeding.batch * whole;
    uint64_t total = loader->records - first < whole ? loader->records - first : whole;
    uint64_t begin = share_begin(total, config->rank, config->ranks);
    uint64_t end = share_begin(total, config->rank + 1, config->ranks);
    order_init(&slot->order, loader->records, config->seed, loader->feeding.epoch, config->shuffle);
    slot->first = first + begin;
    ring_begin(slot, loader->feeding, loader->begun++, (uint32_t)(end - begin));
    stream_advance(loader, &loader->feeding);
    if (slot->state == SLOT_READY) {
        pthread_cond_signal(&loader->batch_ready); // a rank's part of a short batch can be empty
    } else {
        loader->filling = slot;
    }
    return true;
}

// A task for the next position of the stream, or NULL when there is none now.
static struct task *decide(struct loader *loader)
{
    while (!loader->filling) {
        if (!begin_batch(loader)) {
            return NULL;
        }
    }
    struct task *task = task_pop(&loader->idle);
    if (task) {
        task->slot = loader->filling;
        task->index = loader->filling->issued++;
        task->attempt = 0;
        if (loader->filling->issued == loader->filling->batch.count) {
            loader->filling = NULL;
        }
    }
    return task;
}

static struct task *next_task(struct loader *loader)
{
    struct task *task = loader->pending;
    loader->pending = NULL;
    if (!task) {
        task = task_pop(&loader->retries); // first: a batch waits for it
    }
    return task ? task : decide(loader);
}

// Starts the task's read; false when the arena has no room.
static bool start(struct loader *loader, struct task *task)
{
    uint64_t position = (task->slot->first + task->index + task->attempt) % loader->records;
    task->record = order_at(&task->slot->order, position);
    struct dataset_record record = dataset_record(loader->dataset, task->record);
    uint8_t *buf = arena_take(&loader->arena, record.stored_length, &task->piece);
    if (!buf) {
        return false;
    }
    task->request = (struct read_request){
        .file = record.file, .len = record.stored_length, .offset = record.offset, .buf = buf};
    reader_submit(&loader->reader, &task->request);
    loader->in_flight++;
    return true;
}

static void set_idle_cause(struct loader *loader)
{
    enum idle_cause cause = IDLE_READ;
    if (loader->in_flight == 0 && !loader->pending && !loader->filling) {
        cause = stream_over(loader, loader->feeding) ? IDLE_END : IDLE_SLOT;
    }
    if (cause != loader->idle_cause) {
        stream_count_idle(loader);
        loader->idle_cause = cause;
    }
}

static void start_all(struct loader *loader)
{
    loader->feeder_blocked = false;
    while (loader->in_flight < loader->config.depth) {
        struct task *task = next_task(loader);
        if (!task) {
            loader->feeder_blocked = true;
            break;
        }
        if (!start(loader, task)) {
            loader->pending = task;
            loader->feeder_blocked = true;
            break;
        }
    }
    set_idle_cause(loader);
}

static void hand_over(struct loader *loader, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        loader->counters.bytes += loader->finished[i]->done;
        task_push(&loader->ready, (struct task *)(void *)loader->finished[i]);
        pthread_cond_signal(&loader->work_ready);
    }
    loader->in_flight -= (uint32_t)count;
}

void *feeder_main(void *argument)
{
    struct loader *loader = argument;
    struct error error;
    pthread_mutex_lock(&loader->lock);
    while (!loader->closing && !loader->broken) {
        start_all(loader);
        pthread_mutex_unlock(&loader->lock);
        size_t count;
        enum status status =
            reader_wait(&loader->reader, loader->finished, loader->config.depth, &count, &error);
        pthread_mutex_lock(&loader->lock);
        if (status == STATUS_OK) {
            hand_over(loader, count);
        } else {
            loader->broken = true;
            loader->broken_error = error;
            pthread_cond_signal(&loader->batch_ready);
        }
    }
    pthread_mutex_unlock(&loader->lock);
    // The kernel ties reads to the thread that asked for them, so they are reaped here.
    reader_drain(&loader->reader);
    return NULL;
}
