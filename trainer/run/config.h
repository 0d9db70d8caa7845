// A run's settings: one struct, one table of keys (settings.h), presets, validation. The resolved
// config is stored in the run directory and inside every checkpoint.
#ifndef TRAINER_RUN_CONFIG_H
#define TRAINER_RUN_CONFIG_H

#include "augment/recipe.h"
#include "trainer/method/method.h"

enum run_preset { RUN_PRESET_NONE, RUN_PRESET_40, RUN_PRESET_100, RUN_PRESET_300, RUN_PRESET_1000 };
#define RUN_PRESET_CHOICES "none|byol-40|byol-100|byol-300|byol-1000"

// How learning rate and tau follow the batch (run_config_scaled).
enum run_scaling { RUN_SCALING_LINEAR, RUN_SCALING_MOVING_AVERAGE };
#define RUN_SCALING_CHOICES "linear|moving-average"

// How tau goes on from tau_base: to 1 by a cosine (the reference), or not at all.
enum run_tau_schedule { RUN_TAU_COSINE, RUN_TAU_CONSTANT };
#define RUN_TAU_SCHEDULE_CHOICES "cosine|constant"

// Who does what comes after a view's crop and resize (augment/record.h).
enum run_augment { RUN_AUGMENT_HOST, RUN_AUGMENT_DEVICE };
#define RUN_AUGMENT_CHOICES "host|device"

struct run_config {
    // What is learnt, and how.
    char method[32]; // "byol"
    char device[32]; // "cpu"
    int preset; // enum run_preset; sets epochs, base learning rate, weight decay and tau of the
                // reference
    struct model_config model; // its size and classes follow from recipe and data
    struct recipe recipe;      // keys "views.*"
    int augment;               // enum run_augment; the device gets rounded pixels
    char init[512];            // file of weights that a run begins from; "" = drawn by the seed
    int64_t seed, batch, epochs;
    int64_t accumulate;   // micro-batches per batch: `batch` stays the pairs of one optimiser step
    double warmup_epochs; // 10 in every preset
    double base_learning_rate; // at batch 256
    double weight_decay, momentum, trust, tau_base;
    int tau_schedule;             // enum run_tau_schedule
    int optimizer, scaling;       // enum optimizer, enum run_scaling
    double beta1, beta2, epsilon; // AdamW
    double encoder_rate, projector_rate, predictor_rate, classifier_rate; // times learning rate
    int64_t tuned_batch;      // for which rate and tau were chosen, when they follow the batch
    bool nesterov, lars_clip; // where the optimiser has them
    bool classifier;          // online linear classifier when the data has labels

    // How it runs.
    int precision;              // enum device_precision; a run that began has f32 or bf16
    bool recompute;             // activations inside residual blocks: twice computed, not kept
    int64_t threads;            // of the device; 0 = one per core
    int64_t loader_threads;     // 0 = one per core
    int64_t checkpoint_seconds; // time between checkpoints; 0 = only at epoch ends and the end
    int64_t keep_checkpoints;   // newest kept, at least 2
    int64_t log_steps;          // a metrics line every so many steps
    int64_t max_steps;          // stop early (the schedule still spans `epochs`); 0 = no
    int bad_records;            // enum loader_policy
    char probe[400], probe_test[400]; // datasets of the online probe, "" = none
    int64_t probe_every;              // epochs
    int64_t probe_bank, probe_images; // at most so many that vote, that are classified
    bool probe_rank;                  // RankMe too
};
#define RUN_POLICY_CHOICES "fatal|skip"

void run_config_init(struct run_config *config); // the reference's byol-1000 on resnet50, cpu

// The sections for settings_load, settings_set and settings_print: "" for the run, "views." for the
// recipe. `out` has room for 2.
size_t run_config_sections(struct run_config *config, struct settings_section *out);

// Defaults, then the file (NULL = none; its `preset` and `views.base` first, then its keys), then
// each "key=value".
enum status run_config_resolve(struct run_config *config, const char *recipe_file,
                               const char *const *assignments, size_t assignment_count,
                               struct error *error);

// The same from a resolved text, such as the one in a checkpoint; `name` stands for its path.
enum status run_config_parse(struct run_config *config, const char *name, const char *text,
                             struct error *error);

// Sets more keys of a config that is resolved already.
enum status run_config_change(struct run_config *config, const char *const *assignments,
                              size_t assignment_count, struct error *error);

// Every key as YAML text (malloc'ed) that run_config_parse reads back to the same config.
enum status run_config_print(const struct run_config *config, bool with_help, char **text,
                             struct error *error);

// STATUS_CONFIG names the first key of the "what is learnt" part in which the two differ.
enum status run_config_compare(const struct run_config *stored, const struct run_config *wanted,
                               struct error *error);

// What the method is opened with.
struct method_config run_config_method(const struct run_config *config);

// What the method's step gets for the values of the schedules (schedule.h), which know the linear
// rule only. linear: the same. moving-average (Busbridge et al. 2023), kappa = batch / tuned_batch:
// tau^kappa, and AdamW's rate grows with sqrt(kappa) in place of kappa.
struct method_step run_config_scaled(const struct run_config *config, float learning_rate,
                                     float tau);

enum status run_config_validate(const struct run_config *config, struct error *error);

#endif
