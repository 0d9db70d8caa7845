// What both benchmarks measure with: the clock, medians, this process's memory.
#ifndef TOOLS_MEASURE_H
#define TOOLS_MEASURE_H

#include <stddef.h>
#include <stdint.h>

double measure_seconds(void); // monotonic

// Sorts `values`, so the first is then the least and the last the largest; 0 when there are none.
double measure_median(double *values, size_t count);

// Bytes; 0 where /proc does not tell.
uint64_t measure_peak_memory(void);   // the largest resident size so far
uint64_t measure_shared_memory(void); // resident now, shared pages divided among their users (PSS)

#endif
