// The decoding loop. Compiled once per level for the shifts of BMI2, which keep the chain from one
// symbol to the next short: shift the buffer, look, shift it by what the entry says.
#include "formats/jpeg/huffman_kernel.h"

#include <string.h>

// Zigzag to natural order; a run may lead beyond the last coefficient before that is noticed.
static const uint8_t natural[JPEG_BLOCK + 16] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33,
    40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

#define INLINE static inline __attribute__((always_inline))

// At least 56 bits. Only the low six bits of `count` mean anything, so that an entry can be
// subtracted from it as it is.
INLINE void refill(struct jpeg_bits *bits)
{
    uint64_t word;
    memcpy(&word, bits->at, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    bits->buffer |= word >> (bits->count & 63);
    bits->at += ~bits->count >> 3 & 7;
    bits->count |= 56;
}

INLINE void consume(struct jpeg_bits *bits, uint32_t entry)
{
    bits->buffer <<= entry & 63;
    bits->count -= entry;
}

INLINE uint32_t look(const struct jpeg_bits *bits, const struct jpeg_huffman_table *table)
{
    return table->look[bits->buffer >> (64 - JPEG_LOOK_BITS)];
}

INLINE int32_t coefficient(const struct jpeg_bits *bits, uint32_t entry)
{
    uint32_t size = (uint16_t)entry >> 12;
    uint32_t amplitude = (uint32_t)(bits->buffer >> (-entry & 63)) & ((1u << size) - 1);
    return (int32_t)amplitude + ((int32_t)entry >> 16);
}

// --- symbols that do not fit into a look ---------------------------------------------------------

struct symbol {
    uint32_t bits, value; // bits 0: not a code
};

static __attribute__((noinline)) struct symbol find_symbol(const struct jpeg_huffman_table *table,
                                                           uint64_t buffer)
{
    uint32_t next = (uint32_t)(buffer >> 48);
    for (uint32_t bits = 1; bits <= 16; bits++) {
        if (next < table->limit[bits]) {
            uint32_t index = (next >> (16 - bits)) + table->offset[bits];
            return (struct symbol){bits, table->symbols[index & 255]};
        }
    }
    return (struct symbol){0, 0};
}

INLINE int32_t take_amplitude(struct jpeg_bits *bits, uint32_t size)
{
    if (size == 0) {
        return 0;
    }
    int32_t amplitude = (int32_t)(bits->buffer >> (64 - size));
    int32_t sign = (int32_t)(bits->buffer >> 63);
    consume(bits, size);
    return sign ? amplitude : amplitude - (1 << size) + 1;
}

// A DC difference; an invalid code counts as 0.
INLINE int32_t take_long_difference(struct jpeg_bits *bits, const struct jpeg_huffman_table *table,
                                    bool *invalid)
{
    struct symbol symbol = find_symbol(table, bits->buffer);
    *invalid |= symbol.bits == 0;
    consume(bits, symbol.bits);
    return take_amplitude(bits, symbol.value & 15);
}

// False at the end of the block.
INLINE bool take_long(struct jpeg_bits *bits, const struct jpeg_huffman_table *table, int16_t *to,
                      uint32_t *place, bool *invalid)
{
    refill(bits);
    struct symbol symbol = find_symbol(table, bits->buffer);
    uint32_t size = symbol.value & 15, run = symbol.value >> 4;
    consume(bits, symbol.bits);
    if (size == 0 && run != 15) {
        *invalid |= symbol.bits == 0 || run != 0;
        return false;
    }
    int32_t value = take_amplitude(bits, size);
    *place += 1 + run;
    if (to != NULL) {
        to[natural[*place]] = (int16_t)value;
    }
    return *place < JPEG_BLOCK - 1;
}

// --- blocks --------------------------------------------------------------------------------------

// Takes the coefficient behind `place`. False if there was none (`entry` says to stop) or it was
// the block's last.
INLINE bool take(struct jpeg_bits *bits, const struct jpeg_huffman_table *table, int16_t *to,
                 uint32_t *place, uint32_t *entry)
{
    *entry = look(bits, table);
    if (*entry & LOOK_STOP) {
        return false;
    }
    *place += 1 + (*entry >> 8 & 15);
    if (to != NULL) {
        to[natural[*place]] = (int16_t)coefficient(bits, *entry);
    }
    consume(bits, *entry);
    return *place < JPEG_BLOCK - 1;
}

INLINE int32_t take_difference(struct jpeg_bits *bits, const struct jpeg_huffman_table *table,
                               bool *invalid)
{
    refill(bits);
    uint32_t entry = look(bits, table);
    if (__builtin_expect(entry & LOOK_STOP, 0)) {
        return take_long_difference(bits, table, invalid);
    }
    int32_t value = coefficient(bits, entry);
    consume(bits, entry);
    return value;
}

INLINE void take_coefficients(struct jpeg_bits *bits, const struct jpeg_huffman_table *table,
                              int16_t *to, bool *invalid)
{
    uint32_t place = 0, entry;
    for (;;) {
        refill(bits);
        if (take(bits, table, to, &place, &entry) && take(bits, table, to, &place, &entry) &&
            take(bits, table, to, &place, &entry)) {
            continue;
        }
        if (!(entry & LOOK_STOP)) {
            break;
        }
        if (__builtin_expect(entry & 63, 1)) { // the end of the block
            consume(bits, entry);
            break;
        }
        if (!take_long(bits, table, to, &place, invalid)) {
            break;
        }
    }
    *invalid |= place >= JPEG_BLOCK;
}

INLINE uint32_t run(struct jpeg_huffman *decoder, uint32_t mcus, bool keep)
{
    struct jpeg_bits bits = decoder->bits;
    bool invalid = decoder->invalid;
    uint32_t done = 0;
    for (; done < mcus && bits.at <= decoder->limit; done++) {
        for (uint32_t b = 0; b < decoder->blocks; b++) {
            struct jpeg_huffman_block *block = &decoder->block[b];
            int32_t *predictor = &decoder->predictor[block->component];
            int16_t *to = keep ? block->to : NULL;
            *predictor += take_difference(&bits, block->dc, &invalid);
            invalid |= *predictor != (int16_t)*predictor;
            *predictor = (int16_t)*predictor;
            if (keep) {
                memset(to, 0, JPEG_BLOCK * sizeof *to);
                to[0] = (int16_t)*predictor;
                block->to += block->step;
            }
            take_coefficients(&bits, block->ac, to, &invalid);
        }
    }
    decoder->bits = bits;
    decoder->invalid = invalid;
    return done;
}

static uint32_t decode(struct jpeg_huffman *decoder, uint32_t mcus)
{
    return run(decoder, mcus, true);
}

static uint32_t skip(struct jpeg_huffman *decoder, uint32_t mcus)
{
    return run(decoder, mcus, false);
}

const struct jpeg_huffman_kernel ISA_NAME(jpeg_huffman_kernel) = {decode, skip};
