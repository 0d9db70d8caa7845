// RFC 1321.
#include "formats/md5.h"

#include <math.h>
#include <string.h>

#define BLOCK 64

static uint32_t rotate(uint32_t value, unsigned bits)
{
    return value << bits | value >> (32 - bits);
}

static uint32_t load(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void take_block(uint32_t state[4], const uint8_t block[BLOCK])
{
    static const unsigned shifts[4][4] = {
        {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
    static const unsigned steps[4] = {1, 5, 3, 7}, starts[4] = {0, 1, 5, 0};
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    for (unsigned i = 0; i < BLOCK; i++) {
        unsigned round = i / 16;
        uint32_t mix = round == 0   ? (b & c) | (~b & d)
                       : round == 1 ? (d & b) | (~d & c)
                       : round == 2 ? b ^ c ^ d
                                    : c ^ (b | ~d);
        uint32_t word = load(block + 4 * ((steps[round] * i + starts[round]) % 16));
        uint32_t sine = (uint32_t)(int64_t)(fabs(sin((double)(i + 1))) * 4294967296.0);
        uint32_t next = b + rotate(a + mix + sine + word, shifts[round][i % 4]);
        a = d;
        d = c;
        c = b;
        b = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

void md5(const void *bytes, size_t len, uint8_t digest[MD5_BYTES])
{
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    const uint8_t *at = bytes;
    size_t rest = len % BLOCK;
    for (size_t done = 0; done + BLOCK <= len; done += BLOCK) {
        take_block(state, at + done);
    }
    uint8_t last[2 * BLOCK] = {0};
    if (rest > 0) {
        memcpy(last, at + len - rest, rest);
    }
    last[rest] = 0x80;
    size_t last_len = rest + 9 <= BLOCK ? BLOCK : 2 * BLOCK;
    for (unsigned i = 0; i < 8; i++) {
        last[last_len - 8 + i] = (uint8_t)((uint64_t)len * 8 >> 8 * i);
    }
    for (size_t done = 0; done < last_len; done += BLOCK) {
        take_block(state, last + done);
    }
    for (unsigned i = 0; i < MD5_BYTES; i++) {
        digest[i] = (uint8_t)(state[i / 4] >> 8 * (i % 4));
    }
}
