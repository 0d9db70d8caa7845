// Standardised weights: each column of the weights' matrix [fan-in][out] with mean 0, variance 1.
#include "trainer/device/ref.h"

#include <math.h>

struct column {
    double mean, inverse;
};

static struct column measure(const float *weights, size_t rows, size_t columns, size_t column)
{
    double sum = 0, squares = 0;
    for (size_t row = 0; row < rows; row++) {
        sum += (double)weights[row * columns + column];
    }
    double mean = sum / (double)rows;
    for (size_t row = 0; row < rows; row++) {
        double centred = (double)weights[row * columns + column] - mean;
        squares += centred * centred;
    }
    return (struct column){mean, 1.0 / sqrt(squares / (double)rows + WEIGHT_STANDARD_EPSILON)};
}

void ref_standardise(const struct op_desc *desc, float *to, const float *params)
{
    size_t rows = op_fan_in(desc), columns = desc->out.c;
    for (size_t c = 0; c < columns; c++) {
        struct column column = measure(params, rows, columns, c);
        for (size_t at = c; at < rows * columns; at += columns) {
            to[at] = (float)(((double)params[at] - column.mean) * column.inverse);
        }
    }
    for (size_t c = 0; desc->bias && c < columns; c++) {
        to[rows * columns + c] = params[rows * columns + c];
    }
}

// With w^ the standardised weight and g its gradient: 1 / deviation (g - mean(g) - w^ mean(g w^)).
void ref_standard_backward(const struct op_desc *desc, float *grads, const float *params)
{
    size_t rows = op_fan_in(desc), columns = desc->out.c;
    for (size_t c = 0; c < columns; c++) {
        struct column column = measure(params, rows, columns, c);
        double sum = 0, product = 0;
        for (size_t at = c; at < rows * columns; at += columns) {
            sum += (double)grads[at];
            product += (double)grads[at] * ((double)params[at] - column.mean) * column.inverse;
        }
        for (size_t at = c; at < rows * columns; at += columns) {
            double unit = ((double)params[at] - column.mean) * column.inverse;
            double shared = (sum + unit * product) / (double)rows;
            grads[at] = (float)(column.inverse * ((double)grads[at] - shared));
        }
    }
}
