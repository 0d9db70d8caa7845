// Kernels on the processor: blocks one after the other, in each its threads one after the other. A
// thread that waits (barrier, shuffle) keeps its stack until the others have come; one that never
// waits costs a call.
//
// With a seed (BYOL_EMULATE_SEED) blocks and threads run in another order each time. What goes on
// for ever on a GPU, or reads what nobody wrote, ends the process here, with the kernel's name: a
// barrier that some threads do not reach, barriers at different places, a shuffle with lanes that
// returned.
#ifndef TESTS_CUDA_THREADS_H
#define TESTS_CUDA_THREADS_H

#include "tests/cuda/include/cuda_runtime.h"

#define EMULATED_BLOCK_THREADS 1024

// Runs a launch to its end. One at a time in the process: others wait for it.
void emulated_run(const emulated_launch &launch);

// cudaErrorInvalidConfiguration for sizes that no GPU takes.
cudaError_t emulated_check(const emulated_launch &launch);

// Ends the process with a message.
[[noreturn]] void emulated_stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Below `bound`; 0 without a seed.
bool emulated_shuffled_order(void);
uint64_t emulated_random(uint64_t bound);

#endif
