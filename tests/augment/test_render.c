// Rendering beyond the golden data: that it is a function of parameters and pixels alone, keeps its
// range, refuses what does not fit, and survives a trip through JSON.
#include "augment/view.h"
#include "formats/limits.h"
#include "tests/support/render.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE   48
#define VALUES (SIZE * SIZE * 3)

static struct view_scratch *scratch;
static struct error error;

// Smooth colours with some hard edges; both ends of the range occur.
static struct image picture(uint32_t width, uint32_t height)
{
    struct image image = {0};
    assert_int_equal(image_reserve(&image, width, height, &error), STATUS_OK);
    for (size_t y = 0; y < height; y++) {
        for (size_t x = 0; x < width; x++) {
            uint8_t *pixel = image.pixels + (y * width + x) * 3;
            pixel[0] = (uint8_t)(x * 255 / width);
            pixel[1] = (uint8_t)(y * 255 / height);
            pixel[2] = (x / 8 + y / 8) % 2 ? 255 : 0;
        }
    }
    return image;
}

static struct view_params plain(uint32_t width, uint32_t height, uint32_t size)
{
    return (struct view_params){.size = size,
                                .crop = {.width = width, .height = height},
                                .order = {0, 1, 2, 3},
                                .taps = 1,
                                .sigma = 1};
}

static void render(const struct view_params *params, const struct image *crop, float *out)
{
    if (render_image(params, crop, scratch, out, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

static void test_a_crop_of_the_right_size_is_only_scaled(void **state)
{
    (void)state;
    struct image crop = picture(SIZE, SIZE);
    struct view_params params = plain(SIZE, SIZE, SIZE);
    float out[VALUES];
    render(&params, &crop, out);
    for (size_t i = 0; i < VALUES; i++) {
        assert_true(out[i] == (float)crop.pixels[i] * (1.0f / 255.0f));
    }
    image_free(&crop);
}

static void test_flip_mirrors(void **state)
{
    (void)state;
    struct image crop = picture(61, 37);
    struct view_params params = plain(61, 37, SIZE);
    float straight[VALUES], mirrored[VALUES];
    render(&params, &crop, straight);
    params.flip = true;
    render(&params, &crop, mirrored);
    for (size_t y = 0; y < SIZE; y++) {
        for (size_t x = 0; x < SIZE; x++) {
            assert_memory_equal(straight + (y * SIZE + x) * 3,
                                mirrored + (y * SIZE + SIZE - 1 - x) * 3, 3 * sizeof(float));
        }
    }
    image_free(&crop);
}

static void test_grayscale_comes_after_the_colours(void **state)
{
    (void)state;
    struct image crop = picture(SIZE, SIZE);
    struct view_params params = plain(SIZE, SIZE, SIZE);
    float out[VALUES];
    params.jitter = params.grayscale = true;
    params.contrast = params.saturation = 1.2f;
    params.brightness = params.hue = 0.1f;
    render(&params, &crop, out);
    for (size_t i = 0; i < VALUES; i += 3) {
        assert_true(out[i] == out[i + 1] && out[i] == out[i + 2]);
    }
    image_free(&crop);
}

// The order of the colour operations shows in the pixels, because each is followed by a clip.
static void test_order_of_colour_operations_matters(void **state)
{
    (void)state;
    struct image crop = picture(SIZE, SIZE);
    struct view_params params = plain(SIZE, SIZE, SIZE);
    float forward[VALUES], backward[VALUES];
    params.jitter = true;
    params.brightness = 0.3f;
    params.contrast = 0.7f;
    params.saturation = 1.1f;
    params.hue = 0.05f;
    render(&params, &crop, forward);
    memcpy(params.order, (uint8_t[]){3, 2, 1, 0}, 4);
    render(&params, &crop, backward);
    assert_memory_not_equal(forward, backward, sizeof forward);
    image_free(&crop);
}

// Every drawn view of both recipes, from crops of many shapes: finite, in [0, 1], the same bits
// from a fresh scratch, from a used one, and through JSON.
static void test_drawn_views_replay_bit_for_bit(void **state)
{
    (void)state;
    struct recipe recipe;
    assert_int_equal(recipe_builtin("byol", &recipe, &error), STATUS_OK);
    recipe.size = SIZE;
    for (uint32_t i = 0; i < 300; i++) {
        struct view_params params, replayed;
        struct view_key key = {.seed = 11, .record = i, .view = i % 2};
        view_draw(&recipe, key, 20 + i % 90, 150 - i % 80, &params);
        struct image crop = picture(params.crop.width, params.crop.height);
        float out[VALUES], again[VALUES];
        render(&params, &crop, out);
        for (size_t j = 0; j < VALUES; j++) {
            assert_true(out[j] >= 0 && out[j] <= 1);
        }
        char *json;
        assert_int_equal(view_to_json(&params, &json, &error), STATUS_OK);
        assert_int_equal(view_from_json(json, strlen(json), &replayed, &error), STATUS_OK);
        struct view_scratch *fresh;
        assert_int_equal(view_scratch_open(&fresh, SIZE, &error), STATUS_OK);
        assert_int_equal(render_image(&replayed, &crop, fresh, again, &error), STATUS_OK);
        assert_memory_equal(out, again, sizeof out);
        view_scratch_close(&fresh);
        free(json);
        image_free(&crop);
    }
}

static void test_extreme_sizes(void **state)
{
    (void)state;
    const uint32_t sides[] = {1, 2, 3, 5, 300};
    float *out = malloc((size_t)RECIPE_MAX_SIZE * RECIPE_MAX_SIZE * 3 * sizeof *out);
    struct view_scratch *large;
    assert_non_null(out);
    assert_int_equal(view_scratch_open(&large, RECIPE_MAX_SIZE, &error), STATUS_OK);
    for (size_t i = 0; i < 25; i++) {
        struct image crop = picture(sides[i / 5], sides[i % 5]);
        for (uint32_t size = 1; size <= 33; size += 8) {
            struct view_params params = plain(crop.width, crop.height, size);
            params.blur = true;
            params.taps = 2 * size - 1;
            assert_int_equal(render_image(&params, &crop, large, out, &error), STATUS_OK);
        }
        image_free(&crop);
    }
    struct image widest = picture(LIMIT_IMAGE_SIDE, 2);
    struct view_params params = plain(LIMIT_IMAGE_SIDE, 2, RECIPE_MAX_SIZE);
    assert_int_equal(render_image(&params, &widest, large, out, &error), STATUS_OK);
    image_free(&widest);
    view_scratch_close(&large);
    free(out);
}

static void refuse(const struct view_params *params, const struct image *crop)
{
    float out[VALUES];
    error.reason[0] = '\0';
    assert_int_equal(render_image(params, crop, scratch, out, &error), STATUS_INVALID);
    assert_true(error.reason[0] != '\0');
}

static void test_parameters_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct image crop = picture(40, 30);
    struct view_params params = plain(40, 31, SIZE);
    refuse(&params, &crop);
    params = plain(40, 30, SIZE + 1);
    refuse(&params, &crop);
    params = plain(40, 30, 0);
    refuse(&params, &crop);
    params = plain(40, 30, SIZE);
    params.blur = true;
    params.taps = 4;
    refuse(&params, &crop);
    params.taps = 2 * SIZE + 1;
    refuse(&params, &crop);
    params.taps = 3;
    params.sigma = 0;
    refuse(&params, &crop);
    params.sigma = NAN;
    refuse(&params, &crop);
    struct image none = {.pixels = crop.pixels};
    params = plain(0, 0, SIZE);
    refuse(&params, &none);
    image_free(&crop);

    struct view_scratch *other;
    assert_int_equal(view_scratch_open(&other, RECIPE_MAX_SIZE + 1, &error), STATUS_INVALID);
    assert_null(other);
    view_scratch_close(&other);
}

static void test_blur_of_a_tiny_sigma_changes_nothing(void **state)
{
    (void)state;
    struct image crop = picture(SIZE, SIZE);
    struct view_params params = plain(SIZE, SIZE, SIZE);
    float sharp[VALUES], blurred[VALUES];
    render(&params, &crop, sharp);
    params.blur = true;
    params.taps = 5;
    params.sigma = 1e-30f;
    render(&params, &crop, blurred);
    assert_memory_equal(sharp, blurred, sizeof sharp);
    image_free(&crop);
}

// --- JSON ---------------------------------------------------------------------------------------

static const char whole_json[] =
    "{\"crop\": {\"x\": 1, \"y\": 2, \"width\": 3, \"height\": 4}, \"size\": 32, \"flip\": true,"
    " \"jitter\": true, \"order\": [\"hue\", \"saturation\", \"contrast\", \"brightness\"],"
    " \"brightness\": -0.4, \"contrast\": 1, \"saturation\": 1.1, \"hue\": 0.05,"
    " \"grayscale\": false, \"blur\": false, \"sigma\": 0.1, \"taps\": 3, \"solarize\": false,"
    " \"threshold\": 0.5}";

static void test_json_reads_every_field(void **state)
{
    (void)state;
    struct view_params params;
    assert_int_equal(view_from_json(whole_json, strlen(whole_json), &params, &error), STATUS_OK);
    assert_int_equal(params.crop.x + 10 * params.crop.y + 100 * params.crop.width +
                         1000 * params.crop.height,
                     4321);
    assert_int_equal(params.size, 32);
    assert_true(params.flip && params.jitter && !params.grayscale && !params.blur);
    assert_memory_equal(params.order, ((uint8_t[]){3, 2, 1, 0}), 4);
    assert_true(params.brightness == -0.4f && params.contrast == 1 && params.saturation == 1.1f);
    assert_true(params.hue == 0.05f && params.sigma == 0.1f && params.threshold == 0.5f);
    assert_int_equal(params.taps, 3);
}

// Replaces `old` in the JSON above by `new` and expects a complaint that mentions `named`.
static void reject(const char *old, const char *new, const char *named)
{
    char json[1024];
    const char *at = strstr(whole_json, old);
    assert_non_null(at);
    snprintf(json, sizeof json, "%.*s%s%s", (int)(at - whole_json), whole_json, new,
             at + strlen(old));
    struct view_params params;
    assert_int_equal(view_from_json(json, strlen(json), &params, &error), STATUS_CONFIG);
    if (strstr(error.reason, named) == NULL) {
        fail_msg("'%s' does not mention '%s'", error.reason, named);
    }
}

static void test_json_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    reject("\"size\": 32", "\"sice\": 32", "size");
    reject("\"size\": 32", "\"size\": -1", "size");
    reject("\"size\": 32", "\"size\": 4294967296", "size");
    reject("\"size\": 32", "\"size\": 32.5", "size");
    reject("\"flip\": true", "\"flip\": 1", "flip");
    reject("\"hue\": 0.05", "\"hue\": \"red\"", "hue");
    reject("\"hue\": 0.05", "\"hue\": 1e300", "hue");
    reject("\"hue\", \"sat", "\"hue\", \"hue\", \"sat", "order");
    reject("\"hue\", \"saturation\"", "\"hue\", \"hue\"", "order");
    reject("\"width\": 3, ", "", "crop");
    reject("\"flip\": true,", "\"flip\": true, \"extra\": 1,", "members");
    reject("\"flip\": true,", "\"flip\": true, \"flip\": true,", "line");
    reject("\"threshold\": 0.5}", "\"threshold\": 0.5", "line");
    reject("{\"crop\"", "[\"crop\"", "line");
}

static void test_json_keeps_every_float(void **state)
{
    (void)state;
    const float values[] = {0.1f,  1.0f / 3,      0x1.fffffep-1f,  0x1p-149f,
                            -0.0f, 3.4028235e38f, 1.17549435e-38f, 16777217.0f};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct view_params params = plain(1, 1, 8), back;
        char *json;
        params.sigma = values[i];
        assert_int_equal(view_to_json(&params, &json, &error), STATUS_OK);
        assert_int_equal(view_from_json(json, strlen(json), &back, &error), STATUS_OK);
        assert_memory_equal(&params.sigma, &back.sigma, sizeof back.sigma);
        free(json);
    }
    struct view_params params = plain(1, 1, 8);
    char *json;
    params.hue = INFINITY;
    assert_true(view_to_json(&params, &json, &error) != STATUS_OK);
    assert_null(json);
}

static int open_scratch(void **state)
{
    (void)state;
    return view_scratch_open(&scratch, SIZE, &error) == STATUS_OK ? 0 : -1;
}

static int close_scratch(void **state)
{
    (void)state;
    view_scratch_close(&scratch);
    view_scratch_close(&scratch); // harmless
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_crop_of_the_right_size_is_only_scaled),
        cmocka_unit_test(test_flip_mirrors),
        cmocka_unit_test(test_grayscale_comes_after_the_colours),
        cmocka_unit_test(test_order_of_colour_operations_matters),
        cmocka_unit_test(test_drawn_views_replay_bit_for_bit),
        cmocka_unit_test(test_extreme_sizes),
        cmocka_unit_test(test_parameters_that_do_not_fit_are_refused),
        cmocka_unit_test(test_blur_of_a_tiny_sigma_changes_nothing),
        cmocka_unit_test(test_json_reads_every_field),
        cmocka_unit_test(test_json_that_does_not_fit_is_refused),
        cmocka_unit_test(test_json_keeps_every_float),
    };
    return cmocka_run_group_tests_name("render", tests, open_scratch, close_scratch);
}
