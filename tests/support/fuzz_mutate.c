#include "tests/support/fuzz_mutate.h"
#include "tests/support/fuzz.h"
#include "tests/support/mutate.h"

#include <stdlib.h>
#include <string.h>

#define MOST_SEEDS 512

struct seed {
    uint8_t *bytes;
    size_t len, keep;
};

static struct seed pool[MOST_SEEDS];
static size_t pool_count;

// An input that is being changed. The first `keep` bytes stay.
struct mutant {
    uint8_t *bytes;
    size_t len, keep;
    uint64_t *random;
};

size_t fuzz_below(uint64_t *random, size_t bound)
{
    return (size_t)(mutate_next(random) % bound);
}

void fuzz_pool_add(const void *bytes, size_t len, size_t keep)
{
    if (pool_count == MOST_SEEDS || len > FUZZ_INPUT_BYTES) {
        abort();
    }
    struct seed *seed = &pool[pool_count++];
    *seed = (struct seed){.bytes = malloc(len ? len : 1), .len = len, .keep = keep};
    if (seed->bytes == NULL) {
        abort();
    }
    memcpy(seed->bytes, bytes, len);
}

void fuzz_pool_free(void)
{
    while (pool_count > 0) {
        free(pool[--pool_count].bytes);
    }
}

// --- changes -----------------------------------------------------------------------------------

static size_t pick_place(struct mutant *mutant)
{
    return mutant->keep + fuzz_below(mutant->random, mutant->len - mutant->keep);
}

// Short pieces are likelier than long ones.
static size_t pick_length(struct mutant *mutant, size_t most)
{
    size_t bound = (size_t)1 << fuzz_below(mutant->random, 12);
    return 1 + fuzz_below(mutant->random, bound < most ? bound : most);
}

static void flip_bit(struct mutant *mutant)
{
    mutant->bytes[pick_place(mutant)] ^= (uint8_t)(1u << fuzz_below(mutant->random, 8));
}

static void set_byte(struct mutant *mutant)
{
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff, 0xd0, 0xd8, 0xd9, 0xda};
    uint8_t value = fuzz_below(mutant->random, 2)
                        ? (uint8_t)mutate_next(mutant->random)
                        : values[fuzz_below(mutant->random, sizeof values)];
    mutant->bytes[pick_place(mutant)] = value;
}

static void add_to_byte(struct mutant *mutant)
{
    uint8_t *at = mutant->bytes + pick_place(mutant);
    *at = (uint8_t)(*at + fuzz_below(mutant->random, 71) - 35);
}

// A number of 2, 4 or 8 bytes at which sums and comparisons go wrong, in either byte order.
static void set_number(struct mutant *mutant)
{
    static const uint64_t values[] = {0,          1,          7,
                                      8,          63,         64,
                                      255,        256,        4095,
                                      4096,       INT16_MAX,  0x8000,
                                      UINT16_MAX, 0x10000,    INT32_MAX,
                                      0x80000000, UINT32_MAX, UINT32_MAX - 1,
                                      INT64_MAX,  UINT64_MAX, UINT64_MAX - 7};
    size_t width = (size_t)2 << fuzz_below(mutant->random, 3), at = pick_place(mutant);
    uint64_t value = values[fuzz_below(mutant->random, sizeof values / sizeof *values)];
    bool big_endian = fuzz_below(mutant->random, 2);
    for (size_t i = 0; i < width && at + i < mutant->len; i++) {
        mutant->bytes[at + i] = (uint8_t)(value >> (8 * (big_endian ? width - 1 - i : i)));
    }
}

static void overwrite_piece(struct mutant *mutant)
{
    size_t from = fuzz_below(mutant->random, mutant->len), to = pick_place(mutant);
    size_t room = mutant->len - (from > to ? from : to);
    memmove(mutant->bytes + to, mutant->bytes + from, pick_length(mutant, room));
}

static void erase_piece(struct mutant *mutant)
{
    size_t at = pick_place(mutant), len = pick_length(mutant, mutant->len - at);
    memmove(mutant->bytes + at, mutant->bytes + at + len, mutant->len - at - len);
    mutant->len -= len;
}

// A copy of what follows, one byte many times, or noise.
static void insert_piece(struct mutant *mutant)
{
    size_t at = pick_place(mutant), len = pick_length(mutant, mutant->len - at);
    if (len > FUZZ_INPUT_BYTES - mutant->len) {
        return;
    }
    memmove(mutant->bytes + at + len, mutant->bytes + at, mutant->len - at);
    mutant->len += len;
    size_t kind = fuzz_below(mutant->random, 3);
    uint8_t value = (uint8_t)mutate_next(mutant->random);
    for (size_t i = 0; kind > 0 && i < len; i++) {
        mutant->bytes[at + i] = kind == 1 ? value : (uint8_t)mutate_next(mutant->random);
    }
}

static void cut_end(struct mutant *mutant)
{
    mutant->len = fuzz_below(mutant->random, 4) ? mutant->len - pick_length(mutant, mutant->len)
                                                : pick_place(mutant);
    if (mutant->len < mutant->keep) {
        mutant->len = mutant->keep;
    }
}

// Goes on as another seed does at the same place.
static void splice(struct mutant *mutant)
{
    const struct seed *other = &pool[fuzz_below(mutant->random, pool_count)];
    size_t at = pick_place(mutant);
    if (at < other->len) {
        size_t len = pick_length(mutant, other->len - at);
        len = len < mutant->len - at ? len : mutant->len - at;
        memcpy(mutant->bytes + at, other->bytes + at, len);
    }
}

static void change(struct mutant *mutant)
{
    static void (*const changes[])(struct mutant *) = {
        flip_bit,   flip_bit,        flip_bit,    set_byte,     set_byte, add_to_byte,
        set_number, overwrite_piece, erase_piece, insert_piece, splice,   cut_end,
    };
    changes[fuzz_below(mutant->random, sizeof changes / sizeof *changes)](mutant);
}

size_t fuzz_pool_mutant(uint8_t *out, uint64_t seed, uint64_t number, uint64_t *random)
{
    *random = seed * UINT64_C(0xd1342543de82ef95) + number;
    *random = mutate_next(random);
    const struct seed *from = &pool[fuzz_below(random, pool_count)];
    struct mutant mutant = {.bytes = out,
                            .len = from->len,
                            .keep = fuzz_below(random, 4) ? from->keep : 0,
                            .random = random};
    memcpy(out, from->bytes, from->len);
    size_t changes = (size_t)1 << fuzz_below(random, 5);
    for (size_t i = 0; i < changes && mutant.len > mutant.keep; i++) {
        change(&mutant);
    }
    return mutant.len;
}
