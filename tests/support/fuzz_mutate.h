// The mutator behind fuzz.h: a pool of seeds, and mutants that depend on (seed number, mutant
// number) and the pool alone.
#ifndef TESTS_SUPPORT_FUZZ_MUTATE_H
#define TESTS_SUPPORT_FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

void fuzz_pool_add(const void *bytes, size_t len, size_t keep);
void fuzz_pool_free(void);

// Writes one of the seeds with one to sixteen changes into `out` (FUZZ_INPUT_BYTES): bits flipped,
// bytes and numbers set to values that break arithmetic, pieces moved, erased, repeated or taken
// from another seed, the end cut off. `*random` continues where the mutator stopped.
size_t fuzz_pool_mutant(uint8_t *out, uint64_t seed, uint64_t number, uint64_t *random);

#endif
