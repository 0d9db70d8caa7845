// The formulas of the cuda device's layers, which its kernels and this suite compile alike, against
// brute force and the reference: folded images and filters, windows of pools, standardised weights.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/cuda/image_math.h"
#include "trainer/cuda/pool_math.h"
#include "trainer/cuda/weights_math.h"
#include "trainer/device/ref.h"

static uint64_t random_state = 1;

static float random_value(void) // uniform in [-1, 1)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(random_state >> 40) / 8388608.0f - 1.0f;
}

// --- input

static void test_input(void **state)
{
    (void)state;
    struct op_desc desc = {.in = {TENSOR_IMAGE, 2, 5, 7, 3}};
    float x[2 * 5 * 7 * 3], y[2 * 5 * 7 * 3];
    size_t count = sizeof x / sizeof *x;
    for (size_t i = 0; i < count; i++) {
        x[i] = random_value();
    }
    ref_input_forward(&desc, y, x);
    for (size_t i = 0; i < count; i++) {
        float value = input_value(x[i], op_input_mean[i % 3], op_input_deviation[i % 3]);
        assert_memory_equal(&value, &y[i], sizeof value);
    }
}

// --- folded images

static void test_fold_places(void **state)
{
    (void)state;
    bool met[FOLD_VALUES] = {false};
    for (uint32_t i = 0; i < FOLD_VALUES; i++) {
        uint32_t y = i / 6, x = i / 3 % 2, c = i % 3;
        uint32_t place = fold_place(2 * i + y, 6 + x, c);
        assert_true(place < FOLD_VALUES && !met[place]);
        met[place] = true;
        struct fold_value value = fold_value_at(place);
        assert_true(value.y == y && value.x == x && value.c == c);
    }
}

#define SIDE 12 // pixels
#define MOST 7  // taps and blocks along one side

struct stem {
    uint32_t kernel, pad_top, pad_left, blocks; // of the filter, along one side
    double x[SIDE][SIDE][3];
    double taps[MOST][MOST][3];
    double folded[SIDE / 2][SIDE / 2][FOLD_VALUES];
    double filter[MOST][MOST][FOLD_VALUES];
};

static void stem_fill(struct stem *stem)
{
    for (uint32_t i = 0; i < SIDE * SIDE * 3; i++) {
        uint32_t y = i / 3 / SIDE, x = i / 3 % SIDE, c = i % 3;
        stem->x[y][x][c] = (double)random_value();
        stem->folded[y / 2][x / 2][fold_place(y, x, c)] = stem->x[y][x][c];
    }
    for (uint32_t i = 0; i < stem->kernel * stem->kernel * 3; i++) {
        stem->taps[i / 3 / stem->kernel][i / 3 % stem->kernel][i % 3] = (double)random_value();
    }
}

// Returns how many taps of the master the filter has.
static uint32_t stem_fold(struct stem *stem)
{
    uint32_t met = 0, shift_y = fold_shift(stem->pad_top), shift_x = fold_shift(stem->pad_left);
    for (uint32_t i = 0; i < stem->blocks * stem->blocks * FOLD_VALUES; i++) {
        uint32_t block = i / FOLD_VALUES, place = i % FOLD_VALUES;
        struct fold_value value = fold_value_at(place);
        uint32_t y = fold_tap(block / stem->blocks, value.y, shift_y);
        uint32_t x = fold_tap(block % stem->blocks, value.x, shift_x);
        double *to = &stem->filter[block / stem->blocks][block % stem->blocks][place];
        *to = 0;
        if (y < stem->kernel && x < stem->kernel) {
            *to = stem->taps[y][x][value.c];
            met++;
            // The way back, as gradients take it.
            assert_int_equal((y + shift_y) / 2, block / stem->blocks);
            assert_int_equal((x + shift_x) / 2, block % stem->blocks);
            assert_int_equal(fold_place(y + shift_y, x + shift_x, value.c), place);
        }
    }
    return met;
}

static double direct_output(const struct stem *stem, uint32_t oy, uint32_t ox)
{
    double sum = 0;
    for (uint32_t i = 0; i < stem->kernel * stem->kernel * 3; i++) {
        uint32_t ky = i / 3 / stem->kernel, kx = i / 3 % stem->kernel;
        uint32_t y = 2 * oy + ky - stem->pad_top, x = 2 * ox + kx - stem->pad_left;
        if (y < SIDE && x < SIDE) {
            sum += stem->x[y][x][i % 3] * stem->taps[ky][kx][i % 3];
        }
    }
    return sum;
}

static double folded_output(const struct stem *stem, uint32_t oy, uint32_t ox)
{
    double sum = 0;
    for (uint32_t i = 0; i < stem->blocks * stem->blocks * FOLD_VALUES; i++) {
        uint32_t by = i / FOLD_VALUES / stem->blocks, bx = i / FOLD_VALUES % stem->blocks;
        uint32_t y = oy + by - fold_padding(stem->pad_top);
        uint32_t x = ox + bx - fold_padding(stem->pad_left);
        if (y < SIDE / 2 && x < SIDE / 2) {
            sum += stem->folded[y][x][i % FOLD_VALUES] * stem->filter[by][bx][i % FOLD_VALUES];
        }
    }
    return sum;
}

static void check_stem(uint32_t kernel, uint32_t pad_top, uint32_t pad_left)
{
    struct stem stem = {.kernel = kernel, .pad_top = pad_top, .pad_left = pad_left};
    uint32_t blocks_y = fold_blocks(kernel, pad_top), blocks_x = fold_blocks(kernel, pad_left);
    stem.blocks = blocks_y > blocks_x ? blocks_y : blocks_x;
    stem_fill(&stem);
    assert_int_equal(stem_fold(&stem), kernel * kernel * 3);
    // The most padding below that an op may have: outputs beyond other paddings are among these.
    uint32_t rows = (SIDE + pad_top - 1) / 2 + 1, columns = (SIDE + pad_left - 1) / 2 + 1;
    for (uint32_t i = 0; i < rows * columns; i++) {
        double direct = direct_output(&stem, i / columns, i % columns);
        double folded = folded_output(&stem, i / columns, i % columns);
        assert_true(fabs(direct - folded) < 1e-12);
    }
}

static void test_folded_convolutions(void **state)
{
    (void)state;
    for (uint32_t kernel = 1; kernel <= MOST; kernel++) {
        for (uint32_t pads = 0; pads < kernel * kernel; pads++) {
            check_stem(kernel, pads / kernel, pads % kernel);
        }
    }
}

static void test_folded_sizes(void **state)
{
    (void)state;
    for (uint32_t pad = 2; pad <= 3; pad++) { // 7x7, as the reference pads and as PyTorch does
        assert_int_equal(fold_blocks(7, pad), 4);
    }
    assert_int_equal(fold_padding(2), 1);
    assert_int_equal(fold_padding(3), 2);
    assert_int_equal(fold_blocks(3, 0), 2);
    assert_int_equal(fold_blocks(3, 1), 2);
}

// --- windows

struct side {
    uint32_t size, kernel, stride, low, high;
};

// Tap of window `out` that pixel `in` is; `kernel` or more when it is none.
static uint32_t tap_of(const struct side *side, uint32_t out, uint32_t in)
{
    return in + side->low - out * side->stride;
}

static void check_window(const struct side *side, uint32_t out)
{
    struct pool_range taps = pool_taps(out, side->kernel, side->stride, side->low, side->size);
    bool met[MOST] = {false};
    for (uint32_t in = 0; in < side->size; in++) {
        uint32_t tap = tap_of(side, out, in);
        if (tap < side->kernel) {
            assert_in_range(tap, taps.low, taps.high - 1);
            met[tap] = true;
        }
    }
    int32_t last = taps.low;
    for (int32_t tap = 0; tap < (int32_t)side->kernel; tap++) {
        assert_int_equal(met[tap], tap >= taps.low && tap < taps.high);
        int32_t clamped = pool_clamp(tap, taps);
        assert_true(met[clamped] && clamped >= last && clamped <= last + 1);
        last = clamped;
    }
    assert_int_equal(last, taps.high - 1);
}

static void check_side(const struct side *side)
{
    if (side->size + side->low + side->high < side->kernel) {
        return;
    }
    uint32_t outs = (side->size + side->low + side->high - side->kernel) / side->stride + 1;
    for (uint32_t out = 0; out < outs; out++) {
        check_window(side, out);
    }
    for (uint32_t in = 0; in < side->size; in++) {
        struct pool_range windows = pool_windows(in, side->kernel, side->stride, side->low, outs);
        for (int32_t out = 0; out < (int32_t)outs; out++) {
            bool contains = tap_of(side, (uint32_t)out, in) < side->kernel;
            assert_int_equal(contains, out >= windows.low && out < windows.high);
        }
    }
}

static void test_windows(void **state)
{
    (void)state;
    for (uint32_t size = 1; size <= 9; size++) {
        for (uint32_t kernel = 1; kernel <= 5; kernel++) {
            for (uint32_t i = 0; i < 4 * kernel * kernel; i++) {
                check_side(&(struct side){size, kernel, i % 4 + 1, i / 4 % kernel, i / 4 / kernel});
            }
        }
    }
}

// --- standardised weights

#define ROWS    147
#define COLUMNS 5

static struct standard_column measure(const float *weights, uint32_t c)
{
    double sum = 0, squares = 0, origin = (double)weights[c];
    for (uint32_t row = 0; row < ROWS; row++) {
        double centred = (double)weights[row * COLUMNS + c] - origin;
        sum += centred;
        squares += centred * centred;
    }
    return standard_column_of(origin, sum, squares, ROWS);
}

static double gradient_of(const float *weights, const float *gradients, uint32_t row, uint32_t c)
{
    struct standard_column column = measure(weights, c);
    double sum = 0, product = 0;
    for (uint32_t at = c; at < ROWS * COLUMNS; at += COLUMNS) {
        sum += (double)gradients[at];
        product += (double)gradients[at] * standard_value(weights[at], column);
    }
    uint32_t at = row * COLUMNS + c;
    return standard_gradient(gradients[at], standard_value(weights[at], column), sum, product,
                             column, ROWS);
}

// Columns of mean 0; of a mean far above their deviation; of deviation 0; whose first weight is far
// from the others.
static void test_standardised_weights(void **state)
{
    (void)state;
    struct op_desc desc = {.kind = OP_LINEAR, .in = {TENSOR_MATRIX, 1, 1, 1, ROWS}};
    desc.out = (struct tensor_shape){TENSOR_MATRIX, 1, 1, 1, COLUMNS};
    const float means[COLUMNS] = {0, 1e3f, 0.25f, 0, -3}, scales[COLUMNS] = {1, 1, 0, 1e-3f, 2};
    float weights[ROWS * COLUMNS], gradients[ROWS * COLUMNS];
    float expected[ROWS * COLUMNS], expected_gradients[ROWS * COLUMNS];
    for (uint32_t i = 0; i < ROWS * COLUMNS; i++) {
        weights[i] = means[i % COLUMNS] + scales[i % COLUMNS] * random_value();
        gradients[i] = random_value();
    }
    weights[3] = 1e3f;
    ref_standardise(&desc, expected, weights);
    memcpy(expected_gradients, gradients, sizeof gradients);
    ref_standard_backward(&desc, expected_gradients, weights);
    for (uint32_t i = 0; i < ROWS * COLUMNS; i++) {
        double value = standard_value(weights[i], measure(weights, i % COLUMNS));
        double gradient = gradient_of(weights, gradients, i / COLUMNS, i % COLUMNS);
        assert_true(fabs(value - (double)expected[i]) <= 1e-6 * (1 + fabs(value)));
        double scale = measure(weights, i % COLUMNS).inverse;
        assert_true(fabs(gradient - (double)expected_gradients[i]) <= 1e-6 * scale);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_fold_places),
        cmocka_unit_test(test_folded_convolutions),
        cmocka_unit_test(test_folded_sizes),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_standardised_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
