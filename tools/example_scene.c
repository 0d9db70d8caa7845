// Draws what stands in a picture of the example. Rendering is in example_render.c.
#include "tools/example_scene.h"

#include "tools/example_random.h"

#include <math.h>

// A texture of another class now and then: the outline counts too.
#define OWN_PATTERN 0.95f

static const enum example_pattern patterns[EXAMPLE_SHAPE_COUNT] = {
    [EXAMPLE_ARROW] = EXAMPLE_STRIPES, [EXAMPLE_CRESCENT] = EXAMPLE_TERRAZZO,
    [EXAMPLE_CROSS] = EXAMPLE_CHECKS,  [EXAMPLE_DISC] = EXAMPLE_RINGS,
    [EXAMPLE_GEAR] = EXAMPLE_WEAVE,    [EXAMPLE_HEART] = EXAMPLE_DOTS,
    [EXAMPLE_LEAF] = EXAMPLE_CHEVRONS, [EXAMPLE_RING] = EXAMPLE_WAVES,
    [EXAMPLE_STAR] = EXAMPLE_SCALES,   [EXAMPLE_TRIANGLE] = EXAMPLE_BRICKS,
};

static float clamp_unit(float x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

// Colour from hue (turns), saturation and value.
static struct example_color color_of(float hue, float saturation, float value)
{
    float channel[3];
    for (int i = 0; i < 3; i++) {
        float h = hue + (float)i / 3;
        float pure = clamp_unit(fabsf(6 * (h - floorf(h)) - 3) - 1);
        channel[i] = value * (1 - saturation * (1 - pure));
    }
    return (struct example_color){channel[0], channel[1], channel[2]};
}

static struct example_color draw_color(struct example_random *random, float low, float high)
{
    float hue = example_random_range(random, 0, 1);
    float saturation = example_random_range(random, 0.05f, 0.9f);
    return color_of(hue, saturation, example_random_range(random, low, high));
}

static void draw_turn(struct example_random *random, float most, float turn[2])
{
    float angle = example_random_range(random, -most, most);
    turn[0] = example_pattern_sine(angle + 0.25f);
    turn[1] = example_pattern_sine(angle);
}

// A matrix that turns by up to `most` turns, and stretches by `along` and `across`.
static void draw_matrix(struct example_random *random, float most, float along, float across,
                        float matrix[4])
{
    float turn[2];
    draw_turn(random, most, turn);
    matrix[0] = along * turn[0];
    matrix[1] = along * turn[1];
    matrix[2] = -across * turn[1];
    matrix[3] = across * turn[0];
}

static void draw_object(struct example_scene *scene, struct example_random *random, uint32_t label)
{
    scene->shape = (enum example_shape)label;
    scene->scale = example_random_range(random, 0.36f, 0.54f);
    scene->x = example_random_range(random, 0.4f, 0.6f);
    scene->y = example_random_range(random, 0.4f, 0.6f);
    scene->build = example_random_range(random, 0, 1);
    float squeeze = example_random_range(random, 0.85f, 1.15f);
    draw_matrix(random, 0.1f, squeeze / scene->scale, 1 / (squeeze * scene->scale),
                scene->to_shape);
    if (example_random_chance(random, 0.5f)) { // seen in a mirror
        scene->to_shape[0] = -scene->to_shape[0];
        scene->to_shape[1] = -scene->to_shape[1];
    }
}

static void draw_surface(struct example_scene *scene, struct example_random *random, uint32_t label)
{
    uint32_t other = example_random_index(random, EXAMPLE_PATTERN_COUNT);
    bool own = example_random_chance(random, OWN_PATTERN);
    scene->pattern = own ? patterns[label] : (enum example_pattern)other;
    // In periods per picture, so that the texture's grain does not tell the object's size.
    float grain = example_random_range(random, 6.0f, 10.0f) * scene->scale;
    draw_matrix(random, 0.05f, grain, grain * example_random_range(random, 0.85f, 1.15f),
                scene->to_pattern);
    scene->phase[0] = example_random_range(random, -0.5f, 0.5f);
    scene->phase[1] = example_random_range(random, -0.5f, 0.5f);
    scene->softness = example_random_range(random, 0.06f, 0.16f);
    scene->bend = example_random_range(random, 0, 0.25f);
    struct example_color dark = draw_color(random, 0.02f, 0.25f);
    struct example_color light = draw_color(random, 0.5f, 1.0f);
    bool swap = example_random_chance(random, 0.5f);
    scene->ink = swap ? light : dark;
    scene->paint = swap ? dark : light;
}

static void draw_light(struct example_scene *scene, struct example_random *random)
{
    draw_turn(random, 0.5f, scene->light);
    scene->relief = example_random_range(random, 0.25f, 0.7f);
    scene->shine = example_random_range(random, 0, 0.35f);
    float away = example_random_range(random, 0.02f, 0.08f);
    scene->shadow[0] = -away * scene->light[0];
    scene->shadow[1] = -away * scene->light[1];
    scene->shadow_depth = example_random_range(random, 0.25f, 0.75f);
    scene->shadow_softness = example_random_range(random, 0.03f, 0.12f);
    scene->lamp =
        color_of(example_random_range(random, 0, 1), example_random_range(random, 0, 0.3f), 1);
    scene->exposure = example_random_range(random, 0.75f, 1.25f);
    scene->vignette = example_random_range(random, 0, 0.5f);
    scene->grain = 0.012f; // alike in all: grain would be the easiest thing to know a picture by
}

static void draw_background(struct example_scene *scene, struct example_random *random)
{
    scene->back[0] = draw_color(random, 0.05f, 0.8f);
    scene->back[1] = draw_color(random, 0.05f, 0.8f);
    draw_turn(random, 0.5f, scene->slope);
    scene->slope[2] = example_random_range(random, 0.2f, 0.8f);
    float along = example_random_range(random, 1, 8), across = example_random_range(random, 2, 22);
    draw_matrix(random, 0.5f, along, across, scene->to_noise);
    scene->noise = example_random_range(random, 0.1f, 0.6f);
    scene->horizon = example_random_chance(random, 0.5f);
    scene->horizon_at = example_random_range(random, 0.25f, 0.75f);
    scene->horizon_tilt = example_random_range(random, -0.15f, 0.15f);
    scene->horizon_darker = example_random_range(random, 0.35f, 0.9f);
}

static void draw_clutter(struct example_scene *scene, struct example_random *random)
{
    scene->clutter_count = 1 + example_random_index(random, EXAMPLE_MOST_CLUTTER);
    scene->clutter_in_front = example_random_chance(random, 0.25f) ? 1 : 0;
    for (uint32_t i = 0; i < scene->clutter_count; i++) {
        bool front = i + scene->clutter_in_front >= scene->clutter_count;
        struct example_clutter *clutter = &scene->clutter[i];
        clutter->x = example_random_range(random, 0, 1);
        clutter->y = example_random_range(random, 0, 1);
        if (front) { // at the rim: it must not hide the object
            clutter->y = example_random_chance(random, 0.5f) ? 0.0f : 1.0f;
        }
        clutter->width = example_random_range(random, 0.03f, front ? 0.1f : 0.25f);
        clutter->height = example_random_range(random, 0.03f, front ? 0.1f : 0.16f);
        draw_turn(random, 0.5f, clutter->turn);
        clutter->softness = example_random_range(random, 0.01f, 0.07f);
        clutter->round = example_random_chance(random, 0.5f) ? 1.0f : 0.0f;
        clutter->color = draw_color(random, 0.03f, 0.9f);
    }
}

void example_scene_draw(struct example_scene *scene, uint64_t seed, uint32_t label,
                        uint32_t picture)
{
    struct example_random random = {.seed = seed, .picture = picture, .label = label};
    *scene = (struct example_scene){.seed = example_random_word(&random)};
    draw_object(scene, &random, label);
    draw_surface(scene, &random, label);
    draw_light(scene, &random);
    draw_background(scene, &random);
    draw_clutter(scene, &random);
}
