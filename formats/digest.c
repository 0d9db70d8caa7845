// SHA-1 and XXH64, in blocks of 64 and 32 bytes.
#include "formats/digest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_1 UINT64_C(0x9E3779B185EBCA87)
#define XXH_2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define XXH_3 UINT64_C(0x165667B19E3779F9)
#define XXH_4 UINT64_C(0x85EBCA77C2B2AE63)
#define XXH_5 UINT64_C(0x27D4EB2F165667C5)

static uint64_t load64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

static uint32_t load32_big(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static uint64_t turn64(uint64_t value, unsigned by)
{
    return value << by | value >> (64 - by);
}

static uint32_t turn32(uint32_t value, unsigned by)
{
    return value << by | value >> (32 - by);
}

// --- XXH64 -------------------------------------------------------------------------------------

static uint64_t xxh_round(uint64_t lane, uint64_t input)
{
    return turn64(lane + input * XXH_2, 31) * XXH_1;
}

static void xxh_blocks(struct digest *digest, const uint8_t *blocks, size_t count)
{
    uint64_t *state = digest->state;
    uint64_t lanes[4] = {state[0], state[1], state[2], state[3]};
    for (; count > 0; count--, blocks += 32) {
        for (unsigned i = 0; i < 4; i++) {
            lanes[i] = xxh_round(lanes[i], load64(blocks + 8 * (size_t)i));
        }
    }
    memcpy(state, lanes, sizeof lanes);
}

static uint64_t xxh_merge(const struct digest *digest)
{
    const uint64_t *lanes = digest->state;
    if (digest->len < 32) {
        return lanes[2] + XXH_5; // the seed's lane
    }
    uint64_t hash =
        turn64(lanes[0], 1) + turn64(lanes[1], 7) + turn64(lanes[2], 12) + turn64(lanes[3], 18);
    for (unsigned i = 0; i < 4; i++) {
        hash = (hash ^ xxh_round(0, lanes[i])) * XXH_1 + XXH_4;
    }
    return hash;
}

static uint64_t xxh_end(const struct digest *digest)
{
    uint64_t hash = xxh_merge(digest) + digest->len;
    const uint8_t *at = digest->block, *end = at + digest->len % 32;
    for (; end - at >= 8; at += 8) {
        hash = turn64(hash ^ xxh_round(0, load64(at)), 27) * XXH_1 + XXH_4;
    }
    if (end - at >= 4) {
        uint64_t word =
            (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24;
        hash = turn64(hash ^ word * XXH_1, 23) * XXH_2 + XXH_3;
        at += 4;
    }
    for (; at < end; at++) {
        hash = turn64(hash ^ *at * XXH_5, 11) * XXH_1;
    }
    hash = (hash ^ hash >> 33) * XXH_2;
    hash = (hash ^ hash >> 29) * XXH_3;
    return hash ^ hash >> 32;
}

// --- SHA-1 -------------------------------------------------------------------------------------

static void sha1_block(struct digest *digest, const uint8_t *block)
{
    uint32_t words[80], v[5];
    for (unsigned i = 0; i < 16; i++) {
        words[i] = load32_big(block + 4 * (size_t)i);
    }
    for (unsigned i = 16; i < 80; i++) {
        words[i] = turn32(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    }
    for (unsigned i = 0; i < 5; i++) {
        v[i] = (uint32_t)digest->state[i];
    }
    for (unsigned i = 0; i < 80; i++) {
        uint32_t mix = i < 20   ? ((v[1] & v[2]) | (~v[1] & v[3])) + 0x5A827999u
                       : i < 40 ? (v[1] ^ v[2] ^ v[3]) + 0x6ED9EBA1u
                       : i < 60 ? ((v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3])) + 0x8F1BBCDCu
                                : (v[1] ^ v[2] ^ v[3]) + 0xCA62C1D6u;
        uint32_t next = turn32(v[0], 5) + mix + v[4] + words[i];
        v[4] = v[3];
        v[3] = v[2];
        v[2] = turn32(v[1], 30);
        v[1] = v[0];
        v[0] = next;
    }
    for (unsigned i = 0; i < 5; i++) {
        digest->state[i] = (uint32_t)(digest->state[i] + v[i]);
    }
}

static void sha1_blocks(struct digest *digest, const uint8_t *blocks, size_t count)
{
    for (; count > 0; count--, blocks += 64) {
        sha1_block(digest, blocks);
    }
}

static void sha1_pad(struct digest *digest)
{
    uint64_t bits = digest->len * 8;
    uint8_t pad[72] = {0x80};
    size_t fill = (size_t)(digest->len % 64);
    size_t zeros = (fill < 56 ? 56 : 120) - fill;
    for (unsigned i = 0; i < 8; i++) {
        pad[zeros + i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    digest_add(digest, pad, zeros + 8);
}

// --- both --------------------------------------------------------------------------------------

static const struct {
    const char *name;
    size_t block;
    void (*work)(struct digest *digest, const uint8_t *blocks, size_t count);
    uint64_t start[5];
} kinds[DIGEST_KINDS] = {
    [DIGEST_SHA1] = {"sha1",
                     64,
                     sha1_blocks,
                     {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}},
    [DIGEST_XXH64] = {"xxh64", 32, xxh_blocks, {XXH_1 + XXH_2, XXH_2, 0, -XXH_1, 0}},
};

const char *digest_name(enum digest_kind kind)
{
    return kinds[kind].name;
}

void digest_begin(struct digest *digest, enum digest_kind kind)
{
    digest->kind = kind;
    digest->len = 0;
    memcpy(digest->state, kinds[kind].start, sizeof digest->state);
}

void digest_add(struct digest *digest, const void *bytes, size_t len)
{
    const uint8_t *from = bytes;
    size_t block = kinds[digest->kind].block, fill = (size_t)(digest->len % block);
    digest->len += len;
    if (fill > 0) {
        size_t take = len < block - fill ? len : block - fill;
        memcpy(digest->block + fill, from, take);
        from += take;
        len -= take;
        if (fill + take < block) {
            return;
        }
        kinds[digest->kind].work(digest, digest->block, 1);
    }
    size_t whole = len / block;
    kinds[digest->kind].work(digest, from, whole);
    memcpy(digest->block, from + whole * block, len - whole * block);
}

uint64_t digest_end_number(struct digest *digest)
{
    return xxh_end(digest);
}

void digest_end(struct digest *digest, char text[DIGEST_TEXT])
{
    if (digest->kind == DIGEST_XXH64) {
        snprintf(text, DIGEST_TEXT, "%016" PRIx64, xxh_end(digest));
        return;
    }
    sha1_pad(digest);
    for (unsigned i = 0; i < 5; i++) {
        snprintf(text + 8 * (size_t)i, 9, "%08" PRIx64, digest->state[i]);
    }
}
