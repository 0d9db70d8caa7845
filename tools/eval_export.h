// Writes features out for other programs: `byol eval features`.
#ifndef TOOLS_EVAL_EXPORT_H
#define TOOLS_EVAL_EXPORT_H

#include "formats/dataset.h"
#include "trainer/probe/probe.h"

// Writes features.npy, labels.npy, projections.npy (when there are some) and records.json to
// `directory`, which appears when it is complete. Row i of each is record i of `dataset`.
enum status export_features(const char *directory, const struct features *features,
                            const struct dataset *dataset, const char *checkpoint,
                            struct error *error);

#endif
