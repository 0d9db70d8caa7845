// Features, labels and names of a dataset as files that NumPy and everything else can read.
#include "tools/eval_export.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"
#include "formats/npy.h"
#include "tools/json_text.h"
#include "tools/output.h"

static enum status no_memory(const char *directory, struct error *error)
{
    return error_errno(error, ENOMEM, directory, NOWHERE, "allocate memory for the export");
}

static enum status write_array(const char *directory, const char *name, struct npy *array,
                               struct error *error)
{
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0) {
        return no_memory(directory, error);
    }
    enum status status = npy_write(path, array, error);
    free(path);
    return status;
}

static enum status write_rows(const char *directory, const char *name, float *values,
                              uint64_t count, uint32_t width, struct error *error)
{
    struct npy array = {.type = NPY_FLOAT32, .dims = 2, .shape = {count, width}, .data = values};
    return write_array(directory, name, &array, error);
}

static json_t *describe(const struct dataset *dataset, const char *checkpoint)
{
    json_t *object = json_object(), *classes = json_array(), *names = json_array();
    json_object_set_new(object, "dataset", json_text(dataset_directory(dataset)));
    json_object_set_new(object, "checkpoint", json_text(checkpoint));
    json_object_set_new(object, "classes", classes);
    json_object_set_new(object, "names", names);
    for (uint32_t i = 0; i < dataset_class_count(dataset); i++) {
        json_array_append_new(classes, json_text(dataset_class_name(dataset, i)));
    }
    for (uint64_t i = 0; i < dataset_count(dataset); i++) {
        json_array_append_new(names, json_text(dataset_record_name(dataset, i)));
    }
    return object;
}

static enum status write_records(const char *directory, const struct dataset *dataset,
                                 const char *checkpoint, struct error *error)
{
    json_t *object = describe(dataset, checkpoint);
    char *text = json_dumps(object, JSON_INDENT(0) | JSON_ENSURE_ASCII), *path = NULL;
    json_decref(object);
    if (text == NULL || asprintf(&path, "%s/records.json", directory) < 0) {
        free(text);
        return no_memory(directory, error);
    }
    enum status status = file_write_durably(path, text, strlen(text), error);
    free(text);
    free(path);
    return status;
}

static enum status write_all(const char *directory, const struct features *features,
                             const struct dataset *dataset, const char *checkpoint,
                             struct error *error)
{
    uint64_t count = features->count;
    struct npy labels = {.type = NPY_INT32, .dims = 1, .shape = {count}, .data = features->labels};
    enum status status =
        write_rows(directory, "features.npy", features->values, count, features->width, error);
    if (status == STATUS_OK && features->projections) {
        status = write_rows(directory, "projections.npy", features->projections, count,
                            features->projection_width, error);
    }
    if (status == STATUS_OK) {
        status = write_array(directory, "labels.npy", &labels, error);
    }
    return status == STATUS_OK ? write_records(directory, dataset, checkpoint, error) : status;
}

enum status export_features(const char *directory, const struct features *features,
                            const struct dataset *dataset, const char *checkpoint,
                            struct error *error)
{
    char *partial;
    enum status status = output_begin(directory, &partial, error);
    if (status != STATUS_OK) {
        free(partial);
        return status;
    }
    status = write_all(partial, features, dataset, checkpoint, error);
    if (status == STATUS_OK) {
        status = output_finish(partial, directory, error);
    }
    if (status != STATUS_OK) {
        output_remove(partial, NULL);
    }
    free(partial);
    return status;
}
