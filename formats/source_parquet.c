// Parquet files as Hugging Face's datasets are kept in: an image struct {bytes, path} or a column
// of bytes, and a column of labels, whose classes' names are in the schema's metadata. Debian has
// no library for Parquet, so a Python program with pyarrow reads them
// (tools/streams/parquet_stream.py) where both are installed.
#include "formats/source_stream.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define SCRIPT "parquet_stream.py"

static enum status parquet_recognise(const char *path, bool *mine, struct error *error)
{
    (void)error;
    char head[4];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *mine = fd >= 0 && pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head &&
            memcmp(head, "PAR1", sizeof head) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return STATUS_OK;
}

static enum status start(void **state, const char *path, bool names_only, struct error *error)
{
    char script[512];
    *state = NULL;
    if (!source_stream_find(SCRIPT, script, sizeof script)) {
        return error_set(error, STATUS_UNSUPPORTED, path, NOWHERE, NOWHERE,
                         "a Parquet file; what reads them, " SCRIPT
                         ", is neither beside byol nor in ../libexec/byol");
    }
    const char *const arguments[] = {
        "python3", "-B", script, "--", path, names_only ? "--names" : NULL, NULL};
    struct source_stream *stream;
    enum status status = source_stream_open(
        &stream, path, arguments, names_only,
        "a Parquet file; to read it, install python3 and pyarrow (pip install pyarrow)", error);
    *state = stream;
    return status;
}

static enum status parquet_open(void **state, const char *path, struct error *error)
{
    return start(state, path, false, error);
}

static enum status parquet_open_names(void **state, const char *path, struct error *error)
{
    return start(state, path, true, error);
}

const struct source_kind source_parquet = {.name = "Parquet",
                                           .recognise = parquet_recognise,
                                           .open = parquet_open,
                                           .open_names = parquet_open_names,
                                           .next = source_stream_next,
                                           .read = source_stream_read,
                                           .classes = source_stream_classes,
                                           .describe = source_stream_describe,
                                           .close = source_stream_close};
