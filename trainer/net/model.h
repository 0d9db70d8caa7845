// The encoders and heads of the papers as graphs: ResNet v1 at any depth and width, the reference's
// tiny network, and the two layer heads. Sources: He et al. 2016; google-deepmind/deepmind-research
// byol/utils/networks.py; names, shapes, paddings and block structure as tests/golden (group
// network) tabulates them.
#ifndef TRAINER_NET_MODEL_H
#define TRAINER_NET_MODEL_H

#include "trainer/net/graph.h"

enum model_encoder {
    MODEL_TINY,
    MODEL_RESNET18,
    MODEL_RESNET34,
    MODEL_RESNET50,
    MODEL_RESNET101,
    MODEL_RESNET152,
    MODEL_RESNET200
};
#define MODEL_ENCODER_CHOICES "tiny|resnet18|resnet34|resnet50|resnet101|resnet152|resnet200"

enum model_stem {
    MODEL_STEM_IMAGENET, // 7x7 stride 2, then 3x3 stride 2 max pool
    MODEL_STEM_SMALL,    // 3x3 stride 1, no pool: for images of about 32 px
};
#define MODEL_STEM_CHOICES    "imagenet|small"
#define MODEL_PADDING_CHOICES "same|torch"

// Which blocks' shortcut is a convolution instead of the input itself.
enum model_shortcut {
    MODEL_SHORTCUT_FIRST, // the reference's: the first block of every group
    MODEL_SHORTCUT_TORCH, // torchvision's: only where stride or channels change, so not at the
                          // start of ResNet-18 and -34
};
#define MODEL_SHORTCUT_CHOICES "first|torch"

// Where the scale of a v1 block's last normalisation starts at 0 (v2 blocks end in a convolution).
enum model_last_gamma {
    MODEL_LAST_GAMMA_ONE,             // nowhere
    MODEL_LAST_GAMMA_ZERO_BOTTLENECK, // the reference's: in bottleneck blocks only
    MODEL_LAST_GAMMA_ZERO,            // in all blocks: torchvision's zero_init_residual
};
#define MODEL_LAST_GAMMA_CHOICES "false|true|all"

// How features are normalised.
enum model_norm {
    MODEL_NORM_BATCH,  // over the images of a view: the reference's
    MODEL_NORM_GROUP,  // each image by itself, over runs of channels (Wu and He 2018)
    MODEL_NORM_LAYER,  // the same with all channels in one run
    MODEL_NORM_AFFINE, // not at all: scale and offset alone, see data_init.h for their start
};
#define MODEL_NORM_CHOICES      "batch|group|layer|affine"
#define MODEL_HEAD_NORM_CHOICES "same|" MODEL_NORM_CHOICES

#define MODEL_LAYERS_TEXT 128
#define MODEL_LAYERS_FORM "sizes of up to 8 hidden layers such as '4096,2048', or 'none'"

struct model_config {
    int encoder;  // enum model_encoder
    double width; // channel multiplier, 1/16 to 4; channels are rounded to a multiple of 4 at least
                  // 4 (of a bottleneck: its inner channels, and a quarter of what leaves it)
    int stem;     // enum model_stem
    int padding;  // enum graph_padding
    int shortcut; // enum model_shortcut
    int last_gamma_zero; // enum model_last_gamma
    int norm;            // enum model_norm
    int head_norm;       // of the heads: 0 = as the encoder, else 1 + enum model_norm
    int64_t norm_groups; // runs of channels of MODEL_NORM_GROUP; where they do not divide the
                         // channels, the next smaller number that does
    bool weight_standardisation; // of every convolution, and of the heads' linear layers
    bool v2;                     // pre-activation blocks
    int64_t size;                // input side, pixels
    int64_t projector_hidden, projector_output,
        predictor_hidden; // the paper: 4096, 256, 4096; 0 = no such head
    // Heads of other depths: the sizes of all hidden layers, comma-separated; "none" = a single
    // linear layer; "" = one hidden layer of projector_hidden, predictor_hidden units.
    char projector_layers[MODEL_LAYERS_TEXT], predictor_layers[MODEL_LAYERS_TEXT];
    int64_t classes; // online classifier; 0 = none
};

void model_config_init(struct model_config *config); // resnet50, width 1, imagenet stem, same, size
                                                     // 224, 4096/256/4096, 0 classes,
// last_gamma_zero

// STATUS_INVALID says which field does not fit; model_build checks the same.
enum status model_config_check(const struct model_config *config, struct error *error);

// Outputs: "embedding"; "projection" and "prediction" when there are such heads; "logits" (of the
// embedding behind a stop-gradient) when classes > 0.
enum status model_build(struct graph **out, const struct model_config *config, struct error *error);

// Fills a host block of graph_param_floats with the reference's initialisation: convolution and
// linear weights truncated normal at +-2 sigma, sigma = 1/sqrt(fan_in), not corrected for the cut;
// vectors their `initial`. Depends on (seed, name, index) only. `branch` ("online", "target")
// separates the draws of two networks.
void model_initialise(const struct graph *graph, uint64_t seed, const char *branch, float *params);

#endif
