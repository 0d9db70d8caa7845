// From a drawn scene of the example to its pixels.
#ifndef TOOLS_EXAMPLE_RENDER_H
#define TOOLS_EXAMPLE_RENDER_H

#include "formats/image.h"
#include "tools/example_scene.h"

// Renders into size x size pixels. Exact arithmetic, as in example_pattern.h: the same pixels
// everywhere.
enum status example_render(const struct example_scene *scene, uint32_t size, struct image *out,
                           struct error *error);

#endif
