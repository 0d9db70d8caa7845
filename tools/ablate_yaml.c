// Scalars, lists and mappings of an ablation's file, each error with its line.
#include "tools/ablate_yaml.h"

#include "formats/nearest.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status plan_refuse(const struct plan_reader *reader, size_t line, const char *format, ...)
{
    char sentence[sizeof reader->error->reason];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return error_set(reader->error, STATUS_CONFIG, reader->plan->path, NOWHERE, NOWHERE,
                     "line %zu: %s", line, sentence);
}

// The same around what a lower function said.
enum status plan_refuse_because(const struct plan_reader *reader, size_t line, const char *row)
{
    struct error cause = *reader->error;
    char text[sizeof cause.reason + sizeof cause.path];
    error_text(&cause, text, sizeof text);
    return row ? plan_refuse(reader, line, "row '%s': %s", row, text)
               : plan_refuse(reader, line, "%s", text);
}

enum status plan_no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "no memory for the ablation's rows");
}

// --- nodes ---------------------------------------------------------------------------------------

size_t plan_line(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

enum status plan_take_node(struct plan_reader *reader, int index, yaml_node_t **node)
{
    *node = yaml_document_get_node(&reader->document, index);
    if (reader->seen[index]) {
        return plan_refuse(reader, plan_line(*node), "aliases are not read");
    }
    reader->seen[index] = true;
    return STATUS_OK;
}

enum status plan_take_text(struct plan_reader *reader, int index, const char *what,
                           const char **text, size_t *line)
{
    yaml_node_t *node;
    enum status status = plan_take_node(reader, index, &node);
    if (status != STATUS_OK) {
        return status;
    }
    *line = plan_line(node);
    if (node->type != YAML_SCALAR_NODE) {
        return plan_refuse(reader, *line, "%s: a %s, where one value is expected", what,
                           node->type == YAML_MAPPING_NODE ? "mapping" : "list");
    }
    *text = (const char *)node->data.scalar.value;
    if (node->data.scalar.length == 0 || strlen(*text) != node->data.scalar.length) {
        return plan_refuse(reader, *line, "%s: no value", what);
    }
    return STATUS_OK;
}

enum status plan_take_string(struct plan_reader *reader, int index, const char *what, char *out,
                             size_t capacity)
{
    const char *text = "";
    size_t line = 0;
    enum status status = plan_take_text(reader, index, what, &text, &line);
    if (status == STATUS_OK && strlen(text) >= capacity) {
        return plan_refuse(reader, line, "%s: longer than %zu bytes", what, capacity - 1);
    }
    if (status == STATUS_OK && !ablate_plain_text(text)) {
        return plan_refuse(reader, line, "%s: has a control character", what);
    }
    if (status == STATUS_OK) {
        memcpy(out, text, strlen(text) + 1);
    }
    return status;
}

enum status plan_take_number(struct plan_reader *reader, int index, const char *what, double *out)
{
    const char *text = "";
    size_t line = 0;
    enum status status = plan_take_text(reader, index, what, &text, &line);
    if (status != STATUS_OK) {
        return status;
    }
    char *end;
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out)
               ? STATUS_OK
               : plan_refuse(reader, line, "%s: '%.60s' is not a number", what, text);
}

// A path in the file is relative to the file.
enum status plan_take_path(struct plan_reader *reader, int index, const char *what, char *out)
{
    char text[ABLATE_PATH] = "";
    enum status status = plan_take_string(reader, index, what, text, sizeof text);
    if (status != STATUS_OK) {
        return status;
    }
    const char *file = reader->plan->path, *slash = strrchr(file, '/');
    int folder = slash && text[0] != '/' ? (int)(slash - file) + 1 : 0;
    int len = snprintf(out, ABLATE_PATH, "%.*s%s", folder, file, text);
    return len < ABLATE_PATH
               ? STATUS_OK
               : plan_refuse(reader, plan_line(yaml_document_get_node(&reader->document, index)),
                             "%s: too long", what);
}

// --- mappings ------------------------------------------------------------------------------------

enum status plan_each_member(struct plan_reader *reader, const yaml_node_t *mapping,
                             plan_take_member take, void *context)
{
    enum status status = STATUS_OK;
    if (mapping->type != YAML_MAPPING_NODE) {
        return plan_refuse(reader, plan_line(mapping), "'key: value' lines are expected");
    }
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         status == STATUS_OK && pair < mapping->data.mapping.pairs.top; pair++) {
        const char *key = "";
        size_t line = 0;
        status = plan_take_text(reader, pair->key, "a key", &key, &line);
        for (const yaml_node_pair_t *other = mapping->data.mapping.pairs.start;
             status == STATUS_OK && other < pair; other++) {
            const yaml_node_t *node = yaml_document_get_node(&reader->document, other->key);
            if (strcmp((const char *)node->data.scalar.value, key) == 0) {
                status = plan_refuse(reader, line, "%s stands here twice", key);
            }
        }
        if (status == STATUS_OK) {
            status = take(reader, key, line, pair->value, context);
        }
    }
    return status;
}

enum status plan_members(struct plan_reader *reader, int index, plan_take_member take,
                         void *context)
{
    yaml_node_t *node;
    enum status status = plan_take_node(reader, index, &node);
    return status == STATUS_OK ? plan_each_member(reader, node, take, context) : status;
}

enum status plan_unknown_key(const struct plan_reader *reader, const char *key, size_t line,
                             const char *const *known, size_t count)
{
    const char *nearest = nearest_name(key, known, count);
    return nearest
               ? plan_refuse(reader, line, "unknown key '%.100s'; did you mean '%s'?", key, nearest)
               : plan_refuse(reader, line, "unknown key '%.100s'", key);
}

// Where `key` stands among the known ones; `count` when it does not.
size_t plan_key_index(const char *key, const char *const *known, size_t count)
{
    size_t at = 0;
    while (at < count && strcmp(key, known[at]) != 0) {
        at++;
    }
    return at;
}
