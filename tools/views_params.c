// Parameter files: JSON through jansson, checked member by member when read.
#include "tools/views_params.h"

#include "formats/file.h"
#include "tools/json_text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_PARAMS_BYTES (UINT64_C(64) << 20) // about 60,000 views
#define FLOAT_DIGITS       9                    // enough for every float32 to come back as itself

// --- writing -------------------------------------------------------------------------------------

static json_t *view_object(const struct sheet_view *view)
{
    char *text;
    if (view_to_json(&view->params, &text, NULL) != STATUS_OK) {
        return NULL;
    }
    json_t *params = json_loads(text, 0, NULL);
    free(text);
    return json_pack("{s:I, s:I, s:o}", "epoch", (json_int_t)view->epoch, "view",
                     (json_int_t)view->view, "params", params);
}

static json_t *row_object(const struct sheet_row *row)
{
    json_t *views = json_array();
    int failed = views == NULL;
    for (size_t i = 0; i < row->count; i++) {
        failed |= json_array_append_new(views, view_object(&row->views[i]));
    }
    json_t *object = json_pack("{s:I, s:s, s:I, s:I, s:o}", "record", (json_int_t)row->record,
                               "name", row->name, "width", (json_int_t)row->width, "height",
                               (json_int_t)row->height, "views", views);
    if (row->label[0]) {
        failed |= json_object_set_new(object, "variant", json_text(row->label));
    }
    if (failed) {
        json_decref(object);
        return NULL;
    }
    return object;
}

enum status views_params_write(const struct views_params *params, const struct sheet *sheet,
                               char **json, struct error *error)
{
    json_t *inputs = json_array(), *records = json_array();
    int failed = 0;
    for (size_t i = 0; i < params->input_count; i++) {
        failed |= json_array_append_new(inputs, json_string(params->inputs[i]));
    }
    for (size_t i = 0; i < sheet->count; i++) {
        failed |= json_array_append_new(records, row_object(&sheet->rows[i]));
    }
    json_t *root = json_pack("{s:s, s:I, s:o, s:o}", "recipe", params->recipe, "seed",
                             (json_int_t)params->seed, "inputs", inputs, "records", records);
    *json = NULL;
    if (!failed && root) {
        *json = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(FLOAT_DIGITS));
    }
    json_decref(root);
    return *json ? STATUS_OK
                 : error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                             "parameters cannot be written as JSON: a name is not UTF-8, or there "
                             "is no memory");
}

// --- reading -------------------------------------------------------------------------------------

// Where in the file the reader is, for messages.
struct place {
    const char *path;
    size_t record, view;
};

static enum status refuse(const struct place *place, struct error *error, const char *what)
{
    return error_set(error, STATUS_CONFIG, place->path, NOWHERE, NOWHERE,
                     "records[%zu].views[%zu]: %s", place->record, place->view, what);
}

static bool read_integer(const json_t *object, const char *key, json_int_t most, json_int_t *out)
{
    const json_t *value = json_object_get(object, key);
    *out = json_integer_value(value);
    return json_is_integer(value) && *out >= 0 && *out <= most;
}

static enum status read_view(const struct place *place, const json_t *json, struct sheet_view *view,
                             struct error *error)
{
    json_int_t epoch, number;
    if (!read_integer(json, "epoch", UINT32_MAX, &epoch) ||
        !read_integer(json, "view", RECIPE_MAX_VIEWS - 1, &number)) {
        return refuse(place, error, "needs 'epoch' and 'view' (0 or 1), whole numbers");
    }
    view->epoch = (uint32_t)epoch;
    view->view = (uint32_t)number;
    char *text = json_dumps(json_object_get(json, "params"), JSON_ENCODE_ANY);
    if (text == NULL) {
        return refuse(place, error, "has no 'params'");
    }
    struct error inner = {0};
    enum status status = view_from_json(text, strlen(text), &view->params, &inner);
    free(text);
    return status == STATUS_OK ? STATUS_OK : refuse(place, error, inner.reason);
}

static enum status read_row(struct place *place, const json_t *json, struct sheet_row *row,
                            struct error *error)
{
    json_int_t record, width, height;
    const json_t *views = json_object_get(json, "views");
    const char *name = json_string_value(json_object_get(json, "name"));
    if (!read_integer(json, "record", INT64_MAX, &record) ||
        !read_integer(json, "width", UINT32_MAX, &width) ||
        !read_integer(json, "height", UINT32_MAX, &height) || name == NULL ||
        json_array_size(views) == 0) {
        return refuse(place, error,
                      "the record needs 'record', 'name', 'width', 'height', 'views'");
    }
    row->record = (uint64_t)record;
    row->width = (uint32_t)width;
    row->height = (uint32_t)height;
    snprintf(row->name, sizeof row->name, "%s", name);
    const char *variant = json_string_value(json_object_get(json, "variant"));
    snprintf(row->label, sizeof row->label, "%s", variant ? variant : "");
    row->views = calloc(json_array_size(views), sizeof *row->views);
    if (row->views == NULL) {
        return error_set(error, STATUS_NO_MEMORY, place->path, NOWHERE, NOWHERE, "no memory");
    }
    row->count = json_array_size(views);
    for (place->view = 0; place->view < row->count; place->view++) {
        struct sheet_view *view = &row->views[place->view];
        enum status status = read_view(place, json_array_get(views, place->view), view, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status read_rows(const char *path, const json_t *records, struct sheet *sheet,
                             struct error *error)
{
    struct place place = {.path = path};
    if (json_array_size(records) == 0) {
        return refuse(&place, error, "there are no 'records'");
    }
    sheet->rows = calloc(json_array_size(records), sizeof *sheet->rows);
    if (sheet->rows == NULL) {
        return error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE, "no memory");
    }
    sheet->count = json_array_size(records);
    for (place.record = 0; place.record < sheet->count; place.record++) {
        struct sheet_row *row = &sheet->rows[place.record];
        place.view = 0;
        enum status status = read_row(&place, json_array_get(records, place.record), row, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    for (place.record = 0; place.record < sheet->count; place.record++) {
        const struct sheet_row *row = &sheet->rows[place.record];
        for (place.view = 0; place.view < row->count; place.view++) {
            uint32_t size = row->views[place.view].params.size;
            sheet->size = sheet->size ? sheet->size : size;
            if (size != sheet->size) {
                return refuse(&place, error, "every view must have the same 'size'");
            }
        }
    }
    return STATUS_OK;
}

static enum status read_inputs(const char *path, const json_t *inputs, struct views_params *params,
                               struct error *error)
{
    size_t count = json_array_size(inputs);
    params->inputs = calloc(count + 1, sizeof *params->inputs);
    for (size_t i = 0; params->inputs && i < count; i++) {
        const char *input = json_string_value(json_array_get(inputs, i));
        params->inputs[i] = input ? strdup(input) : NULL;
        if (params->inputs[i] == NULL) {
            return error_set(error, STATUS_CONFIG, path, NOWHERE, NOWHERE,
                             "'inputs' must be a list of paths");
        }
        params->input_count++;
    }
    return params->inputs ? STATUS_OK
                          : error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE, "no memory");
}

static enum status read_root(const char *path, const json_t *root, struct views_params *params,
                             struct sheet *sheet, struct error *error)
{
    const char *recipe = json_string_value(json_object_get(root, "recipe"));
    json_int_t seed;
    if (recipe == NULL || !read_integer(root, "seed", INT64_MAX, &seed)) {
        return error_set(error, STATUS_CONFIG, path, NOWHERE, NOWHERE,
                         "not a parameter file of 'byol views --params': needs 'recipe', 'seed', "
                         "'inputs' and 'records'");
    }
    snprintf(params->recipe, sizeof params->recipe, "%s", recipe);
    params->seed = (uint64_t)seed;
    enum status status = read_inputs(path, json_object_get(root, "inputs"), params, error);
    if (status == STATUS_OK) {
        status = read_rows(path, json_object_get(root, "records"), sheet, error);
    }
    return status;
}

enum status views_params_read(const char *path, struct views_params *params, struct sheet *sheet,
                              struct error *error)
{
    uint8_t *bytes;
    size_t len;
    enum status status = file_read_all(path, LIMIT_PARAMS_BYTES, &bytes, &len, error);
    if (status != STATUS_OK) {
        return status;
    }
    json_error_t parse;
    json_t *root = json_loadb((const char *)bytes, len, JSON_REJECT_DUPLICATES, &parse);
    status = root ? read_root(path, root, params, sheet, error)
                  : error_set(error, STATUS_CONFIG, path, NOWHERE, NOWHERE, "line %d: %s",
                              parse.line, parse.text);
    json_decref(root);
    free(bytes);
    return status;
}

void views_params_free(struct views_params *params)
{
    for (size_t i = 0; i < params->input_count; i++) {
        free(params->inputs[i]);
    }
    free(params->inputs);
    *params = (struct views_params){0};
}
