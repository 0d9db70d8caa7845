// "Did you mean …?": the known name closest to a misspelt one.
#ifndef FORMATS_NEAREST_H
#define FORMATS_NEAREST_H

#include <stddef.h>

// Of `names[count]`, the one with the fewest edits (insert, remove, replace, swap of neighbours) to
// `wanted`; NULL when even that one is more than about a third of the name away. Among equals the
// first wins.
const char *nearest_name(const char *wanted, const char *const *names, size_t count);

#endif
