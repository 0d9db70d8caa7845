// Many reads in flight: one contract, two ways to fulfil it (io_uring, and threads that pread), and
// one place above both that turns raw results into finished reads: the rest of a short read, EINTR
// and EAGAIN are asked for again, EIO is retried twice.
//
// Threads: one thread owns a reader; only reader_wake may be called from others.
#ifndef PIPELINE_READER_H
#define PIPELINE_READER_H

#include "formats/status.h"
#include "pipeline/loader.h"

// One read. The caller owns the struct; between reader_submit and its return from reader_wait the
// struct and `buf` belong to the reader (and to the kernel), also after errors.
struct read_request {
    uint32_t file; // index into reader_setup.fds
    uint32_t len;  // bytes wanted
    uint64_t offset;
    uint8_t *buf; // inside reader_setup.memory
    // Written by the reader: all arrived when done == len; else errnum says why not, and 0 there
    // means that the file ended early.
    uint32_t done;
    int errnum;
    // Between the reader and its backend.
    int64_t result;         // of the last system call: bytes, or a negative errno
    uint32_t busy, retries; // without a byte in between: EINTR or EAGAIN, EIO
    uint32_t place;         // the backend's own
};

struct reader_setup {
    const int *fds; // open for reading; both outlive the reader
    uint32_t files;
    uint8_t *memory; // all requests read into this block, so that it can be registered once
    size_t bytes;
    uint32_t depth; // at most so many requests are between submit and wait
};

// A backend reads bytes [offset + done, offset + len) of a request as one positioned read would:
// `result` may be short, zero at the end of the file, or a negative errno.
struct reader_backend {
    const char *name;
    // STATUS_UNSUPPORTED when this machine cannot. On failure there is nothing to close.
    enum status (*open)(void **state, const struct reader_setup *setup, struct error *error);
    // Never blocks for I/O; the read may start only in `wait`.
    void (*submit)(void *state, struct read_request *request);
    // Blocks until at least one request came back or `wake` was called; may return early with none.
    enum status (*wait)(void *state, struct read_request **finished, size_t capacity, size_t *count,
                        struct error *error);
    void (*wake)(void *state); // from any thread: the current or the next wait returns
    // Cancels and reaps everything in flight; afterwards the backend touches no buffer.
    void (*drain)(void *state);
    void (*close)(void *state); // of a drained state
};

extern const struct reader_backend reader_pread;
#if HAVE_URING
extern const struct reader_backend reader_uring;
#endif

// Test seam. When set, readers open this backend in front of the one they chose, whose place it
// gets in `reader_override_inner`. NULL in production.
extern const struct reader_backend *reader_override;
extern const struct reader_backend *reader_override_inner;

struct reader {
    const struct reader_backend *backend; // NULL when closed
    void *state;
    enum loader_io used;
    uint64_t calls; // of the system, to read and to wait for reads
};

// LOADER_IO_AUTO takes io_uring when the kernel and the build allow it, else pread.
enum status reader_open(struct reader *reader, const struct reader_setup *setup, enum loader_io io,
                        struct error *error);
void reader_submit(struct reader *reader, struct read_request *request);
// Blocks until requests finished or somebody called reader_wake; `*count` may be 0. A failure here
// is of the machinery, not of a read: the reader can then only be drained.
enum status reader_wait(struct reader *reader, struct read_request **finished, size_t capacity,
                        size_t *count, struct error *error);
void reader_wake(struct reader *reader);
void reader_drain(struct reader *reader);
void reader_close(struct reader *reader); // accepts a closed or zeroed reader

#endif
