// One picture of the example: what stands in it (drawn at random), and how that looks (rendered).
//
// The class decides outline and, as a rule, texture. Everything else varies within each class:
// colours, place, size, turn, light, shadow, background, clutter, exposure, grain.
#ifndef TOOLS_EXAMPLE_SCENE_H
#define TOOLS_EXAMPLE_SCENE_H

#include "tools/example_pattern.h"
#include "tools/example_shape.h"

#include <stdbool.h>
#include <stdint.h>

#define EXAMPLE_MOST_CLUTTER 6

struct example_color {
    float red, green, blue; // linear light, 0 to 1
};

// Coordinates are in pictures: (0, 0) the upper left corner, (1, 1) the lower right one.
struct example_clutter {
    float x, y, width, height, turn[2]; // half sizes; cosine and sine
    float softness;                     // of its edge: out of focus
    float round;                        // 0 box, 1 ellipse
    struct example_color color;
};

struct example_scene {
    // The object: picture to shape units is shape = to_shape * (picture - center).
    enum example_shape shape;
    float x, y, to_shape[4], build;
    float scale; // shape unit in pictures

    // Its texture: shape units to periods, and the bending of the surface.
    enum example_pattern pattern;
    float to_pattern[4], phase[2], softness, bend;
    struct example_color ink, paint;

    // Light.
    float light[2], relief, shine; // direction in the picture's plane
    float shadow[2], shadow_depth, shadow_softness;
    struct example_color lamp;

    // Background: two colours, mixed by a slope and by stretched noise.
    struct example_color back[2];
    float slope[3], to_noise[4], noise;
    bool horizon;
    float horizon_at, horizon_tilt, horizon_darker;
    struct example_clutter clutter[EXAMPLE_MOST_CLUTTER];
    uint32_t clutter_count, clutter_in_front; // the last ones stand before the object

    float exposure, vignette, grain;
    uint32_t seed; // of noises
};

// Draws picture number `picture` of class `label`: the same for the same numbers.
void example_scene_draw(struct example_scene *scene, uint64_t seed, uint32_t label,
                        uint32_t picture);

#endif
