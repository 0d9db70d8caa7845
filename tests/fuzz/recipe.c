// Recipes, and with them every YAML file of settings: what is accepted is valid, and printed it is
// read back to the same values.
#include "augment/recipe.h"
#include "tests/support/fuzz.h"

#include <stdlib.h>
#include <string.h>

static const char *const texts[] = {
    "views:\n  base: byol\n  size: 96\n  view1.blur: 0.5\n  view2: {flip: 0, hue: 0.1}\n",
    "views: {base: small, count: 1, size: 32, view1.area_min: 0.2, view1.area_max: 1.0e0}\n",
    "# nothing\nviews:\n  \"size\": '8'\n  view1:\n    jitter: .8\n    crop: center\n",
    "views:\n  base: eval\n  view1.sigma_min: 0.1\n  view1.sigma_max: 2\n  view1.solarize: 1\n",
};

static void open_recipe(void)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        fuzz_seed(texts[i], strlen(texts[i]), strlen("views:"));
    }
}

static void close_recipe(void)
{
}

static char *print(struct recipe *recipe, size_t *len)
{
    char *text = NULL;
    FILE *stream = open_memstream(&text, len);
    if (stream == NULL) {
        abort();
    }
    struct settings_section section = recipe_section("views.", recipe);
    struct error error = {0};
    if (settings_print(stream, &section, 1, 0, &error) != STATUS_OK) {
        fuzz_fail(__FILE__, __LINE__, "cannot print: %s", error.reason);
    }
    fclose(stream);
    return text;
}

static void check_printing(struct recipe *recipe)
{
    size_t len, again_len;
    char *text = print(recipe, &len);
    struct recipe again = *recipe;
    memset(again.view, 0, sizeof again.view);
    struct settings_section section = recipe_section("views.", &again);
    struct error error = {0};
    if (settings_load_text("printed", text, len, &section, 1, &error) != STATUS_OK) {
        fuzz_fail(__FILE__, __LINE__, "printed and refused: %s", error.reason);
    }
    char *again_text = print(&again, &again_len);
    FUZZ_CHECK(len == again_len && memcmp(text, again_text, len) == 0);
    free(text);
    free(again_text);
}

static enum fuzz_outcome run_recipe(const uint8_t *bytes, size_t len)
{
    struct recipe recipe = {0};
    struct error error = {0};
    enum status status = recipe_load(fuzz_file(bytes, len), &recipe, &error);
    if (status == STATUS_OK) {
        FUZZ_CHECK(recipe_validate(&recipe, NULL) == STATUS_OK);
        check_printing(&recipe);
        return FUZZ_ACCEPTED;
    }
    if (status != STATUS_NOT_FOUND) { // of the recipe that `base` names
        fuzz_check_error(status, &error);
    }
    return strstr(error.reason, "YAML") == NULL ? FUZZ_ENTERED : FUZZ_REFUSED;
}

static const struct fuzz_target target = {
    .name = "recipe", .open = open_recipe, .close = close_recipe, .run = run_recipe};

FUZZ_MAIN(target)
