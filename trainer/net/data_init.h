// The start of a network without normalisation: affine maps that begin as what batch normalisation
// would do to one batch (data-dependent initialisation; Richemond et al. 2020 start BYOL so).
#ifndef TRAINER_NET_DATA_INIT_H
#define TRAINER_NET_DATA_INIT_H

#include "trainer/net/model.h"

// Whether model_build makes affine maps of `config`.
bool data_init_needed(const struct model_config *config);

// Runs the same network with batch normalisation in the place of its affine maps on `count` images
// (device memory, as network_forward takes them), all as one view, up to `output`. From each map's
// mean and variance there, scale becomes scale / deviation, offset becomes offset - mean scale /
// deviation: on this batch the network then computes what that one did. `params`: the network's
// block in device memory.
enum status data_init(struct device *device, const struct model_config *config, const char *output,
                      const float *images, uint32_t count, float *params, struct error *error);

#endif
