// An ablation's file as a whole: what is not a row or a measure, and resolving every row's
// settings.
#include "tools/ablate_yaml.h"

#include "formats/file.h"
#include "formats/limits.h"
#include "tools/recipe_option.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- base, seeds ---------------------------------------------------------------------------------

static enum status take_recipe(struct plan_reader *reader, int value)
{
    char *recipe = reader->plan->recipe;
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    bool builtin = false;
    for (size_t i = 0; node->type == YAML_SCALAR_NODE && recipe_builtin_names[i]; i++) {
        builtin |= strcmp((const char *)node->data.scalar.value, recipe_builtin_names[i]) == 0;
    }
    return builtin ? plan_take_string(reader, value, "recipe", recipe, ABLATE_PATH)
                   : plan_take_path(reader, value, "recipe", recipe);
}

static enum status take_base(struct plan_reader *reader, const char *key, size_t line, int value,
                             void *context)
{
    static const char *const known[] = {"recipe", "set"};
    (void)context;
    switch (plan_key_index(key, known, 2)) {
    case 0:
        return take_recipe(reader, value);
    case 1:
        return plan_take_settings(reader, value, &reader->plan->set, true);
    default:
        return plan_unknown_key(reader, key, line, known, 2);
    }
}

static enum status add_seed(struct plan_reader *reader, double number, size_t line)
{
    struct ablate_plan *plan = reader->plan;
    if (number < 0 || number > 9007199254740992.0 || number != floor(number)) {
        return plan_refuse(reader, line, "seeds: whole numbers from 0 are expected");
    }
    for (size_t i = 0; i < plan->seed_count; i++) {
        if (plan->seeds[i] == (int64_t)number) {
            return plan_refuse(reader, line, "seeds: %.0f stands here twice", number);
        }
    }
    if (plan->seed_count == ABLATE_SEEDS) {
        return plan_refuse(reader, line, "more than %u seeds", ABLATE_SEEDS);
    }
    plan->seeds[plan->seed_count++] = (int64_t)number;
    return STATUS_OK;
}

// A number of them, from 0 on, or a list.
static enum status take_seeds(struct plan_reader *reader, int value, size_t line)
{
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    enum status status = STATUS_OK;
    double number;
    if (node->type == YAML_SCALAR_NODE) {
        status = plan_take_number(reader, value, "seeds", &number);
        if (status == STATUS_OK &&
            !(number >= 1 && number <= ABLATE_SEEDS && number == floor(number))) {
            return plan_refuse(reader, line, "seeds: 1 to %u, or a list", ABLATE_SEEDS);
        }
        for (int i = 0; status == STATUS_OK && i < (int)number; i++) {
            status = add_seed(reader, i, line);
        }
        return status;
    }
    for (const int *item = node->type == YAML_SEQUENCE_NODE ? node->data.sequence.items.start
                                                            : NULL;
         status == STATUS_OK && item && item < node->data.sequence.items.top; item++) {
        status = plan_take_number(reader, *item, "seeds", &number);
        if (status == STATUS_OK) {
            status = add_seed(reader, number, line);
        }
    }
    return status == STATUS_OK && reader->plan->seed_count == 0
               ? plan_refuse(reader, line, "seeds: 1 to %u, or a list", ABLATE_SEEDS)
               : status;
}

// --- the whole -----------------------------------------------------------------------------------

static const char *const top_keys[] = {"title", "paper", "data", "train",   "test",
                                       "base",  "seeds", "rows", "measure", "axes"};
enum { TITLE, PAPER, DATA, TRAIN, TEST, BASE, SEEDS, ROWS, MEASURES, AXES, TOP_KEYS };

static enum status take_top(struct plan_reader *reader, const char *key, size_t line, int value,
                            void *context)
{
    struct ablate_plan *plan = reader->plan;
    switch (plan_key_index(key, top_keys, TOP_KEYS)) {
    case TITLE:
        return plan_take_string(reader, value, key, plan->title, sizeof plan->title);
    case PAPER:
        return plan_take_string(reader, value, key, plan->paper_is, sizeof plan->paper_is);
    case DATA:
        return plan_take_path(reader, value, key, plan->data);
    case TRAIN:
        return plan_take_path(reader, value, key, plan->train);
    case TEST:
        return plan_take_path(reader, value, key, plan->test);
    case BASE:
        return plan_members(reader, value, take_base, NULL);
    case SEEDS:
        return take_seeds(reader, value, line);
    case ROWS:
        return plan_take_rows(reader, value);
    case MEASURES:
        return plan_take_measures(reader, value);
    case AXES:
        *(int *)context = value; // after the rows, wherever it stands
        return STATUS_OK;
    default:
        return plan_unknown_key(reader, key, line, top_keys, TOP_KEYS);
    }
}

static enum status read_document(struct plan_reader *reader)
{
    yaml_node_t *root = yaml_document_get_root_node(&reader->document);
    int axes = 0;
    if (root == NULL) {
        return plan_refuse(reader, 1, "the file is empty");
    }
    enum status status = plan_each_member(reader, root, take_top, &axes);
    if (status == STATUS_OK && axes) {
        status = plan_take_axes(reader, axes);
    }
    if (status == STATUS_OK && reader->plan->row_count == 0) {
        status = plan_refuse(reader, 1, "neither rows nor axes: what is to be compared?");
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
                             struct plan_reader *reader)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        return plan_no_memory(reader->error);
    }
    yaml_parser_set_input_string(&parser, text, len);
    enum status status = STATUS_OK;
    if (!yaml_parser_load(&parser, &reader->document)) {
        status = plan_refuse(reader, parser.problem_mark.line + 1, "not YAML: %s",
                             parser.problem ? parser.problem : "unreadable");
    } else {
        size_t nodes = (size_t)(reader->document.nodes.top - reader->document.nodes.start);
        reader->seen = calloc(nodes + 1, sizeof *reader->seen);
        reader->plan = plan;
        status = reader->seen ? read_document(reader) : plan_no_memory(reader->error);
        free(reader->seen);
        yaml_document_delete(&reader->document);
    }
    yaml_parser_delete(&parser);
    return status;
}

// --- resolving -----------------------------------------------------------------------------------

// What lies beside the rows' folders.
static const char *const kept_names[] = {"table.txt", "table.csv",    "table.json",
                                         "table.png", "commands.txt", "slurm.sh"};

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

static enum status name_row(const struct plan_reader *reader, size_t which)
{
    struct ablate_plan *plan = reader->plan;
    struct ablate_row *row = &plan->rows[which];
    make_slug(row->name, row->slug);
    if (row->slug[0] == '\0') {
        return plan_refuse(reader, row->line, "row '%s': its name makes no folder name", row->name);
    }
    for (size_t i = 0; i < sizeof kept_names / sizeof kept_names[0]; i++) {
        if (strcmp(kept_names[i], row->slug) == 0) {
            return plan_refuse(reader, row->line, "row '%s': %s is the name of a file beside it",
                               row->name, row->slug);
        }
    }
    for (size_t i = 0; i < which; i++) {
        if (strcmp(plan->rows[i].slug, row->slug) == 0) {
            return plan_refuse(reader, row->line, "rows '%s' and '%s' would share the folder %s",
                               plan->rows[i].name, row->name, row->slug);
        }
    }
    return STATUS_OK;
}

static enum status resolve_row(const struct plan_reader *reader, struct ablate_row *row,
                               const struct ablate_overrides *overrides)
{
    const struct ablate_plan *plan = reader->plan;
    size_t count = plan->set.count + overrides->set_count + row->set.count, at = 0;
    const char **assignments = calloc(count + 3, sizeof *assignments);
    char base[ABLATE_PATH + 16], seed[64];
    if (assignments == NULL) {
        return plan_no_memory(reader->error);
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
    return status == STATUS_OK ? status : plan_refuse_because(reader, row->line, row->name);
}

static enum status resolve(const struct plan_reader *reader,
                           const struct ablate_overrides *overrides)
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
    struct plan_reader reader = {.plan = plan, .error = error};
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
        plan_row_free(&plan->rows[i]);
    }
    free(plan->rows);
    for (size_t i = 0; i < plan->set.count; i++) {
        free(plan->set.item[i].text);
    }
    free(plan->set.item);
    *plan = (struct ablate_plan){0};
}

bool ablate_plain_text(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

enum status ablate_run_path(const char *output, const struct ablate_row *row, int64_t seed,
                            char *path, struct error *error)
{
    char name[ABLATE_NAME + 32];
    snprintf(name, sizeof name, "%s/seed-%lld", row->slug, (long long)seed);
    return run_directory_path(output, name, path, error);
}
