// Making, locking and tidying a run directory.
#include "trainer/run/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/file.h"

enum status run_directory_path(const char *run_directory, const char *name, char *path,
                               struct error *error)
{
    int len = snprintf(path, RUN_PATH, "%s/%s", run_directory, name);
    // Errors and checkpoints carry paths of at most 511 bytes; refuse early what would be cut.
    if (len < 0 || len >= 400) {
        return error_set(error, STATUS_LIMIT, run_directory, NOWHERE, NOWHERE,
                         "the path of the run directory is too long");
    }
    return STATUS_OK;
}

// A temporary is NAME.tmp-PID (file.h). Holding the lock, nobody else can be writing one.
static void remove_temporaries(const char *directory)
{
    DIR *stream = opendir(directory);
    if (stream == NULL) {
        return;
    }
    for (const struct dirent *entry; (entry = readdir(stream));) {
        const char *mark = strstr(entry->d_name, ".tmp-");
        if (mark && mark[5] && mark[5 + strspn(mark + 5, "0123456789")] == '\0') {
            unlinkat(dirfd(stream), entry->d_name, 0);
        }
    }
    closedir(stream);
}

static enum status refuse_locked(int lock, const char *run_directory, struct error *error)
{
    char owner[32] = "";
    ssize_t len = pread(lock, owner, sizeof owner - 1, 0);
    owner[len > 0 ? len : 0] = '\0';
    owner[strcspn(owner, "\n")] = '\0';
    return error_set(error, STATUS_DENIED, run_directory, NOWHERE, NOWHERE,
                     "another process (%s) is writing this run: wait for it, or stop it with "
                     "SIGTERM",
                     owner[0] ? owner : "unknown");
}

static enum status take_lock(const char *run_directory, int *lock, struct error *error)
{
    char path[RUN_PATH];
    enum status status = run_directory_path(run_directory, "lock", path, error);
    if (status != STATUS_OK) {
        return status;
    }
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (*lock < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    if (flock(*lock, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK ? refuse_locked(*lock, run_directory, error)
                                    : error_errno(error, errno, path, NOWHERE, "lock");
    }
    char owner[32];
    int len = snprintf(owner, sizeof owner, "%ld\n", (long)getpid());
    // Who holds it is a courtesy to the next one; on a full disk the lock holds all the same.
    if (ftruncate(*lock, 0) == 0 && pwrite(*lock, owner, (size_t)len, 0) < 0) {
        errno = 0;
    }
    return STATUS_OK;
}

enum status run_directory_open(const char *run_directory, int *lock, struct error *error)
{
    char checkpoints[RUN_PATH];
    *lock = -1;
    enum status status = run_directory_path(run_directory, "checkpoints", checkpoints, error);
    if (status == STATUS_OK) {
        status = file_make_directories(checkpoints, error);
    }
    if (status == STATUS_OK) {
        status = take_lock(run_directory, lock, error);
    }
    if (status == STATUS_OK) {
        remove_temporaries(run_directory);
        remove_temporaries(checkpoints);
    } else {
        run_directory_close(lock);
    }
    return status;
}

void run_directory_close(int *lock)
{
    if (*lock >= 0) {
        close(*lock);
    }
    *lock = -1;
}

bool run_directory_used(const char *run_directory)
{
    char path[RUN_PATH];
    struct stat log;
    bool used = run_directory_path(run_directory, "metrics.jsonl", path, NULL) == STATUS_OK &&
                stat(path, &log) == 0 && log.st_size > 0;
    DIR *stream = run_directory_path(run_directory, "checkpoints", path, NULL) == STATUS_OK
                      ? opendir(path)
                      : NULL;
    if (stream) {
        for (const struct dirent *entry; (entry = readdir(stream));) {
            used |= strstr(entry->d_name, ".safetensors") != NULL;
        }
        closedir(stream);
    }
    return used;
}
