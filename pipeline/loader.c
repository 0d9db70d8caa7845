// The consumer's side of a loader: batches out, slots back, counters. How it is built and taken
// down: loader_open.c.
#include "pipeline/stream.h"

// Adds the batch's bad records to the list; false when that passes the cap, with the stream ended.
static bool accept_skips(struct loader *loader, const struct slot *slot)
{
    for (size_t i = 0; i < slot->skips.count; i++) {
        const struct skip_note *note = &slot->skips.notes[i];
        if (slot->failed && note->index > slot->failed_index) {
            break; // the stream ends before
        }
        if (!skips_add(&loader->skips, note)) {
            struct error last;
            skips_error(note, loader->dataset, &last);
            error_set(&loader->ended, last.status, last.path, last.offset, last.record,
                      "more than %llu bad records, the most that may be skipped; this one: %s",
                      (unsigned long long)loader->max_skips, last.reason);
            return false;
        }
    }
    return true;
}

static void wait_for_batch(struct loader *loader)
{
    double start = stream_seconds();
    loader->consumer_waits = true;
    pthread_cond_wait(&loader->batch_ready, &loader->lock);
    loader->consumer_waits = false;
    loader->counters.consumer_wait += stream_seconds() - start;
}

// The slot of the next batch once it is complete, or NULL when the stream ended.
static struct slot *next_slot(struct loader *loader)
{
    if (loader->ended.status == STATUS_OK && stream_over(loader, loader->position)) {
        error_set(&loader->ended, STATUS_END, NULL, NOWHERE, NOWHERE, "the last epoch is over");
    }
    while (loader->ended.status == STATUS_OK) {
        struct slot *slot = ring_find(&loader->ring, loader->delivered);
        if (slot && slot->state == SLOT_READY) {
            if (!accept_skips(loader, slot)) {
                return NULL;
            }
            if (slot->failed) {
                loader->ended = slot->error;
                return NULL;
            }
            return slot;
        }
        if (loader->broken) {
            loader->ended = loader->broken_error;
            return NULL;
        }
        wait_for_batch(loader);
    }
    return NULL;
}

enum status loader_next(struct loader *loader, const struct batch **batch, struct error *error)
{
    *batch = NULL;
    pthread_mutex_lock(&loader->lock);
    struct slot *slot = next_slot(loader);
    if (slot) {
        slot->state = SLOT_OUT;
        *batch = &slot->batch;
        loader->delivered++;
        stream_advance(loader, &loader->position);
        loader->counters.batches++;
        loader->counters.records += slot->batch.count;
    }
    enum status status = loader->ended.status;
    if (status != STATUS_OK && error) {
        *error = loader->ended;
    }
    pthread_mutex_unlock(&loader->lock);
    return status;
}

void loader_release(struct loader *loader, const struct batch *batch)
{
    pthread_mutex_lock(&loader->lock);
    for (uint32_t i = 0; i < loader->ring.count; i++) {
        struct slot *slot = &loader->ring.slots[i];
        if (&slot->batch == batch && slot->state == SLOT_OUT) {
            slot->state = SLOT_FREE;
            if (loader->wants_slot) {
                stream_wake_feeder(loader);
            }
        }
    }
    pthread_mutex_unlock(&loader->lock);
}

uint64_t loader_batches_per_epoch(const struct loader *loader)
{
    return loader->batches_per_epoch;
}

enum loader_io loader_io_used(const struct loader *loader)
{
    return loader->reader.used;
}

bool loader_direct_used(const struct loader *loader)
{
    return loader->direct;
}

uint32_t loader_workers(const struct loader *loader)
{
    return loader->config.workers;
}

uint64_t loader_memory(const struct loader *loader)
{
    return loader->memory;
}

struct loader_counters loader_counters(const struct loader *constant)
{
    // Reading takes the lock, which changes nothing that a caller can see.
    struct loader *loader = (struct loader *)(uintptr_t)constant;
    pthread_mutex_lock(&loader->lock);
    stream_count_idle(loader);
    struct loader_counters counters = loader->counters;
    counters.skips = loader->skips.count;
    counters.ahead = loader->ahead;
    pthread_mutex_unlock(&loader->lock);
    return counters;
}

size_t loader_skips(const struct loader *constant, struct loader_skip *out, size_t capacity)
{
    struct loader *loader = (struct loader *)(uintptr_t)constant;
    pthread_mutex_lock(&loader->lock);
    size_t count = loader->skips.count;
    for (size_t i = 0; i < count && i < capacity; i++) {
        out[i].record = loader->skips.notes[i].record;
        skips_error(&loader->skips.notes[i], loader->dataset, &out[i].error);
    }
    pthread_mutex_unlock(&loader->lock);
    return count;
}
