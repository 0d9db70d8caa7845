// Damage for robustness tests: the same seed gives the same mutants on every machine.
#ifndef TESTS_SUPPORT_MUTATE_H
#define TESTS_SUPPORT_MUTATE_H

#include <stddef.h>
#include <stdint.h>

// The next of a fixed sequence of 64-bit numbers (splitmix64).
uint64_t mutate_next(uint64_t *state);

// Copies `bytes` into malloc'ed memory of exactly the resulting size (so that a sanitizer sees the
// first byte read past it) and damages the copy behind the first `keep` bytes: one to eight bytes
// changed, and in a quarter of the cases the end cut off, a piece doubled or removed.
uint8_t *mutate_copy(const void *bytes, size_t len, size_t keep, uint64_t *state,
                     size_t *mutant_len);

#endif
