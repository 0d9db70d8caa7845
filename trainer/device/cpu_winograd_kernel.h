// What the Winograd convolutions of one precision consist of. Private to cpu_winograd*.c.
//
// Tiles are numbered row by row, image after image, and worked on in blocks of a few dozen; what a
// block needs stays in the second level cache. For each block: `gather` transforms the tiles of all
// input channels; then for each panel of output channels (up to WINOGRAD_VECTORS times 16)
// `multiply` makes the products of all places, and `scatter` transforms them back into the image.
//
// Transformed tiles are lines of 64 bytes: [slab][group][block of 16 input channels][row of the
// group]. A slab holds one place in float32, two places in bfloat16. A group is WINOGRAD_ROWS tiles
// that are multiplied at once. Products are float32 [group][place][row][vector][16]. Transformed
// weights are lines of 64 bytes: [panel][place][block of 16 input channels][step][vector].
#ifndef TRAINER_DEVICE_CPU_WINOGRAD_KERNEL_H
#define TRAINER_DEVICE_CPU_WINOGRAD_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#define WINOGRAD_LANES   16 // channels side by side in an image
#define WINOGRAD_LINE    64 // bytes
#define WINOGRAD_ROWS    6
#define WINOGRAD_VECTORS 4
#define WINOGRAD_TAPS    9

// The images of one pass, by what it reads and what it writes.
struct winograd_shape {
    uint32_t height, width;
    uint32_t in_blocks, out_blocks; // of 16 channels
    uint32_t tiles_high, tiles_wide;
    size_t tiles;      // of all images
    size_t slab_bytes; // from one slab to the next
};

// Tiles side by side in one row of tiles.
struct winograd_run {
    size_t image;
    uint32_t row, column, count; // in tiles
    size_t first;                // which tile of the block the first one is
};

// The taps of 16 outputs for each of 16 inputs: taps[tap * tap_stride + input * input_stride].
struct winograd_taps {
    const float *taps;
    size_t tap_stride, input_stride;
};

// The product of one place: `groups` groups of tiles with the weights of one panel.
struct winograd_product {
    float *products;
    const char *tiles, *weights;
    size_t groups;
    uint32_t in_blocks, vectors;
};

struct winograd_kernel {
    uint32_t tile;   // outputs of a tile, in each direction
    uint32_t places; // values of a transformed tile
    uint32_t slabs;
    uint32_t steps;       // lines of weights of 16 input channels
    uint32_t pixel_bytes; // of 16 channels
    size_t (*place_offset)(uint32_t place, size_t slab_bytes); // where its tiles begin
    // Transforms a run of tiles, of all channels.
    void (*gather)(const struct winograd_shape *shape, char *tiles, const void *x,
                   const struct winograd_run *run);
    void (*multiply)(const struct winograd_product *product);
    // Makes outputs of the products, for a run of tiles and `vectors` blocks of channels.
    void (*scatter)(const struct winograd_shape *shape, void *y, const float *products,
                    const struct winograd_run *run, uint32_t out_block, uint32_t vectors);
    // The taps by which the gradients of 16 outputs reach 16 inputs, [tap][output][input]: turned
    // by 180 degrees, with inputs and outputs changed over. `from` is [tap][input][output].
    void (*turn)(float *to, const float *from, size_t tap_stride, size_t input_stride);
    // For one vector of outputs: `to` is its line of step 0 of place 0.
    void (*transform)(const struct winograd_taps *taps, char *to, size_t place_stride,
                      size_t step_stride);
};

#if defined(__x86_64__)
void winograd_turn_taps(float *to, const float *from, size_t tap_stride, size_t input_stride);

extern const struct winograd_kernel winograd_half_kernel;  // avx512_bf16
extern const struct winograd_kernel winograd_float_kernel; // avx512f
#endif

#endif
