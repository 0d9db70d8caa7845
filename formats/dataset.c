// Opening a dataset and turning extents into image files.
#include "formats/dataset.h"
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/index.h"
#include "formats/limits.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define DIRECTORY_BYTES 480

struct dataset {
    char directory[DIRECTORY_BYTES];
    struct index index;
    char **paths; // one per file
};

// --- open --------------------------------------------------------------------------------------

static enum status read_index(struct dataset *dataset, struct error *error)
{
    char path[DIRECTORY_BYTES + 32];
    struct stat about;
    if (stat(dataset->directory, &about) != 0) {
        return error_errno(error, errno, dataset->directory, NOWHERE, "open the dataset");
    }
    snprintf(path, sizeof path, "%s/" INDEX_FILE_NAME, dataset->directory);
    if (!S_ISDIR(about.st_mode) || !file_exists(path)) {
        return error_set(error, STATUS_NOT_FOUND, dataset->directory, NOWHERE, NOWHERE,
                         "not a dataset (no " INDEX_FILE_NAME
                         " in it): make one with byol convert");
    }
    return index_read(&dataset->index, path, error);
}

static enum status check_file(const char *path, uint64_t want, struct error *error)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        return error_errno(error, errno, path, NOWHERE, "find this file of the dataset");
    }
    if (!S_ISREG(about.st_mode)) {
        return error_set(error, STATUS_CORRUPT, path, NOWHERE, NOWHERE, "not a regular file");
    }
    uint64_t length = (uint64_t)about.st_size;
    if (length == want) {
        return STATUS_OK;
    }
    return error_set(error, length < want ? STATUS_TRUNCATED : STATUS_CORRUPT, path, length,
                     NOWHERE, "%" PRIu64 " bytes long, the index says %" PRIu64, length, want);
}

static enum status find_files(struct dataset *dataset, struct error *error)
{
    uint64_t count = dataset->index.count[INDEX_FILES];
    dataset->paths = calloc(count + 1, sizeof *dataset->paths);
    if (dataset->paths == NULL) {
        return error_errno(error, ENOMEM, dataset->directory, NOWHERE, "allocate memory for paths");
    }
    enum status status = STATUS_OK;
    for (uint64_t i = 0; i < count && status == STATUS_OK; i++) {
        const char *name = index_string(&dataset->index, INDEX_FILE_NAMES, i);
        if (asprintf(&dataset->paths[i], "%s/%s", dataset->directory, name) < 0) {
            dataset->paths[i] = NULL;
            return error_errno(error, ENOMEM, dataset->directory, NOWHERE,
                               "allocate memory for paths");
        }
        status = check_file(dataset->paths[i], index_file(&dataset->index, i).length, error);
    }
    return status;
}

enum status dataset_open(struct dataset **out, const char *directory, struct error *error)
{
    *out = NULL;
    if (strlen(directory) >= DIRECTORY_BYTES) {
        return error_set(error, STATUS_LIMIT, directory, NOWHERE, NOWHERE,
                         "the path is longer than %d bytes", DIRECTORY_BYTES - 1);
    }
    struct dataset *dataset = calloc(1, sizeof *dataset);
    if (dataset == NULL) {
        return error_errno(error, ENOMEM, directory, NOWHERE, "allocate memory for the dataset");
    }
    snprintf(dataset->directory, sizeof dataset->directory, "%s", directory);
    enum status status = read_index(dataset, error);
    if (status == STATUS_OK) {
        status = find_files(dataset, error);
    }
    if (status != STATUS_OK) {
        dataset_close(&dataset);
    }
    *out = dataset;
    return status;
}

void dataset_close(struct dataset **dataset)
{
    if (*dataset == NULL) {
        return;
    }
    for (char **path = (*dataset)->paths; path != NULL && *path != NULL; path++) {
        free(*path);
    }
    free((*dataset)->paths);
    index_free(&(*dataset)->index);
    free(*dataset);
    *dataset = NULL;
}

// --- answers -----------------------------------------------------------------------------------

const char *dataset_directory(const struct dataset *dataset)
{
    return dataset->directory;
}

enum dataset_store dataset_store(const struct dataset *dataset)
{
    return dataset->index.store;
}

uint64_t dataset_count(const struct dataset *dataset)
{
    return dataset->index.count[INDEX_RECORDS];
}

uint64_t dataset_id(const struct dataset *dataset)
{
    return dataset->index.id;
}

struct dataset_record dataset_record(const struct dataset *dataset, uint64_t record)
{
    return index_record(&dataset->index, record);
}

void dataset_expect(const struct dataset *dataset, uint64_t record)
{
    __builtin_prefetch(dataset->index.section[INDEX_RECORDS] + record * INDEX_RECORD_BYTES);
}

const char *dataset_record_name(const struct dataset *dataset, uint64_t record)
{
    return index_string(&dataset->index, INDEX_RECORD_NAMES, record);
}

uint32_t dataset_class_count(const struct dataset *dataset)
{
    return (uint32_t)dataset->index.count[INDEX_CLASS_NAMES];
}

const char *dataset_class_name(const struct dataset *dataset, uint32_t label)
{
    return index_string(&dataset->index, INDEX_CLASS_NAMES, label);
}

uint32_t dataset_file_count(const struct dataset *dataset)
{
    return (uint32_t)dataset->index.count[INDEX_FILES];
}

const char *dataset_file_path(const struct dataset *dataset, uint32_t file)
{
    return dataset->paths[file];
}

uint64_t dataset_file_length(const struct dataset *dataset, uint32_t file)
{
    return index_file(&dataset->index, file).length;
}

uint32_t dataset_file_crc(const struct dataset *dataset, uint32_t file)
{
    return index_file(&dataset->index, file).crc;
}

const char *dataset_provenance(const struct dataset *dataset)
{
    return index_string(&dataset->index, INDEX_PROVENANCE, 0);
}

char *dataset_not_exact(const struct dataset *dataset)
{
    size_t len = strlen(DATASET_NOT_EXACT);
    for (const char *at = dataset_provenance(dataset); *at != '\0'; at += *at == '\n') {
        size_t line = strcspn(at, "\n");
        if (strncmp(at, DATASET_NOT_EXACT, len) == 0) {
            return strndup(at + len, line - len);
        }
        at += line;
    }
    return NULL;
}

uint32_t dataset_max_stored_length(const struct dataset *dataset)
{
    return dataset->index.max_stored_length;
}

uint32_t dataset_max_frame_length(const struct dataset *dataset)
{
    return dataset->index.max_frame_length;
}

uint64_t dataset_max_pixels(const struct dataset *dataset)
{
    return dataset->index.max_pixels;
}

uint32_t dataset_max_width(const struct dataset *dataset)
{
    return dataset->index.max_width;
}

uint64_t dataset_widest(const struct dataset *dataset)
{
    return dataset->index.widest;
}

// --- unpack ------------------------------------------------------------------------------------

struct dataset_unpacker {
    const struct dataset *dataset;
    ZSTD_DCtx *zstd;
    uint8_t *frame; // max_frame_length bytes
    // Where the frame lies whose content `frame` holds, and the record it was unpacked for.
    bool held;
    uint32_t held_file;
    uint64_t held_offset, held_record;
};

size_t dataset_unpacker_bytes(const struct dataset_unpacker *unpacker)
{
    size_t bytes = sizeof *unpacker;
    if (unpacker->zstd != NULL) {
        bytes += ZSTD_sizeof_DCtx(unpacker->zstd) + dataset_max_frame_length(unpacker->dataset) + 1;
    }
    return bytes;
}

enum status dataset_unpacker_open(struct dataset_unpacker **out, const struct dataset *dataset,
                                  struct error *error)
{
    struct dataset_unpacker *unpacker = calloc(1, sizeof *unpacker);
    *out = unpacker;
    bool ready = unpacker != NULL;
    if (ready && dataset_store(dataset) == DATASET_SHARDS) {
        unpacker->zstd = ZSTD_createDCtx();
        unpacker->frame = malloc((size_t)dataset_max_frame_length(dataset) + 1);
        ready = unpacker->zstd != NULL && unpacker->frame != NULL;
    }
    if (!ready) {
        dataset_unpacker_close(out);
        error_errno(error, ENOMEM, dataset->directory, NOWHERE,
                    "allocate memory to unpack records");
        return STATUS_NO_MEMORY;
    }
    unpacker->dataset = dataset;
    if (unpacker->zstd != NULL) {
        ZSTD_DCtx_setParameter(unpacker->zstd, ZSTD_d_windowLogMax, LIMIT_ZSTD_WINDOW_LOG);
    }
    return STATUS_OK;
}

void dataset_unpacker_close(struct dataset_unpacker **unpacker)
{
    if (*unpacker != NULL) {
        ZSTD_freeDCtx((*unpacker)->zstd);
        free((*unpacker)->frame);
        free(*unpacker);
        *unpacker = NULL;
    }
}

// NULL, or why the extent is not one whole frame with the content the index promises.
static const char *unpack_frame(struct dataset_unpacker *unpacker,
                                const struct dataset_record *record, const void *stored)
{
    assert(unpacker->frame != NULL); // index_read allows frames in shards only
    if (ZSTD_getFrameContentSize(stored, record->stored_length) != record->frame_length) {
        return "not a zstd frame of the length that the index says";
    }
    if (ZSTD_findFrameCompressedSize(stored, record->stored_length) != record->stored_length) {
        return "the zstd frame does not end where the index says";
    }
    size_t len = ZSTD_decompressDCtx(unpacker->zstd, unpacker->frame, record->frame_length, stored,
                                     record->stored_length);
    if (ZSTD_isError(len)) {
        return ZSTD_getErrorName(len);
    }
    return len == record->frame_length ? NULL : "the zstd frame is shorter than it says";
}

// As unpack_frame, but a frame that another of its records was just unpacked from is not unpacked
// again.
static const char *hold_frame(struct dataset_unpacker *unpacker, uint64_t number,
                              const struct dataset_record *record, const void *stored)
{
    if (unpacker->held && unpacker->held_file == record->file &&
        unpacker->held_offset == record->offset && unpacker->held_record != number) {
        return NULL;
    }
    const char *fault = unpack_frame(unpacker, record, stored);
    unpacker->held = fault == NULL;
    unpacker->held_file = record->file;
    unpacker->held_offset = record->offset;
    unpacker->held_record = number;
    return fault;
}

enum status dataset_unpack(struct dataset_unpacker *unpacker, uint64_t record, const void *stored,
                           const uint8_t **bytes, size_t *len, struct error *error)
{
    const struct dataset *dataset = unpacker->dataset;
    if (record >= dataset_count(dataset)) {
        error_set(error, STATUS_INVALID, dataset->directory, NOWHERE, record,
                  "there are only %" PRIu64 " records", dataset_count(dataset));
        return STATUS_INVALID;
    }
    struct dataset_record about = dataset_record(dataset, record);
    const uint8_t *image = stored;
    if (about.coding == DATASET_CODING_ZSTD) {
        const char *fault = hold_frame(unpacker, record, &about, stored);
        if (fault != NULL) {
            error_set(error, STATUS_CORRUPT, dataset->paths[about.file], about.offset, record,
                      "the record is damaged: %s", fault);
            return STATUS_CORRUPT;
        }
        image = unpacker->frame + about.inner_offset;
    }
    uint32_t crc = crc32c(0, image, about.length);
    if (crc != about.crc) {
        error_set(error, STATUS_CORRUPT, dataset->paths[about.file], about.offset, record,
                  "the record is damaged: checksum %08" PRIx32 ", expected %08" PRIx32, crc,
                  about.crc);
        return STATUS_CORRUPT;
    }
    *bytes = image;
    *len = about.length;
    return STATUS_OK;
}

// --- one record by itself ----------------------------------------------------------------------

static enum status read_extent(const struct dataset *dataset, uint64_t record, uint8_t *stored,
                               struct error *error)
{
    struct dataset_record about = dataset_record(dataset, record);
    const char *path = dataset->paths[about.file];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return error_errno(error, errno, path, about.offset, "open");
    }
    enum status status = file_read_at(fd, path, stored, about.stored_length, about.offset, error);
    close(fd);
    return status;
}

static enum status copy_image(const struct dataset *dataset, const uint8_t *image, size_t len,
                              uint8_t **bytes, struct error *error)
{
    *bytes = malloc(len);
    if (*bytes == NULL) {
        return error_errno(error, ENOMEM, dataset->directory, NOWHERE,
                           "allocate memory for a record");
    }
    memcpy(*bytes, image, len);
    return STATUS_OK;
}

enum status dataset_read(const struct dataset *dataset, uint64_t record, uint8_t **bytes,
                         size_t *len, struct error *error)
{
    *bytes = NULL;
    *len = 0;
    if (record >= dataset_count(dataset)) {
        return error_set(error, STATUS_INVALID, dataset->directory, NOWHERE, record,
                         "there are only %" PRIu64 " records", dataset_count(dataset));
    }
    struct dataset_unpacker *unpacker;
    enum status status = dataset_unpacker_open(&unpacker, dataset, error);
    if (status != STATUS_OK) {
        return status;
    }
    const uint8_t *image = NULL;
    uint8_t *stored = malloc(dataset_record(dataset, record).stored_length);
    if (stored == NULL) {
        error_errno(error, ENOMEM, dataset->directory, NOWHERE, "allocate memory for a record");
        status = STATUS_NO_MEMORY;
    } else {
        status = read_extent(dataset, record, stored, error);
    }
    if (status == STATUS_OK) {
        status = dataset_unpack(unpacker, record, stored, &image, len, error);
    }
    if (status == STATUS_OK) {
        status = copy_image(dataset, image, *len, bytes, error);
    }
    dataset_unpacker_close(&unpacker);
    free(stored);
    return status;
}
