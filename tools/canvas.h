// Drawing on 8-bit RGB images: rectangles, pictures and small text. Everything is cut off at the
// canvas' edges.
#ifndef TOOLS_CANVAS_H
#define TOOLS_CANVAS_H

#include "formats/image.h"

struct canvas_color {
    uint8_t red, green, blue;
};

// A rectangle in canvas pixels; may reach outside.
struct canvas_box {
    int64_t x, y, width, height;
};

void canvas_fill(struct image *canvas, struct canvas_box box, struct canvas_color color);

// A frame of `thickness` pixels just inside the box.
void canvas_frame(struct image *canvas, struct canvas_box box, int64_t thickness,
                  struct canvas_color color);

void canvas_place(struct image *canvas, int64_t x, int64_t y, const struct image *picture);

// Resizes by averaging over the area that each pixel covers: for showing, not for the network.
enum status canvas_resize(const struct image *picture, struct image *out, uint32_t width,
                          uint32_t height, struct error *error);

// Text in a proportional font of 5 x 7 dots (two more rows below the line), each `dot_size` pixels
// large, with its stairs smoothed; y is the top. Printable ASCII; other bytes show as '?'.
#define CANVAS_TEXT_ROWS 9
void canvas_text(struct image *canvas, int64_t x, int64_t y, double dot_size,
                 struct canvas_color color, const char *text);
int64_t canvas_text_width(const char *text, double dot_size);

#endif
