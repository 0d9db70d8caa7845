// Typed settings: one table of fields serves YAML files, `--set key=value`, printing the resolved
// values and `--help`.
//
// A schema describes a plain struct. Keys are dotted paths; in YAML a nested mapping `view1: {blur:
// {probability: 1}}` and the flat key `view1.blur.probability: 1` mean the same. Unknown keys,
// wrong types, values out of range and duplicate keys are STATUS_CONFIG with the line and, for
// unknown keys, the nearest existing key.
#ifndef FORMATS_SETTINGS_H
#define FORMATS_SETTINGS_H

#include "formats/status.h"

#include <stdio.h>

enum settings_type {
    SETTINGS_BOOL,   // bool:          true/false, yes/no, on/off, 1/0
    SETTINGS_INT,    // int64_t:       checked against min and max
    SETTINGS_FLOAT,  // double:        checked against min and max
    SETTINGS_STRING, // char[capacity]
    SETTINGS_CHOICE, // int (an enum): `choices` is "name0|name1|…", the value its index
};

struct settings_field {
    const char *key;
    enum settings_type type;
    size_t offset;       // offsetof in the struct
    double min, max;     // numbers only, inclusive
    size_t capacity;     // strings only
    const char *choices; // choices only
    const char *help;    // one line: meaning, unit, where the default comes from
};

// A struct with its fields; `prefix` ("" or "views.") stands before every key of the section.
struct settings_section {
    const char *prefix;
    const struct settings_field *fields;
    size_t count;
    void *object;
};

// Reads a YAML mapping of at most LIMIT_SETTINGS_BYTES into the sections; keys not in the file keep
// their value. On error nothing in the objects has changed. `settings_load_text` is the same for
// text in memory; `name` stands for the path.
enum status settings_load(const char *path, const struct settings_section *sections, size_t count,
                          struct error *error);
enum status settings_load_text(const char *name, const char *text, size_t len,
                               const struct settings_section *sections, size_t count,
                               struct error *error);

// Applies one "key=value".
enum status settings_set(const char *assignment, const struct settings_section *sections,
                         size_t count, struct error *error);

// Writes every key as a YAML line that settings_load reads back to the same values (floats in
// shortest round-trip form). With `with_help`, each is preceded by its help as a comment.
enum status settings_print(FILE *stream, const struct settings_section *sections, size_t count,
                           int with_help, struct error *error);

#endif
