// What a network's tensors are called in files, and how they are laid out there.
//
//     torchvision  conv1.weight, layer1.0.bn2.running_mean, fc.bias, as its ResNets' state
//                  dictionaries have them: OIHW, [out][in]. Heads as torch.nn.Sequential numbers
//                  them: projector.0 (linear), projector.1 (normalisation), projector.3 (linear), …
//     byol         as in checkpoints: online/resnet/initial_conv/w (HWIO, [in][out]),
//                  state/online/resnet/initial_batchnorm
#ifndef TRAINER_WEIGHTS_NAMES_H
#define TRAINER_WEIGHTS_NAMES_H

#include "formats/safetensors.h"
#include "trainer/weights/weights.h"

enum weights_names { WEIGHTS_TORCHVISION, WEIGHTS_BYOL };
#define WEIGHTS_NAMES_CHOICES "torchvision|byol"

enum weights_piece {
    WEIGHTS_PARAM,
    WEIGHTS_STATE, // all running statistics of a normalisation
    WEIGHTS_MEAN,
    WEIGHTS_VARIANCE,
    WEIGHTS_COUNT // parts of them, as torch keeps them
};

// One tensor of a file, and where its values stand in the blocks.
struct weights_entry {
    char name[192];
    enum weights_piece piece;
    enum tensor_type type;
    unsigned dims;
    uint64_t shape[4];
    uint64_t count;  // values
    uint64_t offset; // of the first one, in the block of parameters or of statistics
    bool transposed; // a weight, in torch's order of axes
};

// The tensors of a graph in the order of its ops, malloc'ed. `branch` ("online", "target") is part
// of byol's names. Where torchvision has no name, ours stands with dots:
// resnet.final_batchnorm.weight.
enum status weights_list(struct weights_entry **out, size_t *count, const struct graph *graph,
                         enum weights_names names, const char *branch, struct error *error);

// Copies between the blocks and a tensor of count values in the file's layout and type, which
// weights_put finds at any byte. Counts of batches below 0 become 0.
void weights_take(const struct weights *weights, const struct weights_entry *entry, void *tensor);
void weights_put(const struct weights *weights, const struct weights_entry *entry,
                 const void *tensor);

#endif
