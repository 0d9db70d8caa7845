// The mark of a dataset's index, as a warning and as JSON.
#include "tools/not_exact.h"

#include "tools/json_text.h"

#include <stdio.h>
#include <stdlib.h>

void not_exact_warn(const struct command *command, const char *what, const struct dataset *dataset)
{
    char *inexact = dataset_not_exact(dataset);
    if (inexact != NULL) {
        fprintf(stderr, "byol %s: WARNING: %s is not exact: %s\n", command->name, what, inexact);
    }
    free(inexact);
}

json_t *not_exact_json(const struct dataset *dataset)
{
    char *inexact = dataset ? dataset_not_exact(dataset) : NULL;
    json_t *text = inexact ? json_text(inexact) : json_null();
    free(inexact);
    return text;
}
