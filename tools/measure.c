#include "tools/measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double measure_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int by_size(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

double measure_median(double *values, size_t count)
{
    if (count == 0) {
        return 0;
    }
    qsort(values, count, sizeof *values, by_size);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

// The kibibytes that the line starting with `name` gives in a file of /proc, as bytes.
static uint64_t bytes_of(const char *path, const char *name)
{
    char line[256];
    uint64_t kibibytes = 0;
    FILE *file = fopen(path, "r");
    while (file && kibibytes == 0 && fgets(line, sizeof line, file)) {
        if (strncmp(line, name, strlen(name)) == 0) {
            kibibytes = strtoull(line + strlen(name), NULL, 10);
        }
    }
    if (file) {
        fclose(file);
    }
    return kibibytes * 1024;
}

uint64_t measure_peak_memory(void)
{
    return bytes_of("/proc/self/status", "VmHWM:");
}

uint64_t measure_shared_memory(void)
{
    return bytes_of("/proc/self/smaps_rollup", "Pss:");
}
