// The children of an ablation: starting, watching, stopping.
//
// Each child leads a process group of its own, so that a terminal's Ctrl-C reaches only this
// process, which passes it on. A child is told to stop when this process dies in any way.
//
// A run's log is its lock too: this process holds it from the first stage to the last, and a child
// inherits it, so that one which outlives its parent still has the run while it writes its last
// checkpoint.
#include "tools/ablate_run.h"

#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_BYTES   (1u << 20) // of a child's JSON
#define TAIL_BYTES     4096       // of metrics.jsonl: more than its longest line
#define MOST_ENDINGS   3u         // of one job's children by signals, before it is given up
#define LOCKED_SECONDS 2.0        // between looks at a run that another process has

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

int ablate_next_stage(const struct ablate_plan *plan, const struct ablate_state *state)
{
    if (!state->trained) {
        return 0;
    }
    for (size_t i = 0; i < plan->measure_count; i++) {
        if (!state->measured[i].done) {
            return (int)i + 1;
        }
    }
    return -1;
}

// --- signals -------------------------------------------------------------------------------------

static volatile sig_atomic_t signals_seen, last_signal;

static void on_signal(int number)
{
    signals_seen++;
    last_signal = number;
}

static void on_child(int number)
{
    (void)number; // only wakes the sleeper
}

// What was ignored from the start (nohup, a shell's background) stays ignored.
static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal}, old;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
    action.sa_handler = on_child;
    sigaction(SIGCHLD, &action, NULL);
}

// --- starting ------------------------------------------------------------------------------------

static void become(const struct ablate_job *job, const struct ablate_command *command, pid_t parent)
{
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD};
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        signal(taken[i], SIG_DFL);
    }
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (getppid() == parent && nothing >= 0 && dup2(nothing, STDIN_FILENO) >= 0 &&
        dup2(job->output, STDOUT_FILENO) >= 0 && dup2(job->log, STDERR_FILENO) >= 0) {
        execv("/proc/self/exe", command->item);
    }
    _exit(127);
}

// `*taken`: another process has the run.
static enum status open_log(struct ablate_job *job, bool *taken, struct error *error)
{
    char path[RUN_PATH];
    enum status status = file_make_directories(job->directory, error);
    if (status == STATUS_OK) {
        status = run_directory_path(job->directory, "ablate.log", path, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    job->log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (job->log < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    if (flock(job->log, LOCK_EX | LOCK_NB) != 0) {
        *taken = errno == EWOULDBLOCK;
        status = *taken ? STATUS_OK : error_errno(error, errno, path, NOWHERE, "lock");
        close(job->log);
        job->log = -1;
    }
    return status;
}

static void close_log(struct ablate_job *job)
{
    if (job->log >= 0) {
        close(job->log);
    }
    job->log = -1;
}

static enum status spawn(struct ablate_job *job, const struct ablate_command *command,
                         struct error *error)
{
    job->output = memfd_create("ablate", MFD_CLOEXEC);
    pid_t parent = getpid(), pid = job->output < 0 ? -1 : fork();
    if (pid == 0) {
        become(job, command, parent);
    }
    if (pid < 0) {
        enum status status = error_errno(error, errno, job->directory, NOWHERE, "start a process");
        if (job->output >= 0) {
            close(job->output);
        }
        return status;
    }
    job->pid = pid;
    return STATUS_OK;
}

// Several at a time share the cores, unless the row says how many threads it wants.
static int64_t thread_share(const struct ablate_work *work, const struct ablate_row *row)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (work->slots == 1 || row->config.threads > 0) {
        return 0;
    }
    return cores > work->slots ? cores / work->slots : 1;
}

static enum status start_stage(struct ablate_work *work, struct ablate_job *job,
                               struct error *error)
{
    struct ablate_command command;
    int64_t threads = thread_share(work, job->row);
    job->stage = ablate_next_stage(work->plan, &job->state);
    enum status status = job->stage == 0
                             ? ablate_command_train(&command, work->plan, job->row, work->overrides,
                                                    job->seed, threads, job->directory, error)
                             : ablate_command_measure(&command, work->plan, (size_t)job->stage - 1,
                                                      threads, job->directory, error);
    if (status == STATUS_OK) {
        status = spawn(job, &command, error);
    }
    ablate_command_free(&command);
    return status;
}

// --- endings -------------------------------------------------------------------------------------

// The JSON that the child printed; NULL without one.
static json_t *read_output(struct ablate_job *job)
{
    off_t len = lseek(job->output, 0, SEEK_END);
    char *text = len > 0 && len <= (off_t)OUTPUT_BYTES ? malloc((size_t)len) : NULL;
    json_t *object = NULL;
    if (text && file_read_at(job->output, "", text, (size_t)len, 0, NULL) == STATUS_OK) {
        object = json_loadb(text, (size_t)len, JSON_DISABLE_EOF_CHECK, NULL);
    }
    free(text);
    close(job->output);
    job->output = -1;
    return object;
}

static void fail(struct ablate_work *work, struct ablate_job *job, const char *reason)
{
    struct error error;
    snprintf(job->state.failure, sizeof job->state.failure, "%s", reason);
    job->over = true;
    close_log(job);
    progress_notice(work->progress, "FAILED: %s, seed %" PRId64 ": %s (see %s/ablate.log)",
                    job->row->name, job->seed, reason, job->directory);
    if (ablate_store_failure(job->directory, reason, &error) != STATUS_OK) {
        progress_notice(work->progress, "and that could not be kept: %s", error.reason);
    }
}

static enum status keep_result(struct ablate_work *work, struct ablate_job *job, json_t *result,
                               struct error *error)
{
    if (job->stage > 0) {
        return ablate_store_measure(job->directory, work->plan, (size_t)job->stage - 1, result,
                                    error);
    }
    return ablate_store_trained(job->directory, result, error);
}

static void say_result(struct ablate_work *work, const struct ablate_job *job)
{
    const struct ablate_state *state = &job->state;
    char seconds[16];
    if (job->stage == 0) {
        progress_notice(work->progress, "%s, seed %" PRId64 ": trained in %s, loss %.4f",
                        job->row->name, job->seed, progress_duration(state->seconds, seconds),
                        state->loss);
    } else {
        progress_notice(work->progress, "%s, seed %" PRId64 ": %s %.2f%%", job->row->name,
                        job->seed, work->plan->measures[job->stage - 1].name,
                        state->measured[job->stage - 1].top1);
    }
}

static void succeed(struct ablate_work *work, struct ablate_job *job, json_t *result)
{
    struct error error = {.status = STATUS_OK};
    enum status status = keep_result(work, job, result, &error);
    if (status == STATUS_OK) {
        status =
            ablate_state_read(work->plan, job->row, job->seed, job->directory, &job->state, &error);
    }
    bool kept = job->stage == 0 ? job->state.trained : job->state.measured[job->stage - 1].done;
    if (status != STATUS_OK || !kept) {
        char text[sizeof error.path + sizeof error.reason];
        fail(work, job,
             status != STATUS_OK ? error_text(&error, text, sizeof text)
                                 : "its result cannot be read back");
        return;
    }
    job->ended_early = 0;
    say_result(work, job);
    job->over = ablate_next_stage(work->plan, &job->state) < 0;
    if (job->over) {
        job->state.failure[0] = '\0';
        ablate_store_failure(job->directory, NULL, NULL);
        close_log(job);
    }
}

// Ended before its time, by a signal or a request: it goes on from its checkpoint.
static void again(struct ablate_work *work, struct ablate_job *job, const char *why)
{
    if (++job->ended_early >= MOST_ENDINGS) {
        fail(work, job, why);
        return;
    }
    job->retry_at = now() + 1;
    progress_notice(work->progress, "%s, seed %" PRId64 ": %s; going on from its checkpoint",
                    job->row->name, job->seed, why);
}

static void end_with_code(struct ablate_work *work, struct ablate_job *job, int code,
                          json_t *result)
{
    const char *error = json_string_value(json_object_get(result, "error"));
    const char *ended = json_string_value(json_object_get(result, "ended"));
    char text[64];
    if (code == 0 && result && ended && strcmp(ended, "finished") != 0) {
        again(work, job, "was stopped");
    } else if (code == 0 && result) {
        succeed(work, job, result);
    } else {
        snprintf(text, sizeof text, "ended with exit code %d", code);
        fail(work, job, error ? error : text);
    }
}

static void end_job(struct ablate_work *work, struct ablate_job *job, int status)
{
    job->pid = 0;
    json_t *result = read_output(job);
    if (work->stopped_by && !(WIFEXITED(status) && WEXITSTATUS(status) == 0 && job->stage > 0)) {
        const char *ended = json_string_value(json_object_get(result, "ended"));
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && ended &&
            strcmp(ended, "finished") == 0) {
            succeed(work, job, result);
        }
    } else if (WIFSIGNALED(status)) {
        char text[64];
        snprintf(text, sizeof text, "was ended by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
        again(work, job, text);
    } else {
        end_with_code(work, job, WEXITSTATUS(status), result);
    }
    json_decref(result);
}

static void collect(struct ablate_work *work)
{
    for (size_t i = 0; i < work->count; i++) {
        struct ablate_job *job = &work->jobs[i];
        int status;
        if (job->pid > 0 && waitpid(job->pid, &status, WNOHANG) == job->pid) {
            end_job(work, job, status);
        }
    }
}

// --- progress ------------------------------------------------------------------------------------

// The step of the last whole line of the run's log.
static double last_step(const struct ablate_job *job)
{
    char path[RUN_PATH], tail[TAIL_BYTES + 1];
    if (run_directory_path(job->directory, "metrics.jsonl", path, NULL) != STATUS_OK) {
        return 0;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t len = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t from = len > TAIL_BYTES ? len - TAIL_BYTES : 0;
    ssize_t got = fd < 0 ? 0 : pread(fd, tail, TAIL_BYTES, from);
    if (fd >= 0) {
        close(fd);
    }
    tail[got > 0 ? got : 0] = '\0';
    static const char mark[] = "{\"step\":";
    double step = 0;
    for (const char *at = tail; (at = strstr(at, mark)); at += sizeof mark - 1) {
        step = strtod(at + sizeof mark - 1, NULL);
    }
    return step;
}

static void refresh(struct ablate_job *job)
{
    double pairs = last_step(job) * (double)job->row->config.batch;
    job->done_pairs = job->state.trained || pairs > job->pairs ? job->pairs : pairs;
}

static void show(struct ablate_work *work)
{
    double done = 0, all = 0;
    size_t over = 0, running = 0;
    const struct ablate_job *shown = NULL;
    for (size_t i = 0; i < work->count; i++) {
        struct ablate_job *job = &work->jobs[i];
        if (job->pid > 0) {
            refresh(job);
            shown = shown ? shown : job;
        }
        running += job->pid > 0;
        over += job->over;
        all += job->pairs;
        done += job->over ? job->pairs : job->done_pairs;
    }
    double here = done - work->pairs_before, elapsed = now() - work->began;
    double left = here > 0 ? (all - done) * elapsed / here : NAN;
    char duration[16], others[32] = "";
    if (running > 1) {
        snprintf(others, sizeof others, " and %zu more", running - 1);
    }
    if (shown) {
        progress_line(work->progress, false,
                      "%zu/%zu runs  %.0f%%  %.60s, seed %" PRId64 ": %s%s  ETA %s", over,
                      work->count, all > 0 ? 100 * done / all : 0, shown->row->name, shown->seed,
                      shown->stage == 0 ? "training" : work->plan->measures[shown->stage - 1].name,
                      others, progress_duration(left, duration));
    }
}

// --- the loop ------------------------------------------------------------------------------------

static void pass_signals_on(struct ablate_work *work)
{
    int seen = signals_seen;
    if (seen == work->forwarded) {
        return;
    }
    if (!work->stopped_by) {
        progress_notice(work->progress, "stopping: runs finish their step and write a checkpoint");
    }
    work->stopped_by = last_signal;
    for (size_t i = 0; i < work->count; i++) {
        if (work->jobs[i].pid > 0) {
            kill(work->jobs[i].pid, SIGTERM);
        }
    }
    work->forwarded = seen;
}

static size_t running_jobs(const struct ablate_work *work)
{
    size_t running = 0;
    for (size_t i = 0; i < work->count; i++) {
        running += work->jobs[i].pid > 0;
    }
    return running;
}

// Takes the run, if nobody else has it, and looks again at what is left: another process may have
// done it meanwhile.
static enum status take_run(struct ablate_work *work, struct ablate_job *job, bool *taken,
                            struct error *error)
{
    enum status status = job->log < 0 ? open_log(job, taken, error) : STATUS_OK;
    return status == STATUS_OK && !*taken ? ablate_state_read(work->plan, job->row, job->seed,
                                                              job->directory, &job->state, error)
                                          : status;
}

static void start_job(struct ablate_work *work, struct ablate_job *job)
{
    struct error error;
    char text[sizeof error.path + sizeof error.reason];
    bool taken = false;
    enum status status = take_run(work, job, &taken, &error);
    if (taken) {
        if (!job->told) {
            progress_notice(work->progress, "%s, seed %" PRId64 ": another process works on it",
                            job->row->name, job->seed);
        }
        job->told = true;
        job->retry_at = now() + LOCKED_SECONDS;
        return;
    }
    job->over = status == STATUS_OK && ablate_next_stage(work->plan, &job->state) < 0;
    if (job->over) {
        close_log(job);
        return;
    }
    if (status == STATUS_OK) {
        status = start_stage(work, job, &error);
    }
    if (status != STATUS_OK) {
        fail(work, job, error_text(&error, text, sizeof text));
    }
}

// Fills the free slots; true when a job waits for one, or for its time.
static bool start_jobs(struct ablate_work *work)
{
    size_t running = running_jobs(work);
    bool waiting = false;
    for (size_t i = 0; i < work->count; i++) {
        struct ablate_job *job = &work->jobs[i];
        if (job->pid > 0 || job->over) {
            continue;
        }
        if (job->retry_at <= now() && running < (size_t)work->slots) {
            start_job(work, job);
        }
        running += job->pid > 0;
        waiting |= job->pid == 0 && !job->over;
    }
    return waiting;
}

static void prepare(struct ablate_work *work)
{
    work->began = now();
    work->pairs_before = 0;
    for (size_t i = 0; i < work->count; i++) {
        struct ablate_job *job = &work->jobs[i];
        refresh(job);
        job->over = ablate_next_stage(work->plan, &job->state) < 0;
        work->pairs_before += job->done_pairs;
    }
}

void ablate_work_run(struct ablate_work *work)
{
    catch_signals();
    prepare(work);
    for (;;) {
        pass_signals_on(work);
        collect(work);
        bool waiting = !work->stopped_by && start_jobs(work);
        if (running_jobs(work) == 0 && !waiting) {
            break;
        }
        show(work);
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL); // signals cut it short
    }
}
