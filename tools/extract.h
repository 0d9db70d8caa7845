// Writes the images of a dataset out as the files they were.
#ifndef TOOLS_EXTRACT_H
#define TOOLS_EXTRACT_H

#include "formats/dataset.h"
#include "tools/progress.h"

struct extract_report {
    uint64_t images;
    uint64_t inexact; // JPEGs with the same pixels, but not the original's bytes
    uint64_t bytes;
};

// Each record becomes a file of its name in `directory`, which must not exist and appears when it
// is complete.
enum status extract_dataset(const struct dataset *dataset, const char *directory,
                            struct progress *progress, struct extract_report *report,
                            struct error *error);

// The steps by themselves. The bytes of a record's image file (malloc'ed, or NULL): those that
// `byol convert` read, but for recoded JPEGs that are not `exact`.
enum status extract_image(const struct dataset *dataset, uint64_t record, uint8_t **bytes,
                          size_t *len, bool *exact, struct error *error);
// Writes a new file DIRECTORY/NAME, with the directories in its name. The name keeps the rules of
// formats/name.h.
enum status extract_write(const char *directory, const char *name, const uint8_t *bytes, size_t len,
                          struct error *error);

#endif
