// Test pictures through libjpeg's own encoder.
#include "tests/support/picture.h"
#include "tests/support/mutate.h"

#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#define MOST_SCANS 127

void picture_fill(struct image *image, uint32_t width, uint32_t height, uint64_t seed)
{
    if (image_reserve(image, width, height, NULL) != STATUS_OK) {
        abort();
    }
    uint64_t colors = mutate_next(&seed);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            uint64_t noise = mutate_next(&seed);
            bool inside = (x / 7 + y / 5) % 3 == 0; // hard edges off the block grid
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t slope = (x * (c + 1) + y * (3 - c)) * 3;
                uint32_t value = inside ? (uint32_t)(colors >> (8 * c)) : slope;
                image->pixels[((size_t)y * width + x) * 3 + c] =
                    (uint8_t)(value + (noise >> (8 * c)) % 16);
            }
        }
    }
}

static void set_colors(struct jpeg_compress_struct *compress, enum picture_colors colors)
{
    static const J_COLOR_SPACE spaces[] = {JCS_YCbCr, JCS_GRAYSCALE, JCS_RGB,
                                           JCS_CMYK,  JCS_YCCK,      JCS_CMYK};
    bool inks = colors >= PICTURE_CMYK;
    compress->input_components = inks ? 4 : 3;
    compress->in_color_space = inks ? JCS_CMYK : JCS_RGB;
    jpeg_set_defaults(compress);
    jpeg_set_colorspace(compress, spaces[colors]);
    compress->write_Adobe_marker = colors != PICTURE_CMYK_PLAIN && compress->write_Adobe_marker;
}

// One DC scan, then each AC coefficient in two steps of precision.
static void make_scans(jpeg_scan_info *scans, int count)
{
    for (int i = 0; i < count; i++) {
        bool refine = i > 63;
        int coefficient = refine ? i - 63 : i;
        scans[i] = (jpeg_scan_info){.comps_in_scan = 1,
                                    .Ss = coefficient,
                                    .Se = coefficient,
                                    .Ah = refine,
                                    .Al = coefficient > 0 && !refine};
    }
}

static void write_rows(struct jpeg_compress_struct *compress, const struct image *image)
{
    int channels = compress->input_components;
    uint8_t *row = malloc((size_t)image->width * 4);
    while (row != NULL && compress->next_scanline < image->height) {
        uint32_t y = compress->next_scanline;
        for (uint32_t x = 0; x < image->width; x++) {
            const uint8_t *pixel = image->pixels + ((size_t)y * image->width + x) * 3;
            uint8_t *to = row + (size_t)x * (size_t)channels;
            to[0] = pixel[0];
            to[1] = pixel[1];
            to[2] = pixel[2];
            if (channels == 4) {
                to[3] = (uint8_t)(255 - x * 2 - y);
            }
        }
        jpeg_write_scanlines(compress, &row, 1);
    }
    free(row);
}

uint8_t *picture_jpeg(const struct image *image, const struct picture_jpeg *how, size_t *len)
{
    struct jpeg_compress_struct compress;
    struct jpeg_error_mgr errors;
    jpeg_scan_info scans[MOST_SCANS];
    unsigned char *bytes = NULL;
    unsigned long written = 0;
    compress.err = jpeg_std_error(&errors); // leaves the program on errors: a test of ours is wrong
    jpeg_create_compress(&compress);
    jpeg_mem_dest(&compress, &bytes, &written);
    compress.image_width = image->width;
    compress.image_height = image->height;
    set_colors(&compress, how->colors);
    jpeg_set_quality(&compress, how->quality ? how->quality : 85, TRUE);
    for (int i = 0; i < compress.num_components; i++) {
        int h = i == 0 ? how->h : i == 1 ? how->h2 : 1, v = i == 0 ? how->v : i == 1 ? how->v2 : 1;
        compress.comp_info[i].h_samp_factor = h ? h : 1;
        compress.comp_info[i].v_samp_factor = v ? v : 1;
    }
    if (how->scans > 0) {
        make_scans(scans, how->scans);
        compress.scan_info = scans;
        compress.num_scans = how->scans;
    } else if (how->progressive) {
        jpeg_simple_progression(&compress);
    }
    compress.arith_code = how->arithmetic;
    compress.restart_interval = how->restart;
    compress.optimize_coding = compress.optimize_coding || how->optimized;
    jpeg_start_compress(&compress, TRUE);
    write_rows(&compress, image);
    jpeg_finish_compress(&compress);
    jpeg_destroy_compress(&compress);
    *len = written;
    return bytes;
}

// The first marker of a kind; `at` is behind its length.
static size_t find_marker(const uint8_t *bytes, size_t len, bool (*wanted)(uint8_t), size_t *size)
{
    size_t at = 2;
    while (at + 4 <= len) {
        *size = (size_t)(bytes[at + 2] << 8 | bytes[at + 3]);
        if (wanted(bytes[at + 1])) {
            return at + 4;
        }
        at += 2 + *size;
    }
    abort();
}

static bool is_scan(uint8_t marker)
{
    return marker == 0xda;
}

static bool is_frame(uint8_t marker)
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

size_t picture_jpeg_header(const uint8_t *bytes, size_t len)
{
    size_t size;
    size_t at = find_marker(bytes, len, is_scan, &size);
    return at + size - 2;
}

size_t picture_jpeg_frame(const uint8_t *bytes, size_t len)
{
    size_t size;
    return find_marker(bytes, len, is_frame, &size);
}
