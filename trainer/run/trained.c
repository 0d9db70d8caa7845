// Opening trained networks, whoever wrote them.
#include "trainer/run/trained.h"

#include <stdio.h>
#include <string.h>

#include "trainer/run/checkpoint.h"

#define MOST_ASSIGNMENTS 64

// --- what it is ------------------------------------------------------------------------------

static bool has_key(const struct safetensors *file, const char *key, const char *value)
{
    const char *text = safetensors_metadata(file, key);
    return text != NULL && (value == NULL || strcmp(text, value) == 0);
}

static enum status identify(struct trained *trained, const struct trained_request *request,
                            struct error *error)
{
    struct checkpoint_state state;
    if (has_key(trained->file, "format", CHECKPOINT_FORMAT)) {
        safetensors_close(&trained->file);
        trained->kind = TRAINED_CHECKPOINT;
        return checkpoint_open(&trained->file, request->path, &state, error);
    }
    trained->kind =
        has_key(trained->file, TRAINED_EXPORT_KEY, NULL) ? TRAINED_EXPORT : TRAINED_OTHERS;
    if (trained->kind == TRAINED_EXPORT &&
        !has_key(trained->file, TRAINED_EXPORT_KEY, TRAINED_EXPORT_VERSION)) {
        return error_set(error, STATUS_VERSION, request->path, NOWHERE, NOWHERE,
                         "weights of version %s; this program reads "
                         "version " TRAINED_EXPORT_VERSION,
                         safetensors_metadata(trained->file, TRAINED_EXPORT_KEY));
    }
    return STATUS_OK;
}

static void read_provenance(struct trained *trained, const struct trained_request *request)
{
    const char *stored = safetensors_metadata(trained->file, "network");
    const char *branch = request->branch                             ? request->branch
                         : trained->kind == TRAINED_EXPORT && stored ? stored
                                                                     : "online";
    snprintf(trained->branch, sizeof trained->branch, "%s", branch);
    if (trained->kind != TRAINED_OTHERS) {
        trained->config_text = safetensors_metadata(trained->file, "config");
        trained->step = safetensors_metadata(trained->file, "step");
        trained->epoch = safetensors_metadata(trained->file, "epoch");
        trained->dataset = safetensors_metadata(trained->file, "dataset");
    }
}

static enum status resolve_others(struct run_config *config, const struct trained_request *request,
                                  struct error *error)
{
    const char *assignments[MOST_ASSIGNMENTS + 2] = {"padding=torch", "shortcut=torch"};
    size_t count = request->assignment_count;
    if (count > MOST_ASSIGNMENTS) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "at most %d settings describe a network", MOST_ASSIGNMENTS);
    }
    for (size_t i = 0; i < count; i++) {
        assignments[2 + i] = request->assignments[i];
    }
    return run_config_resolve(config, NULL, assignments, 2 + count, error);
}

static enum status resolve(struct trained *trained, const struct trained_request *request,
                           struct error *error)
{
    if (trained->kind == TRAINED_CHECKPOINT && request->assignment_count > 0) {
        return error_set(error, STATUS_CONFIG, request->path, NOWHERE, NOWHERE,
                         "a checkpoint knows its network: leave '%s' out", request->assignments[0]);
    }
    if (request->model != NULL) {
        run_config_init(&trained->config);
        trained->config.model = *request->model;
        return STATUS_OK;
    }
    if (trained->config_text == NULL) {
        return resolve_others(&trained->config, request, error);
    }
    enum status status =
        run_config_parse(&trained->config, request->path, trained->config_text, error);
    return status == STATUS_OK && request->assignment_count > 0
               ? run_config_change(&trained->config, request->assignments,
                                   request->assignment_count, error)
               : status;
}

// --- the network -----------------------------------------------------------------------------

// A tensor of the network's file by its name in either kind.
static const struct tensor *find(const struct trained *trained, enum weights_names names,
                                 const char *theirs, const char *ours)
{
    char name[64];
    snprintf(name, sizeof name, "%s/%s", trained->branch, ours);
    return safetensors_find(trained->file, names == WEIGHTS_BYOL ? name : theirs);
}

// Outputs of the classifier in the file: datasets decide about them, not settings.
static int64_t count_classes(const struct trained *trained, enum weights_names names)
{
    const struct tensor *bias = find(trained, names, "fc.bias", "classifier/b");
    bool fits = bias != NULL && bias->dims == 1 && bias->shape[0] <= INT32_MAX;
    return fits ? (int64_t)bias->shape[0] : 0;
}

static void choose_parts(struct trained *trained, const struct trained_request *request,
                         enum weights_names names)
{
    struct model_config *model = &trained->model;
    *model = trained->config.model;
    bool predictor = request->predictor &&
                     find(trained, names, "predictor.0.weight", "predictor/linear/w") != NULL;
    bool projector = (request->projector || predictor) &&
                     find(trained, names, "projector.0.weight", "projector/linear/w") != NULL;
    model->projector_hidden = projector ? model->projector_hidden : 0;
    model->predictor_hidden = projector && predictor ? model->predictor_hidden : 0;
    model->classes = request->classifier ? count_classes(trained, names) : 0;
}

static enum status load(struct trained *trained, const struct trained_request *request,
                        struct error *error)
{
    enum weights_names names = weights_names_of(trained->file);
    enum weights_rest rest =
        trained->kind == TRAINED_CHECKPOINT ? WEIGHTS_REST_IGNORED : WEIGHTS_REST_REFUSED;
    choose_parts(trained, request, names);
    enum status status = weights_open(&trained->weights, &trained->model, error);
    return status == STATUS_OK ? weights_read(&trained->weights, trained->file, request->path,
                                              names, trained->branch, rest, trained->left_out,
                                              sizeof trained->left_out, error)
                               : status;
}

enum status trained_open(struct trained *trained, const struct trained_request *request,
                         struct error *error)
{
    *trained = (struct trained){.kind = TRAINED_OTHERS};
    enum status status = safetensors_open(&trained->file, request->path, error);
    if (status == STATUS_OK) {
        status = identify(trained, request, error);
    }
    if (status == STATUS_OK) {
        read_provenance(trained, request);
        status = resolve(trained, request, error);
    }
    if (status == STATUS_OK && request->size > 0) {
        trained->config.model.size = trained->config.recipe.size = request->size;
    }
    if (status == STATUS_OK) {
        status = load(trained, request, error);
    }
    if (status != STATUS_OK) {
        trained_close(trained);
    }
    return status;
}

void trained_close(struct trained *trained)
{
    weights_close(&trained->weights);
    safetensors_close(&trained->file);
}
