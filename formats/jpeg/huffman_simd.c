// The decoding loop. Compiled once per level for the shifts of BMI2, which keep the chain from one
// symbol to the next short: shift the buffer, look, shift it by what the entry says.
#include "formats/jpeg/huffman_kernel.h"

#include <string.h>

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

INLINE void consume(struct jpeg_bits *bits, uint64_t entry)
{
    bits->buffer <<= entry & 63;
    bits->count -= entry;
}

// The low bits of `value`; only the low byte of `count` means anything, and is below 32.
INLINE uint32_t low_bits(uint32_t value, uint32_t count)
{
#if defined(__BMI2__)
    return __builtin_ia32_bzhi_si(value, count);
#else
    return value & ((1u << (count & 31)) - 1);
#endif
}

// Of the symbol that ends where the entry says, be it of a DC or of an AC look.
INLINE int32_t coefficient(const struct jpeg_bits *bits, uint64_t entry, uint32_t size)
{
    uint32_t amplitude = low_bits((uint32_t)(bits->buffer >> (-entry & 63)), size);
    return (int32_t)amplitude + ((int32_t)entry >> 16);
}

// --- symbols that do not fit into a look ---------------------------------------------------------

struct symbol {
    uint32_t bits, value; // bits 0: not a code
};

static __attribute__((noinline)) struct symbol find_symbol(const struct jpeg_huffman_book *book,
                                                           uint64_t buffer)
{
    uint32_t next = (uint32_t)(buffer >> 48);
    for (uint32_t bits = 1; bits <= 16; bits++) {
        if (next < book->limit[bits]) {
            uint32_t index = (next >> (16 - bits)) + book->offset[bits];
            return (struct symbol){bits, book->symbols[index & 255]};
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
INLINE int32_t take_long_difference(struct jpeg_bits *bits, const struct jpeg_huffman_book *book,
                                    bool *invalid)
{
    struct symbol symbol = find_symbol(book, bits->buffer);
    *invalid |= symbol.bits == 0;
    consume(bits, symbol.bits);
    return take_amplitude(bits, symbol.value & 15);
}

// False at the end of the block.
INLINE bool take_long(struct jpeg_bits *bits, const struct jpeg_huffman_ac *table, int16_t *to,
                      size_t *place, bool *invalid)
{
    refill(bits);
    struct symbol symbol = find_symbol(&table->book, bits->buffer);
    uint32_t size = symbol.value & 15, run = symbol.value >> 4;
    consume(bits, symbol.bits);
    if (size == 0 && run != 15) {
        *invalid |= symbol.bits == 0 || run != 0;
        return false;
    }
    int32_t value = take_amplitude(bits, size);
    *place += 1 + run;
    *invalid |= *place >= JPEG_BLOCK;
    if (to != NULL) {
        to[table->natural[*place]] = (int16_t)value;
    }
    return *place < JPEG_BLOCK - 1;
}

// --- blocks --------------------------------------------------------------------------------------

INLINE int32_t take_difference(struct jpeg_bits *bits, const struct jpeg_huffman_dc *table,
                               bool *invalid)
{
    refill(bits);
    uint32_t entry = table->look[bits->buffer >> (64 - JPEG_DC_LOOK)];
    if (__builtin_expect(entry & LOOK_STOP, 0)) {
        return take_long_difference(bits, &table->book, invalid);
    }
    int32_t value = coefficient(bits, entry, entry >> 12 & 15);
    consume(bits, entry);
    return value;
}

INLINE size_t first_step(uint64_t entry)
{
    return (uint8_t)(entry >> 8);
}

INLINE size_t last_step(uint64_t entry)
{
    return entry >> 56;
}

// Stores what the bits' look tells of; its last coefficient comes to `last`.
INLINE void store_pair(const struct jpeg_bits *bits, const struct jpeg_huffman_ac *table,
                       int16_t *to, size_t place, size_t last, uint64_t entry)
{
    if (to != NULL) {
        to[table->natural[place + first_step(entry)]] = (int16_t)(entry >> 32);
        to[table->natural[last]] = (int16_t)coefficient(bits, entry, (uint32_t)(entry >> 48));
    }
}

// Takes what the next look gives. False if that might end the block; then nothing was taken.
INLINE bool take_look(struct jpeg_bits *bits, const struct jpeg_huffman_ac *table, int16_t *to,
                      size_t *place, uint64_t *entry)
{
    uint64_t index = bits->buffer >> (64 - JPEG_AC_LOOK);
    uint32_t step = table->bits[index];
    *entry = table->look[index];
    if (step & LOOK_STOP) {
        return false;
    }
    size_t last = *place + last_step(*entry);
    if (__builtin_expect(last >= JPEG_BLOCK - 1, 0)) {
        return false;
    }
    store_pair(bits, table, to, *place, last, *entry);
    consume(bits, step);
    *place = last;
    return true;
}

// Takes the end of the block that `entry` tells of, and the coefficient before it if it tells of
// one. False if that is the block's last, so that what follows is no end of the block.
INLINE bool take_end(struct jpeg_bits *bits, const struct jpeg_huffman_ac *table, int16_t *to,
                     size_t place, uint64_t entry)
{
    size_t first = place + first_step(entry);
    if (__builtin_expect(first >= JPEG_BLOCK - 1 && first < PAIR_NONE, 0)) {
        return false;
    }
    if (to != NULL) {
        to[table->natural[first]] = (int16_t)(entry >> 32);
    }
    consume(bits, entry);
    return true;
}

INLINE void take_coefficients(struct jpeg_bits *bits, const struct jpeg_huffman_ac *table,
                              int16_t *to, bool *invalid)
{
    size_t place = 0;
    uint64_t entry;
    for (;;) {
        refill(bits);
        if (take_look(bits, table, to, &place, &entry) &&
            take_look(bits, table, to, &place, &entry) &&
            take_look(bits, table, to, &place, &entry)) {
            continue;
        }
        bool is_end = (entry & LOOK_STOP) && (entry & 63);
        if (__builtin_expect(is_end, 1) && take_end(bits, table, to, place, entry)) {
            return;
        }
        if (!(entry & LOOK_STOP) && place + last_step(entry) == JPEG_BLOCK - 1) {
            store_pair(bits, table, to, place, JPEG_BLOCK - 1, entry);
            consume(bits, entry);
            return;
        }
        if (!take_long(bits, table, to, &place, invalid)) {
            return;
        }
    }
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
            int32_t value = *predictor + take_difference(&bits, block->dc, &invalid);
            invalid |= value != (int16_t)value;
            *predictor = (int16_t)value;
            if (keep) {
                block->to = to + block->step;
                memset(to, 0, JPEG_BLOCK * sizeof *to);
                to[0] = (int16_t)value;
            }
            take_coefficients(&bits, block->ac, to, &invalid);
        }
    }
    decoder->bits = bits;
    decoder->invalid = invalid;
    return done;
}

// --- tables --------------------------------------------------------------------------------------

// The looks that start with `a`, after which `b` would come. Without branches, for vectors.
INLINE uint64_t pair_of(uint32_t look, uint32_t a, uint32_t b)
{
    uint32_t bits_a = a & 63, size_a = a >> 12 & 15, bits_b = b & 63, size_b = b >> 12 & 15;
    uint32_t seen_b = bits_b - size_b + (size_b != 0); // code and sign
    bool both = !(a & LOOK_STOP) & (bits_b != 0) & (bits_a + seen_b <= JPEG_AC_LOOK) &
                (bits_a + bits_b <= LOOK_MOST);
    uint32_t amplitude = look >> ((JPEG_AC_LOOK - bits_a) & 31) & ((1u << size_a) - 1);
    uint32_t value = both ? (a >> 16) + amplitude : 0, end = both ? b : a;
    uint32_t first = a & LOOK_STOP ? PAIR_NONE : 1 + (a >> 8 & 15);
    uint32_t last = first + (both ? 1 + (b >> 8 & 15) : 0);
    uint32_t low = (bits_a + (both ? bits_b : 0)) | first << 8 | (end & (LOOK_STOP | 0xffff0000));
    uint32_t high = (value & 0xffff) | (end >> 12 & 15) << 16 | last << 24;
    return (uint64_t)high << 32 | low;
}

static void pair(struct jpeg_huffman_ac *table, const uint32_t singles[1 << JPEG_AC_LOOK])
{
    for (uint32_t i = 0; i < 1 << JPEG_AC_LOOK; i++) {
        uint32_t a = singles[i], behind = (i << (a & 31)) & ((1 << JPEG_AC_LOOK) - 1);
        table->look[i] = pair_of(i, a, singles[behind]);
    }
    for (uint32_t i = 0; i < 1 << JPEG_AC_LOOK; i++) {
        table->bits[i] = (uint8_t)table->look[i];
    }
}

// --- the kernel ----------------------------------------------------------------------------------

static uint32_t decode(struct jpeg_huffman *decoder, uint32_t mcus)
{
    return run(decoder, mcus, true);
}

static uint32_t skip(struct jpeg_huffman *decoder, uint32_t mcus)
{
    return run(decoder, mcus, false);
}

const struct jpeg_huffman_kernel ISA_NAME(jpeg_huffman_kernel) = {pair, decode, skip};
