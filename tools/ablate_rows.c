// Rows of an ablation's file: their settings, and the grid that axes make of them.
#include "tools/ablate_yaml.h"
#include "tools/recipe_option.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_SETTINGS 256u // of one row
#define MOST_DEPTH    8    // of nested mappings in `set`

// --- settings ------------------------------------------------------------------------------------

static enum status add_setting(struct ablate_settings *set, const char *text, size_t line,
                               struct error *error)
{
    if (set->count == MOST_SETTINGS) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "more than %u settings of one row", MOST_SETTINGS);
    }
    struct ablate_setting *grown = realloc(set->item, (set->count + 1) * sizeof *grown);
    if (grown == NULL) {
        return plan_no_memory(error);
    }
    set->item = grown;
    grown[set->count] = (struct ablate_setting){strdup(text), line};
    if (grown[set->count].text == NULL) {
        return plan_no_memory(error);
    }
    set->count++;
    return STATUS_OK;
}

// Checks key and value against the table of settings; nothing is kept but the text.
static enum status check_setting(struct plan_reader *reader, const char *text, size_t line)
{
    struct run_config scratch;
    struct settings_section sections[2];
    run_config_init(&scratch);
    size_t count = run_config_sections(&scratch, sections);
    enum status status = settings_set(text, sections, count, reader->error);
    return status == STATUS_OK ? status : plan_refuse_because(reader, line, NULL);
}

static enum status put_setting(struct plan_reader *reader, struct ablate_settings *set,
                               const char *key, const char *value, size_t line, bool check)
{
    char text[2 * PLAN_KEY_BYTES + ABLATE_PATH], own[PLAN_KEY_BYTES + 16];
    enum status status = STATUS_OK;
    if (strlen(value) >= ABLATE_PATH || strlen(key) >= PLAN_KEY_BYTES) {
        return plan_refuse(reader, line, "%.60s: longer than %d bytes", key, ABLATE_PATH - 1);
    }
    for (size_t i = 0; status == STATUS_OK && i < recipe_key_count(key); i++) {
        recipe_key(key, i, own, sizeof own);
        snprintf(text, sizeof text, "%s=%s", own, value);
        status = check ? check_setting(reader, text, line) : STATUS_OK;
        if (status == STATUS_OK) {
            status = add_setting(set, text, line, reader->error);
        }
    }
    return status;
}

struct group {
    struct ablate_settings *set;
    const char *prefix;
    int depth;
    bool check;
};

static enum status take_setting(struct plan_reader *reader, const char *key, size_t line, int value,
                                void *context)
{
    const struct group *group = context;
    char full[PLAN_KEY_BYTES];
    int len =
        snprintf(full, sizeof full, "%s%s%s", group->prefix, group->prefix[0] ? "." : "", key);
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    if (len < 0 || (size_t)len >= sizeof full) {
        return plan_refuse(reader, line, "unknown key '%.60s'", key);
    }
    if (node->type == YAML_MAPPING_NODE) {
        struct group inner = {group->set, full, group->depth + 1, group->check};
        return inner.depth < MOST_DEPTH ? plan_members(reader, value, take_setting, &inner)
                                        : plan_refuse(reader, line, "unknown key '%s'", full);
    }
    const char *text = NULL;
    enum status status = plan_take_text(reader, value, full, &text, &line);
    return status == STATUS_OK ? put_setting(reader, group->set, full, text, line, group->check)
                               : status;
}

enum status plan_take_settings(struct plan_reader *reader, int value, struct ablate_settings *set,
                               bool check)
{
    struct group group = {set, "", 0, check};
    return plan_members(reader, value, take_setting, &group);
}

// --- rows ----------------------------------------------------------------------------------------

void plan_row_free(struct ablate_row *row)
{
    for (size_t i = 0; i < row->set.count; i++) {
        free(row->set.item[i].text);
    }
    free(row->set.item);
    row->set = (struct ablate_settings){0};
}

// Room for one more, empty.
static enum status add_row(struct plan_reader *reader, size_t line, struct ablate_row **out)
{
    struct ablate_plan *plan = reader->plan;
    if (plan->row_count == ABLATE_ROWS) {
        return plan_refuse(reader, line, "more than %u rows", ABLATE_ROWS);
    }
    struct ablate_row *grown = realloc(plan->rows, (plan->row_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return plan_no_memory(reader->error);
    }
    plan->rows = grown;
    *out = &grown[plan->row_count++];
    **out = (struct ablate_row){.line = line, .paper = NAN, .paper_sd = NAN};
    return STATUS_OK;
}

static const char *const row_keys[] = {"name", "set", "paper", "paper_sd", "waits_for"};
enum { ROW_NAME, ROW_SET, ROW_PAPER, ROW_PAPER_SD, ROW_WAITS_FOR, ROW_KEYS };

static bool row_waits(const struct plan_reader *reader, const yaml_node_t *mapping)
{
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key =
            yaml_document_get_node((yaml_document_t *)&reader->document, pair->key);
        if (key->type == YAML_SCALAR_NODE &&
            strcmp((const char *)key->data.scalar.value, row_keys[ROW_WAITS_FOR]) == 0) {
            return true;
        }
    }
    return false;
}

struct row_reading {
    struct ablate_row *row;
    bool check; // a row that waits may name what is not there yet
};

static enum status take_row_key(struct plan_reader *reader, const char *key, size_t line, int value,
                                void *context)
{
    const struct row_reading *reading = context;
    struct ablate_row *row = reading->row;
    switch (plan_key_index(key, row_keys, ROW_KEYS)) {
    case ROW_NAME:
        return plan_take_string(reader, value, key, row->name, sizeof row->name);
    case ROW_SET:
        return plan_take_settings(reader, value, &row->set, reading->check);
    case ROW_PAPER:
        return plan_take_number(reader, value, key, &row->paper);
    case ROW_PAPER_SD:
        return plan_take_number(reader, value, key, &row->paper_sd);
    case ROW_WAITS_FOR:
        return plan_take_string(reader, value, key, row->waits_for, sizeof row->waits_for);
    default:
        return plan_unknown_key(reader, key, line, row_keys, ROW_KEYS);
    }
}

static enum status take_row(struct plan_reader *reader, int value)
{
    yaml_node_t *node;
    struct row_reading reading;
    enum status status = plan_take_node(reader, value, &node);
    if (status == STATUS_OK) {
        status = add_row(reader, plan_line(node), &reading.row);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (node->type != YAML_MAPPING_NODE) {
        return plan_refuse(reader, plan_line(node), "a row is '- name: …' with 'set: {…}'");
    }
    reading.check = !row_waits(reader, node);
    status = plan_each_member(reader, node, take_row_key, &reading);
    return status == STATUS_OK && reading.row->name[0] == '\0'
               ? plan_refuse(reader, plan_line(node), "a row needs a name")
               : status;
}

enum status plan_take_rows(struct plan_reader *reader, int value)
{
    yaml_node_t *node;
    enum status status = plan_take_node(reader, value, &node);
    if (status == STATUS_OK && node->type != YAML_SEQUENCE_NODE) {
        status = plan_refuse(reader, plan_line(node), "rows: a list of '- name: …' is expected");
    }
    for (const int *item = status == STATUS_OK ? node->data.sequence.items.start : NULL;
         status == STATUS_OK && item < node->data.sequence.items.top; item++) {
        status = take_row(reader, *item);
    }
    return status;
}

// --- axes: every row with every value ------------------------------------------------------------

static enum status cross(struct plan_reader *reader, const struct ablate_row *row, const char *key,
                         int value)
{
    const char *text = NULL;
    size_t line = 0;
    struct ablate_row *made = NULL;
    enum status status = plan_take_text(reader, value, key, &text, &line);
    reader->seen[value] = false; // for the next row
    if (status == STATUS_OK) {
        status = add_row(reader, line, &made);
    }
    if (status != STATUS_OK || made == NULL) {
        return status;
    }
    int len = snprintf(made->name, sizeof made->name, "%s%s%s=%s", row->name,
                       row->name[0] ? ", " : "", key, text);
    if (len < 0 || (size_t)len >= sizeof made->name) {
        return plan_refuse(reader, line, "%s: the row's name gets too long", key);
    }
    memcpy(made->waits_for, row->waits_for, sizeof made->waits_for);
    for (size_t i = 0; status == STATUS_OK && i < row->set.count; i++) {
        status =
            add_setting(&made->set, row->set.item[i].text, row->set.item[i].line, reader->error);
    }
    return status == STATUS_OK
               ? put_setting(reader, &made->set, key, text, line, row->waits_for[0] == '\0')
               : status;
}

static enum status take_axis(struct plan_reader *reader, const char *key, size_t line, int value,
                             void *context)
{
    (void)context;
    struct ablate_plan *plan = reader->plan;
    struct ablate_row *old = plan->rows;
    size_t old_count = plan->row_count;
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    if (node->type != YAML_SEQUENCE_NODE ||
        node->data.sequence.items.start == node->data.sequence.items.top) {
        return plan_refuse(reader, line, "%s: an axis is a list of values, [1, 2]", key);
    }
    plan->rows = NULL;
    plan->row_count = 0;
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < old_count; i++) {
        for (const int *item = node->data.sequence.items.start;
             status == STATUS_OK && item < node->data.sequence.items.top; item++) {
            status = cross(reader, &old[i], key, *item);
        }
    }
    for (size_t i = 0; i < old_count; i++) {
        plan_row_free(&old[i]);
    }
    free(old);
    return status;
}

enum status plan_take_axes(struct plan_reader *reader, int value)
{
    struct ablate_row *only;
    enum status status = STATUS_OK;
    if (reader->plan->row_count == 0) {
        status = add_row(reader, 0, &only);
    }
    return status == STATUS_OK ? plan_members(reader, value, take_axis, NULL) : status;
}
