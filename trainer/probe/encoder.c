// Opening a checkpoint's encoder for evaluation, and running it.
#include "trainer/probe/encoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/net/data_init.h"
#include "trainer/run/trained.h"

#define STATISTICS_BATCHES 32 // averages with decay 0.9 forget all but the last few dozen

static enum status device_failed(enum status status, struct error *error)
{
    return status == STATUS_OK ? STATUS_OK
                               : error_set(error, status, NULL, NOWHERE, NOWHERE,
                                           "the device failed to copy memory");
}

// --- opening ---------------------------------------------------------------------------------

static enum status to_device(struct encoder *encoder, float **out, const float *host,
                             uint64_t count, struct error *error)
{
    const struct device_ops *ops = encoder->device->ops;
    enum status status = ops->allocate(encoder->device, (void **)out, count * sizeof *host, error);
    return status != STATUS_OK
               ? status
               : device_failed(ops->copy_in(encoder->device, *out, host, count * sizeof *host),
                               error);
}

// The network of the file as it is, or drawn again.
static enum status load_weights(struct encoder *encoder, struct trained *trained, bool untrained,
                                struct error *error)
{
    struct weights *weights = &trained->weights;
    uint64_t param_count = graph_param_floats(weights->graph);
    uint64_t state_count = graph_state_floats(weights->graph);
    if (untrained) {
        model_initialise(weights->graph, (uint64_t)encoder->config.seed, "online", weights->params);
        memset(weights->state, 0, state_count * sizeof *weights->state);
        encoder->needs_statistics = true;
    }
    enum status status = to_device(encoder, &encoder->params, weights->params, param_count, error);
    if (status == STATUS_OK) {
        status = to_device(encoder, &encoder->state, weights->state, state_count, error);
    }
    encoder->graph = weights->graph;
    weights->graph = NULL;
    return status;
}

static enum status load(struct encoder *encoder, const struct trained_request *request,
                        const char *device, int threads, bool untrained, struct error *error)
{
    struct trained trained;
    enum status status = trained_open(&trained, request, error);
    if (status != STATUS_OK) {
        return status;
    }
    encoder->config = trained.config;
    encoder->config.model = trained.model;
    const struct graph_output *output = graph_output_find(trained.weights.graph, "embedding");
    encoder->width = graph_value_at(trained.weights.graph, output->value)->c;
    status = device_open(&encoder->device, device ? device : encoder->config.device, threads,
                         DEVICE_F32, error);
    if (status == STATUS_OK) {
        status = load_weights(encoder, &trained, untrained, error);
    }
    trained_close(&trained);
    return status;
}

enum status encoder_open_weights(struct encoder **out, const char *path,
                                 const char *const *assignments, size_t assignment_count,
                                 const char *device, int threads, bool untrained,
                                 struct error *error)
{
    const struct trained_request request = {.path = path,
                                            .assignments = assignments,
                                            .assignment_count = assignment_count,
                                            .projector = true};
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for an encoder");
    }
    enum status status = load(*out, &request, device, threads, untrained, error);
    if (status != STATUS_OK) {
        encoder_close(out);
    }
    return status;
}

enum status encoder_open(struct encoder **out, const char *checkpoint, const char *device,
                         int threads, bool untrained, struct error *error)
{
    return encoder_open_weights(out, checkpoint, NULL, 0, device, threads, untrained, error);
}

static void drop_plan(struct encoder *encoder)
{
    network_close(&encoder->network);
    if (encoder->input) {
        encoder->device->ops->release(encoder->device, encoder->input);
    }
    encoder->input = NULL;
}

void encoder_close(struct encoder **encoder)
{
    if (*encoder == NULL) {
        return;
    }
    drop_plan(*encoder);
    if ((*encoder)->params) {
        (*encoder)->device->ops->release((*encoder)->device, (*encoder)->params);
    }
    if ((*encoder)->state) {
        (*encoder)->device->ops->release((*encoder)->device, (*encoder)->state);
    }
    graph_close(&(*encoder)->graph);
    device_close(&(*encoder)->device);
    free(*encoder);
    *encoder = NULL;
}

bool encoder_has_projector(const struct encoder *encoder)
{
    return graph_output_find(encoder->graph, "projection") != NULL;
}

enum status encoder_with_projections(struct encoder *encoder, struct error *error)
{
    const struct graph_output *output = graph_output_find(encoder->graph, "projection");
    if (output == NULL) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "these weights come without a projector");
    }
    encoder->projection_width = graph_value_at(encoder->graph, output->value)->c;
    drop_plan(encoder);
    return STATUS_OK;
}

uint32_t encoder_size(const struct encoder *encoder)
{
    return (uint32_t)encoder->config.model.size;
}

// --- running ---------------------------------------------------------------------------------

static size_t image_floats(const struct encoder *encoder)
{
    return (size_t)encoder_size(encoder) * encoder_size(encoder) * 3;
}

enum status encoder_plan(struct encoder *encoder, uint32_t images, struct error *error)
{
    if (encoder->network && encoder->images == images) {
        return STATUS_OK;
    }
    drop_plan(encoder);
    const char *projection = encoder->projection_width > 0 ? "projection" : NULL;
    const struct network_config config = {
        .images = images, .groups = 1, .outputs = {"embedding", projection, NULL}};
    enum status status =
        network_open(&encoder->network, encoder->graph, encoder->device, &config, error);
    if (status == STATUS_OK) {
        status =
            encoder->device->ops->allocate(encoder->device, (void **)&encoder->input,
                                           images * image_floats(encoder) * sizeof(float), error);
    }
    encoder->images = images;
    return status;
}

static enum status forward(struct encoder *encoder, const float *images, uint32_t count,
                           enum op_mode mode, struct error *error)
{
    size_t bytes = count * image_floats(encoder) * sizeof(float);
    enum status status = device_failed(
        encoder->device->ops->copy_in(encoder->device, encoder->input, images, bytes), error);
    return status == STATUS_OK ? network_forward(encoder->network, encoder->params, encoder->state,
                                                 encoder->input, mode, error)
                               : status;
}

static enum status fetch(struct encoder *encoder, const char *output, float *values, uint32_t width,
                         uint32_t count, struct error *error)
{
    const struct device_ops *ops = encoder->device->ops;
    return device_failed(ops->copy_out(encoder->device, values,
                                       network_output(encoder->network, output),
                                       (size_t)count * width * sizeof *values),
                         error);
}

// A short batch runs at full size: in evaluation mode an image's embedding does not depend on its
// neighbours, so what is left over in the rest of the input is harmless.
enum status encoder_embed(struct encoder *encoder, float *embeddings, const float *images,
                          uint32_t count, struct error *error)
{
    enum status status = forward(encoder, images, count, OP_EVAL, error);
    return status == STATUS_OK
               ? fetch(encoder, "embedding", embeddings, encoder->width, count, error)
               : status;
}

enum status encoder_project(struct encoder *encoder, float *projections, uint32_t count,
                            struct error *error)
{
    return fetch(encoder, "projection", projections, encoder->projection_width, count, error);
}

enum status encoder_recipe(const struct encoder *encoder, const char *name, struct recipe *recipe,
                           struct error *error)
{
    enum status status = recipe_builtin(name, recipe, error);
    if (status != STATUS_OK) {
        return status;
    }
    recipe->size = encoder->config.model.size;
    if (encoder->config.model.stem == MODEL_STEM_SMALL &&
        recipe->view[0].crop == RECIPE_CROP_CENTER) {
        recipe->view[0].crop = RECIPE_CROP_WHOLE;
    }
    return STATUS_OK;
}

enum status encoder_loader(struct loader **out, const struct encoder *encoder,
                           const struct dataset *dataset, const struct probe_options *options,
                           struct loader_config *config, struct error *error)
{
    config->workers = (uint32_t)options->loader_threads;
    config->policy = (enum loader_policy)encoder->config.bad_records;
    return loader_open(out, dataset, config, error);
}

// What pre-training did before its first step: without it, an encoder that normalises nothing would
// say nothing.
static enum status start_from_data(struct encoder *encoder, const struct batch *batch,
                                   struct error *error)
{
    const struct model_config *model = &encoder->config.model;
    if (!data_init_needed(model)) {
        return STATUS_OK;
    }
    size_t bytes = batch->count * image_floats(encoder) * sizeof(float);
    enum status status = device_failed(
        encoder->device->ops->copy_in(encoder->device, encoder->input, batch->view[0], bytes),
        error);
    const char *last = model->projector_hidden > 0 ? "projection" : "embedding";
    return status == STATUS_OK ? data_init(encoder->device, model, last, encoder->input,
                                           batch->count, encoder->params, error)
                               : status;
}

enum status encoder_fill_statistics(struct encoder *encoder, const struct dataset *dataset,
                                    const struct probe_options *options, struct error *error)
{
    if (!encoder->needs_statistics) {
        return STATUS_OK;
    }
    struct loader *loader = NULL;
    struct loader_config config;
    loader_config_init(&config);
    uint64_t count = dataset_count(dataset);
    config.batch = count < options->batch ? (uint32_t)count : options->batch;
    config.seed = (uint64_t)encoder->config.seed;
    enum status status = encoder_recipe(encoder, "eval", &config.recipe, error);
    if (status == STATUS_OK) {
        status = encoder_plan(encoder, config.batch, error);
    }
    if (status == STATUS_OK) {
        status = encoder_loader(&loader, encoder, dataset, options, &config, error);
    }
    for (int i = 0; status == STATUS_OK && i < STATISTICS_BATCHES; i++) {
        const struct batch *batch;
        status = loader_next(loader, &batch, error);
        if (status == STATUS_OK && i == 0) {
            status = start_from_data(encoder, batch, error);
        }
        if (status == STATUS_OK) {
            status = forward(encoder, batch->view[0], batch->count, OP_TRAIN, error);
            loader_release(loader, batch);
        }
    }
    loader_close(&loader);
    encoder->needs_statistics = status != STATUS_OK;
    return status;
}
