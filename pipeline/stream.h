// The inside of a loader: what its threads share. How they work together: pipeline/README.md.
#ifndef PIPELINE_STREAM_H
#define PIPELINE_STREAM_H

#include "augment/view.h"
#include "pipeline/arena.h"
#include "pipeline/cache.h"
#include "pipeline/loader.h"
#include "pipeline/reader.h"
#include "pipeline/ring.h"

#include <pthread.h>

#define STREAM_RUN_MAX 32u // positions a worker takes at once, at most

// One read: the bytes of a record, of several that lie close together, or of a block of the cache.
struct fetch {
    struct read_request request; // first, so that a finished request is its fetch
    struct fetch *next;          // of those free, or of the blocks that have arrived
    struct cache_block *block;   // that it brings, or NULL
    struct place *places;        // that wait for it
    uint32_t users;              // places that have not been worked on; 1 for a block
    uint32_t piece;              // of the arena
    bool shared; // it reads more than one record's extent, so its failure is not that record's
};

// A record that must be read, while the feeder looks for its neighbours.
struct want {
    uint64_t offset;
    uint32_t file, length;
    struct place *place;
};

// The reads that the feeder has decided on and not yet begun, because the arena has no room.
struct window {
    struct want *wants; // [depth]
    uint32_t want_count;
    struct fetch **spares; // [depth]; one for each want, until neighbours are known
    uint32_t spare_count;
    struct fetch **fetches; // [depth]
    uint32_t fetch_count;
    uint64_t bytes; // upper bound of what its reads need in the arena
};

struct run_queue {
    struct run *head, *tail;
};

// Why workers without a task have none.
enum idle_cause { IDLE_READ, IDLE_SLOT, IDLE_END };

enum feeder_state { FEEDER_BUSY, FEEDER_ASLEEP, FEEDER_READING };

struct worker {
    struct loader *loader;
    struct image_decoder *decoder;
    struct dataset_unpacker *unpacker;
    struct view_scratch *scratch;
    struct image_planes crops[RECIPE_MAX_VIEWS];
    bool again;                     // the position's bytes must be read by themselves
    double unpack, decode, augment; // seconds since the worker last took the lock
    double lap;                     // when its last stage ended
    uint64_t bytes, kept;           // of these records
};

struct loader {
    // Fixed at open.
    const struct dataset *dataset;
    struct loader_config config;
    uint64_t records; // of the dataset
    uint64_t batches_per_epoch, max_skips, memory;
    int *fds;            // the store's files; then, with direct, the same again past the page cache
    uint32_t file_count; // of the store
    uint32_t opened;     // entries of `fds`
    bool direct;
    uint32_t run_length;  // positions that a worker takes at once
    uint32_t ahead_least; // reads
    struct worker *workers;
    pthread_t *worker_threads, feeder_thread;
    uint32_t workers_started;
    bool feeder_started;

    // The feeder's own.
    struct reader reader;
    struct read_request **finished; // [depth]
    struct window window;
    uint32_t calm; // windows in a row before which all reads had arrived

    pthread_mutex_t lock;       // guards everything below; held only for a few instructions
    pthread_cond_t work_ready;  // `arrived` or `ready` grew, or closing
    pthread_cond_t batch_ready; // the next batch became READY, or broken
    pthread_cond_t feeder_work; // for the feeder while ASLEEP
    struct ring ring;
    struct arena arena;
    struct cache cache;
    struct fetch *fetches, *free_fetches, *arrived; // `arrived`: blocks to be filled
    uint32_t fetch_count, free_count;
    struct run_queue ready;
    uint32_t ready_count; // blocks to be filled and runs that workers may take
    struct place *again;  // to be decided again: oldest first
    struct place **again_end;
    struct slot *filling;           // the batch whose positions are being decided, NULL between two
    struct loader_position feeding; // of the next batch to begin
    uint64_t begun;                 // batches
    uint32_t in_flight;             // reads
    uint32_t ahead;                 // fetches in use that the feeder aims at
    enum feeder_state feeder;
    bool wants_slot, wants_room, wants_arena; // what the feeder lacks: fetches, bytes
    bool closing;
    bool broken; // the reader's machinery failed: `broken_error`
    struct error broken_error;

    // The consumer's end.
    struct loader_position position; // of the next batch to deliver
    uint64_t delivered;
    struct error ended; // why the stream is over; status OK until then
    struct skips skips;
    bool consumer_waits;

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
// Wakes as many idle workers as there is work for, of `added` pieces just added.
void stream_wake_workers(struct loader *loader, uint32_t added);
// Pushes the run when nothing of it is missing any more.
bool stream_ready(struct loader *loader, struct run *run);
// The places that waited for a fetch have what they need: how many runs became ready.
uint32_t stream_arrive(struct loader *loader, struct fetch *fetch);
// One user less; without users the fetch is free again.
void stream_give(struct loader *loader, struct fetch *fetch);
// The position is decided again by the feeder, as a run of its own.
void stream_again(struct loader *loader, struct place *place, struct slot *slot, uint32_t index);
// Whether the workers have enough to do that the feeder may rest.
bool stream_plenty(const struct loader *loader);
uint32_t stream_fetches_in_use(const struct loader *loader);

// Threads' mains; the argument is the loader, or the worker.
void *feeder_main(void *loader);
void *worker_main(void *worker);

enum status worker_open(struct worker *worker, struct loader *loader, struct error *error);
void worker_close(struct worker *worker);           // accepts a zeroed or half-built one
uint64_t worker_bytes(const struct worker *worker); // what it has allocated

#endif
