// Names of the keys that a file of settings may hold beside `views:`, for readers of recipes, which
// pass them over. What they mean is the trainer's (trainer/run/config.c); its tests hold the two
// lists together.
#ifndef AUGMENT_RUN_KEYS_H
#define AUGMENT_RUN_KEYS_H

#include "formats/settings.h"

#define RUN_KEYS_BYTES 1024 // longest value

// Takes any text for each of them into `passed_over`, where nobody reads it.
struct settings_section run_keys_section(char passed_over[RUN_KEYS_BYTES]);

#endif
