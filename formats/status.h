// How every fallible function of the library reports what went wrong, and where.
//
// A fallible function returns `enum status` (0 is success) and takes a `struct error *` as its last
// argument, which may be NULL. On failure it fills the error with the status, the file, the byte
// offset, the record and one sentence; on success it leaves the error alone. The library never
// prints and never exits: tools/ decides what a person sees.
#ifndef FORMATS_STATUS_H
#define FORMATS_STATUS_H

#include <stddef.h>
#include <stdint.h>

// Numbers are grouped in tens by cause and frozen: they appear in JSON output and as process exit
// codes (tools/README.md).
enum status {
    STATUS_OK = 0,

    // The world outside the process.
    STATUS_IO = 10,        // a read or write failed (errno is in the sentence)
    STATUS_NOT_FOUND = 11, // no such file, directory, record or key
    STATUS_EXISTS = 12,    // refuses to overwrite
    STATUS_NO_SPACE = 13,  // ENOSPC, EDQUOT or EFBIG
    STATUS_DENIED = 14,    // permission, or a lock that another process holds

    // The bytes we were given.
    STATUS_CORRUPT = 20,     // checksum mismatch, or bytes that break the format's rules
    STATUS_TRUNCATED = 21,   // ends before its own length says
    STATUS_UNSUPPORTED = 22, // well-formed, but nothing we handle
    STATUS_LIMIT = 23,       // above a limit of formats/limits.h
    STATUS_VERSION = 24,     // written by another version

    // The caller or the person.
    STATUS_INVALID = 30, // an argument out of range, or a call out of order
    STATUS_CONFIG = 31,  // a setting that does not exist or does not fit

    // The machine.
    STATUS_NO_MEMORY = 40,
    STATUS_NO_DEVICE = 41, // this device is not built in, or not present
    STATUS_DEVICE = 42,    // the device's library reported a failure
    STATUS_THREAD = 43,    // a thread could not be started

    // Not failures: they drive the flow.
    STATUS_END = 50,     // nothing more to give
    STATUS_STOPPED = 51, // stopped on request
};

// "Does not apply" for `offset` and `record`.
#define NOWHERE UINT64_MAX

struct error {
    enum status status;
    uint64_t offset;  // byte in the file, or NOWHERE
    uint64_t record;  // record of the dataset, or NOWHERE
    char path[512];   // the file, or ""
    char reason[512]; // one sentence, no newline; control bytes from file names are escaped
};

// Fills `error` (when not NULL) and returns `status`, so that a failing function can end in one
// line:
//     return error_set(error, STATUS_CORRUPT, path, offset, record, "checksum is %08x, expected
//     %08x", got, want);
// `path` may be NULL.
enum status error_set(struct error *error, enum status status, const char *path, uint64_t offset,
                      uint64_t record, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

// The same for a failed system call: maps `errnum` to STATUS_NOT_FOUND, _EXISTS, _NO_SPACE,
// _DENIED, _NO_MEMORY or _IO and appends strerror. `what` names the call's purpose: "open",
// "write", "sync".
enum status error_errno(struct error *error, int errnum, const char *path, uint64_t offset,
                        const char *what);

// Writes "PATH: byte OFFSET, record RECORD: REASON" (leaving out what does not apply), always
// terminated. Returns `text`.
const char *error_text(const struct error *error, char *text, size_t capacity);

// The lower-case name of a status, such as "corrupt": what `--json` prints. Never NULL.
const char *status_name(enum status status);

#endif
