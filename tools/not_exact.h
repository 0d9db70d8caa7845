// Datasets whose images are not those of their source (resized): every figure made with one says
// so.
#ifndef TOOLS_NOT_EXACT_H
#define TOOLS_NOT_EXACT_H

#include "formats/dataset.h"
#include "tools/command.h"

#include <jansson.h>

// Warns on stderr; `what` names the dataset ("the training set"). Says nothing of an exact one.
void not_exact_warn(const struct command *command, const char *what, const struct dataset *dataset);

// What was done to the images; null of an exact dataset, and without one.
json_t *not_exact_json(const struct dataset *dataset);

#endif
