// What surfaces of the example look like: ten textures, and the noise that makes backgrounds and
// small irregularities.
//
// Only + - * /, floor and sqrt are used, which IEEE 754 defines exactly: the same values
// everywhere.
#ifndef TOOLS_EXAMPLE_PATTERN_H
#define TOOLS_EXAMPLE_PATTERN_H

#include <stdint.h>

enum example_pattern {
    EXAMPLE_STRIPES,
    EXAMPLE_TERRAZZO,
    EXAMPLE_CHECKS,
    EXAMPLE_RINGS,
    EXAMPLE_WEAVE,
    EXAMPLE_DOTS,
    EXAMPLE_CHEVRONS,
    EXAMPLE_WAVES,
    EXAMPLE_SCALES,
    EXAMPLE_BRICKS,
    EXAMPLE_PATTERN_COUNT,
};

// How much of the second colour lies at (u, v), 0 to 1; one period is 1 unit. `softness` is the
// width of edges in the same unit; `seed` varies patterns that have something to vary.
float example_pattern_value(enum example_pattern pattern, float u, float v, float softness,
                            uint32_t seed);

// Smooth random values in [0, 1] that change over about one unit.
float example_pattern_noise(float x, float y, uint32_t seed);

// Mixes two numbers and a seed into 32 bits that look random.
uint32_t example_pattern_hash(int32_t x, int32_t y, uint32_t seed);

// sin(2 pi turns), to about 0.001.
float example_pattern_sine(float turns);

#endif
