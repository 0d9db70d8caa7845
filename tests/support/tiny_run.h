// Settings small enough that a training step takes milliseconds, and a folder to run in.
#ifndef TESTS_SUPPORT_TINY_RUN_H
#define TESTS_SUPPORT_TINY_RUN_H

#include "trainer/run/config.h"

// The fastest device of the processor, or the one that BYOL_TEST_DEVICE in the environment names.
const char *tiny_device(void);

// The tiny encoder on 16 px views, batch 8, 3 epochs, one thread, a log line every other step.
struct run_config tiny_config(void);

// Fails the test with the error's text unless `status` is `wanted`.
void assert_status(enum status status, enum status wanted, const struct error *error);

#endif
