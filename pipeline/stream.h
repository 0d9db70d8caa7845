// The inside of a loader: what its threads share. How they work together: pipeline/README.md.
#ifndef PIPELINE_STREAM_H
#define PIPELINE_STREAM_H

#include "augment/view.h"
#include "pipeline/arena.h"
#include "pipeline/loader.h"
#include "pipeline/reader.h"
#include "pipeline/ring.h"

#include <pthread.h>

// One position of one batch on its way: decided, read, rendered. Belongs to the queue or the thread
// that holds it.
struct task {
    struct read_request request; // first, so that a finished request is its task
    struct task *next;
    struct slot *slot;
    uint32_t index;   // in the batch
    uint64_t attempt; // 0: the record at this position of the order; k: the k-th after it
    uint64_t record;  // of the dataset
    uint32_t piece;
};

struct task_queue {
    struct task *head, **tail; // `tail` is NULL while empty
};
void task_push(struct task_queue *queue, struct task *task);
struct task *task_pop(struct task_queue *queue); // NULL when empty

// Why workers without a task have none.
enum idle_cause { IDLE_READ, IDLE_SLOT, IDLE_END };

struct worker {
    struct loader *loader;
    struct image_decoder *decoder;
    struct dataset_unpacker *unpacker;
    struct view_scratch *scratch;
    struct image_planes crops[RECIPE_MAX_VIEWS];
    double unpack, decode, augment; // seconds of the task just done
    double lap;                     // when its last stage ended
};

struct loader {
    // Fixed at open.
    const struct dataset *dataset;
    struct loader_config config;
    uint64_t records; // of the dataset
    uint64_t batches_per_epoch, max_skips, memory;
    int *fds;
    uint32_t file_count;
    struct worker *workers;
    pthread_t *worker_threads, feeder_thread;
    uint32_t workers_started;
    bool feeder_started;

    // The feeder's own.
    struct reader reader;
    struct read_request **finished; // [depth]

    pthread_mutex_t lock;       // guards everything below; held only for a few instructions
    pthread_cond_t work_ready;  // `ready` grew, or closing
    pthread_cond_t batch_ready; // a slot became READY, or broken
    struct ring ring;
    struct arena arena;
    struct task *tasks;
    uint32_t task_count;
    struct task_queue idle, retries, ready;
    struct task *pending;           // decided, but the arena has no room yet
    struct slot *filling;           // the batch whose positions are being decided, NULL between two
    struct loader_position feeding; // of the next batch to begin
    uint64_t begun;                 // batches
    uint32_t in_flight;             // reads
    bool feeder_blocked;            // it waits for a task, a slot or room in the arena
    bool closing;
    bool broken; // the reader's machinery failed: `broken_error`
    struct error broken_error;

    // The consumer's end.
    struct loader_position position; // of the next batch to deliver
    uint64_t delivered;
    struct error ended; // why the stream is over; status OK until then
    struct skips skips;

    struct loader_counters counters;
    enum idle_cause idle_cause;
    uint32_t idle_workers;
    double idle_since;
};

double stream_seconds(void); // monotonic

// All of these are called with the lock held.
void stream_advance(const struct loader *loader, struct loader_position *position);
bool stream_over(const struct loader *loader, struct loader_position position);
void stream_count_idle(struct loader *loader); // charges the time since the last call
void stream_wake_feeder(struct loader *loader);

// Threads' mains; the argument is the loader, or the worker.
void *feeder_main(void *loader);
void *worker_main(void *worker);

enum status worker_open(struct worker *worker, struct loader *loader, struct error *error);
void worker_close(struct worker *worker); // accepts a zeroed or half-built one

#endif
