// The memory that reads land in: one block used as a ring, handed out in pieces of any length. Its
// size is fixed at open, so bytes in flight are bounded whatever the records' sizes are.
#ifndef PIPELINE_ARENA_H
#define PIPELINE_ARENA_H

#include "formats/status.h"

#include <stdbool.h>

#define ARENA_ALIGNMENT 4096 // of every piece: a page, as reads past the page cache want

struct arena {
    uint8_t *memory;
    uint64_t size;
    // Bytes ever handed out and ever taken back, padding included; the difference is in use.
    uint64_t head, tail;
    struct arena_piece *pieces; // ring of those in use, oldest first
    uint32_t capacity, oldest, count;
};

struct arena_piece {
    uint64_t end;   // `head` after this piece was taken
    uint32_t users; // who have not given it back yet
};

// Room for pieces of up to `largest` bytes, `pieces` of them at most, in about `bytes` bytes (more
// when one piece needs it).
enum status arena_open(struct arena *arena, uint64_t bytes, uint64_t largest, uint32_t pieces,
                       struct error *error);
void arena_close(struct arena *arena); // accepts a zeroed one

// NULL while there is no room. `users` (at least 1) must each give the piece back, in any order;
// room appears when the oldest piece is free. Any piece of up to `largest` bytes fits when none is
// in use. `*piece` names it for arena_give.
uint8_t *arena_take(struct arena *arena, uint64_t len, uint32_t users, uint32_t *piece);
void arena_give(struct arena *arena, uint32_t piece);

#endif
