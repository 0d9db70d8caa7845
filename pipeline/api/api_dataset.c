// Datasets of the public interface.
#include "formats/jpeg/recode.h"
#include "pipeline/api/api.h"

#include <stdlib.h>

int byol_dataset_open(struct byol_dataset **out, const char *directory, struct byol_error *public)
{
    *out = NULL;
    struct error error = {.offset = NOWHERE, .record = NOWHERE};
    struct byol_dataset *dataset = calloc(1, sizeof *dataset);
    enum status status = dataset ? api_prepare(&error)
                                 : error_set(&error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                             "no memory for a dataset");
    if (status == STATUS_OK) {
        status = dataset_open(&dataset->dataset, directory, &error);
    }
    if (status != STATUS_OK) {
        free(dataset);
        return api_status(status, &error, public);
    }
    *out = api_dataset_share(dataset);
    return BYOL_OK;
}

struct byol_dataset *api_dataset_share(struct byol_dataset *dataset)
{
    atomic_fetch_add(&dataset->users, 1);
    return dataset;
}

void byol_dataset_close(struct byol_dataset **dataset)
{
    if (*dataset && atomic_fetch_sub(&(*dataset)->users, 1) == 1) {
        dataset_close(&(*dataset)->dataset);
        free(*dataset);
    }
    *dataset = NULL;
}

uint64_t byol_dataset_count(const struct byol_dataset *dataset)
{
    return dataset_count(dataset->dataset);
}

uint64_t byol_dataset_id(const struct byol_dataset *dataset)
{
    return dataset_id(dataset->dataset);
}

uint32_t byol_dataset_class_count(const struct byol_dataset *dataset)
{
    return dataset_class_count(dataset->dataset);
}

const char *byol_dataset_class_name(const struct byol_dataset *dataset, uint32_t label)
{
    return label < dataset_class_count(dataset->dataset)
               ? dataset_class_name(dataset->dataset, label)
               : NULL;
}

static bool holds(const struct byol_dataset *dataset, uint64_t record)
{
    return record < dataset_count(dataset->dataset);
}

const char *byol_dataset_name(const struct byol_dataset *dataset, uint64_t record)
{
    return holds(dataset, record) ? dataset_record_name(dataset->dataset, record) : NULL;
}

int32_t byol_dataset_label(const struct byol_dataset *dataset, uint64_t record)
{
    return holds(dataset, record) ? dataset_record(dataset->dataset, record).label : BYOL_NO_LABEL;
}

void byol_dataset_labels(const struct byol_dataset *dataset, int32_t *out)
{
    uint64_t count = dataset_count(dataset->dataset);
    for (uint64_t record = 0; record < count; record++) {
        out[record] = dataset_record(dataset->dataset, record).label;
    }
}

static enum status find(const struct byol_dataset *dataset, uint64_t record, struct error *error)
{
    return holds(dataset, record)
               ? STATUS_OK
               : error_set(error, STATUS_NOT_FOUND, dataset_directory(dataset->dataset), NOWHERE,
                           record, "the dataset has %llu records",
                           (unsigned long long)dataset_count(dataset->dataset));
}

int byol_dataset_image_size(const struct byol_dataset *dataset, uint64_t record, uint32_t *width,
                            uint32_t *height, struct byol_error *public)
{
    struct error error;
    enum status status = find(dataset, record, &error);
    if (status == STATUS_OK) {
        struct dataset_record about = dataset_record(dataset->dataset, record);
        *width = about.width;
        *height = about.height;
    }
    return api_status(status, &error, public);
}

// From the bytes of a recoded record to those of the JPEG that it was.
static enum status restore(const struct dataset *dataset, uint64_t record, uint8_t **bytes,
                           size_t *length, struct error *error)
{
    struct dataset_record about = dataset_record(dataset, record);
    uint8_t *jpeg;
    size_t jpeg_length;
    bool exact;
    enum status status = recode_restore(*bytes, *length, &exact, &jpeg, &jpeg_length, error);
    free(*bytes);
    *bytes = status == STATUS_OK ? jpeg : NULL;
    *length = status == STATUS_OK ? jpeg_length : 0;
    return status == STATUS_OK ? status
                               : error_set(error, status, dataset_file_path(dataset, about.file),
                                           about.offset, record, "%s", error->reason);
}

int byol_dataset_read(const struct byol_dataset *dataset, uint64_t record, uint8_t **bytes,
                      size_t *length, struct byol_error *public)
{
    *bytes = NULL;
    *length = 0;
    struct error error;
    enum status status = find(dataset, record, &error);
    if (status == STATUS_OK) {
        status = dataset_read(dataset->dataset, record, bytes, length, &error);
    }
    if (status == STATUS_OK && dataset_record(dataset->dataset, record).kind == IMAGE_RECODED) {
        status = restore(dataset->dataset, record, bytes, length, &error);
    }
    return api_status(status, &error, public);
}

void byol_free(void *memory)
{
    free(memory);
}
