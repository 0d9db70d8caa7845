// How often the whole process, libraries included, asks for memory from the heap.
#ifndef TOOLS_ALLOCATION_COUNT_H
#define TOOLS_ALLOCATION_COUNT_H

#include <stdint.h>

// Counts from 0 until the end is asked for: calls of malloc, calloc, realloc, aligned_alloc,
// memalign and posix_memalign by any thread. -1 where they cannot be counted (sanitizers and C
// libraries other than glibc). One at a time.
void allocation_count_begin(void);
int64_t allocation_count_end(void);

#endif
