// Philox4x32-10 against the known answers published with Random123 (kat_vectors).
#include "augment/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void check(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                  const uint32_t expected[4])
{
    const uint32_t counter[4] = {c0, c1, c2, c3};
    struct philox_words words = philox4x32(key, counter);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(words.word[i], expected[i]);
    }
}

static void test_known_answers(void **state)
{
    (void)state;
    check(0, 0, 0, 0, 0, (const uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    check(UINT64_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX,
          (const uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    check(0x299f31d0a4093822, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344,
          (const uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void test_unit_is_below_one(void **state)
{
    (void)state;
    assert_true(philox_unit(0) == 0.0f);
    assert_true(philox_unit(0x80000000u) == 0.5f);
    assert_true(philox_unit(UINT32_MAX) == 1.0f - 0x1p-24f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_unit_is_below_one),
    };
    return cmocka_run_group_tests_name("philox", tests, NULL, NULL);
}
