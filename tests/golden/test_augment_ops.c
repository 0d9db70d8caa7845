// Golden group augment_ops: every operation and the whole chain, on float images of the reference.
#include "tests/support/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "augment/kernels.h"
#include "augment/view.h"
#include "formats/isa.h"

#define EXACT   1e-7 // flip, solarize, brightness, hsv_to_rgb
#define ROUNDED 5e-6 // everything else

static const struct kernels *const kernels = &kernels_c;

// One row of the index, with its image.
struct row {
    const char *folder;
    const struct table *index;
    size_t number;
    float *pixels;
    size_t count;
    uint32_t size;
};

static const char *cell(const struct row *row, const char *column)
{
    return table_cell(row->index, row->number, column);
}

static float number(const struct row *row, const char *column)
{
    return table_float(cell(row, column));
}

static bool flag(const struct row *row, const char *column)
{
    return strcmp(cell(row, column), "1") == 0;
}

static void compare(const struct row *row, const char *column, double tolerance)
{
    if (table_empty(cell(row, column))) {
        return;
    }
    struct npy expected = golden_array(row->folder, cell(row, column));
    assert_int_equal(expected.type, NPY_FLOAT32);
    assert_int_equal(expected.count, row->count * 3);
    double worst = max_difference(row->pixels, expected.data, row->count * 3);
    if (!(worst <= tolerance)) {
        fail_msg("%s: %s differs by %g, allowed %g", cell(row, "case"), column, worst, tolerance);
    }
    npy_free(&expected);
}

// The bare operation is compared with `out_unclipped` before the clip.
static void finish(struct row *row, double tolerance)
{
    compare(row, "out_unclipped", tolerance);
    kernels->clip(row->pixels, row->count);
    compare(row, "out", tolerance);
}

static void run_brightness(struct row *row)
{
    kernels->brightness(row->pixels, row->count, number(row, "brightness"));
    finish(row, EXACT);
}

static void run_contrast(struct row *row)
{
    kernels->contrast(row->pixels, row->count, number(row, "contrast"));
    finish(row, ROUNDED);
}

static void run_saturation(struct row *row)
{
    kernels->saturation(row->pixels, row->count, number(row, "saturation"));
    finish(row, ROUNDED);
}

static void run_hue(struct row *row)
{
    kernels->hue(row->pixels, row->count, number(row, "hue"));
    finish(row, ROUNDED);
}

static void run_grayscale(struct row *row)
{
    kernels->grayscale(row->pixels, row->count);
    compare(row, "out", ROUNDED);
}

static void run_flip(struct row *row)
{
    kernels->flip(row->pixels, row->size);
    compare(row, "out", EXACT);
}

static void run_solarize(struct row *row)
{
    kernels->solarize(row->pixels, row->count, number(row, "threshold"));
    compare(row, "out", EXACT);
}

static void run_rgb_to_hsv(struct row *row)
{
    kernels->rgb_to_hsv(row->pixels, row->count);
    compare(row, "out", ROUNDED);
}

static void run_hsv_to_rgb(struct row *row)
{
    kernels->hsv_to_rgb(row->pixels, row->count);
    compare(row, "out", EXACT);
}

// The taps that a recipe gives for this size must be the ones of the table.
static void check_taps(const struct row *row, uint32_t taps)
{
    struct recipe recipe;
    struct view_params params;
    assert_int_equal(recipe_builtin("byol", &recipe, NULL), STATUS_OK);
    recipe.size = row->size;
    view_draw(&recipe, (struct view_key){0}, 100, 100, &params);
    assert_int_equal(params.taps, taps);
}

// The row through view_render's own operations, at every level of vector instructions.
static void render_at_levels(struct row *row, const struct view_params *params)
{
    struct view_scratch *scratch;
    float *out = malloc(row->count * 3 * sizeof *out), *planes[3];
    assert_non_null(out);
    assert_int_equal(view_scratch_open(&scratch, row->size, NULL), STATUS_OK);
    for (size_t channel = 0; channel < 3; channel++) {
        planes[channel] = malloc(row->count * sizeof(float));
        assert_non_null(planes[channel]);
        for (size_t i = 0; i < row->count; i++) {
            planes[channel][i] = row->pixels[i * 3 + channel];
        }
    }
    struct row rendered = *row;
    rendered.pixels = out;
    enum isa chosen = isa_chosen();
    for (enum isa isa = ISA_BASE; isa < ISA_COUNT; isa++) {
        if (isa_supported(isa)) {
            isa_force(isa);
            assert_int_equal(
                view_render_resized(params, planes, &view_output_plain, scratch, out, NULL),
                STATUS_OK);
            compare(&rendered, "out", ROUNDED);
        }
    }
    isa_force(chosen);
    for (size_t channel = 0; channel < 3; channel++) {
        free(planes[channel]);
    }
    free(out);
    view_scratch_close(&scratch);
}

static void run_blur(struct row *row)
{
    uint32_t taps = (uint32_t)table_int(cell(row, "kernel_taps"));
    check_taps(row, taps);
    float *weights = malloc(taps * sizeof *weights);
    float *work = malloc(row->count * 3 * sizeof *work);
    assert_non_null(weights);
    assert_non_null(work);
    struct view_params params = {
        .size = row->size, .blur = true, .sigma = number(row, "sigma"), .taps = taps};
    render_at_levels(row, &params);
    blur_weights_fill(weights, taps, params.sigma);
    kernels->blur(row->pixels, row->size, weights, taps, work);
    compare(row, "out", ROUNDED);
    free(weights);
    free(work);
}

static void run_chain(struct row *row)
{
    struct view_params params = {
        .size = row->size,
        .flip = flag(row, "flip"),
        .jitter = flag(row, "jitter"),
        .grayscale = flag(row, "gray"),
        .blur = flag(row, "blur"),
        .solarize = flag(row, "solarize"),
        .brightness = number(row, "brightness"),
        .contrast = number(row, "contrast"),
        .saturation = number(row, "saturation"),
        .hue = number(row, "hue"),
        .sigma = number(row, "sigma"),
        .taps = flag(row, "blur") ? (uint32_t)table_int(cell(row, "kernel_taps")) : 1,
        .threshold = number(row, "threshold"),
    };
    const char *order = cell(row, "order"); // "2,0,3,1"
    assert_int_equal(strlen(order), 7);
    for (size_t i = 0; i < 4; i++) {
        params.order[i] = (uint8_t)(order[i * 2] - '0');
        assert_true(params.order[i] < 4);
    }
    render_at_levels(row, &params);
    float *weights = malloc(params.taps * sizeof *weights);
    float *work = malloc(row->count * 3 * sizeof *work);
    assert_non_null(weights);
    assert_non_null(work);
    view_postprocess(&params, kernels, row->pixels, weights, work);
    compare(row, "out", ROUNDED);
    free(weights);
    free(work);
}

static struct operation {
    const char *op;
    void (*run)(struct row *row);
    size_t cases; // run so far
} operations[] = {
    {"brightness", run_brightness, 0}, {"contrast", run_contrast, 0},
    {"saturation", run_saturation, 0}, {"hue", run_hue, 0},
    {"grayscale", run_grayscale, 0},   {"flip", run_flip, 0},
    {"solarize", run_solarize, 0},     {"rgb_to_hsv", run_rgb_to_hsv, 0},
    {"hsv_to_rgb", run_hsv_to_rgb, 0}, {"blur", run_blur, 0},
    {"jitter", run_chain, 0},          {"chain_view1", run_chain, 0},
    {"chain_view2", run_chain, 0},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])

static struct operation *find_operation(const char *op)
{
    for (size_t i = 0; i < OPERATIONS; i++) {
        if (strcmp(operations[i].op, op) == 0) {
            return &operations[i];
        }
    }
    return NULL;
}

static void check_row(const char *folder, const struct table *index, size_t number_of_row)
{
    const char *op = table_cell(index, number_of_row, "op");
    struct operation *operation = find_operation(op);
    if (operation == NULL) {
        fail_msg("%s: row %zu has the unknown operation '%s'", folder, number_of_row, op);
        return;
    }
    struct npy input = golden_array(folder, table_cell(index, number_of_row, "input"));
    assert_int_equal(input.type, NPY_FLOAT32);
    assert_int_equal(input.dims, 3);
    assert_int_equal(input.shape[0], input.shape[1]); // views are square
    assert_int_equal(input.shape[2], 3);
    struct row row = {.folder = folder,
                      .index = index,
                      .number = number_of_row,
                      .pixels = input.data,
                      .count = input.count / 3,
                      .size = (uint32_t)input.shape[0]};
    operation->run(&row);
    operation->cases++;
    npy_free(&input);
}

static void test_augment_ops(void **state)
{
    (void)state;
    golden_each("augment_ops", check_row);
    for (size_t i = 0; i < OPERATIONS; i++) {
        print_message("golden: %-12s %zu\n", operations[i].op, operations[i].cases);
        if (operations[i].cases == 0) {
            fail_msg("no golden case of '%s'", operations[i].op);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_augment_ops)};
    return cmocka_run_group_tests_name("golden_augment_ops", tests, NULL, NULL);
}
