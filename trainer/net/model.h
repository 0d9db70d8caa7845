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

struct model_config {
    int encoder;  // enum model_encoder
    double width; // channel multiplier, 1/16 to 4; channels are rounded to a multiple of 4 at least
                  // 4 (of a bottleneck: its inner channels, and a quarter of what leaves it)
    int stem;     // enum model_stem
    int padding;  // enum graph_padding
    bool last_gamma_zero; // scale of each block's last normalisation starts at 0; as in the
                          // reference, in v1 bottleneck blocks only
    bool v2;              // pre-activation blocks
    int64_t size;         // input side, pixels
    int64_t projector_hidden, projector_output,
        predictor_hidden; // the paper: 4096, 256, 4096; 0 = no such head
    int64_t classes;      // online classifier; 0 = none
};

void model_config_init(struct model_config *config); // resnet50, width 1, imagenet stem, same, size
                                                     // 224, 4096/256/4096, 0 classes,
// last_gamma_zero

// Outputs: "embedding"; "projection" and "prediction" when there are such heads; "logits" (of the
// embedding behind a stop-gradient) when classes > 0. STATUS_INVALID says which field does not fit.
enum status model_build(struct graph **out, const struct model_config *config, struct error *error);

// Fills a host block of graph_param_floats with the reference's initialisation: convolution and
// linear weights truncated normal at +-2 sigma, sigma = 1/sqrt(fan_in), not corrected for the cut;
// vectors their `initial`. Depends on (seed, name, index) only. `branch` ("online", "target")
// separates the draws of two networks.
void model_initialise(const struct graph *graph, uint64_t seed, const char *branch, float *params);

#endif
