// CRC-32C three ways, one result: the x86 and ARM instructions where the CPU has them, else eight
// table look-ups for eight bytes.
//
// The instruction takes three cycles but one can start in each, so long input is three streams side
// by side. Joining them needs a CRC as it would be with so many zeros behind it: CRCs are
// polynomials modulo the one above, reflected (the top bit is x^0), and n zero bytes multiply by
// x^(8n).
#include "formats/crc32c.h"

#include <pthread.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define POLYNOMIAL 0x82f63b78u

typedef uint32_t (*crc_function)(uint32_t crc, const uint8_t *bytes, size_t len);

#define STREAM_BYTES ((size_t)1024)

// table[k][b] is the CRC of byte b followed by k zero bytes.
static uint32_t table[8][256];
static uint32_t zeros_power[64];      // x^(8 2^k)
static uint32_t stream_table[4][256]; // what STREAM_BYTES zeros make of byte k of a CRC

static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (unsigned bit = 32; bit-- > 0;) {
        product ^= b & -(a >> bit & 1);
        b = b >> 1 ^ (POLYNOMIAL & -(b & 1));
    }
    return product;
}

static uint32_t append_zeros(uint32_t crc, uint64_t count)
{
    for (unsigned k = 0; count > 0; k++, count >>= 1) {
        crc = count & 1 ? multiply(zeros_power[k], crc) : crc;
    }
    return crc;
}

static void build_powers(void)
{
    zeros_power[0] = UINT32_C(1) << (31 - 8);
    for (unsigned k = 1; k < 64; k++) {
        zeros_power[k] = multiply(zeros_power[k - 1], zeros_power[k - 1]);
    }
    for (unsigned k = 0; k < 4; k++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            stream_table[k][byte] = append_zeros(byte << 8 * k, STREAM_BYTES);
        }
    }
}

static uint32_t append_stream(uint32_t crc)
{
    return stream_table[0][crc & 0xff] ^ stream_table[1][crc >> 8 & 0xff] ^
           stream_table[2][crc >> 16 & 0xff] ^ stream_table[3][crc >> 24];
}

static void build_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
        }
        table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = table[k - 1][byte];
            table[k][byte] = (before >> 8) ^ table[0][before & 0xff];
        }
    }
}

static uint32_t crc_table(uint32_t crc, const uint8_t *bytes, size_t len)
{
    for (; len >= 8; bytes += 8, len -= 8) {
        uint32_t low = crc ^ ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 |
                              (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24);
        crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^
              table[4][low >> 24] ^ table[3][bytes[4]] ^ table[2][bytes[5]] ^ table[1][bytes[6]] ^
              table[0][bytes[7]];
    }
    for (; len > 0; bytes++, len--) {
        crc = (crc >> 8) ^ table[0][(crc ^ *bytes) & 0xff];
    }
    return crc;
}

#if defined(__x86_64__)
#define WITH_INSTRUCTION    __attribute__((target("sse4.2")))
#define CRC_WORD(crc, word) ((uint32_t)__builtin_ia32_crc32di(crc, word))
#define CRC_BYTE(crc, byte) __builtin_ia32_crc32qi(crc, byte)

static int has_instruction(void)
{
    return __builtin_cpu_supports("sse4.2");
}
#elif defined(__aarch64__)
#define WITH_INSTRUCTION    __attribute__((target("+crc")))
#define CRC_WORD(crc, word) __crc32cd(crc, word)
#define CRC_BYTE(crc, byte) __crc32cb(crc, byte)

static int has_instruction(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}
#endif

#if defined(WITH_INSTRUCTION)
static uint64_t load_word(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

WITH_INSTRUCTION static uint32_t crc_instruction(uint32_t crc, const uint8_t *bytes, size_t len)
{
    for (; len >= 3 * STREAM_BYTES; bytes += 3 * STREAM_BYTES, len -= 3 * STREAM_BYTES) {
        uint32_t second = 0, third = 0;
        for (size_t at = 0; at < STREAM_BYTES; at += 8) {
            crc = CRC_WORD(crc, load_word(bytes + at));
            second = CRC_WORD(second, load_word(bytes + STREAM_BYTES + at));
            third = CRC_WORD(third, load_word(bytes + 2 * STREAM_BYTES + at));
        }
        crc = append_stream(append_stream(crc) ^ second) ^ third;
    }
    for (; len >= 8; bytes += 8, len -= 8) {
        crc = CRC_WORD(crc, load_word(bytes));
    }
    for (; len > 0; bytes++, len--) {
        crc = CRC_BYTE(crc, *bytes);
    }
    return crc;
}
#else
#define crc_instruction crc_table

static int has_instruction(void)
{
    return 0;
}
#endif

static crc_function chosen;
static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;

static void choose(void)
{
    build_table();
    build_powers();
    chosen = has_instruction() ? crc_instruction : crc_table;
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len)
{
    pthread_once(&chosen_once, choose);
    return ~chosen(~crc, bytes, len);
}

uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t len)
{
    pthread_once(&chosen_once, choose);
    return ~crc_table(~crc, bytes, len);
}

uint32_t crc32c_join(uint32_t first, uint32_t second, uint64_t second_len)
{
    pthread_once(&chosen_once, choose);
    return append_zeros(first, second_len) ^ second;
}
