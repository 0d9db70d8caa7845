// The inner loops of the pixel stage: built once for each vector level (pixels_simd.c), the same
// bits from all of them. They are libjpeg-turbo's arithmetic as its x86-64 vector code does it.
//
// Rows may be read a little before and beyond what is asked for, and are written in full vectors.
#ifndef FORMATS_JPEG_KERNELS_H
#define FORMATS_JPEG_KERNELS_H

#include "formats/isa.h"

#include <stddef.h>
#include <stdint.h>

#define JPEG_READ_BEFORE   1   // samples
#define JPEG_READ_BEYOND   64  //
#define JPEG_WRITE_BEYOND  126 // 63 where a row is not doubled
#define JPEG_BLOCKS_BEYOND 3   // blocks, read by `transform`, which writes their samples

struct jpeg_kernels {
    // Inverse DCT ("IFAST") of `count` blocks that follow each other to samples that stand side by
    // side, 8 rows `stride` apart. `multipliers`: the steps of quantisation, times the scaling that
    // the method leaves out of its rows and columns, with two fractional bits.
    void (*transform)(const int16_t *blocks, size_t count, const int16_t *multipliers,
                      uint8_t *samples, size_t stride);

    // "Fancy" upsampling of a row of `count` samples. The first and the last sample have no
    // neighbour beyond, whatever lies there.
    void (*double_width)(const uint8_t *row, size_t count, uint8_t *out);
    // The row between `near` and `far`, a quarter of the way; of twice the width, or (with `bias`
    // 1 where far is above, 2 where it is below) of the same.
    void (*double_both)(const uint8_t *near, const uint8_t *far, size_t count, uint8_t *out);
    void (*double_height)(const uint8_t *near, const uint8_t *far, int bias, size_t count,
                          uint8_t *out);

    // Y, Cb, Cr to R, G, B.
    void (*convert)(const uint8_t *const ycc[3], size_t count, uint8_t *const rgb[3]);
};

ISA_DECLARE(struct jpeg_kernels, jpeg_kernels);

#endif
