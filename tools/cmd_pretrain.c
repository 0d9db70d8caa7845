// `byol pretrain`: learns features from a dataset's images.
#include "formats/file.h"
#include "tools/command.h"
#include "tools/progress.h"
#include "tools/recipe_option.h"
#include "trainer/run/directory.h"
#include "trainer/run/pretrain.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "Usage: byol pretrain --data DATASET --run DIR [options]\n"
    "\n"
    "Learns image features from a dataset (see 'byol convert') without labels, by BYOL: an online\n"
    "network predicts what a slowly moving target network says of another view of the image.\n"
    "\n"
    "DIR becomes the run: config.yaml (every setting), metrics.jsonl (one line per logged step),\n"
    "the same as TensorBoard's events, checkpoints/*.safetensors, report.json ('byol report DIR "
    "-o\n"
    "report.html' draws it all). Ctrl-C finishes the step and writes a checkpoint;\n"
    "--resume goes on exactly where the newest good checkpoint stands, also after a crash.\n"
    "\n"
    "Several processes share each batch when mpirun starts them; results do not depend on their\n"
    "number, which may change at any resume:\n"
    "  mpirun -n 2 --bind-to none byol pretrain --data DATASET --run DIR\n"
    "SIGUSR1, SIGINT or SIGTERM to any of them stops all with a checkpoint; mpirun passes SIGUSR1 "
    "on\n"
    "(on Ctrl-C it gives them one second).\n"
    "\n"
    "Options:\n"
    "  --data DATASET    what to learn from\n"
    "  --run DIR         where the run lives\n"
    "  --preset byol-40|byol-100|byol-300|byol-1000\n"
    "                    the reference's schedule for so many epochs\n"
    "  --recipe NAME     how views are drawn: byol, small (32 px, no blur)\n"
    "  --recipe FILE     a YAML file with any settings, views among them\n"
    "  --init FILE       begin from weights: a checkpoint, an export, or a ResNet under\n"
    "                    torchvision's names (also timm's), which wants padding=torch\n"
    "                    shortcut=torch\n"
    "  --precision auto|f32|bf16\n"
    "                    what the device computes images with (see --settings)\n"
    "  --threads N       of the device; auto = one per core\n"
    "  --loader-threads N  that decode and augment, behind the device's in the queue for a core;\n"
    "                    auto = one per core\n"
    "  --probe DATASET   labelled images, apart from the training data: after each epoch "
    "(probe_every)\n"
    "                    nearest neighbours classify some of them by the rest, and RankMe counts "
    "the\n"
    "                    directions in use. Training does not change by a bit\n"
    "  --probe-test DATASET  classify these by those of --probe\n"
    "  --set KEY=VALUE   one setting; may be repeated, wins over preset and file\n"
    "  --settings        print every setting with its meaning and value, and stop\n"
    "  --resume          continue DIR, or start it when there is nothing to continue\n"
    "  --json            print the result as JSON\n"
    "  --quiet           no progress line; warnings only\n"
    "\n"
    "Settings you will want first (--settings lists all):\n"
    "  encoder=resnet50  also resnet18, 34, 101, 152, 200; width=0.25 makes it narrower\n"
    "  stem=small        first layers for images of about 32 px\n"
    "  shortcut=torch padding=torch  the network as torchvision builds it\n"
    "  norm=group weight_standardisation=true   or norm=affine: without batch statistics\n"
    "  projector_layers=4096,4096    hidden layers of the projector; predictor_layers likewise\n"
    "  views.size=96     side of a view in pixels\n"
    "  batch=256 epochs=100 warmup_epochs=10 base_learning_rate=0.45 tau_base=0.99\n"
    "  optimizer=lars    the reference's; also lars-solo-learn, lars-suncet, sgd, adamw\n"
    "  predictor_rate=1  multiplies the predictor's learning rate\n"
    "  scaling=linear    moving-average: tau follows the batch too (tuned_batch=4096)\n"
    "  checkpoint_seconds=600 log_steps=10 seed=0\n"
    "\n"
    "Example: a narrow ResNet-18 on small images, with the 100-epoch schedule\n"
    "  byol pretrain --data train --run run --preset byol-100 --recipe small \\\n"
    "      --set encoder=resnet18 --set width=0.25 --set stem=small --set batch=128\n"
    "\n"
    "Exit codes: 0 finished, or stopped by a signal with a checkpoint; 1 failure (also when the\n"
    "last checkpoint could not be written); 2 wrong usage.\n";

// What the command line says.
struct request {
    const char *data, *run, *recipe, *preset, *init, *precision, *threads, *loader_threads;
    const char *probe, *probe_test;
    struct option_list set;
    bool resume, json, quiet, settings;
};

// --- settings --------------------------------------------------------------------------------

// Options that are assignments too: KEY=VALUE.
struct shorthand {
    const char *key, *value; // NULL: not given
    char text[640];
};

static const char *as_assignment(struct shorthand *shorthand)
{
    snprintf(shorthand->text, sizeof shorthand->text, "%s=%s", shorthand->key, shorthand->value);
    return shorthand->text;
}

static const char *thread_count(const char *option)
{
    return option && strcmp(option, "auto") == 0 ? "0" : option;
}

static enum status resolve(const struct request *request, struct run_config *config,
                           struct error *error)
{
    bool is_file = request->recipe && recipe_option_is_file(request->recipe);
    struct shorthand shorthands[] = {
        {.key = "views.base", .value = is_file ? NULL : request->recipe},
        {.key = "preset", .value = request->preset},
        {.key = "init", .value = request->init},
        {.key = "precision", .value = request->precision},
        {.key = "threads", .value = thread_count(request->threads)},
        {.key = "loader_threads", .value = thread_count(request->loader_threads)},
        {.key = "probe", .value = request->probe},
        {.key = "probe_test", .value = request->probe_test},
    };
    const size_t shorthand_count = sizeof shorthands / sizeof shorthands[0];
    const char *assignments[OPTION_LIST_MAX + sizeof shorthands / sizeof shorthands[0]];
    const char *file = is_file ? request->recipe : NULL;
    char stored[RUN_PATH];
    size_t count = 0;
    // What a resumed run was started with need not be said again.
    if (request->resume && file == NULL && request->run &&
        run_directory_path(request->run, "config.yaml", stored, NULL) == STATUS_OK &&
        file_exists(stored)) {
        file = stored;
    }
    for (size_t i = 0; i < shorthand_count; i++) {
        if (shorthands[i].value) {
            assignments[count++] = as_assignment(&shorthands[i]);
        }
    }
    for (size_t i = 0; i < request->set.count; i++) {
        assignments[count++] = request->set.item[i];
    }
    return run_config_resolve(config, file, assignments, count, error);
}

static int print_settings(const struct request *request)
{
    char *text;
    struct run_config config;
    struct error error;
    if (resolve(request, &config, &error) != STATUS_OK ||
        run_config_print(&config, true, &text, &error) != STATUS_OK) {
        return command_failed(&command_pretrain, &error, request->json);
    }
    fputs(text, stdout);
    free(text);
    return EXIT_OK;
}

// --- signals ---------------------------------------------------------------------------------

static volatile sig_atomic_t stop;

// The first signal asks the loop to finish its step; the second is from somebody in a hurry.
static void on_signal(int number)
{
    if (stop) {
        _exit(128 + number);
    }
    stop = 1;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

// --- showing ---------------------------------------------------------------------------------

struct display {
    struct progress progress;
    bool quiet;
};

static bool is_warning(const char *notice)
{
    return strncmp(notice, "WARNING", 7) == 0 || strncmp(notice, "COLLAPSE", 8) == 0;
}

static void show(void *context, const struct pretrain_progress *now)
{
    struct display *display = context;
    if (now->notice) {
        if (display->quiet && is_warning(now->notice)) {
            fprintf(stderr, "%s\n", now->notice);
        }
        progress_notice(&display->progress, "%s", now->notice);
        return;
    }
    char left[16], accuracy[32] = "", knn[32] = "";
    if (!isnan(now->top1)) {
        snprintf(accuracy, sizeof accuracy, "  top-1 %.1f%%", 100 * now->top1);
    }
    if (!isnan(now->knn)) {
        snprintf(knn, sizeof knn, "  kNN %.1f%%", 100 * now->knn);
    }
    progress_line(&display->progress, now->step == now->steps,
                  "epoch %" PRIu32 "/%" PRIu32 "  step %" PRIu64 "/%" PRIu64
                  "  loss %.4f  %.0f pairs/s  data wait %.0f%%%s%s  ETA %s",
                  now->epoch + 1, now->epochs, now->step, now->steps, now->loss,
                  now->pairs_per_second, 100 * now->data_wait, accuracy, knn,
                  progress_duration(now->seconds_left, left));
}

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void print_json(const struct pretrain_result *result, bool finished)
{
    json_t *object = json_object();
    json_object_set_new(object, "ended", json_string(finished ? "finished" : "stopped"));
    json_object_set_new(object, "step", json_integer((json_int_t)result->step));
    json_object_set_new(object, "loss", number(result->loss));
    json_object_set_new(object, "online_top1", number(100 * result->top1));
    json_object_set_new(object, "knn_top1", number(100 * result->knn));
    json_object_set_new(object, "rankme", number(result->rankme));
    json_object_set_new(object, "spread", number(result->spread));
    json_object_set_new(object, "seconds", number(result->seconds));
    json_object_set_new(object, "pairs_per_second", number(result->pairs_per_second));
    json_object_set_new(object, "data_wait", number(result->data_wait));
    json_object_set_new(object, "skipped_records",
                        json_integer((json_int_t)result->skipped_records));
    json_object_set_new(object, "device_bytes", json_integer((json_int_t)result->device_bytes));
    json_object_set_new(object, "loader_bytes", json_integer((json_int_t)result->loader_bytes));
    json_object_set_new(object, "checkpoint", json_string(result->checkpoint));
    json_object_set_new(object, "not_exact",
                        result->not_exact[0] ? json_string(result->not_exact) : json_null());
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

static void print_result(const struct request *request, const struct pretrain_result *result,
                         bool finished)
{
    char seconds[16], accuracy[48] = "", knn[32] = "";
    if (request->json) {
        print_json(result, finished);
        return;
    }
    if (!isnan(result->top1)) {
        snprintf(accuracy, sizeof accuracy, ", online top-1 %.1f%%", 100 * result->top1);
    }
    if (!isnan(result->knn)) {
        snprintf(knn, sizeof knn, ", kNN top-1 %.1f%%", 100 * result->knn);
    }
    printf("%s at step %" PRIu64 " after %s: loss %.4f%s%s, %.0f pairs/s\n",
           finished ? "finished" : "stopped", result->step,
           progress_duration(result->seconds, seconds), result->loss, accuracy, knn,
           result->pairs_per_second);
    if (result->checkpoint[0]) {
        printf("checkpoint: %s\n", result->checkpoint);
    }
    if (!finished) {
        printf("go on with: byol pretrain --data %s --run %s --resume\n", request->data,
               request->run);
    }
}

// --- ranks -----------------------------------------------------------------------------------

// Rank 0 speaks for all when all know; a rank that failed by itself speaks and ends the others.
static int failed(const struct request *request, struct comm *comm, const struct error *error)
{
    if (comm_together(comm)) {
        return comm_rank(comm) == 0 ? command_failed(&command_pretrain, error, request->json)
                                    : EXIT_OK;
    }
    struct error own;
    error_set(&own, error->status, error->path, error->offset, error->record, "rank %u: %s",
              comm_rank(comm), error->reason);
    int code = command_failed(&command_pretrain, &own, request->json);
    fflush(stdout);
    comm_abort(comm, code);
    return code;
}

static int pretrain(const struct request *request, struct comm *comm)
{
    bool speaks = comm_rank(comm) == 0;
    struct display display = {.quiet = request->quiet};
    struct pretrain_options options = {
        .data = request->data,
        .run_directory = request->run,
        .resume = request->resume,
        .stop = &stop,
        .progress = speaks ? show : NULL,
        .context = &display,
        .comm = comm,
    };
    struct pretrain_result result;
    struct error error;
    enum status status = resolve(request, &options.config, &error);
    status = comm_agree(comm, status, NULL, &error);
    if (status != STATUS_OK) {
        return failed(request, comm, &error);
    }
    catch_signals();
    progress_begin(&display.progress, request->quiet || !speaks);
    status = pretrain_run(&options, &result, &error);
    progress_end(&display.progress);
    if (status != STATUS_OK && status != STATUS_STOPPED) {
        return failed(request, comm, &error);
    }
    if (speaks) {
        print_result(request, &result, status == STATUS_OK);
    }
    return EXIT_OK;
}

static int pretrain_with_ranks(const struct request *request)
{
    struct comm *comm;
    struct error error;
    if (comm_open(&comm, &error) != STATUS_OK) {
        return command_failed(&command_pretrain, &error, request->json);
    }
    int code = pretrain(request, comm);
    fflush(stdout);
    comm_close(&comm);
    return code;
}

static int run(int argc, char **argv)
{
    struct request request = {0};
    const struct option options[] = {
        {"data", 0, OPTION_STRING, &request.data, 0, 0},
        {"run", 0, OPTION_STRING, &request.run, 0, 0},
        {"recipe", 0, OPTION_STRING, &request.recipe, 0, 0},
        {"preset", 0, OPTION_STRING, &request.preset, 0, 0},
        {"init", 0, OPTION_STRING, &request.init, 0, 0},
        {"precision", 0, OPTION_STRING, &request.precision, 0, 0},
        {"threads", 't', OPTION_STRING, &request.threads, 0, 0},
        {"loader-threads", 0, OPTION_STRING, &request.loader_threads, 0, 0},
        {"probe", 0, OPTION_STRING, &request.probe, 0, 0},
        {"probe-test", 0, OPTION_STRING, &request.probe_test, 0, 0},
        {"set", 0, OPTION_LIST, &request.set, 0, 0},
        {"settings", 0, OPTION_FLAG, &request.settings, 0, 0},
        {"resume", 0, OPTION_FLAG, &request.resume, 0, 0},
        {"json", 0, OPTION_FLAG, &request.json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &request.quiet, 0, 0},
    };
    struct option_list operands;
    bool done;
    int code = command_options(&command_pretrain, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (operands.count > 0) {
        return command_misused(&command_pretrain,
                               "'%s' stands alone; did you forget --data, --run "
                               "or --set?",
                               operands.item[0]);
    }
    if (!request.settings && (request.data == NULL || request.run == NULL)) {
        return command_misused(&command_pretrain, "wants --data DATASET and --run DIR");
    }
    return request.settings ? print_settings(&request) : pretrain_with_ranks(&request);
}

const struct command command_pretrain = {
    .name = "pretrain",
    .summary = "learn without labels",
    .help = help,
    .run = run,
};
