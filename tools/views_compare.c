// Variants of a recipe, from a key with values or from an ablation's rows.
#include "tools/views_compare.h"

#include "tools/ablate.h"
#include "tools/recipe_option.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_VARIANTS 100u

bool views_compare_is_key(const char *value)
{
    const char *equals = strchr(value, '='), *slash = strchr(value, '/');
    return equals && !(slash && slash < equals);
}

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for the variants");
}

static enum status set_value(struct recipe *recipe, const char *key, const char *value, int len,
                             struct error *error)
{
    struct settings_section section = recipe_section("views.", recipe);
    char own[200], text[400];
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < recipe_key_count(key); i++) {
        recipe_key(key, i, own, sizeof own);
        int made = snprintf(text, sizeof text, "%s=%.*s", own, len, value);
        status = made < (int)sizeof text ? settings_set(text, &section, 1, error)
                                         : error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                                                     "--compare: a value is too long");
    }
    return status == STATUS_OK ? recipe_validate(recipe, error) : status;
}

static size_t count_values(const char *values)
{
    size_t count = 1;
    for (; *values; values++) {
        count += *values == ',';
    }
    return count;
}

static enum status from_values(const char *value, const struct recipe *base,
                               struct views_variant **out, size_t *count, struct error *error)
{
    const char *equals = strchr(value, '='), *at = equals + 1;
    size_t total = count_values(at);
    char key[160];
    int key_len = (int)(equals - value);
    bool whole = strncmp(value, "views.", 6) == 0;
    if (snprintf(key, sizeof key, "%s%.*s", whole ? "" : "views.", key_len, value) >=
            (int)sizeof key ||
        total > MOST_VARIANTS) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "--compare: the key is too long, or more than %u values", MOST_VARIANTS);
    }
    *out = calloc(total, sizeof **out);
    if (*out == NULL) {
        return no_memory(error);
    }
    enum status status = STATUS_OK;
    for (; status == STATUS_OK && *count < total; ++*count) {
        struct views_variant *variant = &(*out)[*count];
        int len = (int)strcspn(at, ",");
        variant->recipe = *base;
        snprintf(variant->label, sizeof variant->label, "%.*s = %.*s", key_len, value, len, at);
        status = set_value(&variant->recipe, key, at, len, error);
        at += len + (at[len] == ',');
    }
    return status;
}

static enum status from_rows(const char *path, struct views_variant **out, size_t *count,
                             struct error *error)
{
    struct ablate_plan plan;
    const struct ablate_overrides none = {0};
    enum status status = ablate_plan_read(&plan, path, &none, error);
    if (status == STATUS_OK) {
        *out = calloc(plan.row_count, sizeof **out);
        status = *out ? STATUS_OK : no_memory(error);
    }
    for (size_t i = 0; status == STATUS_OK && *out != NULL && i < plan.row_count; i++) {
        if (plan.rows[i].waits_for[0] == '\0') {
            struct views_variant *variant = &(*out)[(*count)++];
            memcpy(variant->label, plan.rows[i].name, sizeof variant->label);
            variant->recipe = plan.rows[i].config.recipe;
        }
    }
    ablate_plan_free(&plan);
    return status;
}

enum status views_compare_open(const char *value, const struct recipe *base,
                               struct views_variant **out, size_t *count, struct error *error)
{
    *out = NULL;
    *count = 0;
    enum status status = views_compare_is_key(value) ? from_values(value, base, out, count, error)
                                                     : from_rows(value, out, count, error);
    for (size_t i = 1; status == STATUS_OK && i < *count; i++) {
        const struct recipe *first = &(*out)[0].recipe, *other = &(*out)[i].recipe;
        if (first->size != other->size || first->views != other->views) {
            status = error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                               "--compare: '%s' has views of another size or number than '%s': "
                               "they do not fit one sheet",
                               (*out)[i].label, (*out)[0].label);
        }
    }
    if (status == STATUS_OK && *count == 0) {
        status = error_set(error, STATUS_CONFIG, value, NOWHERE, NOWHERE,
                           "has no row that can be shown");
    }
    if (status != STATUS_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}
