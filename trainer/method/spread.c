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

// What a column adds to the square of the sum of all rows, to the squares of the sums of each
// image's two rows, and to the squares of the rows; and its standard deviation.
struct column {
    double all, same, lengths, deviation;
};

static struct column measure_column(const float *values, size_t images, size_t micro, size_t width)
{
    struct column column = {0, 0, 0, 0};
    double sum = 0, squares = 0;
    for (size_t first = 0; first < images; first += micro, values += 2 * micro * width) {
        for (size_t image = 0; image < micro; image++) {
            double one = (double)values[image * width];
            double two = (double)values[(micro + image) * width];
            sum += one + two;
            squares += one * one + two * two;
            column.same += (one + two) * (one + two);
        }
    }
    double rows = (double)(2 * images), mean = sum / rows;
    column.all = sum * sum;
    column.deviation = sqrt(fmax(squares / rows - mean * mean, 0));
    column.lengths = squares;
    return column;
}

// The cosines of all rows with all others, summed, are the square of the sum of all rows; those
// within an image the square of the sum of its two. So no pairs are needed.
struct spread spread_of(float *values, size_t images, size_t micro, size_t width)
{
    struct column total = {0, 0, 0, 0};
    normalise_rows(values, 2 * images, width);
    for (size_t i = 0; i < width; i++) {
        struct column column = measure_column(values + i, images, micro, width);
        total.all += column.all;
        total.same += column.same;
        total.lengths += column.lengths;
        total.deviation += column.deviation;
    }
    double count = (double)images, pairs = 4 * count * (count - 1); // in both orders
    return (struct spread){
        .deviation = total.deviation / (double)width,
        .positive_cosine = (total.same - total.lengths) / (2 * count),
        .negative_cosine = images > 1 ? (total.all - total.same) / pairs : NAN,
    };
}
