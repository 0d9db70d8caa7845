// Walks a folder: names of a directory sorted bytewise, directories entered where they stand. Every
// open is relative to its directory's handle and refuses links, so the walk cannot leave the root.
#include "formats/limits.h"
#include "formats/source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH 64 // directories inside each other

struct level {
    int directory;
    char **names; // sorted
    size_t count, next;
    size_t path_len; // of the path that leads here, with its last slash
};

struct folder {
    char root[512];
    char path[LIMIT_NAME_BYTES + 256]; // of the current entry, relative to the root
    struct level levels[DEPTH];
    size_t depth;
    const char *name; // of the current entry in its directory
    int file;         // the current entry once it is read, else -1
};

static void close_level(struct level *level)
{
    for (size_t i = 0; i < level->count; i++) {
        free(level->names[i]);
    }
    free(level->names);
    if (level->directory >= 0) {
        close(level->directory);
    }
    *level = (struct level){.directory = -1};
}

static void close_file(struct folder *folder)
{
    if (folder->file >= 0) {
        close(folder->file);
        folder->file = -1;
    }
}

static enum status failed(const struct folder *folder, int errnum, const char *what,
                          struct error *error)
{
    char path[sizeof folder->root + sizeof folder->path + 2];
    snprintf(path, sizeof path, "%s/%s", folder->root, folder->path);
    return error_errno(error, errnum, path, NOWHERE, what);
}

static enum status folder_recognise(const char *path, bool *mine, struct error *error)
{
    (void)error;
    struct stat about;
    *mine = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
    return STATUS_OK;
}

// --- directories -------------------------------------------------------------------------------

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

// Returns 0 or an errno.
static int read_names(struct level *level)
{
    int copy = dup(level->directory);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    if (entries == NULL) {
        int errnum = errno;
        if (copy >= 0) {
            close(copy);
        }
        return errnum;
    }
    size_t capacity = 0;
    struct dirent *entry;
    errno = 0;
    while ((entry = readdir(entries)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (level->count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            char **grown = realloc(level->names, capacity * sizeof *grown);
            if (grown == NULL) {
                errno = ENOMEM;
                break;
            }
            level->names = grown;
        }
        level->names[level->count] = strdup(entry->d_name);
        if (level->names[level->count] == NULL) {
            errno = ENOMEM;
            break;
        }
        level->count++;
    }
    int errnum = errno;
    closedir(entries);
    if (errnum == 0 && level->count > 0) {
        qsort(level->names, level->count, sizeof *level->names, compare_names);
    }
    return errnum;
}

// Enters the directory whose path is `path_len` bytes of folder->path.
static enum status enter(struct folder *folder, int directory, size_t path_len, struct error *error)
{
    struct level *level = &folder->levels[folder->depth];
    *level = (struct level){.directory = directory, .path_len = path_len};
    folder->depth++;
    int errnum = read_names(level);
    return errnum ? failed(folder, errnum, "list the directory", error) : STATUS_OK;
}

static enum status enter_named(struct folder *folder, const char *name, struct error *error)
{
    if (folder->depth == DEPTH) {
        return error_set(error, STATUS_LIMIT, folder->root, NOWHERE, NOWHERE,
                         "more than %d directories inside each other", DEPTH);
    }
    int parent = folder->levels[folder->depth - 1].directory;
    int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) {
        return failed(folder, errno, "open the directory", error);
    }
    size_t len = strlen(folder->path);
    folder->path[len] = '/';
    folder->path[len + 1] = '\0';
    return enter(folder, directory, len + 1, error);
}

// --- the source --------------------------------------------------------------------------------

static void folder_close(void **state)
{
    struct folder *folder = *state;
    if (folder != NULL) {
        close_file(folder);
        while (folder->depth > 0) {
            close_level(&folder->levels[--folder->depth]);
        }
        free(folder);
        *state = NULL;
    }
}

static enum status folder_open(void **state, const char *path, struct error *error)
{
    struct folder *folder = calloc(1, sizeof *folder);
    *state = folder;
    if (folder == NULL) {
        return error_errno(error, ENOMEM, path, NOWHERE, "allocate memory to read");
    }
    folder->file = -1;
    snprintf(folder->root, sizeof folder->root, "%s", path);
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        return error_errno(error, errno, path, NOWHERE, "open the directory");
    }
    return enter(folder, directory, 0, error);
}

// The next name in the walk; leaves directories that are done. NULL at the end.
static const char *next_name(struct folder *folder)
{
    while (folder->depth > 0) {
        struct level *level = &folder->levels[folder->depth - 1];
        if (level->next < level->count) {
            return level->names[level->next++];
        }
        close_level(level);
        folder->depth--;
    }
    return NULL;
}

static enum status folder_next(void *state, struct source_entry *entry, struct error *error)
{
    struct folder *folder = state;
    close_file(folder);
    while ((folder->name = next_name(folder)) != NULL) {
        const struct level *level = &folder->levels[folder->depth - 1];
        if (level->path_len + strlen(folder->name) + 2 > sizeof folder->path) {
            return error_set(error, STATUS_LIMIT, folder->root, NOWHERE, NOWHERE,
                             "a path in it is longer than %u bytes", LIMIT_NAME_BYTES);
        }
        snprintf(folder->path + level->path_len, sizeof folder->path - level->path_len, "%s",
                 folder->name);
        struct stat about;
        if (fstatat(level->directory, folder->name, &about, AT_SYMLINK_NOFOLLOW) != 0) {
            return failed(folder, errno, "look at", error);
        }
        if (S_ISDIR(about.st_mode)) {
            enum status status = enter_named(folder, folder->name, error);
            if (status != STATUS_OK) {
                return status;
            }
            continue;
        }
        entry->name = folder->path;
        entry->type = S_ISREG(about.st_mode) ? SOURCE_ENTRY_FILE : SOURCE_ENTRY_LINK;
        entry->size = (uint64_t)about.st_size;
        return STATUS_OK;
    }
    return STATUS_END;
}

static enum status folder_read(void *state, void *buf, size_t len, size_t *got, struct error *error)
{
    struct folder *folder = state;
    *got = 0;
    if (folder->file < 0) {
        int directory = folder->levels[folder->depth - 1].directory;
        // O_NONBLOCK: the file may have become a FIFO since it was looked at.
        folder->file =
            openat(directory, folder->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (folder->file < 0) {
            return failed(folder, errno, "open", error);
        }
    }
    while (*got < len) {
        ssize_t step = read(folder->file, (uint8_t *)buf + *got, len - *got);
        if (step < 0 && errno == EINTR) {
            continue;
        }
        if (step < 0) {
            return failed(folder, errno, "read", error);
        }
        if (step == 0) {
            break;
        }
        *got += (size_t)step;
    }
    return STATUS_OK;
}

const struct source_kind source_folder = {.name = "folder of images",
                                          .recognise = folder_recognise,
                                          .open = folder_open,
                                          .next = folder_next,
                                          .read = folder_read,
                                          .close = folder_close};
