// Placing blocks in the arena: the largest first, each at the lowest place that is free for its
// whole life.
#include "trainer/net/network_internal.h"

#include <stdlib.h>

#define ALIGNMENT 64u

static int compare_larger_first(const void *left, const void *right)
{
    const struct block *a = *(struct block *const *)left, *b = *(struct block *const *)right;
    if (a->bytes != b->bytes) {
        return a->bytes > b->bytes ? -1 : 1;
    }
    return a->first < b->first ? -1 : a->first > b->first;
}

static bool alive_together(const struct block *a, const struct block *b)
{
    return a->first <= b->last && b->first <= a->last;
}

// `placed` is in order of offset, and stays so.
static void place(struct block *block, struct block **placed, size_t *count)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < *count; i++) {
        const struct block *other = placed[i];
        if (!alive_together(block, other)) {
            continue;
        }
        if (other->offset >= offset + block->bytes) {
            break;
        }
        uint64_t end = other->offset + other->bytes;
        offset = end > offset ? end : offset;
    }
    block->offset = offset;
    size_t at = (*count)++;
    for (; at > 0 && placed[at - 1]->offset > offset; at--) {
        placed[at] = placed[at - 1];
    }
    placed[at] = block;
}

enum status network_arrange(struct network *network, struct error *error)
{
    size_t count = network->block_count, placed_count = 0;
    struct block **order = calloc(2 * count, sizeof(struct block *));
    if (order == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a plan");
    }
    struct block **placed = order + count;
    for (size_t i = 0; i < count; i++) {
        struct block *block = &network->blocks[i];
        block->bytes = (block->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        order[i] = block;
    }
    qsort(order, count, sizeof(struct block *), compare_larger_first);
    for (size_t i = 0; i < count; i++) {
        place(order[i], placed, &placed_count);
        uint64_t end = order[i]->offset + order[i]->bytes;
        network->arena_bytes = end > network->arena_bytes ? end : network->arena_bytes;
    }
    free(order);
    return STATUS_OK;
}
