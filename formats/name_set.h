// A set of names, to refuse the second of two equal ones. Memory: the names and 16 to 32 bytes for
// each.
#ifndef FORMATS_NAME_SET_H
#define FORMATS_NAME_SET_H

#include "formats/status.h"

#include <stdbool.h>

// Starts from {0}, ends with name_set_free.
struct name_set {
    char *text; // the names, one after the other
    size_t len, capacity;
    uint64_t *slots; // 1 + where a name starts in `text`; 0 = free; a power of two of them
    size_t slot_count, count;
};

// Adds a copy; `*fresh` is false when the name was there already. STATUS_NO_MEMORY changes nothing.
enum status name_set_add(struct name_set *set, const char *name, bool *fresh, struct error *error);
void name_set_free(struct name_set *set);

#endif
