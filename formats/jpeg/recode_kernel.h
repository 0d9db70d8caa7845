// Between recode_source.c and the decoding loop; private to formats/jpeg/recode*.c.
#ifndef FORMATS_JPEG_RECODE_KERNEL_H
#define FORMATS_JPEG_RECODE_KERNEL_H

#include "formats/isa.h"
#include "formats/jpeg/recode_source.h"

// A component's part of a row. Places count coefficients as if a block preceded the first, so that
// a stream may start before all of them.
struct recode_group {
    uint32_t symbols;                   // of all streams
    uint32_t each;                      // of every stream; the last one has the remainder too
    uint32_t place[RECODE_STREAMS];     // of the coefficient before a stream's first
    uint32_t start[RECODE_STREAMS + 1]; // bytes from the payload's start; the end of the last
};

struct recode_kernel {
    // Decodes `blocks` blocks into zeros. False when the bits lead astray; nothing beyond the
    // blocks was written then, and nothing beyond `readable` bytes, which are at least 8, read.
    bool (*decode)(const struct recode_table *table, const struct recode_group *group,
                   const uint8_t *bytes, size_t readable, int16_t *coefficients, uint32_t blocks);
};

ISA_DECLARE(struct recode_kernel, recode_kernel);

#endif
