// `byol eval linear|knn`: how good are the features of a run?
#include "tools/command.h"
#include "tools/progress.h"
#include "trainer/probe/probe.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: byol eval linear|knn --run DIR|--checkpoint FILE --train DATASET --test DATASET\n"
    "            [options]\n"
    "\n"
    "Measures features with labels that pretraining never used to learn them: the encoder stays\n"
    "frozen, and images of the test set are classified with the help of the training set.\n"
    "\n"
    "  linear   a linear classifier is trained on the features: random crops and flips, SGD with\n"
    "           Nesterov momentum 0.9, cosine schedule (the paper's protocol)\n"
    "  knn      the nearest training images vote, weighted by exp(cosine / temperature)\n"
    "\n"
    "Options:\n"
    "  --run DIR          the newest good checkpoint of a run\n"
    "  --checkpoint FILE  this checkpoint\n"
    "  --train, --test    datasets with the same classes\n"
    "  --untrained        the same encoder as it was before training: the baseline to beat\n"
    "  --epochs N         linear: passes over the training set (80)\n"
    "  --batch N          linear: images per step, best a multiple of 128 (1024)\n"
    "  --lr X             linear: learning rate at batch 256 (0.2); try 0.05 to 0.4\n"
    "  --learning-rates A,B,C\n"
    "                     linear: compares up to 16 learning rates at nearly the price of one: "
    "the\n"
    "                     features are computed once. A part of the training set (10,009 images, "
    "of\n"
    "                     small sets a tenth) is held out; the rate that is best on it is the\n"
    "                     result, and the test set has no say in the choice\n"
    "  --sweep paper      linear: the paper's learning rates, 0.4,0.3,0.2,0.1,0.05\n"
    "  --cached           linear: train on features of the evaluation views, computed once; far\n"
    "                     faster, usually within a point or two of the protocol\n"
    "  --seed N           linear: of the order and the views (0)\n"
    "  --convention NAME  knn: vote as another project does, to compare with its figures:\n"
    "                       lightly               k 200, temperature 0.1 (the default)\n"
    "                       solo-learn            k 20, temperature 0.07\n"
    "                       solo-learn-euclidean  k 20, raw features, votes 1 / distance\n"
    "                       dinov2                k 20, and 10, 100, 200; temperature 0.07\n"
    "  --k N              knn: neighbours that vote, in place of the convention's\n"
    "  --temperature T    knn: of the votes, in place of the convention's\n"
    "  --device NAME      where to compute (as the run)\n"
    "  --threads N        of the device and of the loader; 0 = one per core (0)\n"
    "  --json             print the result as JSON\n"
    "  --quiet            no progress line\n"
    "\n"
    "Example: what did training add?\n"
    "  byol eval knn --run run --train train --test test\n"
    "  byol eval knn --run run --train train --test test --untrained\n"
    "Example: the figure that papers report\n"
    "  byol eval linear --run run --train train --test test --sweep paper\n"
    "Example: how does it compare with a figure of solo-learn's?\n"
    "  byol eval knn --run run --train train --test test --convention solo-learn\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

struct request {
    const char *probe, *run, *checkpoint, *train, *test, *device, *convention;
    const char *rates, *sweep;
    struct linear_config linear;
    struct knn_config knn;
    int64_t threads, seed, k;
    double temperature, rate;
    bool untrained, json, quiet;
};

// What a probe works on.
struct bench {
    char checkpoint[RUN_PATH];
    struct dataset *train, *test;
    struct encoder *encoder;
    struct probe_options options;
    struct progress progress;
};

static void show(void *context, const char *stage, uint64_t done, uint64_t total)
{
    struct bench *bench = context;
    progress_bar(&bench->progress, stage, done, total,
                 strcmp(stage, "linear") == 0 ? "steps" : "images");
}

static enum status find_checkpoint(const struct request *request, struct bench *bench,
                                   struct error *error)
{
    if (request->checkpoint) {
        snprintf(bench->checkpoint, sizeof bench->checkpoint, "%s", request->checkpoint);
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

static enum status bench_open(struct bench *bench, const struct request *request,
                              struct error *error)
{
    probe_options_init(&bench->options);
    bench->options.threads = bench->options.loader_threads = (int)request->threads;
    bench->options.progress = show;
    bench->options.context = bench;
    enum status status = find_checkpoint(request, bench, error);
    if (status == STATUS_OK) {
        status = dataset_open(&bench->train, request->train, error);
    }
    if (status == STATUS_OK) {
        status = dataset_open(&bench->test, request->test, error);
    }
    if (status == STATUS_OK) {
        status = encoder_open(&bench->encoder, bench->checkpoint, request->device,
                              (int)request->threads, request->untrained, error);
    }
    return status;
}

static void bench_close(struct bench *bench)
{
    encoder_close(&bench->encoder);
    dataset_close(&bench->train);
    dataset_close(&bench->test);
}

static enum status score_knn(struct bench *bench, const struct knn_config *config,
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

static enum status score(struct bench *bench, const struct request *request,
                         struct probe_score *result, struct error *error)
{
    if (strcmp(request->probe, "knn") == 0) {
        return score_knn(bench, &request->knn, result, error);
    }
    return linear_score(bench->encoder, bench->train, bench->test, &request->linear,
                        &bench->options, result, error);
}

static json_t *trial_json(const struct linear_trial *trial)
{
    return json_pack("{s:f, s:b, s:f, s:f, s:f, s:f}", "learning_rate", trial->learning_rate,
                     "diverged", trial->diverged, "held_out_top1", trial->held_out_top1,
                     "train_top1", trial->train_top1, "top1", trial->top1, "top5", trial->top5);
}

static void add_linear(json_t *object, const struct request *request,
                       const struct probe_score *result)
{
    json_object_set_new(object, "train_top1", json_real(result->train_top1));
    json_object_set_new(object, "learning_rate", json_real(result->learning_rate));
    json_object_set_new(object, "epochs", json_integer(request->linear.epochs));
    json_object_set_new(object, "cached", json_boolean(request->linear.cached));
    bool sweep = result->trial_count > 1;
    json_object_set_new(object, "chosen_on", sweep ? json_string("held_out") : json_null());
    json_object_set_new(object, "held_out",
                        sweep ? json_integer((json_int_t)result->held_out) : json_null());
    json_t *trials = json_array();
    for (uint32_t i = 0; sweep && i < result->trial_count; i++) {
        json_array_append_new(trials, trial_json(&result->trials[i]));
    }
    json_object_set_new(object, "learning_rates", trials);
}

static void add_knn(json_t *object, const struct request *request, const struct probe_score *result)
{
    bool cosine = request->knn.distance == KNN_COSINE;
    json_t *by_k = json_array();
    json_object_set_new(object, "convention", json_string(request->convention));
    json_object_set_new(object, "k", json_integer(request->knn.k));
    json_object_set_new(object, "temperature",
                        cosine ? json_real(request->knn.temperature) : json_null());
    json_object_set_new(object, "distance", json_string(cosine ? "cosine" : "euclidean"));
    for (size_t i = 0; i < KNN_MORE && result->more[i].k > 0; i++) {
        const struct knn_more *more = &result->more[i];
        json_array_append_new(by_k, json_pack("{s:I, s:f, s:f}", "k", (json_int_t)more->k, "top1",
                                              more->top1, "top5", more->top5));
    }
    json_object_set_new(object, "more", by_k);
}

static void print_json(const struct request *request, const struct bench *bench,
                       const struct probe_score *result)
{
    bool linear = strcmp(request->probe, "linear") == 0;
    json_t *object = json_object();
    json_object_set_new(object, "probe", json_string(request->probe));
    json_object_set_new(object, "top1", json_real(result->top1));
    json_object_set_new(object, "top5", json_real(result->top5));
    json_object_set_new(object, "count", json_integer((json_int_t)result->count));
    json_object_set_new(object, "untrained", json_boolean(request->untrained));
    json_object_set_new(object, "checkpoint", json_string(bench->checkpoint));
    if (linear) {
        add_linear(object, request, result);
    } else {
        add_knn(object, request, result);
    }
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

static void print_trials(const struct probe_score *result)
{
    printf("learning rate %g, chosen on %" PRIu64 " training images held out:\n",
           result->learning_rate, result->held_out);
    for (uint32_t i = 0; i < result->trial_count; i++) {
        const struct linear_trial *trial = &result->trials[i];
        if (trial->diverged) {
            printf("  %-8g diverged\n", trial->learning_rate);
        } else {
            printf("  %-8g held out %.2f%%, test top-1 %.2f%%, top-5 %.2f%%\n",
                   trial->learning_rate, trial->held_out_top1, trial->top1, trial->top5);
        }
    }
}

static void print_result(const struct request *request, const struct bench *bench,
                         const struct probe_score *result)
{
    if (request->json) {
        print_json(request, bench, result);
        return;
    }
    printf("%s%s: top-1 %.2f%%, top-5 %.2f%% of %" PRIu64 " test images (%s)\n", request->probe,
           request->untrained ? ", untrained encoder" : "", result->top1, result->top5,
           result->count, bench->checkpoint);
    for (size_t i = 0; i < KNN_MORE && result->more[i].k > 0; i++) {
        printf("  k %" PRId64 ": top-1 %.2f%%, top-5 %.2f%%\n", result->more[i].k,
               result->more[i].top1, result->more[i].top5);
    }
    if (result->trial_count > 1) {
        print_trials(result);
    }
}

static int evaluate(const struct request *request)
{
    struct bench bench = {0};
    struct probe_score result;
    struct error error;
    progress_begin(&bench.progress, request->quiet);
    enum status status = bench_open(&bench, request, &error);
    if (status == STATUS_OK) {
        status = score(&bench, request, &result, &error);
    }
    progress_end(&bench.progress);
    int code = EXIT_OK;
    if (status == STATUS_OK) {
        print_result(request, &bench, &result);
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

static int choose_rates(struct request *request)
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
static int choose_votes(struct request *request)
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

static int check_request(struct request *request, const struct option_list *operands)
{
    if (operands->count != 1 ||
        (strcmp(operands->item[0], "linear") != 0 && strcmp(operands->item[0], "knn") != 0)) {
        return command_misused(&command_eval, "wants what to measure: 'linear' or 'knn'");
    }
    request->probe = operands->item[0];
    request->linear.seed = (uint64_t)request->seed;
    if ((request->run == NULL) == (request->checkpoint == NULL)) {
        return command_misused(&command_eval, "wants either --run DIR or --checkpoint FILE");
    }
    if (request->train == NULL || request->test == NULL) {
        return command_misused(&command_eval, "wants --train DATASET and --test DATASET");
    }
    int code = choose_rates(request);
    return code == EXIT_OK ? choose_votes(request) : code;
}

static int run(int argc, char **argv)
{
    struct request request = {0};
    linear_config_init(&request.linear);
    const struct option options[] = {
        {"run", 0, OPTION_STRING, &request.run, 0, 0},
        {"checkpoint", 0, OPTION_STRING, &request.checkpoint, 0, 0},
        {"train", 0, OPTION_STRING, &request.train, 0, 0},
        {"test", 0, OPTION_STRING, &request.test, 0, 0},
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
    .summary = "measure features: linear classifier or nearest neighbours",
    .help = help,
    .run = run,
};
