// Batches compared by a hash: of every bit of a record's views, its label and its number.
#ifndef TESTS_SUPPORT_BATCH_HASH_H
#define TESTS_SUPPORT_BATCH_HASH_H

#include "pipeline/loader.h"

// Extends `hash` by one record of the batch, or by all of them.
uint64_t batch_hash_record(uint64_t hash, const struct batch *batch, uint32_t index);
uint64_t batch_hash(uint64_t hash, const struct batch *batch);

#endif
