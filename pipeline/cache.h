// Small records, unpacked and verified, in memory: what costs more to read and to unpack than to
// keep. Which records these are is decided at open: the first ones of a dataset of small records,
// until the budget is spent. In a random order no choice is better, and one that never changes
// needs no bookkeeping while the stream runs.
//
// Records come in by blocks: neighbours in their file that are read at once. A block is filled by
// one thread, which alone writes to it; who may look into it learns that under the loader's lock.
#ifndef PIPELINE_CACHE_H
#define PIPELINE_CACHE_H

#include "formats/dataset.h"

#define CACHE_RECORD_BYTES 16384u // larger records are not kept: decoding them costs more by far
#define CACHE_BLOCK_BYTES  65536u // read at once

enum cache_state {
    CACHE_ABSENT,
    CACHE_LOADING,
    CACHE_PRESENT,
    CACHE_FAILED, // it could not be read at once: its records are read one by one
};

struct fetch;
struct cache_block {
    uint64_t offset;
    uint32_t file, length;
    uint64_t first; // records first to first + count - 1, without the large ones between them
    uint32_t count;
    // Guarded by the loader's lock.
    enum cache_state state;
    struct fetch *fetch; // that brings it, while LOADING
};

struct cache_entry {
    uint32_t place; // in `memory`, in units of 16 bytes; CACHE_NOWHERE
    uint32_t block; // or CACHE_NOWHERE: not kept
};
#define CACHE_NOWHERE UINT32_MAX

struct cache {
    const struct dataset *dataset;
    uint64_t records; // the first so many have an entry
    struct cache_entry *entries;
    struct cache_block *blocks;
    uint32_t block_count, longest; // bytes of the longest block
    uint8_t *memory;
    uint64_t bytes; // of everything
};

// Plans within `budget` bytes; 0 keeps nothing. Memory is touched as records come in.
enum status cache_open(struct cache *cache, const struct dataset *dataset, uint64_t budget,
                       struct error *error);
void cache_close(struct cache *cache); // accepts a zeroed one

// The block that brings a record; NULL when it is not kept.
struct cache_block *cache_block_of(const struct cache *cache, uint64_t record);
// The image file's bytes; NULL when they are not here: the block failed, or the record is damaged.
const uint8_t *cache_find(const struct cache *cache, uint64_t record);
// Unpacks a block's records from its bytes.
void cache_fill(struct cache *cache, const struct cache_block *block,
                struct dataset_unpacker *unpacker, const uint8_t *stored);

#endif
