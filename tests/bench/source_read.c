// How fast `byol convert` reads a source, beside `cat`.
//
//     build/tests/bench/source_read SOURCE [ROUNDS]
//
// In turn: all bytes of the file by read(2) in pieces of 128 KiB, as cat reads them; the source's
// names; the source's images. Run it twice, so that the file is in the page cache. Printed are
// medians of the rounds in seconds, of processor time (which a busy machine does not change) and of
// the clock.
#include "formats/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PIECE       (128u << 10)
#define MOST_ROUNDS 99

enum { CAT, NAMES, IMAGES, WAYS };

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    fprintf(stderr, "source_read: %s\n", what);
    exit(1);
}

static uint64_t read_file(const char *path)
{
    static char piece[PIECE];
    int fd = open(path, O_RDONLY);
    uint64_t total = 0;
    ssize_t got;
    while (fd >= 0 && (got = read(fd, piece, sizeof piece)) > 0) {
        total += (uint64_t)got;
    }
    if (fd < 0 || close(fd) != 0) {
        die(path);
    }
    return total;
}

static uint64_t read_source(const char *path, bool images)
{
    static uint8_t *bytes;
    static size_t capacity;
    struct source *source;
    struct source_member member;
    struct error error;
    uint64_t total = 0;
    size_t len;
    enum status status = source_open(&source, path, &error);
    while (status == STATUS_OK && (status = source_next(source, &member, &error)) == STATUS_OK) {
        if (images) {
            status = source_read(source, &bytes, &len, &capacity, &error);
            total += len;
        }
    }
    source_close(&source);
    if (status != STATUS_END) {
        die(error.reason);
    }
    return total;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

int main(int argc, char **argv)
{
    static const char *const names[WAYS] = {"as cat reads it", "names", "images"};
    static double work[WAYS][MOST_ROUNDS], wall[WAYS][MOST_ROUNDS];
    int rounds = argc > 2 ? atoi(argv[2]) : 9;
    uint64_t total = 0;
    if (argc < 2 || rounds < 1 || rounds > MOST_ROUNDS) {
        die("wants a tar, and at most 99 rounds");
    }
    for (int round = 0; round < rounds; round++) {
        for (int way = 0; way < WAYS; way++) {
            double start = now(CLOCK_MONOTONIC), start_work = now(CLOCK_PROCESS_CPUTIME_ID);
            uint64_t bytes = way == CAT ? read_file(argv[1]) : read_source(argv[1], way == IMAGES);
            work[way][round] = now(CLOCK_PROCESS_CPUTIME_ID) - start_work;
            wall[way][round] = now(CLOCK_MONOTONIC) - start;
            total = way == CAT ? bytes : total;
        }
    }
    printf("%.1f MB\n", (double)total / 1e6);
    for (int way = 0; way < WAYS; way++) {
        qsort(work[way], (size_t)rounds, sizeof(double), compare);
        qsort(wall[way], (size_t)rounds, sizeof(double), compare);
        double seconds = work[way][rounds / 2];
        printf("%-16s %.4f s of processor time (%.1f GB/s), %.4f s by the clock\n", names[way],
               seconds, (double)total / 1e9 / seconds, wall[way][rounds / 2]);
    }
    printf("images and names at %.0f %% of cat's speed\n",
           100 * work[CAT][rounds / 2] / (work[NAMES][rounds / 2] + work[IMAGES][rounds / 2]));
    return 0;
}
