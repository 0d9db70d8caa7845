#include "pipeline/cache.h"

#include <stdlib.h>
#include <string.h>

#define UNIT 16u // records start at multiples of this

static uint64_t rounded(uint64_t len)
{
    return (len + UNIT - 1) / UNIT * UNIT;
}

// --- planning ------------------------------------------------------------------------------------

// Where the walk over the records stands; `used` counts the bytes of `memory`.
struct walk {
    uint64_t used, record;
    uint32_t blocks, longest;
    struct cache_block last; // being extended; count 0: none
};

// Takes the record into the block, unless the two do not lie close together.
static bool extend(struct cache_block *block, uint64_t number, const struct dataset_record *record)
{
    uint64_t begin = record->offset, end = record->offset + record->stored_length;
    if (block->count == 0) {
        *block = (struct cache_block){.offset = begin,
                                      .file = record->file,
                                      .length = record->stored_length,
                                      .first = number,
                                      .count = 1};
        return true;
    }
    uint64_t from = begin < block->offset ? begin : block->offset;
    uint64_t block_end = block->offset + block->length, to = end > block_end ? end : block_end;
    // What lies between the two must not be more than what they are.
    if (record->file != block->file || to - from > CACHE_BLOCK_BYTES ||
        to - from > 2 * ((uint64_t)block->length + record->stored_length)) {
        return false;
    }
    block->offset = from;
    block->length = (uint32_t)(to - from);
    block->count = (uint32_t)(number - block->first) + 1;
    return true;
}

static void end_block(struct walk *walk, struct cache *cache)
{
    if (walk->last.count > 0) {
        if (cache->blocks) {
            cache->blocks[walk->blocks] = walk->last;
        }
        walk->longest = walk->last.length > walk->longest ? walk->last.length : walk->longest;
        walk->blocks++;
        walk->last.count = 0;
    }
}

static void enter(struct walk *walk, struct cache *cache, const struct dataset_record *record)
{
    struct cache_entry entry = {CACHE_NOWHERE, CACHE_NOWHERE};
    if (record->length <= CACHE_RECORD_BYTES && record->stored_length <= CACHE_BLOCK_BYTES) {
        if (!extend(&walk->last, walk->record, record)) {
            end_block(walk, cache);
            extend(&walk->last, walk->record, record);
        }
        entry = (struct cache_entry){(uint32_t)(walk->used / UNIT), walk->blocks};
        walk->used += rounded(record->length);
    }
    if (cache->entries) {
        cache->entries[walk->record] = entry;
    }
    walk->record++;
}

static uint64_t bytes_of(const struct walk *walk)
{
    return walk->used + walk->record * sizeof(struct cache_entry) +
           walk->blocks * sizeof(struct cache_block);
}

// Walks over the first `records` records as far as `budget` goes; fills the tables that are there.
static struct walk walk_over(struct cache *cache, uint64_t records, uint64_t budget)
{
    struct walk walk = {0};
    while (walk.record < records) {
        struct dataset_record record = dataset_record(cache->dataset, walk.record);
        uint64_t more = rounded(record.length) + sizeof(struct cache_entry) +
                        2 * sizeof(struct cache_block); // the one being extended, and a new one
        if (bytes_of(&walk) + more > budget || walk.used / UNIT >= CACHE_NOWHERE - 1) {
            break;
        }
        enter(&walk, cache, &record);
    }
    end_block(&walk, cache);
    return walk;
}

// Whether records are small by and large; a few small ones among photographs are not worth a table.
static bool worth_keeping(const struct dataset *dataset)
{
    uint64_t bytes = 0;
    for (uint32_t file = 0; file < dataset_file_count(dataset); file++) {
        bytes += dataset_file_length(dataset, file);
    }
    return bytes / dataset_count(dataset) <= CACHE_RECORD_BYTES;
}

enum status cache_open(struct cache *cache, const struct dataset *dataset, uint64_t budget,
                       struct error *error)
{
    *cache = (struct cache){.dataset = dataset};
    if (!worth_keeping(dataset)) {
        return STATUS_OK;
    }
    struct walk plan = walk_over(cache, dataset_count(dataset), budget);
    if (plan.blocks == 0) {
        return STATUS_OK;
    }
    cache->memory = aligned_alloc(64, (plan.used + 127) / 64 * 64);
    cache->blocks = calloc(plan.blocks, sizeof *cache->blocks);
    cache->entries = calloc(plan.record, sizeof *cache->entries);
    if (!cache->memory || !cache->blocks || !cache->entries) {
        cache_close(cache);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to keep %llu bytes of records", (unsigned long long)plan.used);
    }
    walk_over(cache, plan.record, budget);
    cache->records = plan.record;
    cache->block_count = plan.blocks;
    cache->longest = plan.longest;
    cache->bytes = bytes_of(&plan);
    return STATUS_OK;
}

void cache_close(struct cache *cache)
{
    free(cache->memory);
    free(cache->blocks);
    free(cache->entries);
    *cache = (struct cache){0};
}

// --- use -----------------------------------------------------------------------------------------

struct cache_block *cache_block_of(const struct cache *cache, uint64_t record)
{
    if (record >= cache->records || cache->entries[record].block == CACHE_NOWHERE) {
        return NULL;
    }
    return &cache->blocks[cache->entries[record].block];
}

const uint8_t *cache_find(const struct cache *cache, uint64_t record)
{
    const struct cache_block *block = cache_block_of(cache, record);
    uint32_t place =
        block && block->state == CACHE_PRESENT ? cache->entries[record].place : CACHE_NOWHERE;
    return place == CACHE_NOWHERE ? NULL : cache->memory + (uint64_t)place * UNIT;
}

void cache_fill(struct cache *cache, const struct cache_block *block,
                struct dataset_unpacker *unpacker, const uint8_t *stored)
{
    for (uint64_t i = block->first; i < block->first + block->count; i++) {
        struct cache_entry *entry = &cache->entries[i];
        if (entry->block == CACHE_NOWHERE) {
            continue;
        }
        struct dataset_record record = dataset_record(cache->dataset, i);
        const uint8_t *bytes;
        size_t len;
        if (dataset_unpack(unpacker, i, stored + (record.offset - block->offset), &bytes, &len,
                           NULL) == STATUS_OK) {
            memcpy(cache->memory + (uint64_t)entry->place * UNIT, bytes, len);
        } else {
            entry->place = CACHE_NOWHERE;
        }
    }
}
