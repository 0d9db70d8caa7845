// A stream of random numbers for one picture of the example: Philox words, one after the other.
#ifndef TOOLS_EXAMPLE_RANDOM_H
#define TOOLS_EXAMPLE_RANDOM_H

#include "augment/philox.h"

#include <stdint.h>

struct example_random {
    uint64_t seed;
    uint32_t picture, label; // which stream
    uint32_t used;           // words taken so far
};

static inline uint32_t example_random_word(struct example_random *random)
{
    const uint32_t counter[4] = {random->picture, random->label, random->used / 4, 0x45584d50u};
    return philox4x32(random->seed, counter).word[random->used++ % 4];
}

// In [low, high).
static inline float example_random_range(struct example_random *random, float low, float high)
{
    return low + (high - low) * philox_unit(example_random_word(random));
}

// In 0 … count - 1.
static inline uint32_t example_random_index(struct example_random *random, uint32_t count)
{
    return (uint32_t)(((uint64_t)example_random_word(random) * count) >> 32);
}

static inline int example_random_chance(struct example_random *random, float probability)
{
    return example_random_range(random, 0, 1) < probability;
}

#endif
