// Records' names keep the rules of formats/name.h, so that none leads out of the directory; a file
// is created only where there was none.
#include "tools/extract.h"
#include "formats/file.h"
#include "formats/jpeg/recode.h"
#include "tools/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status write_file(const char *path, const uint8_t *bytes, size_t len,
                              struct error *error)
{
    int fd = -1;
    enum status status = file_create(&fd, path, error);
    if (status == STATUS_OK) {
        status = file_write_all(fd, path, bytes, len, error);
    }
    enum status closed = file_close(&fd, path, status ? NULL : error);
    return status ? status : closed;
}

enum status extract_write(const char *directory, const char *name, const uint8_t *bytes, size_t len,
                          struct error *error)
{
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0) {
        return error_errno(error, ENOMEM, directory, NOWHERE, "allocate memory for a path");
    }
    char *slash = strrchr(path, '/');
    *slash = '\0';
    enum status status = file_make_directories(path, error);
    *slash = '/';
    if (status == STATUS_OK) {
        status = write_file(path, bytes, len, error);
    }
    free(path);
    return status;
}

// From the bytes of a recoded record to those of its image file.
static enum status restore(const struct dataset *dataset, uint64_t record, uint8_t **bytes,
                           size_t *len, bool *exact, struct error *error)
{
    uint8_t *jpeg;
    size_t jpeg_len;
    enum status status = recode_restore(*bytes, *len, exact, &jpeg, &jpeg_len, error);
    if (status != STATUS_OK) {
        struct dataset_record about = dataset_record(dataset, record);
        return error_set(error, status, dataset_file_path(dataset, about.file), about.offset,
                         record, "%s", error->reason);
    }
    free(*bytes);
    *bytes = jpeg;
    *len = jpeg_len;
    return STATUS_OK;
}

enum status extract_image(const struct dataset *dataset, uint64_t record, uint8_t **bytes,
                          size_t *len, bool *exact, struct error *error)
{
    *exact = true;
    enum status status = dataset_read(dataset, record, bytes, len, error);
    if (status == STATUS_OK && dataset_record(dataset, record).kind == IMAGE_RECODED) {
        status = restore(dataset, record, bytes, len, exact, error);
    }
    return status;
}

static enum status extract_record(const struct dataset *dataset, uint64_t record,
                                  const char *directory, struct extract_report *report,
                                  struct error *error)
{
    uint8_t *bytes;
    size_t len;
    bool exact;
    enum status status = extract_image(dataset, record, &bytes, &len, &exact, error);
    if (status == STATUS_OK) {
        status = extract_write(directory, dataset_record_name(dataset, record), bytes, len, error);
        report->images++;
        report->bytes += len;
        report->inexact += !exact;
    }
    free(bytes);
    return status;
}

enum status extract_dataset(const struct dataset *dataset, const char *directory,
                            struct progress *progress, struct extract_report *report,
                            struct error *error)
{
    *report = (struct extract_report){0};
    char *partial;
    enum status status = output_begin(directory, &partial, error);
    if (status != STATUS_OK) {
        free(partial);
        return status;
    }
    uint64_t count = dataset_count(dataset);
    for (uint64_t i = 0; i < count && status == STATUS_OK; i++) {
        status = extract_record(dataset, i, partial, report, error);
        progress_bar(progress, "extracting", i + 1, count, "images");
    }
    if (status == STATUS_OK) {
        status = output_finish(partial, directory, error);
    }
    if (status != STATUS_OK) {
        output_remove(partial, NULL);
    }
    free(partial);
    return status;
}
