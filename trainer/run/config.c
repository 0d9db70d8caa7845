// The table of a run's settings, the reference's presets, and how a config comes together from
// defaults, a file and assignments.
#include "trainer/run/config.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"
#include "formats/limits.h"
#include "pipeline/loader.h"

#define NUMBER(name, member, kind, low, high, text)                                                \
    {                                                                                              \
        .key = (name), .type = (kind), .offset = offsetof(struct run_config, member),              \
        .min = (low), .max = (high), .help = (text)                                                \
    }
#define FIELD(member, kind, low, high, text) NUMBER(#member, member, kind, low, high, text)
#define MODEL_FIELD(member, kind, low, high, text)                                                 \
    NUMBER(#member, model.member, kind, low, high, text)
#define STRING(member, text)                                                                       \
    {                                                                                              \
        .key = #member, .type = SETTINGS_STRING, .offset = offsetof(struct run_config, member),    \
        .capacity = sizeof(((struct run_config *)0)->member), .help = (text)                       \
    }
#define MODEL_STRING(member, text)                                                                 \
    {                                                                                              \
        .key = #member, .type = SETTINGS_STRING,                                                   \
        .offset = offsetof(struct run_config, model.member),                                       \
        .capacity = sizeof(((struct run_config *)0)->model.member), .help = (text)                 \
    }
#define CHOICE(name, member, names, text)                                                          \
    {                                                                                              \
        .key = (name), .type = SETTINGS_CHOICE, .offset = offsetof(struct run_config, member),     \
        .choices = (names), .help = (text)                                                         \
    }

static const struct settings_field run_fields[] = {
    STRING(method, "what is learnt: byol"),
    STRING(device,
           "where it is computed: cpu (oneDNN), cuda (an NVIDIA GPU), or ref (plain loops, slow, "
           "for tests)"),
    CHOICE("augment", augment, RUN_AUGMENT_CHOICES,
           "who finishes views: host, or device (crop and resize on the host, rounded to 8 bits; "
           "the rest where the networks are)"),
    CHOICE("preset", preset, RUN_PRESET_CHOICES,
           "the reference's epochs, base_learning_rate, weight_decay and tau_base; other keys win "
           "over it"),
    CHOICE("encoder", model.encoder, MODEL_ENCODER_CHOICES,
           "the network whose features are learnt"),
    MODEL_FIELD(width, SETTINGS_FLOAT, 0.0625, 4,
                "multiplies the encoder's channels (1 = as published)"),
    CHOICE("stem", model.stem, MODEL_STEM_CHOICES,
           "first layers: imagenet (7x7 stride 2, then pool) or small (3x3, for images of about 32 "
           "px)"),
    CHOICE("padding", model.padding, MODEL_PADDING_CHOICES,
           "how convolutions pad: same (the reference) or torch (symmetric)"),
    CHOICE("shortcut", model.shortcut, MODEL_SHORTCUT_CHOICES,
           "blocks whose shortcut is a convolution: the first of each group (the reference), or "
           "torch (only where stride or channels change, as in torchvision)"),
    CHOICE("last_gamma_zero", model.last_gamma_zero, MODEL_LAST_GAMMA_CHOICES,
           "start the last normalisation scale of v1 blocks at 0: false (never), true (in "
           "bottlenecks, the reference), all (in basic blocks too)"),
    CHOICE("norm", model.norm, MODEL_NORM_CHOICES,
           "what features are normalised over: batch (the reference), group (each image by itself, "
           "norm_groups runs of channels), layer (one run), or affine (nothing; scale and offset "
           "start as the "
           "first batch would have it)"),
    CHOICE("head_norm", model.head_norm, MODEL_HEAD_NORM_CHOICES,
           "norm of projector and predictor; same = as the encoder"),
    MODEL_FIELD(norm_groups, SETTINGS_INT, 1, 65536,
                "runs of channels of norm group, or the next smaller number that divides them"),
    MODEL_FIELD(weight_standardisation, SETTINGS_BOOL, 0, 0,
                "weights of convolutions and heads with mean 0 and variance 1 (goes with norm "
                "group)"),
    MODEL_FIELD(v2, SETTINGS_BOOL, 0, 0, "pre-activation blocks (ResNet v2)"),
    MODEL_FIELD(projector_hidden, SETTINGS_INT, 1, 65536,
                "hidden units of the projector (paper: 4096)"),
    MODEL_FIELD(projector_output, SETTINGS_INT, 2, 65536, "size of the projection (paper: 256)"),
    MODEL_FIELD(predictor_hidden, SETTINGS_INT, 1, 65536,
                "hidden units of the predictor (paper: 4096)"),
    MODEL_STRING(projector_layers,
                 "other depths: sizes of all hidden layers such as 4096,2048, or none; empty = one "
                 "of projector_hidden"),
    MODEL_STRING(predictor_layers,
                 "other depths: sizes of all hidden layers such as 4096,2048, or none; empty = one "
                 "of predictor_hidden"),
    STRING(
        init,
        "file of weights to begin from: a checkpoint, an export, or a ResNet under torchvision's "
        "names; empty = drawn by the seed"),
    FIELD(seed, SETTINGS_INT, 0, 9007199254740992.0,
          "of the initialisation, the order of the images and their views"),
    FIELD(batch, SETTINGS_INT, 2, 65536, "images per step; each gives two views (paper: 4096)"),
    FIELD(accumulate, SETTINGS_INT, 1, 65536,
          "cut each batch into so many micro-batches and average their gradients for one step; "
          "normalisation sees a micro-batch at a time"),
    FIELD(recompute, SETTINGS_BOOL, 0, 0,
          "compute what lies inside residual blocks twice instead of keeping it: same bits, less "
          "memory, more time"),
    FIELD(epochs, SETTINGS_INT, 1, 1000000, "passes over the data that the schedules span"),
    FIELD(warmup_epochs, SETTINGS_FLOAT, 0, 1000000,
          "epochs over which the learning rate rises from 0 (reference: 10)"),
    FIELD(base_learning_rate, SETTINGS_FLOAT, 0, 1000,
          "at batch 256; the rate used is base_learning_rate * batch / 256"),
    CHOICE("optimizer", optimizer, OPTIMIZER_CHOICES,
           "lars (the reference's), the LARS of solo-learn or suncet, sgd, adamw"),
    FIELD(weight_decay, SETTINGS_FLOAT, 0, 1, "not for biases and normalisation parameters"),
    FIELD(momentum, SETTINGS_FLOAT, 0, 0.9999, "of LARS (reference: 0.9) and sgd"),
    FIELD(nesterov, SETTINGS_BOOL, 0, 0, "Nesterov momentum: sgd, lars-solo-learn, lars-suncet"),
    FIELD(trust, SETTINGS_FLOAT, 0, 1,
          "LARS trust coefficient eta (reference: 0.001, solo-learn: 0.02)"),
    FIELD(lars_clip, SETTINGS_BOOL, 0, 0, "lars-solo-learn: no tensor learns faster than by sgd"),
    FIELD(beta1, SETTINGS_FLOAT, 0, 0.9999, "adamw: decay of the mean gradient"),
    FIELD(beta2, SETTINGS_FLOAT, 0, 0.99999, "adamw: decay of the mean squared gradient"),
    FIELD(epsilon, SETTINGS_FLOAT, 1e-30, 1, "adamw: added to the root of the mean square"),
    FIELD(encoder_rate, SETTINGS_FLOAT, 0, 1000, "multiplies the encoder's learning rate"),
    FIELD(projector_rate, SETTINGS_FLOAT, 0, 1000, "multiplies the projector's learning rate"),
    FIELD(predictor_rate, SETTINGS_FLOAT, 0, 1000, "multiplies the predictor's learning rate"),
    FIELD(classifier_rate, SETTINGS_FLOAT, 0, 1000, "multiplies the classifier's learning rate"),
    CHOICE("scaling", scaling, RUN_SCALING_CHOICES,
           "linear: the learning rate follows the batch; moving-average: tau too (tau to the power "
           "batch / tuned_batch; adamw's rate by the root)"),
    FIELD(tuned_batch, SETTINGS_INT, 1, 1000000,
          "scaling=moving-average: batch for which the rate and tau_base were chosen (paper: "
          "4096)"),
    FIELD(tau_base, SETTINGS_FLOAT, 0, 1,
          "decay of the target's moving average at the start; rises to 1"),
    CHOICE("tau_schedule", tau_schedule, RUN_TAU_SCHEDULE_CHOICES,
           "cosine: tau rises from tau_base to 1 (the reference); constant: it stays"),
    FIELD(
        classifier, SETTINGS_BOOL, 0, 0,
        "train a linear classifier beside it when the data has labels (never moves the features)"),
    CHOICE("precision", precision, DEVICE_PRECISION_CHOICES,
           "of images and convolutions: f32, bf16 (where the processor multiplies it), or auto "
           "(bf16 where it can; the run then stays with what it found)"),
    FIELD(threads, SETTINGS_INT, 0, 1024,
          "of the device; 0 = one per core (the sums depend on it)"),
    FIELD(loader_threads, SETTINGS_INT, 0, 1024, "that decode and augment; 0 = one per core"),
    FIELD(checkpoint_seconds, SETTINGS_INT, 0, 31536000,
          "time between checkpoints; 0 = only at epoch ends and the end"),
    FIELD(keep_checkpoints, SETTINGS_INT, 2, 1000000, "newest checkpoints kept"),
    FIELD(log_steps, SETTINGS_INT, 1, 1000000000, "steps per line of metrics.jsonl"),
    FIELD(max_steps, SETTINGS_INT, 0, 9007199254740992.0,
          "stop after so many steps, schedules unchanged; 0 = run all epochs"),
    CHOICE("bad_records", bad_records, RUN_POLICY_CHOICES,
           "a damaged image ends the run (fatal) or is replaced and counted (skip)"),
    STRING(probe, "labelled dataset, apart from the training data, on which nearest neighbours are "
                  "scored during training; empty = none"),
    STRING(probe_test, "labelled dataset whose images are classified by those of probe; empty = "
                       "probe is divided"),
    FIELD(probe_every, SETTINGS_INT, 1, 1000000, "epochs from one probe to the next"),
    FIELD(probe_bank, SETTINGS_INT, 1, 100000000, "images of the probe that vote, at most"),
    FIELD(probe_images, SETTINGS_INT, 1, 100000000, "images that are classified, at most"),
    FIELD(probe_rank, SETTINGS_BOOL, 0, 0,
          "RankMe of the voting images' features and projections with each probe"),
};

// epochs, base learning rate, weight decay, tau: google-deepmind/deepmind-research
// byol/configs/byol.py
static const struct preset {
    int64_t epochs;
    double base_learning_rate, weight_decay, tau_base;
} presets[] = {
    [RUN_PRESET_40] = {40, 0.45, 1e-6, 0.97},
    [RUN_PRESET_100] = {100, 0.45, 1e-6, 0.99},
    [RUN_PRESET_300] = {300, 0.3, 1e-6, 0.99},
    [RUN_PRESET_1000] = {1000, 0.2, 1.5e-6, 0.996},
};

static void apply_preset(struct run_config *config, int preset)
{
    config->preset = preset;
    if (preset != RUN_PRESET_NONE) {
        config->epochs = presets[preset].epochs;
        config->base_learning_rate = presets[preset].base_learning_rate;
        config->weight_decay = presets[preset].weight_decay;
        config->tau_base = presets[preset].tau_base;
    }
}

void run_config_init(struct run_config *config)
{
    *config = (struct run_config){
        .method = "byol",
        .device = "cpu",
        .batch = 256,
        .accumulate = 1,
        .warmup_epochs = 10,
        .momentum = 0.9,
        .trust = 1e-3,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .epsilon = 1e-8,
        .encoder_rate = 1,
        .projector_rate = 1,
        .predictor_rate = 1,
        .classifier_rate = 1,
        .tuned_batch = 4096,
        .classifier = true,
        .precision = DEVICE_AUTO,
        .checkpoint_seconds = 600,
        .keep_checkpoints = 3,
        .log_steps = 10,
        .bad_records = LOADER_FATAL,
        .probe_every = 1,
        .probe_bank = 10000,
        .probe_images = 2000,
        .probe_rank = true,
    };
    model_config_init(&config->model);
    recipe_builtin("byol", &config->recipe, NULL);
    config->model.size = config->recipe.size;
    apply_preset(config, RUN_PRESET_1000);
    config->preset = RUN_PRESET_NONE;
}

size_t run_config_sections(struct run_config *config, struct settings_section *out)
{
    out[0] =
        (struct settings_section){"", run_fields, sizeof run_fields / sizeof run_fields[0], config};
    out[1] = recipe_section("views.", &config->recipe);
    return 2;
}

// `preset` and `views.base` decide what the other keys start from, so a first pass over file or
// assignments looks for these two alone, in a copy where neither is set.
static struct run_config look_ahead(const struct run_config *config)
{
    struct run_config ahead = *config;
    ahead.preset = RUN_PRESET_NONE;
    ahead.recipe.name[0] = '\0';
    return ahead;
}

static enum status apply_ahead(struct run_config *config, const struct run_config *ahead,
                               struct error *error)
{
    if (ahead->preset != RUN_PRESET_NONE) {
        apply_preset(config, ahead->preset);
    }
    return ahead->recipe.name[0] ? recipe_builtin(ahead->recipe.name, &config->recipe, error)
                                 : STATUS_OK;
}

static enum status apply_text(struct run_config *config, const char *name, const char *text,
                              size_t len, struct error *error)
{
    struct run_config ahead = look_ahead(config);
    struct settings_section sections[2];
    size_t count = run_config_sections(&ahead, sections);
    enum status status = settings_load_text(name, text, len, sections, count, error);
    if (status == STATUS_OK) {
        status = apply_ahead(config, &ahead, error);
    }
    if (status == STATUS_OK) {
        count = run_config_sections(config, sections);
        status = settings_load_text(name, text, len, sections, count, error);
    }
    return status;
}

static enum status apply_file(struct run_config *config, const char *path, struct error *error)
{
    uint8_t *text = NULL;
    size_t len = 0;
    enum status status = file_read_all(path, LIMIT_SETTINGS_BYTES, &text, &len, error);
    if (status == STATUS_OK) {
        status = apply_text(config, path, (const char *)text, len, error);
    }
    free(text);
    return status;
}

static enum status set_each(struct run_config *config, const char *const *assignments, size_t count,
                            struct error *error)
{
    struct settings_section sections[2];
    size_t section_count = run_config_sections(config, sections);
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < count; i++) {
        status = settings_set(assignments[i], sections, section_count, error);
    }
    return status;
}

static enum status apply_assignments(struct run_config *config, const char *const *assignments,
                                     size_t count, struct error *error)
{
    struct run_config ahead = look_ahead(config);
    enum status status = set_each(&ahead, assignments, count, error);
    if (status == STATUS_OK) {
        status = apply_ahead(config, &ahead, error);
    }
    return status == STATUS_OK ? set_each(config, assignments, count, error) : status;
}

enum status run_config_resolve(struct run_config *config, const char *recipe_file,
                               const char *const *assignments, size_t assignment_count,
                               struct error *error)
{
    run_config_init(config);
    enum status status = STATUS_OK;
    if (recipe_file) {
        status = apply_file(config, recipe_file, error);
    }
    if (status == STATUS_OK) {
        status = apply_assignments(config, assignments, assignment_count, error);
    }
    config->model.size = config->recipe.size;
    return status != STATUS_OK ? status : run_config_validate(config, error);
}

enum status run_config_parse(struct run_config *config, const char *name, const char *text,
                             struct error *error)
{
    run_config_init(config);
    config->precision = DEVICE_F32; // where an older program did not say
    enum status status = apply_text(config, name, text, strlen(text), error);
    config->model.size = config->recipe.size;
    return status != STATUS_OK ? status : run_config_validate(config, error);
}

enum status run_config_change(struct run_config *config, const char *const *assignments,
                              size_t assignment_count, struct error *error)
{
    enum status status = apply_assignments(config, assignments, assignment_count, error);
    config->model.size = config->recipe.size;
    return status != STATUS_OK ? status : run_config_validate(config, error);
}

enum status run_config_print(const struct run_config *config, bool with_help, char **text,
                             struct error *error)
{
    struct run_config copy = *config; // sections point to what they may also set
    struct settings_section sections[2];
    size_t count = run_config_sections(&copy, sections);
    size_t len = 0;
    *text = NULL;
    FILE *stream = open_memstream(text, &len);
    if (stream == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to print the config");
    }
    enum status status = settings_print(stream, sections, count, with_help, error);
    if (fclose(stream) != 0 && status == STATUS_OK) {
        status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                           "no memory to print the config");
    }
    if (status != STATUS_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

// Keys that may change between a run and its resumption: how it runs, not what is learnt.
static bool may_change(const char *key, size_t len)
{
    static const char *const keys[] = {"device",
                                       "precision",
                                       "preset",
                                       "threads",
                                       "loader_threads",
                                       "log_steps",
                                       "checkpoint_seconds",
                                       "keep_checkpoints",
                                       "max_steps",
                                       "bad_records",
                                       "recompute",
                                       "probe",
                                       "probe_test",
                                       "probe_every",
                                       "probe_bank",
                                       "probe_images",
                                       "probe_rank"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strlen(keys[i]) == len && memcmp(keys[i], key, len) == 0) {
            return true;
        }
    }
    return false;
}

// Both texts come from run_config_print, so their lines stand in the same order: "key: value".
static enum status compare_lines(const char *stored, const char *wanted, struct error *error)
{
    while (*stored && *wanted) {
        size_t stored_len = strcspn(stored, "\n"), wanted_len = strcspn(wanted, "\n");
        size_t key_len = strcspn(stored, ":");
        bool same = stored_len == wanted_len && memcmp(stored, wanted, stored_len) == 0;
        if (!same && !may_change(stored, key_len)) {
            return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                             "the run was started with '%.*s', not '%.*s': what is learnt cannot "
                             "change on resume; start a new run for that",
                             (int)stored_len, stored, (int)wanted_len, wanted);
        }
        stored += stored_len + (stored[stored_len] == '\n');
        wanted += wanted_len + (wanted[wanted_len] == '\n');
    }
    return STATUS_OK;
}

enum status run_config_compare(const struct run_config *stored, const struct run_config *wanted,
                               struct error *error)
{
    char *stored_text = NULL, *wanted_text = NULL;
    enum status status = run_config_print(stored, false, &stored_text, error);
    if (status == STATUS_OK) {
        status = run_config_print(wanted, false, &wanted_text, error);
    }
    if (status == STATUS_OK) {
        status = compare_lines(stored_text, wanted_text, error);
    }
    free(stored_text);
    free(wanted_text);
    return status;
}

static const struct method_ops *find_method(const char *name)
{
    for (const struct method_ops *const *ops = method_table; *ops; ops++) {
        if (strcmp((*ops)->name, name) == 0) {
            return *ops;
        }
    }
    return NULL; // method_open names the nearest
}

struct method_config run_config_method(const struct run_config *config)
{
    return (struct method_config){
        .model = config->model,
        .batch = (uint32_t)config->batch,
        .accumulate = (uint32_t)config->accumulate,
        .bytes = config->augment == RUN_AUGMENT_DEVICE,
        .recompute = config->recompute,
        .seed = (uint64_t)config->seed,
        .weight_decay = config->weight_decay,
        .momentum = config->momentum,
        .trust = config->trust,
        .optimizer = config->optimizer,
        .nesterov = config->nesterov,
        .lars_clip = config->lars_clip,
        .beta1 = config->beta1,
        .beta2 = config->beta2,
        .epsilon = config->epsilon,
        .rates = {{"resnet", config->encoder_rate},
                  {"projector", config->projector_rate},
                  {"predictor", config->predictor_rate},
                  {"classifier", config->classifier_rate}},
    };
}

struct method_step run_config_scaled(const struct run_config *config, float learning_rate,
                                     float tau)
{
    if (config->scaling == RUN_SCALING_LINEAR) {
        return (struct method_step){.learning_rate = learning_rate, .tau = tau};
    }
    double kappa = (double)config->batch / (double)config->tuned_batch;
    double root = config->optimizer == OPTIMIZER_ADAMW ? sqrt(kappa) : 1;
    return (struct method_step){.learning_rate = (float)((double)learning_rate / root),
                                .tau = (float)pow((double)tau, kappa)};
}

// The rates of the LARS presets are far out of Adam's range.
#define ADAMW_RATE_MAX 0.05

static enum status validate_optimizer(const struct run_config *config, struct error *error)
{
    bool prepared = config->optimizer != OPTIMIZER_LARS && config->optimizer != OPTIMIZER_ADAMW;
    if (config->nesterov && !prepared) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "nesterov is for optimizer sgd, lars-solo-learn and lars-suncet");
    }
    if (config->lars_clip && config->optimizer != OPTIMIZER_LARS_SOLO_LEARN) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "lars_clip is for optimizer lars-solo-learn");
    }
    if (config->optimizer == OPTIMIZER_ADAMW && config->base_learning_rate > ADAMW_RATE_MAX) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "base_learning_rate %g suits LARS and is far too high for adamw: set one "
                         "near 0.001 (at most %g)",
                         config->base_learning_rate, ADAMW_RATE_MAX);
    }
    return STATUS_OK;
}

static enum status validate_model(const struct model_config *model, struct error *error)
{
    struct error mistake;
    if (model_config_check(model, &mistake) == STATUS_OK) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE, "%s", mistake.reason);
}

enum status run_config_validate(const struct run_config *config, struct error *error)
{
    enum status status = recipe_validate(&config->recipe, error);
    if (status == STATUS_OK) {
        status = validate_model(&config->model, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    const struct method_ops *method = find_method(config->method);
    if (method && (int64_t)method->views != config->recipe.views) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "method '%s' needs %u views per image, the recipe '%s' has %lld: choose "
                         "views.base byol or small",
                         config->method, method->views, config->recipe.name,
                         (long long)config->recipe.views);
    }
    // Batch statistics of a single pair would make every projection the same.
    if (config->batch % config->accumulate != 0 || config->batch < 2 * config->accumulate) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "accumulate %lld does not cut batch %lld into equal micro-batches of at "
                         "least 2 images: choose a divisor of batch up to batch / 2",
                         (long long)config->accumulate, (long long)config->batch);
    }
    if (config->warmup_epochs > (double)config->epochs) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "warmup_epochs %g is longer than epochs %lld: set warmup_epochs as well",
                         config->warmup_epochs, (long long)config->epochs);
    }
    if (config->probe[0] == '\0' && config->probe_test[0] != '\0') {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "probe_test goes with a probe, whose images vote: set probe as well");
    }
    return validate_optimizer(config, error);
}
