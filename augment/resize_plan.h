// Where the outputs of a resize come from, for the row kernels: the numbers of resize.c, looked up
// rather than computed.
#ifndef AUGMENT_RESIZE_PLAN_H
#define AUGMENT_RESIZE_PLAN_H

#include "augment/kernels.h"
#include "augment/rows.h"

// The renormalised weights of every step, for positions whose four taps lie inside the image.
struct resize_table {
    float weight[RESIZE_STEPS + 1][4];
};
void resize_table_fill(struct resize_table *table);

void resize_plan_rows(struct resize_taps *taps, uint32_t in, uint32_t out,
                      const struct resize_table *table);
// `columns` has room for `count` (at least `out`, a multiple of ROW_LANES) entries; those after
// `out` become 0. `flip` reverses the outputs.
void resize_plan_columns(struct row_columns *columns, uint32_t count, uint32_t in, uint32_t out,
                         bool flip, const struct resize_table *table);

#endif
