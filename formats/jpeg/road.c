#include "formats/jpeg/road.h"
#include "formats/image_codec.h"
#include "formats/jpeg/huffman.h"
#include "formats/jpeg/pixels.h"
#include "formats/jpeg/recode_source.h"

#include <stdlib.h>

struct jpeg_road {
    struct jpeg_header header;
    struct jpeg_huffman huffman;
    struct recode_source recoded;
    struct jpeg_pixels *pixels;
};

enum status jpeg_road_open(struct jpeg_road **out, struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a JPEG decoder");
    }
    enum status status = jpeg_pixels_open(&(*out)->pixels, error);
    if (status != STATUS_OK) {
        jpeg_road_close(out);
    }
    return status;
}

void jpeg_road_close(struct jpeg_road **road)
{
    if (*road != NULL) {
        jpeg_pixels_close(&(*road)->pixels);
        free(*road);
        *road = NULL;
    }
}

enum status jpeg_road_reserve(struct jpeg_road *road, uint32_t width, struct error *error)
{
    return jpeg_pixels_reserve(road->pixels, width, error);
}

size_t jpeg_road_memory(const struct jpeg_road *road)
{
    return sizeof *road + jpeg_pixels_memory(road->pixels);
}

bool jpeg_road_decode(struct jpeg_road *road, const uint8_t *bytes, size_t len,
                      const struct image_window *windows, uint32_t count, struct image_planes *out)
{
    const struct jpeg_frame *frame = &road->header.frame;
    if (!jpeg_header_read(&road->header, bytes, len) ||
        image_check_size(frame->width, frame->height, NULL) != STATUS_OK) {
        return false;
    }
    jpeg_huffman_start(&road->huffman, &road->header, bytes, len);
    return jpeg_pixels_decode(road->pixels, frame, &road->huffman.source, windows, count, out,
                              NULL) == STATUS_OK;
}

enum status jpeg_road_decode_recoded(struct jpeg_road *road, const uint8_t *bytes, size_t len,
                                     const struct image_window *windows, uint32_t count,
                                     struct image_planes *out, struct error *error)
{
    enum status status = recode_source_start(&road->recoded, bytes, len, error);
    return status ? status
                  : jpeg_pixels_decode(road->pixels, &road->recoded.layout.frame,
                                       &road->recoded.source, windows, count, out, error);
}
