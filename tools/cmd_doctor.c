// `byol doctor`: what this machine has, and which stage of a run will limit it.
#include "tools/command.h"
#include "tools/doctor.h"
#include "tools/progress.h"
#include "tools/recipe_option.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: byol doctor [--data DATASET] [options]\n"
    "\n"
    "Says what this machine has (cores, vector instructions, memory, io_uring, devices,\n"
    "MPI, libraries), how fast its disk reads, and which stage of a run will limit it:\n"
    "disk, decoding, augmentation or the network's step. Each is measured by itself for\n"
    "about a second, in pairs of views per second, to about a fifth on a quiet machine;\n"
    "'byol bench' measures them at length.\n"
    "\n"
    "Without --data it draws images, and reads the disk of the current directory from a\n"
    "64 MiB file that is gone afterwards.\n"
    "\n"
    "Options:\n"
    "  --data DATASET       what the run will learn from\n"
    "  --recipe NAME|FILE   as for 'byol pretrain': its views, or all of its settings\n"
    "  --set KEY=VALUE      one setting of the run; may be repeated\n"
    "  --machine            only what the machine has; measures nothing but the disk\n"
    "  --json               print the result as JSON\n"
    "  --quiet              no progress line\n"
    "\n"
    "Examples:\n"
    "  byol doctor\n"
    "  byol doctor --data train --recipe small --set encoder=resnet18 --set batch=128\n"
    "\n"
    "Exit codes: 0 all that the run needs is there, 1 something is missing or broken,\n"
    "2 wrong usage.\n";

struct request {
    const char *data, *recipe;
    struct option_list set;
    bool machine, json, quiet;
};

static int parse(struct request *request, int argc, char **argv, bool *done)
{
    const struct option options[] = {
        {"data", 0, OPTION_STRING, &request->data, 0, 0},
        {"recipe", 'r', OPTION_STRING, &request->recipe, 0, 0},
        {"set", 0, OPTION_LIST, &request->set, 0, 0},
        {"machine", 0, OPTION_FLAG, &request->machine, 0, 0},
        {"json", 0, OPTION_FLAG, &request->json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &request->quiet, 0, 0},
    };
    struct option_list operands;
    int code = command_options(&command_doctor, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, done);
    if (code != EXIT_OK || *done) {
        return code;
    }
    return operands.count == 0 ? EXIT_OK
                               : command_misused(&command_doctor,
                                                 "'%s' is not an option; a "
                                                 "dataset is named by --data",
                                                 operands.item[0]);
}

// As `byol pretrain` understands them.
static enum status resolve(const struct request *request, struct run_config *config,
                           struct error *error)
{
    char base[640];
    const char *assignments[OPTION_LIST_MAX + 1];
    size_t count = 0;
    bool is_file = request->recipe && recipe_option_is_file(request->recipe);
    if (request->recipe && !is_file) {
        snprintf(base, sizeof base, "views.base=%s", request->recipe);
        assignments[count++] = base;
    }
    for (size_t i = 0; i < request->set.count; i++) {
        assignments[count++] = request->set.item[i];
    }
    enum status status =
        run_config_resolve(config, is_file ? request->recipe : NULL, assignments, count, error);
    return status == STATUS_OK ? run_config_validate(config, error) : status;
}

static void print(const struct request *request, const struct doctor_machine *machine,
                  const struct doctor_disk *disk, const struct doctor_run *run)
{
    if (request->json) {
        doctor_print_json(machine, disk, run);
    } else {
        doctor_print_text(machine, disk, run);
    }
}

// What is known of the machine is told also where the run cannot be.
static int examine(const struct request *request, struct doctor_run *run)
{
    struct doctor_machine machine;
    struct doctor_disk disk = {0};
    struct progress progress;
    struct error error;
    enum status status = STATUS_OK;
    progress_begin(&progress, request->quiet);
    progress_line(&progress, progress.terminal, "measuring for some seconds ...");
    doctor_machine(&machine);
    if (request->machine) {
        doctor_disk(&disk, NULL);
    } else {
        status = doctor_measure(run, &disk, &machine, request->data, &error);
    }
    progress_end(&progress);
    bool measured = !request->machine && status == STATUS_OK;
    if (status == STATUS_OK || !request->json) {
        print(request, &machine, &disk, measured ? run : NULL);
    }
    return status == STATUS_OK ? EXIT_OK : command_failed(&command_doctor, &error, request->json);
}

static int run(int argc, char **argv)
{
    bool done;
    struct error error;
    struct request *request = calloc(1, sizeof *request);
    struct doctor_run *examined = calloc(1, sizeof *examined);
    int code = EXIT_FAILED;
    if (request == NULL || examined == NULL) {
        perror("byol doctor");
    } else {
        code = parse(request, argc, argv, &done);
        if (code == EXIT_OK && !done) {
            code = resolve(request, &examined->config, &error) == STATUS_OK
                       ? examine(request, examined)
                       : command_failed(&command_doctor, &error, request->json);
        }
    }
    free(examined);
    free(request);
    return code;
}

const struct command command_doctor = {
    .name = "doctor",
    .summary = "what limits this machine",
    .help = help,
    .run = run,
};
