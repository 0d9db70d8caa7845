// A table in a MATLAB file of level 5 ("MAT-file", version 7 and before): an array of structures
// whose fields are numbers and texts.
// (https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf)
//
//     128 bytes of header, the last two "IM": little-endian
//     elements: u32 type, u32 length, the bytes, zeros to a multiple of 8; or of up to 4 bytes
//               u16 type, u16 length, 4 bytes
//
// A variable is an element of type 14, or one of type 15 that zlib packed: flags (its class), its
// dimensions, its name, then what it holds.
#ifndef FORMATS_MAT_TABLE_H
#define FORMATS_MAT_TABLE_H

#include "formats/status.h"

#include <stdbool.h>

// A field of a row: a text (its first bytes, "" for none) or a number.
struct mat_cell {
    char text[64];
    double number;
    bool is_number;
};

// Calls `row` for each row of the table `name`, with the cells of those `fields` (at most 32) in
// their order; an absent one is STATUS_UNSUPPORTED. What `row` returns but STATUS_OK ends it.
// `path` is for errors.
enum status mat_table_read(const void *bytes, size_t len, const char *path, const char *name,
                           const char *const *fields, size_t field_count,
                           enum status (*row)(void *context, const struct mat_cell *cells,
                                              struct error *error),
                           void *context, struct error *error);

#endif
