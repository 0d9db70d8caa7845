// Makes large images smaller before they are stored. What training then sees is not exactly what it
// would see of the originals, and the dataset says so.
#ifndef TOOLS_CONVERT_RESIZE_H
#define TOOLS_CONVERT_RESIZE_H

#include "formats/image.h"

// `side` 0: images stay as they are.
struct convert_resize {
    int64_t side;    // the shorter side of what is larger, pixels
    int64_t quality; // of the JPEGs that are written, 1 to 100
};

// Reads "short=N,quality=Q"; quality may be left out (90). False when it says something else.
bool convert_resize_parse(const char *text, struct convert_resize *resize);

// Scales `from` down so that its shorter side is `side`, by the antialiased bicubic filter (Keys,
// a = -0.5, stretched by the factor). The same bits on every machine. `room` is working memory.
enum status convert_resize_image(const struct image *from, uint32_t side, struct image *out,
                                 struct image *room, struct error *error);

#endif
