// A 64-bit hash over a stream of batches: equal streams give equal numbers on every machine of the
// same byte order.
//
// The state runs over the records in order: for each record its views' pixels, its label and its
// number. How the stream is cut into batches does not enter, so a stream stopped anywhere and
// continued from the state gives the hash of the whole. It finds differences; it does not resist an
// attacker.
#ifndef TOOLS_BATCH_HASH_H
#define TOOLS_BATCH_HASH_H

#include "pipeline/loader.h"

#define BATCH_HASH_START UINT64_C(0x9e3779b97f4a7c15)

// Returns `state` taken over all records of the batch.
uint64_t batch_hash(uint64_t state, const struct batch *batch);

#endif
