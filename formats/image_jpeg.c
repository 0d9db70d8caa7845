// JPEG through libjpeg-turbo, set up to give the reference's pixels: fast integer DCT, fancy
// upsampling, and only the window decoded.
//
// libjpeg reports errors by a callback that must not return, so every use of it runs under one
// setjmp (run_guarded). A libjpeg object that saw an error can fail on the next good image, and one
// that saw a good image lends its tables to the next where that has none. So each image gets an
// object of its own, which costs 0.2 microseconds.
#include "formats/image_codec.h"
#include "formats/limits.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

struct image_jpeg {
    struct jpeg_decompress_struct decompress; // while an image is decoded
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    uint8_t *row; // one decoded row, where the window's row cannot be decoded in place
    size_t row_capacity;

    // The call in progress.
    size_t len;
    struct error *error;
    enum status status;
};

struct task {
    struct image_info *info; // filled from the header
    const struct image_window *window;
    struct image *out; // NULL: header only
};

// --- callbacks of libjpeg ------------------------------------------------------------------------

static enum status status_of_code(int code)
{
    switch (code) {
    case JERR_OUT_OF_MEMORY:
        return STATUS_NO_MEMORY;
    case JERR_IMAGE_TOO_BIG:
    case JERR_NO_BACKING_STORE: // what exceeding max_memory_to_use ends in
        return STATUS_LIMIT;
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
    case JERR_ARITH_NOTIMPL:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_CCIR601_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_COMPONENT_COUNT:
        return STATUS_UNSUPPORTED;
    default:
        return STATUS_CORRUPT;
    }
}

static _Noreturn void fail(struct image_jpeg *jpeg, enum status status, const char *reason)
{
    size_t offset = jpeg->len - jpeg->source.bytes_in_buffer;
    jpeg->status = error_set(jpeg->error, status, NULL, offset, NOWHERE, "JPEG: %s", reason);
    longjmp(jpeg->failed, 1);
}

static _Noreturn void fail_with_message(j_common_ptr common)
{
    char message[JMSG_LENGTH_MAX];
    common->err->format_message(common, message);
    fail(common->client_data, status_of_code(common->err->msg_code), message);
}

// Level -1 is a warning: the data is damaged and libjpeg would make up pixels.
static void on_message(j_common_ptr common, int level)
{
    if (level < 0) {
        char message[JMSG_LENGTH_MAX];
        common->err->format_message(common, message);
        fail(common->client_data, STATUS_CORRUPT, message);
    }
}

static void on_progress(j_common_ptr common)
{
    if (((j_decompress_ptr)common)->input_scan_number > LIMIT_JPEG_SCANS) {
        fail(common->client_data, STATUS_LIMIT, "more scans than any picture needs");
    }
}

static void source_ignore(j_decompress_ptr decompress)
{
    (void)decompress;
}

// All bytes were there from the start, so asking for more means that the file was cut short.
static boolean source_exhausted(j_decompress_ptr decompress)
{
    struct image_jpeg *jpeg = decompress->client_data;
    jpeg->source.bytes_in_buffer = 0;
    fail(jpeg, STATUS_TRUNCATED, "the data ends before the image does");
}

static void source_skip(j_decompress_ptr decompress, long count)
{
    struct jpeg_source_mgr *source = decompress->src;
    if (count <= 0) {
        return;
    }
    if ((size_t)count > source->bytes_in_buffer) {
        source_exhausted(decompress);
    }
    source->next_input_byte += count;
    source->bytes_in_buffer -= (size_t)count;
}

// --- the decoder's life --------------------------------------------------------------------------

enum status image_jpeg_open(struct image_jpeg **out, struct error *error)
{
    *out = calloc(1, sizeof **out);
    return *out ? STATUS_OK
                : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                            "no memory for a JPEG decoder");
}

void image_jpeg_close(struct image_jpeg **jpeg)
{
    if (*jpeg != NULL) {
        free((*jpeg)->row);
        free(*jpeg);
        *jpeg = NULL;
    }
}

size_t image_jpeg_memory(const struct image_jpeg *jpeg)
{
    return sizeof *jpeg + jpeg->row_capacity;
}

// --- decoding (everything below may leave by longjmp) --------------------------------------------

static void create(struct image_jpeg *jpeg)
{
    jpeg->decompress.err = jpeg_std_error(&jpeg->errors);
    jpeg->errors.error_exit = fail_with_message;
    jpeg->errors.emit_message = on_message;
    jpeg->decompress.client_data = jpeg;
    jpeg_create_decompress(&jpeg->decompress);
    jpeg->decompress.mem->max_memory_to_use = LIMIT_JPEG_MEMORY;
    jpeg->progress.progress_monitor = on_progress;
    jpeg->decompress.progress = &jpeg->progress;
    jpeg->decompress.src = &jpeg->source;
}

static enum status read_header(struct image_jpeg *jpeg, struct image_info *info)
{
    struct jpeg_decompress_struct *decompress = &jpeg->decompress;
    jpeg_read_header(decompress, TRUE);
    enum status status =
        image_check_size(decompress->image_width, decompress->image_height, jpeg->error);
    if (status != STATUS_OK) {
        return status;
    }
    if (decompress->jpeg_color_space == JCS_UNKNOWN) {
        return error_set(jpeg->error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "JPEG: %d components, where 1, 3 and 4 have a meaning",
                         decompress->num_components);
    }
    *info = (struct image_info){
        .kind = IMAGE_JPEG,
        .width = decompress->image_width,
        .height = decompress->image_height,
        .components = (uint32_t)decompress->num_components,
        .progressive = decompress->progressive_mode,
    };
    return STATUS_OK;
}

static uint8_t *reserve_row(struct image_jpeg *jpeg, size_t len)
{
    if (len > jpeg->row_capacity) {
        free(jpeg->row);
        jpeg->row = malloc(len);
        jpeg->row_capacity = jpeg->row ? len : 0;
        if (jpeg->row == NULL) {
            fail(jpeg, STATUS_NO_MEMORY, "no memory for a row");
        }
    }
    return jpeg->row;
}

// Adobe's CMYK is stored inverted, so that light = ink channel x black channel.
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, size_t pixels, bool inverted)
{
    unsigned flip = inverted ? 0 : 255;
    for (size_t i = 0; i < pixels; i++, rgb += 3, cmyk += 4) {
        unsigned k = cmyk[3] ^ flip;
        for (int c = 0; c < 3; c++) {
            rgb[c] = (uint8_t)((cmyk[c] ^ flip) * k / 255);
        }
    }
}

static void read_row(struct image_jpeg *jpeg, uint8_t *row)
{
    JSAMPROW rows[1] = {row};
    if (jpeg_read_scanlines(&jpeg->decompress, rows, 1) != 1) {
        fail(jpeg, STATUS_CORRUPT, "the decoder stopped before the last row");
    }
}

// Reads the window's rows; `skip` columns at the left are there only because decoding starts at a
// multiple of the block size.
static void read_rows(struct image_jpeg *jpeg, struct image *out, uint32_t skip)
{
    struct jpeg_decompress_struct *decompress = &jpeg->decompress;
    size_t channels = (size_t)decompress->output_components;
    size_t stride = (size_t)out->width * 3;
    bool in_place = channels == 3 && decompress->output_width == out->width;
    uint8_t *row = in_place ? NULL : reserve_row(jpeg, decompress->output_width * channels);
    for (uint32_t y = 0; y < out->height; y++) {
        uint8_t *to = out->pixels + y * stride;
        read_row(jpeg, in_place ? to : row);
        if (channels == 4) {
            cmyk_to_rgb(to, row + skip * channels, out->width, decompress->saw_Adobe_marker);
        } else if (!in_place) {
            memcpy(to, row + skip * channels, stride);
        }
    }
}

static void read_window(struct image_jpeg *jpeg, const struct image_window *window,
                        struct image *out)
{
    struct jpeg_decompress_struct *decompress = &jpeg->decompress;
    bool inks =
        decompress->jpeg_color_space == JCS_CMYK || decompress->jpeg_color_space == JCS_YCCK;
    decompress->out_color_space = inks ? JCS_CMYK : JCS_RGB;
    decompress->dct_method = JDCT_IFAST;
    decompress->do_fancy_upsampling = TRUE;
    jpeg_start_decompress(decompress);
    uint32_t skip = 0;
    if (window->width != decompress->output_width) {
        JDIMENSION x = window->x, width = window->width;
        jpeg_crop_scanline(decompress, &x, &width);
        skip = window->x - x;
    }
    if (window->y > 0 && jpeg_skip_scanlines(decompress, window->y) != window->y) {
        fail(jpeg, STATUS_CORRUPT, "the decoder stopped before the window");
    }
    read_rows(jpeg, out, skip);
    if (decompress->output_scanline == decompress->output_height) {
        jpeg_finish_decompress(decompress); // also looks for the end marker
    }
}

static enum status run(struct image_jpeg *jpeg, const struct task *task)
{
    enum status status = read_header(jpeg, task->info);
    if (status != STATUS_OK || task->out == NULL) {
        return status;
    }
    struct image_window window;
    status = image_check_window(&window, task->window, task->info->width, task->info->height,
                                jpeg->error);
    if (status == STATUS_OK) {
        status = image_reserve(task->out, window.width, window.height, jpeg->error);
    }
    if (status == STATUS_OK) {
        read_window(jpeg, &window, task->out);
    }
    return status;
}

static enum status run_guarded(struct image_jpeg *jpeg, const struct task *task)
{
    if (setjmp(jpeg->failed)) {
        jpeg_destroy_decompress(&jpeg->decompress); // also a half-made one
        return jpeg->status;
    }
    create(jpeg);
    enum status status = run(jpeg, task);
    jpeg_destroy_decompress(&jpeg->decompress);
    return status;
}

static enum status process(struct image_jpeg *jpeg, const uint8_t *bytes, size_t len,
                           const struct task *task, struct error *error)
{
    jpeg->error = error;
    jpeg->len = len;
    jpeg->source = (struct jpeg_source_mgr){
        .next_input_byte = bytes,
        .bytes_in_buffer = len,
        .init_source = source_ignore,
        .fill_input_buffer = source_exhausted,
        .skip_input_data = source_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = source_ignore,
    };
    enum status status = run_guarded(jpeg, task);
    jpeg->error = NULL;
    return status;
}

enum status image_jpeg_probe(struct image_jpeg *jpeg, const uint8_t *bytes, size_t len,
                             struct image_info *info, struct error *error)
{
    struct task task = {.info = info};
    return process(jpeg, bytes, len, &task, error);
}

enum status image_jpeg_decode(struct image_jpeg *jpeg, const uint8_t *bytes, size_t len,
                              const struct image_window *window, struct image *out,
                              struct error *error)
{
    struct image_info info = {0};
    struct task task = {.info = &info, .window = window, .out = out};
    return process(jpeg, bytes, len, &task, error);
}
