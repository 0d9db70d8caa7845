// Files that name images, one a line: lists of names, names with labels, labels alone.
#ifndef FORMATS_NAME_LIST_H
#define FORMATS_NAME_LIST_H

#include "formats/status.h"

#include <stdbool.h>
#include <stdint.h>

struct name_line {
    const char *name;
    const char *value; // what follows the name's white space; NULL where nothing does
    uint64_t number;   // of the line, from 1
    bool used;         // an image was found for it
};

// Starts from {0}, ends with name_list_free.
struct name_list {
    char path[512];
    uint8_t *text;
    struct name_line *lines; // in the file's order, or sorted by name
    size_t count;
};

// Empty lines and ones that start with '#' are passed over. With `values`, the last word of each
// line is its value.
enum status name_list_read(struct name_list *list, const char *path, bool values,
                           struct error *error);
void name_list_free(struct name_list *list);

// Sorts by name for name_list_find; STATUS_INVALID when a name comes twice.
enum status name_list_sort(struct name_list *list, struct error *error);
// The line for an image's name: of the whole name, or of its end after any slash, so that
// "n01440764_18.JPEG" and "n01440764/n01440764_18.JPEG" both name
// "train/n01440764/n01440764_18.JPEG".
struct name_line *name_list_find(const struct name_list *list, const char *name);
uint64_t name_list_unused(const struct name_list *list, const struct name_line **first);

#endif
