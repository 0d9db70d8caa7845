// Reading and writing of weights as .safetensors files.
#include "trainer/weights/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- writing ---------------------------------------------------------------------------------

static uint64_t value_bytes(const struct weights_entry *entry)
{
    return entry->type == TENSOR_INT64 ? sizeof(int64_t) : sizeof(float);
}

static void fill(struct tensor *tensor, const struct weights_entry *entry,
                 const struct weights *weights, void *data)
{
    *tensor = (struct tensor){.name = entry->name,
                              .type = entry->type,
                              .dims = entry->dims,
                              .bytes = entry->count * value_bytes(entry),
                              .data = data};
    memcpy(tensor->shape, entry->shape, sizeof entry->shape);
    weights_take(weights, entry, data);
}

// Tensors with their values; wide values need their alignment, so each starts at a multiple of 8.
static enum status gather(struct tensor **tensors, uint8_t **values,
                          const struct weights_entry *entries, size_t count,
                          const struct weights *weights, struct error *error)
{
    uint64_t bytes = 0, at = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += (entries[i].count * value_bytes(&entries[i]) + 7) / 8 * 8;
    }
    *tensors = calloc(count + 1, sizeof **tensors);
    *values = malloc(bytes + 1);
    if (*tensors == NULL || *values == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a copy of %zu tensors", count);
    }
    for (size_t i = 0; i < count; i++) {
        fill(&(*tensors)[i], &entries[i], weights, *values + at);
        at += ((*tensors)[i].bytes + 7) / 8 * 8;
    }
    return STATUS_OK;
}

enum status weights_write(const char *path, const struct weights *weights, enum weights_names names,
                          const char *branch, const struct tensor_metadata *metadata,
                          size_t metadata_count, struct error *error)
{
    struct weights_entry *entries = NULL;
    struct tensor *tensors = NULL;
    uint8_t *values = NULL;
    size_t count = 0;
    enum status status = weights_list(&entries, &count, weights->graph, names, branch, error);
    if (status == STATUS_OK) {
        status = gather(&tensors, &values, entries, count, weights, error);
    }
    if (status == STATUS_OK) {
        status = safetensors_write(path, tensors, count, metadata, metadata_count, error);
    }
    free(values);
    free(tensors);
    free(entries);
    return status;
}

// --- reading ---------------------------------------------------------------------------------

// Names of one kind: "missing a, b, and 7 more", as many as a third of a message holds.
struct complaints {
    char text[136];
    size_t len, count, left;
};

static void complain(struct complaints *complaints, const char *name)
{
    size_t room = sizeof complaints->text - complaints->len, len = strlen(name) + 2;
    complaints->count++;
    if (complaints->left > 0 || len >= room) {
        complaints->left++;
        return;
    }
    snprintf(complaints->text + complaints->len, room, "%s%s", complaints->len > 0 ? ", " : "",
             name);
    complaints->len = strlen(complaints->text);
}

static size_t told(char *text, size_t capacity, const char *kind,
                   const struct complaints *complaints)
{
    char left[32] = "";
    if (complaints->count == 0) {
        text[0] = '\0';
        return 0;
    }
    if (complaints->left > 0) {
        snprintf(left, sizeof left, "%s%zu more", complaints->len > 0 ? ", and " : "",
                 complaints->left);
    }
    return (size_t)snprintf(text, capacity, "; %s %s%s", kind, complaints->text, left);
}

static enum status refuse(const struct complaints *missing, const struct complaints *misfits,
                          const struct complaints *unknown, const char *path, struct error *error)
{
    char text[3][sizeof missing->text + 64];
    size_t len = told(text[0], sizeof text[0], "missing", missing);
    len += told(text[1], sizeof text[1], "of another shape or type", misfits);
    len += told(text[2], sizeof text[2], "not known", unknown);
    return len == 0 ? STATUS_OK
                    : error_set(error, STATUS_UNSUPPORTED, path, NOWHERE, NOWHERE,
                                "not this network%s%s%s", text[0], text[1], text[2]);
}

static const char *shape_text(char text[96], unsigned dims, const uint64_t *shape)
{
    size_t len = (size_t)snprintf(text, 96, "[");
    for (unsigned i = 0; i < dims && len < 80; i++) {
        len += (size_t)snprintf(text + len, 96 - len, "%s%llu", i ? "," : "",
                                (unsigned long long)shape[i]);
    }
    snprintf(text + len, 96 - len, "]");
    return text;
}

static bool fits(const struct tensor *tensor, const struct weights_entry *entry)
{
    bool same = tensor->type == entry->type && tensor->dims == entry->dims;
    for (unsigned i = 0; same && i < entry->dims; i++) {
        same = tensor->shape[i] == entry->shape[i];
    }
    return same && tensor->bytes == entry->count * value_bytes(entry);
}

static void read_entry(const struct weights *weights, const struct weights_entry *entry,
                       const struct safetensors *file, struct complaints *missing,
                       struct complaints *misfits)
{
    const struct tensor *tensor = safetensors_find(file, entry->name);
    if (tensor == NULL) {
        if (entry->piece != WEIGHTS_COUNT) {
            complain(missing, entry->name);
        }
    } else if (!fits(tensor, entry)) {
        char text[300], has[96], wants[96];
        snprintf(text, sizeof text, "%s %s for %s", entry->name,
                 shape_text(has, tensor->dims, tensor->shape),
                 shape_text(wants, entry->dims, entry->shape));
        complain(misfits, text);
    } else {
        weights_put(weights, entry, tensor->data);
    }
}

// Modules of a file that a network may be without, by the first name in theirs.
static const struct {
    const char *torch, *ours;
} parts[] = {{"fc", "classifier"}, {"projector", "projector"}, {"predictor", "predictor"}};
#define PARTS (sizeof parts / sizeof parts[0])

static bool has_part(const struct graph *graph, size_t part)
{
    static const char *const outputs[PARTS] = {"logits", "projection", "prediction"};
    return graph_output_find(graph, outputs[part]) != NULL;
}

static bool belongs(const char *name, enum weights_names names, const char *branch, size_t part)
{
    char start[64];
    if (names == WEIGHTS_TORCHVISION) {
        snprintf(start, sizeof start, "%s.", parts[part].torch);
        return strncmp(name, start, strlen(start)) == 0;
    }
    name = strncmp(name, "state/", 6) == 0 ? name + 6 : name;
    snprintf(start, sizeof start, "%s/%s/", branch, parts[part].ours);
    return strncmp(name, start, strlen(start)) == 0;
}

static int by_name(const void *left, const void *right)
{
    return strcmp(((const struct weights_entry *)left)->name,
                  ((const struct weights_entry *)right)->name);
}

static int by_its_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct weights_entry *)entry)->name);
}

// What the file has beyond the entries, which are sorted by name.
static void read_rest(const struct weights_entry *entries, size_t count,
                      const struct safetensors *file, const struct graph *graph,
                      enum weights_names names, const char *branch, struct complaints *unknown,
                      bool passed_over[PARTS])
{
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const char *name = safetensors_at(file, i)->name;
        if (bsearch(name, entries, count, sizeof *entries, by_its_name) != NULL) {
            continue;
        }
        size_t part = 0;
        while (part < PARTS && (has_part(graph, part) || !belongs(name, names, branch, part))) {
            part++;
        }
        if (part < PARTS) {
            passed_over[part] = true;
        } else {
            complain(unknown, name);
        }
    }
}

static void tell_left_out(const bool passed_over[PARTS], char *left_out, size_t capacity)
{
    if (left_out == NULL) {
        return;
    }
    left_out[0] = '\0';
    for (size_t part = 0; part < PARTS; part++) {
        size_t len = strlen(left_out);
        if (passed_over[part]) {
            snprintf(left_out + len, capacity - len, "%s%s", len ? ", " : "", parts[part].torch);
        }
    }
}

enum status weights_read(const struct weights *weights, const struct safetensors *file,
                         const char *path, enum weights_names names, const char *branch,
                         enum weights_rest rest, char *left_out, size_t capacity,
                         struct error *error)
{
    struct weights_entry *entries = NULL;
    size_t count = 0;
    struct complaints missing = {0}, misfits = {0}, unknown = {0};
    bool passed_over[PARTS] = {false};
    enum status status = weights_list(&entries, &count, weights->graph, names, branch, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        read_entry(weights, &entries[i], file, &missing, &misfits);
    }
    if (rest == WEIGHTS_REST_REFUSED) {
        qsort(entries, count, sizeof *entries, by_name);
        read_rest(entries, count, file, weights->graph, names, branch, &unknown, passed_over);
    }
    free(entries);
    tell_left_out(passed_over, left_out, capacity);
    status = refuse(&missing, &misfits, &unknown, path, error);
    if (status == STATUS_OK && names == WEIGHTS_TORCHVISION) {
        weights_complete_state(weights);
    }
    return status;
}

enum weights_names weights_names_of(const struct safetensors *file)
{
    for (size_t i = 0; i < safetensors_count(file); i++) {
        if (strchr(safetensors_at(file, i)->name, '/') != NULL) {
            return WEIGHTS_BYOL;
        }
    }
    return WEIGHTS_TORCHVISION;
}
