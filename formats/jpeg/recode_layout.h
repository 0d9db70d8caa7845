// The byte layout of a recoded JPEG and the meaning of its symbols, shared by both sides; private
// to formats/jpeg/recode*.c. Specified in formats/README.md.
#ifndef FORMATS_JPEG_RECODE_LAYOUT_H
#define FORMATS_JPEG_RECODE_LAYOUT_H

#include "formats/jpeg/header.h"
#include "formats/jpeg/recode.h"

#define RECODE_VERSION      1u
#define RECODE_FIXED_BYTES  28u // before the codes
#define RECODE_SLACK        8u  // zeros after the rows: streams are read eight bytes at a time
#define RECODE_FLAG_EXACT   1u
#define RECODE_TABLES       2u  // of codes: the first component's, the others'
#define RECODE_STREAMS      4u  // of a component in a row of MCUs
#define RECODE_ALONE        64u // with fewer symbols, there is one stream
#define RECODE_GROUP_VALUES 8u  // numbers at the start of a component's part of a row, at most
#define RECODE_VALUE_BYTES  5u  // of such a number, at most

// --- symbols -----------------------------------------------------------------------------------

// 0 to 159: a coefficient of an amplitude of 1 to 10 bits after 0 to 15 zeros; then sixteen zeros;
// then the end of a block together with the next block's DC difference of 0 to 10 bits; and the one
// difference that needs 11.
#define RECODE_SIZES   10u
#define RECODE_ZEROS   160u
#define RECODE_END     161u
#define RECODE_DC_LOW  (RECODE_END + RECODE_SIZES + 1u) // -1024, without further bits
#define RECODE_SYMBOLS (RECODE_DC_LOW + 1u)

#define RECODE_CODE_BITS 9u // of a code, at most

struct recode_symbol {
    unsigned size;    // bits of the amplitude, the sign included
    unsigned advance; // coefficients to go on, to where the value belongs
    bool end;         // go on from the last coefficient of the block
    int value;        // where there is no amplitude
};

struct recode_symbol recode_symbol(unsigned symbol);

// Codes from their lengths: canonical, first bit lowest. False when they are no complete code.
bool recode_codes(const uint8_t lengths[RECODE_SYMBOLS], uint16_t codes[RECODE_SYMBOLS]);

// Optimal lengths of at most RECODE_CODE_BITS for symbols that occur `counts` times. At least two
// must occur.
void recode_lengths(const uint64_t counts[RECODE_SYMBOLS], uint8_t lengths[RECODE_SYMBOLS]);

// --- bytes -------------------------------------------------------------------------------------

uint32_t recode_load32(const uint8_t *at);
void recode_store32(uint8_t *at, uint32_t value);

// The fields of a payload, checked against its length. Offsets are from its start.
struct recode_layout {
    struct jpeg_frame frame;
    struct jpeg_header header; // of the original file, with the same frame; points into the payload
    bool exact;
    uint32_t original_length, original_crc;
    uint32_t tables; // of codes
    uint8_t lengths[RECODE_TABLES][RECODE_SYMBOLS];
    const uint8_t *ends;      // of rows, u32 each, from the start of `rows`
    size_t rows, rows_end;    // RECODE_SLACK more may be read
    size_t head, head_length; // of the original file, up to the entropy-coded data
    size_t tail, tail_length; // and after it
};

enum status recode_layout_read(struct recode_layout *layout, const uint8_t *bytes, size_t len,
                               struct error *error);

// Writes the fields before the codes.
void recode_layout_write(const struct recode_layout *layout, uint8_t bytes[RECODE_FIXED_BYTES]);

// Lengths of codes as the payload has them; the latter returns how many bytes that were, at most
// RECODE_LENGTHS_MOST. NULL: `at` to `end` hold no lengths.
#define RECODE_LENGTHS_MOST RECODE_SYMBOLS
const uint8_t *recode_lengths_read(const uint8_t *at, const uint8_t *end,
                                   uint8_t lengths[RECODE_SYMBOLS]);
size_t recode_lengths_write(const uint8_t lengths[RECODE_SYMBOLS], uint8_t *to);

#endif
