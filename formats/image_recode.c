#include "formats/image_recode.h"

#include <stdlib.h>
#include <string.h>

struct image_recoder {
    struct recode_encoder *encoder;
    struct image_decoder *decoder;
    struct image before, after;
};

enum status image_recoder_open(struct image_recoder **out, struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to recode images");
    }
    enum status status = recode_encoder_open(&(*out)->encoder, error);
    if (status == STATUS_OK) {
        status = image_decoder_open(&(*out)->decoder, error);
    }
    if (status != STATUS_OK) {
        image_recoder_close(out);
    }
    return status;
}

void image_recoder_close(struct image_recoder **recoder)
{
    if (*recoder != NULL) {
        recode_encoder_close(&(*recoder)->encoder);
        image_decoder_close(&(*recoder)->decoder);
        image_free(&(*recoder)->before);
        image_free(&(*recoder)->after);
        free(*recoder);
        *recoder = NULL;
    }
}

// Sets `same`. Only a lack of memory is an error: what libjpeg refuses is not the same.
static enum status compare_pixels(struct image_recoder *recoder, const void *bytes, size_t len,
                                  const uint8_t *payload, size_t payload_len, bool *same,
                                  struct error *error)
{
    struct image *before = &recoder->before, *after = &recoder->after;
    *same = false;
    enum status status = image_decode(recoder->decoder, bytes, len, NULL, before, error);
    if (status == STATUS_OK) {
        status = image_decode(recoder->decoder, payload, payload_len, NULL, after, error);
    }
    if (status == STATUS_OK) {
        *same =
            before->width == after->width && before->height == after->height &&
            memcmp(before->pixels, after->pixels, (size_t)before->width * before->height * 3) == 0;
    }
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

enum status image_recode(struct image_recoder *recoder, const void *bytes, size_t len,
                         enum recode_outcome *outcome, const uint8_t **payload, size_t *payload_len,
                         struct error *error)
{
    enum status status =
        recode_encode(recoder->encoder, bytes, len, outcome, payload, payload_len, error);
    bool same = true;
    if (status == STATUS_OK && *payload != NULL) {
        status = compare_pixels(recoder, bytes, len, *payload, *payload_len, &same, error);
    }
    if (status != STATUS_OK || !same) {
        *outcome = RECODE_DIFFERS;
        *payload = NULL;
        *payload_len = 0;
    }
    return status;
}
