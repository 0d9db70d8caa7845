#include "tests/support/coefficients.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jpeglib.h>

struct reader {
    struct jpeg_decompress_struct decompress;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    uint32_t unit; // rows of MCUs that libjpeg counts as one; 0 until the header was read
    bool warned;
    uint32_t good_rows; // when the first warning came
};

// Before the scan there is no good row.
static void note_row(struct reader *reader)
{
    if (!reader->warned) {
        // Of a grey image libjpeg may count several rows of MCUs as one; then all but one of them
        // may have been good.
        uint32_t row = (uint32_t)reader->progress.pass_counter;
        reader->good_rows = reader->unit ? (row + 1) * reader->unit - 1 : 0;
        reader->warned = true;
    }
}

static _Noreturn void on_error(j_common_ptr common)
{
    struct reader *reader = common->client_data;
    note_row(reader);
    longjmp(reader->failed, 1);
}

static void on_message(j_common_ptr common, int level)
{
    if (level < 0) {
        note_row(common->client_data);
    }
}

static void ignore_progress(j_common_ptr common)
{
    (void)common;
}

static bool is_same_frame(struct jpeg_decompress_struct *d, const struct jpeg_frame *frame)
{
    J_COLOR_SPACE colors = frame->components == 1 ? JCS_GRAYSCALE
                           : frame->rgb           ? JCS_RGB
                                                  : JCS_YCbCr;
    bool same = d->image_width == frame->width && d->image_height == frame->height &&
                d->num_components == (int)frame->components && d->jpeg_color_space == colors;
    for (uint32_t c = 0; same && c < frame->components && frame->components > 1; c++) {
        same = d->comp_info[c].h_samp_factor == (int)frame->component[c].h &&
               d->comp_info[c].v_samp_factor == (int)frame->component[c].v;
    }
    return same;
}

static void copy_component(struct coefficients *out, struct jpeg_decompress_struct *d,
                           jvirt_barray_ptr array, const struct jpeg_frame *frame, uint32_t c)
{
    size_t wide = (size_t)frame->mcus_wide * frame->component[c].h;
    uint32_t high = frame->mcus_high * frame->component[c].v;
    size_t row_bytes = wide * JPEG_BLOCK * sizeof(int16_t);
    out->blocks[c] = malloc(high * row_bytes);
    for (uint32_t y = 0; out->blocks[c] != NULL && y < high; y++) {
        JBLOCKARRAY rows = d->mem->access_virt_barray((j_common_ptr)d, array, y, 1, FALSE);
        memcpy(out->blocks[c] + y * wide * JPEG_BLOCK, rows[0], row_bytes);
    }
}

static bool is_same_quant(struct jpeg_decompress_struct *d, const struct jpeg_frame *frame)
{
    for (uint32_t c = 0; c < frame->components; c++) {
        const JQUANT_TBL *table = d->comp_info[c].quant_table;
        if (memcmp(table->quantval, frame->component[c].quant, sizeof table->quantval) != 0) {
            return false;
        }
    }
    return true;
}

static void read_guarded(struct reader *reader, struct coefficients *out,
                         const struct jpeg_frame *frame, const uint8_t *bytes, size_t len)
{
    struct jpeg_decompress_struct *d = &reader->decompress;
    if (setjmp(reader->failed)) {
        return;
    }
    jpeg_create_decompress(d);
    d->progress = &reader->progress;
    jpeg_mem_src(d, bytes, len);
    jpeg_read_header(d, TRUE);
    if (!is_same_frame(d, frame)) {
        note_row(reader);
        return;
    }
    reader->unit = frame->components == 1 ? (uint32_t)d->comp_info[0].v_samp_factor : 1;
    jvirt_barray_ptr *arrays = jpeg_read_coefficients(d);
    if (is_same_quant(d, frame)) {
        out->complete = true;
        out->one_scan = d->input_scan_number == 1;
        for (uint32_t c = 0; c < frame->components; c++) {
            copy_component(out, d, arrays[c], frame, c);
        }
    } else {
        reader->good_rows = 0;
        reader->warned = true;
    }
}

void coefficients_read(struct coefficients *out, const struct jpeg_frame *frame,
                       const uint8_t *bytes, size_t len)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        abort();
    }
    reader->decompress.err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = on_error;
    reader->errors.emit_message = on_message;
    reader->progress.progress_monitor = ignore_progress;
    reader->decompress.client_data = reader;
    read_guarded(reader, out, frame, bytes, len);
    out->good_rows = reader->warned ? reader->good_rows : frame->mcus_high;
    jpeg_destroy_decompress(&reader->decompress);
    free(reader);
}

void coefficients_free(struct coefficients *coefficients)
{
    for (int c = 0; c < 3; c++) {
        free(coefficients->blocks[c]);
    }
    *coefficients = (struct coefficients){0};
}

void coefficients_need_x86(void)
{
#if !defined(__x86_64__)
    puts("skipped: libjpeg-turbo's sums of extreme coefficients are the reference's on x86 alone");
    skip();
#endif
}
