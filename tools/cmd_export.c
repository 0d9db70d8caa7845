// `byol export`: weights for other programs, as .safetensors under torchvision's names or as ONNX.
#include "formats/crc32c.h"
#include "formats/file.h"
#include "tools/command.h"
#include "tools/json_text.h"
#include "tools/version.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"
#include "trainer/run/trained.h"
#include "trainer/weights/compare.h"
#include "trainer/weights/fit.h"
#include "trainer/weights/onnx.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "Usage: byol export CHECKPOINT|--run DIR -o FILE.safetensors|FILE.onnx [options]\n"
    "\n"
    "Writes the weights of a run for other programs. The encoder comes alone, ready to give "
    "pooled\n"
    "features; heads and classifier on request.\n"
    "\n"
    "  .safetensors  float32 tensors under torchvision's names and in its layouts (conv1.weight,\n"
    "                layer1.0.bn2.running_mean, …): load_state_dict(load_file(FILE), "
    "strict=False)\n"
    "  .onnx         a model of opset 17: input 'images' [N, 3, S, S], RGB scaled to [0, 1], "
    "minus\n"
    "                ImageNet's mean, by its deviation; output 'features' [N, width]\n"
    "\n"
    "A network that torchvision's ResNet would take and compute otherwise is refused with the\n"
    "reason, above all padding=same, the reference's and our default, which pads unevenly where\n"
    "the stride is 2. ONNX files hold any network exactly. For PyTorch, --force writes the file "
    "all\n"
    "the same, and byol_resnet.py (in share/byol) builds the module that computes the same.\n"
    "CHECKPOINT may be weights too: an export, or a ResNet of torchvision's or timm's.\n"
    "\n"
    "Options:\n"
    "  -o, --output FILE    what to write; an existing file is refused\n"
    "  --run DIR            the newest good checkpoint of a run\n"
    "  --network online|target\n"
    "                       online is what 'byol eval' measures (online)\n"
    "  --heads              projector and predictor as well: projector.0.weight, …; in ONNX the\n"
    "                       outputs 'projection' and 'prediction'. Of the target the projector\n"
    "                       alone: nothing ever ran its predictor\n"
    "  --classifier         the classifier that was trained beside: fc.weight, fc.bias; 'logits'\n"
    "  --size N             side of the images to come, where it is not the run's\n"
    "  --names torchvision|byol\n"
    "                       of tensors; byol: as in checkpoints (torchvision)\n"
    "  --force              write what torchvision would compute otherwise\n"
    "  --check              read the file back, build the network from it, and compare features\n"
    "  --set KEY=VALUE      what others' weights are: encoder=resnet18, width=2, …\n"
    "                       (resnet50 padding=torch shortcut=torch, 224 pixels)\n"
    "  --device NAME        of --check (cpu)\n"
    "  --threads N          of --check; 0 = one per core (0)\n"
    "  --json               print the result as JSON\n"
    "\n"
    "Example: a model for onnxruntime\n"
    "  byol export --run run -o encoder.onnx --check\n"
    "Example: a backbone for torchvision, from a run with padding=torch shortcut=torch\n"
    "  byol export --run run -o backbone.safetensors --check\n"
    "Example: another's ResNet as ONNX\n"
    "  byol export resnet18.safetensors --set encoder=resnet18 -o resnet18.onnx\n"
    "\n"
    "Exit codes: 0 success, 1 failure (also when --check finds other features), 2 wrong usage.\n";

#define LARGEST_DIFFERENCE 1e-4 // of features, relative to the largest where that is above 1
#define METADATA_MAX       24

struct request {
    const char *source, *run, *output, *network, *names, *device;
    struct option_list set;
    int64_t size, threads;
    bool heads, classifier, force, check, json;
    bool onnx;
    int names_choice;
};

// What came out.
struct outcome {
    char source[RUN_PATH];
    struct trained trained;
    struct weights_fit fit;
    struct weights_difference difference; // with --check
};

// --- metadata --------------------------------------------------------------------------------

struct metadata {
    struct tensor_metadata entries[METADATA_MAX];
    size_t count;
    char crc[16], size[24], width[32];
};

static void put(struct metadata *metadata, const char *key, const char *value)
{
    if (value != NULL && metadata->count < METADATA_MAX) {
        metadata->entries[metadata->count++] = (struct tensor_metadata){key, value};
    }
}

static const char *const encoders[] = {
    [MODEL_TINY] = "tiny",           [MODEL_RESNET18] = "resnet18",
    [MODEL_RESNET34] = "resnet34",   [MODEL_RESNET50] = "resnet50",
    [MODEL_RESNET101] = "resnet101", [MODEL_RESNET152] = "resnet152",
    [MODEL_RESNET200] = "resnet200",
};

static const char *norm_name(const struct model_config *model)
{
    static const char *const names[] = {"batch", "group", "layer", "affine"};
    return names[model->norm];
}

// What tells the network, for programs that do not read the run's settings.
static void put_model(struct metadata *metadata, const struct model_config *model)
{
    snprintf(metadata->size, sizeof metadata->size, "%" PRId64, model->size);
    snprintf(metadata->width, sizeof metadata->width, "%.9g", model->width);
    put(metadata, "encoder", encoders[model->encoder]);
    put(metadata, "width", metadata->width);
    put(metadata, "stem", model->stem == MODEL_STEM_SMALL ? "small" : "imagenet");
    put(metadata, "padding", model->padding == GRAPH_PADDING_SAME ? "same" : "torch");
    put(metadata, "shortcut", model->shortcut == MODEL_SHORTCUT_FIRST ? "first" : "torch");
    put(metadata, "norm", norm_name(model));
    put(metadata, "v2", model->v2 ? "true" : "false");
    put(metadata, "weight_standardisation", model->weight_standardisation ? "true" : "false");
    put(metadata, "size", metadata->size);
    put(metadata, "input", "RGB in [0, 1], minus mean 0.485 0.456 0.406, by 0.229 0.224 0.225");
}

static void describe(struct metadata *metadata, const struct request *request,
                     const struct outcome *outcome, char *config)
{
    const struct trained *trained = &outcome->trained;
    put(metadata, "format", "pt"); // what readers of PyTorch's weights look for
    put(metadata, TRAINED_EXPORT_KEY, TRAINED_EXPORT_VERSION);
    put(metadata, "program", "byol " BYOL_VERSION);
    put(metadata, "names", request->names_choice == WEIGHTS_BYOL ? "byol" : "torchvision");
    put(metadata, "network", trained->branch);
    put(metadata, "step", trained->step);
    put(metadata, "epoch", trained->epoch);
    put(metadata, "dataset", trained->dataset);
    put(metadata, "torchvision", outcome->fit.fits ? outcome->fit.module : "no");
    put_model(metadata, &trained->model);
    snprintf(metadata->crc, sizeof metadata->crc, "%08x", crc32c(0, config, strlen(config)));
    put(metadata, "config_crc32c", metadata->crc);
    put(metadata, "config", config);
}

// --- work ------------------------------------------------------------------------------------

static enum status find_source(const struct request *request, struct outcome *outcome,
                               struct error *error)
{
    if (request->source != NULL) {
        snprintf(outcome->source, sizeof outcome->source, "%s", request->source);
        return STATUS_OK;
    }
    char warning[1024];
    enum status status = checkpoint_latest(request->run, outcome->source, sizeof outcome->source,
                                           warning, sizeof warning, error);
    if (status == STATUS_OK && warning[0]) {
        fprintf(stderr, "byol export: WARNING: passed over damaged checkpoints: %s\n", warning);
    }
    return status;
}

static enum status need_output(const struct request *request, const struct outcome *outcome,
                               const char *output, const char *what, struct error *error)
{
    return graph_output_find(outcome->trained.weights.graph, output) != NULL
               ? STATUS_OK
               : error_set(error, STATUS_NOT_FOUND, outcome->source, NOWHERE, NOWHERE,
                           "holds no %s (%s)", what,
                           request->classifier ? "it was trained without labels?"
                                               : "weights of an encoder alone?");
}

// The target's predictor never runs, so its normalisation has no statistics.
static bool is_target(const struct request *request)
{
    return request->network != NULL && strcmp(request->network, "target") == 0;
}

static enum status open_source(const struct request *request, struct outcome *outcome,
                               struct error *error)
{
    const struct trained_request wanted = {.path = outcome->source,
                                           .branch = request->network,
                                           .assignments = request->set.item,
                                           .assignment_count = request->set.count,
                                           .size = request->size,
                                           .projector = request->heads,
                                           .predictor = request->heads && !is_target(request),
                                           .classifier = request->classifier};
    enum status status = trained_open(&outcome->trained, &wanted, error);
    if (status == STATUS_OK && request->heads) {
        status = need_output(request, outcome, "projection", "projector", error);
    }
    if (status == STATUS_OK && request->classifier) {
        status = need_output(request, outcome, "logits", "classifier", error);
    }
    return status;
}

static enum status check_fit(const struct request *request, struct outcome *outcome,
                             struct error *error)
{
    weights_fit(&outcome->fit, &outcome->trained.model, outcome->trained.weights.graph);
    if (outcome->fit.fits || request->onnx || request->force ||
        request->names_choice == WEIGHTS_BYOL) {
        return STATUS_OK;
    }
    return error_set(
        error, STATUS_UNSUPPORTED, outcome->source, NOWHERE, NOWHERE,
        "torchvision's ResNet is not this network: %s. Write .onnx, or add --force and "
        "load it with byol_resnet.py",
        outcome->fit.reason);
}

static enum status write_file(const struct request *request, const struct outcome *outcome,
                              struct error *error)
{
    struct metadata metadata = {.count = 0};
    const struct weights *weights = &outcome->trained.weights;
    char *config;
    enum status status = run_config_print(&outcome->trained.config, false, &config, error);
    if (status != STATUS_OK) {
        return status;
    }
    describe(&metadata, request, outcome, config);
    status =
        request->onnx
            ? onnx_write(request->output, weights, metadata.entries, metadata.count, error)
            : weights_write(request->output, weights, (enum weights_names)request->names_choice,
                            outcome->trained.branch, metadata.entries, metadata.count, error);
    free(config);
    return status;
}

static enum status compare(const struct request *request, struct outcome *outcome,
                           const struct weights *written, struct error *error)
{
    struct weights_difference *difference = &outcome->difference;
    enum status status =
        weights_compare(difference, &outcome->trained.weights, written,
                        request->device ? request->device : outcome->trained.config.device,
                        (int)request->threads, error);
    double scale = difference->features > 1 ? difference->features : 1;
    if (status == STATUS_OK && !(difference->largest <= LARGEST_DIFFERENCE * scale)) {
        status = error_set(error, STATUS_CORRUPT, request->output, NOWHERE, NOWHERE,
                           "gives other features: %g apart, where the largest is %g",
                           difference->largest, difference->features);
    }
    return status;
}

// From the written file alone.
static enum status check_file(const struct request *request, struct outcome *outcome,
                              struct error *error)
{
    struct trained back;
    struct weights model;
    enum status status;
    if (request->onnx) {
        status = onnx_read(&model, request->output, error);
        status = status == STATUS_OK ? compare(request, outcome, &model, error) : status;
        weights_close(&model);
        return status;
    }
    const struct trained_request wanted = {.path = request->output,
                                           .size = outcome->trained.model.size,
                                           .projector = request->heads,
                                           .predictor = request->heads,
                                           .classifier = request->classifier};
    status = trained_open(&back, &wanted, error);
    if (status == STATUS_OK) {
        status = compare(request, outcome, &back.weights, error);
        trained_close(&back);
    }
    return status;
}

static enum status export_weights(const struct request *request, struct outcome *outcome,
                                  struct error *error)
{
    enum status status = find_source(request, outcome, error);
    if (status == STATUS_OK && file_exists(request->output)) {
        status =
            error_set(error, STATUS_EXISTS, request->output, NOWHERE, NOWHERE, "is there already");
    }
    if (status == STATUS_OK) {
        status = open_source(request, outcome, error);
    }
    if (status == STATUS_OK) {
        status = check_fit(request, outcome, error);
    }
    if (status == STATUS_OK) {
        status = write_file(request, outcome, error);
    }
    return status == STATUS_OK && request->check ? check_file(request, outcome, error) : status;
}

// --- what is said ----------------------------------------------------------------------------

static void print_json(const struct request *request, const struct outcome *outcome)
{
    const struct trained *trained = &outcome->trained;
    const struct weights_fit *fit = &outcome->fit;
    json_t *object = json_object();
    json_object_set_new(object, "source", json_text(outcome->source));
    json_object_set_new(object, "output", json_text(request->output));
    json_object_set_new(object, "network", json_string(trained->branch));
    json_object_set_new(object, "encoder", json_string(encoders[trained->model.encoder]));
    json_object_set_new(object, "parameters",
                        json_integer((json_int_t)graph_param_floats(trained->weights.graph)));
    json_object_set_new(object, "size", json_integer(trained->model.size));
    json_object_set_new(object, "torchvision", fit->fits ? json_string(fit->module) : json_null());
    json_object_set_new(object, "torchvision_reason",
                        fit->fits ? json_null() : json_string(fit->reason));
    json_object_set_new(object, "left_out", json_string(trained->left_out));
    if (request->check) {
        json_object_set_new(object, "images", json_integer(WEIGHTS_COMPARE_IMAGES));
        json_object_set_new(object, "largest_difference", json_real(outcome->difference.largest));
        json_object_set_new(object, "largest_feature", json_real(outcome->difference.features));
    }
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

static void print_use(const struct request *request, const struct outcome *outcome)
{
    if (request->onnx) {
        puts("input 'images': RGB in [0, 1], minus (0.485, 0.456, 0.406), by (0.229, 0.224, "
             "0.225); output 'features'");
    } else if (request->names_choice == WEIGHTS_BYOL) {
        puts("tensors are named and laid out as in checkpoints");
    } else if (outcome->fit.fits) {
        printf("torchvision: %s, fc left aside\n", outcome->fit.module);
    } else {
        printf("not for torchvision's own module: %s\n", outcome->fit.reason);
    }
}

static void print_result(const struct request *request, const struct outcome *outcome)
{
    const struct trained *trained = &outcome->trained;
    if (request->json) {
        print_json(request, outcome);
        return;
    }
    printf("%s: %s of %s, %.1f million parameters, images of %" PRId64 " px\n", request->output,
           encoders[trained->model.encoder], outcome->source,
           (double)graph_param_floats(trained->weights.graph) / 1e6, trained->model.size);
    if (trained->left_out[0]) {
        printf("left out: %s\n", trained->left_out);
    }
    print_use(request, outcome);
    if (request->check) {
        printf("check: features of %d images from the file are at most %.2g apart (largest "
               "feature %.3g)\n",
               WEIGHTS_COMPARE_IMAGES, outcome->difference.largest, outcome->difference.features);
    }
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len > end_len && strcmp(text + len - end_len, end) == 0;
}

static int check_request(struct request *request, const struct option_list *operands)
{
    request->source = operands->count > 0 ? operands->item[0] : NULL;
    if (operands->count > 1 || (request->run == NULL) == (request->source == NULL)) {
        return command_misused(&command_export, "wants either a CHECKPOINT or --run DIR");
    }
    if (request->output == NULL) {
        return command_misused(&command_export, "wants -o FILE.safetensors or -o FILE.onnx");
    }
    request->onnx = ends_with(request->output, ".onnx");
    if (!request->onnx && !ends_with(request->output, ".safetensors")) {
        return command_misused(&command_export,
                               "-o wants a name that ends in .safetensors or .onnx, not '%s'",
                               request->output);
    }
    if (request->names != NULL) {
        request->names_choice =
            command_choice(&command_export, "names", request->names, WEIGHTS_NAMES_CHOICES);
    }
    bool chosen =
        request->names_choice >= 0 &&
        (request->network == NULL ||
         command_choice(&command_export, "network", request->network, "online|target") >= 0);
    return chosen ? EXIT_OK : EXIT_USAGE;
}

static int run(int argc, char **argv)
{
    struct request request = {0};
    const struct option options[] = {
        {"output", 'o', OPTION_STRING, &request.output, 0, 0},
        {"run", 0, OPTION_STRING, &request.run, 0, 0},
        {"network", 0, OPTION_STRING, &request.network, 0, 0},
        {"heads", 0, OPTION_FLAG, &request.heads, 0, 0},
        {"classifier", 0, OPTION_FLAG, &request.classifier, 0, 0},
        {"size", 0, OPTION_INT, &request.size, 8, 4096},
        {"names", 0, OPTION_STRING, &request.names, 0, 0},
        {"force", 0, OPTION_FLAG, &request.force, 0, 0},
        {"check", 0, OPTION_FLAG, &request.check, 0, 0},
        {"set", 0, OPTION_LIST, &request.set, 0, 0},
        {"device", 0, OPTION_STRING, &request.device, 0, 0},
        {"threads", 0, OPTION_INT, &request.threads, 0, 1024},
        {"json", 0, OPTION_FLAG, &request.json, 0, 0},
    };
    struct option_list operands;
    struct outcome outcome = {.source = ""};
    struct error error;
    bool done;
    int code = command_options(&command_export, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, &done);
    if (code == EXIT_OK && !done) {
        code = check_request(&request, &operands);
    }
    if (code != EXIT_OK || done) {
        return code;
    }
    if (export_weights(&request, &outcome, &error) == STATUS_OK) {
        print_result(&request, &outcome);
    } else {
        code = command_failed(&command_export, &error, request.json);
    }
    trained_close(&outcome.trained);
    return code;
}

const struct command command_export = {
    .name = "export",
    .summary = "weights for other tools",
    .help = help,
    .run = run,
};
