// The textures of the example, each a function of the plane.
#include "tools/example_pattern.h"

#include <math.h>

static float clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

// From 0 to 1 around x = 0, over `softness`.
static float edge(float x, float softness)
{
    return clamp(0.5f + x / softness, 0, 1);
}

static float fraction(float x)
{
    return x - floorf(x);
}

// Zigzag of period 1 between -0.25 (at 0) and 0.25 (at 0.5): its slope is 1, so that edges keep
// their width.
static float zigzag(float x)
{
    return 0.25f - fabsf(fraction(x) - 0.5f);
}

float example_pattern_sine(float turns)
{
    float t = turns - floorf(turns + 0.5f);
    float y = 8 * t - 16 * t * fabsf(t);
    return y + 0.225f * (y * fabsf(y) - y);
}

uint32_t example_pattern_hash(int32_t x, int32_t y, uint32_t seed)
{
    uint32_t h = seed + (uint32_t)x * 0x9e3779b1u + (uint32_t)y * 0x85ebca77u;
    h = (h ^ (h >> 15)) * 0x2c1b3c6du;
    h = (h ^ (h >> 12)) * 0x297a2d39u;
    return h ^ (h >> 15);
}

static float lattice(int32_t x, int32_t y, uint32_t seed)
{
    return (float)(example_pattern_hash(x, y, seed) >> 8) * 0x1p-24f;
}

float example_pattern_noise(float x, float y, uint32_t seed)
{
    float left = floorf(x), top = floorf(y);
    int32_t i = (int32_t)left, j = (int32_t)top;
    float a = x - left, b = y - top;
    a = a * a * (3 - 2 * a);
    b = b * b * (3 - 2 * b);
    float above = lattice(i, j, seed) + a * (lattice(i + 1, j, seed) - lattice(i, j, seed));
    float below =
        lattice(i, j + 1, seed) + a * (lattice(i + 1, j + 1, seed) - lattice(i, j + 1, seed));
    return above + b * (below - above);
}

static float checks(float u, float v, float softness)
{
    float a = edge(zigzag(u), softness), b = edge(zigzag(v), softness);
    return a + b - 2 * a * b;
}

// Rows of dots, every second row shifted by half.
static float dots(float u, float v, float softness)
{
    float row = floorf(v);
    float x = fraction(u + 0.5f * (row - 2 * floorf(row / 2))) - 0.5f, y = v - row - 0.5f;
    return edge(0.31f - sqrtf(x * x + y * y), softness);
}

// Tiles of three threads each, lying across and along in turn.
static float weave(float u, float v, float softness)
{
    float a = floorf(u), b = floorf(v);
    float parity = a + b - 2 * floorf((a + b) / 2);
    float along = parity > 0.5f ? u : v;
    return edge(zigzag(3 * along) / 3, softness);
}

// Overlapping round scales: each is light at its rim and dark where the next row covers it.
static float scales(float u, float v)
{
    float row = floorf(2 * v);
    for (int covering = 1; covering >= 0; covering--) {
        float at = row + (float)covering;
        float shift = 0.5f * (at - 2 * floorf(at / 2));
        float x = fraction(u + shift) - 0.5f, y = v - 0.5f * at + 0.12f;
        float r = sqrtf(x * x + y * y);
        if (r < 0.56f) {
            return r > 0.44f ? 0 : clamp(0.35f + 1.4f * r, 0, 1);
        }
    }
    return 0;
}

// Flat chips of two colours: cells around scattered points.
static float terrazzo(float u, float v, float softness, uint32_t seed)
{
    int32_t i = (int32_t)floorf(u), j = (int32_t)floorf(v);
    float nearest = 9, second = 9;
    uint32_t chip = 0;
    for (int32_t y = j - 1; y <= j + 1; y++) {
        for (int32_t x = i - 1; x <= i + 1; x++) {
            uint32_t bits = example_pattern_hash(x, y, seed);
            float dx = (float)x + (float)(bits & 1023) * 0x1p-10f - u;
            float dy = (float)y + (float)(bits >> 10 & 1023) * 0x1p-10f - v;
            float squared = dx * dx + dy * dy;
            if (squared < nearest) {
                second = nearest;
                nearest = squared;
                chip = bits >> 20;
            } else if (squared < second) {
                second = squared;
            }
        }
    }
    float inside = edge(sqrtf(second) - sqrtf(nearest) - 0.18f, 2 * softness);
    return inside * (0.45f + 0.55f * (float)(chip & 255) * 0x1p-8f);
}

static float bricks(float u, float v, float softness)
{
    float row = floorf(2 * v);
    float x = fraction(u + 0.5f * (row - 2 * floorf(row / 2))), y = fraction(2 * v);
    float from_side = 0.5f - fabsf(x - 0.5f), from_bed = (0.5f - fabsf(y - 0.5f)) / 2;
    return edge((from_side < from_bed ? from_side : from_bed) - 0.06f, softness);
}

float example_pattern_value(enum example_pattern pattern, float u, float v, float softness,
                            uint32_t seed)
{
    switch (pattern) {
    case EXAMPLE_STRIPES:
        return edge(zigzag(u), softness);
    case EXAMPLE_TERRAZZO:
        return terrazzo(1.5f * u, 1.5f * v, softness, seed);
    case EXAMPLE_CHECKS:
        return checks(u, v, softness);
    case EXAMPLE_RINGS:
        return edge(zigzag(sqrtf(u * u + v * v)), softness);
    case EXAMPLE_WEAVE:
        return weave(0.8f * u, 0.8f * v, softness);
    case EXAMPLE_DOTS:
        return dots(u, v, softness);
    case EXAMPLE_CHEVRONS:
        return edge(zigzag(v + 2 * fabsf(fraction(0.5f * u) - 0.5f)), softness);
    case EXAMPLE_WAVES:
        return edge(zigzag(v + 0.3f * example_pattern_sine(0.6f * u)), softness);
    case EXAMPLE_SCALES:
        return scales(u, v);
    case EXAMPLE_BRICKS:
    case EXAMPLE_PATTERN_COUNT:
        break;
    }
    return bricks(0.8f * u, 0.8f * v, softness);
}
