// Rendering a view by plain C, one operation after the other over the whole image, in the
// reference's order: what view_render must equal.
#include "augment/kernels.h"
#include "augment/view.h"

#include <stdlib.h>

struct plain_memory {
    struct resize_work resize;
    float *image;   // between the passes of the blur
    float *weights; // of the blur
};

static void release(struct plain_memory *memory)
{
    free(memory->resize.rows);
    free(memory->resize.columns);
    free(memory->resize.line);
    free(memory->image);
    free(memory->weights);
}

static enum status reserve(struct plain_memory *memory, const struct view_params *params,
                           const struct image *crop, struct error *error)
{
    size_t side = params->size;
    *memory = (struct plain_memory){
        .resize = {.rows = malloc(side * sizeof *memory->resize.rows),
                   .columns = malloc(side * sizeof *memory->resize.columns),
                   .line = malloc((size_t)crop->width * 3 * sizeof(float))},
        .image = malloc(side * side * 3 * sizeof(float)),
        .weights = malloc((2 * side - 1) * sizeof(float)),
    };
    if (!memory->resize.rows || !memory->resize.columns || !memory->resize.line || !memory->image ||
        !memory->weights) {
        release(memory);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to render a view of %u pixels", params->size);
    }
    return STATUS_OK;
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

enum status view_render_plainly(const struct view_params *params, const struct image *crop,
                                float *out, struct error *error)
{
    enum status status = view_check(params, crop->width, crop->height, RECIPE_MAX_SIZE, error);
    struct plain_memory memory;
    if (status == STATUS_OK) {
        status = reserve(&memory, params, crop, error);
    }
    if (status == STATUS_OK) {
        const struct kernels *kernels = &kernels_c;
        kernels->resize(out, crop->pixels, crop->width, crop->height, params->size, &memory.resize);
        kernels->scale(out, (size_t)params->size * params->size);
        view_postprocess(params, kernels, out, memory.weights, memory.image);
        release(&memory);
    }
    return status;
}
