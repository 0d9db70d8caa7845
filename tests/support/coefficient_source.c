// Coefficients through libjpeg's transcoding interface.
#include "tests/support/coefficient_source.h"
#include "tests/support/mutate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

static jvirt_barray_ptr *begin(struct jpeg_decompress_struct *from, struct jpeg_error_mgr *errors,
                               const uint8_t *bytes, size_t len)
{
    from->err = jpeg_std_error(errors);
    jpeg_create_decompress(from);
    jpeg_mem_src(from, bytes, len);
    jpeg_read_header(from, TRUE);
    return jpeg_read_coefficients(from);
}

static void finish(struct jpeg_decompress_struct *from)
{
    jpeg_finish_decompress(from);
    jpeg_destroy_decompress(from);
}

static enum status copy_row(struct jpeg_source *source, uint32_t row, uint32_t first, uint32_t end,
                            int16_t *const blocks[3], struct error *error)
{
    (void)error;
    struct coefficient_source *from = (struct coefficient_source *)source;
    const struct jpeg_frame *frame = &from->frame;
    if (row >= frame->mcus_high || first >= end || end > frame->mcus_wide ||
        (from->rows_asked > 0 && row <= from->last_row)) {
        abort();
    }
    from->rows_asked++;
    from->mcus_asked += end - first;
    from->last_row = row;
    for (uint32_t c = 0; c < frame->components; c++) {
        const struct jpeg_component *component = &frame->component[c];
        size_t across = (size_t)frame->mcus_wide * component->h;
        for (uint32_t y = 0; y < component->v; y++) {
            size_t start = y * across + (size_t)first * component->h;
            memcpy(blocks[c] + start * JPEG_BLOCK,
                   from->blocks[c] + (row * component->v * across + start) * JPEG_BLOCK,
                   (size_t)(end - first) * component->h * JPEG_BLOCK * sizeof(int16_t));
        }
    }
    return STATUS_OK;
}

static void read_frame(struct jpeg_frame *frame, const struct jpeg_decompress_struct *from)
{
    bool alone = from->num_components == 1;
    frame->width = from->image_width;
    frame->height = from->image_height;
    frame->components = (uint32_t)from->num_components;
    frame->rgb = from->jpeg_color_space == JCS_RGB;
    frame->h_max = alone ? 1 : (uint32_t)from->max_h_samp_factor;
    frame->v_max = alone ? 1 : (uint32_t)from->max_v_samp_factor;
    frame->mcus_wide = (frame->width + 8 * frame->h_max - 1) / (8 * frame->h_max);
    frame->mcus_high = (frame->height + 8 * frame->v_max - 1) / (8 * frame->v_max);
    for (int c = 0; c < from->num_components; c++) {
        frame->component[c].h = alone ? 1 : (uint32_t)from->comp_info[c].h_samp_factor;
        frame->component[c].v = alone ? 1 : (uint32_t)from->comp_info[c].v_samp_factor;
        memcpy(frame->component[c].quant, from->comp_info[c].quant_table->quantval,
               sizeof frame->component[c].quant);
    }
}

// Blocks that only fill up the last MCUs are zero where libjpeg has none.
static int16_t *read_blocks(struct jpeg_decompress_struct *from, jvirt_barray_ptr array,
                            const jpeg_component_info *info, const struct jpeg_frame *frame,
                            const struct jpeg_component *component)
{
    size_t across = (size_t)frame->mcus_wide * component->h;
    size_t high = (size_t)frame->mcus_high * component->v;
    int16_t *blocks = calloc(across * high, JPEG_BLOCK * sizeof *blocks);
    if (blocks == NULL) {
        abort();
    }
    for (JDIMENSION y = 0; y < info->height_in_blocks; y++) {
        JBLOCKARRAY rows = from->mem->access_virt_barray((j_common_ptr)from, array, y, 1, FALSE);
        memcpy(blocks + y * across * JPEG_BLOCK, rows[0], info->width_in_blocks * sizeof(JBLOCK));
    }
    return blocks;
}

bool coefficient_source_open(struct coefficient_source *out, const uint8_t *bytes, size_t len)
{
    struct jpeg_decompress_struct from;
    struct jpeg_error_mgr errors;
    *out = (struct coefficient_source){.source.row = copy_row};
    jvirt_barray_ptr *arrays = begin(&from, &errors, bytes, len);
    bool known = from.jpeg_color_space == JCS_GRAYSCALE || from.jpeg_color_space == JCS_YCbCr ||
                 from.jpeg_color_space == JCS_RGB;
    if (known) {
        read_frame(&out->frame, &from);
    }
    for (int c = 0; known && c < from.num_components; c++) {
        out->blocks[c] = read_blocks(&from, arrays[c], &from.comp_info[c], &out->frame,
                                     &out->frame.component[c]);
    }
    finish(&from);
    return known;
}

void coefficient_source_close(struct coefficient_source *out)
{
    for (int c = 0; c < 3; c++) {
        free(out->blocks[c]);
    }
    *out = (struct coefficient_source){0};
}

static void scramble(struct jpeg_decompress_struct *from, jvirt_barray_ptr array,
                     const jpeg_component_info *info, uint64_t *seed, unsigned most)
{
    for (JDIMENSION y = 0; y < info->height_in_blocks; y++) {
        JBLOCKARRAY rows = from->mem->access_virt_barray((j_common_ptr)from, array, y, 1, TRUE);
        for (JDIMENSION x = 0; x < info->width_in_blocks; x++) {
            for (int i = 0; i < DCTSIZE2; i++) {
                uint64_t random = mutate_next(seed);
                int value = (int)((random >> 8) % (2 * most + 1)) - (int)most;
                rows[0][x][i] = (JCOEF)(random % 8 == 0 ? value : 0);
            }
        }
    }
}

static void be_quiet(j_common_ptr common)
{
    (void)common; // a remark on coarse tables
}

uint8_t *coefficient_source_scramble(const uint8_t *bytes, size_t len, uint64_t seed, unsigned most,
                                     unsigned step, size_t *scrambled_len)
{
    struct jpeg_decompress_struct from;
    struct jpeg_compress_struct to;
    struct jpeg_error_mgr errors, to_errors;
    jvirt_barray_ptr *arrays = begin(&from, &errors, bytes, len);
    for (int c = 0; c < from.num_components; c++) {
        scramble(&from, arrays[c], &from.comp_info[c], &seed, most);
    }
    to.err = jpeg_std_error(&to_errors);
    to_errors.output_message = be_quiet;
    jpeg_create_compress(&to);
    uint8_t *out = NULL;
    unsigned long out_len = 0;
    jpeg_mem_dest(&to, &out, &out_len);
    jpeg_copy_critical_parameters(&from, &to);
    for (int t = 0; t < NUM_QUANT_TBLS; t++) {
        for (int i = 0; to.quant_tbl_ptrs[t] != NULL && i < DCTSIZE2; i++) {
            to.quant_tbl_ptrs[t]->quantval[i] = (UINT16)step;
        }
    }
    to.optimize_coding = TRUE;
    jpeg_write_coefficients(&to, arrays);
    jpeg_finish_compress(&to);
    jpeg_destroy_compress(&to);
    finish(&from);
    *scrambled_len = out_len;
    return out;
}
