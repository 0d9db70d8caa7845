// Records are independent, so threads take the next one; what they find is sorted afterwards.
#include "tools/verify.h"
#include "formats/crc32c.h"
#include "formats/file.h"
#include "formats/jpeg/recode.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES  ((size_t)1 << 20)
#define THREADS_MAX 256

struct verify {
    const struct dataset *dataset;
    struct progress *progress;
    atomic_uint_fast64_t next; // record to take
    pthread_mutex_t lock;      // guards the fields below and the progress line
    uint64_t done;
    struct verify_report *report;
    enum status status; // of the check itself
    struct error error;
};

void verify_report_free(struct verify_report *report)
{
    free(report->errors);
    *report = (struct verify_report){0};
}

// Keeps the first ones: of a full list, the last in order gives way.
static void list_error(struct verify_report *report, const struct error *error)
{
    size_t at = report->error_count;
    if (at == VERIFY_LISTED) {
        for (size_t i = at = 0; i < report->error_count; i++) {
            at = report->errors[i].record + 1 > report->errors[at].record + 1 ? i : at;
        }
        if (error->record + 1 > report->errors[at].record + 1) {
            return;
        }
    } else {
        report->error_count++;
    }
    report->errors[at] = *error;
}

// Files' errors have record NOWHERE, which + 1 makes the smallest.
static int compare_errors(const void *left, const void *right)
{
    const struct error *a = left, *b = right;
    uint64_t x = a->record + 1, y = b->record + 1;
    return x != y ? (x < y ? -1 : 1) : strcmp(a->path, b->path);
}

// --- files -------------------------------------------------------------------------------------

static enum status check_file(const struct verify *verify, uint32_t file, uint8_t *buf,
                              struct error *error)
{
    const char *path = dataset_file_path(verify->dataset, file);
    uint64_t length = dataset_file_length(verify->dataset, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return error_errno(error, errno, path, NOWHERE, "open");
    }
    uint32_t crc = 0;
    enum status status = STATUS_OK;
    for (uint64_t at = 0; at < length && status == STATUS_OK; at += READ_BYTES) {
        size_t len = length - at < READ_BYTES ? (size_t)(length - at) : READ_BYTES;
        status = file_read_at(fd, path, buf, len, at, error);
        crc = status == STATUS_OK ? crc32c(crc, buf, len) : crc;
        progress_line(verify->progress, false,
                      "checking files: %" PRIu32 " of %" PRIu32 ", %.0f %%", file + 1,
                      dataset_file_count(verify->dataset), 100.0 * (double)at / (double)length);
    }
    close(fd);
    uint32_t want = dataset_file_crc(verify->dataset, file);
    if (status == STATUS_OK && crc != want) {
        status = error_set(error, STATUS_CORRUPT, path, NOWHERE, NOWHERE,
                           "the file is damaged: checksum %08" PRIx32 ", expected %08" PRIx32, crc,
                           want);
    }
    return status;
}

static enum status check_files(struct verify *verify, struct error *error)
{
    uint8_t *buf = malloc(READ_BYTES);
    if (buf == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory to verify");
    }
    for (uint32_t i = 0; i < dataset_file_count(verify->dataset); i++) {
        struct error bad = {0};
        if (check_file(verify, i, buf, &bad) != STATUS_OK) {
            verify->report->bad_files++;
            list_error(verify->report, &bad);
        }
    }
    free(buf);
    return STATUS_OK;
}

// --- records -----------------------------------------------------------------------------------

struct checker {
    struct dataset_unpacker *unpacker;
    struct image_decoder *decoder;
    struct image image;
    uint8_t *stored;
    uint32_t file; // that is open as `fd`
    int fd;
};

static enum status open_file(struct checker *checker, const struct dataset *dataset, uint32_t file,
                             struct error *error)
{
    if (checker->fd >= 0 && checker->file == file) {
        return STATUS_OK;
    }
    if (checker->fd >= 0) {
        close(checker->fd);
    }
    const char *path = dataset_file_path(dataset, file);
    checker->file = file;
    checker->fd = open(path, O_RDONLY | O_CLOEXEC);
    return checker->fd < 0 ? error_errno(error, errno, path, NOWHERE, "open") : STATUS_OK;
}

// The JPEG file must come back, and be the original where that was promised.
static enum status check_return(const uint8_t *bytes, size_t len, struct error *error)
{
    uint8_t *jpeg;
    size_t jpeg_len;
    bool exact;
    enum status status = recode_restore(bytes, len, &exact, &jpeg, &jpeg_len, error);
    free(jpeg);
    return status;
}

static enum status check_image(struct checker *checker, const struct dataset_record *about,
                               const uint8_t *bytes, size_t len, struct error *error)
{
    enum status status = image_decode(checker->decoder, bytes, len, NULL, &checker->image, error);
    if (status == STATUS_OK &&
        (checker->image.width != about->width || checker->image.height != about->height)) {
        return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                         "the image is %" PRIu32 " x %" PRIu32 " pixels, the index says %" PRIu32
                         " x %" PRIu32,
                         checker->image.width, checker->image.height, about->width, about->height);
    }
    return status == STATUS_OK && about->kind == IMAGE_RECODED ? check_return(bytes, len, error)
                                                               : status;
}

static enum status check_record(struct checker *checker, const struct dataset *dataset,
                                uint64_t record, struct error *error)
{
    struct dataset_record about = dataset_record(dataset, record);
    const char *path = dataset_file_path(dataset, about.file);
    const uint8_t *bytes;
    size_t len;
    enum status status = open_file(checker, dataset, about.file, error);
    if (status == STATUS_OK) {
        status = file_read_at(checker->fd, path, checker->stored, about.stored_length, about.offset,
                              error);
    }
    if (status == STATUS_OK) {
        status = dataset_unpack(checker->unpacker, record, checker->stored, &bytes, &len, error);
    }
    if (status == STATUS_OK) {
        status = check_image(checker, &about, bytes, len, error);
    }
    if (status != STATUS_OK) {
        error_set(error, status, path, about.offset, record, "%s", error->reason);
    }
    return status;
}

static void check_taken_records(struct verify *verify, struct checker *checker)
{
    uint64_t count = dataset_count(verify->dataset), record;
    while ((record = atomic_fetch_add(&verify->next, 1)) < count) {
        struct error bad = {0};
        enum status status = check_record(checker, verify->dataset, record, &bad);
        pthread_mutex_lock(&verify->lock);
        if (status != STATUS_OK) {
            verify->report->bad_records++;
            list_error(verify->report, &bad);
        }
        progress_bar(verify->progress, "checking images", ++verify->done, count, "images");
        pthread_mutex_unlock(&verify->lock);
    }
}

static void *check_records(void *argument)
{
    struct verify *verify = argument;
    struct checker checker = {.fd = -1};
    struct error error;
    enum status status = dataset_unpacker_open(&checker.unpacker, verify->dataset, &error);
    if (status == STATUS_OK) {
        status = image_decoder_open(&checker.decoder, &error);
    }
    checker.stored = malloc((size_t)dataset_max_stored_length(verify->dataset) + 1);
    if (status == STATUS_OK && checker.stored == NULL) {
        status = error_errno(&error, ENOMEM, NULL, NOWHERE, "allocate memory to verify");
    }
    if (status == STATUS_OK) {
        check_taken_records(verify, &checker);
    } else {
        pthread_mutex_lock(&verify->lock);
        verify->status = status;
        verify->error = error;
        pthread_mutex_unlock(&verify->lock);
    }
    if (checker.fd >= 0) {
        close(checker.fd);
    }
    free(checker.stored);
    image_free(&checker.image);
    image_decoder_close(&checker.decoder);
    dataset_unpacker_close(&checker.unpacker);
    return NULL;
}

// The calling thread works too, so that a machine which starts no threads still verifies.
static void run_threads(struct verify *verify, unsigned threads)
{
    pthread_t thread[THREADS_MAX];
    unsigned started = 0;
    while (started + 1 < threads && started < THREADS_MAX &&
           pthread_create(&thread[started], NULL, check_records, verify) == 0) {
        started++;
    }
    check_records(verify);
    for (unsigned i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
    }
}

enum status verify_dataset(const struct dataset *dataset, unsigned threads,
                           struct progress *progress, struct verify_report *report,
                           struct error *error)
{
    struct verify verify = {.dataset = dataset, .progress = progress, .report = report};
    *report = (struct verify_report){0};
    report->errors = calloc(VERIFY_LISTED, sizeof *report->errors);
    if (report->errors == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory to verify");
    }
    enum status status = check_files(&verify, error);
    if (status == STATUS_OK) {
        pthread_mutex_init(&verify.lock, NULL);
        run_threads(&verify, threads);
        pthread_mutex_destroy(&verify.lock);
        // A thread that could not start its decoder leaves its share to the others.
        if (verify.done < dataset_count(dataset)) {
            status = verify.status;
            *error = verify.error;
        }
    }
    qsort(report->errors, report->error_count, sizeof *report->errors, compare_errors);
    return status;
}
