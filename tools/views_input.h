// What `byol views` shows: records of a dataset, or image files.
#ifndef TOOLS_VIEWS_INPUT_H
#define TOOLS_VIEWS_INPUT_H

#include "formats/dataset.h"

struct views_input {
    struct dataset *dataset;  // NULL: the paths are image files
    const char *const *paths; // borrowed
    size_t path_count;
};

// One path of a directory is a dataset; else each path is an image file. `paths` must outlive the
// input.
enum status views_input_open(struct views_input *input, const char *const *paths, size_t count,
                             struct error *error);
void views_input_close(struct views_input *input);

uint64_t views_input_count(const struct views_input *input);

// The record's name, or the file's without its folders.
const char *views_input_name(const struct views_input *input, uint64_t record);

// `*bytes` is malloc'ed.
enum status views_input_read(const struct views_input *input, uint64_t record, uint8_t **bytes,
                             size_t *len, struct error *error);

#endif
