// Drawing a view: from (recipe, key, image size) to parameters, by pure arithmetic.
//
// Each quantity has its own fixed Philox word, so that changing one setting of a recipe leaves all
// other draws as they were: ablations compare the same crops.
#include "augment/philox.h"
#include "augment/view.h"

#include <math.h>

// The words of one view: block * 4 + word of the block.
enum draw {
    DRAW_AREA,
    DRAW_ASPECT,
    DRAW_X,
    DRAW_Y,
    DRAW_FLIP,
    DRAW_JITTER,
    DRAW_GRAYSCALE,
    DRAW_BLUR,
    DRAW_SOLARIZE,
    DRAW_ORDER,
    DRAW_SIGMA,
    DRAW_BRIGHTNESS,
    DRAW_CONTRAST,
    DRAW_SATURATION,
    DRAW_HUE,
    DRAW_COUNT
};

struct draws {
    struct philox_words block[(DRAW_COUNT + 3) / 4];
};

static void draws_fill(struct draws *draws, struct view_key key)
{
    for (uint32_t i = 0; i < sizeof draws->block / sizeof draws->block[0]; i++) {
        const uint32_t counter[4] = {(uint32_t)key.record, (uint32_t)(key.record >> 32), key.epoch,
                                     key.view << 16 | i};
        draws->block[i] = philox4x32(key.seed, counter);
    }
}

static uint32_t draw_word(const struct draws *draws, enum draw which)
{
    return draws->block[which / 4].word[which % 4];
}

static float draw_uniform(const struct draws *draws, enum draw which, double low, double high)
{
    float from = (float)low, to = (float)high;
    return from + philox_unit(draw_word(draws, which)) * (to - from);
}

// The reference compares u <= p; a probability of zero here never applies.
static bool draw_bool(const struct draws *draws, enum draw which, double probability)
{
    return probability > 0 && philox_unit(draw_word(draws, which)) <= (float)probability;
}

// 0 to count - 1. The high half of a product: no value is favoured by more than count / 2^32.
static uint32_t draw_integer(const struct draws *draws, enum draw which, uint32_t count)
{
    return (uint32_t)((uint64_t)draw_word(draws, which) * count >> 32);
}

static uint32_t side_of(float square, uint32_t limit)
{
    float side = rintf(sqrtf(square));
    if (side < 1) {
        return 1; // only for images of a few pixels, where the reference would fail
    }
    return side < (float)limit ? (uint32_t)side : limit;
}

// One draw, clamped and never redrawn: near full-size crops lose area and leave the aspect range.
static struct image_window random_crop(const struct recipe_view *view, const struct draws *draws,
                                       uint32_t width, uint32_t height)
{
    float whole = (float)((uint64_t)width * height);
    float area = draw_uniform(draws, DRAW_AREA, view->area_min, view->area_max) * whole;
    float log_aspect =
        draw_uniform(draws, DRAW_ASPECT, log(view->aspect_min), log(view->aspect_max));
    // In double, so that one rounding to float hides how math libraries differ in their last bit.
    float aspect = (float)exp((double)log_aspect);
    struct image_window crop = {.width = side_of(area * aspect, width),
                                .height = side_of(area / aspect, height)};
    crop.x = draw_integer(draws, DRAW_X, width - crop.width + 1);
    crop.y = draw_integer(draws, DRAW_Y, height - crop.height + 1);
    return crop;
}

// The reference's evaluation crop: S / (S + 32) of the shorter side, 0.875 at 224.
static struct image_window center_crop(uint32_t size, uint32_t width, uint32_t height)
{
    float share = (float)((double)size / (double)(size + 32));
    uint32_t shorter = width < height ? width : height;
    uint32_t side = (uint32_t)(share * (float)shorter);
    side = side < 1 ? 1 : side;
    return (struct image_window){(width - side + 1) / 2, (height - side + 1) / 2, side, side};
}

// Decodes 0 to 23 into one of the 24 orders: each step picks one of those left.
static void order_decode(uint8_t order[4], uint32_t number)
{
    uint8_t left[4] = {VIEW_BRIGHTNESS, VIEW_CONTRAST, VIEW_SATURATION, VIEW_HUE};
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t pick = number % (4 - i);
        number /= 4 - i;
        order[i] = left[pick];
        for (uint32_t j = pick; j + 1 < 4 - i; j++) {
            left[j] = left[j + 1];
        }
    }
}

static void draw_colors(const struct recipe_view *view, const struct draws *draws,
                        struct view_params *out)
{
    out->jitter = draw_bool(draws, DRAW_JITTER, view->jitter);
    out->grayscale = draw_bool(draws, DRAW_GRAYSCALE, view->grayscale);
    order_decode(out->order, draw_integer(draws, DRAW_ORDER, 24));
    out->brightness = draw_uniform(draws, DRAW_BRIGHTNESS, -view->brightness, view->brightness);
    out->contrast = draw_uniform(draws, DRAW_CONTRAST, 1 - view->contrast, 1 + view->contrast);
    out->saturation =
        draw_uniform(draws, DRAW_SATURATION, 1 - view->saturation, 1 + view->saturation);
    out->hue = draw_uniform(draws, DRAW_HUE, -view->hue, view->hue);
}

void view_draw(const struct recipe *recipe, struct view_key key, uint32_t width, uint32_t height,
               struct view_params *out)
{
    const struct recipe_view *view = &recipe->view[key.view];
    struct draws draws;
    draws_fill(&draws, key);
    *out = (struct view_params){.size = (uint32_t)recipe->size};
    switch ((enum recipe_crop)view->crop) {
    case RECIPE_CROP_RANDOM:
        out->crop = random_crop(view, &draws, width, height);
        break;
    case RECIPE_CROP_CENTER:
        out->crop = center_crop(out->size, width, height);
        break;
    case RECIPE_CROP_WHOLE:
        out->crop = (struct image_window){0, 0, width, height};
        break;
    }
    out->flip = draw_bool(&draws, DRAW_FLIP, view->flip);
    draw_colors(view, &draws, out);
    out->blur = draw_bool(&draws, DRAW_BLUR, view->blur);
    out->sigma = draw_uniform(&draws, DRAW_SIGMA, view->sigma_min, view->sigma_max);
    out->taps = 2 * (uint32_t)((double)recipe->size * view->blur_kernel / 2) + 1;
    out->solarize = draw_bool(&draws, DRAW_SOLARIZE, view->solarize);
    out->threshold = (float)view->solarize_threshold;
}
