// One table of cases of every op, which every device and every precision runs.
#ifndef TESTS_SUPPORT_DEVICE_CASES_H
#define TESTS_SUPPORT_DEVICE_CASES_H

#include "tests/support/device_case.h"

extern const struct device_case device_cases[];
extern const size_t device_case_count;

#endif
