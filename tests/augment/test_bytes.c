// A view in two steps, bytes of crop and resize first and the rest afterwards, against the view in
// one: the bytes are its rounded values, and what rounding does to the end result stays bounded.
#include "augment/kernels.h"
#include "augment/view.h"
#include "formats/isa.h"
#include "formats/source.h"
#include "tests/support/photographs.h"
#include "tests/support/picture.h"
#include "tests/support/render.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE   40
#define VALUES (SIZE * SIZE * 3)

#define ROUNDING (1.0 / 510 + 1e-6) // of a byte, and of the arithmetic

static struct view_scratch *scratch;
static struct error error;
static float floats[VALUES], finished[VALUES];
static uint8_t bytes[VALUES];

static void must(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
}

static void render_bytes(const struct view_params *params, const struct image *crop, uint8_t *out)
{
    struct image_planes planes = {0};
    must(image_split(crop, &planes, &error));
    must(view_render_bytes(params, &planes, scratch, out, &error));
    image_planes_free(&planes);
}

static struct view_params plain(uint32_t width, uint32_t height)
{
    return (struct view_params){.size = SIZE,
                                .crop = {.width = width, .height = height},
                                .order = {0, 1, 2, 3},
                                .taps = 1,
                                .sigma = 1,
                                .threshold = 0.5f};
}

// The view `params` of `crop` in both ways, into `floats` and `finished`.
static void render_both(const struct view_params *params, const struct image *crop)
{
    static float work[VALUES + 2 * SIZE];
    assert_int_equal(view_finish_floats(SIZE), VALUES + 2 * SIZE);
    must(view_render_plainly(params, crop, floats, &error));
    render_bytes(params, crop, bytes);
    const struct view_record record = view_record_of(params);
    view_finish(&record, SIZE, bytes, finished, work);
}

static double largest_difference(void)
{
    double worst = 0;
    for (size_t i = 0; i < VALUES; i++) {
        worst = fmax(worst, fabs((double)floats[i] - (double)finished[i]));
    }
    return worst;
}

static void test_without_a_resize_the_bytes_are_those_of_the_crop(void **state)
{
    (void)state;
    struct image crop = {0};
    picture_fill(&crop, SIZE, SIZE, 1);
    struct view_params params = plain(SIZE, SIZE);
    params.flip = params.jitter = params.grayscale = params.solarize = true; // not done here
    render_bytes(&params, &crop, bytes);
    assert_memory_equal(bytes, crop.pixels, VALUES);
    image_free(&crop);
}

static void test_bytes_are_the_rounded_values_at_every_level(void **state)
{
    (void)state;
    enum isa chosen = isa_chosen();
    for (uint32_t i = 0; i < 40; i++) {
        struct image crop = {0};
        picture_fill(&crop, 1 + i * 7 % 90, 1 + i * 13 % 70, i);
        struct view_params params = plain(crop.width, crop.height);
        must(view_render_plainly(&params, &crop, floats, &error));
        params.flip = params.jitter = i % 2;
        for (enum isa isa = ISA_BASE; isa < ISA_COUNT; isa++) {
            if (isa_supported(isa)) {
                isa_force(isa);
                render_bytes(&params, &crop, bytes);
                for (size_t j = 0; j < VALUES; j++) {
                    assert_int_equal(bytes[j], (int)floorf(floats[j] * 255.0f + 0.5f));
                }
            }
        }
        isa_force(chosen);
        image_free(&crop);
    }
}

static void test_operations_that_do_not_amplify_keep_the_rounding_small(void **state)
{
    (void)state;
    static const struct {
        bool flip, grayscale, blur, solarize;
    } rows[] = {{0}, {.flip = 1}, {.grayscale = 1}, {.blur = 1}, {.solarize = 1}, {1, 1, 1, 1}};
    struct image crop = {0};
    picture_fill(&crop, 61, 37, 5);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct view_params params = plain(61, 37);
        params.flip = rows[i].flip;
        params.grayscale = rows[i].grayscale;
        params.blur = rows[i].blur;
        params.solarize = rows[i].solarize;
        params.taps = 9;
        render_both(&params, &crop);
        if (!(largest_difference() <= ROUNDING)) {
            fail_msg("row %zu: %g", i, largest_difference());
        }
    }
    image_free(&crop);
}

static void test_the_record_holds_every_parameter(void **state)
{
    (void)state;
    struct recipe recipe;
    assert_int_equal(recipe_builtin("byol", &recipe, &error), STATUS_OK);
    recipe.size = SIZE;
    for (uint32_t i = 0; i < 100; i++) {
        struct view_params params;
        struct view_key key = {.seed = 3, .record = i, .view = i % 2};
        view_draw(&recipe, key, SIZE, SIZE, &params);
        params.crop = (struct image_window){.width = SIZE, .height = SIZE};
        struct image crop = {0};
        picture_fill(&crop, SIZE, SIZE, i);
        render_both(&params, &crop); // without a resize nothing is rounded: no difference at all
        assert_memory_equal(floats, finished, sizeof floats);
        image_free(&crop);
    }
}

static void test_parameters_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct image crop = {0};
    struct image_planes planes = {0};
    picture_fill(&crop, 20, 10, 1);
    must(image_split(&crop, &planes, &error));
    struct view_params params = plain(21, 10);
    assert_int_equal(view_render_bytes(&params, &planes, scratch, bytes, &error), STATUS_INVALID);
    params = plain(20, 10);
    params.blur = true;
    params.taps = 4;
    assert_int_equal(view_render_bytes(&params, &planes, scratch, bytes, &error), STATUS_INVALID);
    image_planes_free(&planes);
    image_free(&crop);
}

// --- photographs --------------------------------------------------------------------------------

#define PHOTO_SIZE   224
#define PHOTO_VALUES ((size_t)PHOTO_SIZE * PHOTO_SIZE * 3)

struct differences {
    double sum, worst, worst_mean; // over values; over views
    uint64_t count;
};

static void take(struct differences *differences, const float *a, const float *b)
{
    double sum = 0;
    for (size_t i = 0; i < PHOTO_VALUES; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        sum += difference;
        differences->worst = fmax(differences->worst, difference);
    }
    differences->sum += sum;
    differences->count += PHOTO_VALUES;
    differences->worst_mean = fmax(differences->worst_mean, sum / (double)PHOTO_VALUES);
}

struct photographs {
    struct recipe recipe;
    struct image_decoder *decoder;
    struct view_scratch *scratch;
    struct image_planes planes;
    float *whole, *finished, *work;
    uint8_t *bytes;
    struct differences view[2];
};

static void compare_views(struct photographs *all, const uint8_t *file, size_t len, uint64_t number)
{
    struct image_info info;
    if (image_probe(all->decoder, file, len, &info, &error) != STATUS_OK) {
        return; // not an image
    }
    for (uint32_t view = 0; view < 2; view++) {
        struct view_params params;
        struct view_key key = {.seed = 1, .record = number, .view = view};
        view_draw(&all->recipe, key, info.width, info.height, &params);
        must(image_decode_windows(all->decoder, file, len, &params.crop, 1, &all->planes, &error));
        must(view_render(&params, &all->planes, &view_output_plain, all->scratch, all->whole,
                         &error));
        must(view_render_bytes(&params, &all->planes, all->scratch, all->bytes, &error));
        const struct view_record record = view_record_of(&params);
        view_finish(&record, PHOTO_SIZE, all->bytes, all->finished, all->work);
        take(&all->view[view], all->whole, all->finished);
    }
}

static void compare_all(struct photographs *all, uint64_t most)
{
    struct source *source;
    struct source_member member;
    uint8_t *file = NULL;
    size_t len, capacity = 0;
    must(source_open(&source, photographs_path(), &error));
    for (uint64_t i = 0; i < most && source_next(source, &member, &error) == STATUS_OK; i++) {
        must(source_read(source, &file, &len, &capacity, &error));
        compare_views(all, file, len, i);
    }
    free(file);
    source_close(&source);
}

// augment/README.md gives these figures for all photographs: BYOL_PHOTOGRAPHS=300.
static void check_differences(const struct differences *view, int number)
{
    double mean = view->sum / (double)view->count;
    print_message("view %d: mean %.2g, largest mean of a view %.2g, largest %.2g\n", number, mean,
                  view->worst_mean, view->worst);
    assert_true(mean <= 0.5 / 510);
    assert_true(view->worst_mean <= 1.0 / 510);
    assert_true(view->worst <= 8.0 / 510);
}

static void test_photographs_differ_by_the_rounding_of_bytes(void **state)
{
    (void)state;
    struct photographs all = {.whole = malloc(PHOTO_VALUES * sizeof(float)),
                              .finished = malloc(PHOTO_VALUES * sizeof(float)),
                              .work = malloc(view_finish_floats(PHOTO_SIZE) * sizeof(float)),
                              .bytes = malloc(PHOTO_VALUES)};
    photographs_path(); // or skip
    assert_int_equal(recipe_builtin("byol", &all.recipe, &error), STATUS_OK);
    must(image_decoder_open(&all.decoder, &error));
    must(view_scratch_open(&all.scratch, PHOTO_SIZE, &error));
    const char *most = getenv("BYOL_PHOTOGRAPHS");
    compare_all(&all, most != NULL ? strtoull(most, NULL, 10) : 20);
    check_differences(&all.view[0], 1);
    check_differences(&all.view[1], 2);
    image_planes_free(&all.planes);
    view_scratch_close(&all.scratch);
    image_decoder_close(&all.decoder);
    free(all.whole);
    free(all.finished);
    free(all.work);
    free(all.bytes);
}

static int open_scratch(void **state)
{
    (void)state;
    return view_scratch_open(&scratch, SIZE, &error) == STATUS_OK ? 0 : -1;
}

static int close_scratch(void **state)
{
    (void)state;
    view_scratch_close(&scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_resize_the_bytes_are_those_of_the_crop),
        cmocka_unit_test(test_bytes_are_the_rounded_values_at_every_level),
        cmocka_unit_test(test_operations_that_do_not_amplify_keep_the_rounding_small),
        cmocka_unit_test(test_the_record_holds_every_parameter),
        cmocka_unit_test(test_parameters_that_do_not_fit_are_refused),
        cmocka_unit_test(test_photographs_differ_by_the_rounding_of_bytes),
    };
    return cmocka_run_group_tests(tests, open_scratch, close_scratch);
}
