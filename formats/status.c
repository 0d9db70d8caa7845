// Filling and printing of errors: the one place where foreign error numbers are converted.
#include "formats/status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// Control bytes in names taken from data must not reach a terminal or a log.
static void escape_control_bytes(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = '?';
        }
    }
}

enum status error_set(struct error *error, enum status status, const char *path, uint64_t offset,
                      uint64_t record, const char *format, ...)
{
    if (error == NULL) {
        return status;
    }
    char reason[sizeof error->reason];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    char place[sizeof error->path]; // `path` may point into `error` itself
    snprintf(place, sizeof place, "%s", path ? path : "");
    escape_control_bytes(reason);
    escape_control_bytes(place);
    error->status = status;
    error->offset = offset;
    error->record = record;
    memcpy(error->path, place, sizeof place);
    memcpy(error->reason, reason, sizeof reason);
    return status;
}

static enum status status_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
        return STATUS_NOT_FOUND;
    case EEXIST:
    case ENOTEMPTY:
        return STATUS_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return STATUS_NO_SPACE;
    case EACCES:
    case EPERM:
    case EROFS:
        return STATUS_DENIED;
    case ENOMEM:
        return STATUS_NO_MEMORY;
    default:
        return STATUS_IO;
    }
}

enum status error_errno(struct error *error, int errnum, const char *path, uint64_t offset,
                        const char *what)
{
    char text[128];
    const char *meaning = strerror_r(errnum, text, sizeof text); // the GNU form: returns the text
    return error_set(error, status_of_errno(errnum), path, offset, NOWHERE, "cannot %s: %s", what,
                     meaning);
}

const char *error_text(const struct error *error, char *text, size_t capacity)
{
    char where[96] = "";
    if (error->offset != NOWHERE && error->record != NOWHERE) {
        snprintf(where, sizeof where, "byte %" PRIu64 ", record %" PRIu64 ": ", error->offset,
                 error->record);
    } else if (error->offset != NOWHERE) {
        snprintf(where, sizeof where, "byte %" PRIu64 ": ", error->offset);
    } else if (error->record != NOWHERE) {
        snprintf(where, sizeof where, "record %" PRIu64 ": ", error->record);
    }
    snprintf(text, capacity, "%s%s%s%s", error->path, error->path[0] ? ": " : "", where,
             error->reason);
    return text;
}

const char *status_name(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return "ok";
    case STATUS_IO:
        return "io";
    case STATUS_NOT_FOUND:
        return "not_found";
    case STATUS_EXISTS:
        return "exists";
    case STATUS_NO_SPACE:
        return "no_space";
    case STATUS_DENIED:
        return "denied";
    case STATUS_CORRUPT:
        return "corrupt";
    case STATUS_TRUNCATED:
        return "truncated";
    case STATUS_UNSUPPORTED:
        return "unsupported";
    case STATUS_LIMIT:
        return "limit";
    case STATUS_VERSION:
        return "version";
    case STATUS_INVALID:
        return "invalid";
    case STATUS_CONFIG:
        return "config";
    case STATUS_NO_MEMORY:
        return "no_memory";
    case STATUS_NO_DEVICE:
        return "no_device";
    case STATUS_DEVICE:
        return "device";
    case STATUS_THREAD:
        return "thread";
    case STATUS_END:
        return "end";
    case STATUS_STOPPED:
        return "stopped";
    }
    return "unknown";
}
