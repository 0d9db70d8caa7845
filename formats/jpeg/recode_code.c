// The symbols of a recoded JPEG and their prefix codes.
#include "formats/jpeg/recode_layout.h"

#include <stdlib.h>
#include <string.h>

struct recode_symbol recode_symbol(unsigned symbol)
{
    if (symbol < RECODE_ZEROS) {
        return (struct recode_symbol){.size = symbol % RECODE_SIZES + 1,
                                      .advance = symbol / RECODE_SIZES + 1};
    }
    if (symbol == RECODE_ZEROS) {
        return (struct recode_symbol){.advance = 16};
    }
    if (symbol == RECODE_DC_LOW) {
        return (struct recode_symbol){.advance = 1, .end = true, .value = -1024};
    }
    return (struct recode_symbol){.size = symbol - RECODE_END, .advance = 1, .end = true};
}

bool recode_codes(const uint8_t lengths[RECODE_SYMBOLS], uint16_t codes[RECODE_SYMBOLS])
{
    unsigned next = 0;
    for (unsigned bits = 1; bits <= RECODE_CODE_BITS; bits++, next *= 2) {
        for (unsigned symbol = 0; symbol < RECODE_SYMBOLS; symbol++) {
            if (lengths[symbol] != bits) {
                continue;
            }
            if (next >> bits != 0) {
                return false;
            }
            unsigned reversed = 0;
            for (unsigned bit = 0; bit < bits; bit++) {
                reversed |= (next >> bit & 1) << (bits - 1 - bit);
            }
            codes[symbol] = (uint16_t)reversed;
            next++;
        }
    }
    bool short_enough = true;
    for (unsigned symbol = 0; symbol < RECODE_SYMBOLS; symbol++) {
        short_enough = short_enough && lengths[symbol] <= RECODE_CODE_BITS;
    }
    return short_enough && next == 2u << RECODE_CODE_BITS; // doubled once more by the loop
}

// --- optimal lengths: package-merge ------------------------------------------------------------

// Each list holds the symbols and pairs of the list before, by weight; a symbol's length is the
// number of lists in which it belongs to the 2n - 2 lightest of the last.

struct weighted {
    uint64_t weight;
    unsigned symbol;
};

static int compare_weights(const void *left, const void *right)
{
    const struct weighted *a = left, *b = right;
    if (a->weight != b->weight) {
        return a->weight < b->weight ? -1 : 1;
    }
    return a->symbol < b->symbol ? -1 : a->symbol > b->symbol;
}

struct list {
    uint64_t weight[2 * RECODE_SYMBOLS];
    bool is_pair[2 * RECODE_SYMBOLS];
    unsigned count;
};

static void merge(struct list *to, const struct weighted *symbols, unsigned count,
                  const struct list *from)
{
    unsigned used = 0, pairs = 0;
    to->count = 0;
    while (used < count || 2 * pairs + 1 < from->count) {
        bool has_pair = 2 * pairs + 1 < from->count;
        uint64_t pair =
            has_pair ? from->weight[2 * pairs] + from->weight[2 * pairs + 1] : UINT64_MAX;
        bool take_pair = used == count || (has_pair && pair < symbols[used].weight);
        to->is_pair[to->count] = take_pair;
        to->weight[to->count++] = take_pair ? pair : symbols[used].weight;
        pairs += take_pair;
        used += !take_pair;
    }
}

void recode_lengths(const uint64_t counts[RECODE_SYMBOLS], uint8_t lengths[RECODE_SYMBOLS])
{
    struct weighted symbols[RECODE_SYMBOLS];
    unsigned count = 0;
    for (unsigned symbol = 0; symbol < RECODE_SYMBOLS; symbol++) {
        if (counts[symbol] > 0) {
            symbols[count++] = (struct weighted){counts[symbol], symbol};
        }
    }
    qsort(symbols, count, sizeof *symbols, compare_weights);
    struct list lists[RECODE_CODE_BITS + 1];
    lists[0].count = 0;
    for (unsigned i = 0; i < RECODE_CODE_BITS; i++) {
        merge(&lists[i + 1], symbols, count, &lists[i]);
    }
    memset(lengths, 0, RECODE_SYMBOLS);
    unsigned taken = 2 * count - 2; // of the list
    for (unsigned i = RECODE_CODE_BITS; i > 0; i--) {
        unsigned pairs = 0;
        for (unsigned j = 0; j < taken; j++) {
            pairs += lists[i].is_pair[j];
        }
        for (unsigned j = 0; j < taken - pairs; j++) {
            lengths[symbols[j].symbol]++;
        }
        taken = 2 * pairs;
    }
}
