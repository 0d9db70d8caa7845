// Names are looked at as they come; what depends on all of them is settled in select_finish.
#include "tools/convert_select_internal.h"

#include "formats/dataset.h"
#include "formats/limits.h"
#include "formats/name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status select_no_memory(struct error *error)
{
    return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for the choice of images");
}

void select_close(struct select **out)
{
    struct select *select = *out;
    if (select == NULL) {
        return;
    }
    char **names = select->name.items;
    for (uint64_t i = 0; names != NULL && i < select->images; i++) {
        free(names[i]);
    }
    name_list_free(&select->only);
    name_list_free(&select->without);
    name_list_free(&select->labels);
    name_list_free(&select->class_names);
    free(select->where.items);
    free(select->label.items);
    free(select->name.items);
    free(select->random_key.items);
    free(select->tfds_key.items);
    free(select->classes);
    free(select->class_text);
    free(select->renumbering);
    free(select);
    *out = NULL;
}

// --- the options -------------------------------------------------------------------------------

static enum status read_lists(struct select *select, struct error *error)
{
    const struct select_options *options = &select->options;
    enum status status = STATUS_OK;
    if (options->labels != NULL) {
        status = select_read_labels(select, error);
    }
    if (status == STATUS_OK && options->classes != NULL) {
        status = name_list_read(&select->class_names, options->classes, false, error);
    }
    if (status == STATUS_OK && options->only != NULL) {
        status = name_list_read(&select->only, options->only, false, error);
        status = status ? status : name_list_sort(&select->only, error);
    }
    if (status == STATUS_OK && options->without != NULL) {
        status = name_list_read(&select->without, options->without, false, error);
        status = status ? status : name_list_sort(&select->without, error);
    }
    return status;
}

static enum status of_split(enum status status, struct error *error)
{
    return status == STATUS_INVALID || status == STATUS_LIMIT
               ? error_set(error, status, NULL, NOWHERE, NOWHERE, "--split: %s", error->reason)
               : status;
}

enum status select_open(struct select **out, const struct select_options *options,
                        struct error *error)
{
    struct select *select = calloc(1, sizeof *select);
    *out = select;
    if (select == NULL) {
        return select_no_memory(error);
    }
    select->options = *options;
    enum status status = read_lists(select, error);
    if (status == STATUS_OK && options->split != NULL) {
        status = of_split(split_rules_parse(select->rules, SELECT_SPLITS_MAX, &select->rule_count,
                                            options->split, error),
                          error);
    }
    for (size_t i = 0; i < select->rule_count; i++) {
        enum rule_kind kind = select->rules[i].kind;
        select->tfds |= kind == RULE_TFDS;
        select->random |= kind == RULE_RANDOM || kind == RULE_PERCENT;
    }
    if (status != STATUS_OK) {
        select_close(out);
    }
    return status;
}

// --- names as they come ------------------------------------------------------------------------

// Makes room for item number `count` of `size` bytes.
static bool grow(struct column *column, uint64_t count, size_t size)
{
    if (count < column->capacity) {
        return true;
    }
    size_t capacity = column->capacity ? 2 * column->capacity : 4096;
    void *items = realloc(column->items, capacity * size);
    if (items == NULL) {
        return false;
    }
    column->items = items;
    column->capacity = capacity;
    return true;
}

static bool on_list(const struct name_list *list, const char *name)
{
    struct name_line *line = name_list_find(list, name);
    if (line != NULL) {
        line->used = true;
    }
    return line != NULL;
}

static bool wanted(struct select *select, const char *name)
{
    bool yes = select->options.only == NULL || on_list(&select->only, name);
    return !(select->options.without != NULL && on_list(&select->without, name)) && yes;
}

// The line's value becomes a class or a number in select_finish; until then its line is kept.
static int32_t find_line(struct select *select, const char *name)
{
    struct name_line *line = name_list_find(&select->labels, name);
    if (line == NULL) {
        return DATASET_NO_LABEL;
    }
    line->used = true;
    return (int32_t)(line - select->labels.lines);
}

enum status select_note(struct select *select, const char *name, struct error *error)
{
    uint64_t i = select->images;
    bool in_order = select->options.labels != NULL && select->labels_in_order;
    bool by_name = select->options.labels != NULL && !select->labels_in_order;
    bool room = grow(&select->where, i, sizeof(uint8_t)) &&
                ((!in_order && !by_name) || grow(&select->label, i, sizeof(int32_t))) &&
                (!in_order || grow(&select->name, i, sizeof(char *))) &&
                (!select->random || grow(&select->random_key, i, sizeof(uint64_t))) &&
                (!select->tfds || grow(&select->tfds_key, i, sizeof(uint64_t)));
    if (!room) {
        return select_no_memory(error);
    }
    bool take = wanted(select, name);
    ((uint8_t *)select->where.items)[i] = take ? RULE_OPEN : SELECT_NOWHERE;
    select->counts.filtered += !take;
    if (by_name) {
        ((int32_t *)select->label.items)[i] = find_line(select, name);
    }
    if (in_order) {
        char *copy = strdup(name);
        if (copy == NULL) {
            return select_no_memory(error);
        }
        ((char **)select->name.items)[i] = copy;
    }
    if (select->random) {
        ((uint64_t *)select->random_key.items)[i] =
            split_rule_key(RULE_RANDOM, name, select->options.seed);
    }
    if (select->tfds) {
        ((uint64_t *)select->tfds_key.items)[i] = split_rule_key(RULE_TFDS, name, 0);
    }
    select->images++;
    return STATUS_OK;
}

// --- the choice --------------------------------------------------------------------------------

static void note_unused(struct select *select, const struct name_list *list, const char *option)
{
    const struct name_line *first;
    uint64_t unused = name_list_unused(list, &first);
    if (unused > 0 && select->notice_count < NOTICES_MAX) {
        snprintf(select->notices[select->notice_count++], sizeof select->notices[0],
                 "%s: %" PRIu64 " of the %zu names in %.300s are not in the sources, such as "
                 "'%.200s' (line %" PRIu64 ")",
                 option, unused, list->count, list->path, first->name, first->number);
    }
}

static void note_all_unused(struct select *select)
{
    if (select->options.only != NULL) {
        note_unused(select, &select->only, "--only");
    }
    if (select->options.without != NULL) {
        note_unused(select, &select->without, "--without");
    }
    if (select->options.labels != NULL && !select->labels_in_order) {
        note_unused(select, &select->labels, "--labels");
    }
}

static enum status settle_places(struct select *select, struct error *error)
{
    uint8_t *where = select->where.items;
    uint64_t taken = 0, limit = (uint64_t)select->options.limit;
    for (uint64_t i = 0; i < select->images; i++) {
        if (where[i] == RULE_OPEN && limit > 0 && taken == limit) {
            where[i] = SELECT_NOWHERE;
            select->counts.limited++;
        }
        taken += where[i] == RULE_OPEN;
    }
    if (taken == 0 && select->images > 0) {
        return error_set(error, STATUS_NOT_FOUND, NULL, NOWHERE, NOWHERE,
                         "none of the %" PRIu64 " images is chosen%s%s", select->images,
                         select->notice_count > 0 ? "; " : "",
                         select->notice_count > 0 ? select->notices[0] : "");
    }
    const struct split_keys keys = {.random = select->random_key.items,
                                    .tfds = select->tfds_key.items};
    static const struct split_rule all = {.kind = RULE_REST};
    enum status status = of_split(split_rules_apply(select->rule_count ? select->rules : &all,
                                                    select->rule_count ? select->rule_count : 1,
                                                    &keys, where, select->images, error),
                                  error);
    for (uint64_t i = 0; status == STATUS_OK && i < select->images; i++) {
        select->counts.unassigned += where[i] == RULE_OPEN;
        where[i] = where[i] == RULE_OPEN ? SELECT_NOWHERE : where[i];
        select->split_images[where[i] % SELECT_SPLITS_MAX] += where[i] != SELECT_NOWHERE;
    }
    return status;
}

// What the dataset would refuse is said before anything is converted.
static enum status check_classes(const struct select *select, struct error *error)
{
    if (select->class_count > LIMIT_CLASSES) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "%" PRIu32 " classes; at most %llu are allowed", select->class_count,
                         (unsigned long long)LIMIT_CLASSES);
    }
    for (uint32_t i = 0; i < select->class_count; i++) {
        const char *name = select->classes[i], *fault = name_class_fault(name, strlen(name));
        if (fault != NULL) {
            return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                             "the name of class %" PRIu32 ", '%.200s', %s", i, name, fault);
        }
    }
    return STATUS_OK;
}

enum status select_finish(struct select *select, const struct source_plan *plan,
                          struct error *error)
{
    enum status status = STATUS_OK;
    if (select->options.labels != NULL) {
        status = select_settle_labels(select, error);
    } else if (select->options.classes != NULL) {
        status = select_settle_classes(select, plan, error);
    }
    if (status == STATUS_OK && select->classes == NULL) {
        select->class_count = source_plan_class_count(plan);
        select->classes = calloc((size_t)select->class_count + 1, sizeof *select->classes);
        if (select->classes == NULL) {
            return select_no_memory(error);
        }
        for (uint32_t i = 0; i < select->class_count; i++) {
            select->classes[i] = source_plan_classes(plan)[i];
        }
    }
    status = status ? status : check_classes(select, error);
    if (status == STATUS_OK) {
        note_all_unused(select);
        status = settle_places(select, error);
    }
    return status;
}

// --- answers -----------------------------------------------------------------------------------

size_t select_split_count(const struct select *select)
{
    return select->rule_count ? select->rule_count : 1;
}

const char *select_split_name(const struct select *select, size_t split)
{
    return select->rule_count ? select->rules[split].name : NULL;
}

uint8_t select_split(const struct select *select, uint64_t image)
{
    return image < select->images ? ((const uint8_t *)select->where.items)[image] : SELECT_NOWHERE;
}

uint64_t select_split_images(const struct select *select, size_t split)
{
    return select->split_images[split];
}

int32_t select_label(const struct select *select, uint64_t image, int32_t planned)
{
    if (select->options.labels != NULL) {
        return image < select->images ? ((const int32_t *)select->label.items)[image]
                                      : DATASET_NO_LABEL;
    }
    return select->renumbering != NULL && planned >= 0 ? select->renumbering[planned] : planned;
}

uint32_t select_class_count(const struct select *select)
{
    return select->class_count;
}

const char *const *select_classes(const struct select *select)
{
    return select->classes;
}

struct select_counts select_counts(const struct select *select)
{
    struct select_counts counts = select->counts;
    counts.images = select->images;
    return counts;
}

uint64_t select_fingerprint(const struct select *select)
{
    uint64_t hash = select->images;
    for (uint64_t i = 0; i < select->images; i++) {
        uint64_t word = (uint64_t)select_split(select, i);
        if (select->options.labels != NULL) {
            word |= (uint64_t)(uint32_t)select_label(select, i, 0) << 8;
        }
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    for (uint32_t i = 0; i < select->class_count; i++) {
        for (const char *at = select->classes[i]; *at != '\0'; at++) {
            hash = (hash ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
        }
        hash = (hash ^ 0xff) * UINT64_C(0x100000001b3);
    }
    return hash;
}

const char *select_notice(const struct select *select, size_t number)
{
    return number < select->notice_count ? select->notices[number] : NULL;
}
