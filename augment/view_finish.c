// The second of a view's two steps: what is to be done to the bytes of crop and resize.
#include "augment/kernels.h"
#include "augment/view.h"

#include <string.h>

_Static_assert(sizeof(struct view_record) == VIEW_RECORD_BYTES, "records lie in arrays");

struct view_record view_record_of(const struct view_params *params)
{
    struct view_record record = {
        .flip = params->flip,
        .jitter = params->jitter,
        .grayscale = params->grayscale,
        .blur = params->blur,
        .solarize = params->solarize,
        .taps = params->taps,
        .brightness = params->brightness,
        .contrast = params->contrast,
        .saturation = params->saturation,
        .hue = params->hue,
        .sigma = params->sigma,
        .threshold = params->threshold,
    };
    memcpy(record.order, params->order, sizeof record.order);
    return record;
}

static struct view_params params_of(const struct view_record *record, uint32_t size)
{
    struct view_params params = {
        .size = size,
        .flip = record->flip,
        .jitter = record->jitter,
        .grayscale = record->grayscale,
        .blur = record->blur,
        .solarize = record->solarize,
        .brightness = record->brightness,
        .contrast = record->contrast,
        .saturation = record->saturation,
        .hue = record->hue,
        .sigma = record->sigma,
        .taps = record->taps,
        .threshold = record->threshold,
    };
    memcpy(params.order, record->order, sizeof params.order);
    return params;
}

static size_t values_of(uint32_t size)
{
    return (size_t)size * size * 3;
}

size_t view_finish_floats(uint32_t size)
{
    return values_of(size) + 2 * (size_t)size; // an image, and the blur's weights
}

void view_finish(const struct view_record *record, uint32_t size, const uint8_t *bytes, float *out,
                 float *work)
{
    const struct view_params params = params_of(record, size);
    for (size_t i = 0; i < values_of(size); i++) {
        out[i] = (float)bytes[i];
    }
    kernels_c.scale(out, (size_t)size * size);
    view_postprocess(&params, &kernels_c, out, work + values_of(size), work);
}
