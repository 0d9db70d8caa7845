// What is the same for every backend: which one is used, and when a read is finished.
#include "pipeline/reader.h"

#include <errno.h>
#include <time.h>

#define READER_EIO_RETRIES   2    // a bad cable or path recovers at once or not at all
#define READER_BUSY_RETRIES  1000 // EINTR, or EAGAIN a millisecond apart
#define READER_BACKOFF_NANOS 1000000L

const struct reader_backend *reader_override;
const struct reader_backend *reader_override_inner;

static enum status open_backend(struct reader *reader, const struct reader_backend *backend,
                                const struct reader_setup *setup, struct error *error)
{
    reader_override_inner = backend;
    reader->backend = reader_override ? reader_override : backend;
    enum status status = reader->backend->open(&reader->state, setup, error);
    if (status != STATUS_OK) {
        reader->backend = NULL;
    }
    return status;
}

static enum status open_uring(struct reader *reader, const struct reader_setup *setup,
                              struct error *error)
{
#if HAVE_URING
    reader->used = LOADER_IO_URING;
    return open_backend(reader, &reader_uring, setup, error);
#else
    (void)reader, (void)setup;
    return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                     "this build has no io_uring; use pread");
#endif
}

enum status reader_open(struct reader *reader, const struct reader_setup *setup, enum loader_io io,
                        struct error *error)
{
    *reader = (struct reader){0};
    if (io == LOADER_IO_URING) {
        return open_uring(reader, setup, error);
    }
    if (io == LOADER_IO_AUTO && open_uring(reader, setup, NULL) == STATUS_OK) {
        return STATUS_OK;
    }
    reader->used = LOADER_IO_PREAD;
    return open_backend(reader, &reader_pread, setup, error);
}

void reader_submit(struct reader *reader, struct read_request *request)
{
    request->done = 0;
    request->errnum = 0;
    request->busy = request->retries = 0;
    reader->backend->submit(reader->state, request);
}

static void back_off(uint32_t times)
{
    struct timespec pause = {.tv_nsec = READER_BACKOFF_NANOS * (long)times};
    nanosleep(&pause, NULL);
}

// Whether a request that failed with `errnum` is worth another try, after the right pause. A disk
// that failed and a kernel that was busy are counted apart: neither uses up the other's tries.
static bool retry(struct read_request *request, int errnum)
{
    if (errnum == EIO && request->retries < READER_EIO_RETRIES) {
        back_off(++request->retries);
        return true;
    }
    if ((errnum == EINTR || errnum == EAGAIN) && request->busy < READER_BUSY_RETRIES) {
        request->busy++;
        if (errnum == EAGAIN) {
            back_off(1);
        }
        return true;
    }
    return false;
}

// Takes in the backend's result; false when the request must go back for the rest.
static bool settled(struct read_request *request)
{
    if (request->result < 0) {
        int errnum = (int)-request->result;
        if (retry(request, errnum)) {
            return false;
        }
        request->errnum = errnum;
        return true;
    }
    request->done += (uint32_t)request->result;
    if (request->result > 0) {
        request->busy = request->retries = 0;
    }
    return request->done >= request->len || request->result == 0;
}

enum status reader_wait(struct reader *reader, struct read_request **finished, size_t capacity,
                        size_t *count, struct error *error)
{
    size_t arrived = 0;
    *count = 0;
    enum status status = reader->backend->wait(reader->state, finished, capacity, &arrived, error);
    if (status != STATUS_OK) {
        return status;
    }
    reader->calls += reader->used == LOADER_IO_PREAD ? arrived : 1;
    for (size_t i = 0; i < arrived; i++) {
        if (settled(finished[i])) {
            finished[(*count)++] = finished[i];
        } else {
            reader->backend->submit(reader->state, finished[i]);
        }
    }
    return STATUS_OK;
}

void reader_wake(struct reader *reader)
{
    reader->backend->wake(reader->state);
}

void reader_drain(struct reader *reader)
{
    reader->backend->drain(reader->state);
}

void reader_close(struct reader *reader)
{
    if (reader->backend) {
        reader->backend->close(reader->state);
        reader->backend = NULL;
    }
}
