// What the fast JPEG road knows of an image before its pixels, and the seam between the two halves
// of that road: something that yields quantised coefficients (the entropy decoder of baseline
// files, or the recoded form), and the stage that turns them into the pixels of windows.
#ifndef FORMATS_JPEG_FRAME_H
#define FORMATS_JPEG_FRAME_H

#include "formats/status.h"

#include <stdbool.h>

#define JPEG_BLOCK 64 // coefficients of a block

struct jpeg_component {
    uint32_t h, v;              // sampling factors; 1 and 1 where there is one component only
    uint16_t quant[JPEG_BLOCK]; // natural (row by row) order
};

// Baseline, 8 bits, one component or three. Blocks are counted in whole MCUs, as they are stored.
struct jpeg_frame {
    uint32_t width, height; // pixels
    uint32_t components;    // 1 grey, 3
    bool rgb;               // three components that are R, G, B already; else Y, Cb, Cr
    uint32_t h_max, v_max;
    uint32_t mcus_wide, mcus_high; // an MCU has 8 * h_max x 8 * v_max pixels
    struct jpeg_component component[3];
};

// Yields the coefficients of an image, one row of MCUs after another.
struct jpeg_source {
    // Decodes MCUs [first, end) of MCU row `row` into `blocks[component]`: quantised values in
    // natural order, block (y, x) of the row's v x (mcus_wide * h) blocks of a component at
    // blocks[component] + (y * mcus_wide * h + x) * JPEG_BLOCK, 64-byte aligned. Blocks of other
    // MCUs are left as they are or overwritten. Rows are asked for in ascending order, each at most
    // once; some may be left out.
    enum status (*row)(struct jpeg_source *source, uint32_t row, uint32_t first, uint32_t end,
                       int16_t *const blocks[3], struct error *error);
};

#endif
