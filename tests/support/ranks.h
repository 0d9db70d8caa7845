// Tests that start several processes with mpirun.
#ifndef TESTS_SUPPORT_RANKS_H
#define TESTS_SUPPORT_RANKS_H

// Why there can be no ranks here, or NULL.
const char *ranks_reason_to_skip(void);

// Lets mpirun start more ranks than there are cores, also when root runs the test.
void ranks_prepare(void);

#endif
