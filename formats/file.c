// The seam to the file system. Each system call that changes the disk asks `file_fault` first, so
// tests can make any of them fail; each is made in one place below.
#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

int (*file_fault)(const char *call, const char *path);

// True when the test seam wants this call to fail; errno is then set.
static bool injected(const char *call, const char *path)
{
    int errnum = file_fault ? file_fault(call, path) : 0;
    if (errnum != 0) {
        errno = errnum;
    }
    return errnum != 0;
}

// --- reading -----------------------------------------------------------------------------------

enum status file_read_at(int fd, const char *path, void *buf, size_t len, uint64_t offset,
                         struct error *error)
{
    uint8_t *to = buf;
    size_t done = 0;
    while (done < len) {
        ssize_t got = pread(fd, to + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return error_errno(error, errno, path, offset + done, "read");
        }
        if (got == 0) {
            return error_set(error, STATUS_TRUNCATED, path, offset + done, NOWHERE,
                             "the file ends here, %zu bytes too early", len - done);
        }
        done += (size_t)got;
    }
    return STATUS_OK;
}

static enum status read_whole(int fd, const char *path, uint64_t limit, uint8_t **bytes,
                              size_t *len, struct error *error)
{
    struct stat about;
    if (fstat(fd, &about) != 0) {
        return error_errno(error, errno, path, NOWHERE, "look at");
    }
    if (!S_ISREG(about.st_mode)) {
        return error_set(error, STATUS_INVALID, path, NOWHERE, NOWHERE, "not a regular file");
    }
    uint64_t size = (uint64_t)about.st_size;
    if (size > limit) {
        return error_set(error, STATUS_LIMIT, path, NOWHERE, NOWHERE,
                         "%llu bytes long, the limit is %llu", (unsigned long long)size,
                         (unsigned long long)limit);
    }
    uint8_t *memory = malloc((size_t)size + 1);
    if (memory == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory for the file");
    }
    enum status status = file_read_at(fd, path, memory, (size_t)size, 0, error);
    if (status != STATUS_OK) {
        free(memory);
        return status;
    }
    memory[size] = 0;
    *bytes = memory;
    *len = (size_t)size;
    return STATUS_OK;
}

enum status file_read_all(const char *path, uint64_t limit, uint8_t **bytes, size_t *len,
                          struct error *error)
{
    *bytes = NULL;
    *len = 0;
    // O_NONBLOCK: opening a FIFO must not hang before the type is known.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    enum status status = read_whole(fd, path, limit, bytes, len, error);
    close(fd);
    return status;
}

// --- the steps of writing ----------------------------------------------------------------------

enum status file_create(int *fd, const char *path, struct error *error)
{
    *fd = injected("open", path)
              ? -1
              : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    return *fd < 0 ? error_errno(error, errno, path, NOWHERE, "create") : STATUS_OK;
}

enum status file_write_both(int fd, const char *path, const void *first, size_t first_len,
                            const void *second, size_t second_len, struct error *error)
{
    struct iovec pieces[2] = {{.iov_base = (void *)first, .iov_len = first_len},
                              {.iov_base = (void *)second, .iov_len = second_len}};
    struct iovec *piece = pieces, *end = pieces + 2;
    while (piece < end) {
        ssize_t done = injected("write", path) ? -1 : writev(fd, piece, (int)(end - piece));
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            int errnum = errno;
            off_t at = lseek(fd, 0, SEEK_CUR);
            return error_errno(error, errnum, path, at < 0 ? NOWHERE : (uint64_t)at, "write");
        }
        size_t left = (size_t)done;
        while (piece < end && left >= piece->iov_len) {
            left -= piece++->iov_len;
        }
        if (piece < end) {
            piece->iov_base = (uint8_t *)piece->iov_base + left;
            piece->iov_len -= left;
        }
    }
    return STATUS_OK;
}

enum status file_write_all(int fd, const char *path, const void *buf, size_t len,
                           struct error *error)
{
    return len == 0 ? STATUS_OK : file_write_both(fd, path, buf, len, NULL, 0, error);
}

void file_start_sync(int fd, uint64_t offset, uint64_t len)
{
    (void)!sync_file_range(fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

enum status file_sync(int fd, const char *path, struct error *error)
{
    int failed = injected("fsync", path) ? -1 : fsync(fd);
    return failed ? error_errno(error, errno, path, NOWHERE, "sync") : STATUS_OK;
}

enum status file_close(int *fd, const char *path, struct error *error)
{
    if (*fd < 0) {
        return STATUS_OK;
    }
    int errnum = injected("close", path) ? errno : 0;
    if (close(*fd) != 0 && errnum == 0) {
        errnum = errno;
    }
    *fd = -1; // closed whatever close said
    return errnum ? error_errno(error, errnum, path, NOWHERE, "close") : STATUS_OK;
}

enum status file_sync_all(const char *directory, struct error *error)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return error_errno(error, errno, directory, NOWHERE, "open the directory");
    }
    int errnum = injected("fsync", directory) || syncfs(fd) != 0 ? errno : 0;
    close(fd);
    return errnum ? error_errno(error, errnum, directory, NOWHERE, "sync") : STATUS_OK;
}

enum status file_sync_directory(const char *path, struct error *error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "open the directory");
    }
    int errnum = injected("fsyncdir", path) || fsync(fd) != 0 ? errno : 0;
    close(fd);
    // Some network file systems cannot sync directories and say EINVAL: nothing better to do there.
    return errnum && errnum != EINVAL
               ? error_errno(error, errnum, path, NOWHERE, "sync the directory")
               : STATUS_OK;
}

// Syncs the directory that holds `path`.
static enum status sync_parent(const char *path, struct error *error)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return file_sync_directory(".", error);
    }
    char parent[512];
    int len = slash == path ? 1 : (int)(slash - path);
    snprintf(parent, sizeof parent, "%.*s", len, path);
    return file_sync_directory(parent, error);
}

enum status file_rename(const char *from, const char *to, struct error *error)
{
    int failed = injected("rename", to) ? -1 : rename(from, to);
    if (failed) {
        return error_errno(error, errno, to, NOWHERE, "rename the finished file to this");
    }
    return sync_parent(to, error);
}

// --- durable replace ---------------------------------------------------------------------------

enum status file_replace_open(struct file_replace *file, const char *path, struct error *error)
{
    *file = (struct file_replace){.fd = -1};
    if ((size_t)snprintf(file->path, sizeof file->path, "%s", path) >= sizeof file->path) {
        return error_set(error, STATUS_LIMIT, path, NOWHERE, NOWHERE,
                         "the path is longer than %zu bytes", sizeof file->path - 1);
    }
    snprintf(file->temporary, sizeof file->temporary, "%s.tmp-%ld", path, (long)getpid());
    enum status status = file_create(&file->fd, file->temporary, error);
    if (status == STATUS_EXISTS) {
        // Left by a killed process whose number we were given: nobody alive writes it.
        unlink(file->temporary);
        status = file_create(&file->fd, file->temporary, error);
    }
    return status;
}

void file_replace_abort(struct file_replace *file)
{
    if (file->fd >= 0) {
        close(file->fd);
        file->fd = -1;
        unlink(file->temporary);
    }
}

enum status file_replace_write(struct file_replace *file, const void *buf, size_t len,
                               struct error *error)
{
    enum status status = file_write_all(file->fd, file->path, buf, len, error);
    if (status != STATUS_OK) {
        file_replace_abort(file);
    }
    return status;
}

enum status file_replace_commit(struct file_replace *file, struct error *error)
{
    enum status status = file_sync(file->fd, file->path, error);
    if (status != STATUS_OK) {
        file_replace_abort(file);
        return status;
    }
    status = file_close(&file->fd, file->path, error);
    if (status == STATUS_OK) {
        status = file_rename(file->temporary, file->path, error);
    }
    if (status != STATUS_OK) {
        unlink(file->temporary); // gone already when only the directory's sync failed
    }
    return status;
}

enum status file_write_durably(const char *path, const void *buf, size_t len, struct error *error)
{
    struct file_replace file;
    enum status status = file_replace_open(&file, path, error);
    if (status == STATUS_OK) {
        status = file_replace_write(&file, buf, len, error);
    }
    if (status == STATUS_OK) {
        status = file_replace_commit(&file, error);
    }
    return status;
}

// --- directories -------------------------------------------------------------------------------

static enum status make_directory(const char *path, struct error *error)
{
    int failed = injected("mkdir", path) ? -1 : mkdir(path, 0777);
    if (!failed) {
        return STATUS_OK;
    }
    int errnum = errno;
    struct stat about;
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode)) {
        return STATUS_OK;
    }
    return error_errno(error, errnum, path, NOWHERE, "make the directory");
}

enum status file_make_directories(const char *path, struct error *error)
{
    char prefix[512];
    if ((size_t)snprintf(prefix, sizeof prefix, "%s", path) >= sizeof prefix) {
        return error_set(error, STATUS_LIMIT, path, NOWHERE, NOWHERE,
                         "the path is longer than %zu bytes", sizeof prefix - 1);
    }
    for (char *at = prefix + 1; prefix[0] != '\0' && *at != '\0'; at++) {
        if (*at != '/') {
            continue;
        }
        *at = '\0';
        enum status status = make_directory(prefix, error);
        if (status != STATUS_OK) {
            return status;
        }
        *at = '/';
    }
    return make_directory(prefix, error);
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}
