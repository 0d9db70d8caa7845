// The inner loops of the pixel stage: built once for each vector level (pixels_simd.c), the same
// bits from all of them. They are libjpeg-turbo's arithmetic as its x86-64 vector code does it.
//
// Rows may be read up to JPEG_ROW_MARGIN bytes before and JPEG_ROW_SLACK bytes after what is asked
// for, and are written in full vectors: up to JPEG_ROW_SLACK bytes after what was asked for.
#ifndef FORMATS_JPEG_KERNELS_H
#define FORMATS_JPEG_KERNELS_H

#include "formats/isa.h"

#include <stddef.h>
#include <stdint.h>

#define JPEG_ROW_MARGIN   64
#define JPEG_ROW_SLACK    128
#define JPEG_BLOCKS_SLACK 3 // blocks are transformed four at a time

struct jpeg_kernels {
    // Inverse DCT ("IFAST") of `count` blocks that follow each other to samples that stand side by
    // side, 8 rows `stride` apart; up to JPEG_BLOCKS_SLACK blocks more are read, and their samples
    // written. `multipliers`: what jpeg_multipliers made; 64-byte aligned as are the blocks.
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
