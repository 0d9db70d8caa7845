// The header of a plain JPEG file: everything before the entropy-coded data.
//
// Plain is what most photographs are: baseline, 8 bits, one scan; grey, or three components of
// which only the first may have a higher resolution (2x1, 1x2 or 2x2). Such a file is read here
// without libjpeg. Everything else, damaged or merely rare, is left to libjpeg, which also decides
// what to report; so there is no error, only "not plain".
#ifndef FORMATS_JPEG_HEADER_H
#define FORMATS_JPEG_HEADER_H

#include "formats/jpeg/frame.h"

// A Huffman table as the file has it, pointing into the file's bytes; valid as libjpeg checks it.
struct jpeg_huffman_code {
    const uint8_t *counts;  // of codes with 1 to 16 bits
    const uint8_t *symbols; // by increasing code
};

struct jpeg_header {
    struct jpeg_frame frame;
    struct jpeg_huffman_code dc[3], ac[3]; // by component
    uint32_t restart_interval;             // MCUs, 0 for none
    size_t scan;                           // where the entropy-coded data starts
};

// False when the file is not plain; `header` is undefined then. A header is plain only if libjpeg
// accepts it without a warning, and then says the same. Keeps pointers into `bytes`.
bool jpeg_header_read(struct jpeg_header *header, const uint8_t *bytes, size_t len);

// The natural (row by row) place of the coefficients in the order of the file.
extern const uint8_t jpeg_natural_place[JPEG_BLOCK];

#endif
