#include "tests/support/render.h"

enum status render_image(const struct view_params *params, const struct image *crop,
                         struct view_scratch *scratch, float *out, struct error *error)
{
    struct image_planes planes = {0};
    enum status status = image_split(crop, &planes, error);
    if (status == STATUS_OK) {
        status = view_render(params, &planes, &view_output_plain, scratch, out, error);
    }
    image_planes_free(&planes);
    return status;
}
