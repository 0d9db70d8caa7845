// `byol eval linear|knn|quality|features`: how good are the features of a run?
#include "tools/command.h"
#include "tools/eval.h"
#include "tools/eval_export.h"
#include "tools/not_exact.h"
#include "tools/output.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: byol eval linear|knn --run DIR --train DATASET --test DATASET [options]\n"
    "       byol eval quality    --run DIR --data DATASET [options]\n"
    "       byol eval features   --run DIR --data DATASET -o DIR [options]\n"
    "       --checkpoint FILE or --weights FILE may stand in the place of --run DIR\n"
    "\n"
    "Measures features with labels that pretraining never used to learn them: the encoder stays\n"
    "frozen, and images of the test set are classified with the help of the training set.\n"
    "\n"
    "  linear   a linear classifier is trained on the features: random crops and flips, SGD with\n"
    "           Nesterov momentum 0.9, cosine schedule (the paper's protocol)\n"
    "  knn      the nearest training images vote, weighted by exp(cosine / temperature)\n"
    "\n"
    "Or without labels:\n"
    "\n"
    "  quality  of features and of projections: how many directions they use (RankMe; 1 is\n"
    "           collapse, the width is the most), the mean cosine between two training views of\n"
    "           one image (positive) and between views of different images (negative)\n"
    "  features  writes features.npy, labels.npy and records.json (names and classes),\n"
    "            one row for each image in the dataset's order, for NumPy and others\n"
    "\n"
    "Options:\n"
    "  --run DIR          the newest good checkpoint of a run\n"
    "  --checkpoint FILE  this checkpoint\n"
    "  --weights FILE     weights of an export, or anybody's ResNet under torchvision's names\n"
    "  --set KEY=VALUE    what others' weights are: encoder=resnet18, width=2, views.size=96, …\n"
    "                     (resnet50 padding=torch shortcut=torch, 224 pixels)\n"
    "  --train, --test DATASET\n"
    "                     linear, knn: with the same classes\n"
    "  --data DATASET     quality, features: with labels or without\n"
    "  --untrained        the same encoder as it was before training: the baseline to beat\n"
    "  --epochs N         linear: passes over the training set (80)\n"
    "  --batch N          linear: images per step, best a multiple of 128 (1024)\n"
    "  --lr X             linear: learning rate at batch 256 (0.2); try 0.05 to 0.4\n"
    "  --learning-rates A,B,C\n"
    "                     linear: compares up to 16 learning rates at nearly the price of one: "
    "the\n"
    "                     features are computed once. A part of the training set (10,009 images,\n"
    "                     of small sets a tenth) is held out; the rate that is best on it is the\n"
    "                     result, and the test set has no say in the choice\n"
    "  --sweep paper      linear: the paper's learning rates, 0.4,0.3,0.2,0.1,0.05\n"
    "  --cached           linear: train on features of the evaluation views, computed once; far\n"
    "                     faster, usually within a point or two of the protocol\n"
    "  --seed N           linear: of the order and the views; quality: of the draw (0)\n"
    "  --convention lightly|solo-learn|solo-learn-euclidean|dinov2\n"
    "                     knn: vote as another project does, to compare with its figures:\n"
    "                       lightly               k 200, temperature 0.1 (the default)\n"
    "                       solo-learn            k 20, temperature 0.07\n"
    "                       solo-learn-euclidean  k 20, raw features, votes 1 / distance\n"
    "                       dinov2                k 20, and 10, 100, 200; temperature 0.07\n"
    "  --k N              knn: neighbours that vote, in place of the convention's\n"
    "  --temperature T    knn: of the votes, in place of the convention's\n"
    "  --limit N          quality: images drawn at most (25600)\n"
    "  -o, --output DIR   features: a new directory\n"
    "  --projections      features: also the projector's outputs, as projections.npy\n"
    "  --device NAME      where to compute (as the run)\n"
    "  --threads N        of the device and of the loader; 0 = one per core (0)\n"
    "  --json             print the result as JSON\n"
    "  --quiet            no progress line\n"
    "\n"
    "Example: another's ResNet on the same scale\n"
    "  byol eval knn --weights resnet18.safetensors --set encoder=resnet18 --train train --test "
    "test\n"
    "Example: what did training add?\n"
    "  byol eval knn --run run --train train --test test\n"
    "  byol eval knn --run run --train train --test test --untrained\n"
    "Example: the figure that papers report\n"
    "  byol eval linear --run run --train train --test test --sweep paper\n"
    "Example: how does it compare with a figure of solo-learn's?\n"
    "  byol eval knn --run run --train train --test test --convention solo-learn\n"
    "Example: is it collapsing? No labels are needed\n"
    "  byol eval quality --run run --data train\n"
    "Example: features for a program of your own (numpy.load(\"out/features.npy\"))\n"
    "  byol eval features --run run --data train -o out\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

static void show(void *context, const char *stage, uint64_t done, uint64_t total)
{
    struct eval_bench *bench = context;
    progress_bar(&bench->progress, stage, done, total,
                 strcmp(stage, "linear") == 0 ? "steps" : "images");
}

static enum status find_checkpoint(const struct eval_request *request, struct eval_bench *bench,
                                   struct error *error)
{
    if (request->checkpoint || request->weights) {
        snprintf(bench->checkpoint, sizeof bench->checkpoint, "%s",
                 request->checkpoint ? request->checkpoint : request->weights);
        return STATUS_OK;
    }
    char warning[1024];
    enum status status = checkpoint_latest(
        request->run, bench->checkpoint, sizeof bench->checkpoint, warning, sizeof warning, error);
    if (status == STATUS_OK && warning[0]) {
        fprintf(stderr, "byol eval: WARNING: passed over damaged checkpoints: %s\n", warning);
    }
    return status;
}

static enum status open_dataset(struct dataset **dataset, const char *path, const char *what,
                                struct error *error)
{
    enum status status = dataset_open(dataset, path, error);
    if (status == STATUS_OK) {
        not_exact_warn(&command_eval, what, *dataset);
    }
    return status;
}

static enum status open_datasets(struct eval_bench *bench, const struct eval_request *request,
                                 struct error *error)
{
    if (request->data) {
        return open_dataset(&bench->data, request->data, "the dataset", error);
    }
    enum status status = open_dataset(&bench->train, request->train, "the training set", error);
    return status == STATUS_OK ? open_dataset(&bench->test, request->test, "the test set", error)
                               : status;
}

static enum status bench_open(struct eval_bench *bench, const struct eval_request *request,
                              struct error *error)
{
    probe_options_init(&bench->options);
    bench->options.threads = bench->options.loader_threads = (int)request->threads;
    bench->options.progress = show;
    bench->options.context = bench;
    enum status status = find_checkpoint(request, bench, error);
    if (status == STATUS_OK && request->output) {
        status = output_check(request->output, error);
    }
    if (status == STATUS_OK) {
        status = open_datasets(bench, request, error);
    }
    if (status == STATUS_OK) {
        status = encoder_open_weights(&bench->encoder, bench->checkpoint, request->set.item,
                                      request->set.count, request->device, (int)request->threads,
                                      request->untrained, error);
    }
    return status;
}

static void bench_close(struct eval_bench *bench)
{
    encoder_close(&bench->encoder);
    dataset_close(&bench->train);
    dataset_close(&bench->test);
    dataset_close(&bench->data);
}

static enum status score_knn(struct eval_bench *bench, const struct knn_config *config,
                             struct probe_score *score, struct error *error)
{
    struct features train = {0}, test = {0};
    enum status status = probe_check_classes(bench->train, bench->test, error);
    if (status == STATUS_OK) {
        status = features_extract(&train, bench->encoder, bench->train, &bench->options, error);
    }
    if (status == STATUS_OK) {
        status = features_extract(&test, bench->encoder, bench->test, &bench->options, error);
    }
    if (status == STATUS_OK) {
        status = knn_score(&train, &test, config, score, error);
    }
    features_free(&train);
    features_free(&test);
    return status;
}

static enum status write_features(struct eval_bench *bench, const struct eval_request *request,
                                  struct eval_export *out, struct error *error)
{
    struct features features = {0};
    enum status status =
        request->projections ? encoder_with_projections(bench->encoder, error) : STATUS_OK;
    if (status == STATUS_OK) {
        status = features_extract(&features, bench->encoder, bench->data, &bench->options, error);
    }
    if (status == STATUS_OK) {
        *out = (struct eval_export){.count = features.count,
                                    .width = features.width,
                                    .projection_width = features.projection_width};
        status = export_features(request->output, &features, bench->data, bench->checkpoint, error);
    }
    features_free(&features);
    return status;
}

static enum status score_quality(struct eval_bench *bench, const struct quality_config *config,
                                 struct quality *out, struct error *error)
{
    enum status status = encoder_has_projector(bench->encoder)
                             ? encoder_with_projections(bench->encoder, error)
                             : STATUS_OK;
    return status == STATUS_OK
               ? quality_score(out, bench->encoder, bench->data, config, &bench->options, error)
               : status;
}

static enum status score(struct eval_bench *bench, const struct eval_request *request,
                         struct eval_result *result, struct error *error)
{
    switch (request->probe) {
    case EVAL_LINEAR:
        return linear_score(bench->encoder, bench->train, bench->test, &request->linear,
                            &bench->options, &result->score, error);
    case EVAL_KNN:
        return score_knn(bench, &request->knn, &result->score, error);
    case EVAL_QUALITY:
        return score_quality(bench, &request->quality, &result->quality, error);
    case EVAL_FEATURES:
        return write_features(bench, request, &result->exported, error);
    }
    return STATUS_OK;
}

static int evaluate(const struct eval_request *request)
{
    struct eval_bench bench = {0};
    struct eval_result result = {0};
    struct error error;
    progress_begin(&bench.progress, request->quiet);
    enum status status = bench_open(&bench, request, &error);
    if (status == STATUS_OK) {
        status = score(&bench, request, &result, &error);
    }
    progress_end(&bench.progress);
    int code = EXIT_OK;
    if (status == STATUS_OK) {
        eval_report(request, &bench, &result);
    } else {
        code = command_failed(&command_eval, &error, request->json);
    }
    bench_close(&bench);
    return code;
}

// "0.4,0.2,0.1"
static int parse_rates(struct linear_config *config, const char *text)
{
    config->rate_count = 0;
    for (const char *at = text; at != NULL;) {
        char *end;
        double rate = strtod(at, &end);
        if (end == at || (*end != ',' && *end != 0) || !(rate >= 1e-9 && rate <= 1e6)) {
            return command_misused(&command_eval,
                                   "--learning-rates wants numbers above 0 like 0.4,0.2, not '%s'",
                                   text);
        }
        if (config->rate_count == LINEAR_MAX_RATES) {
            return command_misused(&command_eval, "--learning-rates takes at most %d numbers",
                                   LINEAR_MAX_RATES);
        }
        config->learning_rates[config->rate_count++] = rate;
        at = *end == ',' ? end + 1 : NULL;
    }
    return EXIT_OK;
}

static int choose_rates(struct eval_request *request)
{
    if ((request->rate > 0) + (request->rates != NULL) + (request->sweep != NULL) > 1) {
        return command_misused(&command_eval,
                               "--lr, --learning-rates and --sweep exclude each other");
    }
    if (request->sweep && strcmp(request->sweep, "paper") != 0) {
        return command_misused(&command_eval, "--sweep wants 'paper', not '%s'", request->sweep);
    }
    if (request->sweep) {
        linear_config_sweep(&request->linear);
    } else if (request->rate > 0) {
        request->linear.learning_rates[0] = request->rate;
    }
    return request->rates ? parse_rates(&request->linear, request->rates) : EXIT_OK;
}

// The convention, with what --k and --temperature put in its place.
static int choose_votes(struct eval_request *request)
{
    struct error error;
    bool changed = request->k > 0 || request->temperature > 0;
    const char *name = request->convention ? request->convention : knn_conventions[0].name;
    if (knn_config_named(&request->knn, name, &error) != STATUS_OK) {
        return command_misused(&command_eval, "%s", error.reason);
    }
    if (request->k > 0) {
        request->knn.k = request->k;
        memset(request->knn.more, 0, sizeof request->knn.more);
    }
    if (request->temperature > 0) {
        request->knn.temperature = request->temperature;
    }
    request->convention = changed ? "custom" : name;
    return EXIT_OK;
}

static bool find_probe(const char *name, enum eval_probe *probe)
{
    for (int i = 0; i < EVAL_PROBES; i++) {
        if (strcmp(eval_probe_names[i], name) == 0) {
            *probe = (enum eval_probe)i;
            return true;
        }
    }
    return false;
}

static int check_request(struct eval_request *request, const struct option_list *operands)
{
    if (operands->count != 1 || !find_probe(operands->item[0], &request->probe)) {
        return command_misused(&command_eval,
                               "wants what to measure: 'linear', 'knn', 'quality' or 'features'");
    }
    request->linear.seed = request->quality.seed = (uint64_t)request->seed;
    if ((request->run != NULL) + (request->checkpoint != NULL) + (request->weights != NULL) != 1) {
        return command_misused(&command_eval,
                               "wants one of --run DIR, --checkpoint FILE and --weights FILE");
    }
    if (request->set.count > 0 && request->weights == NULL) {
        return command_misused(&command_eval, "--set describes --weights; a run knows its network");
    }
    bool labelled = request->probe == EVAL_LINEAR || request->probe == EVAL_KNN;
    if (labelled && (!request->train || !request->test || request->data)) {
        return command_misused(&command_eval, "%s wants --train DATASET and --test DATASET",
                               eval_probe_names[request->probe]);
    }
    if (!labelled && (request->train || request->test || !request->data)) {
        return command_misused(&command_eval, "%s wants one --data DATASET",
                               eval_probe_names[request->probe]);
    }
    if ((request->probe == EVAL_FEATURES) != (request->output != NULL)) {
        return command_misused(&command_eval, "-o DIR is where 'features' writes to");
    }
    int code = choose_rates(request);
    return code == EXIT_OK ? choose_votes(request) : code;
}

static int run(int argc, char **argv)
{
    struct eval_request request = {0};
    linear_config_init(&request.linear);
    quality_config_init(&request.quality);
    const struct option options[] = {
        {"run", 0, OPTION_STRING, &request.run, 0, 0},
        {"checkpoint", 0, OPTION_STRING, &request.checkpoint, 0, 0},
        {"weights", 0, OPTION_STRING, &request.weights, 0, 0},
        {"set", 0, OPTION_LIST, &request.set, 0, 0},
        {"train", 0, OPTION_STRING, &request.train, 0, 0},
        {"test", 0, OPTION_STRING, &request.test, 0, 0},
        {"data", 0, OPTION_STRING, &request.data, 0, 0},
        {"output", 'o', OPTION_STRING, &request.output, 0, 0},
        {"projections", 0, OPTION_FLAG, &request.projections, 0, 0},
        {"limit", 0, OPTION_INT, &request.quality.limit, 2, 1e9},
        {"untrained", 0, OPTION_FLAG, &request.untrained, 0, 0},
        {"epochs", 0, OPTION_INT, &request.linear.epochs, 1, 1e6},
        {"batch", 0, OPTION_INT, &request.linear.batch, 1, 65536},
        {"lr", 0, OPTION_FLOAT, &request.rate, 1e-9, 1e6},
        {"learning-rates", 0, OPTION_STRING, &request.rates, 0, 0},
        {"sweep", 0, OPTION_STRING, &request.sweep, 0, 0},
        {"cached", 0, OPTION_FLAG, &request.linear.cached, 0, 0},
        {"seed", 0, OPTION_INT, &request.seed, 0, 9e15},
        {"k", 'k', OPTION_INT, &request.k, 1, 1e6},
        {"temperature", 0, OPTION_FLOAT, &request.temperature, 1e-6, 1e6},
        {"convention", 0, OPTION_STRING, &request.convention, 0, 0},
        {"device", 0, OPTION_STRING, &request.device, 0, 0},
        {"threads", 0, OPTION_INT, &request.threads, 0, 1024},
        {"json", 0, OPTION_FLAG, &request.json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &request.quiet, 0, 0},
    };
    struct option_list operands;
    bool done;
    int code = command_options(&command_eval, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, &done);
    if (code == EXIT_OK && !done) {
        code = check_request(&request, &operands);
        if (code == EXIT_OK) {
            code = evaluate(&request);
        }
    }
    return code;
}

const struct command command_eval = {
    .name = "eval",
    .summary = "how good the features are",
    .help = help,
    .run = run,
};
