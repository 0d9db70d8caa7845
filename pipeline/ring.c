#include "pipeline/ring.h"

#include "pipeline/memory.h"

#include <assert.h>
#include <stdlib.h>

#define RING_ALIGNMENT 64

static size_t aligned(size_t bytes)
{
    return (bytes + RING_ALIGNMENT - 1) / RING_ALIGNMENT * RING_ALIGNMENT;
}

static size_t view_bytes(const struct loader_config *config)
{
    size_t size = (size_t)config->recipe.size;
    return aligned(config->batch * size * size * 3 * (config->bytes ? 1 : sizeof(float)));
}

static size_t drawn_bytes(const struct loader_config *config)
{
    return config->bytes ? aligned(config->batch * sizeof(struct view_record)) : 0;
}

// One block: the views, then what remains of each, then records, then labels.
static size_t slot_bytes(const struct loader_config *config)
{
    return (size_t)config->recipe.views * (view_bytes(config) + drawn_bytes(config)) +
           aligned(config->batch * sizeof(uint64_t)) + aligned(config->batch * sizeof(int32_t));
}

static void *allocate_aligned(void *context, size_t bytes)
{
    (void)context;
    return memory_take(bytes);
}

static void release_aligned(void *context, void *memory, size_t bytes)
{
    (void)context, (void)bytes;
    free(memory);
}

static void lay_out(struct slot *slot, const struct loader_config *config)
{
    char *at = slot->memory;
    for (int64_t view = 0; view < config->recipe.views; view++) {
        if (config->bytes) {
            slot->batch.bytes[view] = (uint8_t *)at;
        } else {
            slot->batch.view[view] = (float *)(void *)at;
        }
        at += view_bytes(config);
    }
    for (int64_t view = 0; config->bytes && view < config->recipe.views; view++) {
        slot->batch.drawn[view] = (struct view_record *)(void *)at;
        at += drawn_bytes(config);
    }
    slot->records = (uint64_t *)(void *)at;
    slot->labels = (int32_t *)(void *)(at + aligned(config->batch * sizeof(uint64_t)));
    slot->batch.records = slot->records;
    slot->batch.labels = slot->labels;
    slot->batch.size = (uint32_t)config->recipe.size;
}

enum status ring_open(struct ring *ring, const struct loader_config *config, size_t skip_capacity,
                      struct error *error)
{
    *ring = (struct ring){.slot_bytes = slot_bytes(config), .allocator = config->allocator};
    if (!ring->allocator.allocate) {
        ring->allocator = (struct loader_allocator){allocate_aligned, release_aligned, NULL};
    }
    ring->slots = calloc(config->slots, sizeof *ring->slots);
    enum status status = ring->slots ? STATUS_OK : STATUS_NO_MEMORY;
    while (status == STATUS_OK && ring->count < config->slots) {
        struct slot *slot = &ring->slots[ring->count];
        slot->memory = ring->allocator.allocate(ring->allocator.context, ring->slot_bytes);
        if (slot->memory) {
            ring->count++;
            lay_out(slot, config);
            slot->places = calloc(config->batch, sizeof *slot->places);
            slot->runs = calloc(config->batch, sizeof *slot->runs);
            status = slot->places && slot->runs ? skips_open(&slot->skips, skip_capacity, error)
                                                : STATUS_NO_MEMORY;
        } else {
            status = STATUS_NO_MEMORY;
        }
    }
    if (status != STATUS_OK) {
        error_set(error, status, NULL, NOWHERE, NOWHERE,
                  "no memory for %u batch buffers of %zu bytes", config->slots, ring->slot_bytes);
        ring_close(ring);
    }
    return status;
}

void ring_close(struct ring *ring)
{
    for (uint32_t i = 0; ring->slots && i < ring->count; i++) {
        struct slot *slot = &ring->slots[i];
        ring->allocator.release(ring->allocator.context, slot->memory, ring->slot_bytes);
        skips_close(&slot->skips);
        free(slot->places);
        free(slot->runs);
    }
    free(ring->slots);
    *ring = (struct ring){0};
}

struct slot *ring_free_slot(struct ring *ring)
{
    for (uint32_t i = 0; i < ring->count; i++) {
        if (ring->slots[i].state == SLOT_FREE) {
            return &ring->slots[i];
        }
    }
    return NULL;
}

struct slot *ring_find(const struct ring *ring, uint64_t sequence)
{
    for (uint32_t i = 0; i < ring->count; i++) {
        struct slot *slot = &ring->slots[i];
        if (slot->state != SLOT_FREE && slot->batch.sequence == sequence) {
            return slot;
        }
    }
    return NULL;
}

void ring_begin(struct slot *slot, struct loader_position position, uint64_t sequence,
                uint32_t count)
{
    assert(slot->state == SLOT_FREE);
    slot->batch.position = position;
    slot->batch.sequence = sequence;
    slot->batch.count = count;
    slot->state = count > 0 ? SLOT_FILLING : SLOT_READY;
    slot->issued = 0;
    slot->remaining = count;
    slot->failed = false;
    slot->skips.count = 0;
}

void ring_fail(struct slot *slot, uint32_t index, const struct error *error)
{
    if (!slot->failed || index < slot->failed_index) {
        slot->failed = true;
        slot->failed_index = index;
        slot->error = *error;
    }
}
