// The driver: reads record after record, gives back the files they were, hands them to a form.
#include "tools/export_data.h"
#include "formats/file.h"
#include "formats/source_export.h"
#include "tools/extract.h"
#include "tools/output.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

const char *export_ending(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".jpe", ".jfif", ".png"};
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    const char *dot = strrchr(base, '.');
    for (size_t i = 0; dot != NULL && dot > base && i < sizeof endings / sizeof *endings; i++) {
        if (strcasecmp(dot, endings[i]) == 0) {
            return dot;
        }
    }
    return name + strlen(name);
}

// --- marks ---------------------------------------------------------------------------------------

static enum status write_text(const char *directory, const char *name, const char *text, size_t len,
                              struct error *error)
{
    char path[EXPORT_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return file_write_durably(path, text, len, error);
}

static enum status write_mark(const struct export_target *target, const struct export_form *form,
                              bool complete, struct error *error)
{
    char id[24];
    snprintf(id, sizeof id, "%016llx", (unsigned long long)dataset_id(target->dataset));
    json_t *mark = json_pack(
        "{s:i, s:b, s:s, s:s, s:I, s:i, s:i}", "byol_export", 1, "complete", complete, "form",
        form->name, "dataset_id", id, "images", (json_int_t)target->images, "classes",
        (int)dataset_class_count(target->dataset), "shards", (int)target->shards);
    char *text = mark ? json_dumps(mark, JSON_INDENT(2)) : NULL;
    json_decref(mark);
    enum status status =
        text != NULL ? write_text(target->directory, EXPORT_MARK_FILE, text, strlen(text), error)
                     : error_errno(error, ENOMEM, target->directory, NOWHERE, "write the mark");
    free(text);
    return status;
}

static enum status write_classes(const struct export_target *target, struct error *error)
{
    uint32_t count = dataset_class_count(target->dataset);
    char *text = NULL;
    size_t len;
    FILE *stream = count > 0 ? open_memstream(&text, &len) : NULL;
    for (uint32_t i = 0; stream != NULL && i < count; i++) {
        fprintf(stream, "%s\n", dataset_class_name(target->dataset, i));
    }
    if (stream == NULL || fclose(stream) != 0) {
        free(text);
        return count == 0 ? STATUS_OK
                          : error_errno(error, ENOMEM, target->directory, NOWHERE,
                                        "allocate memory for the classes");
    }
    enum status status = write_text(target->directory, EXPORT_CLASSES_FILE, text, len, error);
    free(text);
    return status;
}

// --- records -------------------------------------------------------------------------------------

static enum status export_record(struct export_target *target, const struct export_form *form,
                                 void *state, uint64_t record, struct error *error)
{
    struct dataset_record about = dataset_record(target->dataset, record);
    bool labelled = about.label != DATASET_NO_LABEL, exact;
    uint8_t *bytes;
    size_t len;
    enum status status = extract_image(target->dataset, record, &bytes, &len, &exact, error);
    if (status == STATUS_OK) {
        const struct export_image image = {
            .name = dataset_record_name(target->dataset, record),
            .label = about.label,
            .class_name =
                labelled ? dataset_class_name(target->dataset, (uint32_t)about.label) : NULL,
            .is_png = about.kind == IMAGE_PNG,
            .width = about.width,
            .height = about.height,
            .bytes = bytes,
            .len = len,
        };
        status = form->add(state, &image, error);
        target->images++;
        target->bytes += len;
        target->labelled += labelled;
        target->inexact += !exact;
    }
    free(bytes);
    return status;
}

static enum status export_records(struct export_target *target, const struct export_form *form,
                                  struct progress *progress, struct error *error)
{
    void *state = NULL;
    uint64_t count = dataset_count(target->dataset);
    enum status status = form->open(&state, target, error);
    for (uint64_t i = 0; i < count && status == STATUS_OK; i++) {
        status = export_record(target, form, state, i, error);
        progress_bar(progress, "exporting", i + 1, count, "images");
    }
    if (status == STATUS_OK) {
        status = form->finish(state, error);
    }
    form->close(&state);
    return status;
}

static enum status fill(struct export_target *target, const struct export_form *form,
                        struct progress *progress, struct error *error)
{
    enum status status = write_mark(target, form, false, error);
    if (status == STATUS_OK) {
        status = write_classes(target, error);
    }
    if (status == STATUS_OK) {
        status = export_records(target, form, progress, error);
    }
    return status ? status : write_mark(target, form, true, error);
}

// --- places --------------------------------------------------------------------------------------

// Removes what a killed export left beside the output; STATUS_EXISTS for anything else.
static enum status clear_way(const char *output, struct error *error)
{
    char *partial;
    if (asprintf(&partial, "%s.partial", output) < 0) {
        return error_errno(error, ENOMEM, output, NOWHERE, "allocate memory for a path");
    }
    enum status status = STATUS_OK;
    if (source_export_is(partial)) {
        status = output_remove(partial, error);
    } else {
        rmdir(partial); // killed before its mark: empty, or none of ours
    }
    if (status == STATUS_OK && file_exists(output) && !source_export_is(output)) {
        status = error_set(error, STATUS_EXISTS, output, NOWHERE, NOWHERE,
                           "exists and is not an export: not replaced");
    }
    free(partial);
    return status;
}

static enum status begin(const char *output, bool force, char **partial, struct error *error)
{
    *partial = NULL;
    if (force) {
        enum status status = clear_way(output, error);
        return status ? status : output_begin_beside(output, partial, error);
    }
    return output_begin(output, partial, error);
}

enum status export_data(struct export_target *target, const struct export_form *form,
                        const char *output, bool force, struct progress *progress,
                        struct error *error)
{
    char *partial, *trimmed = strdup(output);
    if (trimmed == NULL) {
        return error_errno(error, ENOMEM, output, NOWHERE, "allocate memory for a path");
    }
    for (size_t len = strlen(trimmed); len > 1 && trimmed[len - 1] == '/'; len--) {
        trimmed[len - 1] = '\0';
    }
    const char *slash = strrchr(trimmed, '/'), *base = slash ? slash + 1 : trimmed;
    if (strlen(trimmed) + strlen(base) > EXPORT_PATH_BYTES - 64) { // names of shards have it twice
        free(trimmed);
        return error_set(error, STATUS_LIMIT, output, NOWHERE, NOWHERE, "the path is too long");
    }
    enum status status = begin(trimmed, force, &partial, error);
    if (status == STATUS_OK) {
        target->directory = partial;
        target->name = base;
        status = fill(target, form, progress, error);
        if (status == STATUS_OK) {
            status = output_replace(partial, trimmed, error);
        }
        if (status != STATUS_OK) {
            output_remove(partial, NULL);
        }
    }
    target->directory = target->name = NULL;
    free(partial);
    free(trimmed);
    return status;
}
