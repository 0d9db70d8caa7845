// A recipe says how views are drawn: one struct per view, plain numbers, no pointers. Defaults and
// sources: shared reference part A (BYOL paper, appendix B; google-deepmind/deepmind-research
// byol/utils/augmentations.py).
#ifndef AUGMENT_RECIPE_H
#define AUGMENT_RECIPE_H

#include "formats/settings.h"
#include "formats/status.h"

#include <stdint.h>

#define RECIPE_MAX_VIEWS 2
#define RECIPE_MIN_SIZE  8
#define RECIPE_MAX_SIZE  1024

enum recipe_crop {
    RECIPE_CROP_RANDOM, // one draw of area and aspect ratio, clamped to the image (never redrawn)
    RECIPE_CROP_CENTER, // square of S/(S+32) of the shorter side, centred (the reference's
                        // evaluation crop)
    RECIPE_CROP_WHOLE,  // the whole image, aspect ratio not kept
};

// Probabilities are Bernoulli u <= p, drawn per image and view. Strengths: brightness delta ~ U[-b,
// b]; contrast factor ~ U[1-c, 1+c]; saturation factor ~ U[1-s, 1+s]; hue delta ~ U[-h, h] (turns).
struct recipe_view {
    int crop;                      // enum recipe_crop
    double area_min, area_max;     // share of the image's area, 0 < min <= max <= 1
    double aspect_min, aspect_max; // width / height; the logarithm is uniform
    double flip;                   // probability
    double jitter; // probability that all four colour operations apply, in random order
    double brightness, contrast, saturation, hue;
    double grayscale;            // probability
    double blur;                 // probability
    double sigma_min, sigma_max; // pixels, uniform
    double blur_kernel; // kernel = 2 * int(size * blur_kernel / 2) + 1 taps; the reference: 0.1 (23
                        // taps at 224 px)
    double solarize;    // probability
    double solarize_threshold; // x < threshold keeps, else 1 - x
};

struct recipe {
    char name[64];
    int64_t size;  // S: views are S x S
    int64_t views; // 1 or 2
    struct recipe_view view[RECIPE_MAX_VIEWS];
};

// "byol" (224 px, the paper's T and T'), "linear-train" (one view: random crop and flip), "eval"
// (one view: centre crop), "small" (two views for 32 px: as byol without blur). STATUS_NOT_FOUND
// names the nearest.
enum status recipe_builtin(const char *name, struct recipe *out, struct error *error);
extern const char *const recipe_builtin_names[]; // NULL-terminated

// The table of a recipe's keys ("base", "size", "count", "view1.blur", …), to be used as a section
// with prefix "" or "views.". `base` is the field `name`: loading it sets the name alone, so that a
// loader finds it in a first pass and starts the second one from recipe_builtin.
struct settings_section recipe_section(const char *prefix, struct recipe *recipe);

// Reads the `views:` mapping of a file: starts from the built-in named by `views.base` (default
// "byol"), wherever that key stands, and applies the other keys. Keys of training beside it
// (run_keys.h) are passed over, their values unread; any other key is unknown.
enum status recipe_load(const char *path, struct recipe *out, struct error *error);

// Ranges and their relations (min <= max, size, views). STATUS_CONFIG names the key.
enum status recipe_validate(const struct recipe *recipe, struct error *error);

#endif
