// Networks as ONNX models (opset 17), written and read without ONNX's own library.
//
// Input "images": float32 [N][3][size][size], RGB, normalised as in training: (x / 255 - mean) /
// deviation with ImageNet's constants. Outputs, [N][width]: "features" (the pooled embedding) and,
// where the graph has them, "projection", "prediction", "logits". N is free, the size is not: the
// paddings belong to it, and each convolution carries its own. Normalisations are those of
// evaluation; standardised weights are stored standardised.
#ifndef TRAINER_WEIGHTS_ONNX_H
#define TRAINER_WEIGHTS_ONNX_H

#include "formats/safetensors.h"
#include "trainer/weights/weights.h"

// STATUS_LIMIT for a model above 2 GiB, which is what the format can hold in one file.
enum status onnx_write(const char *path, const struct weights *weights,
                       const struct tensor_metadata *metadata, size_t metadata_count,
                       struct error *error);

// The network of a model that onnx_write wrote: its graph from the nodes, its weights from the
// initialisers. Outputs are "embedding" and so on, as in our graphs.
enum status onnx_read(struct weights *weights, const char *path, struct error *error);

#endif
