// A Feistel network permutes the smallest power-of-two domain that holds the count; positions that
// land outside the count are walked along their cycle until they are inside. Both steps are
// bijections whatever the round function returns, so no table is needed and no record is lost.
#include "pipeline/order.h"

#include "augment/philox.h"

#include <assert.h>

// Halves are replaced in turn; four rounds of each leave no visible structure (tests/pipeline).
#define ORDER_ROUNDS 4

// Keeps these draws apart from the views', which use the plain seed as key.
#define ORDER_KEY UINT64_C(0x6f726465722e3031)

static uint32_t bits_for(uint64_t count)
{
    uint32_t bits = 0;
    while ((UINT64_C(1) << bits) < count) {
        bits++;
    }
    return bits;
}

void order_init(struct order *order, uint64_t count, uint64_t seed, uint32_t epoch, bool shuffle)
{
    assert(count >= 1 && count <= UINT64_C(1) << 32);
    uint32_t bits = bits_for(count);
    *order = (struct order){
        .count = count,
        .seed = seed,
        .epoch = epoch,
        .shuffle = shuffle,
        .left_bits = bits / 2,
        .right_bits = bits - bits / 2,
    };
}

static uint32_t round_word(const struct order *order, uint32_t half, uint32_t round)
{
    const uint32_t counter[4] = {half, round, order->epoch, 0};
    return philox4x32(order->seed ^ ORDER_KEY, counter).word[0];
}

static uint64_t permute(const struct order *order, uint64_t value)
{
    const uint32_t left_mask = (uint32_t)((UINT64_C(1) << order->left_bits) - 1);
    const uint32_t right_mask = (uint32_t)((UINT64_C(1) << order->right_bits) - 1);
    uint32_t left = (uint32_t)(value >> order->right_bits), right = (uint32_t)value & right_mask;
    for (uint32_t round = 0; round < ORDER_ROUNDS; round++) {
        left ^= round_word(order, right, 2 * round) & left_mask;
        right ^= round_word(order, left, 2 * round + 1) & right_mask;
    }
    return (uint64_t)left << order->right_bits | right;
}

uint64_t order_at(const struct order *order, uint64_t position)
{
    assert(position < order->count);
    if (!order->shuffle) {
        return position;
    }
    // The domain is less than twice the count, so this takes fewer than two steps on average.
    do {
        position = permute(order, position);
    } while (position >= order->count);
    return position;
}
