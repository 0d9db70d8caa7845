// What the checks of vector kernels share. A suite checks one family of kernels at every level of
// instructions that this processor has (formats/isa.h), and times it.
#ifndef TESTS_SIMD_SIMD_H
#define TESTS_SIMD_SIMD_H

#include "formats/isa.h"

#include <stddef.h>

struct simd_suite {
    const char *name;
    // Runs `rounds` random cases; 0, or 1 after a line on stdout that says what is wrong.
    int (*check)(long rounds, uint64_t seed);
    void (*time)(void); // reports through simd_report
};

extern const struct simd_suite simd_suite_jpeg, simd_suite_rows, simd_suite_views;

// The levels there are, narrowest first; returns how many.
size_t simd_levels(enum isa levels[ISA_COUNT]);

// Random numbers of a suite: start from any seed.
uint32_t simd_random(uint64_t *state);                              // 32 bits
uint32_t simd_between(uint64_t *state, uint32_t min, uint32_t max); // inclusive
float simd_unit(uint64_t *state);                                   // [0, 1)

// Times `run(context)`: calls it until enough time has passed, several times over, and reports the
// median of the time of one call, divided by `pixels`.
void simd_report(const char *what, enum isa isa, double pixels, void (*run)(void *context),
                 void *context);

#endif
