// Memory between two pages that must not be touched: a step too far in either direction crashes.
#ifndef TESTS_SIMD_GUARD_H
#define TESTS_SIMD_GUARD_H

#include <stddef.h>
#include <stdint.h>

struct guard {
    uint8_t *first, *end; // the bytes that may be touched: whole pages
};

// Room for at least `bytes`; ends the program when there is no memory.
struct guard guard_open(size_t bytes);
void guard_close(struct guard *guard);
void *guard_first(const struct guard *guard);
// The last `bytes` of it. Their first byte has whatever alignment comes of that.
void *guard_last(const struct guard *guard, size_t bytes);

#endif
