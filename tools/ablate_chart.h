// The table of an ablation as a picture: a bar per row, the paper's figure as a pale bar below it.
#ifndef TOOLS_ABLATE_CHART_H
#define TOOLS_ABLATE_CHART_H

#include "tools/ablate_table.h"

// OUTPUT/table.png, of the first measure.
enum status ablate_chart_write(const struct ablate_table *table, const char *output,
                               struct error *error);

#endif
