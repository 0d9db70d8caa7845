// How far apart the projections of a batch lie: the sign of health that every method watches.
#ifndef TRAINER_METHOD_SPREAD_H
#define TRAINER_METHOD_SPREAD_H

#include <stddef.h>

// Scales every row of `values` [rows][width] to length 1, in place, and returns the mean over the
// columns of the standard deviation over the rows: near 1/sqrt(width) when the rows point
// everywhere, 0 when all point the same way.
double spread_of(float *values, size_t rows, size_t width);

#endif
