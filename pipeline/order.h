// The order of an epoch: a pseudo-random permutation of 0..count-1 computed per position, with no
// memory per record.
#ifndef PIPELINE_ORDER_H
#define PIPELINE_ORDER_H

#include <stdbool.h>
#include <stdint.h>

// Plain data, freely copied.
struct order {
    uint64_t count; // records, at least 1, at most 2^32
    uint64_t seed;
    uint32_t epoch;
    bool shuffle;                   // false: identity
    uint32_t left_bits, right_bits; // halves of the Feistel network's domain
};

void order_init(struct order *order, uint64_t count, uint64_t seed, uint32_t epoch, bool shuffle);

// The record at `position` (< count). A bijection for every (count, seed, epoch).
uint64_t order_at(const struct order *order, uint64_t position);

#endif
