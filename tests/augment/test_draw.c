// Drawing: what it depends on, what it does not, and its extremes. (How draws are distributed:
// tests/golden/test_distributions.c.)
#include "augment/view.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct recipe builtin(const char *name)
{
    struct recipe recipe;
    assert_int_equal(recipe_builtin(name, &recipe, NULL), STATUS_OK);
    return recipe;
}

static struct view_params draw(const struct recipe *recipe, struct view_key key)
{
    struct view_params params;
    memset(&params, 0xa5, sizeof params); // the draw must set every field
    view_draw(recipe, key, 640, 480, &params);
    return params;
}

static bool same_crop(struct image_window a, struct image_window b)
{
    return a.x == b.x && a.y == b.y && a.width == b.width && a.height == b.height;
}

static bool same(const struct view_params *a, const struct view_params *b)
{
    return same_crop(a->crop, b->crop) && a->size == b->size && a->flip == b->flip &&
           a->jitter == b->jitter && a->grayscale == b->grayscale && a->blur == b->blur &&
           a->solarize == b->solarize && memcmp(a->order, b->order, 4) == 0 &&
           a->brightness == b->brightness && a->contrast == b->contrast &&
           a->saturation == b->saturation && a->hue == b->hue && a->sigma == b->sigma &&
           a->taps == b->taps && a->threshold == b->threshold;
}

static void test_same_key_gives_same_view(void **state)
{
    (void)state;
    struct recipe recipe = builtin("byol");
    for (uint64_t record = 0; record < 1000; record++) {
        struct view_key key = {.seed = 3, .record = record, .epoch = 9, .view = record % 2};
        struct view_params once = draw(&recipe, key), again = draw(&recipe, key);
        assert_true(same(&once, &again));
    }
}

// Every part of the key matters, up to its last bit.
static void test_each_part_of_the_key_changes_the_view(void **state)
{
    (void)state;
    struct recipe recipe = builtin("byol");
    recipe.view[1] = recipe.view[0];
    const struct view_key keys[] = {
        {.seed = 1, .record = 2, .epoch = 3, .view = 0},
        {.seed = 1, .record = 2, .epoch = 3, .view = 1},
        {.seed = 1, .record = 2, .epoch = 4, .view = 0},
        {.seed = 1, .record = 2, .epoch = 3 | 1u << 31, .view = 0},
        {.seed = 1, .record = 3, .epoch = 3, .view = 0},
        {.seed = 1, .record = 2 | UINT64_C(1) << 63, .epoch = 3, .view = 0},
        {.seed = 2, .record = 2, .epoch = 3, .view = 0},
        {.seed = 1 | UINT64_C(1) << 63, .record = 2, .epoch = 3, .view = 0},
    };
    size_t count = sizeof keys / sizeof keys[0];
    for (size_t i = 0; i < count; i++) {
        for (size_t j = i + 1; j < count; j++) {
            struct view_params a = draw(&recipe, keys[i]), b = draw(&recipe, keys[j]);
            assert_false(same_crop(a.crop, b.crop));
            assert_true(a.brightness != b.brightness);
            assert_true(a.sigma != b.sigma);
        }
    }
}

// A checkpoint of today must give the same views tomorrow: changing this is a change of format.
static void test_draws_stay_as_published(void **state)
{
    (void)state;
    struct recipe recipe = builtin("byol");
    struct view_params params =
        draw(&recipe, (struct view_key){.seed = 42, .record = 1234567, .epoch = 8, .view = 1});
    assert_int_equal(params.crop.x, 175);
    assert_int_equal(params.crop.y, 159);
    assert_int_equal(params.crop.width, 255);
    assert_int_equal(params.crop.height, 227);
    assert_true(params.brightness == -0x1.cf704p-6f);
    assert_true(params.sigma == 0x1.ce3ca4p-4f);
}

// Ablations compare like with like: switching one thing off leaves the other draws alone.
static void test_settings_do_not_disturb_other_draws(void **state)
{
    (void)state;
    struct recipe recipe = builtin("byol"), without = recipe;
    without.view[0].flip = without.view[0].grayscale = without.view[0].jitter = 0;
    without.view[0].brightness = 0;
    for (uint64_t record = 0; record < 200; record++) {
        struct view_key key = {.seed = 5, .record = record};
        struct view_params a = draw(&recipe, key), b = draw(&without, key);
        assert_true(same_crop(a.crop, b.crop));
        assert_true(a.contrast == b.contrast && a.sigma == b.sigma && a.blur == b.blur);
        assert_memory_equal(a.order, b.order, 4);
        assert_false(b.flip || b.grayscale || b.jitter);
        assert_true(b.brightness == 0.0f);
    }
}

static void test_probabilities_zero_and_one_are_certain(void **state)
{
    (void)state;
    struct recipe never = builtin("linear-train"), always = builtin("byol");
    never.view[0].flip = 0;
    struct recipe_view *view = &always.view[0];
    view->flip = view->jitter = view->grayscale = view->blur = view->solarize = 1;
    for (uint64_t record = 0; record < 20000; record++) {
        struct view_params a = draw(&never, (struct view_key){.record = record});
        assert_false(a.flip || a.jitter || a.grayscale || a.blur || a.solarize);
        struct view_params b = draw(&always, (struct view_key){.record = record});
        assert_true(b.flip && b.jitter && b.grayscale && b.blur && b.solarize);
    }
}

// The two views of a record are independent: chi-square of their flips, and of their crops' sides.
static void test_views_of_a_pair_are_independent(void **state)
{
    (void)state;
    struct recipe recipe = builtin("byol");
    double cells[2][2] = {{0, 0}, {0, 0}}, larger[2][2] = {{0, 0}, {0, 0}}, pairs = 40000;
    for (uint64_t record = 0; record < (uint64_t)pairs; record++) {
        struct view_params a = draw(&recipe, (struct view_key){.record = record, .view = 0});
        struct view_params b = draw(&recipe, (struct view_key){.record = record, .view = 1});
        cells[a.flip][b.flip]++;
        larger[a.crop.width > a.crop.height][b.crop.width > b.crop.height]++;
    }
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++) {
            double z = (cells[i][j] - pairs / 4) / sqrt(pairs * 3 / 16);
            assert_true(fabs(z) < 4.5);
            double row = larger[i][0] + larger[i][1], column = larger[0][j] + larger[1][j];
            double expected = row * column / pairs;
            assert_true(fabs(larger[i][j] - expected) < 4.5 * sqrt(expected));
        }
    }
}

static void check_inside(const struct view_params *params, uint32_t width, uint32_t height)
{
    const struct image_window *crop = &params->crop;
    assert_true(crop->width >= 1 && crop->height >= 1);
    assert_true(crop->width <= width && crop->x <= width - crop->width);
    assert_true(crop->height <= height && crop->y <= height - crop->height);
}

static void test_crops_of_extreme_images_stay_inside(void **state)
{
    (void)state;
    const uint32_t sides[] = {1, 2, 3, 7, 100, 65500};
    const char *const names[] = {"byol", "eval"};
    for (size_t n = 0; n < 2; n++) {
        struct recipe recipe = builtin(names[n]);
        for (size_t i = 0; i < 36; i++) {
            uint32_t width = sides[i / 6], height = sides[i % 6];
            for (uint64_t record = 0; record < 300; record++) {
                struct view_params params;
                view_draw(&recipe, (struct view_key){.record = record}, width, height, &params);
                check_inside(&params, width, height);
            }
        }
    }
}

static void test_whole_crop_takes_everything(void **state)
{
    (void)state;
    struct recipe recipe = builtin("eval");
    recipe.view[0].crop = RECIPE_CROP_WHOLE;
    struct view_params params = draw(&recipe, (struct view_key){0});
    assert_true(same_crop(params.crop, (struct image_window){0, 0, 640, 480}));
}

static void test_blur_taps_follow_the_size(void **state)
{
    (void)state;
    struct recipe recipe = builtin("byol");
    const uint32_t sizes_and_taps[][2] = {{224, 23}, {128, 13}, {96, 9}, {32, 3}, {8, 1}};
    for (size_t i = 0; i < sizeof sizes_and_taps / sizeof sizes_and_taps[0]; i++) {
        recipe.size = sizes_and_taps[i][0];
        assert_int_equal(draw(&recipe, (struct view_key){0}).taps, sizes_and_taps[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_key_gives_same_view),
        cmocka_unit_test(test_each_part_of_the_key_changes_the_view),
        cmocka_unit_test(test_draws_stay_as_published),
        cmocka_unit_test(test_settings_do_not_disturb_other_draws),
        cmocka_unit_test(test_probabilities_zero_and_one_are_certain),
        cmocka_unit_test(test_views_of_a_pair_are_independent),
        cmocka_unit_test(test_crops_of_extreme_images_stay_inside),
        cmocka_unit_test(test_whole_crop_takes_everything),
        cmocka_unit_test(test_blur_taps_follow_the_size),
    };
    return cmocka_run_group_tests_name("draw", tests, NULL, NULL);
}
