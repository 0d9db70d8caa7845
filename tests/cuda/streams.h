// Streams, events and graphs of the emulated device. Without a seed whatever is queued is done at
// once; with one (BYOL_EMULATE_SEED) it stays queued until something waits, and streams then go on
// in any order that their events allow, so that a missing wait shows.
#ifndef TESTS_CUDA_STREAMS_H
#define TESTS_CUDA_STREAMS_H

#include "tests/cuda/include/cuda_runtime_api.h"

#include <functional>

// Queues `work`, or notes it when the stream is being captured.
cudaError_t emulated_enqueue(cudaStream_t stream, std::function<void()> work);

bool emulated_capturing(cudaStream_t stream);

// Whether this thread captures, so that calls which wait or allocate are errors. Such a call spoils
// the capture.
bool emulated_unsafe_now(void);

// Waits for a stream, for all of them.
void emulated_finish(cudaStream_t stream);
void emulated_finish_all(void);

// Keeps `error` for cudaGetLastError and gives it back.
cudaError_t emulated_error(cudaError_t error);

#endif
