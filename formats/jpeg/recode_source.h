// The coefficients of a recoded JPEG (formats/jpeg/recode.h), any row of MCUs by itself.
//
// How it is fast. The symbols of a component's blocks in a row of MCUs are cut into four streams of
// equally many, which one loop without branches decodes side by side, so that the wait for one
// stream's table look-up is filled by the others. One look gives everything about a symbol; where
// the coefficient goes and where the stream goes on are two fields of one 64-bit number, moved by
// one addition. The end of a block is a symbol like others: it carries the next block's DC.
#ifndef FORMATS_JPEG_RECODE_SOURCE_H
#define FORMATS_JPEG_RECODE_SOURCE_H

#include "formats/jpeg/recode_layout.h"

#define RECODE_LOOK_BITS   (RECODE_CODE_BITS + 1u) // of a look: a code and its sign
#define RECODE_LOOKS       (1u << RECODE_LOOK_BITS)
#define RECODE_PLACE_SHIFT 40 // of the coefficient's place; below it lies the place in the stream

// What the next bits start with, by their value.
struct recode_table {
    uint64_t align[RECODE_LOOKS]; // at the end of a block, brings the place to the block's last
    uint64_t move[RECODE_LOOKS];  // bits of the symbol; coefficients to go on, shifted
    int32_t base[RECODE_LOOKS];   // the value, but for the bits after the sign
    uint8_t skip[RECODE_LOOKS];   // bits of the code and the sign
};

// Owned by the caller, who need not look inside; about 45 KiB, nothing to free.
struct recode_source {
    struct jpeg_source source; // ask this for rows
    const uint8_t *bytes;
    struct recode_layout layout;
    uint32_t next_row;
    struct recode_table table[RECODE_TABLES];
};

// Prepares for a recoded file, whose frame is then source->layout.frame. `bytes` must
// outlive the rows; nothing beyond `len` is read. `source` must not move afterwards.
// STATUS_CORRUPT, _TRUNCATED, _LIMIT or _VERSION.
enum status recode_source_start(struct recode_source *source, const uint8_t *bytes, size_t len,
                                struct error *error);

#endif
