// Large blocks of memory: in large pages where the system has them, which spares a good part of
// what it costs to write views that nobody will read again, and to look up records anywhere.
#ifndef PIPELINE_MEMORY_H
#define PIPELINE_MEMORY_H

#include <stddef.h>

// `bytes` aligned to a page, or NULL; given back with free.
void *memory_take(size_t bytes);

#endif
