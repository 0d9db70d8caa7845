// Reads names only, and stops counting when that takes long.
#include "tools/describe.h"

#include "formats/file.h"
#include "formats/index.h"
#include "formats/source.h"
#include "tools/json_text.h"
#include "tools/measure.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS       2.0
#define CLASSES_SHOWN 5

struct description {
    const char *path;
    const char *text; // kind and layout
    uint64_t images, bytes;
    bool whole;          // all were counted
    bool sizes;          // `bytes` is that of all these images
    const char *classes; // how many and which, or why none
    uint32_t class_count;
    bool splits; // the folders are called as splits are
    double until;
};

bool describe_wanted(const char *path)
{
    char index[1024];
    snprintf(index, sizeof index, "%s/" INDEX_FILE_NAME, path);
    return file_exists(path) && !file_exists(index);
}

static enum status count(void *context, const struct source_member *member, struct error *error)
{
    struct description *description = context;
    description->images++;
    if (member->size == SOURCE_SIZE_UNKNOWN) {
        description->sizes = false;
    } else {
        description->bytes += member->size;
    }
    bool late = description->images % 256 == 0 && measure_seconds() > description->until;
    return late ? error_set(error, STATUS_STOPPED, NULL, NOWHERE, NOWHERE, "late") : STATUS_OK;
}

// "pictures.byol" of "/data/pictures.tar.zst" or "/data/pictures/".
static void suggest_name(const char *path, char *name, size_t size)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    const char *slash = memrchr(path, '/', end), *base = slash ? slash + 1 : path;
    size_t len = (size_t)(path + end - base), stem = 0;
    while (stem < len && (base[stem] != '.' || stem == 0)) {
        stem++;
    }
    snprintf(name, size, "%.*s.byol", (int)stem, base);
}

static void list_classes(const struct source_plan *plan, char *text, size_t size)
{
    uint32_t all = source_plan_class_count(plan);
    size_t used = (size_t)snprintf(text, size, all > 0 ? "%u:" : "none: no labels", all);
    for (uint32_t i = 0; i < all && i < CLASSES_SHOWN && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s %s", i ? "," : "",
                                 source_plan_classes(plan)[i]);
    }
    if (all > CLASSES_SHOWN && used < size) {
        snprintf(text + used, size - used, ", ...");
    }
}

static bool are_splits(const struct source_plan *plan)
{
    static const char *const names[] = {"train", "training", "val", "valid", "validation", "test"};
    uint32_t all = source_plan_class_count(plan), known = 0;
    for (uint32_t i = 0; i < all; i++) {
        for (size_t j = 0; j < sizeof names / sizeof names[0]; j++) {
            known += strcmp(source_plan_classes(plan)[i], names[j]) == 0;
        }
    }
    return all > 1 && known == all;
}

static void print_text(const struct description *of, const char *name)
{
    printf("%s\n  no dataset yet, but a source of one\n  kind      %s\n", of->path, of->text);
    printf("  images    %s%" PRIu64, of->whole ? "" : "more than ", of->images);
    if (of->sizes) {
        printf(", %.1f MB", (double)of->bytes / 1e6);
    }
    putchar('\n');
    if (of->whole) {
        printf("  classes   %s\n", of->classes);
    }
    if (of->splits) {
        puts("  note      these look like splits, not classes: convert each folder by itself");
    }
    printf("  convert   byol convert %s -o %s\n", of->path, name);
}

static void print_json(const struct description *of, const char *name)
{
    char *command = NULL;
    if (asprintf(&command, "byol convert %s -o %s", of->path, name) < 0) {
        command = NULL;
    }
    json_t *result = json_pack("{s:o, s:o, s:I, s:b, s:o, s:o}", "source", json_text(of->path),
                               "kind", json_text(of->text), "images", (json_int_t)of->images,
                               "counted_all", (int)of->whole, "classes",
                               of->whole ? json_integer((json_int_t)of->class_count) : json_null(),
                               "convert", json_text(command ? command : ""));
    json_dumpf(result, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(result);
    free(command);
}

enum status describe_source(const char *path, bool json, struct error *error)
{
    struct source *source;
    struct source_plan *plan = NULL;
    struct description description = {
        .path = path, .sizes = true, .until = measure_seconds() + SECONDS};
    char classes[1024] = "", name[300];
    enum status status = source_open(&source, path, error);
    if (status == STATUS_OK) {
        status = source_plan_open(&plan, error);
    }
    if (status == STATUS_OK) {
        status = source_plan_scan(plan, source, count, &description, error);
        description.whole = status == STATUS_OK;
        status = status == STATUS_STOPPED ? STATUS_OK : status;
    }
    if (status == STATUS_OK && description.whole) {
        status = source_plan_finish(plan, error);
    }
    if (status == STATUS_OK && description.images == 0) {
        status =
            error_set(error, STATUS_NOT_FOUND, path, NOWHERE, NOWHERE,
                      "not a dataset, and no JPEG or PNG files in it (archives in a folder are "
                      "inspected one by one)");
    }
    if (status == STATUS_OK) {
        if (description.whole) {
            list_classes(plan, classes, sizeof classes);
            description.class_count = source_plan_class_count(plan);
            description.splits = are_splits(plan);
        }
        description.classes = classes;
        description.text = source_describe(source);
        suggest_name(path, name, sizeof name);
        if (json) {
            print_json(&description, name);
        } else {
            print_text(&description, name);
        }
    }
    source_plan_close(&plan);
    source_close(&source);
    return status;
}
