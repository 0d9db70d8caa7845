// The formulas of the GPU's views (trainer/cuda/views_math.h), compiled as C: the bits of augment's
// own operations, pixel by pixel, and the golden rows of the reference.
#include "augment/kernels.h"
#include "augment/view.h"
#include "tests/support/golden.h"
#include "trainer/cuda/views_math.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EXACT   1e-7 // as in tests/golden/test_augment_ops.c
#define ROUNDED 5e-6

// --- the same bits as augment --------------------------------------------------------------------

// Every combination of these levels, and so greys, pure colours, and what lies between.
static const float levels[] = {0,    1e-6f, 0.01f, 0.1f, 0.25f,    1.0f / 3,
                               0.5f, 0.6f,  0.75f, 0.9f, 0.99999f, 1};
#define LEVELS (sizeof levels / sizeof levels[0])
#define PIXELS (LEVELS * LEVELS * LEVELS)

static float pixels[PIXELS * 3], expected[PIXELS * 3];

static void fill(void)
{
    for (size_t i = 0; i < PIXELS; i++) {
        pixels[i * 3] = levels[i % LEVELS];
        pixels[i * 3 + 1] = levels[i / LEVELS % LEVELS];
        pixels[i * 3 + 2] = levels[i / LEVELS / LEVELS];
    }
    memcpy(expected, pixels, sizeof pixels);
}

static struct views_pixel pixel_of(const float *from)
{
    return (struct views_pixel){from[0], from[1], from[2]};
}

static void put(float *to, struct views_pixel pixel)
{
    to[0] = pixel.r;
    to[1] = pixel.g;
    to[2] = pixel.b;
}

// Applies `apply` to each of `pixels`, which then must be `expected`.
static void compare_each(struct views_pixel (*apply)(struct views_pixel x, float amount),
                         float amount)
{
    for (size_t i = 0; i < PIXELS; i++) {
        put(pixels + i * 3, apply(pixel_of(pixels + i * 3), amount));
        assert_memory_equal(pixels + i * 3, expected + i * 3, 3 * sizeof(float));
    }
}

static struct views_pixel grayscale(struct views_pixel x, float unused)
{
    (void)unused;
    return views_grayscale(x);
}

static struct views_pixel hsv_of(struct views_pixel x, float unused)
{
    (void)unused;
    return views_hsv_of(x);
}

static struct views_pixel of_hsv(struct views_pixel x, float unused)
{
    (void)unused;
    return views_of_hsv(x);
}

static struct views_pixel solarized(struct views_pixel x, float threshold)
{
    x.r = views_finished(true, threshold, x.r);
    x.g = views_finished(true, threshold, x.g);
    x.b = views_finished(true, threshold, x.b);
    return x;
}

static void test_each_operation_gives_the_bits_of_augment(void **state)
{
    (void)state;
    static const float factors[] = {0, 0.6f, 1, 1.2f, 3}, turns[] = {-0.5f, -0.1f, 0, 1e-9f, 0.3f};
    for (size_t i = 0; i < 5; i++) {
        fill();
        color_saturation_c(expected, PIXELS, factors[i]);
        compare_each(views_saturation, factors[i]);
        fill();
        color_hue_c(expected, PIXELS, turns[i]);
        compare_each(views_hue, turns[i]);
        fill();
        color_brightness_c(expected, PIXELS, turns[i]);
        compare_each(views_brightness, turns[i]);
        fill();
        color_solarize_c(expected, PIXELS, levels[i * 2]);
        color_clip_c(expected, PIXELS);
        compare_each(solarized, levels[i * 2]);
    }
    fill();
    color_grayscale_c(expected, PIXELS);
    compare_each(grayscale, 0);
    fill();
    color_rgb_to_hsv_c(expected, PIXELS);
    compare_each(hsv_of, 0);
    fill();
    color_hsv_to_rgb_c(expected, PIXELS);
    compare_each(of_hsv, 0);
}

static void test_bytes_are_scaled_as_a_view_is(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        float value[3] = {(float)byte, (float)byte, (float)byte};
        color_scale_c(value, 1);
        struct views_pixel pixel = views_of_bytes((uint8_t)byte, (uint8_t)byte, (uint8_t)byte);
        assert_true(pixel.r == value[0] && pixel.g == value[0] && pixel.b == value[0]);
    }
}

// --- a whole image, as the kernels go through it -------------------------------------------------

struct picture {
    uint32_t size;
    const float *in; // after crop and resize
    float *out, *work;
};

static size_t area_of(const struct picture *picture)
{
    return (size_t)picture->size * picture->size;
}

static struct views_pixel mean_of(const struct picture *picture, const struct view_record *record)
{
    uint64_t r = 0, g = 0, b = 0;
    for (size_t i = 0; i < area_of(picture); i++) {
        struct views_pixel x = views_before_contrast(record, pixel_of(picture->in + i * 3));
        r += views_units(x.r);
        g += views_units(x.g);
        b += views_units(x.b);
    }
    double area = (double)area_of(picture);
    return (struct views_pixel){views_mean(r, area), views_mean(g, area), views_mean(b, area)};
}

static void color(const struct picture *picture, const struct view_record *record)
{
    struct views_pixel mean = {0, 0, 0};
    if (record->jitter) {
        mean = mean_of(picture, record);
    }
    for (size_t i = 0; i < area_of(picture); i++) {
        size_t x = i % picture->size, row = i - x;
        size_t from = record->flip ? row + picture->size - 1 - x : i;
        struct views_pixel pixel = pixel_of(picture->in + from * 3);
        put(picture->out + i * 3, views_colored(record, pixel, mean));
    }
}

// Values `step` apart in lines of `size`, one line after the other as `line` says.
static void blur_along(float *to, const float *from, size_t count, uint32_t size, size_t step,
                       const struct view_record *record)
{
    int32_t radius = (int32_t)record->taps / 2;
    double whole = 0;
    for (int32_t t = -radius; t <= radius; t++) {
        whole += views_weight(t, record->sigma);
    }
    for (size_t i = 0; i < count; i++) {
        int32_t place = (int32_t)(i / step % size);
        float sum = 0;
        for (int32_t t = -radius; t <= radius; t++) {
            if (place + t >= 0 && place + t < (int32_t)size) {
                float weight = (float)(views_weight(t, record->sigma) / whole);
                sum += weight * from[(ptrdiff_t)i + t * (ptrdiff_t)step];
            }
        }
        to[i] = sum;
    }
}

static void finish(const struct picture *picture, const struct view_record *record)
{
    size_t count = area_of(picture) * 3;
    color(picture, record);
    if (record->blur) {
        blur_along(picture->work, picture->out, count, picture->size, 3, record);
        blur_along(picture->out, picture->work, count, picture->size, (size_t)picture->size * 3,
                   record);
    }
    for (size_t i = 0; i < count; i++) {
        picture->out[i] = views_finished(record->solarize, record->threshold, picture->out[i]);
    }
}

static void test_whole_views_give_the_bits_of_augment(void **state)
{
    (void)state;
    enum { SIZE = 20, VALUES = SIZE * SIZE * 3 };
    static float in[VALUES], out[VALUES], work[VALUES + 2 * SIZE], whole[VALUES];
    static uint8_t bytes[VALUES];
    struct picture picture = {.size = SIZE, .in = in, .out = out, .work = work};
    struct recipe recipe;
    assert_int_equal(recipe_builtin("byol", &recipe, NULL), STATUS_OK);
    recipe.size = SIZE;
    recipe.view[1].blur = recipe.view[1].solarize = 0.5;
    recipe.view[1].blur_kernel = 0.5;
    for (uint32_t i = 0; i < 200; i++) {
        struct view_params params;
        struct view_key key = {.seed = 5, .record = i, .view = i % 2};
        view_draw(&recipe, key, 50, 40, &params);
        const struct view_record record = view_record_of(&params);
        for (size_t j = 0; j < VALUES; j++) {
            bytes[j] = (uint8_t)(j * j * 31 + j * (i + 7) + j / 9);
        }
        for (size_t j = 0; j < VALUES; j += 3) {
            put(in + j, views_of_bytes(bytes[j], bytes[j + 1], bytes[j + 2]));
        }
        view_finish(&record, SIZE, bytes, whole, work);
        finish(&picture, &record);
        assert_memory_equal(out, whole, sizeof whole);
    }
}

// --- golden rows ---------------------------------------------------------------------------------

static float number(const struct table *index, size_t row, const char *column)
{
    const char *cell = table_cell(index, row, column);
    return table_empty(cell) ? 0 : table_float(cell);
}

static bool flag(const struct table *index, size_t row, const char *column)
{
    return strcmp(table_cell(index, row, column), "1") == 0;
}

// A row of a single operation as the chain that does this alone; false where it is none.
static bool single(const char *op, struct view_record *record)
{
    record->flip = strcmp(op, "flip") == 0;
    record->grayscale = strcmp(op, "grayscale") == 0;
    record->blur = strcmp(op, "blur") == 0;
    record->solarize = strcmp(op, "solarize") == 0;
    return record->flip || record->grayscale || record->blur || record->solarize;
}

static bool chain(const struct table *index, size_t row, struct view_record *record)
{
    const char *op = table_cell(index, row, "op");
    if (strcmp(op, "jitter") != 0 && strncmp(op, "chain_view", 10) != 0) {
        return false;
    }
    record->flip = flag(index, row, "flip");
    record->jitter = flag(index, row, "jitter");
    record->grayscale = flag(index, row, "gray");
    record->blur = flag(index, row, "blur");
    record->solarize = flag(index, row, "solarize");
    const char *order = table_cell(index, row, "order"); // "2,0,3,1"
    for (size_t i = 0; i < 4; i++) {
        record->order[i] = (uint8_t)(order[i * 2] - '0');
    }
    return true;
}

static struct view_record record_of(const struct table *index, size_t row)
{
    return (struct view_record){.brightness = number(index, row, "brightness"),
                                .contrast = number(index, row, "contrast"),
                                .saturation = number(index, row, "saturation"),
                                .hue = number(index, row, "hue"),
                                .sigma = number(index, row, "sigma"),
                                .threshold = number(index, row, "threshold"),
                                .taps = (uint32_t)number(index, row, "kernel_taps")};
}

// Operations of the jitter alone, and the ways to and from HSV: no chain has only one of them.
static bool alone(const struct table *index, size_t row, const struct picture *picture)
{
    static const char *const ops[] = {"brightness", "contrast",   "saturation",
                                      "hue",        "rgb_to_hsv", "hsv_to_rgb"};
    const char *op = table_cell(index, row, "op");
    struct view_record record = record_of(index, row);
    record.order[0] = VIEW_CONTRAST; // nothing before it
    struct views_pixel mean = mean_of(picture, &record);
    size_t which = 0;
    while (which < 6 && strcmp(ops[which], op) != 0) {
        which++;
    }
    for (size_t i = 0; which < 6 && i < area_of(picture); i++) {
        struct views_pixel x = pixel_of(picture->in + i * 3);
        x = which < 4    ? views_jitter(&record, (uint8_t)which, x, mean)
            : which == 4 ? views_hsv_of(x)
                         : views_of_hsv(x);
        put(picture->out + i * 3, x);
    }
    return which < 6;
}

static size_t rows_checked;

static void check_row(const char *folder, const struct table *index, size_t row)
{
    const char *op = table_cell(index, row, "op");
    struct npy input = golden_array(folder, table_cell(index, row, "input"));
    struct npy output = golden_array(folder, table_cell(index, row, "out"));
    struct picture picture = {.size = (uint32_t)input.shape[0],
                              .in = input.data,
                              .out = malloc(input.count * sizeof(float)),
                              .work = malloc(input.count * sizeof(float))};
    struct view_record record = record_of(index, row);
    assert_non_null(picture.out);
    assert_non_null(picture.work);
    if (!alone(index, row, &picture)) {
        assert_true(chain(index, row, &record) || single(op, &record));
        finish(&picture, &record);
    }
    bool exact = strcmp(op, "flip") == 0 || strcmp(op, "solarize") == 0 ||
                 strcmp(op, "brightness") == 0 || strcmp(op, "hsv_to_rgb") == 0;
    double worst = max_difference(picture.out, output.data, input.count);
    if (!(worst <= (exact ? EXACT : ROUNDED))) {
        fail_msg("%s: off by %g", table_cell(index, row, "case"), worst);
    }
    rows_checked++;
    free(picture.out);
    free(picture.work);
    npy_free(&input);
    npy_free(&output);
}

static void test_golden_rows(void **state)
{
    (void)state;
    golden_each("augment_ops", check_row);
    assert_true(rows_checked > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_operation_gives_the_bits_of_augment),
        cmocka_unit_test(test_bytes_are_scaled_as_a_view_is),
        cmocka_unit_test(test_whole_views_give_the_bits_of_augment),
        cmocka_unit_test(test_golden_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
