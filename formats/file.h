// The seam to the file system: whole-file reads, positioned reads and writes that finish, and the
// one durable way to put a file in place. Everything that writes a file others rely on goes through
// here, and so do the tests' injected failures.
#ifndef FORMATS_FILE_H
#define FORMATS_FILE_H

#include "formats/status.h"

#include <stdbool.h>

// Reads a regular file of at most `limit` bytes into malloc'ed memory (one NUL byte is added past
// the end).
enum status file_read_all(const char *path, uint64_t limit, uint8_t **bytes, size_t *len,
                          struct error *error);

// Reads exactly `len` bytes at `offset`; EINTR and short reads are resumed; an early end is
// STATUS_TRUNCATED.
enum status file_read_at(int fd, const char *path, void *buf, size_t len, uint64_t offset,
                         struct error *error);

// Writes all of it at the current position; EINTR and short writes are resumed.
enum status file_write_all(int fd, const char *path, const void *buf, size_t len,
                           struct error *error);

// The same with two pieces, one behind the other.
enum status file_write_both(int fd, const char *path, const void *first, size_t first_len,
                            const void *second, size_t second_len, struct error *error);

// Starts bringing what was written of `offset` on (all behind it: `len` 0) to the disk, so that a
// later sync waits less. A hint: nothing is promised, and what fails is said by that sync.
void file_start_sync(int fd, uint64_t offset, uint64_t len);

// A file being written. It appears under its name only when file_commit succeeds (create
// PATH.tmp-PID exclusively, write, fsync, rename, fsync the directory); until then, and after any
// error, an older file of that name is untouched and the temporary is gone. A failed sync is never
// retried on the same file.
struct file_replace {
    int fd; // -1 when closed
    char path[512];
    char temporary[544];
};
enum status file_replace_open(struct file_replace *file, const char *path, struct error *error);
enum status file_replace_write(struct file_replace *file, const void *buf, size_t len,
                               struct error *error);
enum status file_replace_commit(struct file_replace *file, struct error *error);
void file_replace_abort(struct file_replace *file); // harmless after commit or on {.fd = -1}

// The three calls in one.
enum status file_write_durably(const char *path, const void *buf, size_t len, struct error *error);

// The steps by themselves, for writers of several files. file_create makes a new file (mode 0644 &
// ~umask) and refuses an existing name; file_close sets *fd to -1 and harmlessly accepts that;
// file_rename replaces `to` and syncs its directory.
enum status file_create(int *fd, const char *path, struct error *error);
enum status file_sync(int fd, const char *path, struct error *error);
enum status file_close(int *fd, const char *path, struct error *error);
enum status file_rename(const char *from, const char *to, struct error *error);

// Flushes the whole file system that a directory is on: for writers of very many files.
enum status file_sync_all(const char *directory, struct error *error);

// Flushes a directory's entries to disk.
enum status file_sync_directory(const char *path, struct error *error);

// Makes a directory (mode 0777 & ~umask) and its missing parents; an existing directory is fine.
enum status file_make_directories(const char *path, struct error *error);

bool file_exists(const char *path);

// Test seam. When set, `file_fault` is asked before each system call of this module that changes
// the disk, with the call's name ("open", "write", "fsync", "rename", "fsyncdir", "close",
// "mkdir"); a non-zero answer is the errno the call then fails with. NULL in production.
extern int (*file_fault)(const char *call, const char *path);

#endif
