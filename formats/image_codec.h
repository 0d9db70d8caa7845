// Between image.c and the two codecs; private to formats/image*.c.
#ifndef FORMATS_IMAGE_CODEC_H
#define FORMATS_IMAGE_CODEC_H

#include "formats/image.h"

// STATUS_CORRUPT for an empty image, STATUS_LIMIT above LIMIT_IMAGE_SIDE or LIMIT_IMAGE_PIXELS.
// Called before anything is allocated for the image.
enum status image_check_size(uint32_t width, uint32_t height, struct error *error);

// The same for a size that the caller asks for: an empty image is STATUS_INVALID.
enum status image_check_asked(uint32_t width, uint32_t height, struct error *error);

// Resolves `window` (NULL: everything) against an image; STATUS_INVALID when it is not inside.
enum status image_check_window(struct image_window *resolved, const struct image_window *window,
                               uint32_t width, uint32_t height, struct error *error);

// The JPEG half of a decoder. Each image has a libjpeg object of its own.
struct image_jpeg;
enum status image_jpeg_open(struct image_jpeg **out, struct error *error);
void image_jpeg_close(struct image_jpeg **jpeg);
size_t image_jpeg_memory(const struct image_jpeg *jpeg); // libjpeg's own not counted
enum status image_jpeg_probe(struct image_jpeg *jpeg, const uint8_t *bytes, size_t len,
                             struct image_info *info, struct error *error);
enum status image_jpeg_decode(struct image_jpeg *jpeg, const uint8_t *bytes, size_t len,
                              const struct image_window *window, struct image *out,
                              struct error *error);

// libpng objects serve one image each, so the PNG half has no state to keep.
enum status image_png_probe(const uint8_t *bytes, size_t len, struct image_info *info,
                            struct error *error);
enum status image_png_decode(const uint8_t *bytes, size_t len, const struct image_window *window,
                             struct image *out, struct error *error);

#endif
