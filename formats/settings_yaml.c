// Reading of settings from YAML: libyaml's events, one mapping (nested mappings make dotted keys),
// scalars. Lists, anchors, aliases, tags and second documents are refused: nothing here expands,
// includes or runs anything.
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/settings_draft.h"

#include <stdlib.h>
#include <string.h>

#include <yaml.h>

struct reader {
    yaml_parser_t parser;
    struct settings_draft *draft;
    const char *name;
    struct error *error;

    char key[SETTINGS_KEY_BYTES]; // the dotted path so far
    size_t key_len;
    size_t lengths[SETTINGS_MAX_DEPTH]; // of `key` before each open mapping's own part
    size_t depth;                       // open mappings
    bool has_key;                       // a key was read, its value comes next
    bool *opened; // [field_count][SETTINGS_MAX_DEPTH]: groups that were opened as mappings
};

static struct settings_place place_of(const struct reader *reader, const yaml_event_t *event)
{
    return (struct settings_place){reader->name, event->start_mark.line + 1};
}

static enum status parser_error(struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    if (parser->error == YAML_MEMORY_ERROR) {
        return error_set(reader->error, STATUS_NO_MEMORY, reader->name, NOWHERE, NOWHERE,
                         "no memory for the YAML parser");
    }
    if (parser->error == YAML_READER_ERROR) {
        return error_set(reader->error, STATUS_CONFIG, reader->name, parser->problem_offset,
                         NOWHERE, "not YAML text: %s", parser->problem);
    }
    struct settings_place place = {reader->name, parser->problem_mark.line + 1};
    return settings_refuse(place, reader->error, "not YAML: %s%s%s", parser->problem,
                           parser->context ? " " : "", parser->context ? parser->context : "");
}

// Adds a part to the dotted path; the text must not hide a NUL byte.
static enum status take_key(struct reader *reader, const yaml_event_t *event)
{
    const char *part = (const char *)event->data.scalar.value;
    size_t len = event->data.scalar.length;
    struct settings_place place = place_of(reader, event);
    if (len == 0 || strlen(part) != len) {
        return settings_refuse(place, reader->error, "an empty key");
    }
    size_t start = reader->key_len + (reader->key_len > 0);
    if (len >= SETTINGS_KEY_BYTES - start) {
        return settings_refuse(place, reader->error, "unknown key '%.60s…'", part);
    }
    if (reader->key_len > 0) {
        reader->key[reader->key_len] = '.';
    }
    memcpy(reader->key + start, part, len + 1);
    reader->lengths[reader->depth - 1] = reader->key_len;
    reader->key_len = start + len;
    reader->has_key = true;
    return STATUS_OK;
}

static void drop_key(struct reader *reader)
{
    reader->key_len = reader->lengths[reader->depth - 1];
    reader->key[reader->key_len] = '\0';
    reader->has_key = false;
}

static enum status take_value(struct reader *reader, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    struct settings_place place = place_of(reader, event);
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
        (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)) {
        return settings_refuse(place, reader->error, "%s: no value", reader->key);
    }
    if (strlen(text) != event->data.scalar.length) {
        return settings_refuse(place, reader->error, "%s: a NUL byte in the text", reader->key);
    }
    enum status status = settings_draft_put(reader->draft, reader->key, text, place, reader->error);
    drop_key(reader);
    return status;
}

static enum status take_scalar(struct reader *reader, const yaml_event_t *event)
{
    if (event->data.scalar.anchor != NULL || event->data.scalar.tag != NULL) {
        return settings_refuse(place_of(reader, event), reader->error,
                               "anchors and tags are not read");
    }
    if (reader->depth == 0) {
        bool empty = event->data.scalar.length == 0; // "---" and nothing else
        return empty ? STATUS_OK
                     : settings_refuse(place_of(reader, event), reader->error,
                                       "'key: value' lines are expected");
    }
    return reader->has_key ? take_value(reader, event) : take_key(reader, event);
}

// The value of a key is a mapping: the key must be a known group, seen for the first time.
static enum status enter_group(struct reader *reader, struct settings_place place)
{
    size_t parts = 1;
    for (const char *at = reader->key; *at; at++) {
        parts += *at == '.';
    }
    if (settings_draft_has(reader->draft, reader->key)) {
        return settings_refuse(place, reader->error, "%s: a mapping, where one value is expected",
                               reader->key);
    }
    size_t member = settings_draft_group(reader->draft, reader->key);
    if (member == reader->draft->field_count || parts >= SETTINGS_MAX_DEPTH) {
        return settings_refuse_key(reader->draft, reader->key, parts, place, reader->error);
    }
    bool *opened = &reader->opened[member * SETTINGS_MAX_DEPTH + parts];
    if (*opened) {
        return settings_refuse(place, reader->error, "the group '%s' appears twice", reader->key);
    }
    *opened = true;
    return STATUS_OK;
}

static enum status start_mapping(struct reader *reader, const yaml_event_t *event)
{
    struct settings_place place = place_of(reader, event);
    if (event->data.mapping_start.anchor != NULL || event->data.mapping_start.tag != NULL) {
        return settings_refuse(place, reader->error, "anchors and tags are not read");
    }
    if (reader->depth > 0) {
        if (!reader->has_key) {
            return settings_refuse(place, reader->error, "a mapping cannot be a key");
        }
        enum status status = enter_group(reader, place);
        if (status != STATUS_OK) {
            return status;
        }
    }
    reader->depth++; // known groups are less deep than SETTINGS_MAX_DEPTH
    reader->has_key = false;
    return STATUS_OK;
}

static void end_mapping(struct reader *reader)
{
    reader->depth--;
    if (reader->depth > 0) {
        drop_key(reader);
    }
}

static enum status take_event(struct reader *reader, const yaml_event_t *event, size_t *documents)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        ++*documents;
        return *documents == 1
                   ? STATUS_OK
                   : settings_refuse(place_of(reader, event), reader->error, "a second document");
    case YAML_SCALAR_EVENT:
        return take_scalar(reader, event);
    case YAML_MAPPING_START_EVENT:
        return start_mapping(reader, event);
    case YAML_MAPPING_END_EVENT:
        end_mapping(reader);
        return STATUS_OK;
    case YAML_SEQUENCE_START_EVENT:
        return settings_refuse(place_of(reader, event), reader->error,
                               "%s%sa list, where one value is expected", reader->key,
                               reader->key_len ? ": " : "");
    case YAML_ALIAS_EVENT:
        return settings_refuse(place_of(reader, event), reader->error, "aliases are not read");
    default:
        return STATUS_OK; // the stream's and the document's ends
    }
}

static enum status read_events(struct reader *reader)
{
    size_t documents = 0;
    for (bool ended = false; !ended;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&reader->parser, &event)) {
            return parser_error(reader);
        }
        ended = event.type == YAML_STREAM_END_EVENT;
        enum status status = take_event(reader, &event, &documents);
        yaml_event_delete(&event);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status read_text(struct settings_draft *draft, const char *name, const char *text,
                             size_t len, struct error *error)
{
    struct reader reader = {.draft = draft, .name = name, .error = error};
    reader.opened = calloc((draft->field_count + 1) * SETTINGS_MAX_DEPTH, sizeof *reader.opened);
    if (reader.opened == NULL || !yaml_parser_initialize(&reader.parser)) {
        free(reader.opened);
        return error_set(error, STATUS_NO_MEMORY, name, NOWHERE, NOWHERE,
                         "no memory for the YAML parser");
    }
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, len);
    enum status status = read_events(&reader);
    yaml_parser_delete(&reader.parser);
    free(reader.opened);
    return status;
}

enum status settings_load_text(const char *name, const char *text, size_t len,
                               const struct settings_section *sections, size_t count,
                               struct error *error)
{
    if (len > LIMIT_SETTINGS_BYTES) {
        return error_set(error, STATUS_LIMIT, name, NOWHERE, NOWHERE,
                         "settings of %zu bytes are above the limit of %llu", len,
                         (unsigned long long)LIMIT_SETTINGS_BYTES);
    }
    struct settings_draft draft;
    enum status status = settings_draft_open(&draft, sections, count, error);
    if (status == STATUS_OK) {
        status = read_text(&draft, name, text, len, error);
    }
    if (status == STATUS_OK) {
        settings_draft_apply(&draft);
    }
    settings_draft_close(&draft);
    return status;
}

enum status settings_load(const char *path, const struct settings_section *sections, size_t count,
                          struct error *error)
{
    uint8_t *bytes;
    size_t len;
    enum status status = file_read_all(path, LIMIT_SETTINGS_BYTES, &bytes, &len, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = settings_load_text(path, (const char *)bytes, len, sections, count, error);
    free(bytes);
    return status;
}
