// ImageNet's own archives, straight from the tar: ILSVRC2012_img_train.tar is a tar of one tar a
// class, whose name is the class's (its task 3 and the Winter 2021 release too):
//
//     n01440764.tar             n01440764_18.JPEG  n01440764_36.JPEG …
//     n01443537.tar             …
//
// An image's name becomes n01440764/n01440764_18.JPEG, so that the folder is its class, as in a
// tree of extracted files. One class's tar alone is read the same way: its images' names begin with
// the class's. The validation tar is flat and without classes: the plain tar reader's, its labels
// those of the development kit (formats/ilsvrc_devkit.h). Nothing is extracted; where the outer tar
// is not compressed, the pass over names seeks.
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/source_tar.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SNIFFED_FILES 4    // looked at before a tar is called none
#define MAGIC_AT      257u // of "ustar"
#define MAGIC_LEN     5u
#define CLASS_DIGITS  8u // behind the n of a WordNet number
#define TRAIN_TARS    1000
#define TRAIN_FILES   1281167

struct ilsvrc {
    char path[512];
    int fd; // of the outer tar
    void *outer, *inner;
    uint64_t tars, files; // of classes, and in them, so far
    char class[256];      // of the inner tar
    char place[800];      // of the inner tar, for errors
    char name[LIMIT_NAME_BYTES + 256];
    char layout[160];
    // Where the inner tar lies; without a place it is read through the outer.
    bool placed;
    uint64_t start, len, at;
};

// --- names ---------------------------------------------------------------------------------------

static const char *base_of(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

// "n01440764.tar": the length of what stands before the ending, or 0.
static size_t class_tar_length(const char *name)
{
    const char *base = base_of(name);
    size_t len = strlen(base);
    bool tar = len > 4 && len - 4 < sizeof((struct ilsvrc *)NULL)->class &&
               strcmp(base + len - 4, ".tar") == 0 && base[0] != '.';
    return tar ? len - 4 : 0;
}

static const char *without_dot(const char *name)
{
    return strncmp(name, "./", 2) == 0 ? name + 2 : name;
}

// "n01440764_18.JPEG" without a folder: the length of the class's name in front, or 0.
static size_t class_image_length(const char *name)
{
    size_t digits = name[0] == 'n' ? strspn(name + 1, "0123456789") : 0;
    const char *rest = name + 1 + digits;
    if (digits != CLASS_DIGITS || rest[0] != '_') {
        return 0;
    }
    size_t number = strspn(rest + 1, "0123456789");
    return number > 0 && strcmp(rest + 1 + number, ".JPEG") == 0 ? 1 + digits : 0;
}

// --- tars inside the tar -------------------------------------------------------------------------

static enum status read_inner(void *context, void *buf, size_t len, size_t *got,
                              struct error *error)
{
    struct ilsvrc *ilsvrc = context;
    if (!ilsvrc->placed) {
        return source_tar.read(ilsvrc->outer, buf, len, got, error);
    }
    uint64_t rest = ilsvrc->len - ilsvrc->at;
    *got = rest < len ? (size_t)rest : len;
    enum status status =
        file_read_at(ilsvrc->fd, ilsvrc->path, buf, *got, ilsvrc->start + ilsvrc->at, error);
    ilsvrc->at += *got;
    return status;
}

static uint64_t skip_inner(void *context, uint64_t len)
{
    struct ilsvrc *ilsvrc = context;
    uint64_t rest = ilsvrc->placed ? ilsvrc->len - ilsvrc->at : 0, step = rest < len ? rest : len;
    ilsvrc->at += step;
    return step;
}

static enum status open_inner(struct ilsvrc *ilsvrc, const struct source_entry *entry,
                              struct error *error)
{
    const struct source_tar_input input = {ilsvrc, read_inner, skip_inner};
    const char *base = base_of(entry->name);
    size_t len = class_tar_length(entry->name);
    memcpy(ilsvrc->class, base, len);
    ilsvrc->class[len] = '\0';
    ilsvrc->tars++;
    snprintf(ilsvrc->place, sizeof ilsvrc->place, "%s/%s.tar", ilsvrc->path, ilsvrc->class);
    ilsvrc->placed = source_tar_place(ilsvrc->outer, &ilsvrc->start);
    ilsvrc->len = entry->size;
    ilsvrc->at = 0;
    return source_tar_open_input(&ilsvrc->inner, ilsvrc->place, &input, error);
}

static enum status next_of_inner(struct ilsvrc *ilsvrc, struct source_entry *entry,
                                 struct error *error)
{
    enum status status = source_tar.next(ilsvrc->inner, entry, error);
    if (status == STATUS_END) {
        source_tar.close(&ilsvrc->inner);
        return status;
    }
    if (status == STATUS_OK && entry->name != NULL) {
        snprintf(ilsvrc->name, sizeof ilsvrc->name, "%s/%s", ilsvrc->class,
                 without_dot(entry->name));
        entry->name = ilsvrc->name;
        ilsvrc->files += entry->type == SOURCE_ENTRY_FILE;
    }
    return status;
}

// --- the kind ------------------------------------------------------------------------------------

static void ilsvrc_close(void **state)
{
    struct ilsvrc *ilsvrc = *state;
    if (ilsvrc != NULL) {
        source_tar.close(&ilsvrc->inner);
        source_tar.close(&ilsvrc->outer);
        if (ilsvrc->fd >= 0) {
            close(ilsvrc->fd);
        }
        free(ilsvrc);
        *state = NULL;
    }
}

static enum status ilsvrc_open(void **state, const char *path, struct error *error)
{
    struct ilsvrc *ilsvrc = calloc(1, sizeof *ilsvrc);
    *state = ilsvrc;
    if (ilsvrc == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    snprintf(ilsvrc->path, sizeof ilsvrc->path, "%s", path);
    ilsvrc->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (ilsvrc->fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    return source_tar.open(&ilsvrc->outer, path, error);
}

static enum status ilsvrc_next(void *state, struct source_entry *entry, struct error *error)
{
    struct ilsvrc *ilsvrc = state;
    const struct source_entry fresh = *entry;
    for (;;) {
        if (ilsvrc->inner != NULL) {
            enum status status = next_of_inner(ilsvrc, entry, error);
            if (status != STATUS_END) {
                return status;
            }
        }
        *entry = fresh;
        enum status status = source_tar.next(ilsvrc->outer, entry, error);
        if (status != STATUS_OK || entry->type == SOURCE_ENTRY_LINK || entry->name == NULL) {
            return status;
        }
        if (class_tar_length(entry->name) == 0) {
            const char *name = without_dot(entry->name);
            size_t len = class_image_length(name);
            snprintf(ilsvrc->name, sizeof ilsvrc->name, "%.*s%s%s", (int)len, name,
                     len > 0 ? "/" : "", name);
            entry->name = ilsvrc->name;
            return STATUS_OK;
        }
        status = open_inner(ilsvrc, entry, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
}

static enum status ilsvrc_read(void *state, void *buf, size_t len, size_t *got, struct error *error)
{
    struct ilsvrc *ilsvrc = state;
    return source_tar.read(ilsvrc->inner ? ilsvrc->inner : ilsvrc->outer, buf, len, got, error);
}

static const char *ilsvrc_describe(void *state)
{
    struct ilsvrc *ilsvrc = state;
    if (ilsvrc->tars == 0) {
        return "one class's tar";
    }
    bool whole = ilsvrc->files == TRAIN_FILES;
    snprintf(ilsvrc->layout, sizeof ilsvrc->layout,
             "a tar of %" PRIu64 " class tars with %" PRIu64 " files%s", ilsvrc->tars,
             ilsvrc->files,
             ilsvrc->tars != TRAIN_TARS ? ""
             : whole                    ? ", ILSVRC2012's training set"
                                        : "; ILSVRC2012's training set has 1281167");
    return ilsvrc->layout;
}

static bool starts_a_tar(struct ilsvrc *ilsvrc)
{
    uint8_t head[MAGIC_AT + MAGIC_LEN];
    size_t got;
    return source_tar.read(ilsvrc->outer, head, sizeof head, &got, NULL) == STATUS_OK &&
           got == sizeof head && memcmp(head + MAGIC_AT, "ustar", MAGIC_LEN) == 0;
}

// A class's tar, or a class's image, is among the first files.
static bool has_classes(struct ilsvrc *ilsvrc)
{
    for (int i = 0; i < SNIFFED_FILES; i++) {
        struct source_entry entry = {0};
        if (source_tar.next(ilsvrc->outer, &entry, NULL) != STATUS_OK) {
            return false;
        }
        bool file = entry.type == SOURCE_ENTRY_FILE && entry.name != NULL;
        if (file && class_image_length(without_dot(entry.name)) > 0) {
            return true;
        }
        if (file && class_tar_length(entry.name) > 0 && starts_a_tar(ilsvrc)) {
            return true;
        }
    }
    return false;
}

static enum status ilsvrc_recognise(const char *path, bool *mine, struct error *error)
{
    void *state;
    enum status status = ilsvrc_open(&state, path, error);
    *mine = status == STATUS_OK && has_classes(state);
    ilsvrc_close(&state);
    return status == STATUS_NO_MEMORY ? status : STATUS_OK;
}

const struct source_kind source_ilsvrc = {.name = "ImageNet's tars",
                                          .recognise = ilsvrc_recognise,
                                          .open = ilsvrc_open,
                                          .next = ilsvrc_next,
                                          .read = ilsvrc_read,
                                          .describe = ilsvrc_describe,
                                          .close = ilsvrc_close};
