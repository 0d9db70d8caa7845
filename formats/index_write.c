// Building an index in memory and writing it in one durable step.
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/index.h"

#include <stdlib.h>
#include <string.h>

static enum status append(struct index_builder *builder, enum index_section section,
                          const void *bytes, size_t len, struct error *error)
{
    size_t need = builder->part[section].len + len;
    if (need > builder->part[section].capacity) {
        size_t capacity = need + need / 2 + 4096;
        uint8_t *grown = realloc(builder->part[section].bytes, capacity);
        if (grown == NULL) {
            return error_set(error, STATUS_NO_MEMORY, INDEX_FILE_NAME, NOWHERE, NOWHERE,
                             "no memory for %zu bytes of index", capacity);
        }
        builder->part[section].bytes = grown;
        builder->part[section].capacity = capacity;
    }
    memcpy(builder->part[section].bytes + builder->part[section].len, bytes, len);
    builder->part[section].len = need;
    builder->part[section].count++;
    return STATUS_OK;
}

static enum status append_string(struct index_builder *builder, enum index_section section,
                                 const char *text, struct error *error)
{
    return append(builder, section, text, strlen(text) + 1, error);
}

enum status index_builder_add_file(struct index_builder *builder, const char *name,
                                   const struct index_file *file, struct error *error)
{
    uint8_t bytes[INDEX_FILE_BYTES] = {0};
    index_store64(bytes, file->length);
    index_store32(bytes + 8, file->crc);
    enum status status = append(builder, INDEX_FILES, bytes, sizeof bytes, error);
    return status ? status : append_string(builder, INDEX_FILE_NAMES, name, error);
}

enum status index_builder_add_record(struct index_builder *builder, const char *name,
                                     const struct dataset_record *record, struct error *error)
{
    uint8_t bytes[INDEX_RECORD_BYTES];
    index_store_record(bytes, record);
    enum status status = append(builder, INDEX_RECORDS, bytes, sizeof bytes, error);
    return status ? status : append_string(builder, INDEX_RECORD_NAMES, name, error);
}

struct dataset_record index_builder_record(const struct index_builder *builder, uint64_t record)
{
    return index_load_record(builder->part[INDEX_RECORDS].bytes + record * INDEX_RECORD_BYTES);
}

void index_builder_set_record(struct index_builder *builder, uint64_t number,
                              const struct dataset_record *record)
{
    index_store_record(builder->part[INDEX_RECORDS].bytes + number * INDEX_RECORD_BYTES, record);
}

enum status index_builder_add_class(struct index_builder *builder, const char *name,
                                    struct error *error)
{
    return append_string(builder, INDEX_CLASS_NAMES, name, error);
}

enum status index_builder_set_provenance(struct index_builder *builder, const char *text,
                                         struct error *error)
{
    builder->part[INDEX_PROVENANCE].len = 0;
    builder->part[INDEX_PROVENANCE].count = 0;
    return append_string(builder, INDEX_PROVENANCE, text, error);
}

static size_t padded(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

// The first version that knows all that the dataset has.
static uint32_t needed_version(const struct index_builder *builder)
{
    struct dataset_record last = {0};
    for (uint64_t i = 0; i < builder->part[INDEX_RECORDS].count; i++) {
        struct dataset_record next = index_builder_record(builder, i);
        if (next.kind == IMAGE_RECODED || (i > 0 && index_share_frame(&last, &next))) {
            return INDEX_VERSION;
        }
        last = next;
    }
    return INDEX_VERSION_FIRST;
}

static void fill_header(const struct index_builder *builder, uint8_t *header, uint64_t total)
{
    memcpy(header, index_magic, 8);
    index_store32(header + 8, needed_version(builder));
    index_store32(header + 12, INDEX_ENDIAN_MARK);
    index_store64(header + 16, total);
    uint64_t offset = INDEX_HEADER_BYTES;
    for (int i = 0; i < INDEX_SECTIONS; i++) {
        uint8_t *entry = header + INDEX_TABLE_AT + INDEX_TABLE_ENTRY * (unsigned)i;
        index_store64(entry, offset);
        index_store64(entry + 8, builder->part[i].len);
        index_store64(entry + 16, builder->part[i].count);
        index_store32(entry + 24, crc32c(0, builder->part[i].bytes, builder->part[i].len));
        offset += padded(builder->part[i].len);
    }
    index_store32(header + INDEX_HEADER_CRC_AT - 4, (uint32_t)builder->store);
    index_store32(header + INDEX_HEADER_CRC_AT, crc32c(0, header, INDEX_HEADER_CRC_AT));
}

enum status index_builder_write(struct index_builder *builder, const char *path,
                                struct error *error)
{
    static const uint8_t zeros[8];
    uint64_t total = INDEX_HEADER_BYTES + INDEX_TRAILER_BYTES;
    for (int i = 0; i < INDEX_SECTIONS; i++) {
        total += padded(builder->part[i].len);
    }
    uint8_t header[INDEX_HEADER_BYTES] = {0}, trailer[INDEX_TRAILER_BYTES];
    fill_header(builder, header, total);
    uint64_t hash = index_hash(0, header, sizeof header);

    struct file_replace file;
    enum status status = file_replace_open(&file, path, error);
    if (status == STATUS_OK) {
        status = file_replace_write(&file, header, sizeof header, error);
    }
    for (int i = 0; i < INDEX_SECTIONS && status == STATUS_OK; i++) {
        size_t len = builder->part[i].len, whole = len & ~(size_t)7, rest = len - whole;
        uint8_t last[8] = {0};
        if (len > 0) {
            memcpy(last, builder->part[i].bytes + whole, rest);
        }
        hash = index_hash(hash, builder->part[i].bytes, whole);
        hash = index_hash(hash, last, rest ? sizeof last : 0);
        status = file_replace_write(&file, builder->part[i].bytes, len, error);
        if (status == STATUS_OK) {
            status = file_replace_write(&file, zeros, padded(len) - len, error);
        }
    }
    memcpy(trailer, index_trailer_magic, 8);
    index_store64(trailer + 8, hash);
    builder->id = hash;
    if (status == STATUS_OK) {
        status = file_replace_write(&file, trailer, sizeof trailer, error);
    }
    return status ? status : file_replace_commit(&file, error);
}

void index_builder_free(struct index_builder *builder)
{
    for (int i = 0; i < INDEX_SECTIONS; i++) {
        free(builder->part[i].bytes);
    }
    memset(builder, 0, sizeof *builder);
}
