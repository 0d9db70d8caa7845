// What the feeder, the workers and the consumer all need: queues, the walk over batches, who is
// woken when, the account of idle time.
#include "pipeline/stream.h"

#include <time.h>

double stream_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void stream_advance(const struct loader *loader, struct loader_position *position)
{
    if (++position->batch == loader->batches_per_epoch) {
        position->batch = 0;
        position->epoch++;
    }
}

bool stream_over(const struct loader *loader, struct loader_position position)
{
    return loader->config.epochs > 0 && position.epoch >= loader->config.epochs;
}

void stream_count_idle(struct loader *loader)
{
    double now = stream_seconds(), waited = (now - loader->idle_since) * loader->idle_workers;
    loader->idle_since = now;
    if (loader->idle_cause == IDLE_READ) {
        loader->counters.read_wait += waited;
    } else if (loader->idle_cause == IDLE_SLOT) {
        loader->counters.slot_wait += waited;
    }
}

void stream_wake_feeder(struct loader *loader)
{
    if (loader->feeder == FEEDER_ASLEEP) {
        pthread_cond_signal(&loader->feeder_work);
    } else if (loader->feeder == FEEDER_READING) {
        reader_wake(&loader->reader);
    }
    loader->feeder = FEEDER_BUSY; // once is enough
}

void stream_wake_workers(struct loader *loader, uint32_t added)
{
    uint32_t count = added < loader->idle_workers ? added : loader->idle_workers;
    while (count-- > 0) {
        pthread_cond_signal(&loader->work_ready);
    }
}

bool stream_ready(struct loader *loader, struct run *run)
{
    if (run->waiting > 0) {
        return false;
    }
    run->next = NULL;
    if (loader->ready.head) {
        loader->ready.tail->next = run;
    } else {
        loader->ready.head = run;
    }
    loader->ready.tail = run;
    loader->ready_count++;
    return true;
}

uint32_t stream_arrive(struct loader *loader, struct fetch *fetch)
{
    uint32_t became_ready = 0;
    for (struct place *place = fetch->places, *next; place; place = next) {
        next = place->next;
        place->run->waiting--;
        became_ready += stream_ready(loader, place->run);
    }
    fetch->places = NULL;
    return became_ready;
}

void stream_give(struct loader *loader, struct fetch *fetch)
{
    arena_give(&loader->arena, fetch->piece);
    if (--fetch->users == 0) {
        fetch->next = loader->free_fetches;
        loader->free_fetches = fetch;
        loader->free_count++;
    }
}

void stream_again(struct loader *loader, struct place *place, struct slot *slot, uint32_t index)
{
    struct run *run = &slot->runs[index];
    *run = (struct run){.slot = slot, .first = index, .count = 1};
    place->run = run;
    place->next = NULL;
    *loader->again_end = place;
    loader->again_end = &place->next;
}

bool stream_plenty(const struct loader *loader)
{
    return loader->ready_count > loader->config.workers;
}

uint32_t stream_fetches_in_use(const struct loader *loader)
{
    return loader->fetch_count - loader->free_count;
}
