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

#endif
