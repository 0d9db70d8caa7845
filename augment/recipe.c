// The built-in recipes and the table of their keys.
#include "augment/recipe.h"
#include "augment/run_keys.h"
#include "formats/nearest.h"

#include <stdio.h>
#include <string.h>

#define CROP_CHOICES "random|center|whole"

// A value of the view table: `text` says what it is.
#define NUMBER(which, field, low, high, text)                                                      \
    {                                                                                              \
        .key = "view" #which "." #field, .type = SETTINGS_FLOAT,                                   \
        .offset = offsetof(struct recipe, view[(which)-1].field), .min = (low), .max = (high),     \
        .help = (text)                                                                             \
    }

#define VIEW(n)                                                                                    \
    {.key = "view" #n ".crop",                                                                     \
     .type = SETTINGS_CHOICE,                                                                      \
     .offset = offsetof(struct recipe, view[(n)-1].crop),                                          \
     .choices = CROP_CHOICES,                                                                      \
     .help = "what part of the image: a random window, the centre square, all of it"},             \
        NUMBER(n, area_min, 1e-4, 1, "random crop: least share of the image's area"),              \
        NUMBER(n, area_max, 1e-4, 1, "random crop: largest share of the image's area"),            \
        NUMBER(n, aspect_min, 0.01, 100, "random crop: least width / height"),                     \
        NUMBER(n, aspect_max, 0.01, 100, "random crop: largest width / height"),                   \
        NUMBER(n, flip, 0, 1, "probability of a left-right flip"),                                 \
        NUMBER(n, jitter, 0, 1, "probability of the four colour operations, in random order"),     \
        NUMBER(n, brightness, 0, 1, "added to every value: uniform in +-this"),                    \
        NUMBER(n, contrast, 0, 1, "factor about each channel's mean: uniform in 1 +- this"),       \
        NUMBER(n, saturation, 0, 1, "factor of the HSV saturation: uniform in 1 +- this"),         \
        NUMBER(n, hue, 0, 0.5, "added to the HSV hue in turns: uniform in +-this"),                \
        NUMBER(n, grayscale, 0, 1, "probability of grey"),                                         \
        NUMBER(n, blur, 0, 1, "probability of a Gaussian blur"),                                   \
        NUMBER(n, sigma_min, 0.01, 100, "blur: least standard deviation in pixels"),               \
        NUMBER(n, sigma_max, 0.01, 100, "blur: largest standard deviation in pixels"),             \
        NUMBER(n, blur_kernel, 0, 1, "blur: width of the kernel as a share of the view's size"),   \
        NUMBER(n, solarize, 0, 1, "probability of inverting the bright values"),                   \
        NUMBER(n, solarize_threshold, 0, 1, "solarize: values from here on are inverted")

static const struct settings_field fields[] = {
    {.key = "base",
     .type = SETTINGS_STRING,
     .offset = offsetof(struct recipe, name),
     .capacity = sizeof((struct recipe *)NULL)->name,
     .help = "built-in recipe that the other keys start from: byol, linear-train, eval, small"},
    {.key = "size",
     .type = SETTINGS_INT,
     .offset = offsetof(struct recipe, size),
     .min = RECIPE_MIN_SIZE,
     .max = RECIPE_MAX_SIZE,
     .help = "side of a view in pixels"},
    {.key = "count",
     .type = SETTINGS_INT,
     .offset = offsetof(struct recipe, views),
     .min = 1,
     .max = RECIPE_MAX_VIEWS,
     .help = "views of each image: 2 to learn from pairs, 1 for probes"},
    VIEW(1),
    VIEW(2),
};
#define FIELD_COUNT (sizeof fields / sizeof fields[0])

const char *const recipe_builtin_names[] = {"byol", "linear-train", "eval", "small", NULL};
#define BUILTIN_COUNT (sizeof recipe_builtin_names / sizeof recipe_builtin_names[0] - 1)

// The paper's T; strengths are set even where the probability is zero, so that a recipe file can
// switch an operation on with one key.
static const struct recipe_view byol_view1 = {
    .crop = RECIPE_CROP_RANDOM,
    .area_min = 0.08,
    .area_max = 1,
    .aspect_min = 3.0 / 4.0,
    .aspect_max = 4.0 / 3.0,
    .flip = 0.5,
    .jitter = 0.8,
    .brightness = 0.4,
    .contrast = 0.4,
    .saturation = 0.2,
    .hue = 0.1,
    .grayscale = 0.2,
    .blur = 1,
    .sigma_min = 0.1,
    .sigma_max = 2,
    .blur_kernel = 0.1,
    .solarize = 0,
    .solarize_threshold = 0.5,
};

static struct recipe byol(void)
{
    struct recipe recipe = {.size = 224, .views = 2, .view = {byol_view1, byol_view1}};
    recipe.view[1].blur = 0.1; // T': rarely blurred, sometimes solarized
    recipe.view[1].solarize = 0.2;
    return recipe;
}

static struct recipe small(void)
{
    struct recipe recipe = byol();
    recipe.size = 32;
    recipe.view[0].blur = recipe.view[1].blur = 0;
    return recipe;
}

static struct recipe linear_train(void)
{
    struct recipe recipe = byol();
    recipe.views = 1;
    for (int i = 0; i < RECIPE_MAX_VIEWS; i++) {
        struct recipe_view *view = &recipe.view[i];
        view->jitter = view->grayscale = view->blur = view->solarize = 0;
    }
    return recipe;
}

static struct recipe eval(void)
{
    struct recipe recipe = linear_train();
    for (int i = 0; i < RECIPE_MAX_VIEWS; i++) {
        recipe.view[i].crop = RECIPE_CROP_CENTER;
        recipe.view[i].flip = 0;
    }
    return recipe;
}

enum status recipe_builtin(const char *name, struct recipe *out, struct error *error)
{
    static struct recipe (*const makers[BUILTIN_COUNT])(void) = {byol, linear_train, eval, small};
    for (size_t i = 0; i < BUILTIN_COUNT; i++) {
        if (strcmp(name, recipe_builtin_names[i]) == 0) {
            *out = makers[i]();
            snprintf(out->name, sizeof out->name, "%s", name);
            return STATUS_OK;
        }
    }
    const char *nearest = nearest_name(name, recipe_builtin_names, BUILTIN_COUNT);
    return error_set(error, STATUS_NOT_FOUND, NULL, NOWHERE, NOWHERE,
                     "there is no recipe '%s'; %s%s%sthere are byol, linear-train, eval, small",
                     name, nearest ? "did you mean '" : "", nearest ? nearest : "",
                     nearest ? "'? " : "");
}

struct settings_section recipe_section(const char *prefix, struct recipe *recipe)
{
    return (struct settings_section){prefix, fields, FIELD_COUNT, recipe};
}

enum status recipe_load(const char *path, struct recipe *out, struct error *error)
{
    struct recipe recipe, named;
    char passed_over[RUN_KEYS_BYTES];
    enum status status = recipe_builtin("byol", &named, error);
    struct settings_section sections[] = {recipe_section("views.", &named),
                                          run_keys_section(passed_over)};
    if (status == STATUS_OK) {
        status = settings_load(path, sections, 2, error);
    }
    if (status == STATUS_OK) {
        status = recipe_builtin(named.name, &recipe, error);
    }
    if (status == STATUS_OK) {
        sections[0].object = &recipe;
        status = settings_load(path, sections, 2, error);
    }
    if (status == STATUS_OK) {
        status = recipe_validate(&recipe, error);
    }
    if (status == STATUS_OK) {
        *out = recipe;
    } else if (error && error->path[0] == '\0') {
        snprintf(error->path, sizeof error->path, "%s", path);
    }
    return status;
}

static enum status out_of_range(const struct settings_field *field, double value,
                                struct error *error)
{
    return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                     "views.%s is %g, it must be within %g to %g", field->key, value, field->min,
                     field->max);
}

static enum status check_ranges(const struct recipe *recipe, struct error *error)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const void *value = (const char *)recipe + fields[i].offset;
        double number = 0;
        if (fields[i].type == SETTINGS_FLOAT) {
            number = *(const double *)value;
        } else if (fields[i].type == SETTINGS_INT) {
            number = (double)*(const int64_t *)value;
        } else {
            continue;
        }
        if (!(number >= fields[i].min && number <= fields[i].max)) {
            return out_of_range(&fields[i], number, error);
        }
    }
    return STATUS_OK;
}

enum status recipe_validate(const struct recipe *recipe, struct error *error)
{
    enum status status = check_ranges(recipe, error);
    for (int i = 0; status == STATUS_OK && i < RECIPE_MAX_VIEWS; i++) {
        const struct recipe_view *view = &recipe->view[i];
        const char *reversed = view->area_min > view->area_max       ? "area"
                               : view->aspect_min > view->aspect_max ? "aspect"
                               : view->sigma_min > view->sigma_max   ? "sigma"
                                                                     : NULL;
        if (reversed) {
            status = error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                               "views.view%d.%s_min is above %s_max", i + 1, reversed, reversed);
        } else if (view->crop < RECIPE_CROP_RANDOM || view->crop > RECIPE_CROP_WHOLE) {
            status = error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                               "views.view%d.crop must be one of " CROP_CHOICES, i + 1);
        }
    }
    return status;
}
