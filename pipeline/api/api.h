// What the files of the public interface (byol.h) share; private to them.
#ifndef PIPELINE_API_API_H
#define PIPELINE_API_API_H

#include "augment/recipe.h"
#include "formats/dataset.h"
#include "pipeline/api/byol.h"

#include <stdatomic.h>

// Counted, so that callers may close a dataset before its loaders.
struct byol_dataset {
    struct dataset *dataset;
    atomic_uint users;
};
struct byol_dataset *api_dataset_share(struct byol_dataset *dataset);

// Fills the caller's error, unless it is NULL or all went well. Returns `status`.
int api_status(enum status status, const struct error *error, struct byol_error *out);

// Chooses the vector instructions, once in a process (BYOL_ISA).
enum status api_prepare(struct error *error);

// The recipe that the two strings of byol.h mean; NULL or "" stands for their defaults.
enum status api_recipe(const char *recipe, const char *settings, struct recipe *out,
                       struct error *error);

#endif
