// From what a container holds to what a source reads.
#include "formats/source_content.h"
#include "formats/dataset.h"
#include "formats/image.h"
#include "formats/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void source_content_free(struct source_content *content)
{
    free(content->png);
    content->png = NULL;
    content->png_len = 0;
}

static void begin(struct source_content *content, const struct source_range *range)
{
    source_content_free(content);
    content->range = *range;
    content->pixels = SOURCE_PIXELS_NONE;
    content->at = 0;
    content->bad.status = STATUS_OK;
}

void source_content_file(struct source_content *content, const struct source_range *range)
{
    begin(content, range);
}

enum status source_content_pixels(struct source_content *content, const struct source_range *range,
                                  enum source_pixels pixels, uint64_t width, uint64_t height,
                                  struct error *error)
{
    begin(content, range);
    if (width == 0 || height == 0) {
        return error_set(error, STATUS_CORRUPT, range->path, range->start, NOWHERE,
                         "an image without pixels");
    }
    if (width > LIMIT_IMAGE_SIDE || height > LIMIT_IMAGE_SIDE ||
        width * height > LIMIT_IMAGE_PIXELS) {
        return error_set(error, STATUS_LIMIT, range->path, range->start, NOWHERE,
                         "an image of %" PRIu64 " x %" PRIu64 " pixels", width, height);
    }
    uint64_t need = width * height * (pixels == SOURCE_PIXELS_GREY ? 1 : 3);
    if (range->len != need) {
        return error_set(error, STATUS_CORRUPT, range->path, range->start, NOWHERE,
                         "%" PRIu64 " bytes for %" PRIu64 " x %" PRIu64 " raw pixels that take "
                         "%" PRIu64,
                         range->len, width, height, need);
    }
    content->pixels = pixels;
    content->width = (uint32_t)width;
    content->height = (uint32_t)height;
    return STATUS_OK;
}

enum status source_content_judge(struct source_content *content, enum status status,
                                 const struct error *why, struct source_entry *entry,
                                 struct error *error)
{
    if (status == STATUS_OK) {
        return STATUS_OK;
    }
    if (status < STATUS_CORRUPT || status > STATUS_LIMIT) {
        if (error != NULL) {
            *error = *why;
        }
        return status;
    }
    source_content_free(content);
    content->bad = *why;
    entry->type = SOURCE_ENTRY_IMAGE;
    entry->size = SOURCE_SIZE_UNKNOWN;
    entry->label = DATASET_NO_LABEL;
    return STATUS_OK;
}

uint64_t source_content_size(const struct source_content *content)
{
    return content->pixels == SOURCE_PIXELS_NONE ? content->range.len : SOURCE_SIZE_UNKNOWN;
}

// `raw` holds all pixels in the content's order.
static void arrange(const struct source_content *content, const uint8_t *raw, uint8_t *rgb)
{
    enum source_pixels pixels = content->pixels;
    size_t width = content->width, height = content->height, plane = width * height;
    size_t across = pixels == SOURCE_PIXELS_RGB_COLUMNS ? height : 1;
    size_t down = pixels == SOURCE_PIXELS_RGB_COLUMNS ? 1 : width;
    const uint8_t *green = pixels == SOURCE_PIXELS_GREY ? raw : raw + plane;
    const uint8_t *last = pixels == SOURCE_PIXELS_GREY ? raw : raw + 2 * plane;
    const uint8_t *red = pixels == SOURCE_PIXELS_BGR_PLANES ? last : raw;
    const uint8_t *blue = pixels == SOURCE_PIXELS_BGR_PLANES ? raw : last;
    for (size_t y = 0; y < height; y++) {
        for (size_t x = 0; x < width; x++) {
            size_t at = y * down + x * across;
            *rgb++ = red[at];
            *rgb++ = green[at];
            *rgb++ = blue[at];
        }
    }
}

static enum status load_pixels(struct source_content *content, struct image *image,
                               struct error *error)
{
    struct source_range *range = &content->range;
    enum status status = image_reserve(image, content->width, content->height, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (content->pixels == SOURCE_PIXELS_RGB) {
        return source_range_read(range, 0, image->pixels, (size_t)range->len, error);
    }
    uint8_t *raw = malloc((size_t)range->len);
    if (raw == NULL) {
        return error_errno(error, ENOMEM, range->path, NOWHERE, "allocate memory for pixels");
    }
    status = source_range_read(range, 0, raw, (size_t)range->len, error);
    if (status == STATUS_OK) {
        arrange(content, raw, image->pixels);
    }
    free(raw);
    return status;
}

static enum status encode(struct source_content *content, struct error *error)
{
    struct image image = {0};
    enum status status = load_pixels(content, &image, error);
    if (status == STATUS_OK) {
        status = image_encode_png(&image, &content->png, &content->png_len, error);
    }
    image_free(&image);
    return status;
}

enum status source_content_read(struct source_content *content, void *buf, size_t len, size_t *got,
                                struct error *error)
{
    const struct error *bad = &content->bad;
    *got = 0;
    if (bad->status != STATUS_OK) {
        enum status status = bad->status == STATUS_LIMIT ? STATUS_LIMIT : STATUS_CORRUPT;
        return error_set(error, status, bad->path, bad->offset, bad->record, "%s", bad->reason);
    }
    bool encoded = content->pixels != SOURCE_PIXELS_NONE;
    if (encoded && content->png == NULL) {
        enum status status = encode(content, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    uint64_t rest = (encoded ? content->png_len : content->range.len) - content->at;
    size_t take = rest < len ? (size_t)rest : len;
    enum status status = STATUS_OK;
    if (encoded) {
        memcpy(buf, content->png + content->at, take);
    } else {
        status = source_range_read(&content->range, content->at, buf, take, error);
    }
    if (status == STATUS_OK) {
        content->at += take;
        *got = take;
    }
    return status;
}

enum status source_label_of(int64_t number, const char *path, uint64_t record, int32_t *label,
                            struct error *error)
{
    *label = DATASET_NO_LABEL;
    if (number == DATASET_NO_LABEL) {
        return STATUS_OK;
    }
    if (number < 0 || (uint64_t)number >= LIMIT_CLASSES) {
        return error_set(error, STATUS_LIMIT, path, NOWHERE, record,
                         "the label %" PRId64 " is no class (0 to %" PRIu64 ", or -1 for none)",
                         number, (uint64_t)(LIMIT_CLASSES - 1));
    }
    *label = (int32_t)number;
    return STATUS_OK;
}
