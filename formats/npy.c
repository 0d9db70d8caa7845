// Reading and writing of .npy arrays.
#include "formats/npy.h"
#include "formats/file.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NPY_LIMIT  (UINT64_C(4) << 30)
#define NPY_PREFIX 10 // magic, version, header length

static const uint8_t magic[8] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0}; // version 1.0

static const char *const type_names[] = {
    [NPY_FLOAT32] = "<f4", [NPY_UINT8] = "|u1", [NPY_INT32] = "<i4", [NPY_INT64] = "<i8"};

size_t npy_type_size(enum npy_type type)
{
    static const size_t sizes[] = {
        [NPY_FLOAT32] = 4, [NPY_UINT8] = 1, [NPY_INT32] = 4, [NPY_INT64] = 8};
    return sizes[type];
}

static bool parse_type(const char *header, enum npy_type *type)
{
    const char *at = strstr(header, "'descr':");
    if (at == NULL || (at = strchr(at + 8, '\'')) == NULL) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        if (strncmp(at + 1, type_names[i], 3) == 0) {
            *type = (enum npy_type)i;
            return true;
        }
    }
    return false;
}

// "'shape': (3, 4), }" and "()" for a scalar.
static bool parse_shape(const char *header, struct npy *out)
{
    const char *at = strstr(header, "'shape':");
    if (at == NULL || (at = strchr(at, '(')) == NULL) {
        return false;
    }
    out->dims = 0;
    out->count = 1;
    for (at++; *at != ')' && *at != '\0';) {
        char *end;
        unsigned long long side = strtoull(at, &end, 10);
        if (end == at || out->dims == NPY_MAX_DIMS || (side && out->count > NPY_LIMIT / side)) {
            return false;
        }
        out->shape[out->dims++] = side;
        out->count *= side;
        at = end + strspn(end, ", ");
    }
    return *at == ')';
}

static enum status parse(const char *path, const uint8_t *bytes, size_t len, struct npy *out,
                         struct error *error)
{
    if (len < NPY_PREFIX || memcmp(bytes, magic, sizeof magic) != 0) {
        return error_set(error, STATUS_UNSUPPORTED, path, 0, NOWHERE,
                         "not a version 1.0 .npy file");
    }
    size_t header_len = (size_t)(bytes[8] | bytes[9] << 8);
    if (len - NPY_PREFIX < header_len) {
        return error_set(error, STATUS_TRUNCATED, path, 8, NOWHERE, "ends inside its header");
    }
    char header[4096];
    if (header_len >= sizeof header) {
        return error_set(error, STATUS_LIMIT, path, 8, NOWHERE, "header of %zu bytes", header_len);
    }
    memcpy(header, bytes + NPY_PREFIX, header_len);
    header[header_len] = '\0';
    if (!parse_type(header, &out->type) || strstr(header, "'fortran_order': False") == NULL) {
        return error_set(error, STATUS_UNSUPPORTED, path, NPY_PREFIX, NOWHERE,
                         "only little-endian float32, uint8, int32 and int64 in C order are read");
    }
    if (!parse_shape(header, out)) {
        return error_set(error, STATUS_CORRUPT, path, NPY_PREFIX, NOWHERE,
                         "its shape cannot be read");
    }
    size_t payload = (size_t)out->count * npy_type_size(out->type);
    if (len - NPY_PREFIX - header_len != payload) {
        return error_set(error, STATUS_TRUNCATED, path, NPY_PREFIX + header_len, NOWHERE,
                         "holds %zu bytes of data, its shape needs %zu",
                         len - NPY_PREFIX - header_len, payload);
    }
    out->data = malloc(payload ? payload : 1);
    if (out->data == NULL) {
        return error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE, "no memory for %zu bytes",
                         payload);
    }
    memcpy(out->data, bytes + NPY_PREFIX + header_len, payload);
    return STATUS_OK;
}

enum status npy_read(const char *path, struct npy *out, struct error *error)
{
    uint8_t *bytes;
    size_t len;
    *out = (struct npy){0};
    enum status status = file_read_all(path, NPY_LIMIT, &bytes, &len, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = parse(path, bytes, len, out, error);
    free(bytes);
    return status;
}

void npy_free(struct npy *array)
{
    free(array->data);
    *array = (struct npy){0};
}

// The header is padded with spaces so that the data starts at a multiple of 64, as numpy writes it.
static size_t format_header(const struct npy *array, char *header, size_t capacity)
{
    char shape[256] = "";
    size_t used = 0;
    for (unsigned i = 0; i < array->dims; i++) {
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%llu%s", i ? " " : "",
                                 (unsigned long long)array->shape[i],
                                 i + 1 < array->dims || array->dims == 1 ? "," : "");
    }
    int len = snprintf(header + NPY_PREFIX, capacity - NPY_PREFIX,
                       "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                       type_names[array->type], shape);
    size_t total = (NPY_PREFIX + (size_t)len + 1 + 63) / 64 * 64;
    memset(header + NPY_PREFIX + len, ' ', total - NPY_PREFIX - (size_t)len);
    header[total - 1] = '\n';
    memcpy(header, magic, sizeof magic);
    header[8] = (char)((total - NPY_PREFIX) & 0xff);
    header[9] = (char)((total - NPY_PREFIX) >> 8);
    return total;
}

enum status npy_write(const char *path, const struct npy *array, struct error *error)
{
    char header[1024];
    size_t header_len = format_header(array, header, sizeof header);
    size_t count = 1;
    for (unsigned i = 0; i < array->dims; i++) {
        count *= (size_t)array->shape[i];
    }
    struct file_replace file;
    enum status status = file_replace_open(&file, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    if ((status = file_replace_write(&file, header, header_len, error)) == STATUS_OK &&
        (status = file_replace_write(&file, array->data, count * npy_type_size(array->type),
                                     error)) == STATUS_OK) {
        status = file_replace_commit(&file, error);
    }
    file_replace_abort(&file);
    return status;
}
