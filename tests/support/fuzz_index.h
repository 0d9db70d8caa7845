// Makes a damaged index.byol hold again, so that damage behind its checksums is met: for the fuzz
// targets that start from a dataset.
#ifndef TESTS_SUPPORT_FUZZ_INDEX_H
#define TESTS_SUPPORT_FUZZ_INDEX_H

#include "formats/index.h"

// Lays the sections out one behind the other again (the lengths as they are, as far as they go) and
// recounts fixed-size entries and strings; part of it only when a coin says so. Ends in
// fuzz_index_sign.
void fuzz_index_repair(uint8_t *bytes, size_t len, uint64_t *random);

// Writes length, checksums, end mark and hash. Harmless on inputs too short to be an index.
void fuzz_index_sign(uint8_t *bytes, size_t len);

#endif
