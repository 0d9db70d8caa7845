// Batches of views, on time and in order. The loader reads records (io_uring, or pread where the
// kernel forbids it), decodes them, and renders the recipe's views straight into the slots of a
// ring of batch buffers.
//
// What a batch holds depends only on (dataset, recipe, seed, batch, ranks, position, policy): never
// on workers, I/O path, queue depth or timing. How threads and queues work: pipeline/README.md.
//
// Threads: one consumer thread calls loader_next, loader_release and loader_close; loader_counters
// may be called from any.
#ifndef PIPELINE_LOADER_H
#define PIPELINE_LOADER_H

#include "augment/view.h"
#include "formats/dataset.h"

enum loader_io { LOADER_IO_AUTO, LOADER_IO_URING, LOADER_IO_PREAD };
enum loader_policy {
    LOADER_FATAL, // a bad record ends the stream with an error that names it
    LOADER_SKIP, // it is replaced by the next good record in the epoch's order, counted and listed,
                 // up to `max_skips`
};

// Where the next batch starts; saved in checkpoints. Belongs to the consumer: prefetched batches do
// not move it.
struct loader_position {
    uint32_t epoch;
    uint64_t batch; // within the epoch
};

// Gives and takes the memory of the ring's slots, so that it can be pinned. Called from the thread
// that opens and closes.
struct loader_allocator {
    void *(*allocate)(void *context, size_t bytes); // 64-byte aligned; NULL when there is none
    void (*release)(void *context, void *memory, size_t bytes);
    void *context;
};

struct loader_config {
    struct recipe recipe;
    struct view_output output; // layout and normalisation of the views
    bool bytes; // batches hold views whose colours, flip and blur are left to others, see struct
                // batch; `output` is not read
    uint32_t batch; // records per batch of this rank, 1 to 65536
    uint64_t seed;
    uint32_t epochs; // stream ends (STATUS_END) after this many, counted from epoch 0; 0 = endless
    bool shuffle;    // false: dataset order (evaluation)
    bool
        keep_last; // true: the last batch of an epoch may be short; false: the remainder is dropped
    uint32_t workers; // threads that decode and render, at most two per core; 0 = one per core
    enum loader_io io;
    uint32_t depth; // reads in flight at most, 1 to 1024; how many are is found while it runs
    bool direct;    // reads past the page cache (O_DIRECT) where the file system lets us
    uint64_t cache; // bytes at most for small records that stay in memory; 0 = none
    uint32_t slots; // batch buffers, at least 2
    enum loader_policy policy;
    uint64_t max_skips; // 0 = max(16, 0.1 % of the dataset)
    uint32_t rank,
        ranks; // this process's share: batch b of the epoch is split over ranks in contiguous parts
    uint32_t pieces; // of a whole batch, one after the other, each split over the ranks by itself;
                     // divides `batch`; more than 1 not with keep_last. 0 is taken as 1
    struct loader_position start;
    struct loader_allocator allocator; // all NULL = aligned_alloc
};

// Fills every field with its default (plain views [S][S][3] in [0, 1], batch 64, shuffle, io auto,
// depth 64, cache 96 MiB, slots 2, fatal, ranks 1).
void loader_config_init(struct loader_config *config);

// Valid from loader_next until loader_release.
struct batch {
    struct loader_position position; // of this batch
    uint64_t sequence;               // batches since the loader opened
    uint32_t count; // records in it; less than config.batch only for a short last batch
    uint32_t size;  // S
    float *view[RECIPE_MAX_VIEWS]; // [count] views of S x S x 3 values, as config.output says; NULL
                                   // with config.bytes
    uint8_t *bytes[RECIPE_MAX_VIEWS];            // [count][S][S][3] of view_render_bytes, and what
    struct view_record *drawn[RECIPE_MAX_VIEWS]; // remains of each; NULL without config.bytes
    const int32_t *labels;                       // [count], DATASET_NO_LABEL when there is none
    const uint64_t *records;                     // [count]
};

// Time in seconds summed over threads, and counts, since open.
struct loader_counters {
    double read_wait; // workers waiting for bytes
    double unpack;    // stored bytes to the image file's, checksum included
    double decode, augment;
    double slot_wait;     // workers waiting for a free slot: the trainer is the bottleneck
    double consumer_wait; // loader_next waiting for a batch: the loader is the bottleneck
    uint64_t batches, records, skips;
    uint64_t bytes; // of image files that were decoded

    uint64_t reads, read_bytes; // from the store's files
    uint64_t read_calls;        // system calls that started reads or waited for them
    uint64_t shared;            // records that came with another one's read
    uint64_t kept;              // records that came from memory
    uint32_t ahead;             // reads that are kept ahead of the workers now
};

struct loader_skip {
    uint64_t record;
    struct error error;
};

struct loader;
// The dataset must outlive the loader. Allocates everything it will ever use, starts the threads,
// prefetches.
enum status loader_open(struct loader **out, const struct dataset *dataset,
                        const struct loader_config *config, struct error *error);
// Blocks for the next batch in order. STATUS_END after the last epoch; any other failure is final
// and repeats.
enum status loader_next(struct loader *loader, const struct batch **batch, struct error *error);
// Gives the slot back. Batches may be released in any order; at most `slots` are out at once.
void loader_release(struct loader *loader, const struct batch *batch);
// Stops threads, cancels and reaps reads in flight, frees. Safe at any moment, also with batches
// not released.
void loader_close(struct loader **loader);

uint64_t loader_batches_per_epoch(const struct loader *loader);
enum loader_io loader_io_used(const struct loader *loader); // what AUTO became
bool loader_direct_used(const struct loader *loader);       // false: not asked for, or refused
uint32_t loader_workers(const struct loader *loader);       // what became of `workers`
uint64_t loader_memory(const struct loader *loader);        // bytes planned at open, all of it
struct loader_counters loader_counters(const struct loader *loader);
// Skips so far, in the order found; copies at most `capacity`, returns how many there are.
size_t loader_skips(const struct loader *loader, struct loader_skip *out, size_t capacity);

#endif
