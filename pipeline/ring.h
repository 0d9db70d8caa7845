// The batch buffers, in memory that the consumer's allocator gives.
//
// A slot goes FREE -> FILLING -> READY -> OUT -> FREE. Batches start and are delivered in order of
// `sequence`; any free slot serves the next one, so the consumer may release in any order.
//
// Threads: guarded by the loader's lock, except that a worker writes the pixels, label and record
// of its own position of a FILLING slot without it.
#ifndef PIPELINE_RING_H
#define PIPELINE_RING_H

#include "pipeline/loader.h"
#include "pipeline/order.h"
#include "pipeline/skips.h"

enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_READY, SLOT_OUT };

struct fetch;

// One position of a batch on its way. Belongs to the feeder until its run is ready, then to the
// worker that takes the run.
struct place {
    uint64_t record;     // of the dataset
    uint64_t attempt;    // 0: the record at this position of the order; k: the k-th after it
    struct run *run;     // that it is part of
    struct fetch *fetch; // that brings its bytes; NULL: they are in the cache
    struct place *next;  // of those that wait for the same fetch, or to be decided again
    bool alone;          // it must be read by itself: what was to bring it with others did not
};

// Consecutive positions of one batch, which one worker takes at once.
struct run {
    struct run *next; // of those ready
    struct slot *slot;
    uint32_t first, count;
    uint32_t waiting; // places whose bytes have not arrived
};

struct slot {
    struct batch batch; // what the consumer sees; its pointers lie in `memory`
    enum slot_state state;
    int32_t *labels;
    uint64_t *records;
    struct order order; // of the batch's epoch
    uint64_t first;     // position in the epoch of index 0
    uint32_t issued;    // positions that have been decided
    uint32_t remaining; // positions not settled
    // The earliest position that ends the stream, when there is one.
    bool failed;
    uint32_t failed_index;
    struct error error;
    struct skips skips;   // bad records at their own positions of this batch
    struct place *places; // [batch]
    struct run *runs;     // [batch]; the run that starts at a position
    void *memory;
};

struct ring {
    struct slot *slots;
    uint32_t count;
    size_t slot_bytes;
    struct loader_allocator allocator;
};

// `skip_capacity`: bad records to remember for one batch.
enum status ring_open(struct ring *ring, const struct loader_config *config, size_t skip_capacity,
                      struct error *error);
void ring_close(struct ring *ring); // accepts a zeroed or half-built one

struct slot *ring_free_slot(struct ring *ring);                     // NULL when all are in use
struct slot *ring_find(const struct ring *ring, uint64_t sequence); // NULL when not begun

// Makes a free slot the next batch. `batch` of `slot` gets position, sequence and count.
void ring_begin(struct slot *slot, struct loader_position position, uint64_t sequence,
                uint32_t count);
// Remembers that the stream ends at `index` of this batch, unless it ends earlier.
void ring_fail(struct slot *slot, uint32_t index, const struct error *error);

#endif
