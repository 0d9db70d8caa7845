// From lines of the log to TensorBoard's events.
//
// An event file is a TFRecord of protocol buffers. Of tensorboard/compat/proto we need
//   Event   {double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//            SessionLog session_log = 7}
//   Summary {repeated Value value = 1}, Value {string tag = 1; float simple_value = 2}
//   SessionLog {SessionStatus status = 1}, START = 1
#include "trainer/run/events.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/protobuf.h"
#include "formats/tfrecord.h"

#define FILE_START  "events.out.tfevents."
#define FILE_END    ".byol"
#define PIECE_BYTES (256 * 1024) // of the log, taken in at a time; a line is far shorter

enum {
    EVENT_WALL_TIME = 1,
    EVENT_STEP = 2,
    EVENT_FILE_VERSION = 3,
    EVENT_SUMMARY = 5,
    EVENT_SESSION_LOG = 7
};
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, SESSION_STATUS = 1, SESSION_START = 1 };

struct events {
    int fd;              // -1: not begun
    char directory[512]; // of the log
    char log[512], path[640];
    uint64_t taken;  // bytes of the log that are in the file
    uint64_t length; // of the whole events in the file
    bool alone;      // files of other sessions are gone
};

enum status events_open(struct events **out, const char *log, struct error *error)
{
    struct events *events = *out = calloc(1, sizeof *events);
    if (events == NULL) {
        return error_set(error, STATUS_NO_MEMORY, log, NOWHERE, NOWHERE, "no memory for events");
    }
    events->fd = -1;
    snprintf(events->log, sizeof events->log, "%s", log);
    const char *slash = strrchr(log, '/');
    snprintf(events->directory, sizeof events->directory, "%.*s", slash ? (int)(slash - log) : 1,
             slash ? log : ".");
    return STATUS_OK;
}

void events_close(struct events **events)
{
    if (*events == NULL) {
        return;
    }
    if ((*events)->fd >= 0) {
        close((*events)->fd);
    }
    free(*events);
    *events = NULL;
}

// --- records ---------------------------------------------------------------------------------

// Records in their frames, as they grow; `status` sticks.
struct records {
    uint8_t *bytes;
    size_t len, capacity;
    enum status status;
};

// Appends an event and empties its writer.
static void put_record(struct records *records, struct protobuf_writer *event)
{
    size_t more = event->len + TFRECORD_HEAD_BYTES + TFRECORD_FOOT_BYTES;
    if (records->status == STATUS_OK) {
        records->status = protobuf_finish(event, NULL);
    }
    if (records->status == STATUS_OK && records->capacity - records->len < more) {
        size_t capacity = 2 * records->capacity + more;
        uint8_t *grown = realloc(records->bytes, capacity);
        records->status = grown ? STATUS_OK : STATUS_NO_MEMORY;
        records->bytes = grown ? grown : records->bytes;
        records->capacity = grown ? capacity : records->capacity;
    }
    if (records->status == STATUS_OK) {
        uint8_t *at = records->bytes + records->len;
        tfrecord_head(at, event->len);
        memcpy(at + TFRECORD_HEAD_BYTES, event->bytes, event->len);
        tfrecord_foot(at + TFRECORD_HEAD_BYTES + event->len, event->bytes, event->len);
        records->len += more;
    }
    event->len = 0;
}

// --- a line ----------------------------------------------------------------------------------

static void put_scalar(struct protobuf_writer *event, const char *group, const char *key,
                       const json_t *value)
{
    char tag[128];
    if (!json_is_number(value) && !json_is_boolean(value)) {
        return; // null: there is no such figure
    }
    snprintf(tag, sizeof tag, "%s/%s", group, key);
    double number = json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
    size_t mark = protobuf_begin(event, SUMMARY_VALUE);
    protobuf_put_string(event, VALUE_TAG, tag);
    protobuf_put_float(event, VALUE_SIMPLE, (float)number);
    protobuf_end(event, mark);
}

static void put_scalars(struct protobuf_writer *event, const char *group, const json_t *object)
{
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (strcmp(key, "step") != 0 && strcmp(key, "time") != 0) {
            put_scalar(event, group, key, value);
        }
    }
}

static void put_line(struct records *records, struct protobuf_writer *event, const json_t *line)
{
    const json_t *timing = json_object_get(line, "timing"), *probe = json_object_get(line, "probe");
    const json_t *time = json_object_get(timing, "time");
    if (time == NULL) { // a log of an older program: only the distances are right
        time = json_object_get(timing, "seconds");
    }
    protobuf_put_double(event, EVENT_WALL_TIME, json_number_value(time));
    protobuf_put_varint(event, EVENT_STEP,
                        (uint64_t)json_integer_value(json_object_get(line, "step")));
    size_t mark = protobuf_begin(event, EVENT_SUMMARY);
    put_scalars(event, probe ? "eval" : "train", probe ? probe : line);
    put_scalars(event, "time", timing);
    protobuf_end(event, mark);
    put_record(records, event);
}

// What every file starts with: its version, and that a session begins which supersedes all others.
static void put_start(struct records *records, struct protobuf_writer *event)
{
    double now = (double)time(NULL);
    protobuf_put_double(event, EVENT_WALL_TIME, now);
    protobuf_put_string(event, EVENT_FILE_VERSION, "brain.Event:2");
    put_record(records, event);
    protobuf_put_double(event, EVENT_WALL_TIME, now);
    size_t mark = protobuf_begin(event, EVENT_SESSION_LOG);
    protobuf_put_varint(event, SESSION_STATUS, SESSION_START);
    protobuf_end(event, mark);
    put_record(records, event);
}

// --- the file --------------------------------------------------------------------------------

// TensorBoard reads a directory's files in the order of their names: the time comes first.
static enum status begin(struct events *events, struct error *error)
{
    char host[65] = "";
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    gethostname(host, sizeof host - 1);
    for (char *c = host; *c; c++) {
        *c = *c == '/' ? '-' : *c;
    }
    int len =
        snprintf(events->path, sizeof events->path, "%s/" FILE_START "%010lld.%09ld.%s" FILE_END,
                 events->directory, (long long)now.tv_sec, now.tv_nsec, host);
    return len < (int)sizeof events->path
               ? file_create(&events->fd, events->path, error)
               : error_set(error, STATUS_LIMIT, events->directory, NOWHERE, NOWHERE,
                           "the path of the event file is too long");
}

static bool is_of_another_session(const struct events *events, const char *name)
{
    size_t len = strlen(name), end = strlen(FILE_END);
    return strncmp(name, FILE_START, strlen(FILE_START)) == 0 && len > end &&
           strcmp(name + len - end, FILE_END) == 0 &&
           strcmp(name, strrchr(events->path, '/') + 1) != 0;
}

static void remove_others(struct events *events)
{
    DIR *stream = opendir(events->directory);
    if (stream == NULL) {
        return;
    }
    for (const struct dirent *entry; (entry = readdir(stream));) {
        if (is_of_another_session(events, entry->d_name)) {
            unlinkat(dirfd(stream), entry->d_name, 0);
        }
    }
    closedir(stream);
    events->alone = true;
}

static enum status append(struct events *events, const struct records *records, struct error *error)
{
    if (records->status != STATUS_OK) {
        return error_set(error, records->status, events->path, NOWHERE, NOWHERE,
                         "no memory for events");
    }
    enum status status =
        file_write_all(events->fd, events->path, records->bytes, records->len, error);
    if (status == STATUS_OK) {
        events->length += records->len;
    } else if (ftruncate(events->fd, (off_t)events->length) != 0 ||
               lseek(events->fd, (off_t)events->length, SEEK_SET) < 0) {
        return error_errno(error, errno, events->path, NOWHERE, "cut back");
    }
    return status;
}

// --- following -------------------------------------------------------------------------------

// The whole lines of `text`; returns their length. What is no JSON object is passed over.
static size_t put_lines(struct records *records, struct protobuf_writer *event, const char *text,
                        size_t len)
{
    size_t done = 0;
    for (const char *end; (end = memchr(text + done, '\n', len - done));) {
        json_t *line = json_loadb(text + done, (size_t)(end - text) - done, 0, NULL);
        if (json_is_object(line)) {
            put_line(records, event, line);
        }
        json_decref(line);
        done = (size_t)(end - text) + 1;
    }
    return done;
}

// Takes in the whole lines of the next piece.
static enum status follow_piece(struct events *events, int log, char *text, uint64_t length,
                                struct error *error)
{
    struct records records = {0};
    struct protobuf_writer event = {0};
    uint64_t left = length - events->taken;
    size_t len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    enum status status = file_read_at(log, events->log, text, len, events->taken, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (events->length == 0) {
        put_start(&records, &event);
    }
    size_t done = put_lines(&records, &event, text, len);
    status = append(events, &records, error);
    if (status == STATUS_OK) {
        events->taken += done > 0 ? done : len; // a piece without a line's end is not ours
    }
    free(records.bytes);
    protobuf_free(&event);
    return status;
}

static enum status follow(struct events *events, uint64_t length, struct error *error)
{
    int log = open(events->log, O_RDONLY | O_CLOEXEC);
    char *text = malloc(PIECE_BYTES);
    enum status status = STATUS_OK;
    if (log < 0) {
        status = error_errno(error, errno, events->log, NOWHERE, "open");
    } else if (text == NULL) {
        status = error_set(error, STATUS_NO_MEMORY, events->log, NOWHERE, NOWHERE,
                           "no memory for a piece of the log");
    }
    while (status == STATUS_OK && (events->taken < length || events->length == 0)) {
        status = follow_piece(events, log, text, length, error);
    }
    free(text);
    if (log >= 0) {
        close(log);
    }
    return status;
}

enum status events_follow(struct events *events, uint64_t length, struct error *error)
{
    if (events->alone && events->taken == length) {
        return STATUS_OK;
    }
    enum status status = events->fd < 0 ? begin(events, error) : STATUS_OK;
    if (status == STATUS_OK) {
        status = follow(events, length, error);
    }
    if (status == STATUS_OK && !events->alone) {
        remove_others(events);
    }
    return status;
}
