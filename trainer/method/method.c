// The table of methods.
#include "trainer/method/method.h"

#include "formats/nearest.h"
#include "trainer/method/byol.h"

#include <stdio.h>
#include <string.h>

const struct method_ops *const method_table[] = {&byol_method, NULL};

#define METHOD_COUNT (sizeof method_table / sizeof method_table[0] - 1)

static enum status unknown_method(const char *name, struct error *error)
{
    const char *names[METHOD_COUNT];
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        names[i] = method_table[i]->name;
    }
    const char *nearest = nearest_name(name, names, METHOD_COUNT);
    return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                     "there is no method '%.64s'; did you mean '%s'?", name,
                     nearest != NULL ? nearest : names[0]);
}

enum status method_open(struct method **out, const char *name, struct device *device,
                        const struct method_config *config, struct error *error)
{
    *out = NULL;
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strcmp(method_table[i]->name, name) == 0) {
            return method_table[i]->open(out, device, config, error);
        }
    }
    return unknown_method(name, error);
}

void method_close(struct method **method)
{
    if (*method != NULL) {
        (*method)->ops->close(*method);
        *method = NULL;
    }
}
