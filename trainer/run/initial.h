// A run that begins from weights of a file (setting `init`).
#ifndef TRAINER_RUN_INITIAL_H
#define TRAINER_RUN_INITIAL_H

#include "trainer/run/config.h"

#define RUN_INITIAL_TEXT 160

// Reads config->init into the method's online and target networks: the encoder, and the heads that
// the file has. `told` says what was taken and what was left out. STATUS_CONFIG when the file says
// of itself that it pads or standardises otherwise; STATUS_UNSUPPORTED names every tensor that does
// not fit.
enum status run_initialise(const struct run_config *config, struct device *device,
                           struct method *method, char told[RUN_INITIAL_TEXT], struct error *error);

#endif
