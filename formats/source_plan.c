// From members' names to records' names and labels. The directories are collected first, because
// only the whole tells which of them all images share.
#include "formats/dataset.h"
#include "formats/limits.h"
#include "formats/name_set.h"
#include "formats/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct source_plan {
    struct name_set directories;       // of images, with their last slash; "" for none
    char common[LIMIT_NAME_BYTES + 1]; // the directories that all share, with the last slash
    uint64_t images;
    struct name_set class_set;
    const char **classes; // sorted; into class_set
    uint32_t class_count;
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
        free((*plan)->classes);
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
    bool fresh;
    enum status status = name_set_add(&plan->directories, directory, &fresh, error);
    if (status == STATUS_OK && fresh) {
        keep_shared(plan->common, directory);
    }
    return status;
}

enum status source_plan_scan(struct source_plan *plan, struct source *source,
                             void (*tick)(void *context, uint64_t images), void *context,
                             struct error *error)
{
    struct source_member member;
    enum status status;
    while ((status = source_next(source, &member, error)) == STATUS_OK) {
        if (member.fault == NULL) {
            status = note_image(plan, member.name, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
        if (tick != NULL) {
            tick(context, plan->images);
        }
    }
    return status == STATUS_END ? STATUS_OK : status;
}

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
    enum status status = collect_classes(plan, error);
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

static int compare_class(const void *key, const void *element)
{
    const char *name = key, *class = *(const char *const *)element;
    size_t len = (size_t)(strchr(name, '/') - name);
    int order = strncmp(name, class, len);
    return order != 0 ? order : -(class[len] != '\0');
}

const char *source_plan_name(const struct source_plan *plan, const char *name, int32_t *label)
{
    size_t skip = strlen(plan->common);
    const char *rest = strncmp(name, plan->common, skip) == 0 ? name + skip : name;
    *label = DATASET_NO_LABEL;
    if (strchr(rest, '/') != NULL) {
        const char **found =
            bsearch(rest, plan->classes, plan->class_count, sizeof *plan->classes, compare_class);
        *label = found ? (int32_t)(found - plan->classes) : DATASET_NO_LABEL;
    }
    return rest;
}
