// Decoding and rendering for a sheet.
#include "tools/sheet_render.h"

#include <stdlib.h>

enum status sheet_renderer_open(struct sheet_renderer *renderer, uint32_t size, struct error *error)
{
    *renderer = (struct sheet_renderer){.size = size};
    enum status status = image_decoder_open(&renderer->decoder, error);
    return status == STATUS_OK ? view_scratch_open(&renderer->scratch, size, error) : status;
}

void sheet_renderer_close(struct sheet_renderer *renderer)
{
    image_decoder_close(&renderer->decoder);
    view_scratch_close(&renderer->scratch);
}

static enum status render_view(struct sheet_renderer *renderer, struct sheet_view *view,
                               const uint8_t *bytes, size_t len, struct error *error)
{
    size_t size = renderer->size;
    struct image_planes crop = {0};
    view->pixels = malloc(size * size * 3 * sizeof *view->pixels);
    if (view->pixels == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for so many views: show fewer images or pairs");
    }
    enum status status =
        image_decode_windows(renderer->decoder, bytes, len, &view->params.crop, 1, &crop, error);
    if (status == STATUS_OK) {
        status = view_render(&view->params, &crop, &view_output_plain, renderer->scratch,
                             view->pixels, error);
    }
    image_planes_free(&crop);
    return status;
}

enum status sheet_render_row(struct sheet_renderer *renderer, struct sheet_row *row, bool original,
                             const uint8_t *bytes, size_t len, struct error *error)
{
    struct image whole = {0};
    enum status status = STATUS_OK;
    if (original) {
        status = image_decode(renderer->decoder, bytes, len, NULL, &whole, error);
        if (status == STATUS_OK) {
            status = sheet_reduce(&whole, renderer->size, &row->original, error);
        }
    }
    for (size_t i = 0; status == STATUS_OK && i < row->count; i++) {
        status = render_view(renderer, &row->views[i], bytes, len, error);
    }
    image_free(&whole);
    return status;
}
