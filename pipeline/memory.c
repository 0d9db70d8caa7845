#include "pipeline/memory.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PAGE       ((size_t)4096)
#define LARGE_PAGE ((size_t)2 << 20)

void *memory_take(size_t bytes)
{
    size_t align = bytes < LARGE_PAGE ? PAGE : LARGE_PAGE;
    void *memory = aligned_alloc(align, (bytes + align - 1) / align * align);
    if (memory && align == LARGE_PAGE) {
        madvise(memory, bytes, MADV_HUGEPAGE); // advice: it need not be taken
    }
    return memory;
}
