// The decoding loop of a recoded JPEG. It gains from the shifts of BMI2; and with AVX-512 a block
// is brought into natural order by four instructions, so that the loop need not look up where
// coefficients go.
#include "formats/isa.h"
#include "formats/jpeg/recode_kernel.h"

#include <endian.h>
#include <string.h>

#ifdef __BMI2__
#include <immintrin.h>
#endif

#define BATCH 3 // symbols between two loads: 3 * 19 bits of the 57 that a load gives

#define PLACES (UINT64_C(1) << (63 - RECODE_PLACE_SHIFT)) // that a sum can hold

#define unlikely(condition) __builtin_expect(!!(condition), 0)

#ifdef __AVX512BW__

// Where in the order of the file the coefficients of natural order are.
static const _Alignas(64) uint16_t from_file[JPEG_BLOCK] = {
    0,  1,  5,  6,  14, 15, 27, 28, 2,  4,  7,  13, 16, 26, 29, 42, 3,  8,  12, 17, 25, 30,
    41, 43, 9,  11, 18, 24, 31, 40, 44, 53, 10, 19, 23, 32, 39, 45, 52, 54, 20, 22, 33, 38,
    46, 51, 55, 60, 21, 34, 37, 47, 50, 56, 59, 61, 35, 36, 48, 49, 57, 58, 62, 63};

static inline ptrdiff_t natural_place(uint64_t place)
{
    return (ptrdiff_t)place; // later, a block at a time
}

static inline void order_block(int16_t *block)
{
    __m512i low = _mm512_load_si512(block), high = _mm512_load_si512(block + 32);
    __m512i first = _mm512_load_si512(from_file), second = _mm512_load_si512(from_file + 32);
    _mm512_store_si512(block, _mm512_permutex2var_epi16(low, first, high));
    _mm512_store_si512(block + 32, _mm512_permutex2var_epi16(low, second, high));
}

#else

// From a coefficient's place in the order of the file to the one in natural order; four times, so
// that the low byte of a place is an index.
#define TO_NATURAL                                                                                 \
    0, 0, 6, 13, 5, -3, -3, 3, 9, 15, 22, 14, 6, -2, -10, -10, -4, 2, 8, 14, 20, 27, 19, 11, 3,    \
        -5, -13, -21, -21, -15, -9, -3, 3, 9, 15, 21, 21, 13, 5, -3, -11, -19, -27, -20, -14, -8,  \
        -2, 4, 10, 10, 2, -6, -14, -22, -15, -9, -3, 3, 3, -5, -13, -6, 0, 0
static const int8_t to_natural[4 * JPEG_BLOCK] = {TO_NATURAL, TO_NATURAL, TO_NATURAL, TO_NATURAL};

static inline ptrdiff_t natural_place(uint64_t place)
{
    return (ptrdiff_t)place + to_natural[place & 255];
}

static inline void order_block(int16_t *block)
{
    (void)block;
}

#endif

struct stream {
    uint64_t at;     // place of the last coefficient, shifted and raised, and bit of the payload
    uint64_t buffer; // the next bits, the first one lowest
};

// What all streams of a group share.
struct run {
    const struct recode_table *table;
    const uint8_t *bytes;
    uint32_t last_bit; // from which eight bytes may be loaded
    int16_t *origin;   // where place 0 would be
};

static inline __attribute__((always_inline)) bool fill(const struct run *run, struct stream *stream)
{
    uint32_t bit = (uint32_t)stream->at;
    uint64_t word;
    if (unlikely(bit > run->last_bit)) {
        return false;
    }
    memcpy(&word, run->bytes + (bit >> 3), sizeof word);
    stream->buffer = le64toh(word) >> (bit & 7);
    return true;
}

// The word's low bits, as many as the low byte of `bits` says; the next three bytes must be 0.
static inline uint64_t low_bits(uint64_t word, uint64_t bits)
{
#ifdef __BMI2__
    return _bzhi_u64(word, (unsigned)bits);
#else
    return word & ((UINT64_C(1) << (bits & 63)) - 1);
#endif
}

static inline __attribute__((always_inline)) bool step(const struct run *run, struct stream *stream)
{
    const struct recode_table *table = run->table;
    uint64_t word = stream->buffer;
    size_t look = word & (RECODE_LOOKS - 1);
    uint64_t move = table->move[look];
    stream->at = (stream->at | table->align[look]) + move;
    if (unlikely((int64_t)stream->at < 0)) {
        return false;
    }
    stream->buffer = word >> (move & 63);
    int32_t value = table->base[look] + (int32_t)(low_bits(word, move) >> table->skip[look]);
    run->origin[natural_place(stream->at >> RECODE_PLACE_SHIFT)] = (int16_t)value;
    return true;
}

static bool decode_streams(const struct run *run, const struct recode_group *group,
                           struct stream stream[RECODE_STREAMS])
{
    struct stream a = stream[0], b = stream[1], c = stream[2], d = stream[3];
    uint32_t left = group->each;
    for (; left >= BATCH; left -= BATCH) {
        if (!(fill(run, &a) && fill(run, &b) && fill(run, &c) && fill(run, &d))) {
            return false;
        }
        for (int i = 0; i < BATCH; i++) {
            if (!(step(run, &a) && step(run, &b) && step(run, &c) && step(run, &d))) {
                return false;
            }
        }
    }
    for (; left > 0; left--) {
        if (!(fill(run, &a) && fill(run, &b) && fill(run, &c) && fill(run, &d) && step(run, &a) &&
              step(run, &b) && step(run, &c) && step(run, &d))) {
            return false;
        }
    }
    for (left = group->symbols - group->each * RECODE_STREAMS; left > 0; left--) {
        if (!(fill(run, &d) && step(run, &d))) {
            return false;
        }
    }
    stream[0] = a, stream[1] = b, stream[2] = c, stream[3] = d;
    return true;
}

// From differences modulo 2^11 to DC coefficients.
static void finish_blocks(int16_t *coefficients, uint32_t blocks)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < blocks; i++) {
        int16_t *block = coefficients + (size_t)i * JPEG_BLOCK;
        sum += (uint32_t)block[0] << 21;
        order_block(block);
        block[0] = (int16_t)((int32_t)sum >> 21);
    }
}

static bool decode(const struct recode_table *table, const struct recode_group *group,
                   const uint8_t *bytes, size_t readable, int16_t *coefficients, uint32_t blocks)
{
    // Places are raised so that the first one beyond the blocks turns the sum negative.
    uint64_t raise = PLACES - (uint64_t)(blocks + 1) * JPEG_BLOCK;
    struct run run = {
        .table = table,
        .bytes = bytes,
        .last_bit = (uint32_t)(readable - sizeof(uint64_t)) * 8 + 7,
        .origin = (int16_t *)((uintptr_t)coefficients - (JPEG_BLOCK + raise) * sizeof(int16_t))};
    struct stream stream[RECODE_STREAMS];
    for (unsigned i = 0; i < RECODE_STREAMS; i++) {
        stream[i].at =
            (group->place[i] + raise) << RECODE_PLACE_SHIFT | (uint64_t)group->start[i] * 8;
    }
    if (!decode_streams(&run, group, stream)) {
        return false;
    }
    // Each stream must end where the next one starts, which also vouches for the places.
    for (unsigned i = 0; i < RECODE_STREAMS; i++) {
        uint64_t place = (stream[i].at >> RECODE_PLACE_SHIFT) - raise;
        bool whole =
            i + 1 < RECODE_STREAMS ? place == group->place[i + 1] : place / JPEG_BLOCK == blocks;
        if (!whole || ((uint32_t)stream[i].at + 7) / 8 != group->start[i + 1]) {
            return false;
        }
    }
    finish_blocks(coefficients, blocks);
    return true;
}

const struct recode_kernel ISA_NAME(recode_kernel) = {.decode = decode};
