// A class's name has to be one component of a path, and its own: the first that is not ends it.
#include "formats/class_names.h"
#include "formats/limits.h"
#include "formats/name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- a list ------------------------------------------------------------------------------------

enum status class_list_split(struct class_list *list, char *text, size_t len, struct error *error)
{
    size_t lines = 1; // at most
    for (size_t i = 0; i < len; i++) {
        lines += text[i] == '\n' || text[i] == '\r';
    }
    *list = (struct class_list){.text = text, .names = calloc(lines, sizeof *list->names)};
    if (list->names == NULL) {
        class_list_free(list);
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for the classes");
    }
    char *rest = NULL;
    for (char *line = strtok_r(text, "\r\n", &rest); line != NULL;
         line = strtok_r(NULL, "\r\n", &rest)) {
        list->names[list->count++] = line;
    }
    return STATUS_OK;
}

void class_list_free(struct class_list *list)
{
    free(list->text);
    free(list->names);
    *list = (struct class_list){0};
}

// --- image by image ----------------------------------------------------------------------------

static bool make_room(struct class_names *names, size_t label)
{
    if (label < names->capacity) {
        return true;
    }
    size_t capacity = 2 * label + 1024;
    size_t *places = realloc(names->places, capacity * sizeof *places);
    if (places == NULL) {
        return false;
    }
    memset(places + names->capacity, 0, (capacity - names->capacity) * sizeof *places);
    names->places = places;
    names->capacity = capacity;
    return true;
}

static enum status add(struct class_names *names, int32_t label, const char *name,
                       struct error *error)
{
    bool fresh;
    size_t place = names->names.len + 1;
    enum status status = name_set_add(&names->names, name, &fresh, error);
    if (status == STATUS_OK && !fresh) {
        snprintf(names->fault, sizeof names->fault, "label %d is not the only one called '%.80s'",
                 label, name);
    } else if (status == STATUS_OK) {
        names->places[label] = place;
    }
    return status;
}

enum status class_names_note(struct class_names *names, int32_t label, const char *name,
                             struct error *error)
{
    char component[LIMIT_NAME_BYTES + 2];
    if (names->fault[0] != '\0') {
        return STATUS_OK;
    }
    if (!make_room(names, (size_t)label)) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for the classes");
    }
    snprintf(component, sizeof component, "%s", name);
    for (char *at = component; *at != '\0'; at++) {
        *at = *at == '/' ? '_' : *at;
    }
    const char *known = class_names_get(names, (uint32_t)label);
    const char *fault = known == NULL ? name_class_fault(component, strlen(component)) : NULL;
    if (fault != NULL) {
        snprintf(names->fault, sizeof names->fault, "the name of label %d %s", label, fault);
    } else if (known == NULL) {
        return add(names, label, component, error);
    } else if (strcmp(known, component) != 0) {
        snprintf(names->fault, sizeof names->fault, "label %d is called '%.60s' and '%.60s'", label,
                 known, component);
    }
    return STATUS_OK;
}

const char *class_names_get(const struct class_names *names, uint32_t label)
{
    bool told = names->fault[0] == '\0' && label < names->capacity && names->places[label] != 0;
    return told ? names->names.text + names->places[label] - 1 : NULL;
}

void class_names_free(struct class_names *names)
{
    name_set_free(&names->names);
    free(names->places);
    *names = (struct class_names){0};
}
