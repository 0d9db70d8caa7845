// Names of classes as foreign containers tell them: a list beside the images, or image by image.
#ifndef FORMATS_CLASS_NAMES_H
#define FORMATS_CLASS_NAMES_H

#include "formats/name_set.h"

// --- a list ------------------------------------------------------------------------------------

// One name a line, by label; empty lines do not count. Starts from {0}, ends with class_list_free.
struct class_list {
    char *text;
    const char **names;
    uint32_t count;
};

// Takes `text` over (malloc'ed, `len` bytes and a NUL), also when it fails.
enum status class_list_split(struct class_list *list, char *text, size_t len, struct error *error);
void class_list_free(struct class_list *list);

// --- image by image ----------------------------------------------------------------------------

// Starts from {0}, ends with class_names_free. Memory: the names, and a number a label.
struct class_names {
    struct name_set names;
    size_t *places; // by label: 1 + where its name starts in names.text; 0: not told
    size_t capacity;
    char fault[200]; // why they cannot stand for the labels, or ""
};

// What an image of this label (0 to LIMIT_CLASSES - 1) says its class is called.
enum status class_names_note(struct class_names *names, int32_t label, const char *name,
                             struct error *error);
// The name of a label; NULL when none was told, and always once there is a fault.
const char *class_names_get(const struct class_names *names, uint32_t label);
void class_names_free(struct class_names *names);

#endif
