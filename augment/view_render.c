// Rendering a view: from parameters and the decoded crop to pixels, in the reference's order of
// operations.
#include "augment/kernels.h"
#include "augment/view.h"
#include "formats/limits.h"

#include <stdlib.h>

// Everything a render needs besides its output, allocated once for the largest view and crop.
struct view_scratch {
    uint32_t max_size;
    struct resize_work resize;
    float *image;   // max_size^2 * 3: between the passes of the blur
    float *weights; // of the blur: at most 2 * max_size - 1
};

enum status view_scratch_open(struct view_scratch **out, uint32_t max_size, struct error *error)
{
    *out = NULL;
    if (max_size < 1 || max_size > RECIPE_MAX_SIZE) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "view size %u is not within 1 to %d", max_size, RECIPE_MAX_SIZE);
    }
    size_t side = max_size;
    struct view_scratch *scratch = calloc(1, sizeof *scratch);
    if (scratch == NULL) {
        goto no_memory;
    }
    scratch->max_size = max_size;
    scratch->resize.rows = malloc(side * sizeof *scratch->resize.rows);
    scratch->resize.columns = malloc(side * sizeof *scratch->resize.columns);
    scratch->resize.line = malloc((size_t)LIMIT_IMAGE_SIDE * 3 * sizeof(float));
    scratch->image = malloc(side * side * 3 * sizeof(float));
    scratch->weights = malloc((2 * side - 1) * sizeof(float));
    if (!scratch->resize.rows || !scratch->resize.columns || !scratch->resize.line ||
        !scratch->image || !scratch->weights) {
        goto no_memory;
    }
    *out = scratch;
    return STATUS_OK;
no_memory:
    view_scratch_close(&scratch);
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "no memory to render views of %u pixels", max_size);
}

void view_scratch_close(struct view_scratch **scratch)
{
    if (*scratch == NULL) {
        return;
    }
    free((*scratch)->resize.rows);
    free((*scratch)->resize.columns);
    free((*scratch)->resize.line);
    free((*scratch)->image);
    free((*scratch)->weights);
    free(*scratch);
    *scratch = NULL;
}

// Parameters may come from a file; what view_draw gives always passes.
static const char *complaint(const struct view_params *params, const struct image *crop,
                             const struct view_scratch *scratch)
{
    if (params->size < 1 || params->size > scratch->max_size) {
        return "the view's size is larger than the scratch was opened for, or zero";
    }
    if (crop->width != params->crop.width || crop->height != params->crop.height) {
        return "the decoded crop has another size than the parameters say";
    }
    if (crop->width < 1 || crop->height < 1 || crop->width > LIMIT_IMAGE_SIDE) {
        return "the crop is empty or too wide";
    }
    if (params->blur && (params->taps % 2 == 0 || params->taps > 2 * params->size - 1)) {
        return "the blur's taps must be odd and less than twice the size";
    }
    if (params->blur && !(params->sigma > 0)) {
        return "the blur's sigma must be positive";
    }
    return NULL;
}

static void render_jitter(const struct view_params *params, const struct kernels *kernels,
                          float *out, size_t count)
{
    for (int i = 0; i < 4; i++) {
        switch ((enum view_op)params->order[i]) {
        case VIEW_BRIGHTNESS:
            kernels->brightness(out, count, params->brightness);
            break;
        case VIEW_CONTRAST:
            kernels->contrast(out, count, params->contrast);
            break;
        case VIEW_SATURATION:
            kernels->saturation(out, count, params->saturation);
            break;
        case VIEW_HUE:
            kernels->hue(out, count, params->hue);
            break;
        }
        kernels->clip(out, count);
    }
}

void view_postprocess(const struct view_params *params, const struct kernels *kernels,
                      float *pixels, float *weights, float *work)
{
    size_t count = (size_t)params->size * params->size;
    if (params->flip) {
        kernels->flip(pixels, params->size);
    }
    if (params->jitter) {
        render_jitter(params, kernels, pixels, count);
    }
    if (params->grayscale) {
        kernels->grayscale(pixels, count);
    }
    kernels->clip(pixels, count);
    if (params->blur) {
        blur_weights_fill(weights, params->taps, params->sigma);
        kernels->blur(pixels, params->size, weights, params->taps, work);
    }
    if (params->solarize) {
        kernels->solarize(pixels, count, params->threshold);
    }
    kernels->clip(pixels, count);
}

enum status view_render(const struct view_params *params, const struct image *crop,
                        struct view_scratch *scratch, float *out, struct error *error)
{
    const char *reason = complaint(params, crop, scratch);
    if (reason) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "%s", reason);
    }
    const struct kernels *kernels = &kernels_c;
    kernels->resize(out, crop->pixels, crop->width, crop->height, params->size, &scratch->resize);
    kernels->scale(out, (size_t)params->size * params->size);
    view_postprocess(params, kernels, out, scratch->weights, scratch->image);
    return STATUS_OK;
}
