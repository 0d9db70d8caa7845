// Weights as .safetensors files: written under either kind of names, read strictly.
#ifndef TRAINER_WEIGHTS_FILE_H
#define TRAINER_WEIGHTS_FILE_H

#include "trainer/weights/names.h"

// Replaces nothing unless it commits; the file carries checksums.
enum status weights_write(const char *path, const struct weights *weights, enum weights_names names,
                          const char *branch, const struct tensor_metadata *metadata,
                          size_t metadata_count, struct error *error);

// How much of a file must be the network's.
enum weights_rest {
    WEIGHTS_REST_REFUSED, // nothing else may be there but whole parts that the network is without:
                          // a classifier (fc), a projector, a predictor
    WEIGHTS_REST_IGNORED, // a checkpoint's optimiser and other branch
};

// Fills `weights`, whose graph says what must be there. STATUS_UNSUPPORTED lists every tensor that
// is missing, has another shape or type, or is not known. `num_batches_tracked` may be missing; it
// then counts 0. `left_out` (NULL: not wanted) gets the parts that were passed over, "" for none.
enum status weights_read(const struct weights *weights, const struct safetensors *file,
                         const char *path, enum weights_names names, const char *branch,
                         enum weights_rest rest, char *left_out, size_t capacity,
                         struct error *error);

// Whether a file's tensors have torchvision's names or ours.
enum weights_names weights_names_of(const struct safetensors *file);

#endif
