// What the parts of library.h share. Private to them.
#ifndef TRAINER_CUDA_LIBRARY_INTERNAL_H
#define TRAINER_CUDA_LIBRARY_INTERNAL_H

#include "trainer/cuda/conv_candidates.h"
#include "trainer/cuda/library.h"
#include "trainer/cuda/plan_cache.h"

struct products;

struct cuda_library {
    bool strict;
    cudaStream_t stream;
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t properties; // of its GPU
    struct plan_cache *cache;
    struct products *products;
    struct error failure; // of the last run that failed
};

// STATUS_OK, or STATUS_NO_MEMORY or STATUS_DEVICE with what CUDA says; `what` failed.
enum status library_check(cudaError_t result, const char *what, struct error *error);

// products.c: the cuBLASLt part.
enum status products_open(struct products **out, bool strict, struct error *error);
void products_close(struct products **products);

// conv_tune.c: which candidate is fastest, on buffers of its own. `measured` is false when there is
// no memory for those; the first is then as good as any.
enum status conv_tune(const struct cuda_library *library, const struct cuda_conv *conv,
                      const struct conv_candidates *candidates, size_t *best, bool *measured,
                      struct error *error);

#endif
