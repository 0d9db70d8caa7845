// The log of a run: appending, and cutting back on resume.
#include "trainer/run/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/file.h"
#include "trainer/device/device.h"

#define LINE_BYTES  2048
#define WAIT_BYTES  (256 * 1024) // some 350 lines
#define LIMIT_BYTES (UINT64_C(4) << 30)

struct metrics {
    int fd;
    char path[512];
    uint64_t length; // of the whole lines in the file
    size_t waiting;  // bytes of `buf` not yet written
    char buf[WAIT_BYTES];
};

// Every line starts so; metrics_open reads it back.
#define LINE_START "{\"step\":"

// Length of the leading lines whose step is at most `step`.
static size_t length_to_keep(const char *text, size_t len, uint64_t step)
{
    size_t kept = 0;
    while (kept < len) {
        const char *line = text + kept;
        const char *end = memchr(line, '\n', len - kept);
        if (end == NULL || strncmp(line, LINE_START, strlen(LINE_START)) != 0) {
            break;
        }
        char *number_end;
        uint64_t line_step = strtoull(line + strlen(LINE_START), &number_end, 10);
        if (*number_end != ',' || line_step > step) {
            break;
        }
        kept = (size_t)(end - text) + 1;
    }
    return kept;
}

static enum status cut_back(struct metrics *metrics, uint64_t step, struct error *error)
{
    uint8_t *text = NULL;
    size_t len = 0;
    if (step > 0) {
        enum status status = file_read_all(metrics->path, LIMIT_BYTES, &text, &len, error);
        if (status != STATUS_OK) {
            return status;
        }
        metrics->length = length_to_keep((const char *)text, len, step);
        free(text);
    }
    if (ftruncate(metrics->fd, (off_t)metrics->length) != 0) {
        return error_errno(error, errno, metrics->path, NOWHERE, "cut back");
    }
    return STATUS_OK;
}

enum status metrics_open(struct metrics **out, const char *path, uint64_t step, struct error *error)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL) {
        return error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE, "no memory for the log");
    }
    snprintf(metrics->path, sizeof metrics->path, "%s", path);
    metrics->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    enum status status = metrics->fd >= 0 ? cut_back(metrics, step, error)
                                          : error_errno(error, errno, path, NOWHERE, "open");
    *out = metrics;
    if (status != STATUS_OK) {
        metrics_close(out);
    }
    return status;
}

void metrics_close(struct metrics **metrics)
{
    if (*metrics == NULL) {
        return;
    }
    if ((*metrics)->fd >= 0) {
        close((*metrics)->fd);
    }
    free(*metrics);
    *metrics = NULL;
}

// Appends `"key":value` with enough digits to read back the same double.
static size_t put_number(char *line, size_t at, const char *key, double value)
{
    int len = isfinite(value) ? snprintf(line + at, LINE_BYTES - at, ",\"%s\":%.17g", key, value)
                              : snprintf(line + at, LINE_BYTES - at, ",\"%s\":null", key);
    return at + (size_t)len;
}

static size_t put_text(char *line, size_t at, const char *text)
{
    return at + (size_t)snprintf(line + at, LINE_BYTES - at, "%s", text);
}

static size_t put_timing(char *line, size_t at, const struct metrics_line *from)
{
    at += (size_t)snprintf(
        line + at, LINE_BYTES - at,
        ",\"timing\":{\"seconds\":%.3f,\"pairs_per_second\":%.2f,\"data_wait\":%.4f", from->seconds,
        from->pairs_per_second, from->data_wait);
    for (size_t kind = 0; kind < OP_KINDS; kind++) {
        at += (size_t)snprintf(line + at, LINE_BYTES - at, ",\"%s\":%.6f", op_kind_names[kind],
                               from->op_seconds[kind]);
    }
    return at + (size_t)snprintf(line + at, LINE_BYTES - at,
                                 ",\"exchange\":%.6f,\"optimiser\":%.6f}", from->exchange_seconds,
                                 from->optimiser_seconds);
}

static size_t format_line(char *line, const struct metrics_line *from)
{
    size_t at = (size_t)snprintf(line, LINE_BYTES, LINE_START "%" PRIu64 ",\"epoch\":%" PRIu32,
                                 from->step, from->epoch);
    at = put_number(line, at, "loss", from->loss);
    at = put_number(line, at, "representation", from->representation);
    at = put_number(line, at, "classification", from->classification);
    at = put_number(line, at, "top1", from->top1);
    at = put_number(line, at, "top5", from->top5);
    at = put_number(line, at, "spread", from->spread);
    at = put_number(line, at, "positive_cosine", from->positive_cosine);
    at = put_number(line, at, "negative_cosine", from->negative_cosine);
    at = put_number(line, at, "learning_rate", from->learning_rate);
    at = put_number(line, at, "tau", from->tau);
    at = put_text(line, at, from->collapsed ? ",\"collapsed\":true" : ",\"collapsed\":false");
    at = put_timing(line, at, from);
    return put_text(line, at, "}\n");
}

enum status metrics_write(struct metrics *metrics, const struct metrics_line *line,
                          struct error *error)
{
    bool lost = WAIT_BYTES - metrics->waiting < LINE_BYTES;
    if (lost) {
        metrics->waiting = 0; // better a hole in the log than no checkpoints ever after
    }
    metrics->waiting += format_line(metrics->buf + metrics->waiting, line);
    enum status status = metrics_flush(metrics, false, error);
    return status != STATUS_OK || !lost
               ? status
               : error_set(error, STATUS_NO_SPACE, metrics->path, NOWHERE, NOWHERE,
                           "the log could not be written for so long that it now has a hole");
}

enum status metrics_flush(struct metrics *metrics, bool sync, struct error *error)
{
    if (metrics->waiting > 0) {
        enum status status =
            file_write_all(metrics->fd, metrics->path, metrics->buf, metrics->waiting, error);
        if (status != STATUS_OK) {
            // Part of it may stand in the file: take that back, so that all of it can be written
            // later.
            return ftruncate(metrics->fd, (off_t)metrics->length) == 0
                       ? status
                       : error_errno(error, errno, metrics->path, NOWHERE, "cut back");
        }
        metrics->length += metrics->waiting;
        metrics->waiting = 0;
    }
    if (sync && fdatasync(metrics->fd) != 0) {
        return error_errno(error, errno, metrics->path, NOWHERE, "sync");
    }
    return STATUS_OK;
}
