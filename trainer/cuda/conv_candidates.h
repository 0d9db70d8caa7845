// Which plans of a convolution may be used at all, without a GPU: what is left for conv_plans.h to
// try out. Private to the cuda device.
//
// Never an engine whose result may differ from run to run, nor one that sums in less than float32;
// with `strict` none that rounds its inputs or rearranges products and sums (tensor cores,
// Winograd, Fourier). Never more workspace than CONV_WORKSPACE: some engines of strided backward
// passes ask for gigabytes. An engine that is compiled when it is first planned takes seconds, so
// one is taken only where there is no other.
#ifndef TRAINER_CUDA_CONV_CANDIDATES_H
#define TRAINER_CUDA_CONV_CANDIDATES_H

#include "trainer/cuda/cudnn_graph.h"

#define CONV_WORKSPACE  ((size_t)256 << 20)
#define CONV_CANDIDATES 8

// By the engine's notes alone.
bool conv_engine_admitted(const struct cudnn_engine *engine, bool strict);

struct conv_candidates {
    struct cudnn_plan plans[CONV_CANDIDATES]; // the one that cuDNN thinks fastest first
    size_t count;
};

// STATUS_UNSUPPORTED when there is none.
enum status conv_candidates_open(struct conv_candidates *candidates,
                                 const struct cudnn_graph *graph, bool strict, struct error *error);
void conv_candidates_close(struct conv_candidates *candidates);

#endif
