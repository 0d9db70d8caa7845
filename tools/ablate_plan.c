// Reading of an ablation's file: libyaml's nodes, each with its line, into a checked plan.
#include "tools/ablate.h"

#include "formats/file.h"
#include "formats/limits.h"
#include "formats/nearest.h"
#include "tools/recipe_option.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#define MOST_SETTINGS 256u // of one row
#define KEY_BYTES     256u
#define MOST_DEPTH    8 // of nested mappings in `set`

struct reader {
    yaml_document_t document;
    bool *seen; // by node: an alias would come to it a second time
    struct ablate_plan *plan;
    struct error *error;
};

static enum status refuse(const struct reader *reader, size_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum status refuse(const struct reader *reader, size_t line, const char *format, ...)
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
static enum status refuse_because(const struct reader *reader, size_t line, const char *row)
{
    struct error cause = *reader->error;
    char text[sizeof cause.reason + sizeof cause.path];
    error_text(&cause, text, sizeof text);
    return row ? refuse(reader, line, "row '%s': %s", row, text) : refuse(reader, line, "%s", text);
}

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "no memory for the ablation's rows");
}

// --- nodes ---------------------------------------------------------------------------------------

static size_t line_of(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

static enum status take_node(struct reader *reader, int index, yaml_node_t **node)
{
    *node = yaml_document_get_node(&reader->document, index);
    if (reader->seen[index]) {
        return refuse(reader, line_of(*node), "aliases are not read");
    }
    reader->seen[index] = true;
    return STATUS_OK;
}

static enum status take_text(struct reader *reader, int index, const char *what, const char **text,
                             size_t *line)
{
    yaml_node_t *node;
    enum status status = take_node(reader, index, &node);
    if (status != STATUS_OK) {
        return status;
    }
    *line = line_of(node);
    if (node->type != YAML_SCALAR_NODE) {
        return refuse(reader, *line, "%s: a %s, where one value is expected", what,
                      node->type == YAML_MAPPING_NODE ? "mapping" : "list");
    }
    *text = (const char *)node->data.scalar.value;
    if (node->data.scalar.length == 0 || strlen(*text) != node->data.scalar.length) {
        return refuse(reader, *line, "%s: no value", what);
    }
    return STATUS_OK;
}

static enum status take_string(struct reader *reader, int index, const char *what, char *out,
                               size_t capacity)
{
    const char *text = NULL;
    size_t line = 0;
    enum status status = take_text(reader, index, what, &text, &line);
    if (status == STATUS_OK && strlen(text) >= capacity) {
        return refuse(reader, line, "%s: longer than %zu bytes", what, capacity - 1);
    }
    if (status == STATUS_OK) {
        memcpy(out, text, strlen(text) + 1);
    }
    return status;
}

static enum status take_number(struct reader *reader, int index, const char *what, double *out)
{
    const char *text = NULL;
    size_t line = 0;
    enum status status = take_text(reader, index, what, &text, &line);
    if (status != STATUS_OK) {
        return status;
    }
    char *end;
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out)
               ? STATUS_OK
               : refuse(reader, line, "%s: '%.60s' is not a number", what, text);
}

// A path in the file is relative to the file.
static enum status take_path(struct reader *reader, int index, const char *what, char *out)
{
    char text[ABLATE_PATH];
    enum status status = take_string(reader, index, what, text, sizeof text);
    if (status != STATUS_OK) {
        return status;
    }
    const char *file = reader->plan->path, *slash = strrchr(file, '/');
    int folder = slash && text[0] != '/' ? (int)(slash - file) + 1 : 0;
    int len = snprintf(out, ABLATE_PATH, "%.*s%s", folder, file, text);
    return len < ABLATE_PATH
               ? STATUS_OK
               : refuse(reader, line_of(yaml_document_get_node(&reader->document, index)),
                        "%s: too long", what);
}

// --- mappings ------------------------------------------------------------------------------------

typedef enum status (*take_member)(struct reader *reader, const char *key, size_t line, int value,
                                   void *context);

static enum status each_member(struct reader *reader, const yaml_node_t *mapping, take_member take,
                               void *context)
{
    enum status status = STATUS_OK;
    if (mapping->type != YAML_MAPPING_NODE) {
        return refuse(reader, line_of(mapping), "'key: value' lines are expected");
    }
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         status == STATUS_OK && pair < mapping->data.mapping.pairs.top; pair++) {
        const char *key = NULL;
        size_t line = 0;
        status = take_text(reader, pair->key, "a key", &key, &line);
        for (const yaml_node_pair_t *other = mapping->data.mapping.pairs.start;
             status == STATUS_OK && other < pair; other++) {
            const yaml_node_t *node = yaml_document_get_node(&reader->document, other->key);
            if (strcmp((const char *)node->data.scalar.value, key) == 0) {
                status = refuse(reader, line, "%s stands here twice", key);
            }
        }
        if (status == STATUS_OK) {
            status = take(reader, key, line, pair->value, context);
        }
    }
    return status;
}

static enum status members_of(struct reader *reader, int index, take_member take, void *context)
{
    yaml_node_t *node;
    enum status status = take_node(reader, index, &node);
    return status == STATUS_OK ? each_member(reader, node, take, context) : status;
}

static enum status unknown_key(const struct reader *reader, const char *key, size_t line,
                               const char *const *known, size_t count)
{
    const char *nearest = nearest_name(key, known, count);
    return nearest ? refuse(reader, line, "unknown key '%.100s'; did you mean '%s'?", key, nearest)
                   : refuse(reader, line, "unknown key '%.100s'", key);
}

// Where `key` stands among the known ones; `count` when it does not.
static size_t key_index(const char *key, const char *const *known, size_t count)
{
    size_t at = 0;
    while (at < count && strcmp(key, known[at]) != 0) {
        at++;
    }
    return at;
}

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
        return no_memory(error);
    }
    set->item = grown;
    grown[set->count] = (struct ablate_setting){strdup(text), line};
    if (grown[set->count].text == NULL) {
        return no_memory(error);
    }
    set->count++;
    return STATUS_OK;
}

// Checks key and value against the table of settings; nothing is kept but the text.
static enum status check_setting(struct reader *reader, const char *text, size_t line)
{
    struct run_config scratch;
    struct settings_section sections[2];
    run_config_init(&scratch);
    size_t count = run_config_sections(&scratch, sections);
    enum status status = settings_set(text, sections, count, reader->error);
    return status == STATUS_OK ? status : refuse_because(reader, line, NULL);
}

static enum status put_setting(struct reader *reader, struct ablate_settings *set, const char *key,
                               const char *value, size_t line, bool check)
{
    char text[2 * KEY_BYTES + ABLATE_PATH], own[KEY_BYTES + 16];
    enum status status = STATUS_OK;
    if (strlen(value) >= ABLATE_PATH || strlen(key) >= KEY_BYTES) {
        return refuse(reader, line, "%.60s: longer than %d bytes", key, ABLATE_PATH - 1);
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

static enum status take_setting(struct reader *reader, const char *key, size_t line, int value,
                                void *context)
{
    const struct group *group = context;
    char full[KEY_BYTES];
    int len =
        snprintf(full, sizeof full, "%s%s%s", group->prefix, group->prefix[0] ? "." : "", key);
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    if (len < 0 || (size_t)len >= sizeof full) {
        return refuse(reader, line, "unknown key '%.60s'", key);
    }
    if (node->type == YAML_MAPPING_NODE) {
        struct group inner = {group->set, full, group->depth + 1, group->check};
        return inner.depth < MOST_DEPTH ? members_of(reader, value, take_setting, &inner)
                                        : refuse(reader, line, "unknown key '%s'", full);
    }
    const char *text = NULL;
    enum status status = take_text(reader, value, full, &text, &line);
    return status == STATUS_OK ? put_setting(reader, group->set, full, text, line, group->check)
                               : status;
}

static enum status take_settings(struct reader *reader, int value, struct ablate_settings *set,
                                 bool check)
{
    struct group group = {set, "", 0, check};
    return members_of(reader, value, take_setting, &group);
}

// --- base, seeds ---------------------------------------------------------------------------------

static enum status take_recipe(struct reader *reader, int value)
{
    char *recipe = reader->plan->recipe;
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    bool builtin = false;
    for (size_t i = 0; node->type == YAML_SCALAR_NODE && recipe_builtin_names[i]; i++) {
        builtin |= strcmp((const char *)node->data.scalar.value, recipe_builtin_names[i]) == 0;
    }
    return builtin ? take_string(reader, value, "recipe", recipe, ABLATE_PATH)
                   : take_path(reader, value, "recipe", recipe);
}

static enum status take_base(struct reader *reader, const char *key, size_t line, int value,
                             void *context)
{
    static const char *const known[] = {"recipe", "set"};
    (void)context;
    switch (key_index(key, known, 2)) {
    case 0:
        return take_recipe(reader, value);
    case 1:
        return take_settings(reader, value, &reader->plan->set, true);
    default:
        return unknown_key(reader, key, line, known, 2);
    }
}

static enum status add_seed(struct reader *reader, double number, size_t line)
{
    struct ablate_plan *plan = reader->plan;
    if (number < 0 || number > 9007199254740992.0 || number != floor(number)) {
        return refuse(reader, line, "seeds: whole numbers from 0 are expected");
    }
    for (size_t i = 0; i < plan->seed_count; i++) {
        if (plan->seeds[i] == (int64_t)number) {
            return refuse(reader, line, "seeds: %.0f stands here twice", number);
        }
    }
    if (plan->seed_count == ABLATE_SEEDS) {
        return refuse(reader, line, "more than %u seeds", ABLATE_SEEDS);
    }
    plan->seeds[plan->seed_count++] = (int64_t)number;
    return STATUS_OK;
}

// A number of them, from 0 on, or a list.
static enum status take_seeds(struct reader *reader, int value, size_t line)
{
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    enum status status = STATUS_OK;
    double number;
    if (node->type == YAML_SCALAR_NODE) {
        status = take_number(reader, value, "seeds", &number);
        if (status == STATUS_OK && !(number >= 1 && number <= ABLATE_SEEDS)) {
            return refuse(reader, line, "seeds: 1 to %u, or a list", ABLATE_SEEDS);
        }
        for (int i = 0; status == STATUS_OK && i < (int)number; i++) {
            status = add_seed(reader, i, line);
        }
        return status;
    }
    for (const int *item = node->type == YAML_SEQUENCE_NODE ? node->data.sequence.items.start
                                                            : NULL;
         status == STATUS_OK && item && item < node->data.sequence.items.top; item++) {
        status = take_number(reader, *item, "seeds", &number);
        if (status == STATUS_OK) {
            status = add_seed(reader, number, line);
        }
    }
    return status == STATUS_OK && reader->plan->seed_count == 0
               ? refuse(reader, line, "seeds: 1 to %u, or a list", ABLATE_SEEDS)
               : status;
}

// --- measures ------------------------------------------------------------------------------------

#define MEASURE(key_, member, kind, low, high, text)                                               \
    {                                                                                              \
        .key = (key_), .type = (kind), .offset = offsetof(struct ablate_measure, member),          \
        .min = (low), .max = (high), .capacity = sizeof(((struct ablate_measure *)0)->member),     \
        .choices = ABLATE_PROBE_CHOICES, .help = (text)                                            \
    }

static const struct settings_field measure_fields[] = {
    MEASURE("probe", probe, SETTINGS_CHOICE, 0, 0, "of byol eval"),
    MEASURE("name", name, SETTINGS_STRING, 0, 0, "of the column"),
    MEASURE("train", train, SETTINGS_STRING, 0, 0, "dataset"),
    MEASURE("test", test, SETTINGS_STRING, 0, 0, "dataset"),
    MEASURE("convention", convention, SETTINGS_STRING, 0, 0, "knn: see byol eval"),
    MEASURE("k", k, SETTINGS_INT, 1, 1e6, "knn: neighbours that vote"),
    MEASURE("temperature", temperature, SETTINGS_FLOAT, 1e-4, 1e4, "knn: of the votes"),
    MEASURE("epochs", epochs, SETTINGS_INT, 1, 1e6, "linear: passes"),
    MEASURE("batch", batch, SETTINGS_INT, 1, 65536, "linear: images per step"),
    MEASURE("learning_rate", learning_rate, SETTINGS_FLOAT, 0, 1000, "linear: at batch 256"),
    MEASURE("cached", cached, SETTINGS_BOOL, 0, 0, "linear: features computed once"),
};

static enum status take_measure_key(struct reader *reader, const char *key, size_t line, int value,
                                    void *context)
{
    struct ablate_measure *measure = context;
    struct settings_section section = {"", measure_fields,
                                       sizeof measure_fields / sizeof measure_fields[0], measure};
    char text[KEY_BYTES + ABLATE_PATH];
    if (strcmp(key, "train") == 0 || strcmp(key, "test") == 0) {
        return take_path(reader, value, key,
                         strcmp(key, "test") == 0 ? measure->test : measure->train);
    }
    const char *given = NULL;
    enum status status = take_text(reader, value, key, &given, &line);
    if (status != STATUS_OK) {
        return status;
    }
    snprintf(text, sizeof text, "%.200s=%.300s", key, given);
    status = settings_set(text, &section, 1, reader->error);
    return status == STATUS_OK ? status : refuse_because(reader, line, NULL);
}

static bool plain_name(const char *name)
{
    return *name && name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                      "0123456789-_")] == '\0';
}

static enum status check_measure(struct reader *reader, struct ablate_measure *measure, size_t line)
{
    struct ablate_plan *plan = reader->plan;
    bool linear = measure->probe == ABLATE_LINEAR;
    if (measure->name[0] == '\0') {
        snprintf(measure->name, sizeof measure->name, "%s", linear ? "linear" : "knn");
    }
    if (!plain_name(measure->name)) {
        return refuse(reader, line, "measure '%s': its name may have letters, digits, - and _",
                      measure->name);
    }
    for (size_t i = 0; i < plan->measure_count; i++) {
        if (strcmp(plan->measures[i].name, measure->name) == 0) {
            return refuse(reader, line, "two measures '%s': give each a name", measure->name);
        }
    }
    if (linear ? measure->k > 0 || measure->temperature > 0 || measure->convention[0]
               : measure->epochs > 0 || measure->batch > 0 || measure->learning_rate > 0 ||
                     measure->cached) {
        return refuse(reader, line, "measure '%s' has a key of the other probe", measure->name);
    }
    return STATUS_OK;
}

// "knn", or a mapping.
static enum status take_measure(struct reader *reader, int value)
{
    struct ablate_plan *plan = reader->plan;
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    size_t line = line_of(node);
    struct ablate_measure *measure = &plan->measures[plan->measure_count];
    if (plan->measure_count == ABLATE_MEASURES) {
        return refuse(reader, line, "more than %u measures", ABLATE_MEASURES);
    }
    *measure = (struct ablate_measure){0};
    enum status status = node->type == YAML_SCALAR_NODE
                             ? take_measure_key(reader, "probe", line, value, measure)
                             : members_of(reader, value, take_measure_key, measure);
    if (status == STATUS_OK) {
        status = check_measure(reader, measure, line);
    }
    plan->measure_count += status == STATUS_OK;
    return status;
}

static enum status take_measures(struct reader *reader, int value)
{
    yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    if (node->type != YAML_SEQUENCE_NODE) {
        return take_measure(reader, value);
    }
    enum status status = STATUS_OK;
    for (const int *item = node->data.sequence.items.start;
         status == STATUS_OK && item < node->data.sequence.items.top; item++) {
        status = take_measure(reader, *item);
    }
    return status;
}

// --- rows ----------------------------------------------------------------------------------------

static void row_free(struct ablate_row *row)
{
    for (size_t i = 0; i < row->set.count; i++) {
        free(row->set.item[i].text);
    }
    free(row->set.item);
    row->set = (struct ablate_settings){0};
}

// Room for one more, empty.
static enum status add_row(struct reader *reader, size_t line, struct ablate_row **out)
{
    struct ablate_plan *plan = reader->plan;
    if (plan->row_count == ABLATE_ROWS) {
        return refuse(reader, line, "more than %u rows", ABLATE_ROWS);
    }
    struct ablate_row *grown = realloc(plan->rows, (plan->row_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return no_memory(reader->error);
    }
    plan->rows = grown;
    *out = &grown[plan->row_count++];
    **out = (struct ablate_row){.line = line, .paper = NAN, .paper_sd = NAN};
    return STATUS_OK;
}

static const char *const row_keys[] = {"name", "set", "paper", "paper_sd", "waits_for"};
enum { ROW_NAME, ROW_SET, ROW_PAPER, ROW_PAPER_SD, ROW_WAITS_FOR, ROW_KEYS };

static bool row_waits(const struct reader *reader, const yaml_node_t *mapping)
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

static enum status take_row_key(struct reader *reader, const char *key, size_t line, int value,
                                void *context)
{
    const struct row_reading *reading = context;
    struct ablate_row *row = reading->row;
    switch (key_index(key, row_keys, ROW_KEYS)) {
    case ROW_NAME:
        return take_string(reader, value, key, row->name, sizeof row->name);
    case ROW_SET:
        return take_settings(reader, value, &row->set, reading->check);
    case ROW_PAPER:
        return take_number(reader, value, key, &row->paper);
    case ROW_PAPER_SD:
        return take_number(reader, value, key, &row->paper_sd);
    case ROW_WAITS_FOR:
        return take_string(reader, value, key, row->waits_for, sizeof row->waits_for);
    default:
        return unknown_key(reader, key, line, row_keys, ROW_KEYS);
    }
}

static enum status take_row(struct reader *reader, int value)
{
    yaml_node_t *node;
    struct row_reading reading;
    enum status status = take_node(reader, value, &node);
    if (status == STATUS_OK) {
        status = add_row(reader, line_of(node), &reading.row);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (node->type != YAML_MAPPING_NODE) {
        return refuse(reader, line_of(node), "a row is '- name: …' with 'set: {…}'");
    }
    reading.check = !row_waits(reader, node);
    status = each_member(reader, node, take_row_key, &reading);
    return status == STATUS_OK && reading.row->name[0] == '\0'
               ? refuse(reader, line_of(node), "a row needs a name")
               : status;
}

static enum status take_rows(struct reader *reader, int value)
{
    yaml_node_t *node;
    enum status status = take_node(reader, value, &node);
    if (status == STATUS_OK && node->type != YAML_SEQUENCE_NODE) {
        status = refuse(reader, line_of(node), "rows: a list of '- name: …' is expected");
    }
    for (const int *item = status == STATUS_OK ? node->data.sequence.items.start : NULL;
         status == STATUS_OK && item < node->data.sequence.items.top; item++) {
        status = take_row(reader, *item);
    }
    return status;
}

// --- axes: every row with every value ------------------------------------------------------------

static enum status cross(struct reader *reader, const struct ablate_row *row, const char *key,
                         int value)
{
    const char *text = NULL;
    size_t line = 0;
    struct ablate_row *made;
    enum status status = take_text(reader, value, key, &text, &line);
    reader->seen[value] = false; // for the next row
    if (status == STATUS_OK) {
        status = add_row(reader, line, &made);
    }
    if (status != STATUS_OK) {
        return status;
    }
    int len = snprintf(made->name, sizeof made->name, "%s%s%s=%s", row->name,
                       row->name[0] ? ", " : "", key, text);
    if (len < 0 || (size_t)len >= sizeof made->name) {
        return refuse(reader, line, "%s: the row's name gets too long", key);
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

static enum status take_axis(struct reader *reader, const char *key, size_t line, int value,
                             void *context)
{
    (void)context;
    struct ablate_plan *plan = reader->plan;
    struct ablate_row *old = plan->rows;
    size_t old_count = plan->row_count;
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    if (node->type != YAML_SEQUENCE_NODE ||
        node->data.sequence.items.start == node->data.sequence.items.top) {
        return refuse(reader, line, "%s: an axis is a list of values, [1, 2]", key);
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
        row_free(&old[i]);
    }
    free(old);
    return status;
}

static enum status take_axes(struct reader *reader, int value)
{
    struct ablate_row *only;
    enum status status = STATUS_OK;
    if (reader->plan->row_count == 0) {
        status = add_row(reader, 0, &only);
    }
    return status == STATUS_OK ? members_of(reader, value, take_axis, NULL) : status;
}

// --- the whole -----------------------------------------------------------------------------------

static const char *const top_keys[] = {"title", "paper", "data", "train",   "test",
                                       "base",  "seeds", "rows", "measure", "axes"};
enum { TITLE, PAPER, DATA, TRAIN, TEST, BASE, SEEDS, ROWS, MEASURES, AXES, TOP_KEYS };

static enum status take_top(struct reader *reader, const char *key, size_t line, int value,
                            void *context)
{
    struct ablate_plan *plan = reader->plan;
    switch (key_index(key, top_keys, TOP_KEYS)) {
    case TITLE:
        return take_string(reader, value, key, plan->title, sizeof plan->title);
    case PAPER:
        return take_string(reader, value, key, plan->paper_is, sizeof plan->paper_is);
    case DATA:
        return take_path(reader, value, key, plan->data);
    case TRAIN:
        return take_path(reader, value, key, plan->train);
    case TEST:
        return take_path(reader, value, key, plan->test);
    case BASE:
        return members_of(reader, value, take_base, NULL);
    case SEEDS:
        return take_seeds(reader, value, line);
    case ROWS:
        return take_rows(reader, value);
    case MEASURES:
        return take_measures(reader, value);
    case AXES:
        *(int *)context = value; // after the rows, wherever it stands
        return STATUS_OK;
    default:
        return unknown_key(reader, key, line, top_keys, TOP_KEYS);
    }
}

static enum status read_document(struct reader *reader)
{
    yaml_node_t *root = yaml_document_get_root_node(&reader->document);
    int axes = 0;
    if (root == NULL) {
        return refuse(reader, 1, "the file is empty");
    }
    enum status status = each_member(reader, root, take_top, &axes);
    if (status == STATUS_OK && axes) {
        status = take_axes(reader, axes);
    }
    if (status == STATUS_OK && reader->plan->row_count == 0) {
        status = refuse(reader, 1, "neither rows nor axes: what is to be compared?");
    }
    if (status == STATUS_OK && reader->plan->seed_count == 0) {
        status = add_seed(reader, 0, 1);
    }
    if (status == STATUS_OK && reader->plan->measure_count == 0) {
        reader->plan->measures[reader->plan->measure_count++] =
            (struct ablate_measure){.name = "knn"};
    }
    return status;
}

static enum status read_text(struct ablate_plan *plan, const uint8_t *text, size_t len,
                             struct reader *reader)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        return no_memory(reader->error);
    }
    yaml_parser_set_input_string(&parser, text, len);
    enum status status = STATUS_OK;
    if (!yaml_parser_load(&parser, &reader->document)) {
        status = refuse(reader, parser.problem_mark.line + 1, "not YAML: %s",
                        parser.problem ? parser.problem : "unreadable");
    } else {
        size_t nodes = (size_t)(reader->document.nodes.top - reader->document.nodes.start);
        reader->seen = calloc(nodes + 1, sizeof *reader->seen);
        reader->plan = plan;
        status = reader->seen ? read_document(reader) : no_memory(reader->error);
        free(reader->seen);
        yaml_document_delete(&reader->document);
    }
    yaml_parser_delete(&parser);
    return status;
}

// --- resolving -----------------------------------------------------------------------------------

// A folder's name: lower case, and one dash for each run of anything else.
static void make_slug(const char *name, char *slug)
{
    size_t len = 0;
    for (; *name; name++) {
        char c = *name >= 'A' && *name <= 'Z' ? (char)(*name + 32) : *name;
        bool plain =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '=';
        if (plain && !(c == '.' && len == 0)) {
            slug[len++] = c;
        } else if (len > 0 && slug[len - 1] != '-') {
            slug[len++] = '-';
        }
    }
    while (len > 0 && slug[len - 1] == '-') {
        len--;
    }
    slug[len] = '\0';
}

static enum status name_row(const struct reader *reader, size_t which)
{
    struct ablate_plan *plan = reader->plan;
    struct ablate_row *row = &plan->rows[which];
    make_slug(row->name, row->slug);
    if (row->slug[0] == '\0') {
        return refuse(reader, row->line, "row '%s': its name makes no folder name", row->name);
    }
    for (size_t i = 0; i < which; i++) {
        if (strcmp(plan->rows[i].slug, row->slug) == 0) {
            return refuse(reader, row->line, "rows '%s' and '%s' would share the folder %s",
                          plan->rows[i].name, row->name, row->slug);
        }
    }
    return STATUS_OK;
}

static enum status resolve_row(const struct reader *reader, struct ablate_row *row,
                               const struct ablate_overrides *overrides)
{
    const struct ablate_plan *plan = reader->plan;
    size_t count = plan->set.count + overrides->set_count + row->set.count, at = 0;
    const char **assignments = calloc(count + 3, sizeof *assignments);
    char base[ABLATE_PATH + 16], seed[64];
    if (assignments == NULL) {
        return no_memory(reader->error);
    }
    bool is_file = plan->recipe[0] && recipe_option_is_file(plan->recipe);
    if (plan->recipe[0] && !is_file) {
        snprintf(base, sizeof base, "views.base=%s", plan->recipe);
        assignments[at++] = base;
    }
    for (size_t i = 0; i < plan->set.count; i++) {
        assignments[at++] = plan->set.item[i].text;
    }
    for (size_t i = 0; i < overrides->set_count; i++) {
        assignments[at++] = overrides->set[i];
    }
    for (size_t i = 0; i < row->set.count; i++) {
        assignments[at++] = row->set.item[i].text;
    }
    snprintf(seed, sizeof seed, "seed=%lld", (long long)plan->seeds[0]);
    assignments[at++] = seed;
    enum status status = run_config_resolve(&row->config, is_file ? plan->recipe : NULL,
                                            assignments, at, reader->error);
    free(assignments);
    return status == STATUS_OK ? status : refuse_because(reader, row->line, row->name);
}

static enum status resolve(const struct reader *reader, const struct ablate_overrides *overrides)
{
    struct ablate_plan *plan = reader->plan;
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < plan->row_count; i++) {
        status = name_row(reader, i);
        if (status == STATUS_OK && plan->rows[i].waits_for[0] == '\0') {
            status = resolve_row(reader, &plan->rows[i], overrides);
        }
    }
    return status;
}

static enum status override_path(char *path, const char *given, struct error *error)
{
    if (given == NULL) {
        return STATUS_OK;
    }
    int len = snprintf(path, ABLATE_PATH, "%s", given);
    return len < ABLATE_PATH
               ? STATUS_OK
               : error_set(error, STATUS_LIMIT, given, NOWHERE, NOWHERE, "the path is too long");
}

static enum status complete_paths(struct ablate_plan *plan, const struct ablate_overrides *given,
                                  struct error *error)
{
    enum status status = override_path(plan->data, given->data, error);
    if (status == STATUS_OK) {
        status = override_path(plan->train, given->train, error);
    }
    if (status == STATUS_OK) {
        status = override_path(plan->test, given->test, error);
    }
    if (plan->train[0] == '\0') {
        memcpy(plan->train, plan->data, sizeof plan->train);
    }
    for (size_t i = 0; i < plan->measure_count; i++) {
        struct ablate_measure *measure = &plan->measures[i];
        if (measure->train[0] == '\0') {
            memcpy(measure->train, plan->train, sizeof measure->train);
        }
        if (measure->test[0] == '\0') {
            memcpy(measure->test, plan->test, sizeof measure->test);
        }
    }
    return status;
}

enum status ablate_plan_read(struct ablate_plan *plan, const char *path,
                             const struct ablate_overrides *overrides, struct error *error)
{
    struct reader reader = {.plan = plan, .error = error};
    uint8_t *text = NULL;
    size_t len = 0;
    *plan = (struct ablate_plan){0};
    enum status status = override_path(plan->path, path, error);
    if (status == STATUS_OK) {
        status = file_read_all(path, LIMIT_SETTINGS_BYTES, &text, &len, error);
    }
    if (status == STATUS_OK) {
        status = read_text(plan, text, len, &reader);
    }
    free(text);
    if (status == STATUS_OK) {
        status = resolve(&reader, overrides);
    }
    return status == STATUS_OK ? complete_paths(plan, overrides, error) : status;
}

void ablate_plan_free(struct ablate_plan *plan)
{
    for (size_t i = 0; i < plan->row_count; i++) {
        row_free(&plan->rows[i]);
    }
    free(plan->rows);
    for (size_t i = 0; i < plan->set.count; i++) {
        free(plan->set.item[i].text);
    }
    free(plan->set.item);
    *plan = (struct ablate_plan){0};
}

enum status ablate_run_path(const char *output, const struct ablate_row *row, int64_t seed,
                            char *path, struct error *error)
{
    char name[ABLATE_NAME + 32];
    snprintf(name, sizeof name, "%s/seed-%lld", row->slug, (long long)seed);
    return run_directory_path(output, name, path, error);
}
