// The order of an epoch is a bijection for every count, differs between seeds and epochs, and looks
// uniform.
#include "pipeline/order.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_bijection(uint64_t count, uint64_t seed, uint32_t epoch)
{
    struct order order;
    order_init(&order, count, seed, epoch, true);
    uint8_t *seen = calloc(count, 1);
    assert_non_null(seen);
    for (uint64_t position = 0; position < count; position++) {
        uint64_t record = order_at(&order, position);
        assert_true(record < count);
        assert_int_equal(seen[record], 0);
        seen[record] = 1;
    }
    free(seen);
}

static void test_every_small_count_is_a_bijection(void **state)
{
    (void)state;
    for (uint64_t count = 1; count <= 300; count++) {
        for (uint32_t epoch = 0; epoch < 3; epoch++) {
            assert_bijection(count, count * 7919, epoch);
        }
    }
}

static void test_awkward_counts_are_bijections(void **state)
{
    (void)state;
    static const uint64_t counts[] = {509,  511,   512,   513,   1021,  4095,   4096,
                                      4097, 10007, 65535, 65536, 65537, 131071, 131101};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        assert_bijection(counts[i], UINT64_MAX - i, UINT32_MAX);
    }
}

static void test_the_largest_count_stays_inside(void **state)
{
    (void)state;
    struct order order;
    order_init(&order, UINT64_C(1) << 32, 3, 1, true);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_true(order_at(&order, (UINT64_C(1) << 32) - 1 - i * 4294967) < UINT64_C(1) << 32);
    }
    order_init(&order, (UINT64_C(1) << 31) + 1, 3, 1, true); // the most walking
    for (uint64_t i = 0; i < 1000; i++) {
        assert_true(order_at(&order, i * 2147483) <= UINT64_C(1) << 31);
    }
}

static void test_without_shuffle_it_is_the_identity(void **state)
{
    (void)state;
    struct order order;
    order_init(&order, 1000, 5, 7, false);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(order_at(&order, i), i);
    }
}

static unsigned agreements(const struct order *a, const struct order *b)
{
    unsigned same = 0;
    for (uint64_t i = 0; i < a->count; i++) {
        same += order_at(a, i) == order_at(b, i);
    }
    return same;
}

// Two independent permutations agree in one place on average; 12 or more has probability 1e-9.
static void test_seeds_and_epochs_give_unrelated_orders(void **state)
{
    (void)state;
    struct order base, seed, epoch, high, identity;
    order_init(&base, 5000, 1, 0, true);
    order_init(&seed, 5000, 2, 0, true);
    order_init(&epoch, 5000, 1, 1, true);
    order_init(&high, 5000, 1 | UINT64_C(1) << 63, 0, true);
    order_init(&identity, 5000, 1, 0, false);
    assert_true(agreements(&base, &base) == 5000);
    assert_true(agreements(&base, &seed) < 12);
    assert_true(agreements(&base, &epoch) < 12);
    assert_true(agreements(&base, &high) < 12);
    assert_true(agreements(&base, &identity) < 12);
}

// Chi-square statistic of `cells` equally likely outcomes, as standard deviations from its mean.
static double chi_square_score(const unsigned *observed, size_t cells, double draws)
{
    double expected = draws / (double)cells, sum = 0;
    for (size_t i = 0; i < cells; i++) {
        double difference = observed[i] - expected;
        sum += difference * difference / expected;
    }
    double freedom = (double)cells - 1;
    return (sum - freedom) / sqrt(2 * freedom);
}

// Over many epochs each record is equally likely at each position, and so is the step from one
// position to the next.
static void test_positions_look_uniform(void **state)
{
    (void)state;
    enum { COUNT = 100, EPOCHS = 20000 };
    static unsigned first[COUNT], middle[COUNT], step[COUNT];
    memset(first, 0, sizeof first);
    memset(middle, 0, sizeof middle);
    memset(step, 0, sizeof step);
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        struct order order;
        order_init(&order, COUNT, 99, epoch, true);
        uint64_t a = order_at(&order, 0), b = order_at(&order, 1);
        first[a]++;
        middle[order_at(&order, COUNT / 2)]++;
        step[(b + COUNT - a) % COUNT]++;
    }
    assert_int_equal(step[0], 0);
    assert_true(fabs(chi_square_score(first, COUNT, EPOCHS)) < 5);
    assert_true(fabs(chi_square_score(middle, COUNT, EPOCHS)) < 5);
    assert_true(fabs(chi_square_score(step + 1, COUNT - 1, EPOCHS)) < 5);
}

// A batch draws evenly from all parts of the dataset: no runs, no stripes.
static void test_batches_mix_the_whole_dataset(void **state)
{
    (void)state;
    enum { COUNT = 1281167, PARTS = 64, BATCH = 4096 };
    struct order order;
    order_init(&order, COUNT, 4, 2, true);
    for (uint64_t batch = 0; batch < 8; batch++) {
        unsigned part[PARTS] = {0};
        for (uint64_t i = 0; i < BATCH; i++) {
            part[order_at(&order, batch * BATCH + i) * PARTS / COUNT]++;
        }
        assert_true(fabs(chi_square_score(part, PARTS, BATCH)) < 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_small_count_is_a_bijection),
        cmocka_unit_test(test_awkward_counts_are_bijections),
        cmocka_unit_test(test_the_largest_count_stays_inside),
        cmocka_unit_test(test_without_shuffle_it_is_the_identity),
        cmocka_unit_test(test_seeds_and_epochs_give_unrelated_orders),
        cmocka_unit_test(test_positions_look_uniform),
        cmocka_unit_test(test_batches_mix_the_whole_dataset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
