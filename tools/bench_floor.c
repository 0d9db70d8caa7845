// libjpeg is called directly, not through formats/image.h: the floor must not move when our own
// decoding becomes faster.
#include "tools/bench_floor.h"

#include "formats/limits.h"
#include "tools/measure.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

// What the threads share.
struct plan {
    const struct dataset *dataset;
    uint64_t images;
    atomic_uint_fast64_t next;
};

struct floor_thread {
    struct plan *plan;
    pthread_t thread;
    uint64_t decoded; // images
    double seconds;   // spent on them
    struct jpeg_decompress_struct decompress;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
    uint8_t *pixels;
    size_t capacity;
};

static _Noreturn void give_up(j_common_ptr common)
{
    struct floor_thread *thread = common->client_data;
    longjmp(thread->failed, 1);
}

static void ignore(j_common_ptr common, int level)
{
    (void)common;
    (void)level;
}

static void reserve(struct floor_thread *thread, size_t bytes)
{
    if (bytes > thread->capacity) {
        free(thread->pixels);
        thread->pixels = malloc(bytes);
        thread->capacity = thread->pixels ? bytes : 0;
    }
    if (!thread->pixels) {
        longjmp(thread->failed, 1);
    }
}

static bool decode(struct floor_thread *thread, const uint8_t *bytes, size_t len)
{
    struct jpeg_decompress_struct *decompress = &thread->decompress;
    if (setjmp(thread->failed)) {
        jpeg_abort_decompress(decompress);
        return false;
    }
    jpeg_mem_src(decompress, bytes, len);
    jpeg_read_header(decompress, TRUE);
    bool four = decompress->num_components == 4;
    decompress->out_color_space = four ? JCS_CMYK : JCS_RGB;
    decompress->dct_method = JDCT_IFAST; // as the reference and our decoder
    if ((uint64_t)decompress->image_width * decompress->image_height > LIMIT_IMAGE_PIXELS) {
        longjmp(thread->failed, 1);
    }
    jpeg_start_decompress(decompress);
    size_t stride = (size_t)decompress->output_width * (four ? 4 : 3);
    reserve(thread, stride * decompress->output_height);
    while (decompress->output_scanline < decompress->output_height) {
        JSAMPROW row = thread->pixels + stride * decompress->output_scanline;
        jpeg_read_scanlines(decompress, &row, 1);
    }
    jpeg_finish_decompress(decompress);
    return true;
}

static void decode_record(struct floor_thread *thread, uint64_t record)
{
    uint8_t *bytes = NULL;
    size_t len;
    if (dataset_record(thread->plan->dataset, record).kind == IMAGE_JPEG &&
        dataset_read(thread->plan->dataset, record, &bytes, &len, NULL) == STATUS_OK) {
        double start = measure_seconds();
        if (decode(thread, bytes, len)) {
            thread->seconds += measure_seconds() - start;
            thread->decoded++;
        }
    }
    free(bytes);
}

static void *thread_main(void *argument)
{
    struct floor_thread *thread = argument;
    struct plan *plan = thread->plan;
    thread->decompress.err = jpeg_std_error(&thread->errors);
    thread->errors.error_exit = give_up;
    thread->errors.emit_message = ignore;
    thread->decompress.client_data = thread;
    if (setjmp(thread->failed)) {
        return NULL;
    }
    jpeg_create_decompress(&thread->decompress);
    thread->decompress.mem->max_memory_to_use = LIMIT_JPEG_MEMORY;
    uint64_t count = dataset_count(plan->dataset), at;
    while ((at = atomic_fetch_add(&plan->next, 1)) < plan->images) {
        bool spread = plan->images < count;
        decode_record(thread, spread ? (uint64_t)((double)at / (double)plan->images * (double)count)
                                     : at % count);
    }
    jpeg_destroy_decompress(&thread->decompress);
    free(thread->pixels);
    return NULL;
}

double bench_floor(const struct dataset *dataset, uint64_t images, uint32_t threads)
{
    struct plan plan = {.dataset = dataset, .images = images};
    struct floor_thread *thread = calloc(threads, sizeof *thread);
    uint32_t started = 0;
    while (thread && started < threads) {
        thread[started].plan = &plan;
        if (pthread_create(&thread[started].thread, NULL, thread_main, &thread[started]) != 0) {
            break;
        }
        started++;
    }
    double seconds = 0, decoded = 0;
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(thread[i].thread, NULL);
        seconds += thread[i].seconds;
        decoded += (double)thread[i].decoded;
    }
    free(thread);
    return seconds > 0 ? decoded * started / seconds : 0;
}
