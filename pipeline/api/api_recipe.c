// Recipes of the public interface.
#include "pipeline/api/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *byol_recipe_name(size_t index)
{
    for (size_t i = 0; recipe_builtin_names[i]; i++) {
        if (i == index) {
            return recipe_builtin_names[i];
        }
    }
    return NULL;
}

static bool is_file(const char *recipe)
{
    const char *end = strrchr(recipe, '.');
    return strchr(recipe, '/') || (end && (strcmp(end, ".yaml") == 0 || strcmp(end, ".yml") == 0));
}

enum status api_recipe(const char *recipe, const char *settings, struct recipe *out,
                       struct error *error)
{
    if (!recipe || !*recipe) {
        recipe = "byol";
    }
    enum status status =
        is_file(recipe) ? recipe_load(recipe, out, error) : recipe_builtin(recipe, out, error);
    if (status == STATUS_OK && settings && *settings) {
        struct settings_section section = recipe_section("", out);
        char base[sizeof out->name];
        memcpy(base, out->name, sizeof base);
        status = settings_load_text("settings", settings, strlen(settings), &section, 1, error);
        if (status == STATUS_OK && strcmp(base, out->name) != 0) {
            status = error_set(error, STATUS_CONFIG, "settings", NOWHERE, NOWHERE,
                               "'base' is chosen by the recipe's name, not here");
        }
    }
    return status == STATUS_OK ? recipe_validate(out, error) : status;
}

static enum status print(struct recipe *recipe, char **text, struct error *error)
{
    size_t length;
    FILE *stream = open_memstream(text, &length);
    if (!stream) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a recipe");
    }
    struct settings_section section = recipe_section("", recipe);
    enum status status = settings_print(stream, &section, 1, 1, error);
    if (fclose(stream) != 0 && status == STATUS_OK) {
        status =
            error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a recipe");
    }
    if (status != STATUS_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

int byol_recipe_describe(const char *recipe, const char *settings, char **text,
                         struct byol_error *public)
{
    *text = NULL;
    struct error error;
    struct recipe resolved;
    enum status status = api_recipe(recipe, settings, &resolved, &error);
    if (status == STATUS_OK) {
        status = print(&resolved, text, &error);
    }
    return api_status(status, &error, public);
}
