// CRC-32C: published values, and the CPU's instruction against the table at every length and
// alignment, with a guard page behind the last byte.
#include "formats/crc32c.h"
#include "tests/support/mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

// RFC 3720, appendix B.4, and the check value of the polynomial.
static void published_values(void **state)
{
    (void)state;
    uint8_t bytes[32];
    assert_int_equal(crc32c(0, "", 0), 0);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++) {
        bytes[i] = (uint8_t)i;
    }
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x46dd794e);
    assert_int_equal(crc32c_portable(0, bytes, sizeof bytes), 0x46dd794e);
    for (unsigned i = 0; i < 32; i++) {
        bytes[i] = (uint8_t)(31 - i);
    }
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x113fdb5c);
}

static void instruction_equals_table(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages =
        mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    uint64_t random = 1;
    for (size_t i = 0; i < page; i++) {
        pages[i] = (uint8_t)mutate_next(&random);
    }
    for (size_t len = 0; len <= 300; len++) {
        for (size_t before_end = 0; before_end < 8; before_end++) {
            const uint8_t *bytes = pages + page - len - before_end;
            assert_int_equal(crc32c(0, bytes, len), crc32c_portable(0, bytes, len));
        }
    }
    munmap(pages, 2 * page);
}

// Long input is three streams of 1 KiB side by side.
static void long_input_equals_table(void **state)
{
    (void)state;
    static uint8_t bytes[16 << 10];
    uint64_t random = 2;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)mutate_next(&random);
    }
    for (size_t len = 3000; len <= sizeof bytes - 8; len += len < 3200 ? 1 : 509) {
        const uint8_t *from = bytes + len % 8;
        assert_int_equal(crc32c(7, from, len), crc32c_portable(7, from, len));
    }
}

static void joined_pieces_equal_the_whole(void **state)
{
    (void)state;
    static uint8_t bytes[5000];
    for (unsigned i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * i >> 3);
    }
    uint32_t whole = crc32c(0, bytes, sizeof bytes);
    for (size_t cut = 0; cut <= sizeof bytes; cut += cut < 40 ? 1 : 31) {
        uint32_t first = crc32c(0, bytes, cut);
        uint32_t second = crc32c(0, bytes + cut, sizeof bytes - cut);
        assert_int_equal(crc32c_join(first, second, sizeof bytes - cut), whole);
    }
    assert_int_equal(crc32c_join(0, whole, sizeof bytes), whole);
    assert_int_equal(crc32c_join(whole, 0, 0), whole);
    // 2^40 zeros: as 2^20 times 2^20 of them.
    static uint8_t zeros[1 << 20];
    uint32_t million = crc32c(0, zeros, sizeof zeros), sum = million;
    for (unsigned doubled = 20; doubled < 40; doubled++) {
        sum = crc32c_join(sum, sum, UINT64_C(1) << doubled);
    }
    assert_int_equal(crc32c_join(sum, 0, 0), sum);
    assert_int_equal(
        crc32c_join(crc32c_join(whole, sum, UINT64_C(1) << 40), million, 1 << 20),
        crc32c_join(whole, crc32c_join(sum, million, 1 << 20), (UINT64_C(1) << 40) + (1 << 20)));
}

static void pieces_equal_the_whole(void **state)
{
    (void)state;
    uint8_t bytes[100];
    for (unsigned i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * i);
    }
    uint32_t whole = crc32c(0, bytes, sizeof bytes);
    for (size_t cut = 0; cut <= sizeof bytes; cut++) {
        uint32_t part = crc32c(0, bytes, cut);
        assert_int_equal(crc32c(part, bytes + cut, sizeof bytes - cut), whole);
        assert_int_equal(crc32c_portable(part, bytes + cut, sizeof bytes - cut), whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values),
        cmocka_unit_test(instruction_equals_table),
        cmocka_unit_test(long_input_equals_table),
        cmocka_unit_test(pieces_equal_the_whole),
        cmocka_unit_test(joined_pieces_equal_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
