// Names are looked at as they come; what depends on all of them is settled in select_finish.
#include "tools/convert_select.h"

#include "formats/dataset.h"
#include "formats/ilsvrc_devkit.h"
#include "formats/limits.h"
#include "formats/name_list.h"
#include "formats/split_rules.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTICES_MAX 4

// An array of one number an image, that grows.
struct column {
    void *items;
    size_t capacity;
};

struct select {
    struct select_options options;
    struct split_rule rules[SELECT_SPLITS_MAX];
    size_t rule_count; // 0 = no split
    struct name_list only, without, labels, class_names;
    bool labels_in_order; // the labels' file has no names of images
    bool numbers;         // its labels are numbers, not classes
    bool random, tfds;    // wanted by a rule
    uint64_t images;
    struct column where, label, name, random_key, tfds_key;
    uint64_t split_images[SELECT_SPLITS_MAX];
    const char **classes; // NULL: the plan's
    uint32_t class_count;
    char *class_text;
    int32_t *renumbering; // the plan's labels in the order of --classes; NULL = as planned
    struct select_counts counts;
    char notices[NOTICES_MAX][700];
    size_t notice_count;
};

static enum status no_memory(struct error *error)
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

static bool is_number(const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

static enum status read_labels(struct select *select, struct error *error)
{
    struct name_list *labels = &select->labels;
    bool devkit;
    enum status status = ilsvrc_devkit_is(select->options.labels, &devkit, error);
    if (status == STATUS_OK && devkit) {
        select->labels_in_order = true;
        return ilsvrc_devkit_read(labels, select->options.labels, error);
    }
    status = status ? status : name_list_read(labels, select->options.labels, true, error);
    if (status != STATUS_OK) {
        return status;
    }
    size_t alone = 0, numbers = 0;
    for (size_t i = 0; i < labels->count; i++) {
        int64_t value;
        alone += labels->lines[i].value == NULL;
        numbers += labels->lines[i].value != NULL && is_number(labels->lines[i].value, &value);
    }
    select->labels_in_order = alone == labels->count;
    if (select->labels_in_order) {
        select->numbers = true;
        return STATUS_OK;
    }
    if (alone > 0) {
        return error_set(error, STATUS_INVALID, labels->path, NOWHERE, NOWHERE,
                         "%zu of its %zu lines have one word, the others more: either all are "
                         "labels, or all are 'NAME LABEL'",
                         alone, labels->count);
    }
    select->numbers = numbers == labels->count;
    return name_list_sort(labels, error);
}

static enum status read_lists(struct select *select, struct error *error)
{
    const struct select_options *options = &select->options;
    enum status status = STATUS_OK;
    if (options->labels != NULL) {
        status = read_labels(select, error);
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
        return no_memory(error);
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
        return no_memory(error);
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
            return no_memory(error);
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

// --- labels ------------------------------------------------------------------------------------

struct named {
    const char *name;
    uint64_t image;
};

static int compare_named(const void *left, const void *right)
{
    return strcmp(((const struct named *)left)->name, ((const struct named *)right)->name);
}

// Line n is the label of the n-th image in byte order of names.
static enum status match_in_order(struct select *select, struct error *error)
{
    const struct name_list *labels = &select->labels;
    char **names = select->name.items;
    int32_t *label = select->label.items;
    if (labels->count != select->images) {
        return error_set(error, STATUS_INVALID, labels->path, NOWHERE, NOWHERE,
                         "%zu labels for %" PRIu64 " images: not those of these images",
                         labels->count, select->images);
    }
    struct named *sorted = malloc(labels->count * sizeof *sorted);
    if (sorted == NULL) {
        return no_memory(error);
    }
    for (uint64_t i = 0; i < select->images; i++) {
        sorted[i] = (struct named){.name = names[i], .image = i};
    }
    qsort(sorted, labels->count, sizeof *sorted, compare_named);
    for (size_t i = 0; i < labels->count; i++) {
        label[sorted[i].image] = (int32_t)i;
    }
    free(sorted);
    return STATUS_OK;
}

static const char *value_of(const struct select *select, size_t line)
{
    const struct name_line *found = &select->labels.lines[line];
    return select->labels_in_order ? found->name : found->value;
}

// Numbers of lines become labels. `values[line]` is the label of each.
static void put_labels(struct select *select, const int32_t *values)
{
    int32_t *label = select->label.items;
    for (uint64_t i = 0; i < select->images; i++) {
        label[i] = label[i] < 0 ? DATASET_NO_LABEL : values[label[i]];
    }
}

static enum status number_values(struct select *select, int32_t *values, int32_t *max,
                                 struct error *error)
{
    const struct name_list *labels = &select->labels;
    *max = -1;
    for (size_t i = 0; i < labels->count; i++) {
        int64_t value;
        bool number = is_number(value_of(select, i), &value);
        int64_t label = value - select->options.labels_from;
        if (!number || label < 0 || label >= (int64_t)LIMIT_CLASSES) {
            return error_set(error, STATUS_INVALID, labels->path, NOWHERE, NOWHERE,
                             "line %" PRIu64 ": '%.80s' is no label counted from %" PRId64,
                             labels->lines[i].number, value_of(select, i),
                             select->options.labels_from);
        }
        values[i] = (int32_t)label;
        *max = values[i] > *max ? values[i] : *max;
    }
    return STATUS_OK;
}

// "n01440764 tench, Tinca tinca" is also called by its first word.
static bool names_class(const char *line, const char *class)
{
    size_t len = strlen(class);
    return strncmp(line, class, len) == 0 &&
           (line[len] == '\0' || line[len] == ' ' || line[len] == '\t');
}

static int32_t find_class(const struct name_list *classes, const char *class)
{
    for (size_t i = 0; i < classes->count; i++) {
        if (names_class(classes->lines[i].name, class)) {
            return (int32_t)i;
        }
    }
    return -1;
}

static int compare_text(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

// Classes in byte order, each once; labels are their places.
static enum status class_values(struct select *select, int32_t *values, struct error *error)
{
    size_t count = select->labels.count, unique = 0;
    select->classes = calloc(count + 1, sizeof *select->classes);
    if (select->classes == NULL) {
        return no_memory(error);
    }
    for (size_t i = 0; i < count; i++) {
        select->classes[i] = value_of(select, i);
    }
    qsort(select->classes, count, sizeof *select->classes, compare_text);
    for (size_t i = 0; i < count; i++) {
        if (unique == 0 || strcmp(select->classes[unique - 1], select->classes[i]) != 0) {
            select->classes[unique++] = select->classes[i];
        }
    }
    select->class_count = (uint32_t)unique;
    for (size_t i = 0; i < count; i++) {
        const char *key = value_of(select, i);
        const char **at =
            bsearch(&key, select->classes, unique, sizeof *select->classes, compare_text);
        values[i] = (int32_t)(at - select->classes);
    }
    return STATUS_OK;
}

// The classes are those of --classes; labels are their lines.
static enum status listed_values(struct select *select, int32_t *values, struct error *error)
{
    for (size_t i = 0; i < select->labels.count; i++) {
        values[i] = find_class(&select->class_names, value_of(select, i));
        if (values[i] < 0) {
            return error_set(error, STATUS_INVALID, select->class_names.path, NOWHERE, NOWHERE,
                             "does not have the class '%.80s' of line %" PRIu64 " of %.200s",
                             value_of(select, i), select->labels.lines[i].number,
                             select->labels.path);
        }
    }
    return STATUS_OK;
}

static enum status take_listed_classes(struct select *select, int32_t max, struct error *error)
{
    const struct name_list *names = &select->class_names;
    if (max >= (int32_t)names->count || names->count > LIMIT_CLASSES) {
        return error_set(error, STATUS_INVALID, names->path, NOWHERE, NOWHERE,
                         "names %zu classes, but there are labels up to %d", names->count, max);
    }
    free(select->classes);
    select->classes = calloc(names->count + 1, sizeof *select->classes);
    if (select->classes == NULL) {
        return no_memory(error);
    }
    for (size_t i = 0; i < names->count; i++) {
        for (char *at = (char *)names->lines[i].name; *at != '\0'; at++) {
            *at = *at == '/' ? '_' : *at; // a class is one component
        }
        select->classes[i] = names->lines[i].name;
    }
    select->class_count = (uint32_t)names->count;
    return STATUS_OK;
}

static enum status number_classes(struct select *select, int32_t max, struct error *error)
{
    enum { DIGITS = 12 };
    uint32_t count = (uint32_t)(max + 1);
    select->classes = calloc((size_t)count + 1, sizeof *select->classes);
    select->class_text = malloc((size_t)count * DIGITS + 1);
    if (select->classes == NULL || select->class_text == NULL) {
        return no_memory(error);
    }
    for (uint32_t i = 0; i < count; i++) {
        char *text = select->class_text + (size_t)i * DIGITS;
        snprintf(text, DIGITS, "%" PRIu64, (uint64_t)i + (uint64_t)select->options.labels_from);
        select->classes[i] = text;
    }
    select->class_count = count;
    return STATUS_OK;
}

static enum status settle_labels(struct select *select, struct error *error)
{
    bool listed = select->options.classes != NULL;
    int32_t max = -1, *values = calloc(select->labels.count, sizeof *values);
    enum status status = values ? STATUS_OK : no_memory(error);
    if (status == STATUS_OK && select->labels_in_order) {
        status = match_in_order(select, error);
    }
    if (status == STATUS_OK && select->numbers) {
        status = number_values(select, values, &max, error);
    } else if (status == STATUS_OK) {
        status =
            listed ? listed_values(select, values, error) : class_values(select, values, error);
    }
    if (status == STATUS_OK) {
        put_labels(select, values);
        if (listed) {
            status = take_listed_classes(select, max, error);
        } else if (select->numbers) {
            status = number_classes(select, max, error);
        }
    }
    free(values);
    return status;
}

// --classes without --labels: names for a source's numbers, or the order of folders' labels.
static enum status settle_classes(struct select *select, const struct source_plan *plan,
                                  struct error *error)
{
    uint32_t count = source_plan_class_count(plan);
    if (source_plan_by_number(plan)) {
        return take_listed_classes(select, (int32_t)count - 1, error);
    }
    select->renumbering = calloc((size_t)count + 1, sizeof *select->renumbering);
    if (select->renumbering == NULL) {
        return no_memory(error);
    }
    for (uint32_t i = 0; i < count; i++) {
        const char *class = source_plan_classes(plan)[i];
        select->renumbering[i] = find_class(&select->class_names, class);
        if (select->renumbering[i] < 0) {
            return error_set(error, STATUS_INVALID, select->class_names.path, NOWHERE, NOWHERE,
                             "does not name the class '%.200s'", class);
        }
    }
    return take_listed_classes(select, -1, error);
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

enum status select_finish(struct select *select, const struct source_plan *plan,
                          struct error *error)
{
    enum status status = STATUS_OK;
    if (select->options.labels != NULL) {
        status = settle_labels(select, error);
    } else if (select->options.classes != NULL) {
        status = settle_classes(select, plan, error);
    }
    if (status == STATUS_OK && select->classes == NULL) {
        select->class_count = source_plan_class_count(plan);
        select->classes = calloc((size_t)select->class_count + 1, sizeof *select->classes);
        if (select->classes == NULL) {
            return no_memory(error);
        }
        for (uint32_t i = 0; i < select->class_count; i++) {
            select->classes[i] = source_plan_classes(plan)[i];
        }
    }
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
