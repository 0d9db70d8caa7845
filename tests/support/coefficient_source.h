// The quantised coefficients of a JPEG as libjpeg reads them, handed out by rows, so that what the
// fast road does with coefficients can be tested without its own entropy decoder.
#ifndef TESTS_SUPPORT_COEFFICIENT_SOURCE_H
#define TESTS_SUPPORT_COEFFICIENT_SOURCE_H

#include "formats/jpeg/frame.h"

struct coefficient_source {
    struct jpeg_source source; // must stay first
    struct jpeg_frame frame;
    int16_t *blocks[3]; // of the whole image, in whole MCUs
    // What was asked of the source.
    uint32_t rows_asked, mcus_asked, last_row;
};

// False when the image is not grey, YCbCr or RGB. The file must be good: libjpeg ends the process
// otherwise.
bool coefficient_source_open(struct coefficient_source *out, const uint8_t *bytes, size_t len);
void coefficient_source_close(struct coefficient_source *out);

// Another file of the same kind and size, whose coefficients are random: of every eight about one
// has a value, up to `most` (1 to 1023) either way; all steps of quantisation are `step`.
uint8_t *coefficient_source_scramble(const uint8_t *bytes, size_t len, uint64_t seed, unsigned most,
                                     unsigned step, size_t *scrambled_len);

#endif
