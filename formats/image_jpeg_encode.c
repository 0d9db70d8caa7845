// Writing of JPEG: the same pixels give the same bytes on every machine.
#include "formats/image_codec.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jerror.h>
#include <jpeglib.h>

#define QUALITY_OF_FULL_CHROMA 91 // from here on colour keeps its full resolution

struct encoder {
    struct jpeg_compress_struct compress;
    struct jpeg_error_mgr errors;
    struct jpeg_destination_mgr destination;
    jmp_buf failed;
    uint8_t *bytes;
    size_t capacity;
    struct error *error;
};

static _Noreturn void on_error(j_common_ptr common)
{
    struct encoder *encoder = common->client_data;
    char message[JMSG_LENGTH_MAX];
    common->err->format_message(common, message);
    error_set(encoder->error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "cannot write a JPEG: %s",
              message);
    longjmp(encoder->failed, 1);
}

// libjpeg-turbo's own memory destination loses track of its buffer when growing fails.
static boolean destination_grow(j_compress_ptr compress)
{
    struct encoder *encoder = compress->client_data;
    size_t used = encoder->capacity; // libjpeg asks only when everything is used
    size_t capacity = used ? used * 2 : 16384;
    uint8_t *bytes = realloc(encoder->bytes, capacity);
    if (bytes == NULL) {
        ERREXIT1(compress, JERR_OUT_OF_MEMORY, 10);
    }
    encoder->bytes = bytes;
    encoder->capacity = capacity;
    encoder->destination.next_output_byte = bytes + used;
    encoder->destination.free_in_buffer = capacity - used;
    return TRUE;
}

static void destination_start(j_compress_ptr compress)
{
    destination_grow(compress);
}

static void destination_end(j_compress_ptr compress)
{
    (void)compress;
}

static void configure(struct jpeg_compress_struct *compress, const struct image *image, int quality)
{
    compress->image_width = image->width;
    compress->image_height = image->height;
    compress->input_components = 3;
    compress->in_color_space = JCS_RGB;
    jpeg_set_defaults(compress); // 4:2:0
    jpeg_set_quality(compress, quality, TRUE);
    compress->dct_method = JDCT_ISLOW;
    compress->optimize_coding = TRUE;
    if (quality >= QUALITY_OF_FULL_CHROMA) {
        compress->comp_info[0].h_samp_factor = 1;
        compress->comp_info[0].v_samp_factor = 1;
    }
}

static bool encode(struct encoder *encoder, const struct image *image, int quality)
{
    struct jpeg_compress_struct *compress = &encoder->compress;
    if (setjmp(encoder->failed)) {
        return false;
    }
    jpeg_create_compress(compress);
    compress->dest = &encoder->destination;
    configure(compress, image, quality);
    jpeg_start_compress(compress, TRUE);
    while (compress->next_scanline < compress->image_height) {
        JSAMPROW row = image->pixels + (size_t)compress->next_scanline * image->width * 3;
        jpeg_write_scanlines(compress, &row, 1);
    }
    jpeg_finish_compress(compress);
    return true;
}

enum status image_encode_jpeg(const struct image *image, int quality, uint8_t **bytes, size_t *len,
                              struct error *error)
{
    *bytes = NULL;
    *len = 0;
    if (quality < 1 || quality > 100) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "JPEG quality %d is not between 1 and 100", quality);
    }
    enum status status = image_check_asked(image->width, image->height, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct encoder encoder = {.error = error,
                              .destination = {.init_destination = destination_start,
                                              .empty_output_buffer = destination_grow,
                                              .term_destination = destination_end}};
    encoder.compress.err = jpeg_std_error(&encoder.errors);
    encoder.errors.error_exit = on_error;
    encoder.compress.client_data = &encoder;
    bool done = encode(&encoder, image, quality);
    jpeg_destroy_compress(&encoder.compress);
    if (!done) {
        free(encoder.bytes);
        return STATUS_NO_MEMORY; // sizes and settings were checked: nothing else is left
    }
    *bytes = encoder.bytes;
    *len = encoder.capacity - encoder.destination.free_in_buffer;
    return STATUS_OK;
}
