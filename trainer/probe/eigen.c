// Householder reflections make the matrix tridiagonal; bisection finds each eigenvalue of that by
// counting how many lie below a point (Golub and Van Loan, Matrix Computations, 8.3 and 8.4).
#include "trainer/probe/eigen.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

struct tridiagonal {
    uint32_t n;
    double *diagonal, *beside; // [n]; beside[i] is between i and i + 1
};

// Four sums, so that an addition need not wait for the one before.
static double dot(const double *left, const double *right, uint32_t count)
{
    double sum[4] = {0};
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        for (uint32_t k = 0; k < 4; k++) {
            sum[k] += left[i + k] * right[i + k];
        }
    }
    for (; i < count; i++) {
        sum[0] += left[i] * right[i];
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Applies the reflection 1 - scale v v' from both sides to the lower right block of side `count`.
static void reflect(double *block, uint32_t n, uint32_t count, const double *v, double scale,
                    double *w)
{
    for (uint32_t i = 0; i < count; i++) {
        w[i] = scale * dot(block + (size_t)i * n, v, count);
    }
    double half = scale / 2 * dot(v, w, count);
    for (uint32_t i = 0; i < count; i++) {
        w[i] -= half * v[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        double *row = block + (size_t)i * n, a = v[i], b = w[i];
        for (uint32_t j = 0; j < count; j++) {
            row[j] -= a * w[j] + b * v[j];
        }
    }
}

static void reduce(double *matrix, struct tridiagonal *out, double *v, double *w)
{
    uint32_t n = out->n;
    for (uint32_t k = 0; k + 1 < n; k++) {
        uint32_t count = n - k - 1;
        double *column = matrix + (size_t)k * n + k + 1; // as a row: the matrix is symmetric
        double tail = dot(column + 1, column + 1, count - 1);
        out->diagonal[k] = matrix[(size_t)k * n + k];
        out->beside[k] = column[0];
        if (tail > 0) {
            double length = sqrt(column[0] * column[0] + tail);
            out->beside[k] = column[0] > 0 ? -length : length;
            for (uint32_t i = 0; i < count; i++) {
                v[i] = column[i];
            }
            v[0] -= out->beside[k];
            reflect(matrix + (size_t)(k + 1) * n + k + 1, n, count, v, 2 / dot(v, v, count), w);
        }
    }
    out->diagonal[n - 1] = matrix[(size_t)n * n - 1];
}

// How many eigenvalues are below `point`: the negative pivots of T - point (Sylvester).
static uint32_t count_below(const struct tridiagonal *matrix, double point)
{
    uint32_t below = 0;
    double pivot = 1;
    for (uint32_t i = 0; i < matrix->n; i++) {
        double beside = i > 0 ? matrix->beside[i - 1] : 0;
        pivot = matrix->diagonal[i] - point - beside * beside / pivot;
        if (fabs(pivot) < DBL_MIN) {
            pivot = -DBL_MIN;
        }
        below += pivot < 0;
    }
    return below;
}

// All eigenvalues lie in the union of circles around the diagonal (Gershgorin).
static void bounds(const struct tridiagonal *matrix, double *low, double *high)
{
    *low = *high = matrix->diagonal[0];
    for (uint32_t i = 0; i < matrix->n; i++) {
        double radius = i > 0 ? fabs(matrix->beside[i - 1]) : 0;
        radius += i + 1 < matrix->n ? fabs(matrix->beside[i]) : 0;
        *low = fmin(*low, matrix->diagonal[i] - radius);
        *high = fmax(*high, matrix->diagonal[i] + radius);
    }
}

static void bisect_all(const struct tridiagonal *matrix, double *values)
{
    double lowest, highest;
    bounds(matrix, &lowest, &highest);
    double precision = DBL_EPSILON * fmax(fabs(lowest), fabs(highest));
    for (uint32_t k = 0; k < matrix->n; k++) {
        double low = k > 0 ? values[k - 1] - precision : lowest - precision;
        double high = highest + precision;
        while (high - low > precision) {
            double middle = low + (high - low) / 2;
            if (middle <= low || middle >= high) {
                break;
            }
            if (count_below(matrix, middle) > k) {
                high = middle;
            } else {
                low = middle;
            }
        }
        values[k] = low + (high - low) / 2;
    }
}

enum status symmetric_eigenvalues(double *matrix, uint32_t n, double *values, struct error *error)
{
    if (n == 0) {
        return STATUS_OK;
    }
    double *work = calloc(n, 4 * sizeof *work);
    if (work == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for the eigenvalues of a matrix of side %u", n);
    }
    struct tridiagonal reduced = {.n = n, .diagonal = work, .beside = work + n};
    reduce(matrix, &reduced, work + 2 * (size_t)n, work + 3 * (size_t)n);
    bisect_all(&reduced, values);
    free(work);
    return STATUS_OK;
}
