// Times the entropy decoding of JPEG files, ours against libjpeg's: header, tables, coefficients.
//
//     build/tests/bench/jpeg_entropy [TAR-OR-FOLDER [ROUNDS]]
//
// Every round takes each road once over all files, so that a busy machine hits them alike. Printed
// are medians of the rounds (and their range), in milliseconds of processor time per image, and
// cycles per Huffman symbol. A cycle is the time of an addition in a chain of them, measured before
// each road; counters of the processor are rarely there on rented machines.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

#include "formats/isa.h"
#include "formats/jpeg/huffman.h"
#include "formats/source.h"

#define MOST_FILES  10000
#define MOST_ROUNDS 99

struct file {
    uint8_t *bytes;
    size_t len;
};

static struct file files[MOST_FILES];
static size_t file_count;
static struct jpeg_huffman decoder;
static int16_t *blocks[3]; // room for a row of any image
static uint64_t symbols;   // in all files

static void die(const char *what)
{
    fprintf(stderr, "jpeg_entropy: %s\n", what);
    exit(1);
}

// --- the roads -----------------------------------------------------------------------------------

static void ours(const struct file *file)
{
    struct jpeg_header header;
    if (!jpeg_header_read(&header, file->bytes, file->len)) {
        die("a file is not plain");
    }
    jpeg_huffman_start(&decoder, &header, file->bytes, file->len);
    for (uint32_t y = 0; y < header.frame.mcus_high; y++) {
        if (decoder.source.row(&decoder.source, y, 0, header.frame.mcus_wide, blocks, NULL)) {
            die("a file is damaged");
        }
    }
}

static void ours_skipping(const struct file *file)
{
    struct jpeg_header header;
    if (!jpeg_header_read(&header, file->bytes, file->len)) {
        die("a file is not plain");
    }
    jpeg_huffman_start(&decoder, &header, file->bytes, file->len);
    if (decoder.source.row(&decoder.source, header.frame.mcus_high - 1, 0, 0, blocks, NULL)) {
        die("a file is damaged");
    }
}

// Header and tables alone.
static void ours_starting(const struct file *file)
{
    struct jpeg_header header;
    if (!jpeg_header_read(&header, file->bytes, file->len)) {
        die("a file is not plain");
    }
    jpeg_huffman_start(&decoder, &header, file->bytes, file->len);
}

static struct jpeg_decompress_struct libjpeg;

static void libjpeg_coefficients(const struct file *file)
{
    jpeg_mem_src(&libjpeg, file->bytes, file->len);
    jpeg_read_header(&libjpeg, TRUE);
    jpeg_read_coefficients(&libjpeg);
    jpeg_abort_decompress(&libjpeg);
}

static void libjpeg_skipping(const struct file *file)
{
    jpeg_mem_src(&libjpeg, file->bytes, file->len);
    jpeg_read_header(&libjpeg, TRUE);
    jpeg_start_decompress(&libjpeg);
    jpeg_skip_scanlines(&libjpeg, libjpeg.output_height - 1); // all of them would be no work
    jpeg_abort_decompress(&libjpeg);
}

static const struct road {
    const char *name;
    void (*run)(const struct file *file);
} roads[] = {
    {"ours, all coefficients", ours},
    {"ours, skipping all", ours_skipping},
    {"ours, header and tables", ours_starting},
    {"libjpeg, all coefficients", libjpeg_coefficients},
    {"libjpeg, skipping all", libjpeg_skipping},
};
#define ROADS (sizeof roads / sizeof *roads)

// --- files ---------------------------------------------------------------------------------------

static uint64_t count_block(const int16_t *block)
{
    uint64_t count = 1;
    int last = 0;
    for (int k = 1; k < JPEG_BLOCK; k++) {
        if (block[jpeg_natural_place[k]] != 0) {
            count += 1 + (uint64_t)(k - last - 1) / 16;
            last = k;
        }
    }
    return count + (last < JPEG_BLOCK - 1);
}

// Also sees to it that `blocks` is large enough.
static void count_symbols(const struct file *file)
{
    static size_t room;
    struct jpeg_header header;
    if (!jpeg_header_read(&header, file->bytes, file->len)) {
        die("a file is not plain");
    }
    const struct jpeg_frame *frame = &header.frame;
    size_t most = (size_t)frame->mcus_wide * 4 * JPEG_BLOCK * sizeof(int16_t);
    for (int c = 0; c < 3 && most > room; c++) {
        free(blocks[c]);
        blocks[c] = aligned_alloc(64, most);
        if (blocks[c] == NULL) {
            die("no memory");
        }
    }
    room = most > room ? most : room;
    jpeg_huffman_start(&decoder, &header, file->bytes, file->len);
    for (uint32_t y = 0; y < frame->mcus_high; y++) {
        if (decoder.source.row(&decoder.source, y, 0, frame->mcus_wide, blocks, NULL)) {
            die("a file is damaged");
        }
        for (uint32_t c = 0; c < frame->components; c++) {
            size_t count = (size_t)frame->mcus_wide * frame->component[c].h * frame->component[c].v;
            for (size_t b = 0; b < count; b++) {
                symbols += count_block(blocks[c] + b * JPEG_BLOCK);
            }
        }
    }
}

static void load(const char *path)
{
    struct source *source;
    struct source_member member;
    struct error error = {0};
    size_t capacity;
    enum status status = source_open(&source, path, &error);
    while (status == STATUS_OK && file_count < MOST_FILES) {
        status = source_next(source, &member, &error);
        if (status == STATUS_OK) {
            struct file *file = &files[file_count++];
            capacity = 0;
            status = source_read(source, &file->bytes, &file->len, &capacity, &error);
        }
    }
    if (status != STATUS_END && status != STATUS_OK) {
        die(error.reason);
    }
    source_close(&source);
}

// --- timing --------------------------------------------------------------------------------------

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// Seconds of a cycle, by the least disturbed of a few chains.
static double measure_cycle(void)
{
    enum { CHAINS = 5, LENGTH = 1 << 18 };
    double best = 1;
    for (int chain = 0; chain < CHAINS; chain++) {
        uint64_t value = 0;
        double start = now();
        for (int i = 0; i < LENGTH; i++) {
            value += 1;
            __asm__ volatile("" : "+r"(value));
        }
        double cycle = (now() - start) / LENGTH;
        best = cycle < best ? cycle : best;
    }
    return best;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double time_road(const struct road *road, double *cycles)
{
    double cycle = measure_cycle(), start = now();
    for (size_t i = 0; i < file_count; i++) {
        road->run(&files[i]);
    }
    double seconds = now() - start;
    *cycles = seconds / cycle;
    return seconds;
}

int main(int argc, char **argv)
{
    static double seconds[ROADS][MOST_ROUNDS], cycles[ROADS][MOST_ROUNDS];
    int rounds = argc > 2 ? atoi(argv[2]) : 7;
    struct jpeg_error_mgr errors;
    if (rounds < 1 || rounds > MOST_ROUNDS) {
        die("between 1 and 99 rounds");
    }
    libjpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&libjpeg);
    load(argc > 1 ? argv[1] : "../shared/data/imagenet-sample.tar");
    for (size_t i = 0; i < file_count; i++) {
        count_symbols(&files[i]);
    }
    printf("%zu files, %.0f symbols each, instructions %s\n", file_count,
           (double)symbols / (double)file_count, isa_name(isa_chosen()));
    for (int r = 0; r < rounds; r++) {
        for (size_t i = 0; i < ROADS; i++) {
            seconds[i][r] = time_road(&roads[i], &cycles[i][r]);
        }
    }
    for (size_t i = 0; i < ROADS; i++) {
        double scale = 1e3 / (double)file_count;
        qsort(seconds[i], (size_t)rounds, sizeof(double), compare);
        qsort(cycles[i], (size_t)rounds, sizeof(double), compare);
        printf("%-28s %.3f ms (%.3f to %.3f), %.1f cycles a symbol\n", roads[i].name,
               seconds[i][rounds / 2] * scale, seconds[i][0] * scale,
               seconds[i][rounds - 1] * scale, cycles[i][rounds / 2] / (double)symbols);
    }
    return 0;
}
