// The devices that a suite goes through, and what its calls want in device memory.
#ifndef TESTS_SUPPORT_DEVICE_ROWS_H
#define TESTS_SUPPORT_DEVICE_ROWS_H

#include "trainer/device/device.h"

// The rows of device_table that open on this machine, NULL-terminated, in their order. A row that
// lacks its hardware or a piece of software is left out, and its reason printed once; with
// REQUIRE_DEVICE in the environment that fails the test, as every other reason does.
const struct device_ops *const *device_rows(void);

// One float in device memory; the caller releases it.
float *device_value(struct device *device, float value);

#endif
