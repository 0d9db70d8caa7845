// The table of spans that optimisers read: what it holds, on host and device. Private to the
// optimisers of the cuda device.
#ifndef TRAINER_CUDA_OPTIM_SPANS_H
#define TRAINER_CUDA_OPTIM_SPANS_H

#include "trainer/cuda/optim.h"
#include "trainer/cuda/optim_math.h"

struct piece {
    uint64_t at; // in the blocks
    uint32_t count, span;
};

struct span_entry {
    struct param_span span;
    uint32_t first_piece, pieces;
};

union span_factors {
    struct lars_factors lars;
    struct sgd_factors sgd;
    struct adamw_factors adamw;
};

// Pieces of decay spans come first. But for the first of its span each begins at a multiple of
// CUDA_PIECE, so that quads are aligned.
struct cuda_spans {
    uint32_t count, pieces, decay_pieces;
    // Device memory.
    struct span_entry *table;
    struct piece *cuts;
    struct square_sums *sums; // of decay pieces
    union span_factors *factors;
};

#endif
