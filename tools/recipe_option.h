// The value of `--recipe NAME|FILE`, understood alike by every command.
#ifndef TOOLS_RECIPE_OPTION_H
#define TOOLS_RECIPE_OPTION_H

#include "augment/recipe.h"

#include <stdbool.h>

// A built-in's name wins over a file of the same name, which `./NAME` reaches. Anything else is a
// file when it looks like a path, ends in .yaml or .yml, or exists.
bool recipe_option_is_file(const char *value);

// The views of a built-in, or those of a file, which may carry training keys too. Validated.
// STATUS_NOT_FOUND names the nearest built-in.
enum status recipe_option_load(const char *value, struct recipe *out, struct error *error);

// "views.*.KEY" stands for that key of every view; any other key for itself. How many settings a
// key stands for, and the key of each.
size_t recipe_key_count(const char *key);
void recipe_key(const char *key, size_t which, char *out, size_t capacity);

#endif
