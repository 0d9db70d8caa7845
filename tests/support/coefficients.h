// What libjpeg reads from a JPEG file's scan, as the measure of our own decoder.
#ifndef TESTS_SUPPORT_COEFFICIENTS_H
#define TESTS_SUPPORT_COEFFICIENTS_H

#include "formats/jpeg/frame.h"

// Start from {0}, end with coefficients_free.
struct coefficients {
    bool complete;      // libjpeg came to the end without an error; warnings are no errors
    bool one_scan;      // and without a second scan
    uint32_t good_rows; // rows of MCUs before the first warning or error
    int16_t *blocks[3]; // if complete: all rows, each as struct jpeg_source delivers it
};

// `frame` is what our own header parser says; its agreement with libjpeg's is part of the answer:
// where they differ nothing is complete and no row good. Warnings of the header leave no good row.
void coefficients_read(struct coefficients *out, const struct jpeg_frame *frame,
                       const uint8_t *bytes, size_t len);
void coefficients_free(struct coefficients *coefficients);

// Skips the running test where libjpeg-turbo's inverse DCT gives other samples than on x86, whose
// samples are the reference's and ours: elsewhere sums that pass 16 bits end differently, which
// noise and extreme coefficients reach and photographs do not.
void coefficients_need_x86(void);

#endif
