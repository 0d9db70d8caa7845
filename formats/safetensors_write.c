// Writing of .safetensors files: header with checksums, data, and a second look at every byte
// before the file takes its name.
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/name.h"
#include "formats/safetensors_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#define DATA_ALIGNMENT 64         // of the first tensor in the file
#define READ_BACK      (1u << 20) // bytes at a time

struct writer {
    const char *path;
    const struct tensor *tensors;
    size_t tensor_count;
    const struct tensor_metadata *metadata;
    size_t metadata_count;

    uint32_t *crcs;     // [tensor_count]
    json_t *root;       // the header
    uint8_t *header;    // its length and its text, as in the file
    size_t header_len;  // both together
    uint8_t *read_back; // [READ_BACK]
    struct file_replace file;
};

static enum status no_memory(const struct writer *writer, struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, writer->path, NOWHERE, NOWHERE,
                     "no memory for the header");
}

// --- the header ----------------------------------------------------------------------------------

static enum status check_tensor(const struct writer *writer, const struct tensor *tensor,
                                struct error *error)
{
    uint64_t bytes;
    if (tensor->name == NULL || !safetensors_name_valid(tensor->name)) {
        return error_set(error, STATUS_INVALID, writer->path, NOWHERE, NOWHERE,
                         "'%.200s' cannot be a tensor's name", tensor->name ? tensor->name : "");
    }
    if ((unsigned)tensor->type >= SAFETENSORS_TYPES || tensor->dims > LIMIT_TENSOR_DIMS ||
        !safetensors_size(tensor, &bytes) || bytes != tensor->bytes ||
        (bytes > 0 && tensor->data == NULL)) {
        return error_set(error, STATUS_INVALID, writer->path, NOWHERE, NOWHERE,
                         "type, shape, length and data of tensor '%s' do not fit together",
                         tensor->name);
    }
    return STATUS_OK;
}

// Adds a text under a new key.
static enum status add_text(const struct writer *writer, json_t *table, const char *key,
                            const char *text, struct error *error)
{
    const char *fault = name_text_fault(key, strlen(key));
    fault = fault ? fault : name_text_fault(text, strlen(text));
    if (fault != NULL || json_object_get(table, key) != NULL) {
        return error_set(error, STATUS_INVALID, writer->path, NOWHERE, NOWHERE,
                         "metadata '%.100s' %s", key, fault ? fault : "is there twice");
    }
    if (json_object_set_new_nocheck(table, key, json_string_nocheck(text)) != 0) {
        return no_memory(writer, error);
    }
    return STATUS_OK;
}

static enum status add_metadata(struct writer *writer, struct error *error)
{
    json_t *table = json_object();
    if (table == NULL || json_object_set_new(writer->root, SAFETENSORS_METADATA, table) != 0) {
        return no_memory(writer, error);
    }
    enum status status = add_text(writer, table, SAFETENSORS_CRC, "        ", error);
    for (size_t i = 0; i < writer->tensor_count && status == STATUS_OK; i++) {
        char key[sizeof SAFETENSORS_TENSOR_CRC + SAFETENSORS_NAME_BYTES];
        char text[SAFETENSORS_CRC_DIGITS + 1];
        snprintf(key, sizeof key, "%s%s", SAFETENSORS_TENSOR_CRC, writer->tensors[i].name);
        safetensors_format_crc(writer->crcs[i], text);
        status = add_text(writer, table, key, text, error);
    }
    for (size_t i = 0; i < writer->metadata_count && status == STATUS_OK; i++) {
        const struct tensor_metadata *entry = &writer->metadata[i];
        status = add_text(writer, table, entry->key, entry->value, error);
    }
    return status;
}

static enum status add_tensors(struct writer *writer, struct error *error)
{
    uint64_t begin = 0;
    for (size_t i = 0; i < writer->tensor_count; i++) {
        const struct tensor *tensor = &writer->tensors[i];
        json_t *shape = json_array();
        for (unsigned j = 0; j < tensor->dims; j++) {
            if (json_array_append_new(shape, json_integer((json_int_t)tensor->shape[j])) != 0) {
                json_decref(shape);
                return no_memory(writer, error);
            }
        }
        uint64_t end = begin + tensor->bytes;
        json_t *description =
            json_pack("{s:s, s:o, s:[I,I]}", "dtype", safetensors_types[tensor->type].name, "shape",
                      shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
        if (description == NULL ||
            json_object_set_new(writer->root, tensor->name, description) != 0) {
            return no_memory(writer, error);
        }
        begin = end;
    }
    return STATUS_OK;
}

// Length, JSON, spaces up to the alignment; then the checksum goes into its place.
static enum status format_header(struct writer *writer, struct error *error)
{
    size_t len = json_dumpb(writer->root, NULL, 0, JSON_COMPACT);
    if (len == 0) {
        return no_memory(writer, error);
    }
    size_t total =
        (SAFETENSORS_PREFIX + len + DATA_ALIGNMENT - 1) / DATA_ALIGNMENT * DATA_ALIGNMENT;
    size_t padded = total - SAFETENSORS_PREFIX;
    if (padded > LIMIT_TENSOR_HEADER_BYTES) {
        return error_set(error, STATUS_LIMIT, writer->path, NOWHERE, NOWHERE,
                         "a header of %zu bytes is above the limit", padded);
    }
    writer->header = malloc(total);
    if (writer->header == NULL) {
        return no_memory(writer, error);
    }
    writer->header_len = total;
    uint8_t *json = writer->header + SAFETENSORS_PREFIX;
    for (int i = 0; i < SAFETENSORS_PREFIX; i++) {
        writer->header[i] = (uint8_t)((uint64_t)padded >> (8 * i));
    }
    if (json_dumpb(writer->root, (char *)json, len, JSON_COMPACT) != len) {
        return no_memory(writer, error);
    }
    memset(json + len, ' ', padded - len);
    const uint8_t *digits = safetensors_crc_digits(json, padded);
    char crc[SAFETENSORS_CRC_DIGITS + 1];
    safetensors_format_crc(safetensors_header_crc(writer->header, json, padded, digits), crc);
    memcpy(json + (digits - json), crc, SAFETENSORS_CRC_DIGITS);
    return STATUS_OK;
}

static enum status build_header(struct writer *writer, struct error *error)
{
    writer->crcs = calloc(writer->tensor_count, sizeof *writer->crcs);
    writer->read_back = malloc(READ_BACK);
    writer->root = json_object();
    if (writer->crcs == NULL || writer->read_back == NULL || writer->root == NULL) {
        return no_memory(writer, error);
    }
    uint64_t total = 0;
    for (size_t i = 0; i < writer->tensor_count; i++) {
        const struct tensor *tensor = &writer->tensors[i];
        enum status status = check_tensor(writer, tensor, error);
        if (status != STATUS_OK) {
            return status;
        }
        if (__builtin_add_overflow(total, tensor->bytes, &total) || total > INT64_MAX) {
            return error_set(error, STATUS_INVALID, writer->path, NOWHERE, NOWHERE,
                             "the tensors are longer than any file");
        }
        writer->crcs[i] = crc32c(0, tensor->data, (size_t)tensor->bytes);
    }
    enum status status = add_metadata(writer, error); // names that appear twice end here
    if (status == STATUS_OK) {
        status = add_tensors(writer, error);
    }
    if (status == STATUS_OK) {
        status = format_header(writer, error);
    }
    return status;
}

// --- the file ------------------------------------------------------------------------------------

static enum status write_everything(struct writer *writer, struct error *error)
{
    enum status status = file_replace_open(&writer->file, writer->path, error);
    if (status == STATUS_OK) {
        status = file_replace_write(&writer->file, writer->header, writer->header_len, error);
    }
    for (size_t i = 0; i < writer->tensor_count && status == STATUS_OK; i++) {
        const struct tensor *tensor = &writer->tensors[i];
        status = file_replace_write(&writer->file, tensor->data, (size_t)tensor->bytes, error);
    }
    return status;
}

// The checksum of a stretch of the file as it reads back.
static enum status checksum_back(struct writer *writer, uint64_t offset, uint64_t len,
                                 uint32_t *crc, struct error *error)
{
    *crc = 0;
    while (len > 0) {
        size_t part = len < READ_BACK ? (size_t)len : READ_BACK;
        enum status status =
            file_read_at(writer->file.fd, writer->path, writer->read_back, part, offset, error);
        if (status != STATUS_OK) {
            return status;
        }
        *crc = crc32c(*crc, writer->read_back, part);
        offset += part;
        len -= part;
    }
    return STATUS_OK;
}

static enum status check_back(struct writer *writer, uint64_t offset, uint64_t len,
                              uint32_t expected, struct error *error)
{
    uint32_t crc;
    enum status status = checksum_back(writer, offset, len, &crc, error);
    if (status == STATUS_OK && crc != expected) {
        status = error_set(error, STATUS_CORRUPT, writer->path, offset, NOWHERE,
                           "what was written reads back with checksum %08x, expected %08x", crc,
                           expected);
    }
    return status;
}

static enum status verify_everything(struct writer *writer, struct error *error)
{
    uint64_t offset = writer->header_len;
    uint32_t header_crc = crc32c(0, writer->header, writer->header_len);
    enum status status = check_back(writer, 0, writer->header_len, header_crc, error);
    for (size_t i = 0; i < writer->tensor_count && status == STATUS_OK; i++) {
        status = check_back(writer, offset, writer->tensors[i].bytes, writer->crcs[i], error);
        offset += writer->tensors[i].bytes;
    }
    return status;
}

enum status safetensors_write(const char *path, const struct tensor *tensors, size_t tensor_count,
                              const struct tensor_metadata *metadata, size_t metadata_count,
                              struct error *error)
{
    struct writer writer = {.path = path,
                            .tensors = tensors,
                            .tensor_count = tensor_count,
                            .metadata = metadata,
                            .metadata_count = metadata_count,
                            .file.fd = -1};
    if (tensor_count == 0) { // with no tensor a damaged header could pass for a foreign one
        return error_set(error, STATUS_INVALID, path, NOWHERE, NOWHERE, "no tensors to write");
    }
    enum status status = build_header(&writer, error);
    if (status == STATUS_OK) {
        status = write_everything(&writer, error);
    }
    if (status == STATUS_OK) {
        status = verify_everything(&writer, error);
    }
    if (status == STATUS_OK) {
        status = file_replace_commit(&writer.file, error);
    }
    file_replace_abort(&writer.file);
    json_decref(writer.root);
    free(writer.header);
    free(writer.crcs);
    free(writer.read_back);
    return status;
}
