// From a JPEG file to the faster coding of the same pixels (formats/jpeg/recode.h), proven on the
// spot: besides the coefficients and the file itself, all pixels are compared with libjpeg-turbo's.
#ifndef FORMATS_IMAGE_RECODE_H
#define FORMATS_IMAGE_RECODE_H

#include "formats/image.h"
#include "formats/jpeg/recode.h"

// Keeps its buffers. One recoder, one thread.
struct image_recoder;
enum status image_recoder_open(struct image_recoder **out, struct error *error);
void image_recoder_close(struct image_recoder **recoder); // accepts a pointer to NULL

// As recode_encode, for any image file.
enum status image_recode(struct image_recoder *recoder, const void *bytes, size_t len,
                         enum recode_outcome *outcome, const uint8_t **payload, size_t *payload_len,
                         struct error *error);

#endif
