// Reads by a few threads that call pread: for kernels and sandboxes without io_uring. Requests wait
// in one ring, finished ones in another; both have a place for every request in flight, so nothing
// ever overflows. What is submitted is handed to the threads at the next wait, all at once.
#include "pipeline/reader.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

// More threads than this do not help one disk; fewer leave its queue empty.
#define PREAD_MAX_THREADS 8

struct request_queue {
    struct read_request **item; // [capacity]
    size_t capacity, head, count;
};

struct pread_state {
    struct reader_setup setup;
    struct request_queue submitted; // the owner's own
    pthread_mutex_t lock;           // guards everything below
    pthread_cond_t work;            // `waiting` grew, or stopping
    pthread_cond_t progress;        // `finished` grew, woken was set, or a thread became idle
    struct request_queue waiting, finished;
    uint32_t busy, idle; // threads inside pread, and without work
    bool owner_waits, woken, stopping;
    uint32_t threads;
    pthread_t thread[PREAD_MAX_THREADS];
};

static void queue_push(struct request_queue *queue, struct read_request *request)
{
    assert(queue->count < queue->capacity);
    queue->item[(queue->head + queue->count++) % queue->capacity] = request;
}

static struct read_request *queue_pop(struct request_queue *queue)
{
    struct read_request *request = queue->item[queue->head];
    queue->head = (queue->head + 1) % queue->capacity;
    queue->count--;
    return request;
}

static void read_once(const struct pread_state *state, struct read_request *request)
{
    ssize_t got = pread(state->setup.fds[request->file], request->buf + request->done,
                        request->len - request->done, (off_t)(request->offset + request->done));
    request->result = got < 0 ? -errno : got;
}

static void *thread_main(void *argument)
{
    struct pread_state *state = argument;
    pthread_mutex_lock(&state->lock);
    for (;;) {
        while (!state->stopping && state->waiting.count == 0) {
            state->idle++;
            pthread_cond_wait(&state->work, &state->lock);
            state->idle--;
        }
        if (state->stopping) {
            break;
        }
        struct read_request *request = queue_pop(&state->waiting);
        state->busy++;
        pthread_mutex_unlock(&state->lock);
        read_once(state, request);
        pthread_mutex_lock(&state->lock);
        state->busy--;
        queue_push(&state->finished, request);
        if (state->owner_waits) {
            pthread_cond_signal(&state->progress);
        }
    }
    pthread_mutex_unlock(&state->lock);
    return NULL;
}

static void pread_close(void *opaque)
{
    struct pread_state *state = opaque;
    pthread_mutex_lock(&state->lock);
    state->stopping = true;
    pthread_cond_broadcast(&state->work);
    pthread_mutex_unlock(&state->lock);
    for (uint32_t i = 0; i < state->threads; i++) {
        pthread_join(state->thread[i], NULL);
    }
    pthread_cond_destroy(&state->progress);
    pthread_cond_destroy(&state->work);
    pthread_mutex_destroy(&state->lock);
    free(state->submitted.item);
    free(state->waiting.item);
    free(state->finished.item);
    free(state);
}

static enum status start_threads(struct pread_state *state, struct error *error)
{
    uint32_t wanted =
        state->setup.depth < PREAD_MAX_THREADS ? state->setup.depth : PREAD_MAX_THREADS;
    while (state->threads < wanted) {
        int errnum = pthread_create(&state->thread[state->threads], NULL, thread_main, state);
        if (errnum != 0) {
            return error_set(error, STATUS_THREAD, NULL, NOWHERE, NOWHERE,
                             "cannot start a reading thread (error %d)", errnum);
        }
        state->threads++;
    }
    return STATUS_OK;
}

static enum status pread_open(void **out, const struct reader_setup *setup, struct error *error)
{
    struct pread_state *state = calloc(1, sizeof *state);
    if (!state) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory to read");
    }
    state->setup = *setup;
    state->submitted.capacity = setup->depth;
    state->waiting.capacity = state->finished.capacity = setup->depth;
    state->submitted.item = calloc(setup->depth, sizeof(struct read_request *));
    state->waiting.item = calloc(setup->depth, sizeof(struct read_request *));
    state->finished.item = calloc(setup->depth, sizeof(struct read_request *));
    pthread_mutex_init(&state->lock, NULL);
    pthread_cond_init(&state->work, NULL);
    pthread_cond_init(&state->progress, NULL);
    enum status status = state->submitted.item && state->waiting.item && state->finished.item
                             ? start_threads(state, error)
                             : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                         "no memory for %u reads in flight", setup->depth);
    if (status != STATUS_OK) {
        pread_close(state);
        return status;
    }
    *out = state;
    return STATUS_OK;
}

static void pread_submit(void *opaque, struct read_request *request)
{
    struct pread_state *state = opaque;
    queue_push(&state->submitted, request);
}

static void hand_over(struct pread_state *state)
{
    size_t wake = state->submitted.count < state->idle ? state->submitted.count : state->idle;
    while (state->submitted.count > 0) {
        queue_push(&state->waiting, queue_pop(&state->submitted));
    }
    while (wake-- > 0) {
        pthread_cond_signal(&state->work);
    }
}

static void await_progress(struct pread_state *state)
{
    state->owner_waits = true;
    pthread_cond_wait(&state->progress, &state->lock);
    state->owner_waits = false;
}

static enum status pread_wait(void *opaque, struct read_request **finished, size_t capacity,
                              size_t *count, struct error *error)
{
    (void)error; // nothing here can fail: failures are of single reads
    struct pread_state *state = opaque;
    pthread_mutex_lock(&state->lock);
    hand_over(state);
    while (state->finished.count == 0 && !state->woken) {
        await_progress(state);
    }
    state->woken = false;
    *count = 0;
    while (*count < capacity && state->finished.count > 0) {
        finished[(*count)++] = queue_pop(&state->finished);
    }
    pthread_mutex_unlock(&state->lock);
    return STATUS_OK;
}

static void pread_wake(void *opaque)
{
    struct pread_state *state = opaque;
    pthread_mutex_lock(&state->lock);
    state->woken = true;
    pthread_cond_signal(&state->progress);
    pthread_mutex_unlock(&state->lock);
}

static void pread_drain(void *opaque)
{
    struct pread_state *state = opaque;
    pthread_mutex_lock(&state->lock);
    state->submitted.count = state->waiting.count = 0; // not begun: forgotten
    while (state->busy > 0) {
        await_progress(state);
    }
    state->finished.count = 0;
    pthread_mutex_unlock(&state->lock);
}

const struct reader_backend reader_pread = {
    .name = "pread",
    .open = pread_open,
    .submit = pread_submit,
    .wait = pread_wait,
    .wake = pread_wake,
    .drain = pread_drain,
    .close = pread_close,
};
