#include "trainer/method/spread.h"

#include <math.h>

// Scales every row to length 1.
static void normalise_rows(float *values, size_t rows, size_t width)
{
    for (size_t row = 0; row < rows; row++, values += width) {
        double squares = 0;
        for (size_t i = 0; i < width; i++) {
            squares += (double)values[i] * (double)values[i];
        }
        float scale = (float)(1 / sqrt(fmax(squares, 1e-12)));
        for (size_t i = 0; i < width; i++) {
            values[i] *= scale;
        }
    }
}

void spread_sums(float *values, size_t rows, size_t width, double *sums)
{
    normalise_rows(values, rows, width);
    for (size_t column = 0; column < width; column++) {
        double sum = 0, squares = 0;
        for (size_t row = 0; row < rows; row++) {
            double value = (double)values[row * width + column];
            sum += value;
            squares += value * value;
        }
        sums[column] = sum;
        sums[width + column] = squares;
    }
}

double spread_of(const double *sums, size_t rows, size_t width)
{
    double total = 0;
    for (size_t column = 0; column < width; column++) {
        double mean = sums[column] / (double)rows;
        total += sqrt(fmax(sums[width + column] / (double)rows - mean * mean, 0));
    }
    return total / (double)width;
}
