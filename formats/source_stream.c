// Runs a reader and takes its frames.
#include "formats/source_stream.h"
#include "formats/limits.h"
#include "formats/source_content.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC       "BYOLIMG1"
#define HEAD_BYTES  32u
#define PIXEL_BYTES (LIMIT_IMAGE_PIXELS * 3)
#define NUMBERED    1u
#define LEFT_OUT    2u
#define WHY_BYTES   400u // of what a program says about a bad image

enum frame {
    FRAME_FILE = 1,
    FRAME_RGB,
    FRAME_GREY,
    FRAME_CLASS,
    FRAME_LAYOUT,
    FRAME_END,
    FRAME_FAILURE,
    FRAME_BAD
};

struct frame_head {
    uint32_t what, flags;
    int32_t label;
    uint32_t name_len, width, height;
    uint64_t payload;
};

struct source_stream {
    char path[512], program[64];
    pid_t child;
    int pipe;
    bool begun, names_only;
    char name[LIMIT_NAME_BYTES + 1];
    uint8_t *payload;
    size_t capacity;
    struct source_content content;
    char **classes;
    uint32_t class_count, class_capacity;
    char layout[400];
    uint64_t record;
};

extern char **environ;

// --- starting ----------------------------------------------------------------------------------

bool source_stream_find(const char *file, char *path, size_t size)
{
    const char *named = getenv("BYOL_LIBEXEC");
    char program[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    program[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    const char *const folders[] = {named ? named : "", slash ? program : "", slash ? program : ""};
    const char *const below[] = {"", "", "/../libexec/byol"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        int written = snprintf(path, size, "%s%s/%s", folders[i], below[i], file);
        if (folders[i][0] != '\0' && written > 0 && (size_t)written < size &&
            access(path, R_OK) == 0) {
            return true;
        }
    }
    return false;
}

// Returns 0 or an errno.
static int spawn(pid_t *child, const char *const *arguments, int output)
{
    posix_spawn_file_actions_t actions;
    int code = posix_spawn_file_actions_init(&actions);
    if (code != 0) {
        return code;
    }
    code = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (code == 0) {
        code = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    }
    if (code == 0) {
        code = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    }
    if (code == 0) {
        code = posix_spawnp(child, arguments[0], &actions, NULL, (char *const *)arguments, environ);
    }
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

enum status source_stream_from(struct source_stream **out, const char *path, int pipe,
                               const char *program, bool names_only, struct error *error)
{
    struct source_stream *stream = calloc(1, sizeof *stream);
    *out = stream;
    if (stream == NULL) {
        close(pipe);
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    const char *slash = strrchr(program, '/');
    stream->pipe = pipe;
    stream->names_only = names_only;
    snprintf(stream->path, sizeof stream->path, "%s", path);
    snprintf(stream->program, sizeof stream->program, "%s", slash ? slash + 1 : program);
    return STATUS_OK;
}

enum status source_stream_open(struct source_stream **out, const char *path,
                               const char *const *arguments, bool names_only, const char *missing,
                               struct error *error)
{
    int ends[2];
    *out = NULL;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return error_errno(error, errno, path, NOWHERE, "make a pipe");
    }
    enum status status = source_stream_from(out, path, ends[0], arguments[0], names_only, error);
    struct source_stream *stream = *out;
    if (stream == NULL) {
        close(ends[1]);
        return status;
    }
    int code = spawn(&stream->child, arguments, ends[1]);
    close(ends[1]);
    if (code == 0) {
        return STATUS_OK;
    }
    stream->child = 0;
    return code == ENOENT || code == EACCES
               ? error_set(error, STATUS_UNSUPPORTED, path, NOWHERE, NOWHERE, "%s", missing)
               : error_errno(error, code, path, NOWHERE, "start a program to read");
}

void source_stream_close(void **state)
{
    struct source_stream *stream = *state;
    if (stream == NULL) {
        return;
    }
    if (stream->pipe >= 0) {
        close(stream->pipe);
    }
    if (stream->child > 0) {
        kill(stream->child, SIGKILL);
        while (waitpid(stream->child, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    for (uint32_t i = 0; i < stream->class_count; i++) {
        free(stream->classes[i]);
    }
    free(stream->classes);
    free(stream->payload);
    source_content_free(&stream->content);
    free(stream);
    *state = NULL;
}

// --- reading -----------------------------------------------------------------------------------

// Why the pipe ended before its time.
static enum status explain_end(struct source_stream *stream, struct error *error)
{
    int how = 0;
    pid_t child = stream->child;
    stream->child = 0;
    while (child > 0 && waitpid(child, &how, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(how)) {
        return error_set(error, STATUS_CORRUPT, stream->path, NOWHERE, stream->record,
                         "%s, which reads it, was ended by signal %d (%s): the file is damaged, or "
                         "larger than memory",
                         stream->program, WTERMSIG(how), strsignal(WTERMSIG(how)));
    }
    return error_set(error, STATUS_IO, stream->path, NOWHERE, stream->record,
                     "%s, which reads it, ended with code %d and without an explanation",
                     stream->program, WEXITSTATUS(how));
}

static enum status take(struct source_stream *stream, void *to, size_t len, struct error *error)
{
    uint8_t *at = to;
    while (len > 0) {
        ssize_t got = read(stream->pipe, at, len);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return error_errno(error, errno, stream->path, NOWHERE, "read what a program reads");
        }
        if (got == 0) {
            return explain_end(stream, error);
        }
        at += got;
        len -= (size_t)got;
    }
    return STATUS_OK;
}

static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)source_range_number(from, 4);
}

static enum status nonsense(const struct source_stream *stream, struct error *error)
{
    return error_set(error, STATUS_CORRUPT, stream->path, NOWHERE, stream->record,
                     "%s, which reads it, says something that makes no sense", stream->program);
}

// What the program itself says is wrong.
static enum status failure(const struct source_stream *stream, enum status status, const char *why,
                           struct error *error)
{
    return error_set(error, status, stream->path, NOWHERE, stream->record, "%s",
                     why[0] != '\0' ? why : "what reads it gives no reason");
}

// A frame's head and name; its payload is still in the pipe.
static enum status take_head(struct source_stream *stream, struct frame_head *head,
                             struct error *error)
{
    uint8_t bytes[HEAD_BYTES];
    enum status status = STATUS_OK;
    if (!stream->begun) {
        status = take(stream, bytes, strlen(MAGIC), error);
        stream->begun = true;
        if (status == STATUS_OK && memcmp(bytes, MAGIC, strlen(MAGIC)) != 0) {
            return nonsense(stream, error);
        }
    }
    if (status == STATUS_OK) {
        status = take(stream, bytes, sizeof bytes, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    *head = (struct frame_head){.what = get32(bytes),
                                .flags = get32(bytes + 4),
                                .label = (int32_t)get32(bytes + 8),
                                .name_len = get32(bytes + 12),
                                .width = get32(bytes + 16),
                                .height = get32(bytes + 20),
                                .payload = source_range_number(bytes + 24, 8)};
    bool image = head->what >= FRAME_FILE && head->what <= FRAME_GREY;
    uint64_t most = image ? PIXEL_BYTES : head->what == FRAME_BAD ? WHY_BYTES : 0;
    bool left_out = image && stream->names_only && (head->flags & LEFT_OUT) != 0;
    if (head->name_len > LIMIT_NAME_BYTES ||
        (head->payload > most && !(left_out && head->payload == SOURCE_SIZE_UNKNOWN)) ||
        (!left_out && (head->flags & LEFT_OUT) != 0)) {
        return nonsense(stream, error);
    }
    status = take(stream, stream->name, head->name_len, error);
    stream->name[head->name_len] = '\0';
    return status;
}

static enum status take_payload(struct source_stream *stream, size_t len, struct error *error)
{
    if (len > stream->capacity) {
        free(stream->payload);
        stream->capacity = 0;
        stream->payload = malloc(len + len / 4);
        if (stream->payload == NULL) {
            return error_errno(error, ENOMEM, stream->path, NOWHERE,
                               "allocate memory for an image");
        }
        stream->capacity = len + len / 4;
    }
    return take(stream, stream->payload, len, error);
}

static enum status add_class(struct source_stream *stream, struct error *error)
{
    if (stream->class_count == LIMIT_CLASSES) {
        return error_set(error, STATUS_LIMIT, stream->path, NOWHERE, NOWHERE,
                         "more than %llu classes", (unsigned long long)LIMIT_CLASSES);
    }
    if (stream->class_count == stream->class_capacity) {
        uint32_t capacity = stream->class_capacity ? 2 * stream->class_capacity : 64;
        char **grown = realloc(stream->classes, capacity * sizeof *stream->classes);
        if (grown == NULL) {
            return error_errno(error, ENOMEM, stream->path, NOWHERE, "keep the names of classes");
        }
        stream->classes = grown;
        stream->class_capacity = capacity;
    }
    char *copy = strdup(stream->name);
    if (copy == NULL) {
        return error_errno(error, ENOMEM, stream->path, NOWHERE, "keep the names of classes");
    }
    stream->classes[stream->class_count++] = copy;
    return STATUS_OK;
}

// The payload as the current image; for a bad one it is the reason.
static enum status set_content(struct source_stream *stream, const struct frame_head *head,
                               struct error *error)
{
    struct source_range range;
    char why[WHY_BYTES + 1];
    source_range_memory(&range, stream->payload, head->payload, stream->path);
    if ((head->flags & LEFT_OUT) != 0) {
        source_range_file(&range, -1, stream->path, 0, head->payload); // never read
    }
    switch (head->what) {
    case FRAME_BAD:
        snprintf(why, sizeof why, "%.*s", (int)head->payload,
                 head->payload > 0 ? (const char *)stream->payload : "");
        return failure(stream, STATUS_CORRUPT, why, error);
    case FRAME_FILE:
        source_content_file(&stream->content, &range);
        return STATUS_OK;
    default:
        return source_content_pixels(&stream->content, &range,
                                     head->what == FRAME_RGB ? SOURCE_PIXELS_RGB
                                                             : SOURCE_PIXELS_GREY,
                                     head->width, head->height, error);
    }
}

static enum status set_image(struct source_stream *stream, const struct frame_head *head,
                             struct source_entry *entry, struct error *error)
{
    struct error why = {.status = STATUS_OK};
    bool left_out = (head->flags & LEFT_OUT) != 0;
    enum status status = left_out ? STATUS_OK : take_payload(stream, (size_t)head->payload, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = set_content(stream, head, &why);
    entry->name = stream->name;
    entry->numbered = (head->flags & NUMBERED) != 0;
    entry->type = SOURCE_ENTRY_IMAGE;
    entry->label = head->label;
    entry->size = source_content_size(&stream->content);
    stream->record++;
    return source_content_judge(&stream->content, status, &why, entry, error);
}

enum status source_stream_next(void *state, struct source_entry *entry, struct error *error)
{
    struct source_stream *stream = state;
    struct frame_head head;
    for (;;) {
        enum status status = take_head(stream, &head, error);
        if (status != STATUS_OK) {
            return status;
        }
        switch (head.what) {
        case FRAME_FILE:
        case FRAME_RGB:
        case FRAME_GREY:
        case FRAME_BAD:
            return set_image(stream, &head, entry, error);
        case FRAME_CLASS:
            status = add_class(stream, error);
            break;
        case FRAME_LAYOUT:
            snprintf(stream->layout, sizeof stream->layout, "%.399s", stream->name);
            break;
        case FRAME_END:
            return STATUS_END;
        case FRAME_FAILURE:
            status = head.label == STATUS_UNSUPPORTED ? STATUS_UNSUPPORTED : STATUS_CORRUPT;
            return failure(stream, status, stream->name, error);
        default:
            return nonsense(stream, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
}

enum status source_stream_read(void *state, void *buf, size_t len, size_t *got, struct error *error)
{
    struct source_stream *stream = state;
    return source_content_read(&stream->content, buf, len, got, error);
}

const char *const *source_stream_classes(void *state, uint32_t *count)
{
    const struct source_stream *stream = state;
    *count = stream->class_count;
    return stream->class_count > 0 ? (const char *const *)stream->classes : NULL;
}

const char *source_stream_describe(void *state)
{
    const struct source_stream *stream = state;
    return stream->layout[0] != '\0' ? stream->layout : NULL;
}
