// From members' names to records' names and labels. The directories are collected first, because
// only the whole tells which of them all images share. Labels are one of two sorts for all sources:
// the folders' or the sources' own.
#include "formats/class_names.h"
#include "formats/dataset.h"
#include "formats/limits.h"
#include "formats/name_set.h"
#include "formats/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct source_plan {
    struct name_set directories;       // of images, with their last slash; "" for none
    char common[LIMIT_NAME_BYTES + 1]; // the directories that all share, with the last slash
    bool keep_directories;             // also those: they are an export's
    uint64_t images;
    struct name_set class_set;
    const char **classes; // by label; of folders sorted and into class_set, else into own_text
    uint32_t class_count;
    bool ignore_labels;
    // Of the sources' own labels.
    bool by_folder, by_number; // what was met so far
    int32_t max_label;         // of own labels
    const char **own_classes;  // NULL when the sources name none; into own_text
    uint32_t own_count;
    struct class_names told; // names that came image by image
    char *own_text;
    char own_source[512];    // the first source that numbers its images
    char folder_source[512]; // the first that does not
};

enum status source_plan_open(struct source_plan **out, struct error *error)
{
    *out = calloc(1, sizeof **out);
    return *out ? STATUS_OK
                : error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for the names");
}

void source_plan_close(struct source_plan **plan)
{
    if (*plan != NULL) {
        name_set_free(&(*plan)->directories);
        name_set_free(&(*plan)->class_set);
        class_names_free(&(*plan)->told);
        free((*plan)->classes);
        free((*plan)->own_classes);
        free((*plan)->own_text);
        free(*plan);
        *plan = NULL;
    }
}

// Shortens `common` to the whole directories that it shares with `directory`.
static void keep_shared(char *common, const char *directory)
{
    size_t shared = 0;
    for (size_t i = 0; common[i] != '\0' && common[i] == directory[i]; i++) {
        if (common[i] == '/') {
            shared = i + 1;
        }
    }
    common[shared] = '\0';
}

static enum status note_image(struct source_plan *plan, const char *name, struct error *error)
{
    char directory[LIMIT_NAME_BYTES + 1];
    const char *slash = strrchr(name, '/');
    size_t len = slash ? (size_t)(slash - name) + 1 : 0;
    memcpy(directory, name, len);
    directory[len] = '\0';
    if (plan->images++ == 0) {
        memcpy(plan->common, directory, len + 1);
    }
    if (plan->keep_directories) {
        plan->common[0] = '\0';
    }
    bool fresh;
    enum status status = name_set_add(&plan->directories, directory, &fresh, error);
    if (status == STATUS_OK && fresh) {
        keep_shared(plan->common, directory);
    }
    return status;
}

// --- the sources' own labels -------------------------------------------------------------------

static void note_label(struct source_plan *plan, const struct source *source, int32_t label)
{
    if (label >= 0) {
        if (!plan->by_number) {
            snprintf(plan->own_source, sizeof plan->own_source, "%s", source_path(source));
        }
        plan->by_number = true;
        plan->max_label = label > plan->max_label ? label : plan->max_label;
    } else if (label == SOURCE_LABEL_OF_NAME && !plan->by_folder) {
        snprintf(plan->folder_source, sizeof plan->folder_source, "%s", source_path(source));
        plan->by_folder = true;
    }
}

// A class's name is one component of a path; sources' own names may be anything.
static enum status copy_classes(struct source_plan *plan, const char *const *names, uint32_t count,
                                struct error *error)
{
    size_t len = 0;
    for (uint32_t i = 0; i < count; i++) {
        len += strlen(names[i]) + 1;
    }
    plan->own_text = malloc(len + 1);
    plan->own_classes = calloc((size_t)count + 1, sizeof *plan->own_classes);
    if (plan->own_text == NULL || plan->own_classes == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for the classes");
    }
    char *at = plan->own_text;
    for (uint32_t i = 0; i < count; i++) {
        plan->own_classes[i] = at;
        for (const char *from = names[i]; *from != '\0'; from++) {
            *at++ = *from == '/' ? '_' : *from;
        }
        *at++ = '\0';
    }
    plan->own_count = count;
    return STATUS_OK;
}

static bool same_classes(const struct source_plan *plan, const char *const *names, uint32_t count)
{
    bool same = count == plan->own_count;
    for (uint32_t i = 0; same && i < count; i++) {
        const char *own = plan->own_classes[i];
        size_t len = strlen(own);
        same = strlen(names[i]) == len;
        for (size_t at = 0; same && at < len; at++) {
            same = own[at] == names[i][at] || (own[at] == '_' && names[i][at] == '/');
        }
    }
    return same;
}

// Called after each source that has numbers of its own; `first` is the first of them.
static enum status merge_classes(struct source_plan *plan, const struct source *source, bool first,
                                 struct error *error)
{
    uint32_t count;
    const char *const *names = source_classes(source, &count);
    if (count > LIMIT_CLASSES) {
        return error_set(error, STATUS_LIMIT, source_path(source), NOWHERE, NOWHERE,
                         "%u classes; at most %llu are allowed", count,
                         (unsigned long long)LIMIT_CLASSES);
    }
    if (first) {
        return names != NULL ? copy_classes(plan, names, count, error) : STATUS_OK;
    }
    if ((names != NULL) != (plan->own_classes != NULL) ||
        (names != NULL && !same_classes(plan, names, count))) {
        return error_set(error, STATUS_INVALID, source_path(source), NOWHERE, NOWHERE,
                         "its list of classes (%u) is not that of %.200s (%u): convert them apart, "
                         "or give the labels by --labels",
                         names ? count : 0, plan->own_source, plan->own_count);
    }
    return STATUS_OK;
}

enum status source_plan_scan(struct source_plan *plan, struct source *source,
                             enum status (*seen)(void *context, const struct source_member *member,
                                                 struct error *error),
                             void *context, struct error *error)
{
    struct source_member member;
    enum status status;
    bool first = !plan->by_number, numbers = false;
    plan->keep_directories |= source_exported(source);
    while ((status = source_next(source, &member, error)) == STATUS_OK) {
        if (member.fault == NULL) {
            status = note_image(plan, member.name, error);
            note_label(plan, source, member.label);
            numbers = numbers || member.label >= 0;
        }
        if (status == STATUS_OK && member.class_name != NULL && !plan->ignore_labels) {
            status = class_names_note(&plan->told, member.label, member.class_name, error);
        }
        if (status == STATUS_OK && seen != NULL) {
            status = seen(context, &member, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (status != STATUS_END) {
        return status;
    }
    return numbers && !plan->ignore_labels ? merge_classes(plan, source, first, error) : STATUS_OK;
}

void source_plan_ignore_labels(struct source_plan *plan)
{
    plan->ignore_labels = true;
}

// Names that came image by image, and numbers where there is none.
static enum status number_classes(struct source_plan *plan, struct error *error)
{
    enum { DIGITS = 12 };
    uint32_t count = (uint32_t)plan->max_label + 1;
    plan->own_text = malloc((size_t)count * DIGITS);
    plan->own_classes = calloc(count, sizeof *plan->own_classes);
    if (plan->own_text == NULL || plan->own_classes == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for the classes");
    }
    for (uint32_t i = 0; i < count; i++) {
        char *text = plan->own_text + (size_t)i * DIGITS;
        const char *told = class_names_get(&plan->told, i);
        snprintf(text, DIGITS, "%u", i);
        plan->own_classes[i] = told ? told : text;
    }
    plan->own_count = count;
    return STATUS_OK;
}

// The sources' own labels become the dataset's.
static enum status take_own_classes(struct source_plan *plan, struct error *error)
{
    if (plan->by_folder) {
        return error_set(error, STATUS_INVALID, plan->folder_source, NOWHERE, NOWHERE,
                         "folders are its classes, but %.200s numbers its images: convert them "
                         "apart, or give the labels by --labels",
                         plan->own_source);
    }
    enum status status = plan->own_classes == NULL ? number_classes(plan, error) : STATUS_OK;
    if (status == STATUS_OK && (uint32_t)plan->max_label >= plan->own_count) {
        status = error_set(error, STATUS_CORRUPT, plan->own_source, NOWHERE, NOWHERE,
                           "an image has label %d, but only %u classes are named", plan->max_label,
                           plan->own_count);
    }
    if (status == STATUS_OK) {
        plan->classes = plan->own_classes;
        plan->class_count = plan->own_count;
        plan->own_classes = NULL;
    }
    return status;
}

// --- the folders' labels -----------------------------------------------------------------------

static int compare_classes(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static enum status collect_classes(struct source_plan *plan, struct error *error)
{
    const struct name_set *directories = &plan->directories;
    size_t skip = strlen(plan->common);
    for (size_t at = 0; at < directories->len; at += strlen(directories->text + at) + 1) {
        char class[LIMIT_NAME_BYTES + 1];
        const char *rest = directories->text + at + skip, *slash = strchr(rest, '/');
        if (slash == NULL) {
            continue;
        }
        memcpy(class, rest, (size_t)(slash - rest));
        class[slash - rest] = '\0';
        bool fresh;
        enum status status = name_set_add(&plan->class_set, class, &fresh, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

enum status source_plan_finish(struct source_plan *plan, struct error *error)
{
    if (plan->ignore_labels) {
        return STATUS_OK;
    }
    if (plan->by_number) {
        return take_own_classes(plan, error);
    }
    enum status status = plan->by_folder ? collect_classes(plan, error) : STATUS_OK;
    if (status != STATUS_OK) {
        return status;
    }
    const struct name_set *set = &plan->class_set;
    if (set->count > LIMIT_CLASSES) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "%zu class folders; at most %llu are allowed", set->count,
                         (unsigned long long)LIMIT_CLASSES);
    }
    plan->classes = calloc(set->count + 1, sizeof *plan->classes);
    if (plan->classes == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for the classes");
    }
    for (size_t at = 0; at < set->len; at += strlen(set->text + at) + 1) {
        plan->classes[plan->class_count++] = set->text + at;
    }
    qsort(plan->classes, plan->class_count, sizeof *plan->classes, compare_classes);
    return STATUS_OK;
}

uint64_t source_plan_images(const struct source_plan *plan)
{
    return plan->images;
}

uint32_t source_plan_class_count(const struct source_plan *plan)
{
    return plan->class_count;
}

const char *const *source_plan_classes(const struct source_plan *plan)
{
    return plan->classes;
}

bool source_plan_by_number(const struct source_plan *plan)
{
    return plan->by_number;
}

const char *source_plan_remark(const struct source_plan *plan)
{
    return plan->by_number && plan->told.fault[0] != '\0' ? plan->told.fault : NULL;
}

static int compare_class(const void *key, const void *element)
{
    const char *name = key, *class = *(const char *const *)element;
    size_t len = (size_t)(strchr(name, '/') - name);
    int order = strncmp(name, class, len);
    return order != 0 ? order : -(class[len] != '\0');
}

const char *source_plan_name(const struct source_plan *plan, const struct source_member *member,
                             int32_t *label)
{
    size_t skip = strlen(plan->common);
    bool shared = strncmp(member->name, plan->common, skip) == 0;
    const char *rest = shared ? member->name + skip : member->name;
    *label = member->label;
    if (member->label == SOURCE_LABEL_OF_NAME) {
        *label = DATASET_NO_LABEL;
        if (strchr(rest, '/') != NULL && plan->class_count > 0) {
            const char **found = bsearch(rest, plan->classes, plan->class_count,
                                         sizeof *plan->classes, compare_class);
            *label = found ? (int32_t)(found - plan->classes) : DATASET_NO_LABEL;
        }
    }
    return rest;
}
