#include "tests/support/real_views.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "augment/view.h"
#include "formats/source.h"

struct maker {
    struct recipe recipe;
    struct image_decoder *decoder;
    struct view_scratch *scratch;
    struct image_planes planes;
};

const char *real_views_source(void)
{
    static const char cifar[] = "../shared/data/cifar10-test.tar.zst";
    return access(cifar, R_OK) == 0 ? cifar : "tests/data/images";
}

static void render(struct maker *maker, const uint8_t *bytes, size_t len, struct view_key key,
                   float *to)
{
    struct image_info info;
    struct view_params params;
    assert_int_equal(image_probe(maker->decoder, bytes, len, &info, NULL), STATUS_OK);
    view_draw(&maker->recipe, key, info.width, info.height, &params);
    assert_int_equal(
        image_decode_windows(maker->decoder, bytes, len, &params.crop, 1, &maker->planes, NULL),
        STATUS_OK);
    assert_int_equal(
        view_render(&params, &maker->planes, &view_output_plain, maker->scratch, to, NULL),
        STATUS_OK);
}

// From one pass over the source, `done` views are there already. Returns how many there are then.
static uint32_t read_images(struct maker *maker, float *views[2], uint32_t done, uint32_t count)
{
    struct source *source;
    struct source_member member;
    uint8_t *bytes = NULL;
    size_t len, capacity = 0, floats = (size_t)(3 * maker->recipe.size * maker->recipe.size);
    assert_int_equal(source_open(&source, real_views_source(), NULL), STATUS_OK);
    for (; done < count && source_next(source, &member, NULL) == STATUS_OK; done++) {
        assert_int_equal(source_read(source, &bytes, &len, &capacity, NULL), STATUS_OK);
        for (uint32_t v = 0; v < 2; v++) {
            struct view_key key = {.seed = 1, .record = done, .view = v};
            render(maker, bytes, len, key, views[v] + done * floats);
        }
    }
    free(bytes);
    source_close(&source);
    return done;
}

void real_views_make(float *views[2], uint32_t count, uint32_t size)
{
    struct maker maker = {0};
    assert_int_equal(recipe_builtin("small", &maker.recipe, NULL), STATUS_OK);
    maker.recipe.size = size;
    assert_int_equal(image_decoder_open(&maker.decoder, NULL), STATUS_OK);
    assert_int_equal(view_scratch_open(&maker.scratch, size, NULL), STATUS_OK);
    for (unsigned v = 0; v < 2; v++) {
        views[v] = malloc((size_t)count * size * size * 3 * sizeof(float));
        assert_non_null(views[v]);
    }
    for (uint32_t done = 0; done < count;) {
        uint32_t before = done;
        done = read_images(&maker, views, done, count);
        assert_true(done > before); // an empty source would never end
    }
    image_planes_free(&maker.planes);
    view_scratch_close(&maker.scratch);
    image_decoder_close(&maker.decoder);
}
