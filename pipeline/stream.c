// What the feeder, the workers and the consumer all need: queues, the walk over batches, the
// account of idle time.
#include "pipeline/stream.h"

#include <time.h>

double stream_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void task_push(struct task_queue *queue, struct task *task)
{
    task->next = NULL;
    if (queue->head) {
        *queue->tail = task;
    } else {
        queue->head = task;
    }
    queue->tail = &task->next;
}

struct task *task_pop(struct task_queue *queue)
{
    struct task *task = queue->head;
    if (task) {
        queue->head = task->next;
    }
    return task;
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
    loader->feeder_blocked = false; // once is enough
    reader_wake(&loader->reader);
}
