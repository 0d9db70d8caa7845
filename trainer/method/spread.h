// How far apart the projections of a batch lie: the sign of health that every method watches.
#ifndef TRAINER_METHOD_SPREAD_H
#define TRAINER_METHOD_SPREAD_H

#include <stddef.h>

// Sums over rows: of each column, then of the squares of each.
#define SPREAD_SUMS(width) (2 * (size_t)(width))

// Scales every row of `values` [rows][width] to length 1, in place, and writes SPREAD_SUMS(width)
// sums. Those of several parts of a batch may be added up.
void spread_sums(float *values, size_t rows, size_t width, double *sums);

// The mean over the columns of the standard deviation over the rows: near 1/sqrt(width) when the
// rows point everywhere, 0 when all point the same way.
double spread_of(const double *sums, size_t rows, size_t width);

#endif
