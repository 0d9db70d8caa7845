// A recoded JPEG: the quantised coefficients of a plain JPEG file (formats/jpeg/header.h), stored
// without loss in a form that decodes several times as fast, any row of MCUs by itself, together
// with what is needed to write the JPEG file again. Byte tables: formats/README.md.
//
// Such bytes are an image to formats/image.h like any other. What decodes them is in
// recode_source.h; here are the ways there and back.
#ifndef FORMATS_JPEG_RECODE_H
#define FORMATS_JPEG_RECODE_H

#include "formats/jpeg/frame.h"

// Whether bytes start as only a recoded JPEG does.
bool recode_is(const void *bytes, size_t len);

// A payload is at most 1.15 times as long as the JPEG file.
#define RECODE_MOST_OF_100 115u

enum recode_outcome {
    RECODE_EXACT,   // the file comes back byte for byte
    RECODE_PIXELS,  // a file with the same coefficients comes back
    RECODE_UNUSUAL, // not a plain JPEG, or damaged
    RECODE_EXTREME, // coefficients beyond what 8-bit samples give
    RECODE_LARGE,   // not small enough
    RECODE_DIFFERS, // did not decode to the same
    RECODE_OUTCOMES
};

// Keeps its buffers. One encoder, one thread.
struct recode_encoder;
enum status recode_encoder_open(struct recode_encoder **out, struct error *error);
void recode_encoder_close(struct recode_encoder **encoder); // accepts a pointer to NULL

// Recodes a JPEG file and proves it: the payload is decoded and compared coefficient by
// coefficient, and the JPEG file is written again from it. For the first two outcomes `*payload`
// is the result, valid until the next call; for the others it is NULL and the file should be kept
// as it is, which is not an error. Errors: STATUS_NO_MEMORY.
enum status recode_encode(struct recode_encoder *encoder, const uint8_t *bytes, size_t len,
                          enum recode_outcome *outcome, const uint8_t **payload,
                          size_t *payload_len, struct error *error);

// Writes the JPEG file again. `exact`: it is the original, whose length and CRC-32C were checked;
// else a file with the same coefficients, tables and markers. `*jpeg` is malloc'ed.
enum status recode_restore(const uint8_t *bytes, size_t len, bool *exact, uint8_t **jpeg,
                           size_t *jpeg_len, struct error *error);

#endif
