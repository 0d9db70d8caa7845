// `--recipe`: a built-in's name or a file.
#include "tools/recipe_option.h"

#include "formats/file.h"
#include "trainer/run/config.h"

#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len > end_len && strcmp(text + len - end_len, end) == 0;
}

bool recipe_option_is_file(const char *value)
{
    struct recipe builtin;
    return recipe_builtin(value, &builtin, NULL) != STATUS_OK &&
           (strchr(value, '/') != NULL || ends_with(value, ".yaml") || ends_with(value, ".yml") ||
            file_exists(value));
}

// A file may carry training keys, so it is read with a run's sections; `views.base` is found in a
// first pass.
static enum status load_file(const char *path, struct recipe *out, struct error *error)
{
    struct run_config config;
    struct settings_section sections[2];
    run_config_init(&config);
    size_t count = run_config_sections(&config, sections);
    enum status status = settings_load(path, sections, count, error);
    if (status == STATUS_OK) {
        status = recipe_builtin(config.recipe.name, &config.recipe, error);
    }
    if (status == STATUS_OK) {
        status = settings_load(path, sections, count, error);
    }
    if (status == STATUS_OK) {
        *out = config.recipe;
    }
    return status;
}

enum status recipe_option_load(const char *value, struct recipe *out, struct error *error)
{
    enum status status = recipe_option_is_file(value) ? load_file(value, out, error)
                                                      : recipe_builtin(value, out, error);
    return status == STATUS_OK ? recipe_validate(out, error) : status;
}

static const char every_view[] = "views.*.";
#define EVERY_VIEW_LEN (sizeof every_view - 1)

size_t recipe_key_count(const char *key)
{
    return strncmp(key, every_view, EVERY_VIEW_LEN) == 0 ? RECIPE_MAX_VIEWS : 1;
}

void recipe_key(const char *key, size_t which, char *out, size_t capacity)
{
    if (recipe_key_count(key) == 1) {
        snprintf(out, capacity, "%s", key);
    } else {
        snprintf(out, capacity, "views.view%zu.%s", which + 1, key + EVERY_VIEW_LEN);
    }
}
