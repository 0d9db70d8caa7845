// Errors of the public interface: the library's own, in a layout that is frozen.
#include "formats/isa.h"
#include "pipeline/api/api.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#define SAME(public, own)                                                                          \
    static_assert((int)BYOL_##public == (int)STATUS_##own, "the numbers of a status are frozen")
SAME(OK, OK);
SAME(IO, IO);
SAME(NOT_FOUND, NOT_FOUND);
SAME(EXISTS, EXISTS);
SAME(NO_SPACE, NO_SPACE);
SAME(DENIED, DENIED);
SAME(CORRUPT, CORRUPT);
SAME(TRUNCATED, TRUNCATED);
SAME(UNSUPPORTED, UNSUPPORTED);
SAME(LIMIT, LIMIT);
SAME(VERSION_OTHER, VERSION);
SAME(INVALID, INVALID);
SAME(CONFIG, CONFIG);
SAME(NO_MEMORY, NO_MEMORY);
SAME(THREAD, THREAD);
SAME(END, END);

int api_status(enum status status, const struct error *error, struct byol_error *out)
{
    if (status != STATUS_OK && out) {
        *out = (struct byol_error){
            .status = (int32_t)status, .offset = error->offset, .record = error->record};
        static_assert(sizeof out->path == sizeof error->path &&
                          sizeof out->reason == sizeof error->reason,
                      "texts are copied whole");
        memcpy(out->path, error->path, sizeof out->path);
        memcpy(out->reason, error->reason, sizeof out->reason);
    }
    return (int)status;
}

const char *byol_error_text(const struct byol_error *public, char *text, size_t capacity)
{
    struct error error = {
        .status = (enum status) public->status, .offset = public->offset, .record = public->record};
    memcpy(error.path, public->path, sizeof error.path);
    memcpy(error.reason, public->reason, sizeof error.reason);
    return error_text(&error, text, capacity);
}

const char *byol_status_name(int status)
{
    return status_name((enum status)status);
}

const char *byol_version(void)
{
    return BYOL_VERSION;
}

static struct error refusal;
static enum status prepared;

static void prepare(void)
{
    prepared = isa_init(&refusal);
}

enum status api_prepare(struct error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
    if (prepared != STATUS_OK) {
        *error = refusal;
    }
    return prepared;
}
