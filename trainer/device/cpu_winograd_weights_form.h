// What the gradients of weights by Winograd's filtering consist of, for each precision. Private to
// cpu_winograd_weights*.c.
//
// With the matrices of the forward pass, dW = G' [sum over tiles of (B' d B) * (A dY A')] G: one
// matrix product per place of a tile, summed over the tiles of all images. Transformed values are
// words of 32 bits, one per channel and step of the sum: a float32, or two bfloat16 of two tiles
// one after the other, as vdpbf16ps wants them. A panel is [step][16 channels] of such words.
#ifndef TRAINER_DEVICE_CPU_WINOGRAD_WEIGHTS_FORM_H
#define TRAINER_DEVICE_CPU_WINOGRAD_WEIGHTS_FORM_H

#include "trainer/device/cpu.h"

#define WINOGRAD_BLOCK   16 // channels of a block of an image
#define WINOGRAD_VECTORS 4  // blocks of output channels in one product

// Some tiles of one block of channels, in the order of images, rows, columns.
struct winograd_walk {
    const void *plane;   // of the first image
    size_t image_pitch;  // values from one image to the next
    uint32_t h, w;       // of the image
    uint32_t high, wide; // tiles of one image
    size_t first, count; // tiles
    ptrdiff_t ahead;     // bytes from here to where the next walk begins, to be fetched beforehand
};

// One product of a place: sums [16][pitch] (+)= a' b over the steps of a panel of input channels
// and `vectors` panels of output channels, `panel` words apart.
struct winograd_product {
    float *sums;
    size_t pitch;
    const uint32_t *a, *b;
    size_t panel, steps;
    unsigned vectors;                // 1 to WINOGRAD_VECTORS
    bool add;                        // to the sums; otherwise they are overwritten
    const uint32_t *next_a, *next_b; // panels of products to come
};

// The sums of one place after the other, for each of some groups of tiles.
struct winograd_sums {
    const float *values;
    size_t pitch, groups, group_pitch;
};

// Tiles of one size in one precision.
struct winograd_form {
    unsigned places;     // of a transformed tile
    unsigned outputs;    // rows and columns of dY in a tile
    unsigned step_tiles; // tiles in a word
    // Panels of one block of channels, those of the places `pitch` words apart. Missing tiles of
    // the last step are zeros.
    void (*transform_image)(uint32_t *to, size_t pitch, const struct winograd_walk *walk);
    void (*transform_gradient)(uint32_t *to, size_t pitch, const struct winograd_walk *walk);
    void (*multiply)(const struct winograd_product *product);
    // `count` gradients of each of the nine taps, `tap_pitch` apart, from the totals of the groups.
    void (*finish)(float *gradient, size_t tap_pitch, const struct winograd_sums *sums,
                   size_t count);
};

#if defined(__x86_64__)
extern const struct winograd_form winograd_form_half;  // needs avx512_bf16
extern const struct winograd_form winograd_form_float; // needs avx512f
#endif

// Where a tile of a walk lies.
struct winograd_position {
    size_t image;
    uint32_t row, column;
};

CPU_INLINE struct winograd_position winograd_start(const struct winograd_walk *walk)
{
    size_t row = walk->first / walk->wide;
    return (struct winograd_position){.image = row / walk->high,
                                      .row = (uint32_t)(row % walk->high),
                                      .column = (uint32_t)(walk->first % walk->wide)};
}

CPU_INLINE void winograd_advance(const struct winograd_walk *walk,
                                 struct winograd_position *position)
{
    if (++position->column == walk->wide) {
        position->column = 0;
        if (++position->row == walk->high) {
            position->row = 0;
            position->image++;
        }
    }
}

// In step `step` of the rows that are computed as the `turn`th: brings one line closer of the
// panels and sums that are needed next.
CPU_INLINE void winograd_fetch(const struct winograd_product *product, size_t turn, size_t step)
{
    if (turn == 0) {
        __builtin_prefetch(product->next_a + step * WINOGRAD_BLOCK);
    } else if (turn == 1) {
        __builtin_prefetch(product->next_b + step * WINOGRAD_BLOCK);
    } else if (turn == 2) {
        size_t row = WINOGRAD_BLOCK + step / WINOGRAD_VECTORS;
        __builtin_prefetch(product->sums + row * product->pitch +
                           step % WINOGRAD_VECTORS * WINOGRAD_BLOCK);
    }
}

#endif
