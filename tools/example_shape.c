// Outlines as signed distances: polygons from corner tables, the rest from circles.
#include "tools/example_shape.h"

#include <math.h>
#include <stddef.h>

const char *const example_shape_names[EXAMPLE_SHAPE_COUNT] = {
    "arrow", "crescent", "cross", "disc", "gear", "heart", "leaf", "ring", "star", "triangle",
};

static float clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

static float larger(float a, float b)
{
    return a > b ? a : b;
}

static float smaller(float a, float b)
{
    return a < b ? a : b;
}

static float length(float x, float y)
{
    return sqrtf(x * x + y * y);
}

// Nearest edge for the size, crossings of a ray to the right for the sign.
static float polygon(const float (*corners)[2], size_t count, float x, float y)
{
    float nearest = 1e9f;
    int inside = 0;
    for (size_t i = 0, j = count - 1; i < count; j = i++) {
        float ex = corners[j][0] - corners[i][0], ey = corners[j][1] - corners[i][1];
        float px = x - corners[i][0], py = y - corners[i][1];
        float along = clamp((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1);
        float dx = px - along * ex, dy = py - along * ey;
        nearest = smaller(nearest, dx * dx + dy * dy);
        if ((py < 0) != (py < ey) && (px - ex * py / ey) < 0) {
            inside = !inside;
        }
    }
    return inside ? -sqrtf(nearest) : sqrtf(nearest);
}

static float box(float x, float y, float half_width, float half_height)
{
    float dx = fabsf(x) - half_width, dy = fabsf(y) - half_height;
    return length(larger(dx, 0), larger(dy, 0)) + smaller(larger(dx, dy), 0);
}

static float arrow(float x, float y, float build)
{
    float w = 0.17f + 0.13f * build;
    const float corners[7][2] = {{0.95f, 0},  {0.1f, 0.8f}, {0.1f, w},    {-0.9f, w},
                                 {-0.9f, -w}, {0.1f, -w},   {0.1f, -0.8f}};
    return polygon(corners, 7, x, y);
}

static float star(float x, float y, float build)
{
    static const float directions[10][2] = {
        {0, -1},
        {0.587785f, -0.809017f},
        {0.951057f, -0.309017f},
        {0.951057f, 0.309017f},
        {0.587785f, 0.809017f},
        {0, 1},
        {-0.587785f, 0.809017f},
        {-0.951057f, 0.309017f},
        {-0.951057f, -0.309017f},
        {-0.587785f, -0.809017f},
    };
    float corners[10][2];
    for (size_t i = 0; i < 10; i++) {
        float radius = i % 2 == 0 ? 1 : 0.38f + 0.14f * build;
        corners[i][0] = radius * directions[i][0];
        corners[i][1] = radius * directions[i][1];
    }
    return polygon(corners, 10, x, y);
}

static float triangle(float x, float y, float build)
{
    float top = 0.85f + 0.15f * build;
    const float corners[3][2] = {{0, -top}, {0.87f, 0.62f}, {-0.87f, 0.62f}};
    return polygon(corners, 3, x, y) - 0.04f;
}

static float cross(float x, float y, float build)
{
    float width = 0.22f + 0.12f * build;
    return smaller(box(x, y, 0.9f, width), box(x, y, width, 0.9f));
}

static float crescent(float x, float y, float build)
{
    float bite = 0.72f - 0.12f * build;
    return larger(length(x, y) - 0.92f, bite - length(x - 0.48f, y));
}

// The wheel is folded eight times, so that only half a tooth needs drawing.
static float gear(float x, float y, float build)
{
    float r = length(x, y), a = fabsf(x), b = fabsf(y);
    if (b > a) {
        float swap = a;
        a = b;
        b = swap;
    }
    float beyond = 0.923880f * b - 0.382683f * a; // past the mirror at 22.5 degrees
    if (beyond > 0) {
        a += 2 * 0.382683f * beyond;
        b -= 2 * 0.923880f * beyond;
    }
    float body = smaller(r - 0.72f, box(a - 0.78f, b, 0.19f, 0.11f + 0.05f * build));
    return larger(body, 0.26f - r);
}

// A square standing on its corner, and a disc on each of its upper sides.
static float heart(float x, float y, float build)
{
    float side = 1.05f, tip = 0.85f, half = 0.353553f; // 1 / sqrt(8)
    float a = fabsf(x) / (0.92f + 0.1f * build), middle = tip - 2 * half * side;
    float along = 2 * half * (a + y - middle), across = 2 * half * (a - y + middle);
    float square = box(along, across, side / 2, side / 2);
    float disc = length(a - half * side, y - tip + 3 * half * side) - side / 2;
    return smaller(square, disc);
}

// Two arcs that meet in points, and a stem.
static float leaf(float x, float y, float build)
{
    float away = 0.72f - 0.2f * build; // of the arcs' centres; both pass through (+-0.85, 0)
    float radius = sqrtf(away * away + 0.85f * 0.85f);
    float blade = larger(length(x - 0.1f, y - away), length(x - 0.1f, y + away)) - radius;
    return smaller(blade, box(x + 0.85f, y, 0.13f, 0.04f));
}

float example_shape_distance(enum example_shape shape, float x, float y, float build)
{
    switch (shape) {
    case EXAMPLE_ARROW:
        return arrow(x, y, build);
    case EXAMPLE_CRESCENT:
        return crescent(x, y, build);
    case EXAMPLE_CROSS:
        return cross(x, y, build);
    case EXAMPLE_DISC:
        return length(x, y) - 0.86f;
    case EXAMPLE_GEAR:
        return gear(x, y, build);
    case EXAMPLE_HEART:
        return heart(x, y, build);
    case EXAMPLE_LEAF:
        return leaf(x, y, build);
    case EXAMPLE_RING:
        return fabsf(length(x, y) - 0.66f) - 0.2f - 0.08f * build;
    case EXAMPLE_STAR:
        return star(x, y, build);
    case EXAMPLE_TRIANGLE:
    case EXAMPLE_SHAPE_COUNT:
        break;
    }
    return triangle(x, y, build);
}
