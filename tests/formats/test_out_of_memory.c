// Each allocation fails in turn, once and from then on: the answer is STATUS_NO_MEMORY, nothing
// leaks, nothing half-done stays, and the next try succeeds.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/image_recode.h"
#include "formats/safetensors.h"
#include "formats/settings.h"
#include "tests/support/picture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MALLOC_IS_TAKEN 1
#else
#define MALLOC_IS_TAKEN 0
#endif

#define NEVER       (-1)
#define MOST_POINTS 2000 // allocations of the longest scenario

static long calls_left = NEVER; // successful allocations before the failure
static bool lasting;            // all later ones fail too
static bool has_failed;
static long blocks; // allocated and not freed

// --- malloc of this program and of the libraries under it, over glibc's --------------------------

#if !MALLOC_IS_TAKEN
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *memory);

static bool fails(void)
{
    if (calls_left == NEVER) {
        return false;
    }
    if (calls_left > 0) {
        calls_left--;
        return false;
    }
    has_failed = true;
    calls_left = lasting ? 0 : NEVER;
    return true;
}

static void *counted(void *memory)
{
    blocks += memory != NULL;
    return memory;
}

void *malloc(size_t size)
{
    return fails() ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : counted(__libc_calloc(count, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : counted(__libc_memalign(alignment, size));
}

void *realloc(void *old, size_t size)
{
    if (fails()) {
        return NULL;
    }
    void *memory = __libc_realloc(old, size);
    blocks += old == NULL && memory != NULL;
    return memory;
}

void free(void *memory)
{
    blocks -= memory != NULL;
    __libc_free(memory);
}
#endif

// Before a test makes anything that skipping would leave behind.
static void need_malloc(void)
{
    if (MALLOC_IS_TAKEN) {
        print_message("skipped: a sanitizer has its own malloc\n");
        skip();
    }
}

// Runs the scenario with its 1st, 2nd, 3rd… allocation failing until none is left to fail.
static void sweep(enum status (*scenario)(void))
{
    need_malloc();
    assert_int_equal(scenario(), STATUS_OK);
    for (int pass = 0; pass < 2; pass++) {
        lasting = pass == 1;
        has_failed = true;
        long point = 0;
        for (; has_failed && point < MOST_POINTS; point++) {
            long before = blocks;
            has_failed = false;
            calls_left = point;
            enum status status = scenario();
            calls_left = NEVER;
            // libjpeg asks again for less, so one failure may pass unnoticed.
            bool right = status == STATUS_NO_MEMORY
                             ? has_failed
                             : status == STATUS_OK && !(has_failed && lasting);
            if (!right || blocks != before) {
                fail_msg("allocation %ld: %s, %ld blocks leaked", point, status_name(status),
                         blocks - before);
            }
        }
        assert_in_range(point, 5, MOST_POINTS - 1);
    }
}

// --- scenarios -----------------------------------------------------------------------------------

static uint8_t *file; // what the scenario decodes
static size_t file_len;
static struct image picture;
static char path[256];

// A decoder that ran out of memory must decode the same file when there is memory again.
static enum status decode(void)
{
    struct image_decoder *decoder;
    struct image out = {0};
    enum status status = image_decoder_open(&decoder, NULL);
    if (status == STATUS_OK) {
        status = image_decode(decoder, file, file_len, NULL, &out, NULL);
    }
    if (status != STATUS_OK && decoder != NULL) {
        calls_left = NEVER;
        assert_int_equal(image_decode(decoder, file, file_len, NULL, &out, NULL), STATUS_OK);
    }
    image_decoder_close(&decoder);
    image_free(&out);
    return status;
}

static enum status decode_windows(void)
{
    static const struct image_window windows[2] = {{1, 2, 20, 10}, {3, 0, 9, 12}};
    struct image_decoder *decoder;
    struct image_planes out[2] = {0};
    enum status status = image_decoder_open(&decoder, NULL);
    if (status == STATUS_OK) {
        status = image_decode_windows(decoder, file, file_len, windows, 2, out, NULL);
    }
    if (status != STATUS_OK && decoder != NULL) {
        calls_left = NEVER;
        assert_int_equal(image_decode_windows(decoder, file, file_len, windows, 2, out, NULL),
                         STATUS_OK);
    }
    image_decoder_close(&decoder);
    image_planes_free(&out[0]);
    image_planes_free(&out[1]);
    return status;
}

static void test_decoding(void **state)
{
    (void)state;
    static const struct picture_jpeg kinds[] = {
        {PICTURE_YCBCR, .h = 2, .v = 2},
        {PICTURE_CMYK, .h = 1, .progressive = true},
        {PICTURE_GREY, .arithmetic = true},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        file = picture_jpeg(&picture, &kinds[i], &file_len);
        sweep(decode);
        sweep(decode_windows);
        free(file);
    }
    assert_int_equal(image_encode_png(&picture, &file, &file_len, NULL), STATUS_OK);
    sweep(decode);
    sweep(decode_windows);
    free(file);
}

static enum status encode_jpeg(void)
{
    uint8_t *bytes;
    size_t len;
    enum status status = image_encode_jpeg(&picture, 95, &bytes, &len, NULL);
    assert_true((status == STATUS_OK) == (bytes != NULL));
    free(bytes);
    return status;
}

static enum status encode_png(void)
{
    uint8_t *bytes;
    size_t len;
    enum status status = image_encode_png(&picture, &bytes, &len, NULL);
    assert_true((status == STATUS_OK) == (bytes != NULL));
    free(bytes);
    return status;
}

static void test_encoding(void **state)
{
    (void)state;
    sweep(encode_jpeg);
    sweep(encode_png);
}

static enum status recode(void)
{
    struct image_recoder *recoder;
    const uint8_t *payload = NULL;
    uint8_t *jpeg = NULL;
    size_t len, jpeg_len;
    enum recode_outcome outcome;
    bool exact;
    enum status status = image_recoder_open(&recoder, NULL);
    if (status == STATUS_OK) {
        status = image_recode(recoder, file, file_len, &outcome, &payload, &len, NULL);
        assert_true((status == STATUS_OK) == (payload != NULL));
    }
    if (status == STATUS_OK) {
        status = recode_restore(payload, len, &exact, &jpeg, &jpeg_len, NULL);
    } else if (recoder != NULL) {
        calls_left = NEVER;
        assert_int_equal(image_recode(recoder, file, file_len, &outcome, &payload, &len, NULL),
                         STATUS_OK);
        assert_int_equal(outcome, RECODE_EXACT);
    }
    free(jpeg);
    image_recoder_close(&recoder);
    return status;
}

static void test_recoding(void **state)
{
    (void)state;
    need_malloc();
    struct image large = {0};
    picture_fill(&large, 150, 120, 1);
    file = picture_jpeg(
        &large, &(struct picture_jpeg){PICTURE_YCBCR, .h = 2, .v = 2, .quality = 95}, &file_len);
    sweep(recode);
    free(file);
    image_free(&large);
}

struct sample {
    char name[16];
    int64_t size;
};

static enum status load_settings(void)
{
    static const struct settings_field fields[] = {
        {"name", SETTINGS_STRING, offsetof(struct sample, name), 0, 0, 16, NULL, "Who"},
        {"view.size", SETTINGS_INT, offsetof(struct sample, size), 0, 99, 0, NULL, "How big"},
    };
    static const char text[] = "name: new\nview: {size: 5}\n";
    struct sample sample = {"old", 3};
    struct settings_section section = {"", fields, 2, &sample};
    enum status status = settings_load_text("text", text, sizeof text - 1, &section, 1, NULL);
    assert_string_equal(sample.name, status == STATUS_OK ? "new" : "old");
    assert_int_equal(sample.size, status == STATUS_OK ? 5 : 3);
    return status;
}

static void test_settings(void **state)
{
    (void)state;
    sweep(load_settings);
}

static enum status write_tensors(void)
{
    static float values[4] = {1, 2, 3, 4};
    const struct tensor tensors[] = {{"a", TENSOR_FLOAT32, 1, {4}, 16, values},
                                     {"b", TENSOR_UINT8, 1, {3}, 3, values},
                                     {"c", TENSOR_FLOAT32, 1, {1}, 4, values}};
    const struct tensor_metadata fact = {"key", "value"};
    return safetensors_write(path, tensors, 3, &fact, 1, NULL);
}

static enum status read_tensors(void)
{
    struct safetensors *opened;
    enum status status = safetensors_open(&opened, path, NULL);
    assert_true((status == STATUS_OK) == (opened != NULL));
    safetensors_close(&opened);
    return status;
}

static void test_safetensors(void **state)
{
    (void)state;
    sweep(write_tensors);
    sweep(read_tensors);
}

static int prepare(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/byol-memory-XXXXXX", parent ? parent : "/tmp");
    int fd = mkstemp(path);
    picture_fill(&picture, 120, 90, 1);
    return fd < 0 ? -1 : close(fd);
}

static int tidy(void **state)
{
    (void)state;
    image_free(&picture);
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoding),    cmocka_unit_test(test_encoding),
        cmocka_unit_test(test_recoding),    cmocka_unit_test(test_settings),
        cmocka_unit_test(test_safetensors),
    };
    return cmocka_run_group_tests_name("formats/out_of_memory", tests, prepare, tidy);
}
