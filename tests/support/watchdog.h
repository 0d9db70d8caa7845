// A hang becomes a failure that says what was going on.
#ifndef TESTS_SUPPORT_WATCHDOG_H
#define TESTS_SUPPORT_WATCHDOG_H

// Says what is being done now. When that takes longer than two minutes (nothing here takes seconds,
// but machines are slow under sanitizers), the program prints it and ends with exit code 99.
void watchdog_set(const char *format, ...) __attribute__((format(printf, 1, 2)));
void watchdog_off(void);

#endif
