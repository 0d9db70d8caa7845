// How far apart the projections of a batch lie: the signs of health that every method watches.
#ifndef TRAINER_METHOD_SPREAD_H
#define TRAINER_METHOD_SPREAD_H

#include <stddef.h>

struct spread {
    double deviation;       // mean over the columns of the standard deviation over the rows: near
                            // 1/sqrt(width) when the rows point everywhere, 0 when all point the
                            // same way
    double positive_cosine; // mean over the images, of the two views of one
    double negative_cosine; // mean over all pairs of rows of different images, whatever their
                            // views; NaN when there is one image
};

// What a spread is made of: the sums of all columns, of their squares, and what the views of an
// image add up to, squared.
#define SPREAD_SUMS(width) (2 * (size_t)(width) + 1)

// Two views of each image, `values` [2 images][width], micro-batch after micro-batch: the first
// views of its `micro` images, then their second views. Scales every row to length 1, in place, and
// writes SPREAD_SUMS(width) sums. Those of several parts of a batch may be added up.
void spread_sums(float *values, size_t images, size_t micro, size_t width, double *sums);

// From the sums over all images.
struct spread spread_of(const double *sums, size_t images, size_t width);

#endif
