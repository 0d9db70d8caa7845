// Golden group decode_crop_resize from the crop on: bicubic output, rendered view, evaluation
// window.
#include "tests/support/golden.h"
#include "tests/support/render.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "augment/kernels.h"
#include "augment/view.h"
#include "formats/file.h"
#include "formats/isa.h"
#include "formats/limits.h"

#define VIEW_TOLERANCE 1e-6 // [0, 1] units
#define RAW_TOLERANCE  2e-4 // 0..255 units

static struct {
    struct image_decoder *decoder;
    struct view_scratch *scratch;
    struct resize_work work;
    size_t views, raw, centers, exact;
} shared;

static struct error error;

static uint32_t number(const struct table *index, size_t row, const char *column)
{
    long long value = table_int(table_cell(index, row, column));
    assert_in_range(value, 0, LIMIT_IMAGE_SIDE);
    return (uint32_t)value;
}

static struct view_params plain_view(const struct table *index, size_t row)
{
    return (struct view_params){
        .size = number(index, row, "S"),
        .crop = {.x = number(index, row, "x"),
                 .y = number(index, row, "y"),
                 .width = number(index, row, "w"),
                 .height = number(index, row, "h")},
    };
}

static void compare(const char *folder, const struct table *index, size_t row, const char *column,
                    const float *pixels, size_t count, double tolerance)
{
    struct npy expected = golden_array(folder, table_cell(index, row, column));
    assert_int_equal(expected.type, NPY_FLOAT32);
    assert_int_equal(expected.count, count);
    double worst = max_difference(pixels, expected.data, count);
    if (!(worst <= tolerance)) {
        fail_msg("%s: %s differs by %g, allowed %g", table_cell(index, row, "case"), column, worst,
                 tolerance);
    }
    shared.exact += worst == 0;
    npy_free(&expected);
}

// Compares both arrays of a row with what comes of `crop`.
static void check_crop(const char *folder, const struct table *index, size_t row,
                       const struct image *crop)
{
    struct view_params params = plain_view(index, row);
    size_t count = (size_t)params.size * params.size * 3;
    float *pixels = malloc(count * sizeof *pixels);
    assert_non_null(pixels);
    enum isa chosen = isa_chosen();
    for (enum isa isa = ISA_BASE; isa < ISA_COUNT; isa++) {
        if (isa_supported(isa)) {
            isa_force(isa);
            assert_int_equal(render_image(&params, crop, shared.scratch, pixels, &error),
                             STATUS_OK);
            compare(folder, index, row, "out", pixels, count, VIEW_TOLERANCE);
        }
    }
    isa_force(chosen);
    shared.views++;
    if (!table_empty(table_cell(index, row, "resize_raw"))) {
        kernels_c.resize(pixels, crop->pixels, crop->width, crop->height, params.size,
                         &shared.work);
        compare(folder, index, row, "resize_raw", pixels, count, RAW_TOLERANCE);
        shared.raw++;
    }
    free(pixels);
}

static void check_from_pixels(const char *folder, const struct table *index, size_t row)
{
    if (table_empty(table_cell(index, row, "crop_u8"))) {
        return;
    }
    struct npy pixels = golden_array(folder, table_cell(index, row, "crop_u8"));
    assert_int_equal(pixels.type, NPY_UINT8);
    assert_int_equal(pixels.dims, 3);
    struct image crop = {.pixels = pixels.data,
                         .width = (uint32_t)pixels.shape[1],
                         .height = (uint32_t)pixels.shape[0]};
    check_crop(folder, index, row, &crop);
    npy_free(&pixels);
}

static void check_center(const struct table *index, size_t row, const struct image_info *info)
{
    struct recipe recipe;
    struct view_params params;
    assert_int_equal(recipe_builtin("eval", &recipe, &error), STATUS_OK);
    recipe.size = number(index, row, "S");
    view_draw(&recipe, (struct view_key){0}, info->width, info->height, &params);
    struct image_window expected = plain_view(index, row).crop;
    assert_int_equal(params.crop.x, expected.x);
    assert_int_equal(params.crop.y, expected.y);
    assert_int_equal(params.crop.width, expected.width);
    assert_int_equal(params.crop.height, expected.height);
    assert_false(params.flip || params.jitter || params.grayscale || params.blur ||
                 params.solarize);
    shared.centers++;
}

static void check_from_jpeg(const char *folder, const struct table *index, size_t row)
{
    char path[1024];
    uint8_t *bytes;
    size_t len;
    snprintf(path, sizeof path, "%s/%s", folder, table_cell(index, row, "jpeg"));
    assert_int_equal(file_read_all(path, LIMIT_IMAGE_BYTES, &bytes, &len, &error), STATUS_OK);
    struct image crop = {0};
    struct image_window window = plain_view(index, row).crop;
    if (image_decode(shared.decoder, bytes, len, &window, &crop, &error) != STATUS_OK) {
        fail_msg("%s: %s", path, error.reason);
    }
    check_crop(folder, index, row, &crop);
    if (strcmp(table_cell(index, row, "mode"), "eval") == 0) {
        struct image_info info;
        assert_int_equal(image_probe(shared.decoder, bytes, len, &info, &error), STATUS_OK);
        check_center(index, row, &info);
    }
    image_free(&crop);
    free(bytes);
}

static void run_group(void (*check)(const char *folder, const struct table *index, size_t row))
{
    shared.views = shared.raw = shared.centers = shared.exact = 0;
    golden_each("decode_crop_resize", check);
    print_message("golden: %zu views, %zu raw, %zu evaluation windows; %zu arrays bit for bit\n",
                  shared.views, shared.raw, shared.centers, shared.exact);
    assert_true(shared.views > 0);
}

static void test_resize_of_decoded_crops(void **state)
{
    (void)state;
    run_group(check_from_pixels);
    assert_true(shared.raw > 0);
}

static void test_views_from_jpeg(void **state)
{
    (void)state;
    run_group(check_from_jpeg);
    assert_true(shared.centers > 0);
}

static int open_shared(void **state)
{
    (void)state;
    shared.work.rows = malloc(RECIPE_MAX_SIZE * sizeof *shared.work.rows);
    shared.work.columns = malloc(RECIPE_MAX_SIZE * sizeof *shared.work.columns);
    shared.work.line = malloc((size_t)LIMIT_IMAGE_SIDE * 3 * sizeof *shared.work.line);
    return shared.work.rows && shared.work.columns && shared.work.line &&
                   image_decoder_open(&shared.decoder, &error) == STATUS_OK &&
                   view_scratch_open(&shared.scratch, RECIPE_MAX_SIZE, &error) == STATUS_OK
               ? 0
               : -1;
}

static int close_shared(void **state)
{
    (void)state;
    free(shared.work.rows);
    free(shared.work.columns);
    free(shared.work.line);
    image_decoder_close(&shared.decoder);
    view_scratch_close(&shared.scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_of_decoded_crops),
        cmocka_unit_test(test_views_from_jpeg),
    };
    return cmocka_run_group_tests_name("golden_resize", tests, open_shared, close_shared);
}
