// HDF5 files with images: a group a class and a dataset an image, one dataset of byte strings, or
// arrays of pixels. libhdf5 trusts its files enough that hostile ones have crashed it, so a program
// of its own reads them (tools/streams/hdf5_stream.c), built where libhdf5-dev is installed.
#include "formats/source_stream.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM "byol-hdf5-stream"

static enum status hdf5_recognise(const char *path, bool *mine, struct error *error)
{
    (void)error;
    char head[8];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *mine = fd >= 0 && pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head &&
            memcmp(head, "\x89HDF\r\n\x1a\n", sizeof head) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return STATUS_OK;
}

static enum status start(void **state, const char *path, bool names_only, struct error *error)
{
    static const char missing[] =
        "an HDF5 file; what reads them, " PROGRAM
        ", is neither beside byol nor in ../libexec/byol: install libhdf5-dev and build again";
    char program[512];
    *state = NULL;
    if (!source_stream_find(PROGRAM, program, sizeof program)) {
        return error_set(error, STATUS_UNSUPPORTED, path, NOWHERE, NOWHERE, "%s", missing);
    }
    const char *const arguments[] = {program, path, names_only ? "--names" : NULL, NULL};
    struct source_stream *stream;
    enum status status = source_stream_open(&stream, path, arguments, names_only, missing, error);
    *state = stream;
    return status;
}

static enum status hdf5_open(void **state, const char *path, struct error *error)
{
    return start(state, path, false, error);
}

static enum status hdf5_open_names(void **state, const char *path, struct error *error)
{
    return start(state, path, true, error);
}

const struct source_kind source_hdf5 = {.name = "HDF5",
                                        .recognise = hdf5_recognise,
                                        .open = hdf5_open,
                                        .open_names = hdf5_open_names,
                                        .next = source_stream_next,
                                        .read = source_stream_read,
                                        .classes = source_stream_classes,
                                        .describe = source_stream_describe,
                                        .close = source_stream_close};
