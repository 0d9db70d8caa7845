// The variants that `byol views --compare` lays beside each other: a recipe and a label each.
#ifndef TOOLS_VIEWS_COMPARE_H
#define TOOLS_VIEWS_COMPARE_H

#include "augment/recipe.h"

#include <stdbool.h>

struct views_variant {
    char label[128];
    struct recipe recipe;
};

// Whether `value` is KEY=V1,V2,… rather than a file.
bool views_compare_is_key(const char *value);

// KEY=V1,V2,…: the recipe with each of the values; KEY is a key of recipes ("view1.blur",
// "views.view1.blur" or "views.*.blur"). Or an ablation's file: its rows' recipes, whatever `base`
// is. Views of one sheet have one size and number. `*out` is malloc'ed.
enum status views_compare_open(const char *value, const struct recipe *base,
                               struct views_variant **out, size_t *count, struct error *error);

#endif
