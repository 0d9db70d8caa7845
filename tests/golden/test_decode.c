// The decoder gives the reference's pixels for every window of the golden cases, bit for bit.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/file.h"
#include "formats/image.h"
#include "formats/limits.h"
#include "tests/support/golden.h"

static struct image_decoder *decoder;
static size_t crops_compared;

static uint8_t *read_jpeg(const char *folder, const char *name, size_t *len)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    uint8_t *bytes;
    struct error error;
    if (file_read_all(path, LIMIT_IMAGE_BYTES, &bytes, len, &error) != STATUS_OK) {
        fail_msg("%s: %s", path, error.reason);
    }
    return bytes;
}

static void compare_pixels(const char *name, const struct image *got, const struct npy *want)
{
    assert_int_equal(want->type, NPY_UINT8);
    assert_int_equal(want->shape[0], got->height);
    assert_int_equal(want->shape[1], got->width);
    const uint8_t *pixels = want->data;
    for (size_t i = 0; i < want->count; i++) {
        if (got->pixels[i] != pixels[i]) {
            size_t pixel = i / 3;
            fail_msg("%s: row %zu, column %zu, channel %zu is %u, the reference has %u", name,
                     pixel / got->width, pixel % got->width, i % 3, got->pixels[i], pixels[i]);
        }
    }
}

// Two windows at once (the same, and its upper left quarter), as the loader asks for them.
static void compare_windows(const uint8_t *bytes, size_t len, const struct image_window *window,
                            const struct image *want)
{
    const struct image_window windows[2] = {*window,
                                            {.x = window->x,
                                             .y = window->y,
                                             .width = (window->width + 1) / 2,
                                             .height = (window->height + 1) / 2}};
    struct image_planes got[2] = {0};
    struct error error = {0};
    if (image_decode_windows(decoder, bytes, len, windows, 2, got, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    assert_int_equal(got[0].width, want->width);
    assert_int_equal(got[0].height, want->height);
    for (size_t y = 0; y < want->height; y++) {
        for (size_t i = 0; i < (size_t)want->width * 3; i++) {
            assert_int_equal(got[0].plane[i % 3][y * got[0].stride + i / 3],
                             want->pixels[y * want->width * 3 + i]);
        }
    }
    image_planes_free(&got[0]);
    image_planes_free(&got[1]);
}

static void check_case(const char *folder, const struct table *index, size_t row)
{
    const char *crop = table_cell(index, row, "crop_u8");
    struct image_window window = {
        .x = (uint32_t)table_int(table_cell(index, row, "x")),
        .y = (uint32_t)table_int(table_cell(index, row, "y")),
        .width = (uint32_t)table_int(table_cell(index, row, "w")),
        .height = (uint32_t)table_int(table_cell(index, row, "h")),
    };
    size_t len;
    uint8_t *bytes = read_jpeg(folder, table_cell(index, row, "jpeg"), &len);
    struct image image = {0};
    struct error error = {0};
    if (image_decode(decoder, bytes, len, &window, &image, &error) != STATUS_OK) {
        fail_msg("%s: %s", table_cell(index, row, "case"), error.reason);
    }
    assert_int_equal(image.width, window.width);
    assert_int_equal(image.height, window.height);
    if (!table_empty(crop)) {
        struct npy want = golden_array(folder, crop);
        compare_pixels(table_cell(index, row, "case"), &image, &want);
        npy_free(&want);
        crops_compared++;
    }
    compare_windows(bytes, len, &window, &image);
    image_free(&image);
    free(bytes);
}

static void test_windows_match_the_reference(void **state)
{
    (void)state;
    crops_compared = 0;
    golden_each("decode_crop_resize", check_case);
    print_message("golden: %zu crops equal\n", crops_compared);
    assert_true(crops_compared > 0);
}

static void check_header(const char *folder, const struct table *jpegs, size_t row)
{
    char name[512];
    snprintf(name, sizeof name, "jpeg/%s", table_cell(jpegs, row, "jpeg"));
    size_t len;
    uint8_t *bytes = read_jpeg(folder, name, &len);
    struct image_info info;
    struct error error = {0};
    if (image_probe(decoder, bytes, len, &info, &error) != STATUS_OK) {
        fail_msg("%s: %s", name, error.reason);
    }
    const char *mode = table_cell(jpegs, row, "pil_mode");
    uint32_t components = strcmp(mode, "L") == 0 ? 1 : strcmp(mode, "CMYK") == 0 ? 4 : 3;
    assert_int_equal(info.kind, IMAGE_JPEG);
    assert_int_equal(info.width, table_int(table_cell(jpegs, row, "width")));
    assert_int_equal(info.height, table_int(table_cell(jpegs, row, "height")));
    assert_int_equal(info.components, components);
    assert_int_equal(info.progressive, table_int(table_cell(jpegs, row, "progressive")));
    free(bytes);
}

static void test_headers_match_the_table(void **state)
{
    (void)state;
    char folders[4][512];
    size_t count = golden_folders("decode_crop_resize", folders);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/jpegs.tsv", folders[i]);
        struct table jpegs;
        table_read(&jpegs, path);
        for (size_t row = 0; row < jpegs.rows; row++) {
            check_header(folders[i], &jpegs, row);
        }
        table_free(&jpegs);
    }
}

static int open_decoder(void **state)
{
    (void)state;
    return image_decoder_open(&decoder, NULL) == STATUS_OK ? 0 : -1;
}

static int close_decoder(void **state)
{
    (void)state;
    image_decoder_close(&decoder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows_match_the_reference),
        cmocka_unit_test(test_headers_match_the_table),
    };
    return cmocka_run_group_tests_name("golden/decode", tests, open_decoder, close_decoder);
}
