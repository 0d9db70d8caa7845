#include "tools/batch_hash.h"

#include <string.h>

// Every step is a bijection of the state, so a single differing word can never be lost again.
static uint64_t absorb(uint64_t state, uint64_t word)
{
    state ^= word;
    state = (state << 27 | state >> 37) * UINT64_C(0x9fb21c651e98df25);
    return state + UINT64_C(0x52dce729);
}

static uint64_t absorb_bytes(uint64_t state, const void *bytes, size_t len)
{
    const char *at = bytes;
    uint64_t word;
    for (; len >= sizeof word; at += sizeof word, len -= sizeof word) {
        memcpy(&word, at, sizeof word);
        state = absorb(state, word);
    }
    if (len > 0) {
        word = 0;
        memcpy(&word, at, len);
        state = absorb(state, word);
    }
    return state;
}

uint64_t batch_hash(uint64_t state, const struct batch *batch)
{
    size_t values = (size_t)batch->size * batch->size * 3;
    for (uint32_t i = 0; i < batch->count; i++) {
        for (int view = 0; view < RECIPE_MAX_VIEWS && batch->view[view]; view++) {
            state = absorb_bytes(state, batch->view[view] + i * values, values * sizeof(float));
        }
        state = absorb(state, (uint64_t)(int64_t)batch->labels[i]);
        state = absorb(state, batch->records[i]);
    }
    return state;
}
