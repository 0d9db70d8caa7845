// Pictures made on the spot for tests: pixels with edges, gradients and noise, and JPEG files of
// every kind that libjpeg can write.
#ifndef TESTS_SUPPORT_PICTURE_H
#define TESTS_SUPPORT_PICTURE_H

#include "formats/image.h"

enum picture_colors {
    PICTURE_YCBCR,
    PICTURE_GREY,
    PICTURE_RGB,        // components R, G, B as they are
    PICTURE_CMYK,       // with Adobe's marker
    PICTURE_YCCK,       // with Adobe's marker
    PICTURE_CMYK_PLAIN, // without the marker: not inverted
};

struct picture_jpeg {
    enum picture_colors colors;
    int h, v;   // sampling factors of the first component; 0 = 1
    int h2, v2; // of the second; 0 = 1
    bool progressive, arithmetic;
    unsigned restart; // MCUs between restart markers
    int scans;        // grey only: so many scans (2 to 127) of a progressive file
    int quality;      // 0 = 85
    bool optimized;   // Huffman tables of its own, also where libjpeg would take the standard's
};

// Fills `image`; the same seed gives the same pixels.
void picture_fill(struct image *image, uint32_t width, uint32_t height, uint64_t seed);

// Writes a JPEG into malloc'ed memory. CMYK kinds take C, M, Y from the pixels' channels and K from
// their place. Aborts when libjpeg refuses.
uint8_t *picture_jpeg(const struct image *image, const struct picture_jpeg *how, size_t *len);

// Where the first scan's data begin: everything before is header.
size_t picture_jpeg_header(const uint8_t *bytes, size_t len);

// Where the parameters of the frame header (precision, height, width, components) begin.
size_t picture_jpeg_frame(const uint8_t *bytes, size_t len);

#endif
