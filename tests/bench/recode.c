// Size and speed of recoded JPEGs against the files they come from.
//
//     build/tests/bench/recode [TAR-OR-FOLDER [ROUNDS]]
//
// Every file that recodes is decoded whole: by libjpeg-turbo (interleaved pixels, as its users
// get), by our own road from the JPEG, and from the recoded form; the latter two also to
// coefficients alone. Every round takes each road once for each file before the next file, so that
// a busy machine hits them alike. Printed are medians of the rounds and their range, in
// milliseconds of processor time per image.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "formats/image_recode.h"
#include "formats/isa.h"
#include "formats/jpeg/huffman.h"
#include "formats/jpeg/recode_source.h"
#include "formats/source.h"

#define MOST_FILES  10000
#define MOST_ROUNDS 99

struct file {
    uint8_t *jpeg, *recoded;
    size_t jpeg_len, recoded_len;
};

static struct file files[MOST_FILES];
static size_t file_count, outcomes[RECODE_OUTCOMES];
static struct image_decoder *decoder;
static struct image pixels;
static struct image_planes planes;
static struct jpeg_huffman huffman;
static struct recode_source recoded;
static int16_t *blocks[3]; // room for a row of any image

static void die(const char *what)
{
    fprintf(stderr, "recode: %s\n", what);
    exit(1);
}

static void check(enum status status)
{
    if (status != STATUS_OK) {
        die(status_name(status));
    }
}

// --- the roads -----------------------------------------------------------------------------------

static void libjpeg(const struct file *file)
{
    check(image_decode(decoder, file->jpeg, file->jpeg_len, NULL, &pixels, NULL));
}

static void decode_planes(const uint8_t *bytes, size_t len)
{
    struct image_window whole = {.width = pixels.width, .height = pixels.height};
    check(image_decode_windows(decoder, bytes, len, &whole, 1, &planes, NULL));
}

static void ours(const struct file *file)
{
    decode_planes(file->jpeg, file->jpeg_len);
}

static void ours_recoded(const struct file *file)
{
    decode_planes(file->recoded, file->recoded_len);
}

static void read_rows(struct jpeg_source *source, const struct jpeg_frame *frame)
{
    for (uint32_t row = 0; row < frame->mcus_high; row++) {
        check(source->row(source, row, 0, frame->mcus_wide, blocks, NULL));
    }
}

static void ours_coefficients(const struct file *file)
{
    struct jpeg_header header;
    if (!jpeg_header_read(&header, file->jpeg, file->jpeg_len)) {
        die("a file is not plain");
    }
    jpeg_huffman_start(&huffman, &header, file->jpeg, file->jpeg_len);
    read_rows(&huffman.source, &header.frame);
}

static void recoded_coefficients(const struct file *file)
{
    check(recode_source_start(&recoded, file->recoded, file->recoded_len, NULL));
    read_rows(&recoded.source, &recoded.layout.frame);
}

static const struct road {
    const char *name;
    void (*run)(const struct file *file);
} roads[] = {
    {"libjpeg-turbo, pixels", libjpeg}, // first: the others take the size from it
    {"JPEG, our road, pixels", ours},          {"recoded, pixels", ours_recoded},
    {"JPEG, coefficients", ours_coefficients}, {"recoded, coefficients", recoded_coefficients},
};
#define ROADS (sizeof roads / sizeof *roads)

// --- files ---------------------------------------------------------------------------------------

static void reserve_blocks(const struct jpeg_frame *frame)
{
    static size_t room;
    size_t most = (size_t)frame->mcus_wide * 4 * JPEG_BLOCK * sizeof(int16_t);
    for (int c = 0; c < 3 && most > room; c++) {
        free(blocks[c]);
        blocks[c] = aligned_alloc(64, most);
        if (blocks[c] == NULL) {
            die("no memory");
        }
    }
    room = most > room ? most : room;
}

static void recode(struct image_recoder *recoder, struct file *file)
{
    enum recode_outcome outcome;
    const uint8_t *payload;
    check(image_recode(recoder, file->jpeg, file->jpeg_len, &outcome, &payload, &file->recoded_len,
                       NULL));
    outcomes[outcome]++;
    if (payload != NULL) {
        file->recoded = malloc(file->recoded_len);
        if (file->recoded == NULL) {
            die("no memory");
        }
        memcpy(file->recoded, payload, file->recoded_len);
        check(recode_source_start(&recoded, payload, file->recoded_len, NULL));
        reserve_blocks(&recoded.layout.frame);
        file_count++;
    }
}

static double load(const char *path)
{
    struct source *source;
    struct source_member member;
    struct error error = {0};
    struct image_recoder *recoder;
    clock_t spent = 0;
    check(image_recoder_open(&recoder, NULL));
    enum status status = source_open(&source, path, &error);
    while (status == STATUS_OK && file_count < MOST_FILES) {
        status = source_next(source, &member, &error);
        if (status == STATUS_OK) {
            struct file *file = &files[file_count];
            size_t capacity = 0;
            *file = (struct file){0};
            status = source_read(source, &file->jpeg, &file->jpeg_len, &capacity, &error);
            clock_t start = clock();
            recode(recoder, file);
            spent += clock() - start;
        }
    }
    if (status != STATUS_END && status != STATUS_OK) {
        die(error.reason);
    }
    source_close(&source);
    image_recoder_close(&recoder);
    return (double)spent / CLOCKS_PER_SEC;
}

// --- timing --------------------------------------------------------------------------------------

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void run_round(double seconds[ROADS])
{
    for (size_t i = 0; i < file_count; i++) {
        for (size_t road = 0; road < ROADS; road++) {
            double start = now();
            roads[road].run(&files[i]);
            seconds[road] += now() - start;
        }
    }
}

static void print_sizes(double spent)
{
    size_t before = 0, after = 0;
    for (size_t i = 0; i < file_count; i++) {
        before += files[i].jpeg_len;
        after += files[i].recoded_len;
    }
    printf("%zu files recoded (%zu exact), %zu unusual, %zu extreme, %zu large, %zu differ\n",
           file_count, outcomes[RECODE_EXACT], outcomes[RECODE_UNUSUAL], outcomes[RECODE_EXTREME],
           outcomes[RECODE_LARGE], outcomes[RECODE_DIFFERS]);
    printf("%.1f MB of JPEG to %.1f MB, ratio %.4f; recoding and proof %.1f ms an image\n",
           (double)before / 1e6, (double)after / 1e6, (double)after / (double)before,
           spent * 1e3 / (double)file_count);
}

int main(int argc, char **argv)
{
    static double seconds[MOST_ROUNDS][ROADS], sorted[MOST_ROUNDS];
    int rounds = argc > 2 ? atoi(argv[2]) : 7;
    if (rounds < 1 || rounds > MOST_ROUNDS) {
        die("between 1 and 99 rounds");
    }
    double spent = load(argc > 1 ? argv[1] : "../shared/data/imagenet-sample.tar");
    check(image_decoder_open(&decoder, NULL));
    print_sizes(spent);
    printf("instructions %s\n", isa_name(isa_chosen()));
    for (int r = 0; r < rounds; r++) {
        run_round(seconds[r]);
    }
    double reference = 0;
    for (size_t road = 0; road < ROADS; road++) {
        double scale = 1e3 / (double)file_count;
        for (int r = 0; r < rounds; r++) {
            sorted[r] = seconds[r][road] * scale;
        }
        qsort(sorted, (size_t)rounds, sizeof *sorted, compare);
        reference = road == 0 ? sorted[rounds / 2] : reference;
        printf("%-24s %.3f ms (%.3f to %.3f), %.2f times libjpeg-turbo\n", roads[road].name,
               sorted[rounds / 2], sorted[0], sorted[rounds - 1], reference / sorted[rounds / 2]);
    }
    return 0;
}
