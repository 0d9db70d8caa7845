// What lies beside CIFAR's and STL-10's images, in small files: labels, and names of classes.
#ifndef FORMATS_BINARY_SIDE_H
#define FORMATS_BINARY_SIDE_H

#include "formats/source.h"

#define BINARY_SIDES 5

struct binary_side {
    uint8_t *bytes; // NULL: it is not there; else with a NUL behind
    size_t len;
};

// Starts from {0}, ends with binary_sides_free.
struct binary_sides {
    struct binary_side side[BINARY_SIDES];
};
void binary_sides_free(struct binary_sides *sides);
// By the file's name, which may have folders; NULL when it is no such file.
struct binary_side *binary_side_of(struct binary_sides *sides, const char *name);

// Takes in the current entry of `kind`; `path` is for errors.
enum status binary_side_take(struct binary_side *side, const struct source_kind *kind, void *state,
                             const struct source_entry *entry, const char *path,
                             struct error *error);
// Those in the folder of `path`.
enum status binary_sides_beside(struct binary_sides *sides, const char *path, struct error *error);

#endif
