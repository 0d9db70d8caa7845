// Deterministic mutants.
#include "tests/support/mutate.h"

#include <stdlib.h>
#include <string.h>

uint64_t mutate_next(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static size_t below(uint64_t *state, size_t bound)
{
    return (size_t)(mutate_next(state) % bound);
}

static void change_bytes(uint8_t *bytes, size_t len, size_t keep, uint64_t *state)
{
    for (size_t changes = 1 + below(state, 8); changes > 0; changes--) {
        uint8_t *at = bytes + keep + below(state, len - keep);
        switch (below(state, 4)) {
        case 0:
            *at = (uint8_t)mutate_next(state);
            break;
        case 1:
            *at ^= (uint8_t)(1u << below(state, 8));
            break;
        case 2:
            *at = (uint8_t)(below(state, 2) ? 0xff : 0);
            break;
        default:
            *at = (uint8_t)(*at + below(state, 3) - 1);
            break;
        }
    }
}

// Where the copy's end comes from: cut, a piece doubled, a piece removed, or everything.
static size_t assemble(uint8_t *to, const uint8_t *bytes, size_t len, size_t keep, uint64_t *state)
{
    size_t a = keep + below(state, len - keep), b = keep + below(state, len - keep);
    size_t first = a < b ? a : b, last = a < b ? b : a;
    switch (below(state, 12)) {
    case 0:
        memcpy(to, bytes, last);
        return last;
    case 1:
        memcpy(to, bytes, last);
        memcpy(to + last, bytes + first, len - first);
        return last + len - first;
    case 2:
        memcpy(to, bytes, first);
        memcpy(to + first, bytes + last, len - last);
        return first + len - last;
    default:
        memcpy(to, bytes, len);
        return len;
    }
}

uint8_t *mutate_copy(const void *bytes, size_t len, size_t keep, uint64_t *state,
                     size_t *mutant_len)
{
    uint8_t *room = malloc(2 * len);
    if (room == NULL) {
        abort();
    }
    *mutant_len = assemble(room, bytes, len, keep, state);
    if (*mutant_len > keep) {
        change_bytes(room, *mutant_len, keep, state);
    }
    uint8_t *exact = malloc(*mutant_len ? *mutant_len : 1);
    if (exact == NULL) {
        abort();
    }
    memcpy(exact, room, *mutant_len);
    free(room);
    return exact;
}
