// Reading of .safetensors files. Nothing in the file is trusted before it was checked: first the
// header's length, then its text, then its checksum, then each tensor's description, then that the
// tensors cover the data exactly, then the tensors' checksums.
#include "formats/safetensors.h"
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/safetensors_layout.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#define FILE_LIMIT (UINT64_C(16) << 30) // a checkpoint of a billion parameters

struct entry {
    struct tensor tensor;
    uint64_t begin, end; // in the data
    void *copy;          // aligned copy of the data, where the file's own place is not aligned
};

struct safetensors {
    const char *path; // while opening
    uint8_t *bytes;   // the whole file
    size_t len, header_len;
    json_t *root;
    struct entry *entries;
    size_t count;
    bool verified;
};

static enum status corrupt(const struct safetensors *file, uint64_t offset, struct error *error,
                           const char *reason, const char *name)
{
    return error_set(error, STATUS_CORRUPT, file->path, offset, NOWHERE, "%s%s%s%s", reason,
                     name ? " '" : "", name ? name : "", name ? "'" : "");
}

// --- the header ----------------------------------------------------------------------------------

static enum status find_header(struct safetensors *file, struct error *error)
{
    if (file->len < SAFETENSORS_PREFIX) {
        return error_set(error, STATUS_TRUNCATED, file->path, file->len, NOWHERE,
                         "too short for a .safetensors file");
    }
    uint64_t header_len = 0;
    for (int i = SAFETENSORS_PREFIX - 1; i >= 0; i--) {
        header_len = header_len << 8 | file->bytes[i];
    }
    if (header_len > LIMIT_TENSOR_HEADER_BYTES) {
        return error_set(error, STATUS_LIMIT, file->path, 0, NOWHERE,
                         "a header of %llu bytes is above the limit of %llu; or this is no "
                         ".safetensors file",
                         (unsigned long long)header_len,
                         (unsigned long long)LIMIT_TENSOR_HEADER_BYTES);
    }
    if (header_len > file->len - SAFETENSORS_PREFIX) {
        return error_set(error, STATUS_TRUNCATED, file->path, file->len, NOWHERE,
                         "ends inside its header");
    }
    file->header_len = (size_t)header_len;
    return STATUS_OK;
}

static const uint8_t *header_of(const struct safetensors *file)
{
    return file->bytes + SAFETENSORS_PREFIX;
}

static uint64_t data_start(const struct safetensors *file)
{
    return SAFETENSORS_PREFIX + file->header_len;
}

// The header's checksum as it should read; "" when the header names none.
static void compute_header_crc(const struct safetensors *file,
                               char text[SAFETENSORS_CRC_DIGITS + 1], const uint8_t **digits)
{
    const uint8_t *header = header_of(file);
    *digits = safetensors_crc_digits(header, file->header_len);
    text[0] = '\0';
    if (*digits != NULL) {
        safetensors_format_crc(
            safetensors_header_crc(file->bytes, header, file->header_len, *digits), text);
    }
}

// jansson tells a lack of memory as damage. Its allocations pass here, so that we know.
static json_malloc_t json_allocate;
static _Thread_local bool out_of_memory;

static void *watch_allocation(size_t len)
{
    void *memory = json_allocate(len);
    out_of_memory = out_of_memory || memory == NULL;
    return memory;
}

static void watch_allocations(void)
{
    json_free_t release;
    json_get_alloc_funcs(&json_allocate, &release);
    json_set_alloc_funcs(watch_allocation, release);
}

static enum status parse_text(struct safetensors *file, struct error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_allocations);
    json_error_t problem = {.text = "'{' expected"};
    const char *text = (const char *)header_of(file);
    out_of_memory = false;
    if (file->header_len > 0 && text[0] == '{') {
        file->root = json_loadb(text, file->header_len, JSON_REJECT_DUPLICATES, &problem);
    }
    if (file->root != NULL) {
        return STATUS_OK;
    }
    if (out_of_memory) {
        return error_set(error, STATUS_NO_MEMORY, file->path, NOWHERE, NOWHERE,
                         "no memory for the header");
    }
    return error_set(error, STATUS_CORRUPT, file->path,
                     SAFETENSORS_PREFIX + (uint64_t)problem.position, NOWHERE,
                     "the header is not JSON: %s", problem.text);
}

static enum status parse_header(struct safetensors *file, struct error *error)
{
    enum status status = parse_text(file, error);
    if (status != STATUS_OK) {
        return status;
    }
    json_t *metadata = json_object_get(file->root, SAFETENSORS_METADATA);
    if (metadata != NULL && !json_is_object(metadata)) {
        return corrupt(file, NOWHERE, error, "the metadata is no table", NULL);
    }
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value)) {
            return corrupt(file, NOWHERE, error, "not a text in the metadata:", key);
        }
    }
    return STATUS_OK;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    return json_string_value(
        json_object_get(json_object_get(file->root, SAFETENSORS_METADATA), key));
}

// Upper-case digits are refused too: they would be a flipped bit.
static enum status check_header_crc(struct safetensors *file, struct error *error)
{
    const char *claimed = safetensors_metadata(file, SAFETENSORS_CRC);
    if (claimed == NULL) {
        return STATUS_OK;
    }
    const uint8_t *digits;
    char text[SAFETENSORS_CRC_DIGITS + 1];
    compute_header_crc(file, text, &digits);
    if (strcmp(claimed, text) != 0) {
        return error_set(error, STATUS_CORRUPT, file->path, SAFETENSORS_PREFIX, NOWHERE,
                         "the header's checksum is %s, expected %.16s", text, claimed);
    }
    file->verified = true;
    return STATUS_OK;
}

// --- the tensors' descriptions -------------------------------------------------------------------

static enum status read_type(const struct safetensors *file, const json_t *description,
                             struct tensor *tensor, struct error *error)
{
    const char *name = json_string_value(json_object_get(description, "dtype"));
    if (name == NULL) {
        return corrupt(file, NOWHERE, error, "no dtype for the tensor", tensor->name);
    }
    for (int i = 0; i < SAFETENSORS_TYPES; i++) {
        if (strcmp(name, safetensors_types[i].name) == 0) {
            tensor->type = (enum tensor_type)i;
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_UNSUPPORTED, file->path, NOWHERE, NOWHERE,
                     "tensor '%s' has dtype %.16s; F32, I64 and U8 are read", tensor->name, name);
}

static bool read_count(const json_t *value, uint64_t *count)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *count = (uint64_t)json_integer_value(value);
    return true;
}

static enum status read_shape(const struct safetensors *file, const json_t *description,
                              struct tensor *tensor, struct error *error)
{
    const json_t *shape = json_object_get(description, "shape");
    if (!json_is_array(shape)) {
        return corrupt(file, NOWHERE, error, "no shape for the tensor", tensor->name);
    }
    size_t dims = json_array_size(shape);
    if (dims > LIMIT_TENSOR_DIMS) {
        return error_set(error, STATUS_LIMIT, file->path, NOWHERE, NOWHERE,
                         "tensor '%s' has %zu dimensions, the limit is %u", tensor->name, dims,
                         LIMIT_TENSOR_DIMS);
    }
    tensor->dims = (unsigned)dims;
    for (size_t i = 0; i < dims; i++) {
        if (!read_count(json_array_get(shape, i), &tensor->shape[i])) {
            return corrupt(file, NOWHERE, error, "bad shape of the tensor", tensor->name);
        }
    }
    if (!safetensors_size(tensor, &tensor->bytes)) {
        return corrupt(file, NOWHERE, error, "impossible shape of the tensor", tensor->name);
    }
    return STATUS_OK;
}

static enum status read_offsets(const struct safetensors *file, const json_t *description,
                                struct entry *entry, struct error *error)
{
    const json_t *offsets = json_object_get(description, "data_offsets");
    uint64_t room = file->len - data_start(file);
    if (json_array_size(offsets) != 2 || !read_count(json_array_get(offsets, 0), &entry->begin) ||
        !read_count(json_array_get(offsets, 1), &entry->end) || entry->begin > entry->end) {
        return corrupt(file, NOWHERE, error, "bad offsets of the tensor", entry->tensor.name);
    }
    if (entry->end - entry->begin != entry->tensor.bytes) {
        return corrupt(file, NOWHERE, error, "shape and length differ for the tensor",
                       entry->tensor.name);
    }
    if (entry->end > room) {
        return error_set(error, STATUS_TRUNCATED, file->path, file->len, NOWHERE,
                         "ends before tensor '%s' does", entry->tensor.name);
    }
    return STATUS_OK;
}

static enum status read_entry(const struct safetensors *file, const char *name,
                              const json_t *description, struct entry *entry, struct error *error)
{
    if (!safetensors_name_valid(name)) {
        return error_set(error, STATUS_UNSUPPORTED, file->path, NOWHERE, NOWHERE,
                         "tensor name '%.200s' is not plain printable ASCII", name);
    }
    entry->tensor.name = name;
    if (!json_is_object(description) || json_object_size(description) != 3) {
        return corrupt(file, NOWHERE, error, "not dtype, shape and data_offsets for the tensor",
                       name);
    }
    enum status status = read_type(file, description, &entry->tensor, error);
    if (status == STATUS_OK) {
        status = read_shape(file, description, &entry->tensor, error);
    }
    if (status == STATUS_OK) {
        status = read_offsets(file, description, entry, error);
    }
    return status;
}

static enum status read_entries(struct safetensors *file, struct error *error)
{
    file->entries = calloc(json_object_size(file->root) + 1, sizeof *file->entries);
    if (file->entries == NULL) {
        return error_set(error, STATUS_NO_MEMORY, file->path, NOWHERE, NOWHERE,
                         "no memory for the tensors' descriptions");
    }
    const char *name;
    json_t *description;
    json_object_foreach(file->root, name, description)
    {
        if (strcmp(name, SAFETENSORS_METADATA) != 0) {
            enum status status =
                read_entry(file, name, description, &file->entries[file->count], error);
            if (status != STATUS_OK) {
                return status;
            }
            file->count++;
        }
    }
    return STATUS_OK;
}

// --- the data ------------------------------------------------------------------------------------

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->end != y->end) {
        return x->end < y->end ? -1 : 1;
    }
    return strcmp(x->tensor.name, y->tensor.name); // empty tensors at the same place
}

// The tensors in file order must cover the data without holes or overlaps.
static enum status check_cover(struct safetensors *file, struct error *error)
{
    if (file->count > 1) {
        qsort(file->entries, file->count, sizeof *file->entries, compare_entries);
    }
    uint64_t at = 0;
    for (size_t i = 0; i < file->count; i++) {
        const struct entry *entry = &file->entries[i];
        if (entry->begin != at) {
            return corrupt(file, data_start(file) + at, error,
                           entry->begin > at ? "a hole before the tensor" : "overlapping tensor",
                           entry->tensor.name);
        }
        at = entry->end;
    }
    if (at != file->len - data_start(file)) {
        return corrupt(file, data_start(file) + at, error, "bytes after the last tensor", NULL);
    }
    return STATUS_OK;
}

static enum status check_tensor_crc(struct safetensors *file, const struct entry *entry,
                                    bool *present, struct error *error)
{
    char key[sizeof SAFETENSORS_TENSOR_CRC + SAFETENSORS_NAME_BYTES];
    char text[SAFETENSORS_CRC_DIGITS + 1];
    snprintf(key, sizeof key, "%s%s", SAFETENSORS_TENSOR_CRC, entry->tensor.name);
    const char *claimed = safetensors_metadata(file, key);
    *present = claimed != NULL;
    if (claimed == NULL) {
        return STATUS_OK;
    }
    uint64_t offset = data_start(file) + entry->begin;
    safetensors_format_crc(crc32c(0, file->bytes + offset, (size_t)entry->tensor.bytes), text);
    if (strcmp(claimed, text) != 0) {
        return error_set(error, STATUS_CORRUPT, file->path, offset, NOWHERE,
                         "tensor '%s' has checksum %s, expected %.16s", entry->tensor.name, text,
                         claimed);
    }
    return STATUS_OK;
}

static enum status check_tensor_crcs(struct safetensors *file, struct error *error)
{
    bool all = true;
    for (size_t i = 0; i < file->count; i++) {
        bool present;
        enum status status = check_tensor_crc(file, &file->entries[i], &present, error);
        if (status != STATUS_OK) {
            return status;
        }
        all = all && present;
        if (present && !file->verified) { // its name was damaged: we write both kinds
            return corrupt(file, SAFETENSORS_PREFIX, error,
                           "the tensors have checksums, but the header has none", NULL);
        }
    }
    file->verified = file->verified && all;
    return STATUS_OK;
}

static enum status place_data(struct safetensors *file, struct error *error)
{
    for (size_t i = 0; i < file->count; i++) {
        struct entry *entry = &file->entries[i];
        uint8_t *data = file->bytes + data_start(file) + entry->begin;
        entry->tensor.data = data;
        if ((uintptr_t)data % safetensors_types[entry->tensor.type].size != 0) {
            entry->copy = malloc(entry->tensor.bytes ? (size_t)entry->tensor.bytes : 1);
            if (entry->copy == NULL) {
                return error_set(error, STATUS_NO_MEMORY, file->path, NOWHERE, NOWHERE,
                                 "no memory for tensor '%s'", entry->tensor.name);
            }
            memcpy(entry->copy, data, (size_t)entry->tensor.bytes);
            entry->tensor.data = entry->copy;
        }
    }
    return STATUS_OK;
}

// --- the file ------------------------------------------------------------------------------------

static enum status load(struct safetensors *file, struct error *error)
{
    static enum status (*const steps[])(struct safetensors *, struct error *) = {
        find_header, parse_header,      check_header_crc, read_entries,
        check_cover, check_tensor_crcs, place_data};
    enum status status = file_read_all(file->path, FILE_LIMIT, &file->bytes, &file->len, error);
    for (size_t i = 0; i < sizeof steps / sizeof *steps && status == STATUS_OK; i++) {
        status = steps[i](file, error);
    }
    return status;
}

enum status safetensors_open(struct safetensors **out, const char *path, struct error *error)
{
    *out = NULL;
    struct safetensors *file = calloc(1, sizeof *file);
    if (file == NULL) {
        return error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE, "no memory for a file");
    }
    file->path = path;
    enum status status = load(file, error);
    file->path = NULL; // the caller's string may go
    if (status != STATUS_OK) {
        safetensors_close(&file);
    }
    *out = file;
    return status;
}

void safetensors_close(struct safetensors **file)
{
    if (*file == NULL) {
        return;
    }
    for (size_t i = 0; i < (*file)->count; i++) {
        free((*file)->entries[i].copy);
    }
    free((*file)->entries);
    json_decref((*file)->root);
    free((*file)->bytes);
    free(*file);
    *file = NULL;
}

bool safetensors_verified(const struct safetensors *file)
{
    return file->verified;
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct tensor *safetensors_at(const struct safetensors *file, size_t index)
{
    return index < file->count ? &file->entries[index].tensor : NULL;
}

const struct tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->entries[i].tensor.name, name) == 0) {
            return &file->entries[i].tensor;
        }
    }
    return NULL;
}
