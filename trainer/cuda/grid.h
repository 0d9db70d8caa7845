// How work is cut into blocks of threads, and loops that are to be written out. Private to
// the cuda device.
#ifndef TRAINER_CUDA_GRID_H
#define TRAINER_CUDA_GRID_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define CUDA_UNROLL _Pragma("unroll")
#else
#define CUDA_UNROLL
#endif

// Work items are counted in 32 bits, and stay below this, so that the number of a thread past the
// last one does too.
#define CUDA_MOST_WORK 0xfffff000u

static inline bool grid_fits(uint64_t work)
{
    return work > 0 && work <= CUDA_MOST_WORK;
}

// Blocks of which each does `each` items.
static inline unsigned grid_blocks(uint64_t work, unsigned each)
{
    return (unsigned)((work + each - 1) / each);
}

#endif
