// Small files, read whole.
#include "formats/binary_side.h"
#include "formats/binary_layout.h"
#include "formats/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIDE_BYTES (1u << 20) // of one

static const char *const names[BINARY_SIDES] = {"batches.meta.txt", "fine_label_names.txt",
                                                "class_names.txt", "train_y.bin", "test_y.bin"};

void binary_sides_free(struct binary_sides *sides)
{
    for (size_t i = 0; i < BINARY_SIDES; i++) {
        free(sides->side[i].bytes);
    }
    *sides = (struct binary_sides){0};
}

struct binary_side *binary_side_of(struct binary_sides *sides, const char *name)
{
    for (size_t i = 0; i < BINARY_SIDES; i++) {
        if (strcmp(binary_base(name), names[i]) == 0) {
            return &sides->side[i];
        }
    }
    return NULL;
}

enum status binary_side_take(struct binary_side *side, const struct source_kind *kind, void *state,
                             const struct source_entry *entry, const char *path,
                             struct error *error)
{
    if (entry->size > SIDE_BYTES) {
        return error_set(error, STATUS_LIMIT, path, NOWHERE, NOWHERE,
                         "%.200s is longer than %u bytes", entry->name, SIDE_BYTES);
    }
    if (side->bytes != NULL) {
        return error_set(error, STATUS_CORRUPT, path, NOWHERE, NOWHERE, "%.200s is there twice",
                         entry->name);
    }
    side->bytes = malloc((size_t)entry->size + 1);
    if (side->bytes == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    enum status status = kind->read(state, side->bytes, (size_t)entry->size, &side->len, error);
    side->bytes[side->len] = 0;
    return status;
}

enum status binary_sides_beside(struct binary_sides *sides, const char *path, struct error *error)
{
    size_t folder = (size_t)(binary_base(path) - path);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < BINARY_SIDES && status == STATUS_OK; i++) {
        char beside[600];
        struct binary_side *side = &sides->side[i];
        snprintf(beside, sizeof beside, "%.*s%s", (int)folder, path, names[i]);
        if (file_exists(beside)) {
            status = file_read_all(beside, SIDE_BYTES, &side->bytes, &side->len, error);
        }
    }
    return status;
}
