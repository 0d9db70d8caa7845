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
#include <time.h>
#include <unistd.h>

#include "formats/file.h"
#include "trainer/device/device.h"
#include "trainer/run/events.h"

#define LINE_BYTES  2048
#define WAIT_BYTES  (256 * 1024) // some 350 lines
#define LIMIT_BYTES (UINT64_C(4) << 30)

struct metrics {
    int fd;
    char path[512];
    uint64_t length; // of the whole lines in the file
    uint64_t probed; // step of the last probe in it
    struct events *events;
    size_t waiting; // bytes of `buf` not yet written
    char buf[WAIT_BYTES];
};

// Every line starts so, and that of a probe goes on so; metrics_open reads it back.
#define LINE_START "{\"step\":"
#define LINE_PROBE ",\"probe\":{"

// Length of the leading lines whose step is at most `step`. `*probed`: step of the last probe.
static size_t length_to_keep(const char *text, size_t len, uint64_t step, uint64_t *probed)
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
        if (memmem(line, (size_t)(end - line), LINE_PROBE, strlen(LINE_PROBE)) != NULL) {
            *probed = line_step;
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
        metrics->length = length_to_keep((const char *)text, len, step, &metrics->probed);
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
    if (status == STATUS_OK) {
        status = events_open(&metrics->events, path, error);
    }
    if (status == STATUS_OK) {
        events_follow(metrics->events, metrics->length, NULL); // else with the next line
    }
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
    events_close(&(*metrics)->events);
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

// Seconds since 1970.
static double wall_time(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static size_t put_timing(char *line, size_t at, const struct metrics_line *from)
{
    at += (size_t)snprintf(
        line + at, LINE_BYTES - at,
        ",\"timing\":{\"time\":%.3f,\"seconds\":%.3f,\"pairs_per_second\":%.2f,\"data_wait\":%.4f",
        wall_time(), from->seconds, from->pairs_per_second, from->data_wait);
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

static size_t format_probe(char *line, const struct metrics_probe *from)
{
    size_t at = (size_t)snprintf(line, LINE_BYTES,
                                 LINE_START "%" PRIu64 ",\"epoch\":%" PRIu32 LINE_PROBE
                                            "\"images\":%" PRIu64 ",\"bank\":%" PRIu64,
                                 from->step, from->epoch, from->images, from->bank);
    at = put_number(line, at, "knn", from->knn);
    at = put_number(line, at, "knn_top5", from->knn_top5);
    at = put_number(line, at, "rankme", from->rankme);
    at = put_number(line, at, "rankme_projections", from->rankme_projections);
    return at + (size_t)snprintf(line + at, LINE_BYTES - at,
                                 "},\"timing\":{\"time\":%.3f,\"probe\":%.3f}}\n", wall_time(),
                                 from->seconds);
}

// Room for one more line at the end of what waits. `*lost`: it was found by giving that up.
static char *room_for_line(struct metrics *metrics, bool *lost)
{
    *lost = WAIT_BYTES - metrics->waiting < LINE_BYTES;
    if (*lost) {
        metrics->waiting = 0; // better a hole in the log than no checkpoints ever after
    }
    return metrics->buf + metrics->waiting;
}

static enum status write_line(struct metrics *metrics, size_t len, bool lost, struct error *error)
{
    metrics->waiting += len;
    enum status status = metrics_flush(metrics, false, error);
    return status != STATUS_OK || !lost
               ? status
               : error_set(error, STATUS_NO_SPACE, metrics->path, NOWHERE, NOWHERE,
                           "the log could not be written for so long that it now has a hole");
}

enum status metrics_write(struct metrics *metrics, const struct metrics_line *line,
                          struct error *error)
{
    bool lost;
    char *room = room_for_line(metrics, &lost);
    return write_line(metrics, format_line(room, line), lost, error);
}

enum status metrics_write_probe(struct metrics *metrics, const struct metrics_probe *probe,
                                struct error *error)
{
    bool lost;
    char *room = room_for_line(metrics, &lost);
    metrics->probed = probe->step;
    return write_line(metrics, format_probe(room, probe), lost, error);
}

uint64_t metrics_probed(const struct metrics *metrics)
{
    return metrics->probed;
}

static enum status write_waiting(struct metrics *metrics, struct error *error)
{
    if (metrics->waiting == 0) {
        return STATUS_OK;
    }
    enum status status =
        file_write_all(metrics->fd, metrics->path, metrics->buf, metrics->waiting, error);
    if (status != STATUS_OK) {
        // Part of it may stand in the file: take that back, so that all of it can be written later.
        return ftruncate(metrics->fd, (off_t)metrics->length) == 0
                   ? status
                   : error_errno(error, errno, metrics->path, NOWHERE, "cut back");
    }
    metrics->length += metrics->waiting;
    metrics->waiting = 0;
    return STATUS_OK;
}

enum status metrics_flush(struct metrics *metrics, bool sync, struct error *error)
{
    enum status status = write_waiting(metrics, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (!sync) {
        return events_follow(metrics->events, metrics->length, error);
    }
    events_follow(metrics->events, metrics->length, NULL);
    return fdatasync(metrics->fd) == 0 ? STATUS_OK
                                       : error_errno(error, errno, metrics->path, NOWHERE, "sync");
}
