// `byol ablate`: rows that differ in a setting, trained and measured, and one table of them.
#include "formats/dataset.h"
#include "formats/file.h"
#include "tools/ablate_emit.h"
#include "tools/ablate_table.h"
#include "tools/command.h"
#include "tools/not_exact.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: byol ablate FILE.yaml -o DIR --data DATASET --test DATASET [--train DATASET] "
    "[options]\n"
    "       byol ablate FILE.yaml -o DIR --table\n"
    "\n"
    "Which setting matters? Trains the same run again and again, each time with something changed\n"
    "(a row) and with several seeds, measures every encoder, and prints one table: mean and\n"
    "standard deviation (of a sample: n - 1) over the seeds, and the difference to the first row.\n"
    "\n"
    "A run is DIR/ROW/seed-N, as 'byol pretrain' makes it. What is finished is skipped, what was\n"
    "interrupted goes on from its checkpoint: after Ctrl-C, a kill or a crash give the same line\n"
    "again, or the same line on several machines that share DIR: each run is made once. A row "
    "that\n"
    "fails is reported and the others go on. DIR/table.txt, .csv, .json and .png hold the table.\n"
    "\n"
    "The file, every key but rows or axes optional:\n"
    "  title: Which augmentation matters?\n"
    "  base:\n"
    "    recipe: cifar-cpu.yaml          # a recipe's name or file (relative to this file)\n"
    "    set: {epochs: 4}                # any setting of 'byol pretrain --settings'\n"
    "  seeds: 2                          # how many, or a list: [3, 7]\n"
    "  measure: [knn, {probe: linear, epochs: 20, cached: true}]\n"
    "  rows:                             # the first is what the others are compared with\n"
    "    - {name: all, paper: 72.5}\n"
    "    - {name: no flip, set: {views.*.flip: 0}, paper: 71.9}   # views.*.KEY: of both views\n"
    "  axes:                             # a grid: every row with every value\n"
    "    tau_base: [0.99, 0.9]\n"
    "Also: data, train, test (datasets, relative to the file), paper (text: what its figures "
    "are);\n"
    "rows may have paper_sd and waits_for (why it cannot run yet: shown, not run); measures name,\n"
    "train, test, convention, k, temperature (knn), epochs, batch, learning_rate, cached "
    "(linear).\n"
    "tools/ablations holds files for the ablations of the BYOL paper.\n"
    "\n"
    "Options:\n"
    "  -o, --output DIR   where the runs live\n"
    "  --data DATASET     what is learnt from\n"
    "  --train, --test DATASET\n"
    "                     what is measured with (train: as --data)\n"
    "  --set KEY=VALUE    for all rows, after the base; may be repeated\n"
    "  --only ROW         this row (its name or folder); may be repeated\n"
    "  --seed N           this seed of the file's; may be repeated\n"
    "  -j, --jobs N       runs at a time (1); they share the cores\n"
    "  --dry-run          show what is done and what would run\n"
    "  --table            print the table as it stands, run nothing\n"
    "  --emit commands    print a line for each run that is left, run nothing\n"
    "  --emit slurm       write DIR/commands.txt and DIR/slurm.sh, a job array, run nothing\n"
    "  --json             print the table as JSON\n"
    "  --quiet            no progress\n"
    "\n"
    "Examples:\n"
    "  byol ablate tools/ablations/cifar-augmentations.yaml -o abl --data train --test test\n"
    "  byol ablate tools/ablations/target-decay.yaml -o abl --dry-run\n"
    "  byol views train --compare views.*.jitter=0,0.8,1 -o sheet.png      # look before training\n"
    "\n"
    "Exit codes: 0 everything is done; 1 failure, also of a row; 2 wrong usage; 128 + n stopped\n"
    "by signal n, with checkpoints.\n";

struct request {
    const char *output, *data, *train, *test, *emit;
    struct option_list set, only, seeds;
    int64_t jobs;
    bool dry_run, table, json, quiet;
};

struct ablation {
    struct request request;
    struct ablate_plan plan;
    struct ablate_overrides overrides;
    struct ablate_work work;
};

// --- choosing ------------------------------------------------------------------------------------

static bool row_wanted(const struct request *request, const struct ablate_row *row)
{
    bool wanted = request->only.count == 0;
    for (size_t i = 0; i < request->only.count; i++) {
        const char *name = request->only.item[i];
        wanted |= strcmp(name, row->name) == 0 || strcmp(name, row->slug) == 0;
    }
    return wanted && row->waits_for[0] == '\0';
}

static bool seed_wanted(const struct request *request, int64_t seed)
{
    bool wanted = request->seeds.count == 0;
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, seed);
    for (size_t i = 0; i < request->seeds.count; i++) {
        wanted |= strcmp(request->seeds.item[i], text) == 0;
    }
    return wanted;
}

// Every name of a row and every seed that was asked for must be there.
static enum status check_choice(const struct ablation *ablation, struct error *error)
{
    const struct request *request = &ablation->request;
    for (size_t i = 0; i < request->only.count; i++) {
        struct request one = {.only = {.item = {request->only.item[i]}, .count = 1}};
        bool found = false;
        for (size_t j = 0; j < ablation->plan.row_count; j++) {
            found |= row_wanted(&one, &ablation->plan.rows[j]);
        }
        if (!found) {
            return error_set(error, STATUS_NOT_FOUND, ablation->plan.path, NOWHERE, NOWHERE,
                             "there is no row '%s' to run", request->only.item[i]);
        }
    }
    for (size_t i = 0; i < request->seeds.count; i++) {
        struct request one = {.seeds = {.item = {request->seeds.item[i]}, .count = 1}};
        bool found = false;
        for (size_t j = 0; j < ablation->plan.seed_count; j++) {
            found |= seed_wanted(&one, ablation->plan.seeds[j]);
        }
        if (!found) {
            return error_set(error, STATUS_NOT_FOUND, ablation->plan.path, NOWHERE, NOWHERE,
                             "there is no seed %s", request->seeds.item[i]);
        }
    }
    return STATUS_OK;
}

// --- planning ------------------------------------------------------------------------------------

static enum status plan_job(struct ablation *ablation, const struct ablate_row *row, int64_t seed,
                            struct error *error)
{
    struct ablate_job *job = &ablation->work.jobs[ablation->work.count];
    *job = (struct ablate_job){.row = row, .seed = seed, .log = -1, .output = -1};
    enum status status =
        ablate_run_path(ablation->request.output, row, seed, job->directory, error);
    if (status == STATUS_OK) {
        status = ablate_state_read(&ablation->plan, row, seed, job->directory, &job->state, error);
    }
    ablation->work.count += status == STATUS_OK;
    return status;
}

// Seed by seed: after each seed there is a whole table.
static enum status plan_jobs(struct ablation *ablation, struct error *error)
{
    const struct ablate_plan *plan = &ablation->plan;
    enum status status = check_choice(ablation, error);
    struct ablate_work *work = &ablation->work;
    work->jobs = calloc(plan->row_count * plan->seed_count, sizeof *work->jobs);
    if (work->jobs == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for the runs");
    }
    for (size_t seed = 0; seed < plan->seed_count; seed++) {
        for (size_t i = 0; status == STATUS_OK && i < plan->row_count; i++) {
            if (row_wanted(&ablation->request, &plan->rows[i]) &&
                seed_wanted(&ablation->request, plan->seeds[seed])) {
                status = plan_job(ablation, &plan->rows[i], plan->seeds[seed], error);
            }
        }
    }
    return status;
}

// Whose runs count as this ablation's. A dataset that is not at hand is found out before a run.
static void look_at_data(struct ablate_plan *plan)
{
    struct dataset *dataset = NULL;
    if (plan->data[0] && dataset_open(&dataset, plan->data, NULL) == STATUS_OK) {
        plan->data_id = dataset_id(dataset);
    }
    dataset_close(&dataset);
}

static enum status check_dataset(const char *path, const char *what, uint64_t *count,
                                 struct error *error)
{
    struct dataset *dataset = NULL;
    if (path[0] == '\0') {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "which dataset? Give %s, or say it in the file", what);
    }
    enum status status = dataset_open(&dataset, path, error);
    if (status == STATUS_OK) {
        *count = dataset_count(dataset);
        not_exact_warn(&command_ablate, path, dataset);
    }
    dataset_close(&dataset);
    return status;
}

// Before the first run is started, so that none is spoilt by what the last step misses.
static enum status check_datasets(struct ablation *ablation, struct error *error)
{
    const struct ablate_plan *plan = &ablation->plan;
    uint64_t count = 0, other;
    enum status status = check_dataset(plan->data, "--data", &count, error);
    for (size_t i = 0; status == STATUS_OK && i < plan->measure_count; i++) {
        status = check_dataset(plan->measures[i].train, "--train", &other, error);
        if (status == STATUS_OK) {
            status = check_dataset(plan->measures[i].test, "--test", &other, error);
        }
    }
    for (size_t i = 0; status == STATUS_OK && i < ablation->work.count; i++) {
        struct ablate_job *job = &ablation->work.jobs[i];
        const struct run_config *config = &job->row->config;
        uint64_t an_epoch = count / (uint64_t)config->batch;
        double batch = (double)config->batch, steps = (double)an_epoch * (double)config->epochs;
        if (config->max_steps > 0 && (double)config->max_steps < steps) {
            steps = (double)config->max_steps;
        }
        job->pairs = steps * batch;
    }
    return status;
}

// --- running -------------------------------------------------------------------------------------

static enum status print_table(const struct ablation *ablation, struct error *error)
{
    struct ablate_table table;
    enum status status =
        ablate_table_read(&table, &ablation->plan, ablation->request.output, error);
    if (status == STATUS_OK) {
        status = file_make_directories(ablation->request.output, error);
    }
    if (status == STATUS_OK) {
        status = ablate_table_write(&table, ablation->request.output, error);
    }
    if (status == STATUS_OK) {
        char *text = ablation->request.json ? ablate_table_json(&table) : ablate_table_text(&table);
        printf("%s%s", text ? text : "", ablation->request.json ? "\n" : "");
        free(text);
    }
    ablate_table_free(&table);
    return status;
}

static size_t count_left(const struct ablate_work *work)
{
    size_t left = 0;
    for (size_t i = 0; i < work->count; i++) {
        left += ablate_next_stage(work->plan, &work->jobs[i].state) >= 0;
    }
    return left;
}

static enum status run_all(struct ablation *ablation, int *code, struct error *error)
{
    struct progress progress;
    struct ablate_work *work = &ablation->work;
    enum status status = check_datasets(ablation, error);
    if (status != STATUS_OK) {
        return status;
    }
    progress_begin(&progress, ablation->request.quiet);
    work->progress = &progress;
    ablate_work_run(work);
    progress_end(&progress);
    fflush(stderr);
    size_t left = count_left(work);
    if (left > 0) {
        *code = work->stopped_by ? 128 + work->stopped_by : EXIT_FAILED;
    }
    status = print_table(ablation, error);
    if (status == STATUS_OK && left > 0) {
        fprintf(stderr, "byol ablate: %zu of %zu runs are not done: give the same line again\n",
                left, work->count);
    }
    return status;
}

static enum status act(struct ablation *ablation, int *code, struct error *error)
{
    const struct request *request = &ablation->request;
    if (request->table) {
        return print_table(ablation, error);
    }
    enum status status = plan_jobs(ablation, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (request->dry_run) {
        return ablate_show_plan(&ablation->work, error);
    }
    if (request->emit) {
        return strcmp(request->emit, "commands") == 0
                   ? ablate_emit_commands(&ablation->work, request->output, error)
                   : ablate_emit_slurm(&ablation->work, request->output, error);
    }
    return run_all(ablation, code, error);
}

static int ablate(struct ablation *ablation, const char *file)
{
    struct error error = {.offset = NOWHERE, .record = NOWHERE};
    const struct request *request = &ablation->request;
    int code = EXIT_OK;
    ablation->overrides = (struct ablate_overrides){
        .data = request->data,
        .train = request->train,
        .test = request->test,
        .set = request->set.item,
        .set_count = request->set.count,
    };
    ablation->work = (struct ablate_work){
        .plan = &ablation->plan, .overrides = &ablation->overrides, .slots = request->jobs};
    enum status status = ablate_plan_read(&ablation->plan, file, &ablation->overrides, &error);
    if (status == STATUS_OK) {
        look_at_data(&ablation->plan);
        status = act(ablation, &code, &error);
    }
    if (status != STATUS_OK) {
        code = command_failed(&command_ablate, &error, request->json);
    }
    free(ablation->work.jobs);
    ablate_plan_free(&ablation->plan);
    return code;
}

static int run(int argc, char **argv)
{
    struct ablation ablation = {.request = {.jobs = 1}};
    struct request *request = &ablation.request;
    const struct option options[] = {
        {"output", 'o', OPTION_STRING, &request->output, 0, 0},
        {"data", 0, OPTION_STRING, &request->data, 0, 0},
        {"train", 0, OPTION_STRING, &request->train, 0, 0},
        {"test", 0, OPTION_STRING, &request->test, 0, 0},
        {"set", 0, OPTION_LIST, &request->set, 0, 0},
        {"only", 0, OPTION_LIST, &request->only, 0, 0},
        {"seed", 0, OPTION_LIST, &request->seeds, 0, 0},
        {"jobs", 'j', OPTION_INT, &request->jobs, 1, 1024},
        {"emit", 0, OPTION_STRING, &request->emit, 0, 0},
        {"dry-run", 0, OPTION_FLAG, &request->dry_run, 0, 0},
        {"table", 0, OPTION_FLAG, &request->table, 0, 0},
        {"json", 0, OPTION_FLAG, &request->json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &request->quiet, 0, 0},
    };
    struct option_list operands = {.count = 0};
    bool done = false;
    int code = command_options(&command_ablate, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (operands.count != 1 || request->output == NULL) {
        return command_misused(&command_ablate, "wants one FILE.yaml and -o DIR");
    }
    if (request->emit &&
        command_choice(&command_ablate, "emit", request->emit, "commands|slurm") < 0) {
        return EXIT_USAGE;
    }
    return ablate(&ablation, operands.item[0]);
}

const struct command command_ablate = {
    .name = "ablate",
    .summary = "which setting matters",
    .help = help,
    .run = run,
};
