// What remains to be done to a view of which only crop and resize are rendered: a flat record that
// lies beside its bytes and means the same to whatever finishes it, a GPU included (C and C++).
#ifndef AUGMENT_RECORD_H
#define AUGMENT_RECORD_H

#include <stdint.h>

enum view_op { VIEW_BRIGHTNESS, VIEW_CONTRAST, VIEW_SATURATION, VIEW_HUE };

// The fields are those of struct view_params (view.h).
struct view_record {
    uint8_t flip, jitter, grayscale, blur, solarize; // 0 or 1
    uint8_t order[4];                                // enum view_op, each once
    uint8_t unused[3];                               // 0
    uint32_t taps;                                   // odd, less than twice the view's size
    float brightness, contrast, saturation, hue;
    float sigma, threshold;
    uint32_t unused_too[6]; // 0
};
#define VIEW_RECORD_BYTES 64

#endif
