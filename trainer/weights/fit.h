// Whether torchvision's ResNet computes what a network computes, once it has its weights.
#ifndef TRAINER_WEIGHTS_FIT_H
#define TRAINER_WEIGHTS_FIT_H

#include "trainer/net/model.h"

#define WEIGHTS_FIT_TEXT 400

struct weights_fit {
    bool fits;                     // the same features from the class ResNet
    char reason[WEIGHTS_FIT_TEXT]; // why not; "" when it does
    char module[WEIGHTS_FIT_TEXT]; // how torchvision makes it: "resnet50()", or the class ResNet
                                   // and what to change
};

// `graph` is the model's, at the size that images will have: at some sizes both paddings are the
// same (at 32 k + 1 pixels for the ImageNet stem).
void weights_fit(struct weights_fit *fit, const struct model_config *model,
                 const struct graph *graph);

#endif
