// The arithmetic of normalisation on the GPU (trainer/cuda/norm_math.h), compiled for the
// processor: against the plain formulas in double, and the recurrence of running averages.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "trainer/cuda/norm_math.h"

#define VALUES 200

static uint64_t random_state;

static double random_value(void) // uniform in [-1, 1)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / 4503599627370496.0 - 1.0;
}

static void assert_near(double got, double wanted, double bound)
{
    if (!(fabs(got - wanted) <= bound)) {
        fail_msg("%.17g is not %.17g, by %.2e", got, wanted, got - wanted);
    }
}

struct moments {
    double mean, variance;
};

static struct moments moments_of(const double *x, size_t count)
{
    struct moments moments = {0, 0};
    for (size_t i = 0; i < count; i++) {
        moments.mean += x[i] / (double)count;
    }
    for (size_t i = 0; i < count; i++) {
        moments.variance += (x[i] - moments.mean) * (x[i] - moments.mean) / (double)count;
    }
    return moments;
}

// Sums of differences from the first value, brought back, give mean and variance, however far from
// zero the values lie.
static void test_moments(void **state)
{
    (void)state;
    random_state = 1;
    static const double centres[] = {0, 1, 11, 111, 1111};
    for (size_t k = 0; k < sizeof centres / sizeof centres[0]; k++) {
        double centre = centres[k];
        double x[VALUES], values = 0, squares = 0;
        for (size_t i = 0; i < VALUES; i++) {
            x[i] = centre + random_value();
            values += x[i] - x[0];
            squares += (x[i] - x[0]) * (x[i] - x[0]);
        }
        struct cuda_norm_sum sum = cuda_norm_unshift(VALUES, x[0], values, squares);
        struct cuda_norm_moments got = cuda_norm_measure(sum.values, sum.squares, VALUES);
        struct moments wanted = moments_of(x, VALUES);
        assert_near((double)got.mean, wanted.mean, 1e-7 * (1 + centre));
        assert_near((double)got.variance, wanted.variance, 2e-7);
        assert_near((double)cuda_norm_inverse(got.variance),
                    1 / sqrt(wanted.variance + (double)BATCH_NORM_EPSILON), 1e-6);
    }
}

static void test_moments_of_equal_values(void **state)
{
    (void)state;
    struct cuda_norm_sum sum = cuda_norm_unshift(7, 0.1, 0, 0);
    struct cuda_norm_moments moments = cuda_norm_measure(sum.values, sum.squares, 7);
    assert_near((double)moments.mean, 0.1, 1e-8);
    assert_true(moments.variance >= 0 && moments.variance < 1e-15f);
    assert_near((double)cuda_norm_inverse(0), 1 / sqrt(1e-5), 1e-4);
}

static void test_lines(void **state)
{
    (void)state;
    random_state = 2;
    for (size_t i = 0; i < VALUES; i++) {
        float scale = (float)random_value(), offset = (float)random_value();
        float mean = (float)random_value(), inverse = 1.5f + (float)random_value();
        float x = 3 * (float)random_value();
        struct cuda_norm_line line = cuda_norm_line_of(scale, offset, mean, inverse);
        double unit = ((double)x - (double)mean) * (double)inverse;
        assert_near((double)cuda_norm_value(line, x), unit * (double)scale + (double)offset, 2e-6);
    }
}

// The gradient of what a run of values makes of one of them.
static void test_slopes(void **state)
{
    (void)state;
    random_state = 3;
    for (size_t i = 0; i < VALUES; i++) {
        float scale = (float)random_value(), mean = (float)random_value();
        float inverse = 1.5f + (float)random_value();
        double mean_gradient = random_value(), mean_product = random_value();
        float x = 3 * (float)random_value(), gradient = (float)random_value();
        struct cuda_norm_slope slope =
            cuda_norm_slope_of(scale, mean, inverse, mean_gradient, mean_product);
        double unit = ((double)x - (double)mean) * (double)inverse;
        double wanted = (double)inverse *
                        ((double)scale * (double)gradient - mean_gradient - unit * mean_product);
        assert_near((double)cuda_norm_gradient(slope, gradient, x), wanted, 1e-5);
    }
}

// Forward stores a value that backward's ReLU must agree on.
static void test_gates(void **state)
{
    (void)state;
    const float values[] = {0,         -0.0f,       1,         -1,        0x1p-126f,
                            0x1p-133f, 0x1.8p-134f, 0x1p-134f, 0x1p-149f, -0x1p-149f,
                            INFINITY,  -INFINITY,   NAN};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_int_equal(cuda_norm_passes(values[i], false), values[i] > 0);
        assert_int_equal(cuda_norm_passes(values[i], true), bfloat_value(bfloat_of(values[i])) > 0);
    }
}

static void test_decay(void **state)
{
    (void)state;
    for (int counter = 0; counter < 3000; counter += counter < 200 ? 1 : 123) {
        double wanted = pow((double)BATCH_NORM_DECAY, counter);
        assert_near(cuda_norm_decay((float)counter), wanted, 1e-13);
        assert_true((float)cuda_norm_decay((float)counter) ==
                        powf(BATCH_NORM_DECAY, (float)counter) ||
                    counter > 100);
    }
    assert_true(cuda_norm_decay(0) == 1);
    assert_true(1.0f - (float)cuda_norm_decay(1e7f) == 1.0f);
}

// The zero-debiased average of values is their mean with weights 0.9^age: after one, the value.
static void test_running_average(void **state)
{
    (void)state;
    random_state = 4;
    float hidden = 0;
    double values[VALUES];
    for (int step = 0; step < VALUES; step++) {
        values[step] = 5 + random_value();
        hidden = cuda_norm_remember(hidden, (float)values[step]);
        float average = cuda_norm_average(hidden, cuda_norm_decay((float)step + 1));
        double sum = 0, weights = 0;
        for (int i = 0; i <= step; i++) {
            double weight = pow((double)BATCH_NORM_DECAY, step - i);
            sum += weight * values[i];
            weights += weight;
        }
        assert_near((double)average, sum / weights, 5e-6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments),         cmocka_unit_test(test_moments_of_equal_values),
        cmocka_unit_test(test_lines),           cmocka_unit_test(test_slopes),
        cmocka_unit_test(test_gates),           cmocka_unit_test(test_decay),
        cmocka_unit_test(test_running_average),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
