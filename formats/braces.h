// Names with braces, as WebDataset's users write them, become lists: `train-{000000..001281}.tar`
// (the digits' width is kept), `{train,val}.tar`, and any mixture. Shells expand them too, but not
// inside quotes.
#ifndef FORMATS_BRACES_H
#define FORMATS_BRACES_H

#include "formats/status.h"

#include <stddef.h>

#define BRACES_MAX 1000000u

// Starts from {0}, ends with braces_free.
struct braces {
    char **item;
    size_t count, capacity;
};

// Adds what `text` stands for. A path that exists is itself, braces or not. STATUS_INVALID for a
// range that makes no sense, STATUS_LIMIT for more than BRACES_MAX names.
enum status braces_expand(struct braces *names, const char *text, struct error *error);
void braces_free(struct braces *names);

#endif
