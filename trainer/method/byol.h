// Bootstrap your own latent (Grill et al. 2020): see byol.c.
#ifndef TRAINER_METHOD_BYOL_H
#define TRAINER_METHOD_BYOL_H

#include "trainer/method/method.h"

extern const struct method_ops byol_method;

#endif
