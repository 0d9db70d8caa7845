// From an image file's bytes to the views of a sheet's row.
#ifndef TOOLS_SHEET_RENDER_H
#define TOOLS_SHEET_RENDER_H

#include "tools/sheet.h"

// What rendering keeps between images. Start from {0}.
struct sheet_renderer {
    struct image_decoder *decoder;
    struct view_scratch *scratch;
    uint32_t size; // of every view
};
enum status sheet_renderer_open(struct sheet_renderer *renderer, uint32_t size,
                                struct error *error);
void sheet_renderer_close(struct sheet_renderer *renderer);

// The row's views from their parameters, each decoding its own window, as training does; and with
// `original` the picture that stands beside them.
enum status sheet_render_row(struct sheet_renderer *renderer, struct sheet_row *row, bool original,
                             const uint8_t *bytes, size_t len, struct error *error);

#endif
