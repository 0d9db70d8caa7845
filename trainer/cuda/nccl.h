// NVIDIA's library of sums over GPUs, opened when it is needed: libnccl.so.2. Private to the cuda
// device. Sums are queued on a stream and may be captured; the same bits on all ranks.
#ifndef TRAINER_CUDA_NCCL_H
#define TRAINER_CUDA_NCCL_H

#include "formats/status.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>

#define CUDA_NCCL_ID 128

struct cuda_nccl; // a communicator

bool cuda_nccl_present(void);
bool cuda_nccl_new_id(char id[CUDA_NCCL_ID]);

// All ranks call it with the id that one of them made; waits for all. NULL on failure.
struct cuda_nccl *cuda_nccl_join(const char id[CUDA_NCCL_ID], unsigned ranks, unsigned rank);
void cuda_nccl_leave(struct cuda_nccl *nccl); // accepts NULL

// In place; NULL, or why it failed.
const char *cuda_nccl_sum_doubles(struct cuda_nccl *nccl, double *values, size_t count,
                                  cudaStream_t stream);
const char *cuda_nccl_sum_floats(struct cuda_nccl *nccl, float *values, size_t count,
                                 cudaStream_t stream);

#endif
