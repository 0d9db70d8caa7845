// Recipes: the built-ins' published values, loading from YAML, and what is refused.
#include "augment/recipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct error error;
static char folder[] = "/tmp/byol-recipe-XXXXXX";
static char path[64];

static struct recipe builtin(const char *name)
{
    struct recipe recipe;
    assert_int_equal(recipe_builtin(name, &recipe, &error), STATUS_OK);
    assert_string_equal(recipe.name, name);
    return recipe;
}

static void write_file(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static struct recipe load(const char *text)
{
    struct recipe recipe;
    write_file(text);
    if (recipe_load(path, &recipe, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    return recipe;
}

static void refuse(const char *text, enum status status, const char *named)
{
    struct recipe recipe, before;
    memset(&recipe, 0x5a, sizeof recipe);
    before = recipe;
    write_file(text);
    assert_int_equal(recipe_load(path, &recipe, &error), status);
    if (strstr(error.reason, named) == NULL) {
        fail_msg("'%s' does not mention '%s'", error.reason, named);
    }
    assert_string_equal(error.path, path);
    assert_memory_equal(&recipe, &before, sizeof recipe);
}

static void test_byol_is_as_published(void **state)
{
    (void)state;
    struct recipe recipe = builtin("byol");
    assert_true(recipe.size == 224 && recipe.views == 2);
    for (int i = 0; i < 2; i++) {
        const struct recipe_view *view = &recipe.view[i];
        assert_true(view->crop == RECIPE_CROP_RANDOM);
        assert_true(view->area_min == 0.08 && view->area_max == 1);
        assert_true(view->aspect_min == 3.0 / 4 && view->aspect_max == 4.0 / 3);
        assert_true(view->flip == 0.5 && view->jitter == 0.8 && view->grayscale == 0.2);
        assert_true(view->brightness == 0.4 && view->contrast == 0.4);
        assert_true(view->saturation == 0.2 && view->hue == 0.1);
        assert_true(view->sigma_min == 0.1 && view->sigma_max == 2 && view->blur_kernel == 0.1);
        assert_true(view->blur == (i ? 0.1 : 1) && view->solarize == (i ? 0.2 : 0));
        assert_true(view->solarize_threshold == 0.5);
    }
}

static void test_builtins_are_valid(void **state)
{
    (void)state;
    size_t count = 0;
    for (; recipe_builtin_names[count]; count++) {
        struct recipe recipe = builtin(recipe_builtin_names[count]);
        assert_int_equal(recipe_validate(&recipe, &error), STATUS_OK);
    }
    assert_int_equal(count, 4);
    assert_true(builtin("small").size == 32 && builtin("small").view[0].blur == 0);
    assert_true(builtin("linear-train").views == 1 && builtin("linear-train").view[0].jitter == 0);
    assert_true(builtin("eval").view[0].crop == RECIPE_CROP_CENTER);
}

static void test_unknown_name_suggests_the_nearest(void **state)
{
    (void)state;
    struct recipe recipe;
    assert_int_equal(recipe_builtin("smal", &recipe, &error), STATUS_NOT_FOUND);
    assert_non_null(strstr(error.reason, "did you mean 'small'?"));
    assert_int_equal(recipe_builtin("zzzzzzzz", &recipe, &error), STATUS_NOT_FOUND);
    assert_null(strstr(error.reason, "did you mean"));
    assert_non_null(strstr(error.reason, "linear-train"));
}

static void test_file_changes_only_what_it_names(void **state)
{
    (void)state;
    struct recipe expected = builtin("byol");
    expected.size = 96;
    expected.view[0].blur = 0.25;
    expected.view[1].crop = RECIPE_CROP_WHOLE;
    struct recipe nested =
        load("views:\n  size: 96\n  view1: {blur: 0.25}\n  view2:\n    crop: whole\n");
    assert_memory_equal(&nested, &expected, sizeof nested);
    struct recipe flat = load("views.size: 96\nviews.view1.blur: 0.25\nviews.view2.crop: whole\n");
    assert_memory_equal(&flat, &expected, sizeof flat);
}

// `base` counts wherever it stands in the file.
static void test_base_is_applied_first(void **state)
{
    (void)state;
    struct recipe expected = builtin("small");
    expected.view[0].blur = 0.5;
    struct recipe recipe = load("views:\n  view1: {blur: 0.5}\n  base: small\n");
    assert_memory_equal(&recipe, &expected, sizeof recipe);
}

static void test_bad_files_are_refused(void **state)
{
    (void)state;
    refuse("views: {view1: {blurr: 1}}\n", STATUS_CONFIG, "view1.blur");
    refuse("views: {view1: {blur: 1.5}}\n", STATUS_CONFIG, "blur");
    refuse("views: {view1: {blur: often}}\n", STATUS_CONFIG, "blur");
    refuse("views: {size: 4}\n", STATUS_CONFIG, "size");
    refuse("views: {count: 3}\n", STATUS_CONFIG, "count");
    refuse("views: {base: bool}\n", STATUS_NOT_FOUND, "byol");
    refuse("views: {view2: {area_min: 0.5, area_max: 0.4}}\n", STATUS_CONFIG, "view2.area_min");
    refuse("views: {view1: {sigma_min: 3}}\n", STATUS_CONFIG, "view1.sigma_min");
    refuse("views: {view1: {aspect_max: 0.5}}\n", STATUS_CONFIG, "view1.aspect_min");
    refuse("epoch: 3\n", STATUS_CONFIG, "did you mean 'epochs'");
    refuse("size: 32\nviews: {base: small}\n", STATUS_CONFIG, "line 1");
    struct recipe recipe;
    assert_int_equal(recipe_load("/nonexistent/recipe.yaml", &recipe, &error), STATUS_NOT_FOUND);
}

static void test_keys_of_training_are_passed_over(void **state)
{
    (void)state;
    struct recipe recipe =
        load("preset: byol-300\nbatch: 512\nviews:\n  base: small\n  view1: {blur: 0.5}\n"
             "encoder: resnet18\nprobe: /data/labelled\nepochs: many\n");
    assert_string_equal(recipe.name, "small");
    assert_int_equal(recipe.size, 32);
    assert_true(recipe.view[0].blur == 0.5 && recipe.view[1].blur == 0);
    refuse("batch: 1\nbatch: 2\n", STATUS_CONFIG, "batch");
    refuse("encoder: {depth: 18}\n", STATUS_CONFIG, "encoder");
}

static void test_validation_covers_structs_made_by_code(void **state)
{
    (void)state;
    struct recipe recipe = builtin("byol");
    recipe.view[1].hue = 0.7;
    assert_int_equal(recipe_validate(&recipe, &error), STATUS_CONFIG);
    assert_non_null(strstr(error.reason, "view2.hue"));
    recipe = builtin("byol");
    recipe.view[0].crop = 3;
    assert_int_equal(recipe_validate(&recipe, &error), STATUS_CONFIG);
    assert_non_null(strstr(error.reason, "view1.crop"));
    recipe = builtin("byol");
    recipe.views = 0;
    assert_int_equal(recipe_validate(&recipe, &error), STATUS_CONFIG);
    recipe = builtin("byol");
    recipe.size = RECIPE_MAX_SIZE + 1;
    assert_int_equal(recipe_validate(&recipe, &error), STATUS_CONFIG);
}

// What is printed reads back to the same recipe: checkpoints rely on it.
static void test_printed_recipe_loads_back(void **state)
{
    (void)state;
    struct recipe recipe = builtin("linear-train");
    recipe.size = 40;
    recipe.view[0].area_min = 1.0 / 3;
    struct settings_section section = recipe_section("views.", &recipe);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(settings_print(file, &section, 1, 1, &error), STATUS_OK);
    assert_int_equal(fclose(file), 0);
    struct recipe back;
    assert_int_equal(recipe_load(path, &back, &error), STATUS_OK);
    assert_memory_equal(&back, &recipe, sizeof back);
}

// The teaching files describe the built-ins of their names.
static void test_example_files_say_what_the_builtins_do(void **state)
{
    (void)state;
    const char *const names[] = {"linear-train", "eval"};
    for (size_t i = 0; i < 2; i++) {
        char file[64];
        snprintf(file, sizeof file, "tools/recipes/%s.yaml", names[i]);
        struct recipe loaded, expected = builtin(names[i]);
        assert_int_equal(recipe_load(file, &loaded, &error), STATUS_OK);
        assert_memory_equal(&loaded, &expected, sizeof loaded);
    }
}

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/recipe.yaml", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byol_is_as_published),
        cmocka_unit_test(test_builtins_are_valid),
        cmocka_unit_test(test_unknown_name_suggests_the_nearest),
        cmocka_unit_test(test_file_changes_only_what_it_names),
        cmocka_unit_test(test_base_is_applied_first),
        cmocka_unit_test(test_bad_files_are_refused),
        cmocka_unit_test(test_keys_of_training_are_passed_over),
        cmocka_unit_test(test_validation_covers_structs_made_by_code),
        cmocka_unit_test(test_printed_recipe_loads_back),
        cmocka_unit_test(test_example_files_say_what_the_builtins_do),
    };
    return cmocka_run_group_tests_name("recipe", tests, make_folder, remove_folder);
}
