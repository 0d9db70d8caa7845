// Memory of the emulated device and pinned memory of the host. All of it starts as NaN (bytes
// 0xff), with guards on both sides that are looked at after every kernel and when it is given back.
#ifndef TESTS_CUDA_MEMORY_H
#define TESTS_CUDA_MEMORY_H

#include "tests/cuda/include/cuda_runtime_api.h"

enum emulated_place_of { EMULATED_PAGEABLE, EMULATED_DEVICE, EMULATED_PINNED, EMULATED_OUTSIDE };

// Where `bytes` bytes lie; EMULATED_OUTSIDE when they reach over the end of an allocation.
enum emulated_place_of emulated_find(const void *memory, size_t bytes);

// Ends the process when somebody wrote beside an allocation, and names `writer`.
void emulated_guards_check(const char *writer);

#endif
