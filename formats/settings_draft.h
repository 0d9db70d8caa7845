// Between settings.c and settings_yaml.c; private to them. A draft collects values and checks them
// one by one; only a complete one is written into the objects, so a bad file changes nothing.
#ifndef FORMATS_SETTINGS_DRAFT_H
#define FORMATS_SETTINGS_DRAFT_H

#include "formats/settings.h"

#include <stdarg.h>
#include <stdbool.h>

#define SETTINGS_KEY_BYTES 256 // longest full key, its terminator included
#define SETTINGS_MAX_DEPTH 8   // nested mappings; also the longest dotted key

// Where a value stands, for messages: line 0 is "not in a file".
struct settings_place {
    const char *name;
    size_t line;
};

struct settings_value {
    bool given;
    size_t line; // of the assignment
    union {
        bool truth;
        int64_t integer;
        double number;
        int choice;
        char *text; // owned
    } as;
};

struct settings_draft {
    const struct settings_section *sections;
    size_t section_count, field_count;    // fields of all sections together
    const struct settings_field **fields; // [field_count]
    char (*keys)[SETTINGS_KEY_BYTES];     // [field_count], prefix included
    struct settings_value *values;        // [field_count]
};

enum status settings_draft_open(struct settings_draft *draft,
                                const struct settings_section *sections, size_t count,
                                struct error *error);
void settings_draft_close(struct settings_draft *draft); // accepts {0} and half-built drafts

// Checks one value and keeps it. STATUS_CONFIG: unknown or repeated key, wrong type, out of range.
enum status settings_draft_put(struct settings_draft *draft, const char *key, const char *text,
                               struct settings_place place, struct error *error);

// Writes the values into the objects of the sections.
void settings_draft_apply(const struct settings_draft *draft);

// STATUS_CONFIG, with the place before the sentence.
enum status settings_refuse(struct settings_place place, struct error *error, const char *format,
                            ...) __attribute__((format(printf, 3, 4)));

// "unknown key …", naming the nearest of the keys cut to `depth` parts (0: not cut).
enum status settings_refuse_key(const struct settings_draft *draft, const char *key, size_t depth,
                                struct settings_place place, struct error *error);

bool settings_draft_has(const struct settings_draft *draft, const char *key);

// The first field whose key starts with `group` and a dot; field_count when there is none.
size_t settings_draft_group(const struct settings_draft *draft, const char *group);

// Text that a YAML file gives back unchanged: UTF-8 without control characters.
bool settings_printable(const char *text);

#endif
