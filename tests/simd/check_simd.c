// Checks every kernel at every level of vector instructions against plain C, and times it:
//
//   check_simd [--rounds N] [--seed N] [--time] [--json]
//
// Without options: a few rounds and no times, as a suite of `make test`. `make check-simd` takes
// more rounds and the times: processor time of the thread, so that a busy machine does less harm.
// Cycles are those of the time stamp counter where there is one (x86), which ticks at a fixed rate
// whatever the processor's clock does; elsewhere nanoseconds.
#include "tests/simd/simd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define BATCHES       11
#define BATCH_SECONDS 0.004

static const struct simd_suite *const suites[] = {&simd_suite_rows, &simd_suite_views,
                                                  &simd_suite_jpeg};
#define SUITES (sizeof suites / sizeof suites[0])

static struct {
    long rounds;
    uint64_t seed;
    bool time, json, reported;
} options = {.rounds = 60, .seed = 1};

size_t simd_levels(enum isa levels[ISA_COUNT])
{
    size_t count = 0;
    for (enum isa isa = ISA_BASE; isa < ISA_COUNT; isa++) {
        if (isa_supported(isa)) {
            levels[count++] = isa;
        }
    }
    return count;
}

uint32_t simd_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 32);
}

uint32_t simd_between(uint64_t *state, uint32_t min, uint32_t max)
{
    return min + (uint32_t)(((uint64_t)simd_random(state) * (max - min + 1)) >> 32);
}

float simd_unit(uint64_t *state)
{
    return (float)(simd_random(state) >> 8) * 0x1p-24f;
}

// --- times --------------------------------------------------------------------------------------

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#if defined(__x86_64__)
// The counter and the time at one moment: again when something came in between.
static double ticks_at(double *time)
{
    double before, after, ticks;
    do {
        before = seconds(CLOCK_MONOTONIC);
        ticks = (double)__builtin_ia32_rdtsc();
        after = seconds(CLOCK_MONOTONIC);
    } while (after - before > 2e-6);
    *time = (before + after) / 2;
    return ticks;
}

// Ticks of the time stamp counter in a second.
static double tick_rate(void)
{
    static double rate;
    if (rate == 0) {
        double start, end;
        double first = ticks_at(&start), last;
        do {
            last = ticks_at(&end);
        } while (end - start < BATCH_SECONDS);
        rate = (last - first) / (end - start);
    }
    return rate;
}
#else
static double tick_rate(void)
{
    return 1e9;
}
#endif

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double values[BATCHES])
{
    qsort(values, BATCHES, sizeof *values, ascending);
    return values[BATCHES / 2];
}

static void print_time(const char *what, enum isa isa, double per_pixel, double microseconds)
{
    if (options.json) {
        printf("%s\n  {\"what\": \"%s\", \"isa\": \"%s\", \"cycles_per_pixel\": %.3f, "
               "\"microseconds\": %.2f}",
               options.reported ? "," : "[", what, isa_name(isa), per_pixel, microseconds);
    } else {
        if (!options.reported) {
            printf("\n%-44s %-6s %12s %12s\n", "", "level", "cycles/pixel", "us/call");
        }
        printf("%-44s %-6s %12.3f %12.2f\n", what, isa_name(isa), per_pixel, microseconds);
    }
    options.reported = true;
}

void simd_report(const char *what, enum isa isa, double pixels, void (*run)(void *context),
                 void *context)
{
    double times[BATCHES];
    long calls = 0;
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    do {
        run(context);
        calls++;
    } while (seconds(CLOCK_THREAD_CPUTIME_ID) - start < BATCH_SECONDS);
    for (size_t batch = 0; batch < BATCHES; batch++) {
        start = seconds(CLOCK_THREAD_CPUTIME_ID);
        for (long call = 0; call < calls; call++) {
            run(context);
        }
        times[batch] = (seconds(CLOCK_THREAD_CPUTIME_ID) - start) / (double)calls;
    }
    double time = median(times);
    print_time(what, isa, time * tick_rate() / pixels, time * 1e6);
}

static void time_all(void)
{
    for (size_t i = 0; i < SUITES; i++) {
        suites[i]->time();
    }
    if (options.json && options.reported) {
        printf("\n]\n");
    }
}

// --- checks -------------------------------------------------------------------------------------

static void check_suite(void **state)
{
    const struct simd_suite *suite = *state;
    if (suite->check(options.rounds, options.seed) != 0) {
        fail_msg("%s: seed %llu", suite->name, (unsigned long long)options.seed);
    }
}

static int check_all(void)
{
    struct CMUnitTest tests[SUITES];
    for (size_t i = 0; i < SUITES; i++) {
        tests[i] = (struct CMUnitTest){.name = suites[i]->name,
                                       .test_func = check_suite,
                                       .initial_state = (void *)(uintptr_t)suites[i]};
    }
    return cmocka_run_group_tests_name("simd", tests, NULL, NULL);
}

static bool parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--time") == 0) {
            options.time = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            options.time = options.json = true;
        } else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
            options.rounds = strtol(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            options.seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: check_simd [--rounds N] [--seed N] [--time] [--json]\n");
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        return 2;
    }
    // With --json the table is all that goes to stdout.
    int failed = options.json ? 0 : check_all();
    if (failed == 0 && options.time) {
        time_all();
    }
    return failed == 0 ? 0 : 1;
}
