// The pixel kernels of view_render: each works on one row of planar float32 (or a few), and is
// built once per level of vector instructions (simd.h). kernels.h holds the plain C that they must
// equal.
//
// Rows: the planes of an image are separate rows of `width` floats; every row may be read and
// written up to the next multiple of ROW_LANES floats. `planes` is 3, or 1 where the three would be
// equal (grey). Pixels lie in [0, 1] and are never -0.
//
// All levels give the same bits. Against kernels_c: everything is the same bits but for the sign of
// zero, which kernels_c keeps, and ROW_HSV, which is within 3e-6 (one division instead of a round
// trip, or two, through HSV). tests/simd proves both.
#ifndef AUGMENT_ROWS_H
#define AUGMENT_ROWS_H

#include "formats/isa.h"

#include <stddef.h>

#define ROW_LANES 16 // the most that a vector holds
#define ROW_SLACK 64 // floats that must be readable after, and 4 before, a line being resized

// --- resize -------------------------------------------------------------------------------------

// Where the outputs of a row come from: output x is the sum over t of weight[t][x] times the line's
// value at first[x] + t, which is -2 to width + 1; weights outside the line are 0. `count` outputs,
// a multiple of ROW_LANES; `reach` is the largest distance of two `first` of the same ROW_LANES.
struct row_columns {
    int32_t *first;
    float *weight[4];
    uint32_t count, reach;
};

struct resize_kernels {
    // Four rows of bytes, each read up to the next multiple of ROW_LANES, to a line of floats.
    void (*vertical)(float *line, const uint8_t *const rows[4], const float weight[4],
                     size_t width);
    // Then times 1/255 and clipped.
    void (*horizontal)(float *const out[3], const float *const line[3], uint32_t planes,
                       const struct row_columns *columns);
};
ISA_DECLARE(struct resize_kernels, resize_kernels);

// --- colour -------------------------------------------------------------------------------------

enum row_op {
    ROW_BRIGHTNESS, // x + amount
    ROW_CONTRAST,   // amount * (x - mean) + mean
    ROW_HSV,       // s * amount (at least 0) and h + turn (within half a turn); grey stays as it is
    ROW_GRAYSCALE, // luma into plane 0; nothing may follow
};

// Each is followed by a clip.
struct row_step {
    enum row_op op;
    float amount, turn;
    float mean[3];
};

// Sums of pixels as integers of 2^-30, spread over lanes; add the lanes.
struct row_sums {
    uint64_t lane[3][ROW_LANES];
};

struct color_kernels {
    // Applies the steps; `out` may be `in`. Adds the results to `sums` where not NULL.
    void (*apply)(float *const out[3], const float *const in[3], uint32_t planes, size_t width,
                  const struct row_step *steps, size_t count, struct row_sums *sums);
};
ISA_DECLARE(struct color_kernels, color_kernels);

// --- blur ---------------------------------------------------------------------------------------

struct blur_kernels {
    // Both sum 2 * radius + 1 products in the order of the taps. `in` is readable `radius` floats
    // before the row and `radius` + ROW_LANES after it, where it must be 0.
    void (*horizontal)(float *out, const float *in, size_t width, const float *weights,
                       size_t radius);
    // Two rows at once: out[0] from rows[0] to rows[2 * radius], out[1] from the ones after these.
    void (*vertical)(float *const out[2], const float *const *rows, size_t width,
                     const float *weights, size_t radius);
};
ISA_DECLARE(struct blur_kernels, blur_kernels);

// --- store --------------------------------------------------------------------------------------

struct row_finish {
    float threshold; // of solarize: x < threshold ? x : 1 - x; infinity for none
    float mean[3], factor[3];
    bool stream; // past the caches, where `out` is aligned to a vector
};

struct store_kernels {
    // Solarize, clip, (x - mean) * factor; writes exactly `width` pixels, of 3 floats each or into
    // 3 planes.
    void (*interleaved)(float *out, const float *const in[3], uint32_t planes, size_t width,
                        const struct row_finish *finish);
    void (*planar)(float *const out[3], const float *const in[3], uint32_t planes, size_t width,
                   const struct row_finish *finish);
    // Times 255, to the nearest byte, halves up; no other step.
    void (*bytes)(uint8_t *out, const float *const in[3], uint32_t planes, size_t width);
    void (*settle)(void); // after the last row: streamed pixels are there for other threads
};
ISA_DECLARE(struct store_kernels, store_kernels);

#endif
