// What view_render needs besides its output, and the plan of one view in it. Private to
// view_render.c and view_scratch.c.
#ifndef AUGMENT_VIEW_SCRATCH_H
#define AUGMENT_VIEW_SCRATCH_H

#include "augment/resize_plan.h"
#include "augment/view.h"

#define BLUR_ROWS 8 // blurred vertically together; even

struct view_scratch {
    uint32_t max_size;
    size_t stride; // floats from row to row
    void *memory;
    struct resize_table *table;
    struct resize_taps *rows;
    struct row_columns columns;
    float *line[3];   // vertically resized, as wide as the crop
    float *image[3];  // between passes: size rows, `stride` apart
    float *padded[3]; // a row with zeros around it, for the blur
    float *ring[3];   // horizontally blurred rows
    float *result[BLUR_ROWS][3];
    float *zeros; // a row outside the image
    float *weights;
    const float **window; // rows under the vertical blur
};

#endif
