// Rendering a view: from parameters and the decoded crop to pixels.
#include "augment/kernels.h"
#include "augment/view.h"
#include "formats/limits.h"

#include <stdlib.h>

const struct view_output view_output_plain = {.deviation = {1, 1, 1}};
const struct view_output view_output_imagenet = {.mean = {0.485f, 0.456f, 0.406f},
                                                 .deviation = {0.229f, 0.224f, 0.225f}};

// Everything a render needs besides its output.
struct view_scratch {
    uint32_t max_size;
    struct image crop;
    float *pixels; // max_size^2 * 3
};

enum status view_scratch_open(struct view_scratch **out, uint32_t max_size, struct error *error)
{
    *out = NULL;
    if (max_size < 1 || max_size > RECIPE_MAX_SIZE) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "view size %u is not within 1 to %d", max_size, RECIPE_MAX_SIZE);
    }
    struct view_scratch *scratch = calloc(1, sizeof *scratch);
    if (scratch != NULL) {
        scratch->max_size = max_size;
        scratch->pixels = malloc((size_t)max_size * max_size * 3 * sizeof(float));
    }
    if (scratch == NULL || scratch->pixels == NULL) {
        view_scratch_close(&scratch);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to render views of %u pixels", max_size);
    }
    *out = scratch;
    return STATUS_OK;
}

void view_scratch_close(struct view_scratch **scratch)
{
    if (*scratch != NULL) {
        image_free(&(*scratch)->crop);
        free((*scratch)->pixels);
        free(*scratch);
        *scratch = NULL;
    }
}

enum status view_check(const struct view_params *params, uint32_t width, uint32_t height,
                       uint32_t max_size, struct error *error)
{
    const char *reason = NULL;
    if (params->size < 1 || params->size > max_size) {
        reason = "the view's size is larger than the scratch was opened for, or zero";
    } else if (width != params->crop.width || height != params->crop.height) {
        reason = "the decoded crop has another size than the parameters say";
    } else if (width < 1 || height < 1 || width > LIMIT_IMAGE_SIDE) {
        reason = "the crop is empty or too wide";
    } else if (params->blur && (params->taps % 2 == 0 || params->taps > 2 * params->size - 1)) {
        reason = "the blur's taps must be odd and less than twice the size";
    } else if (params->blur && !(params->sigma > 0)) {
        reason = "the blur's sigma must be positive";
    }
    return reason ? error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "%s", reason)
                  : STATUS_OK;
}

static enum status join(const struct image_planes *planes, struct image *out, struct error *error)
{
    enum status status = image_reserve(out, planes->width, planes->height, error);
    for (size_t y = 0; status == STATUS_OK && y < planes->height; y++) {
        for (size_t x = 0; x < planes->width; x++) {
            for (size_t channel = 0; channel < 3; channel++) {
                out->pixels[(y * planes->width + x) * 3 + channel] =
                    planes->plane[channel][y * planes->stride + x];
            }
        }
    }
    return status;
}

static void store(float *out, const float *pixels, size_t count, const struct view_output *output)
{
    for (size_t channel = 0; channel < 3; channel++) {
        float mean = output->mean[channel], factor = 1.0f / output->deviation[channel];
        for (size_t i = 0; i < count; i++) {
            size_t to = output->layout == VIEW_HWC ? i * 3 + channel : channel * count + i;
            out[to] = (pixels[i * 3 + channel] - mean) * factor;
        }
    }
}

enum status view_render(const struct view_params *params, const struct image_planes *crop,
                        const struct view_output *output, struct view_scratch *scratch, float *out,
                        struct error *error)
{
    enum status status = view_check(params, crop->width, crop->height, scratch->max_size, error);
    if (status == STATUS_OK) {
        status = join(crop, &scratch->crop, error);
    }
    if (status == STATUS_OK) {
        status = view_render_plainly(params, &scratch->crop, scratch->pixels, error);
    }
    if (status == STATUS_OK) {
        store(out, scratch->pixels, (size_t)params->size * params->size, output);
    }
    return status;
}
