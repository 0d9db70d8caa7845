// Which label each image gets: by its name or its place in a file, as a number or a class.
#include "tools/convert_select_internal.h"

#include "formats/dataset.h"
#include "formats/ilsvrc_devkit.h"
#include "formats/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_number(const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

enum status select_read_labels(struct select *select, struct error *error)
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

// --- whose label is whose ----------------------------------------------------------------------

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
        return select_no_memory(error);
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
        return select_no_memory(error);
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
        // Neighbours in order of names are mostly of one class.
        bool again = i > 0 && strcmp(value_of(select, i), value_of(select, i - 1)) == 0;
        values[i] = again ? values[i - 1] : find_class(&select->class_names, value_of(select, i));
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
        return select_no_memory(error);
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
        return select_no_memory(error);
    }
    for (uint32_t i = 0; i < count; i++) {
        char *text = select->class_text + (size_t)i * DIGITS;
        snprintf(text, DIGITS, "%" PRIu64, (uint64_t)i + (uint64_t)select->options.labels_from);
        select->classes[i] = text;
    }
    select->class_count = count;
    return STATUS_OK;
}

enum status select_settle_labels(struct select *select, struct error *error)
{
    bool listed = select->options.classes != NULL;
    int32_t max = -1, *values = calloc(select->labels.count, sizeof *values);
    if (values == NULL) {
        return select_no_memory(error);
    }
    enum status status = STATUS_OK;
    if (select->labels_in_order) {
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
enum status select_settle_classes(struct select *select, const struct source_plan *plan,
                                  struct error *error)
{
    uint32_t count = source_plan_class_count(plan);
    if (source_plan_by_number(plan)) {
        return take_listed_classes(select, (int32_t)count - 1, error);
    }
    select->renumbering = calloc((size_t)count + 1, sizeof *select->renumbering);
    if (select->renumbering == NULL) {
        return select_no_memory(error);
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
