// What a dataset of very many records costs: opening it, and its epoch's order.
//
//     build/tests/bench/scale DATASET
//
// Prints the time of opening (median of five; the index is in the page cache after the first), the
// memory that an open dataset holds, and the processor time and memory of walking an epoch's order.
#include "formats/dataset.h"
#include "pipeline/order.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 5

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double resident_megabytes(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu %lu", &pages, &resident) != 2) {
        resident = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

int main(int argc, char **argv)
{
    struct dataset *dataset = NULL;
    struct error error;
    double seconds[ROUNDS], work[ROUNDS], before = resident_megabytes();
    if (argc != 2) {
        fprintf(stderr, "usage: scale DATASET\n");
        return 2;
    }
    for (int i = 0; i < ROUNDS; i++) {
        dataset_close(&dataset);
        double start = now(CLOCK_MONOTONIC), start_work = now(CLOCK_PROCESS_CPUTIME_ID);
        if (dataset_open(&dataset, argv[1], &error) != STATUS_OK) {
            fprintf(stderr, "scale: %s: %s\n", error.path, error.reason);
            return 1;
        }
        seconds[i] = now(CLOCK_MONOTONIC) - start;
        work[i] = now(CLOCK_PROCESS_CPUTIME_ID) - start_work;
    }
    double first = seconds[0], held = resident_megabytes() - before;
    qsort(seconds, ROUNDS, sizeof *seconds, compare);
    qsort(work, ROUNDS, sizeof *work, compare);
    uint64_t count = dataset_count(dataset), sum = 0;
    struct order order;
    double start = now(CLOCK_PROCESS_CPUTIME_ID);
    order_init(&order, count, 1, 0, true);
    for (uint64_t i = 0; i < count; i++) {
        sum += order_at(&order, i);
    }
    double walk = now(CLOCK_PROCESS_CPUTIME_ID) - start,
           more = resident_megabytes() - before - held;
    if (sum != count * (count - 1) / 2) {
        fprintf(stderr, "scale: the order is no permutation\n");
        return 1;
    }
    printf("  %" PRIu64
           " records open in %.3f s (first time %.3f s; %.3f s of processor time), hold "
           "%.1f MB\n",
           count, seconds[ROUNDS / 2], first, work[ROUNDS / 2], held);
    printf("  an epoch's order: %zu bytes and %.1f MB more resident, %.0f ns a position\n",
           sizeof order, more, walk * 1e9 / (double)count);
    dataset_close(&dataset);
    return 0;
}
