#include "tests/support/faulty_reader.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define HELD_MAX 1024 // reads in flight at most

static struct faulty_reader_plan plan;
static atomic_uint_least64_t faults;

struct faulty_state {
    const struct reader_backend *inner;
    void *inner_state;
    uint64_t random;
    uint32_t inner_in_flight;
    struct read_request *held[HELD_MAX];
    uint32_t held_count;
};

static uint32_t draw(struct faulty_state *state, uint32_t below)
{
    state->random = state->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state->random >> 33) % below;
}

static bool chance(struct faulty_state *state, unsigned per_thousand)
{
    bool hit = draw(state, 1000) < per_thousand;
    if (hit) {
        atomic_fetch_add(&faults, 1);
    }
    return hit;
}

static enum status faulty_open(void **out, const struct reader_setup *setup, struct error *error)
{
    struct faulty_state *state = calloc(1, sizeof *state);
    if (!state) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    state->inner = reader_override_inner;
    state->random = plan.seed;
    enum status status = state->inner->open(&state->inner_state, setup, error);
    if (status != STATUS_OK) {
        free(state);
        return status;
    }
    *out = state;
    return STATUS_OK;
}

// The errno this read fails with, or 0.
static int failure(struct faulty_state *state, const struct read_request *request)
{
    uint64_t begin = request->offset + request->done, end = request->offset + request->len;
    if (plan.bad_errnum && request->file == plan.bad_file && begin <= plan.bad_offset &&
        plan.bad_offset < end) {
        return plan.bad_errnum;
    }
    uint32_t tries = request->busy + request->retries;
    if (tries < sizeof plan.script / sizeof *plan.script && plan.script[tries]) {
        return plan.script[tries];
    }
    if (request->retries < 2 && chance(state, plan.eio)) {
        return EIO;
    }
    if (chance(state, plan.eagain)) {
        return EAGAIN;
    }
    return chance(state, plan.eintr) ? EINTR : 0;
}

static void faulty_submit(void *opaque, struct read_request *request)
{
    struct faulty_state *state = opaque;
    int errnum = failure(state, request);
    if (errnum) {
        request->result = -errnum;
        state->held[state->held_count++] = request;
    } else {
        state->inner_in_flight++;
        state->inner->submit(state->inner_state, request);
    }
}

static void sleep_a_little(struct faulty_state *state)
{
    if (draw(state, 1000) < plan.slow) {
        struct timespec pause = {.tv_nsec = (long)draw(state, 1000000)};
        nanosleep(&pause, NULL);
    }
}

// Shortens or falsifies what a read brought.
static void spoil(struct faulty_state *state, struct read_request *request)
{
    if (request->result > 1 && chance(state, plan.shortened)) {
        request->result = 1 + draw(state, (uint32_t)request->result - 1);
    }
    if (request->result > 0 && chance(state, plan.flipped)) {
        uint8_t *byte = request->buf + request->done + draw(state, (uint32_t)request->result);
        *byte ^= (uint8_t)(1u << draw(state, 8));
    }
}

// Waits for the real completions, unless held ones could be given out at once.
static enum status gather(struct faulty_state *state, struct error *error)
{
    if (state->held_count > 0 && (state->inner_in_flight == 0 || draw(state, 2))) {
        return STATUS_OK;
    }
    size_t count = 0;
    enum status status = state->inner->wait(state->inner_state, state->held + state->held_count,
                                            HELD_MAX - state->held_count, &count, error);
    for (size_t i = 0; i < count; i++) {
        spoil(state, state->held[state->held_count + i]);
    }
    state->held_count += (uint32_t)count;
    state->inner_in_flight -= (uint32_t)count;
    return status;
}

static enum status faulty_wait(void *opaque, struct read_request **finished, size_t capacity,
                               size_t *count, struct error *error)
{
    struct faulty_state *state = opaque;
    *count = 0;
    sleep_a_little(state);
    enum status status = gather(state, error);
    for (uint32_t i = 0; status == STATUS_OK && i < state->held_count && *count < capacity;) {
        if (chance(state, plan.late)) {
            i++;
        } else {
            finished[(*count)++] = state->held[i];
            state->held[i] = state->held[--state->held_count];
        }
    }
    return status;
}

static void faulty_wake(void *opaque)
{
    struct faulty_state *state = opaque;
    state->inner->wake(state->inner_state);
}

static void faulty_drain(void *opaque)
{
    struct faulty_state *state = opaque;
    state->inner->drain(state->inner_state);
    state->inner_in_flight = state->held_count = 0;
}

static void faulty_close(void *opaque)
{
    struct faulty_state *state = opaque;
    state->inner->close(state->inner_state);
    free(state);
}

static const struct reader_backend backend = {
    .name = "faulty",
    .open = faulty_open,
    .submit = faulty_submit,
    .wait = faulty_wait,
    .wake = faulty_wake,
    .drain = faulty_drain,
    .close = faulty_close,
};

uint64_t faulty_reader_faults(void)
{
    return atomic_load(&faults);
}

void faulty_reader_install(const struct faulty_reader_plan *wanted)
{
    plan = *wanted;
    atomic_store(&faults, 0);
    reader_override = &backend;
}

void faulty_reader_remove(void)
{
    reader_override = NULL;
}
