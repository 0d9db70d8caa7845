// What an ablation would run, and the lines by which something else runs it.
#include "tools/ablate_emit.h"

#include "formats/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *stage_name(const struct ablate_work *work, const struct ablate_job *job)
{
    int stage = ablate_next_stage(work->plan, &job->state);
    return stage < 0            ? "done"
           : stage > 0          ? "to be measured"
           : job->state.started ? "goes on"
                                : "to be trained";
}

static enum status show_command(struct ablate_command *command, struct error *error)
{
    char *text = ablate_command_text(command);
    ablate_command_free(command);
    if (text == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a command");
    }
    printf("    %s\n", text);
    free(text);
    return STATUS_OK;
}

static enum status show_job(const struct ablate_work *work, const struct ablate_job *job,
                            struct error *error)
{
    const struct ablate_plan *plan = work->plan;
    struct ablate_command command;
    int stage = ablate_next_stage(plan, &job->state);
    enum status status = STATUS_OK;
    printf("%s, seed %" PRId64 ": %s\n", job->row->name, job->seed, stage_name(work, job));
    if (stage == 0) {
        status = ablate_command_train(&command, plan, job->row, work->overrides, job->seed, 0,
                                      job->directory, error);
        status = status == STATUS_OK ? show_command(&command, error) : status;
    }
    for (size_t i = 0; status == STATUS_OK && i < plan->measure_count; i++) {
        if (!job->state.measured[i].done) {
            status = ablate_command_measure(&command, plan, i, 0, job->directory, error);
            status = status == STATUS_OK ? show_command(&command, error) : status;
        }
    }
    return status;
}

enum status ablate_show_plan(const struct ablate_work *work, struct error *error)
{
    size_t left = 0;
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < work->count; i++) {
        left += ablate_next_stage(work->plan, &work->jobs[i].state) >= 0;
        status = show_job(work, &work->jobs[i], error);
    }
    for (size_t i = 0; i < work->plan->row_count; i++) {
        const struct ablate_row *row = &work->plan->rows[i];
        if (row->waits_for[0]) {
            printf("%s: waits for %s\n", row->name, row->waits_for);
        }
    }
    printf("%zu runs, %zu of them have something left to do\n", work->count, left);
    return status;
}

static void add_path(struct ablate_command *command, const char *option, const char *path)
{
    if (path[0]) {
        ablate_command_add(command, "--%s=%s", option, path);
    }
}

// A run by itself is an ablation of one row and one seed: skipping, going on and keeping the
// results are this program's.
static char *emitted_line(const struct ablate_work *work, const char *output,
                          const struct ablate_job *job)
{
    struct ablate_command command = {0};
    ablate_command_add(&command, "byol");
    ablate_command_add(&command, "ablate");
    ablate_command_add(&command, "%s", work->plan->path);
    add_path(&command, "output", output);
    add_path(&command, "data", work->plan->data);
    add_path(&command, "train", work->plan->train);
    add_path(&command, "test", work->plan->test);
    for (size_t i = 0; i < work->overrides->set_count; i++) {
        ablate_command_add(&command, "--set=%s", work->overrides->set[i]);
    }
    ablate_command_add(&command, "--only=%s", job->row->slug);
    ablate_command_add(&command, "--seed=%" PRId64, job->seed);
    char *text = command.failed ? NULL : ablate_command_text(&command);
    ablate_command_free(&command);
    return text;
}

// A line for each run that is left.
static enum status put_commands(const struct ablate_work *work, const char *output, FILE *stream,
                                size_t *count, struct error *error)
{
    enum status status = STATUS_OK;
    *count = 0;
    for (size_t i = 0; status == STATUS_OK && i < work->count; i++) {
        const struct ablate_job *job = &work->jobs[i];
        if (ablate_next_stage(work->plan, &job->state) < 0) {
            continue;
        }
        char *line = emitted_line(work, output, job);
        if (line == NULL) {
            status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                               "no memory for a command");
        } else if (!ablate_plain_text(line)) {
            status = error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                               "a path or a setting has a control character: it fits no line");
        } else {
            fprintf(stream, "%s\n", line);
        }
        free(line);
        (*count)++;
    }
    return status;
}

enum status ablate_emit_commands(const struct ablate_work *work, const char *output,
                                 struct error *error)
{
    size_t count;
    return put_commands(work, output, stdout, &count, error);
}

// --- a job array ---------------------------------------------------------------------------------

static const char slurm_head[] = "#!/bin/sh\n"
                                 "#SBATCH --job-name=byol-ablate\n"
                                 "#SBATCH --array=1-%zu\n"
                                 "#SBATCH --requeue\n"
                                 "#SBATCH --signal=B:TERM@120\n"
                                 "#SBATCH --output=\"";
static const char slurm_body[] =
    "/slurm-%a.log\"\n"
    "# Line N of commands.txt is task N of the array: one run with one seed. A task that is given "
    "a\n"
    "# signal writes a checkpoint; started again, it goes on from there, and what is done is\n"
    "# skipped. Add what your cluster wants: --time, --partition, --gres, --cpus-per-task.\n"
    "commands=";
static const char slurm_tail[] =
    "\n"
    "eval \"exec $(sed -n \"${SLURM_ARRAY_TASK_ID:?is set by sbatch}p\" \"$commands\")\"\n";

// A file's name for sbatch, in double quotes: % and \ are its own signs.
static void put_pattern(FILE *script, const char *path)
{
    for (; *path; path++) {
        if (*path == '%') {
            fputc('%', script);
        } else if (*path == '"' || *path == '\\') {
            fputc('\\', script);
        }
        fputc(*path, script);
    }
}

static enum status write_script(const char *path, const char *commands, const char *output,
                                size_t count, struct error *error)
{
    char *text = NULL;
    size_t len = 0;
    FILE *script = open_memstream(&text, &len);
    if (script != NULL) {
        fprintf(script, slurm_head, count);
        put_pattern(script, output);
        fputs(slurm_body, script);
        ablate_put_quoted(script, commands);
        fputs(slurm_tail, script);
    }
    enum status status = script && fclose(script) == 0
                             ? file_write_durably(path, text, len, error)
                             : error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE,
                                         "no memory for the script");
    free(text);
    return status;
}

static enum status write_commands(const struct ablate_work *work, const char *path,
                                  const char *output, size_t *count, struct error *error)
{
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    enum status status = stream ? put_commands(work, output, stream, count, error) : STATUS_OK;
    if (stream == NULL || fclose(stream) != 0) {
        status = error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE,
                           "no memory for the commands");
    }
    if (status == STATUS_OK && *count > 0) {
        status = file_make_directories(output, error);
        status = status == STATUS_OK ? file_write_durably(path, text, len, error) : status;
    }
    free(text);
    return status;
}

enum status ablate_emit_slurm(const struct ablate_work *work, const char *output,
                              struct error *error)
{
    char commands[RUN_PATH], script[RUN_PATH];
    size_t count = 0;
    enum status status = run_directory_path(output, "commands.txt", commands, error);
    if (status == STATUS_OK) {
        status = run_directory_path(output, "slurm.sh", script, error);
    }
    if (status == STATUS_OK) {
        status = write_commands(work, commands, output, &count, error);
    }
    if (status == STATUS_OK && count == 0) {
        printf("nothing is left to do\n");
        return STATUS_OK;
    }
    if (status == STATUS_OK) {
        status = write_script(script, commands, output, count, error);
    }
    if (status == STATUS_OK) {
        printf("%zu runs: submit with 'sbatch %s', then 'byol ablate %s -o %s --table'\n", count,
               script, work->plan->path, output);
    }
    return status;
}
