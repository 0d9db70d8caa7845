// A dataset of our own, given to convert by mistake: nothing to convert, but something to say.
#include "formats/index.h"
#include "formats/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum status own_recognise(const char *path, bool *mine, struct error *error)
{
    (void)error;
    char file[600];
    uint8_t magic[4];
    snprintf(file, sizeof file, "%s/" INDEX_FILE_NAME, path);
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *mine = fd >= 0 && pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
            memcmp(magic,
                   "\x89"
                   "BYO",
                   sizeof magic) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return STATUS_OK;
}

static enum status own_open(void **state, const char *path, struct error *error)
{
    *state = NULL;
    return error_set(error, STATUS_UNSUPPORTED, path, NOWHERE, NOWHERE,
                     "a dataset of byol already: train on it as it is, or write its images as "
                     "files with 'byol inspect DATASET --extract DIR' and convert those");
}

static void own_close(void **state)
{
    *state = NULL;
}

const struct source_kind source_dataset = {.name = "byol dataset",
                                           .recognise = own_recognise,
                                           .open = own_open,
                                           // Never opened, so nothing is read.
                                           .close = own_close};
