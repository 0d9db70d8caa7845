#include "pipeline/arena.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint64_t round_up(uint64_t len)
{
    return (len + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

enum status arena_open(struct arena *arena, uint64_t bytes, uint64_t largest, uint32_t pieces,
                       struct error *error)
{
    *arena = (struct arena){.capacity = pieces};
    arena->size = round_up(bytes > largest ? bytes : largest) + ARENA_ALIGNMENT;
    arena->memory = aligned_alloc(ARENA_ALIGNMENT, arena->size);
    arena->pieces = calloc(pieces, sizeof *arena->pieces);
    if (!arena->memory || !arena->pieces) {
        arena_close(arena);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for %llu bytes of reads in flight",
                         (unsigned long long)(bytes > largest ? bytes : largest));
    }
    memset(arena->memory, 0, arena->size); // all of it is touched sooner or later: better now
    return STATUS_OK;
}

void arena_close(struct arena *arena)
{
    free(arena->memory);
    free(arena->pieces);
    *arena = (struct arena){0};
}

uint8_t *arena_take(struct arena *arena, uint64_t len, uint32_t users, uint32_t *piece)
{
    assert(len < arena->size && users > 0);
    if (arena->count == 0) {
        arena->head = arena->tail = 0;
    }
    if (arena->count == arena->capacity) {
        return NULL;
    }
    // A piece is contiguous: what is left before the end of the block may have to be skipped.
    uint64_t start = arena->head % arena->size;
    uint64_t padding = start + len > arena->size ? arena->size - start : 0;
    uint64_t end = arena->head + padding + round_up(len);
    if (end - arena->tail > arena->size) {
        return NULL;
    }
    *piece = (arena->oldest + arena->count++) % arena->capacity;
    arena->pieces[*piece] = (struct arena_piece){.end = end, .users = users};
    arena->head = end;
    return arena->memory + (start + padding) % arena->size;
}

void arena_give(struct arena *arena, uint32_t piece)
{
    assert(arena->pieces[piece].users > 0);
    arena->pieces[piece].users--;
    while (arena->count > 0 && arena->pieces[arena->oldest].users == 0) {
        arena->tail = arena->pieces[arena->oldest].end;
        arena->oldest = (arena->oldest + 1) % arena->capacity;
        arena->count--;
    }
}
