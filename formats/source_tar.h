// What readers of tars inside tars want of source_tar besides its being a kind of source.
#ifndef FORMATS_SOURCE_TAR_H
#define FORMATS_SOURCE_TAR_H

#include "formats/source.h"

// Where a tar's bytes come from when it is no file of its own.
struct source_tar_input {
    void *context;
    // As `read` of struct source_kind: *got < len only at the end.
    enum status (*read)(void *context, void *buf, size_t len, size_t *got, struct error *error);
    // Passes over up to `len` bytes and says over how many; 0 where that is not cheap.
    uint64_t (*skip)(void *context, uint64_t len);
};

// As source_tar.open; `path` is for errors. The state is source_tar's.
enum status source_tar_open_input(void **state, const char *path,
                                  const struct source_tar_input *input, struct error *error);

// After `next`: where the entry's bytes lie in the file. False for a tar that is compressed or has
// an input of its own.
bool source_tar_place(void *state, uint64_t *offset);

#endif
