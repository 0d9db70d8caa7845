// How a run ended: its newest checkpoint, and whether two ended with the same bytes.
#ifndef TESTS_SUPPORT_RUN_END_H
#define TESTS_SUPPORT_RUN_END_H

#include "trainer/run/checkpoint.h"

// The newest checkpoint of the run in `directory`, none of which may be damaged. The caller closes.
struct safetensors *run_end_open(const char *directory, struct checkpoint_state *state);

// Every byte of every tensor; a failure names the tensor.
void assert_same_tensors(const struct safetensors *left, const struct safetensors *right);

// The same step and tensors in the newest checkpoints of two runs.
void assert_same_end(const char *left, const char *right);

#endif
