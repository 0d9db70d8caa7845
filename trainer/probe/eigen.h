// Eigenvalues of a symmetric matrix, in double precision. Private to trainer/probe and its tests.
#ifndef TRAINER_PROBE_EIGEN_H
#define TRAINER_PROBE_EIGEN_H

#include "formats/status.h"

// `matrix` [n][n], both halves filled, is used up; `values` [n] become its eigenvalues, ascending.
// Errors are about 1e-15 of the largest one. About 2 n^3 operations.
enum status symmetric_eigenvalues(double *matrix, uint32_t n, double *values, struct error *error);

#endif
