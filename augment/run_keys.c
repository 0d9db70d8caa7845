// The names alone, in the order of the trainer's table.
#include "augment/run_keys.h"

#define KEY(name)                                                                                  \
    {                                                                                              \
        .key = (name), .type = SETTINGS_STRING, .capacity = RUN_KEYS_BYTES                         \
    }

static const struct settings_field fields[] = {
    KEY("method"),
    KEY("device"),
    KEY("augment"),
    KEY("preset"),
    KEY("encoder"),
    KEY("width"),
    KEY("stem"),
    KEY("padding"),
    KEY("shortcut"),
    KEY("last_gamma_zero"),
    KEY("norm"),
    KEY("head_norm"),
    KEY("norm_groups"),
    KEY("weight_standardisation"),
    KEY("v2"),
    KEY("projector_hidden"),
    KEY("projector_output"),
    KEY("predictor_hidden"),
    KEY("projector_layers"),
    KEY("predictor_layers"),
    KEY("init"),
    KEY("seed"),
    KEY("batch"),
    KEY("accumulate"),
    KEY("recompute"),
    KEY("epochs"),
    KEY("warmup_epochs"),
    KEY("base_learning_rate"),
    KEY("optimizer"),
    KEY("weight_decay"),
    KEY("momentum"),
    KEY("nesterov"),
    KEY("trust"),
    KEY("lars_clip"),
    KEY("beta1"),
    KEY("beta2"),
    KEY("epsilon"),
    KEY("encoder_rate"),
    KEY("projector_rate"),
    KEY("predictor_rate"),
    KEY("classifier_rate"),
    KEY("scaling"),
    KEY("tuned_batch"),
    KEY("tau_base"),
    KEY("tau_schedule"),
    KEY("classifier"),
    KEY("precision"),
    KEY("threads"),
    KEY("loader_threads"),
    KEY("checkpoint_seconds"),
    KEY("keep_checkpoints"),
    KEY("log_steps"),
    KEY("max_steps"),
    KEY("bad_records"),
    KEY("probe"),
    KEY("probe_test"),
    KEY("probe_every"),
    KEY("probe_bank"),
    KEY("probe_images"),
    KEY("probe_rank"),
};

struct settings_section run_keys_section(char passed_over[RUN_KEYS_BYTES])
{
    return (struct settings_section){"", fields, sizeof fields / sizeof fields[0], passed_over};
}
