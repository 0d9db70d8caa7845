#include "augment/resize_plan.h"

#include <string.h>

void resize_table_fill(struct resize_table *table)
{
    for (long step = 0; step <= RESIZE_STEPS; step++) {
        resize_inner_weights(table->weight[step], step);
    }
}

// Taps whose index[0] may lie outside, as weights of 0; returns the first position of the four.
static int32_t plan(struct resize_taps *taps, uint32_t in, float position,
                    const struct resize_table *table)
{
    int32_t below = (int32_t)position;
    below -= (float)below > position;
    if (below < 1 || (int64_t)below + 2 >= in) {
        resize_taps_at(taps, in, position);
        return below - 1;
    }
    // Adding 1.5 * 2^23 and taking it away rounds to an integer, half to even, as lrintf does.
    volatile float rounded = (position - (float)below) * RESIZE_STEPS + 0x1.8p23f;
    int32_t step = (int32_t)(rounded - 0x1.8p23f);
    memcpy(taps->weight, table->weight[step], sizeof taps->weight);
    for (uint32_t tap = 0; tap < 4; tap++) {
        taps->index[tap] = (uint32_t)below - 1 + tap;
    }
    return below - 1;
}

static float position_of(uint32_t i, float scale)
{
    return ((float)i + 0.5f) * scale - 0.5f;
}

void resize_plan_rows(struct resize_taps *taps, uint32_t in, uint32_t out,
                      const struct resize_table *table)
{
    float scale = (float)in / (float)out;
    for (uint32_t i = 0; i < out; i++) {
        plan(&taps[i], in, position_of(i, scale), table);
    }
}

// The largest distance within a group, whose `first` rise or fall steadily.
static uint32_t reach_of(const struct row_columns *columns)
{
    uint32_t reach = 0;
    for (uint32_t x = 0; x < columns->count; x += ROW_LANES) {
        int32_t distance = columns->first[x + ROW_LANES - 1] - columns->first[x];
        uint32_t length = (uint32_t)(distance < 0 ? -distance : distance);
        reach = length > reach ? length : reach;
    }
    return reach;
}

void resize_plan_columns(struct row_columns *columns, uint32_t count, uint32_t in, uint32_t out,
                         bool flip, const struct resize_table *table)
{
    float scale = (float)in / (float)out;
    columns->count = count;
    for (uint32_t i = 0; i < out; i++) {
        struct resize_taps taps;
        uint32_t x = flip ? out - 1 - i : i;
        columns->first[x] = plan(&taps, in, position_of(i, scale), table);
        for (size_t tap = 0; tap < 4; tap++) {
            columns->weight[tap][x] = taps.weight[tap];
        }
    }
    for (uint32_t x = out; x < count; x++) {
        columns->first[x] = columns->first[out - 1];
        for (size_t tap = 0; tap < 4; tap++) {
            columns->weight[tap][x] = 0;
        }
    }
    columns->reach = reach_of(columns);
}
