// A view of an image, in two separate steps: drawing (randomness, no pixels) and rendering (pixels,
// no randomness).
#ifndef AUGMENT_VIEW_H
#define AUGMENT_VIEW_H

#include "augment/recipe.h"
#include "augment/record.h"
#include "formats/image.h"

#include <stdbool.h>

// What a draw depends on, and all it depends on.
struct view_key {
    uint64_t seed;
    uint64_t record; // record of the dataset
    uint32_t epoch;
    uint32_t view; // 0 or 1
};

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

// How rendered pixels are handed over: float32 RGB, (x - mean) / deviation per channel with x in
// [0, 1]. view_output_plain leaves x as it is, for networks whose first op normalises.
enum view_layout {
    VIEW_HWC, // out[S][S][3]
    VIEW_CHW  // out[3][S][S]
};
struct view_output {
    enum view_layout layout;
    float mean[3], deviation[3]; // deviations above 0
};
extern const struct view_output view_output_plain;    // HWC, mean 0, deviation 1
extern const struct view_output view_output_imagenet; // HWC, ImageNet's mean and deviation

// Renders from the decoded crop (`crop` holds exactly params->crop's pixels: image_decode_windows
// with that window) into `out`. Operations in the reference's order: bicubic resize, clip, flip,
// jitter, grayscale, clip, blur, solarize, clip; then `output`. `scratch` belongs to one thread;
// nothing is allocated but by view_scratch_open.
//
// The pixels are the same bits with any vector instructions (formats/isa.h). Without saturation,
// hue and blur they are those of view_render_plainly; with them within 5e-6 of [0, 1], the bound of
// the golden data: saturation and hue next to each other are one step, and weights of the blur
// below 2^-24 of the largest are left out. (A solarize threshold other than 0.5 is a jump, where a
// pixel that close to it may land on the other side.)
struct view_scratch;
enum status view_scratch_open(struct view_scratch **out, uint32_t max_size, struct error *error);
void view_scratch_close(struct view_scratch **scratch);
size_t view_scratch_memory(uint32_t max_size); // bytes that view_scratch_open takes
enum status view_render(const struct view_params *params, const struct image_planes *crop,
                        const struct view_output *output, struct view_scratch *scratch, float *out,
                        struct error *error);

// The same from the resize on: `planes` are size x size floats in [0, 1]. For golden data.
enum status view_render_resized(const struct view_params *params, float *const planes[3],
                                const struct view_output *output, struct view_scratch *scratch,
                                float *out, struct error *error);

// The same by plain C, an operation at a time, from interleaved pixels: the oracle of view_render,
// for tests and benchmarks alone. Gives view_output_plain. Allocates what it needs.
enum status view_render_plainly(const struct view_params *params, const struct image *crop,
                                float *out, struct error *error);

// The same in two steps, of which another machine may take the second. view_render_bytes renders
// crop and resize alone, rounded to 8 bits: out[S][S][3]. view_record_of says what remains, and
// view_finish does it by plain C (the oracle of whatever does it elsewhere), into plain output;
// `work` has view_finish_floats values, `size` is S. Both steps together differ from the whole view
// by the rounding, 1/510 at most before the operations; what these make of it: augment/README.md.
enum status view_render_bytes(const struct view_params *params, const struct image_planes *crop,
                              struct view_scratch *scratch, uint8_t *out, struct error *error);
struct view_record view_record_of(const struct view_params *params);
size_t view_finish_floats(uint32_t size);
void view_finish(const struct view_record *record, uint32_t size, const uint8_t *bytes, float *out,
                 float *work);

// The parameters as JSON and back: every field, floats round-trip exactly. `json` is malloc'ed by
// view_to_json.
enum status view_to_json(const struct view_params *params, char **json, struct error *error);
enum status view_from_json(const char *json, size_t len, struct view_params *out,
                           struct error *error);

#endif
