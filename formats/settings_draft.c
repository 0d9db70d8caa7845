// Keys, and the checking of values against their fields.
#include "formats/settings_draft.h"
#include "formats/nearest.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum status settings_refuse(struct settings_place place, struct error *error, const char *format,
                            ...)
{
    char sentence[sizeof error->reason];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    if (place.line == 0) {
        return error_set(error, STATUS_CONFIG, place.name, NOWHERE, NOWHERE, "%s", sentence);
    }
    return error_set(error, STATUS_CONFIG, place.name, NOWHERE, NOWHERE, "line %zu: %s", place.line,
                     sentence);
}

// --- the draft's life ----------------------------------------------------------------------------

static void collect_fields(struct settings_draft *draft)
{
    size_t at = 0;
    for (size_t i = 0; i < draft->section_count; i++) {
        const struct settings_section *section = &draft->sections[i];
        for (size_t j = 0; j < section->count; j++, at++) {
            draft->fields[at] = &section->fields[j];
            snprintf(draft->keys[at], SETTINGS_KEY_BYTES, "%s%s", section->prefix,
                     section->fields[j].key);
        }
    }
}

enum status settings_draft_open(struct settings_draft *draft,
                                const struct settings_section *sections, size_t count,
                                struct error *error)
{
    *draft = (struct settings_draft){.sections = sections, .section_count = count};
    for (size_t i = 0; i < count; i++) {
        draft->field_count += sections[i].count;
    }
    size_t room = draft->field_count ? draft->field_count : 1;
    draft->fields = calloc(room, sizeof(const struct settings_field *));
    draft->keys = calloc(room, sizeof *draft->keys);
    draft->values = calloc(room, sizeof *draft->values);
    if (draft->fields == NULL || draft->keys == NULL || draft->values == NULL) {
        settings_draft_close(draft);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for the settings");
    }
    collect_fields(draft);
    return STATUS_OK;
}

void settings_draft_close(struct settings_draft *draft)
{
    for (size_t i = 0; draft->values && draft->fields && i < draft->field_count; i++) {
        if (draft->values[i].given && draft->fields[i]->type == SETTINGS_STRING) {
            free(draft->values[i].as.text);
        }
    }
    free(draft->fields);
    free(draft->keys);
    free(draft->values);
    *draft = (struct settings_draft){0};
}

// --- keys ----------------------------------------------------------------------------------------

static size_t find_key(const struct settings_draft *draft, const char *key)
{
    size_t i = 0;
    while (i < draft->field_count && strcmp(draft->keys[i], key) != 0) {
        i++;
    }
    return i;
}

bool settings_draft_has(const struct settings_draft *draft, const char *key)
{
    return find_key(draft, key) < draft->field_count;
}

size_t settings_draft_group(const struct settings_draft *draft, const char *group)
{
    size_t len = strlen(group), i = 0;
    while (i < draft->field_count &&
           (strncmp(draft->keys[i], group, len) != 0 || draft->keys[i][len] != '.')) {
        i++;
    }
    return i;
}

// Cuts "a.b.c" to its first `depth` parts; false when it has no more than these.
static bool cut_to_depth(char *key, size_t depth)
{
    for (; *key; key++) {
        if (*key == '.' && --depth == 0) {
            *key = '\0';
            return true;
        }
    }
    return false;
}

// The known names of one kind: whole keys (depth 0) or groups of `depth` parts.
static size_t collect_names(const struct settings_draft *draft, size_t depth,
                            char (*names)[SETTINGS_KEY_BYTES], const char **pointers)
{
    size_t count = 0;
    for (size_t i = 0; i < draft->field_count; i++) {
        memcpy(names[count], draft->keys[i], SETTINGS_KEY_BYTES);
        if (depth == 0 || cut_to_depth(names[count], depth)) {
            pointers[count] = names[count];
            count++;
        }
    }
    return count;
}

enum status settings_refuse_key(const struct settings_draft *draft, const char *key, size_t depth,
                                struct settings_place place, struct error *error)
{
    char(*names)[SETTINGS_KEY_BYTES] = calloc(draft->field_count + 1, sizeof *names);
    const char **pointers = calloc(draft->field_count + 1, sizeof *pointers);
    const char *nearest = NULL;
    if (names != NULL && pointers != NULL) { // without memory the hint is left out
        nearest = nearest_name(key, pointers, collect_names(draft, depth, names, pointers));
    }
    if (nearest != NULL) {
        settings_refuse(place, error, "unknown key '%s'; did you mean '%s'?", key, nearest);
    } else {
        settings_refuse(place, error, "unknown key '%s'", key);
    }
    free(names);
    free(pointers);
    return STATUS_CONFIG;
}

// --- values --------------------------------------------------------------------------------------

static bool read_truth(const char *text, bool *truth)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *truth = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static enum status read_integer(const struct settings_field *field, const char *key,
                                const char *text, int64_t *integer, struct settings_place place,
                                struct error *error)
{
    char *end;
    errno = 0;
    *integer = strtoll(text, &end, 10);
    if (*text == '\0' || *end != '\0' || text[strspn(text, "+-0123456789")] != '\0') {
        return settings_refuse(place, error, "%s: '%s' is not a whole number", key, text);
    }
    if (errno == ERANGE || (double)*integer < field->min || (double)*integer > field->max) {
        return settings_refuse(place, error, "%s: %s is not between %.17g and %.17g", key, text,
                               field->min, field->max);
    }
    return STATUS_OK;
}

static enum status read_number(const struct settings_field *field, const char *key,
                               const char *text, double *number, struct settings_place place,
                               struct error *error)
{
    char *end;
    *number = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || text[strspn(text, "+-.0123456789eE")] != '\0') {
        return settings_refuse(place, error, "%s: '%s' is not a number", key, text);
    }
    if (!isfinite(*number) || *number < field->min || *number > field->max) {
        return settings_refuse(place, error, "%s: %s is not between %g and %g", key, text,
                               field->min, field->max);
    }
    return STATUS_OK;
}

static enum status read_text(const struct settings_field *field, const char *key, const char *text,
                             char **copy, struct settings_place place, struct error *error)
{
    if (strlen(text) >= field->capacity) {
        return settings_refuse(place, error, "%s: longer than %zu bytes", key, field->capacity - 1);
    }
    if (!settings_printable(text)) {
        return settings_refuse(place, error, "%s: control characters, or bytes that are not UTF-8",
                               key);
    }
    *copy = strdup(text);
    if (*copy == NULL) {
        return error_set(error, STATUS_NO_MEMORY, place.name, NOWHERE, NOWHERE,
                         "no memory for the settings");
    }
    return STATUS_OK;
}

static enum status read_choice(const struct settings_field *field, const char *key,
                               const char *text, int *choice, struct settings_place place,
                               struct error *error)
{
    const char *name = field->choices;
    for (*choice = 0;; ++*choice) {
        size_t len = strcspn(name, "|");
        if (strlen(text) == len && memcmp(name, text, len) == 0) {
            return STATUS_OK;
        }
        if (name[len] == '\0') {
            break;
        }
        name += len + 1;
    }
    return settings_refuse(place, error, "%s: '%s' is none of %s", key, text, field->choices);
}

static enum status read_value(const struct settings_field *field, const char *key, const char *text,
                              struct settings_value *value, struct settings_place place,
                              struct error *error)
{
    switch (field->type) {
    case SETTINGS_BOOL:
        return read_truth(text, &value->as.truth)
                   ? STATUS_OK
                   : settings_refuse(place, error, "%s: '%s' is neither true nor false", key, text);
    case SETTINGS_INT:
        return read_integer(field, key, text, &value->as.integer, place, error);
    case SETTINGS_FLOAT:
        return read_number(field, key, text, &value->as.number, place, error);
    case SETTINGS_STRING:
        return read_text(field, key, text, &value->as.text, place, error);
    case SETTINGS_CHOICE:
        break;
    }
    return read_choice(field, key, text, &value->as.choice, place, error);
}

enum status settings_draft_put(struct settings_draft *draft, const char *key, const char *text,
                               struct settings_place place, struct error *error)
{
    size_t at = find_key(draft, key);
    if (at == draft->field_count) {
        size_t member = settings_draft_group(draft, key);
        if (member < draft->field_count) {
            return settings_refuse(place, error, "'%s' is a group of keys, such as '%s'", key,
                                   draft->keys[member]);
        }
        return settings_refuse_key(draft, key, 0, place, error);
    }
    struct settings_value *value = &draft->values[at];
    if (value->given) {
        return settings_refuse(place, error, "'%s' was already set on line %zu", key, value->line);
    }
    enum status status = read_value(draft->fields[at], key, text, value, place, error);
    value->given = status == STATUS_OK;
    value->line = place.line;
    return status;
}

static void apply_value(const struct settings_field *field, const struct settings_value *value,
                        void *to)
{
    switch (field->type) {
    case SETTINGS_BOOL:
        memcpy(to, &value->as.truth, sizeof value->as.truth);
        break;
    case SETTINGS_INT:
        memcpy(to, &value->as.integer, sizeof value->as.integer);
        break;
    case SETTINGS_FLOAT:
        memcpy(to, &value->as.number, sizeof value->as.number);
        break;
    case SETTINGS_STRING:
        memset(to, 0, field->capacity); // so that equal settings are equal bytes
        memcpy(to, value->as.text, strlen(value->as.text));
        break;
    case SETTINGS_CHOICE:
        memcpy(to, &value->as.choice, sizeof value->as.choice);
        break;
    }
}

void settings_draft_apply(const struct settings_draft *draft)
{
    size_t at = 0;
    for (size_t i = 0; i < draft->section_count; i++) {
        const struct settings_section *section = &draft->sections[i];
        for (size_t j = 0; j < section->count; j++, at++) {
            if (draft->values[at].given) {
                apply_value(draft->fields[at], &draft->values[at],
                            (char *)section->object + section->fields[j].offset);
            }
        }
    }
}
