// Joins datasets of shards into one without copying a byte of them: the shards get second names,
// the indices are put after one another.
#include "formats/dataset_internal.h"
#include "formats/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum status same_classes(const struct dataset_writer *writer, const struct index *index,
                                const char *path, struct error *error)
{
    bool same =
        writer->builder.part[INDEX_CLASS_NAMES].count == index->count[INDEX_CLASS_NAMES] &&
        writer->builder.part[INDEX_CLASS_NAMES].len == index->section_length[INDEX_CLASS_NAMES] &&
        (index->section_length[INDEX_CLASS_NAMES] == 0 ||
         memcmp(writer->builder.part[INDEX_CLASS_NAMES].bytes, index->section[INDEX_CLASS_NAMES],
                (size_t)index->section_length[INDEX_CLASS_NAMES]) == 0);
    return same ? STATUS_OK
                : error_set(error, STATUS_INVALID, path, NOWHERE, NOWHERE,
                            "has other classes than the parts before it");
}

static enum status add_index(struct dataset_writer *writer, const struct index *index,
                             const char *path, uint32_t first_file, struct error *error)
{
    enum status status = STATUS_OK;
    if (first_file == 0) {
        for (uint64_t i = 0; i < index->count[INDEX_CLASS_NAMES] && status == STATUS_OK; i++) {
            status = index_builder_add_class(&writer->builder,
                                             index_string(index, INDEX_CLASS_NAMES, i), error);
        }
    } else {
        status = same_classes(writer, index, path, error);
    }
    for (uint64_t i = 0; i < index->count[INDEX_FILES] && status == STATUS_OK; i++) {
        char name[32];
        struct index_file file = index_file(index, i);
        snprintf(name, sizeof name, "shard-%05u.tar.zst", first_file + (uint32_t)i);
        status = index_builder_add_file(&writer->builder, name, &file, error);
    }
    for (uint64_t i = 0; i < index->count[INDEX_RECORDS] && status == STATUS_OK; i++) {
        const char *name = index_string(index, INDEX_RECORD_NAMES, i);
        struct dataset_record record = index_record(index, i);
        record.file += first_file;
        bool fresh;
        status = name_set_add(&writer->names, name, &fresh, error);
        if (status == STATUS_OK && !fresh) {
            status = error_set(error, STATUS_INVALID, name, NOWHERE, i,
                               "a second image of this name; names must be unique");
        }
        status = status ? status : index_builder_add_record(&writer->builder, name, &record, error);
    }
    return status;
}

// The part keeps its shards, so that a kill costs nothing, where files may have two names.
static enum status link_shards(const struct dataset_writer *writer, const struct index *index,
                               const char *part, uint32_t first_file, struct error *error)
{
    for (uint64_t i = 0; i < index->count[INDEX_FILES]; i++) {
        char from[700], to[700];
        snprintf(from, sizeof from, "%s/%s", part, index_string(index, INDEX_FILE_NAMES, i));
        snprintf(to, sizeof to, "%s/shard-%05u.tar.zst", writer->partial, first_file + (uint32_t)i);
        if (link(from, to) != 0 && rename(from, to) != 0) {
            return error_errno(error, errno, from, NOWHERE, "move into the joined dataset");
        }
    }
    return STATUS_OK;
}

// Adds the part's index, or (`move`) takes its shards; *files are those of the parts before it.
static enum status join_part(struct dataset_writer *writer, const char *part, bool move,
                             uint32_t *files, struct error *error)
{
    char path[700];
    struct index index = {0};
    snprintf(path, sizeof path, "%s/" INDEX_FILE_NAME, part);
    enum status status = index_read(&index, path, error);
    if (status == STATUS_OK && index.store != DATASET_SHARDS) {
        status = error_set(error, STATUS_INVALID, part, NOWHERE, NOWHERE, "is not made of shards");
    }
    if (status == STATUS_OK) {
        status = move ? link_shards(writer, &index, part, *files, error)
                      : add_index(writer, &index, part, *files, error);
        *files += (uint32_t)index.count[INDEX_FILES];
    }
    index_free(&index);
    return status;
}

enum status dataset_writer_join(struct dataset_writer *writer, const char (*parts)[560],
                                size_t count, struct error *error)
{
    enum status status = STATUS_OK;
    uint32_t files = 0, moved = 0; // everything is looked at before anything is moved
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = join_part(writer, parts[i], false, &files, error);
    }
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = join_part(writer, parts[i], true, &moved, error);
    }
    if (status == STATUS_OK) {
        status = file_sync_directory(writer->partial, error);
    }
    writer->store->close(&writer->state);
    return status ? status : dataset_writer_seal(writer, error);
}
