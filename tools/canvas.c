// Rectangles, pictures and text, pixel by pixel: a sheet is drawn once, nothing here is hot.
#include "tools/canvas.h"

#include "tools/canvas_font.h"

#include <math.h>
#include <string.h>

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

void canvas_fill(struct image *canvas, struct canvas_box box, struct canvas_color color)
{
    int64_t left = clamp(box.x, 0, canvas->width);
    int64_t right = clamp(box.x + box.width, left, canvas->width);
    int64_t top = clamp(box.y, 0, canvas->height);
    int64_t bottom = clamp(box.y + box.height, top, canvas->height);
    for (int64_t y = top; y < bottom; y++) {
        uint8_t *pixel = canvas->pixels + (y * canvas->width + left) * 3;
        for (int64_t x = left; x < right; x++, pixel += 3) {
            pixel[0] = color.red;
            pixel[1] = color.green;
            pixel[2] = color.blue;
        }
    }
}

void canvas_frame(struct image *canvas, struct canvas_box box, int64_t thickness,
                  struct canvas_color color)
{
    int64_t thick = clamp(thickness, 0, (box.width < box.height ? box.width : box.height) / 2 + 1);
    struct canvas_box top = {box.x, box.y, box.width, thick};
    struct canvas_box left = {box.x, box.y, thick, box.height};
    struct canvas_box bottom = {box.x, box.y + box.height - thick, box.width, thick};
    struct canvas_box right = {box.x + box.width - thick, box.y, thick, box.height};
    canvas_fill(canvas, top, color);
    canvas_fill(canvas, left, color);
    canvas_fill(canvas, bottom, color);
    canvas_fill(canvas, right, color);
}

void canvas_place(struct image *canvas, int64_t x, int64_t y, const struct image *picture)
{
    int64_t left = clamp(x, 0, canvas->width);
    int64_t right = clamp(x + picture->width, left, canvas->width);
    int64_t top = clamp(y, 0, canvas->height);
    int64_t bottom = clamp(y + picture->height, top, canvas->height);
    for (int64_t row = top; row < bottom; row++) {
        memcpy(canvas->pixels + (row * canvas->width + left) * 3,
               picture->pixels + ((row - y) * picture->width + left - x) * 3,
               (size_t)(right - left) * 3);
    }
}

// --- resizing ------------------------------------------------------------------------------------

// The source samples [first, last] that output position `at` covers, and how much of each end.
struct cover {
    uint32_t first, last;
    double first_part, last_part;
};

static struct cover cover_of(uint32_t at, uint32_t in, uint32_t out)
{
    double from = (double)at * in / out, to = (double)(at + 1) * in / out;
    struct cover cover = {.first = (uint32_t)from, .last = (uint32_t)ceil(to) - 1};
    cover.last = cover.last < in ? cover.last : in - 1;
    cover.first_part = (cover.first == cover.last ? to : cover.first + 1) - from;
    cover.last_part = to - cover.last;
    return cover;
}

static double part_of(const struct cover *cover, uint32_t at)
{
    return at == cover->first ? cover->first_part : at == cover->last ? cover->last_part : 1;
}

static void average(uint8_t out[3], const struct image *picture, const struct cover *columns,
                    const struct cover *rows)
{
    double sum[3] = {0, 0, 0}, area = 0;
    for (uint32_t y = rows->first; y <= rows->last; y++) {
        for (uint32_t x = columns->first; x <= columns->last; x++) {
            const uint8_t *pixel = picture->pixels + ((size_t)y * picture->width + x) * 3;
            double part = part_of(rows, y) * part_of(columns, x);
            area += part;
            for (int channel = 0; channel < 3; channel++) {
                sum[channel] += part * pixel[channel];
            }
        }
    }
    for (int channel = 0; channel < 3; channel++) {
        out[channel] = (uint8_t)(sum[channel] / area + 0.5);
    }
}

enum status canvas_resize(const struct image *picture, struct image *out, uint32_t width,
                          uint32_t height, struct error *error)
{
    enum status status = image_reserve(out, width, height, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t y = 0; y < height; y++) {
        struct cover rows = cover_of(y, picture->height, height);
        for (uint32_t x = 0; x < width; x++) {
            struct cover columns = cover_of(x, picture->width, width);
            average(out->pixels + ((size_t)y * width + x) * 3, picture, &columns, &rows);
        }
    }
    return STATUS_OK;
}

// --- text ----------------------------------------------------------------------------------------

static const struct canvas_glyph *glyph_of(char character)
{
    bool known = character >= CANVAS_FONT_FIRST && character <= CANVAS_FONT_LAST;
    return &canvas_font[(known ? character : '?') - CANVAS_FONT_FIRST];
}

static bool dot(const struct canvas_glyph *glyph, int64_t x, int64_t y)
{
    return x >= 0 && x < 5 && y >= 0 && y < CANVAS_FONT_ROWS && (glyph->rows[y] >> (4 - x) & 1);
}

// A dot of the glyph enlarged by `scale`, a power of two: each doubling rounds the corners where
// two neighbours of a quarter agree against the other two.
static bool smooth_dot(const struct canvas_glyph *glyph, int64_t x, int64_t y, int64_t scale)
{
    if (scale < 2 || x < 0 || y < 0) {
        return dot(glyph, x, y);
    }
    int64_t half = scale / 2;
    int64_t side_x = x % 2 ? 1 : -1, side_y = y % 2 ? 1 : -1;
    bool here = smooth_dot(glyph, x / 2, y / 2, half);
    bool beside = smooth_dot(glyph, x / 2 + side_x, y / 2, half);
    bool above = smooth_dot(glyph, x / 2, y / 2 + side_y, half);
    bool opposite = smooth_dot(glyph, x / 2 - side_x, y / 2, half);
    bool below = smooth_dot(glyph, x / 2, y / 2 - side_y, half);
    return beside == above && beside != opposite && above != below ? beside : here;
}

// Every dot becomes FINE x FINE smoothed ones, which are then averaged over each pixel.
#define FINE    4
#define SAMPLES 4 // per pixel and axis

struct fine_glyph {
    bool dots[CANVAS_FONT_ROWS * FINE][5 * FINE];
};

static void refine(struct fine_glyph *fine, const struct canvas_glyph *glyph)
{
    for (int64_t y = 0; y < CANVAS_FONT_ROWS * FINE; y++) {
        for (int64_t x = 0; x < 5 * FINE; x++) {
            fine->dots[y][x] = smooth_dot(glyph, x, y, FINE);
        }
    }
}

// Share of the pixel at (x, y) that the glyph covers, with its left edge at `left`.
static double coverage(const struct fine_glyph *fine, double left, double dot_size, int64_t x,
                       int64_t y)
{
    int hits = 0;
    for (int i = 0; i < SAMPLES; i++) {
        double at_y = ((double)y + (i + 0.5) / SAMPLES) * FINE / dot_size;
        for (int j = 0; j < SAMPLES; j++) {
            double at_x = ((double)x + (j + 0.5) / SAMPLES - left) * FINE / dot_size;
            if (at_x >= 0 && at_x < 5 * FINE && at_y < CANVAS_FONT_ROWS * FINE) {
                hits += fine->dots[(size_t)at_y][(size_t)at_x];
            }
        }
    }
    return (double)hits / (SAMPLES * SAMPLES);
}

static void blend(struct image *canvas, int64_t x, int64_t y, struct canvas_color color,
                  double share)
{
    if (x < 0 || y < 0 || x >= canvas->width || y >= canvas->height) {
        return;
    }
    const uint8_t wanted[3] = {color.red, color.green, color.blue};
    uint8_t *pixel = canvas->pixels + ((size_t)y * canvas->width + (size_t)x) * 3;
    for (int channel = 0; channel < 3; channel++) {
        double mixed = pixel[channel] + (wanted[channel] - pixel[channel]) * share;
        pixel[channel] = (uint8_t)(mixed + 0.5);
    }
}

void canvas_text(struct image *canvas, int64_t x, int64_t y, double dot_size,
                 struct canvas_color color, const char *text)
{
    double left = 0; // of the next character, from x
    int64_t height = (int64_t)ceil(dot_size * CANVAS_FONT_ROWS);
    for (; *text; text++) {
        const struct canvas_glyph *glyph = glyph_of(*text);
        double right = left + dot_size * (glyph->width + 1);
        struct fine_glyph fine;
        refine(&fine, glyph);
        for (int64_t row = 0; row < height; row++) {
            for (int64_t column = (int64_t)left; column < (int64_t)ceil(right); column++) {
                blend(canvas, x + column, y + row, color,
                      coverage(&fine, left, dot_size, column, row));
            }
        }
        left = right;
    }
}

int64_t canvas_text_width(const char *text, double dot_size)
{
    int64_t dots = 0;
    for (; *text; text++) {
        dots += glyph_of(*text)->width + 1;
    }
    return (int64_t)ceil((double)dots * dot_size);
}
