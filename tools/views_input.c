// Records of a dataset or image files behind the same few calls.
#include "tools/views_input.h"

#include "formats/file.h"
#include "formats/limits.h"

#include <string.h>
#include <sys/stat.h>

static bool is_directory(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

enum status views_input_open(struct views_input *input, const char *const *paths, size_t count,
                             struct error *error)
{
    *input = (struct views_input){.paths = paths, .path_count = count};
    for (size_t i = 0; i < count; i++) {
        if (is_directory(paths[i]) && count > 1) {
            return error_set(error, STATUS_INVALID, paths[i], NOWHERE, NOWHERE,
                             "a dataset must be the only input; give one, or image files");
        }
    }
    if (count == 1 && is_directory(paths[0])) {
        return dataset_open(&input->dataset, paths[0], error);
    }
    return STATUS_OK;
}

void views_input_close(struct views_input *input)
{
    dataset_close(&input->dataset);
    *input = (struct views_input){0};
}

uint64_t views_input_count(const struct views_input *input)
{
    return input->dataset ? dataset_count(input->dataset) : input->path_count;
}

const char *views_input_name(const struct views_input *input, uint64_t record)
{
    if (input->dataset) {
        return dataset_record_name(input->dataset, record);
    }
    const char *slash = strrchr(input->paths[record], '/');
    return slash ? slash + 1 : input->paths[record];
}

enum status views_input_read(const struct views_input *input, uint64_t record, uint8_t **bytes,
                             size_t *len, struct error *error)
{
    *bytes = NULL;
    *len = 0;
    if (input->dataset) {
        return dataset_read(input->dataset, record, bytes, len, error);
    }
    return file_read_all(input->paths[record], LIMIT_IMAGE_BYTES, bytes, len, error);
}
