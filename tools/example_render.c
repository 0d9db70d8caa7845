// Renders a picture of the example: background, shadow, object, clutter in front, lens and film.
//
// The distance to the object's outline is computed first, on a grid of SAMPLES x SAMPLES points a
// pixel; coverage, bevel and shadow are then read off that map.
#include "tools/example_render.h"

#include <math.h>
#include <stdlib.h>

#define SAMPLES     2
#define MAP_MARGIN  0.125f // of the picture, on each side: shadows come from outside, too
#define BEVEL_DEPTH 0.16f  // shape units over which the surface rises from the outline

// The map: distances in pictures, negative inside.
struct map {
    float *distance; // [side][side]
    uint32_t side, margin;
    float step; // between samples, in pictures
};

static float clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

static struct example_color mix(struct example_color a, struct example_color b, float share)
{
    return (struct example_color){a.red + share * (b.red - a.red),
                                  a.green + share * (b.green - a.green),
                                  a.blue + share * (b.blue - a.blue)};
}

static struct example_color scaled(struct example_color color, float factor)
{
    return (struct example_color){color.red * factor, color.green * factor, color.blue * factor};
}

// --- the map ---------------------------------------------------------------------------------

static void to_shape(const struct example_scene *scene, float x, float y, float shape[2])
{
    float dx = x - scene->x, dy = y - scene->y;
    shape[0] = scene->to_shape[0] * dx + scene->to_shape[1] * dy;
    shape[1] = scene->to_shape[2] * dx + scene->to_shape[3] * dy;
}

static void fill_map(struct map *map, const struct example_scene *scene)
{
    for (uint32_t row = 0; row < map->side; row++) {
        for (uint32_t column = 0; column < map->side; column++) {
            float x = ((float)column - (float)map->margin + 0.5f) * map->step;
            float y = ((float)row - (float)map->margin + 0.5f) * map->step;
            float shape[2];
            to_shape(scene, x, y, shape);
            map->distance[row * map->side + column] =
                scene->scale *
                example_shape_distance(scene->shape, shape[0], shape[1], scene->build);
        }
    }
}

static float map_at(const struct map *map, int32_t column, int32_t row)
{
    int32_t last = (int32_t)map->side - 1;
    column = column < 0 ? 0 : column > last ? last : column;
    row = row < 0 ? 0 : row > last ? last : row;
    return map->distance[(uint32_t)row * map->side + (uint32_t)column];
}

// --- the object ------------------------------------------------------------------------------

// How far the surface has risen at a distance from the outline: a quarter of a circle.
static float height_at(float distance, float scale)
{
    float depth = clamp(-distance / (BEVEL_DEPTH * scale), 0, 1);
    return sqrtf(depth * (2 - depth));
}

static struct example_color surface(const struct example_scene *scene, float x, float y)
{
    float shape[2];
    to_shape(scene, x, y, shape);
    float a = shape[0] +
              scene->bend *
                  (example_pattern_noise(shape[0] * 1.7f + 9, shape[1] * 1.7f, scene->seed) - 0.5f);
    float b =
        shape[1] +
        scene->bend *
            (example_pattern_noise(shape[0] * 1.7f, shape[1] * 1.7f + 9, scene->seed + 1) - 0.5f);
    float u = scene->to_pattern[0] * a + scene->to_pattern[1] * b + scene->phase[0];
    float v = scene->to_pattern[2] * a + scene->to_pattern[3] * b + scene->phase[1];
    return mix(scene->paint, scene->ink,
               example_pattern_value(scene->pattern, u, v, scene->softness, scene->seed));
}

// Blends the object's sample over `under`.
static struct example_color object_over(const struct example_scene *scene, const struct map *map,
                                        int32_t column, int32_t row, struct example_color under)
{
    float distance = map_at(map, column, row);
    float cover = clamp(0.5f - distance / map->step, 0, 1);
    if (cover <= 0) {
        return under;
    }
    float x = ((float)column - (float)map->margin + 0.5f) * map->step;
    float y = ((float)row - (float)map->margin + 0.5f) * map->step;
    float across = height_at(map_at(map, column + 1, row), scene->scale) -
                   height_at(map_at(map, column - 1, row), scene->scale);
    float down = height_at(map_at(map, column, row + 1), scene->scale) -
                 height_at(map_at(map, column, row - 1), scene->scale);
    float slope = BEVEL_DEPTH * scene->scale / (2 * map->step);
    float toward = -slope * (across * scene->light[0] + down * scene->light[1]);
    // The whole surface is a little brighter on the side of the lamp.
    float side = (x - scene->x) * scene->light[0] + (y - scene->y) * scene->light[1];
    float bright = 0.85f + scene->relief * (clamp(toward, -1, 1) * 0.6f + side);
    float glint = scene->shine * clamp(2 * toward - 0.8f, 0, 1);
    struct example_color color = scaled(surface(scene, x, y), clamp(bright, 0.08f, 2));
    return mix(under, mix(color, (struct example_color){1, 1, 1}, glint), cover);
}

static float shadow_at(const struct example_scene *scene, const struct map *map, int32_t column,
                       int32_t row)
{
    int32_t dx = (int32_t)floorf(scene->shadow[0] / map->step + 0.5f);
    int32_t dy = (int32_t)floorf(scene->shadow[1] / map->step + 0.5f);
    float distance = map_at(map, column - dx, row - dy);
    float depth = clamp(0.5f - distance / scene->shadow_softness, 0, 1);
    return 1 - scene->shadow_depth * depth * depth * (3 - 2 * depth);
}

// --- around it -------------------------------------------------------------------------------

static float clutter_cover(const struct example_clutter *clutter, float x, float y)
{
    float dx = x - clutter->x, dy = y - clutter->y;
    float a = fabsf(clutter->turn[0] * dx + clutter->turn[1] * dy) / clutter->width;
    float b = fabsf(clutter->turn[0] * dy - clutter->turn[1] * dx) / clutter->height;
    float reach = clutter->round > 0.5f ? sqrtf(a * a + b * b) : a > b ? a : b;
    float smaller = clutter->width < clutter->height ? clutter->width : clutter->height;
    float cover = clamp(0.5f - (reach - 1) * smaller / clutter->softness, 0, 1);
    return cover * cover * (3 - 2 * cover);
}

static struct example_color clutter_over(const struct example_clutter *clutter, float x, float y,
                                         struct example_color under)
{
    float cover = clutter_cover(clutter, x, y);
    // Lit from above, so that it is not flat.
    float bright =
        clamp(0.9f - 0.5f * (y - clutter->y) / (clutter->width + clutter->height), 0.5f, 1.3f);
    return cover > 0 ? mix(under, scaled(clutter->color, bright), cover) : under;
}

static struct example_color background(const struct example_scene *scene, float x, float y)
{
    float u = scene->to_noise[0] * x + scene->to_noise[1] * y;
    float v = scene->to_noise[2] * x + scene->to_noise[3] * y;
    float noise = 0.6f * example_pattern_noise(u, v, scene->seed + 2) +
                  0.4f * example_pattern_noise(2.3f * u, 2.3f * v, scene->seed + 3) - 0.5f;
    float ramp =
        0.5f + scene->slope[2] * (scene->slope[0] * (x - 0.5f) + scene->slope[1] * (y - 0.5f));
    struct example_color color =
        mix(scene->back[0], scene->back[1], clamp(ramp + scene->noise * noise, 0, 1));
    if (scene->horizon) {
        float below = y - scene->horizon_at - scene->horizon_tilt * (x - 0.5f);
        float share = clamp(0.5f + below / 0.03f, 0, 1);
        color = scaled(color, 1 + share * (scene->horizon_darker - 1));
    }
    uint32_t behind = scene->clutter_count - scene->clutter_in_front;
    for (uint32_t i = 0; i < behind; i++) {
        color = clutter_over(&scene->clutter[i], x, y, color);
    }
    return color;
}

// --- lens and film ---------------------------------------------------------------------------

static uint8_t exposed(float light, float noise)
{
    // A square root is the film's curve: close to the usual gamma, and exact.
    float value = sqrtf(clamp(light, 0, 1)) + noise;
    return (uint8_t)(clamp(value, 0, 1) * 255 + 0.5f);
}

static void expose(const struct example_scene *scene, struct example_color light, uint32_t column,
                   uint32_t row, float from_center, uint8_t pixel[3])
{
    float gain = scene->exposure * (1 - scene->vignette * from_center);
    const float lights[3] = {light.red * scene->lamp.red, light.green * scene->lamp.green,
                             light.blue * scene->lamp.blue};
    uint32_t bits = example_pattern_hash((int32_t)column, (int32_t)row, scene->seed + 4);
    for (int i = 0; i < 3; i++) {
        float noise = (float)(bits >> (10 * i) & 1023) * 0x1p-10f - 0.5f;
        pixel[i] = exposed(gain * lights[i], 2 * scene->grain * noise);
    }
}

static void render_pixel(const struct example_scene *scene, const struct map *map, uint32_t column,
                         uint32_t row, float pixel_size, uint8_t pixel[3])
{
    float x = ((float)column + 0.5f) * pixel_size, y = ((float)row + 0.5f) * pixel_size;
    int32_t map_column = (int32_t)(column * SAMPLES + map->margin);
    int32_t map_row = (int32_t)(row * SAMPLES + map->margin);
    struct example_color under =
        scaled(background(scene, x, y), shadow_at(scene, map, map_column, map_row));
    struct example_color sum = {0, 0, 0};
    for (int32_t j = 0; j < SAMPLES; j++) {
        for (int32_t i = 0; i < SAMPLES; i++) {
            struct example_color sample =
                object_over(scene, map, map_column + i, map_row + j, under);
            sum.red += sample.red;
            sum.green += sample.green;
            sum.blue += sample.blue;
        }
    }
    struct example_color color = scaled(sum, 1.0f / (SAMPLES * SAMPLES));
    for (uint32_t i = scene->clutter_count - scene->clutter_in_front; i < scene->clutter_count;
         i++) {
        color = clutter_over(&scene->clutter[i], x, y, color);
    }
    float from_center = (x - 0.5f) * (x - 0.5f) + (y - 0.5f) * (y - 0.5f);
    expose(scene, color, column, row, from_center, pixel);
}

enum status example_render(const struct example_scene *scene, uint32_t size, struct image *out,
                           struct error *error)
{
    enum status status = image_reserve(out, size, size, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct map map = {.margin = (uint32_t)(MAP_MARGIN * (float)size) * SAMPLES};
    map.side = size * SAMPLES + 2 * map.margin;
    map.step = 1.0f / (float)(size * SAMPLES);
    map.distance = malloc(sizeof *map.distance * map.side * map.side);
    if (map.distance == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to draw a picture of %u pixels", size);
    }
    fill_map(&map, scene);
    for (uint32_t row = 0; row < size; row++) {
        for (uint32_t column = 0; column < size; column++) {
            render_pixel(scene, &map, column, row, 1.0f / (float)size,
                         out->pixels + 3 * ((size_t)row * size + column));
        }
    }
    free(map.distance);
    return STATUS_OK;
}
