// Rendering from interleaved pixels, for tests that make or decode whole pictures.
#ifndef TESTS_SUPPORT_RENDER_H
#define TESTS_SUPPORT_RENDER_H

#include "augment/view.h"

// view_render into plain output, after splitting the channels.
enum status render_image(const struct view_params *params, const struct image *crop,
                         struct view_scratch *scratch, float *out, struct error *error);

#endif
