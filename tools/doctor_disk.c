// How fast the disk gives pieces at random: the loader's own reader, past the page cache where the
// file system lets us.
#include "tools/doctor.h"

#include "formats/file.h"
#include "pipeline/reader.h"
#include "tools/measure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH       32u
#define FILES       32u  // of a dataset at most
#define SECONDS     0.75 // for which it reads
#define PAGE        4096u
#define PIECE_LEAST (16u << 10)
#define PIECE_MOST  (256u << 10)
#define OWN_BYTES   (64u << 20) // of the file made where there is no dataset
#define OWN_BLOCK   (1u << 20)

struct trial {
    struct doctor_disk *disk;
    int fds[FILES];
    uint64_t length[FILES];
    uint32_t files;
    uint64_t drawn; // of the places
    struct read_request request[DEPTH];
    uint8_t *memory;
    struct reader reader;
};

// --- files ---------------------------------------------------------------------------------------

// Without O_DIRECT the kernel is asked to forget the file first.
static int open_cold(struct trial *trial, const char *path)
{
    int fd = trial->disk->direct ? open(path, O_RDONLY | O_CLOEXEC | O_DIRECT) : -1;
    if (fd < 0) {
        trial->disk->direct = false;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        }
    }
    return fd;
}

// Closed with the trial.
static void take_file(struct trial *trial, int fd, uint64_t length)
{
    trial->fds[trial->files] = fd;
    trial->length[trial->files++] = length;
}

static enum status add_file(struct trial *trial, const char *path, uint64_t length,
                            struct error *error)
{
    int fd = open_cold(trial, path);
    if (fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    take_file(trial, fd, length);
    return STATUS_OK;
}

static enum status open_dataset(struct trial *trial, const struct dataset *dataset,
                                struct error *error)
{
    enum status status = STATUS_OK;
    uint32_t files = dataset_file_count(dataset);
    for (uint32_t i = 0; i < files && i < FILES && status == STATUS_OK; i++) {
        status =
            add_file(trial, dataset_file_path(dataset, i), dataset_file_length(dataset, i), error);
    }
    return status;
}

// Numbers that no disk compresses.
static enum status fill(int fd, struct error *error)
{
    uint64_t *block = malloc(OWN_BLOCK), state = 1;
    enum status status = STATUS_OK;
    if (block == NULL) {
        return error_errno(error, ENOMEM, ".", NOWHERE, "allocate");
    }
    for (uint32_t at = 0; at < OWN_BYTES && status == STATUS_OK; at += OWN_BLOCK) {
        for (size_t i = 0; i < OWN_BLOCK / sizeof *block; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            block[i] = state ^ state >> 29;
        }
        status = file_write_all(fd, ".", block, OWN_BLOCK, error);
    }
    free(block);
    return status == STATUS_OK ? file_sync(fd, ".", error) : status;
}

// A file without a name is gone when it is closed, however this ends. Where the file system has no
// such files (overlayfs before Linux 6.6) it has one for a moment.
static int make_nameless(void)
{
    char path[] = "./byol-doctor-XXXXXX";
    int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0) {
            unlink(path);
        }
    }
    return fd;
}

// Opened anew past the page cache; where /proc is not there, as it was made.
static enum status open_own(struct trial *trial, struct error *error)
{
    char path[64];
    int fd = make_nameless();
    if (fd < 0) {
        return error_errno(error, errno, ".", NOWHERE, "make a file to read from");
    }
    enum status status = fill(fd, error);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (status == STATUS_OK && access(path, R_OK) == 0) {
        status = add_file(trial, path, OWN_BYTES, error);
    } else if (status == STATUS_OK) {
        trial->disk->direct = false;
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        take_file(trial, fd, OWN_BYTES);
        return STATUS_OK;
    }
    close(fd);
    return status;
}

// --- reading -------------------------------------------------------------------------------------

static void submit(struct trial *trial, struct read_request *request)
{
    trial->drawn = trial->drawn * 6364136223846793005u + 1442695040888963407u;
    uint64_t draw = trial->drawn >> 20;
    uint32_t file = (uint32_t)(draw % trial->files), piece = trial->disk->piece;
    uint64_t places = trial->length[file] > piece ? (trial->length[file] - piece) / PAGE + 1 : 1;
    request->file = file;
    request->offset = draw / trial->files % places * PAGE;
    request->len = piece;
    reader_submit(&trial->reader, request);
}

static enum status read_pieces(struct trial *trial, struct error *error)
{
    struct read_request *finished[DEPTH];
    enum status status = STATUS_OK;
    uint64_t bytes = 0;
    size_t count;
    double start = measure_seconds(), now = start;
    for (uint32_t i = 0; i < DEPTH; i++) {
        trial->request[i].buf = trial->memory + (size_t)i * trial->disk->piece;
        submit(trial, &trial->request[i]);
    }
    while (status == STATUS_OK && now < start + SECONDS) {
        status = reader_wait(&trial->reader, finished, DEPTH, &count, error);
        now = measure_seconds();
        for (size_t i = 0; status == STATUS_OK && i < count; i++) {
            bytes += finished[i]->done;
            if (finished[i]->errnum != 0) {
                status = error_errno(error, finished[i]->errnum, NULL, finished[i]->offset, "read");
            } else {
                submit(trial, finished[i]);
            }
        }
    }
    trial->disk->bytes_per_second = status == STATUS_OK ? (double)bytes / (now - start) : 0;
    return status;
}

static enum status read_files(struct trial *trial, struct error *error)
{
    size_t bytes = (size_t)DEPTH * trial->disk->piece;
    trial->memory = aligned_alloc(PAGE, bytes);
    if (trial->memory == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate");
    }
    const struct reader_setup setup = {.fds = trial->fds,
                                       .files = trial->files,
                                       .memory = trial->memory,
                                       .bytes = bytes,
                                       .depth = DEPTH};
    enum status status = reader_open(&trial->reader, &setup, LOADER_IO_AUTO, error);
    if (status == STATUS_OK) {
        status = read_pieces(trial, error);
        reader_drain(&trial->reader);
        reader_close(&trial->reader);
    }
    free(trial->memory);
    return status;
}

static uint32_t piece_of(const struct dataset *dataset)
{
    if (dataset == NULL) {
        return PIECE_MOST / 2;
    }
    uint64_t bytes = 0, count = dataset_count(dataset);
    for (uint32_t i = 0; i < dataset_file_count(dataset); i++) {
        bytes += dataset_file_length(dataset, i);
    }
    uint64_t mean = count > 0 ? bytes / count : 0;
    uint64_t piece = (mean + PAGE - 1) / PAGE * PAGE;
    return (uint32_t)(piece < PIECE_LEAST ? PIECE_LEAST : piece > PIECE_MOST ? PIECE_MOST : piece);
}

void doctor_disk(struct doctor_disk *disk, const struct dataset *dataset)
{
    struct error error;
    struct trial *trial = calloc(1, sizeof *trial);
    *disk = (struct doctor_disk){.direct = true, .piece = piece_of(dataset)};
    if (trial == NULL) {
        snprintf(disk->part.words, sizeof disk->part.words, "no memory");
        return;
    }
    trial->disk = disk;
    enum status status = dataset ? open_dataset(trial, dataset, &error) : open_own(trial, &error);
    if (status == STATUS_OK) {
        status = read_files(trial, &error);
    }
    disk->part.usable = status == STATUS_OK;
    if (status == STATUS_OK) {
        snprintf(disk->part.words, sizeof disk->part.words, "%s",
                 dataset ? dataset_directory(dataset) : "the current directory");
    } else {
        error_text(&error, disk->part.words, sizeof disk->part.words);
    }
    for (uint32_t i = 0; i < trial->files; i++) {
        close(trial->fds[i]);
    }
    free(trial);
}
