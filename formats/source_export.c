// The marks of `byol export-data`, read again.
#include "formats/source_export.h"
#include "formats/dataset.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/name.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_BYTES    600
#define MARK_BYTES    (64u << 10)
#define CLASSES_BYTES (LIMIT_CLASSES * 64)

// --- the mark ----------------------------------------------------------------------------------

// The mark's object, or NULL when there is none.
static json_t *read_mark(const char *directory)
{
    char path[PATH_BYTES];
    uint8_t *bytes;
    size_t len;
    snprintf(path, sizeof path, "%s/" EXPORT_MARK_FILE, directory);
    if (!file_exists(path) || file_read_all(path, MARK_BYTES, &bytes, &len, NULL) != STATUS_OK) {
        return NULL;
    }
    json_t *mark = json_loadb((const char *)bytes, len, 0, NULL);
    free(bytes);
    if (!json_is_integer(json_object_get(mark, "byol_export"))) {
        json_decref(mark);
        return NULL;
    }
    return mark;
}

bool source_export_is(const char *directory)
{
    json_t *mark = read_mark(directory);
    json_decref(mark);
    return mark != NULL;
}

// --- the classes -------------------------------------------------------------------------------

static enum status split_classes(struct source_export *export, size_t len, const char *path,
                                 struct error *error)
{
    char *at = export->text, *end = at + len;
    for (uint32_t i = 0; i < export->count; i++) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL) {
            return error_set(error, STATUS_TRUNCATED, path, len, NOWHERE,
                             "%u lines; the export has %u classes", i, export->count);
        }
        const char *fault = name_class_fault(at, (size_t)(newline - at));
        if (fault != NULL) {
            return error_set(error, STATUS_INVALID, path, (uint64_t)(at - export->text), NOWHERE,
                             "the name of class %u %s", i, fault);
        }
        *newline = '\0';
        export->classes[i] = at;
        at = newline + 1;
    }
    return STATUS_OK;
}

static enum status read_classes(struct source_export *export, const char *directory,
                                struct error *error)
{
    char path[PATH_BYTES];
    uint8_t *bytes;
    size_t len;
    snprintf(path, sizeof path, "%s/" EXPORT_CLASSES_FILE, directory);
    enum status status = file_read_all(path, CLASSES_BYTES, &bytes, &len, error);
    if (status != STATUS_OK) {
        return status;
    }
    export->text = (char *)bytes;
    export->classes = calloc(export->count, sizeof *export->classes);
    return export->classes != NULL
               ? split_classes(export, len, path, error)
               : error_errno(error, ENOMEM, path, NOWHERE, "allocate memory for the classes");
}

static void directory_of(char *directory, size_t size, const char *path)
{
    struct stat about;
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode)) {
        snprintf(directory, size, "%s", path);
        return;
    }
    const char *slash = strrchr(path, '/');
    snprintf(directory, size, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
}

enum status source_export_read(struct source_export *out, const char *path, struct error *error)
{
    char directory[PATH_BYTES - 32];
    directory_of(directory, sizeof directory, path);
    json_t *mark = read_mark(directory);
    if (mark == NULL) {
        return STATUS_OK;
    }
    bool complete = json_is_true(json_object_get(mark, "complete"));
    json_int_t count = json_integer_value(json_object_get(mark, "classes"));
    json_decref(mark);
    if (!complete) {
        return error_set(error, STATUS_INVALID, directory, NOWHERE, NOWHERE,
                         "an export that was not finished (" EXPORT_MARK_FILE
                         " says so): export again");
    }
    if (count < 0 || count > (json_int_t)LIMIT_CLASSES) {
        return error_set(error, STATUS_LIMIT, directory, NOWHERE, NOWHERE,
                         EXPORT_MARK_FILE " says %lld classes", (long long)count);
    }
    out->found = true;
    out->count = (uint32_t)count;
    return count > 0 ? read_classes(out, directory, error) : STATUS_OK;
}

void source_export_free(struct source_export *export)
{
    free(export->text);
    free(export->classes);
    *export = (struct source_export){0};
}

// --- labels ------------------------------------------------------------------------------------

int source_export_directory(char *text, size_t size, const char *class_name)
{
    bool hidden = class_name[0] == '.', escaped = strncmp(class_name, "%2", 2) == 0;
    return snprintf(text, size, "%s%s",
                    hidden    ? "%2E"
                    : escaped ? "%25"
                              : "",
                    class_name + (hidden || escaped));
}

static bool in_class(const char *name, size_t len, const char *class_name)
{
    char directory[LIMIT_NAME_BYTES + 4];
    int want = source_export_directory(directory, sizeof directory, class_name);
    return (size_t)want == len && memcmp(name, directory, len) == 0;
}

int32_t source_export_label(struct source_export *export, const char *name)
{
    const char *slash = strchr(name, '/');
    for (uint32_t i = 0; slash != NULL && i < export->count; i++) {
        uint32_t label = (export->last + i) % export->count; // neighbours share a class, mostly
        if (in_class(name, (size_t)(slash - name), export->classes[label])) {
            export->last = label;
            return (int32_t)label;
        }
    }
    return DATASET_NO_LABEL;
}
