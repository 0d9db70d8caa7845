// The dots of the built-in font.
#ifndef TOOLS_CANVAS_FONT_H
#define TOOLS_CANVAS_FONT_H

#include <stdint.h>

#define CANVAS_FONT_ROWS  9 // seven above the baseline, two below
#define CANVAS_FONT_FIRST ' '
#define CANVAS_FONT_LAST  '~'

struct canvas_glyph {
    uint8_t width;                  // columns in use, at most 5
    uint8_t rows[CANVAS_FONT_ROWS]; // top first; bit 4 is the leftmost column
};

extern const struct canvas_glyph canvas_font[CANVAS_FONT_LAST - CANVAS_FONT_FIRST + 1];

#endif
