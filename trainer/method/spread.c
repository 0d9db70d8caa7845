#include "trainer/method/spread.h"

#include <math.h>
#include <string.h>

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

void spread_sums(float *values, size_t images, size_t micro, size_t width, double *sums)
{
    memset(sums, 0, SPREAD_SUMS(width) * sizeof *sums);
    normalise_rows(values, 2 * images, width);
    double *squares = sums + width, *same = squares + width;
    for (size_t first = 0; first < images; first += micro, values += 2 * micro * width) {
        for (size_t i = 0; i < micro * width; i++) {
            double one = (double)values[i], two = (double)values[micro * width + i];
            sums[i % width] += one + two;
            squares[i % width] += one * one + two * two;
            *same += (one + two) * (one + two);
        }
    }
}

// The cosines of all rows with all others, summed, are the square of the sum of all rows; those
// within an image the square of the sum of its two. So no pairs are needed.
struct spread spread_of(const double *sums, size_t images, size_t width)
{
    const double *squares = sums + width, same = squares[width];
    double count = (double)images, pairs = 4 * count * (count - 1); // in both orders
    double all = 0, lengths = 0, deviations = 0;
    for (size_t i = 0; i < width; i++) {
        double mean = sums[i] / (2 * count);
        all += sums[i] * sums[i];
        lengths += squares[i];
        deviations += sqrt(fmax(squares[i] / (2 * count) - mean * mean, 0));
    }
    return (struct spread){
        .deviation = deviations / (double)width,
        .positive_cosine = (same - lengths) / (2 * count),
        .negative_cosine = images > 1 ? (all - same) / pairs : NAN,
    };
}
