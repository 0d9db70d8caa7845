#include "tests/simd/simd.h"
static int check(long rounds, uint64_t seed)
{
    (void)rounds;
    (void)seed;
    return 0;
}
static void time_rows(void)
{
}
const struct simd_suite simd_suite_rows = {"rows", check, time_rows};
