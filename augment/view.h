// A view of an image, in two separate steps: drawing (randomness, no pixels) and rendering (pixels,
// no randomness).
#ifndef AUGMENT_VIEW_H
#define AUGMENT_VIEW_H

#include "augment/recipe.h"
#include "formats/image.h"

#include <stdbool.h>

// What a draw depends on, and all it depends on.
struct view_key {
    uint64_t seed;
    uint64_t record; // record of the dataset
    uint32_t epoch;
    uint32_t view; // 0 or 1
};

enum view_op { VIEW_BRIGHTNESS, VIEW_CONTRAST, VIEW_SATURATION, VIEW_HUE };

// One view, fully determined: with the image it gives the same pixels everywhere.
struct view_params {
    struct image_window crop;
    uint32_t size; // S
    bool flip, jitter, grayscale, blur, solarize;
    uint8_t order[4]; // enum view_op in the order applied; read when jitter
    float brightness, contrast, saturation, hue;
    float sigma;     // read when blur
    uint32_t taps;   // of the blur kernel, odd
    float threshold; // read when solarize
};

// Draws view `key.view` of an image of width x height. Pure arithmetic on Philox words (key: seed;
// counter: record, epoch, view, draw index), float32 like the reference. `recipe` must be valid.
void view_draw(const struct recipe *recipe, struct view_key key, uint32_t width, uint32_t height,
               struct view_params *out);

// Renders from the decoded crop (`crop` holds exactly params->crop's pixels: image_decode with that
// window) into out[S][S][3], float32 RGB in [0, 1], not normalised (the network's first op does
// that). Operations in the reference's order: bicubic resize, clip, flip, jitter, grayscale, clip,
// blur, solarize, clip. `scratch` belongs to one thread.
struct view_scratch;
enum status view_scratch_open(struct view_scratch **out, uint32_t max_size, struct error *error);
void view_scratch_close(struct view_scratch **scratch);
enum status view_render(const struct view_params *params, const struct image *crop,
                        struct view_scratch *scratch, float *out, struct error *error);

// The parameters as JSON and back: every field, floats round-trip exactly. `json` is malloc'ed by
// view_to_json.
enum status view_to_json(const struct view_params *params, char **json, struct error *error);
enum status view_from_json(const char *json, size_t len, struct view_params *out,
                           struct error *error);

#endif
