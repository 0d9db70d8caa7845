// Whole views: view_render at every level against the plain C of view_render_plainly.
#include "augment/kernels.h"
#include "augment/view.h"
#include "tests/simd/guard.h"
#include "tests/simd/simd.h"
#include "tests/support/picture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE  300
#define MAX_BYTES ((size_t)MAX_SIZE * MAX_SIZE * 3 * sizeof(float))
#define TOLERANCE 5e-6 // where HSV or blur takes part; else equal

static struct error error;

static void must(enum status status)
{
    if (status != STATUS_OK) {
        printf("%s\n", error.reason);
        exit(EXIT_FAILURE);
    }
}

struct world {
    uint64_t random;
    struct guard bytes; // of the crop
    struct guard out;
    float *expected, *first; // by plain C; at the first level
    struct view_scratch *scratch;
    struct view_params params;
    struct image crop;
    struct image_planes planes;
    struct view_output output;
};

// --- cases --------------------------------------------------------------------------------------

static uint32_t any_side(uint64_t *random)
{
    uint32_t most[] = {4, 40, 100, MAX_SIZE};
    return simd_between(random, 1, most[simd_between(random, 0, 3)]);
}

static float spread(uint64_t *random, float centre, float width)
{
    return centre + (simd_unit(random) * 2 - 1) * width;
}

static bool chance(uint64_t *random, float probability)
{
    return simd_unit(random) < probability;
}

static void any_params(struct world *world)
{
    uint64_t *random = &world->random;
    struct view_params *params = &world->params;
    *params = (struct view_params){.size = any_side(random),
                                   .crop = {.width = any_side(random), .height = any_side(random)},
                                   .flip = chance(random, 0.5f),
                                   .jitter = chance(random, 0.7f),
                                   .grayscale = chance(random, 0.3f),
                                   .blur = chance(random, 0.5f),
                                   .solarize = chance(random, 0.3f),
                                   .brightness = spread(random, 0, 0.5f),
                                   .contrast = spread(random, 1, 0.5f),
                                   .saturation = spread(random, 1, 0.5f),
                                   .hue = spread(random, 0, 0.6f),
                                   .sigma = 0.05f + simd_unit(random) * 3,
                                   .threshold = 0.5f};
    params->taps = 2 * simd_between(random, 0, params->size < 20 ? params->size - 1 : 19) + 1;
    for (uint8_t i = 0; i < 4; i++) {
        params->order[i] = i;
    }
    for (uint32_t i = 3; i > 0; i--) {
        uint32_t other = simd_between(random, 0, i);
        uint8_t kept = params->order[i];
        params->order[i] = params->order[other];
        params->order[other] = kept;
    }
}

// Whether plain C must be equalled: no HSV, which leaves grey as it is, and no blur.
static bool is_exact(const struct world *world)
{
    bool grey = world->planes.plane[0] == world->planes.plane[1];
    return !world->params.blur && (grey || !world->params.jitter);
}

// Rows of any stride between pages that crash: as near to the end as the alignment allows.
static void any_crop(struct world *world)
{
    const struct image_window *crop = &world->params.crop;
    bool grey = chance(&world->random, 0.2f);
    picture_fill(&world->crop, crop->width, crop->height, simd_random(&world->random));
    size_t align = IMAGE_PLANES_ALIGN;
    size_t stride = (crop->width + align - 1) / align * align;
    stride += align * simd_between(&world->random, 0, 2);
    size_t last = (crop->width + align + align - 1) / align * align; // the last row, over-read
    size_t plane = stride * (crop->height - 1) + last;
    uint8_t *first = guard_last(&world->bytes, grey ? plane : 3 * plane);
    world->planes = (struct image_planes){.width = crop->width, .height = crop->height};
    world->planes.stride = stride;
    for (size_t channel = 0; channel < 3; channel++) {
        world->planes.plane[channel] = grey ? first : first + channel * plane;
        for (size_t i = 0; i < (size_t)crop->width * crop->height; i++) {
            uint8_t *pixel = &world->crop.pixels[i * 3 + channel];
            *pixel = grey ? world->crop.pixels[i * 3] : *pixel;
            world->planes.plane[channel][i / crop->width * stride + i % crop->width] = *pixel;
        }
    }
}

static void any_output(struct world *world)
{
    const struct view_output plain = view_output_plain, normal = view_output_imagenet;
    world->output = chance(&world->random, 0.5f) ? plain : normal;
    world->output.layout = chance(&world->random, 0.5f) ? VIEW_HWC : VIEW_CHW;
}

// --- checks -------------------------------------------------------------------------------------

static void expect(struct world *world)
{
    uint32_t size = world->params.size;
    size_t area = (size_t)size * size;
    float *plain = malloc(area * 3 * sizeof *plain);
    if (plain == NULL) {
        exit(EXIT_FAILURE);
    }
    must(view_render_plainly(&world->params, &world->crop, plain, &error));
    for (size_t i = 0; i < area * 3; i++) {
        size_t pixel = i / 3, channel = i % 3;
        size_t to = world->output.layout == VIEW_HWC ? i : channel * area + pixel;
        float factor = 1.0f / world->output.deviation[channel];
        world->expected[to] = (plain[i] - world->output.mean[channel]) * factor;
    }
    free(plain);
}

static int complain(const struct world *world, enum isa isa, const char *what, double by)
{
    char *json = NULL;
    must(view_to_json(&world->params, &json, &error));
    printf("%s: %s (%g): %s\n", isa_name(isa), what, by, json);
    free(json);
    return 1;
}

static int compare(const struct world *world, const float *out, enum isa isa, bool first)
{
    size_t count = (size_t)world->params.size * world->params.size * 3;
    bool normal = world->output.mean[0] != 0;
    double allowed = is_exact(world) ? 0 : TOLERANCE * (normal ? 1 / 0.224 : 1);
    double worst = 0;
    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)out[i] - (double)world->expected[i]);
        worst = difference > worst || isnan(difference) ? difference : worst;
    }
    if (!(worst <= allowed)) {
        return complain(world, isa, "not what plain C gives", worst);
    }
    if (!first && memcmp(out, world->first, count * sizeof *out) != 0) {
        return complain(world, isa, "other bits than the narrowest level gives", 0);
    }
    return 0;
}

static int check_case(struct world *world)
{
    enum isa levels[ISA_COUNT];
    size_t count = simd_levels(levels);
    size_t bytes = (size_t)world->params.size * world->params.size * 3 * sizeof(float);
    bool at_end = chance(&world->random, 0.5f);
    float *out = at_end ? guard_last(&world->out, bytes) : guard_first(&world->out);
    expect(world);
    int failed = 0;
    for (size_t i = 0; i < count && !failed; i++) {
        isa_force(levels[i]);
        memset(out, 0xff, bytes);
        must(view_render(&world->params, &world->planes, &world->output, world->scratch, out,
                         &error));
        failed = compare(world, out, levels[i], i == 0);
        memcpy(world->first, out, bytes);
    }
    return failed;
}

static int check(long rounds, uint64_t seed)
{
    struct world world = {.random = seed,
                          .bytes = guard_open((size_t)MAX_SIZE * (MAX_SIZE + 256) * 3),
                          .out = guard_open(MAX_BYTES),
                          .expected = malloc(MAX_BYTES),
                          .first = malloc(MAX_BYTES)};
    enum isa chosen = isa_chosen();
    if (world.expected == NULL || world.first == NULL) {
        exit(EXIT_FAILURE);
    }
    must(view_scratch_open(&world.scratch, MAX_SIZE, &error));
    int failed = 0;
    for (long round = 0; round < rounds && !failed; round++) {
        any_params(&world);
        any_crop(&world);
        any_output(&world);
        failed = check_case(&world);
    }
    isa_force(chosen);
    view_scratch_close(&world.scratch);
    guard_close(&world.bytes);
    guard_close(&world.out);
    image_free(&world.crop);
    free(world.expected);
    free(world.first);
    return failed;
}

// --- times --------------------------------------------------------------------------------------

#define SIZE  224
#define VIEWS 128 // of a batch of 64 pairs

struct bench {
    struct view_scratch *scratch;
    struct image image;
    struct image_planes crops[VIEWS];
    struct view_params params[VIEWS];
    float *batch;
    struct view_output output;
};

static void open_bench(struct bench *bench, uint32_t view)
{
    struct recipe recipe;
    must(recipe_builtin("byol", &recipe, &error));
    must(view_scratch_open(&bench->scratch, SIZE, &error));
    bench->batch = aligned_alloc(64, (size_t)VIEWS * SIZE * SIZE * 3 * sizeof(float));
    if (bench->batch == NULL) {
        exit(EXIT_FAILURE);
    }
    memset(bench->batch, 0, (size_t)VIEWS * SIZE * SIZE * 3 * sizeof(float));
    for (uint32_t i = 0; i < VIEWS; i++) {
        struct view_key key = {.seed = 5, .record = i, .view = view};
        view_draw(&recipe, key, 500, 375, &bench->params[i]);
        const struct image_window *crop = &bench->params[i].crop;
        picture_fill(&bench->image, crop->width, crop->height, i);
        must(image_split(&bench->image, &bench->crops[i], &error));
    }
}

static void close_bench(struct bench *bench)
{
    for (uint32_t i = 0; i < VIEWS; i++) {
        image_planes_free(&bench->crops[i]);
    }
    image_free(&bench->image);
    view_scratch_close(&bench->scratch);
    free(bench->batch);
}

static void render_batch(void *context)
{
    struct bench *bench = context;
    for (size_t i = 0; i < VIEWS; i++) {
        must(view_render(&bench->params[i], &bench->crops[i], &bench->output, bench->scratch,
                         bench->batch + i * SIZE * SIZE * 3, &error));
    }
}

static void time_levels(const char *what, struct bench *bench)
{
    enum isa levels[ISA_COUNT], chosen = isa_chosen();
    size_t count = simd_levels(levels);
    for (size_t i = 0; i < count; i++) {
        isa_force(levels[i]);
        simd_report(what, levels[i], (double)VIEWS * SIZE * SIZE, render_batch, bench);
    }
    isa_force(chosen);
}

static void time_views(void)
{
    for (uint32_t view = 0; view < 2; view++) {
        struct bench bench = {.output = view_output_imagenet};
        open_bench(&bench, view);
        time_levels(view == 0 ? "128 views T, HWC" : "128 views T', HWC", &bench);
        bench.output.layout = VIEW_CHW;
        time_levels(view == 0 ? "128 views T, CHW" : "128 views T', CHW", &bench);
        close_bench(&bench);
    }
}

const struct simd_suite simd_suite_views = {"views", check, time_views};
