// The decoding loop of a recoded JPEG. No vectors: it gains from the shifts of BMI2, which the
// compiler finds.
#include "formats/isa.h"
#include "formats/jpeg/recode_kernel.h"

#include <endian.h>
#include <string.h>

#define BATCH 3 // symbols between two loads: 3 * 19 bits of the 57 that a load gives

#define unlikely(condition) __builtin_expect(!!(condition), 0)

// From a coefficient's place in the order of the file to the one in natural order.
static const int8_t to_natural[JPEG_BLOCK] = {
    0,  0,  6,  13, 5,   -3,  -3,  3,  9,   15,  22,  14,  6,   -2,  -10, -10,
    -4, 2,  8,  14, 20,  27,  19,  11, 3,   -5,  -13, -21, -21, -15, -9,  -3,
    3,  9,  15, 21, 21,  13,  5,   -3, -11, -19, -27, -20, -14, -8,  -2,  4,
    10, 10, 2,  -6, -14, -22, -15, -9, -3,  3,   3,   -5,  -13, -6,  0,   0};

struct stream {
    uint64_t at;     // place of the last coefficient, shifted, and bit of the payload
    uint64_t buffer; // the next bits, the first one lowest
};

// What all streams of a group share.
struct run {
    const struct recode_table *table;
    const uint8_t *bytes;
    uint32_t last_bit; // from which eight bytes may be loaded
    uint64_t limit;    // of stream.at
    int16_t *blocks;   // the block before the first
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

static inline __attribute__((always_inline)) bool step(const struct run *run, struct stream *stream)
{
    const struct recode_table *table = run->table;
    size_t look = stream->buffer & (RECODE_LOOKS - 1);
    uint64_t move = table->move[look];
    stream->at = (stream->at | table->align[look]) + move;
    if (unlikely(stream->at >= run->limit)) {
        return false;
    }
    unsigned bits = move & 63;
    uint64_t symbol = stream->buffer & ((UINT64_C(1) << bits) - 1);
    stream->buffer >>= bits;
    int32_t value = table->base[look] + (int32_t)(symbol >> table->skip[look]);
    size_t place = stream->at >> RECODE_PLACE_SHIFT;
    run->blocks[(ptrdiff_t)place + to_natural[place % JPEG_BLOCK]] = (int16_t)value;
    return true;
}

static bool decode_streams(const struct run *run, const struct recode_group *group,
                           struct stream stream[RECODE_STREAMS])
{
    struct stream a = stream[0], b = stream[1], c = stream[2], d = stream[3];
    uint32_t each = group->symbols / RECODE_STREAMS, left = each;
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
    for (left = group->symbols - each * RECODE_STREAMS; left > 0; left--) {
        if (!(fill(run, &d) && step(run, &d))) {
            return false;
        }
    }
    stream[0] = a, stream[1] = b, stream[2] = c, stream[3] = d;
    return true;
}

// From differences modulo 2^11 to DC coefficients.
static void add_up_dc(int16_t *coefficients, uint32_t blocks)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < blocks; i++) {
        int16_t *dc = coefficients + (size_t)i * JPEG_BLOCK;
        sum += (uint32_t)*dc << 21;
        *dc = (int16_t)((int32_t)sum >> 21);
    }
}

static bool decode(const struct recode_table *table, const struct recode_group *group,
                   const uint8_t *bytes, size_t readable, int16_t *coefficients, uint32_t blocks)
{
    struct run run = {.table = table,
                      .bytes = bytes,
                      .last_bit = (uint32_t)(readable - sizeof(uint64_t)) * 8 + 7,
                      .limit = (uint64_t)(blocks + 1) * JPEG_BLOCK << RECODE_PLACE_SHIFT,
                      .blocks = coefficients - JPEG_BLOCK};
    struct stream stream[RECODE_STREAMS];
    for (unsigned i = 0; i < RECODE_STREAMS; i++) {
        stream[i].at =
            (uint64_t)group->place[i] << RECODE_PLACE_SHIFT | (uint64_t)group->start[i] * 8;
    }
    if (!decode_streams(&run, group, stream)) {
        return false;
    }
    // Each stream must end where the next one starts, which also vouches for the places.
    for (unsigned i = 0; i < RECODE_STREAMS; i++) {
        uint64_t place = stream[i].at >> RECODE_PLACE_SHIFT;
        bool whole =
            i + 1 < RECODE_STREAMS ? place == group->place[i + 1] : place / JPEG_BLOCK == blocks;
        if (!whole || ((uint32_t)stream[i].at + 7) / 8 != group->start[i + 1]) {
            return false;
        }
    }
    add_up_dc(coefficients, blocks);
    return true;
}

const struct recode_kernel ISA_NAME(recode_kernel) = {.decode = decode};
