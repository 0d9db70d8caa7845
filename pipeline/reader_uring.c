// Reads through io_uring. The files and the one block that all reads land in are registered with
// the kernel, so a read costs no lookup and no page pinning; where registering is not allowed
// (RLIMIT_MEMLOCK), plain reads do the same.
//
// A buffer handed to the kernel is the kernel's until its completion is reaped, also on error and
// at shutdown: `drain` cancels, then reaps all.
//
// Waking: one read of an eventfd is always in flight, so a write to it from any thread is a
// completion like any other.
#include "pipeline/reader.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct uring_state {
    struct io_uring ring;
    struct reader_setup setup;
    bool ring_ready, files_registered, memory_registered;
    int event;
    uint64_t event_value; // the kernel's while event_armed
    bool event_armed;
    struct read_request **flying; // [depth]; NULL where free, so that drain can cancel by address
    uint32_t *free_places;        // [depth]; a stack of depth - in_flight
    uint32_t in_flight;
};

// The queue has a place for every request, the event and one more; only drain, which cancels on top
// of that, may find it full and hands over what is there first.
static struct io_uring_sqe *next_entry(struct uring_state *state)
{
    struct io_uring_sqe *entry;
    while (!(entry = io_uring_get_sqe(&state->ring))) {
        if (io_uring_submit(&state->ring) < 0) {
            sched_yield();
        }
    }
    return entry;
}

static void arm_event(struct uring_state *state)
{
    struct io_uring_sqe *entry = next_entry(state);
    io_uring_prep_read(entry, state->event, &state->event_value, sizeof state->event_value, 0);
    io_uring_sqe_set_data(entry, state);
    state->event_armed = true;
}

static void uring_close(void *opaque)
{
    struct uring_state *state = opaque;
    if (state->ring_ready) {
        io_uring_queue_exit(&state->ring);
    }
    if (state->event >= 0) {
        close(state->event);
    }
    free(state->flying);
    free(state->free_places);
    free(state);
}

static bool operations_supported(struct uring_state *state)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&state->ring);
    bool all = probe && io_uring_opcode_supported(probe, IORING_OP_READ) &&
               io_uring_opcode_supported(probe, IORING_OP_READ_FIXED) &&
               io_uring_opcode_supported(probe, IORING_OP_ASYNC_CANCEL);
    io_uring_free_probe(probe);
    return all;
}

static enum status set_up(struct uring_state *state, struct error *error)
{
    const struct reader_setup *setup = &state->setup;
    // Completions need no interrupt of the thread: it comes for them. Older kernels do not know
    // that.
    int result = io_uring_queue_init(setup->depth + 2, &state->ring, IORING_SETUP_COOP_TASKRUN);
    if (result == -EINVAL) {
        result = io_uring_queue_init(setup->depth + 2, &state->ring, 0);
    }
    if (result < 0) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "the kernel does not give us io_uring (%s); use pread", strerror(-result));
    }
    state->ring_ready = true;
    if (!operations_supported(state)) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "the kernel's io_uring is too old; use pread");
    }
    state->event = eventfd(0, EFD_CLOEXEC);
    if (state->event < 0) {
        return error_errno(error, errno, NULL, NOWHERE, "make an eventfd");
    }
    struct iovec memory = {.iov_base = setup->memory, .iov_len = setup->bytes};
    state->memory_registered = io_uring_register_buffers(&state->ring, &memory, 1) == 0;
    state->files_registered = io_uring_register_files(&state->ring, setup->fds, setup->files) == 0;
    return STATUS_OK;
}

static enum status uring_open(void **out, const struct reader_setup *setup, struct error *error)
{
    struct uring_state *state = calloc(1, sizeof *state);
    if (!state) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory to read");
    }
    state->setup = *setup;
    state->event = -1;
    state->flying = calloc(setup->depth, sizeof(struct read_request *));
    state->free_places = calloc(setup->depth, sizeof *state->free_places);
    for (uint32_t i = 0; state->free_places && i < setup->depth; i++) {
        state->free_places[i] = i;
    }
    enum status status = state->flying && state->free_places
                             ? set_up(state, error)
                             : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                         "no memory for %u reads in flight", setup->depth);
    if (status != STATUS_OK) {
        uring_close(state);
        return status;
    }
    *out = state;
    return STATUS_OK;
}

static void remember(struct uring_state *state, struct read_request *request)
{
    assert(state->in_flight < state->setup.depth);
    request->place = state->free_places[state->setup.depth - ++state->in_flight];
    state->flying[request->place] = request;
}

static void uring_submit(void *opaque, struct read_request *request)
{
    struct uring_state *state = opaque;
    remember(state, request);
    struct io_uring_sqe *entry = next_entry(state);
    int fd = state->files_registered ? (int)request->file : state->setup.fds[request->file];
    uint8_t *buf = request->buf + request->done;
    unsigned len = request->len - request->done;
    uint64_t offset = request->offset + request->done;
    if (state->memory_registered) {
        io_uring_prep_read_fixed(entry, fd, buf, len, offset, 0);
    } else {
        io_uring_prep_read(entry, fd, buf, len, offset);
    }
    if (state->files_registered) {
        entry->flags |= IOSQE_FIXED_FILE;
    }
    io_uring_sqe_set_data(entry, request);
}

// Takes one completion in; the request that it finished, or NULL for the event and for
// cancellations.
static struct read_request *reap(struct uring_state *state, const struct io_uring_cqe *completion)
{
    void *data = io_uring_cqe_get_data(completion);
    if (data == state) {
        state->event_armed = false;
        return NULL;
    }
    struct read_request *request = data;
    if (request) {
        request->result = completion->res;
        state->flying[request->place] = NULL;
        state->free_places[state->setup.depth - state->in_flight--] = request->place;
    }
    return request;
}

// Submits what is prepared and waits for a completion, both in one system call, or in none when
// there is a completion already and nothing to submit. What a signal or a busy kernel interrupts is
// tried again.
static int submit_and_wait(struct uring_state *state)
{
    if (io_uring_sq_ready(&state->ring) == 0 && io_uring_cq_ready(&state->ring) > 0) {
        return 0;
    }
    for (;;) {
        int result = io_uring_submit_and_wait(&state->ring, 1);
        if (result >= 0 || (result != -EINTR && result != -EAGAIN && result != -EBUSY)) {
            return result;
        }
        if (io_uring_cq_ready(&state->ring) > 0) {
            return 0;
        }
        sched_yield();
    }
}

static enum status uring_wait(void *opaque, struct read_request **finished, size_t capacity,
                              size_t *count, struct error *error)
{
    struct uring_state *state = opaque;
    if (!state->event_armed) {
        arm_event(state);
    }
    *count = 0;
    int result = submit_and_wait(state);
    if (result < 0) {
        return error_errno(error, -result, NULL, NOWHERE, "wait for reads");
    }
    struct io_uring_cqe *completion;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(&state->ring, head, completion)
    {
        if (*count == capacity) {
            break;
        }
        struct read_request *request = reap(state, completion);
        if (request) {
            finished[(*count)++] = request;
        }
        seen++;
    }
    io_uring_cq_advance(&state->ring, seen);
    return STATUS_OK;
}

static void uring_wake(void *opaque)
{
    struct uring_state *state = opaque;
    const uint64_t one = 1;
    ssize_t written = write(state->event, &one, sizeof one);
    (void)written; // fails only when the counter is full, and then the event is raised anyway
}

static void uring_drain(void *opaque)
{
    struct uring_state *state = opaque;
    for (uint32_t i = 0; i < state->setup.depth; i++) {
        if (state->flying[i]) {
            struct io_uring_sqe *entry = next_entry(state);
            io_uring_prep_cancel(entry, state->flying[i], 0);
            io_uring_sqe_set_data(entry, NULL);
        }
    }
    uring_wake(state); // ends the read of the event, whose buffer is ours
    while (state->in_flight > 0 || state->event_armed) {
        if (submit_and_wait(state) < 0) {
            break; // the ring itself is gone, and with it what was in flight
        }
        struct io_uring_cqe *completion;
        while (io_uring_peek_cqe(&state->ring, &completion) == 0) {
            (void)reap(state, completion);
            io_uring_cqe_seen(&state->ring, completion);
        }
    }
}

const struct reader_backend reader_uring = {
    .name = "io_uring",
    .open = uring_open,
    .submit = uring_submit,
    .wait = uring_wait,
    .wake = uring_wake,
    .drain = uring_drain,
    .close = uring_close,
};
