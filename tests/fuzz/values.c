// Values of key-value stores: image files, Caffe's Datums, pickles and msgpack (source_value.h).
// What a value is must not depend on where it lies, in memory or in a file.
#include "formats/limits.h"
#include "formats/source_value.h"
#include "tests/support/fuzz.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEED(text) fuzz_seed(text, sizeof(text) - 1, 1)

static void open_values(void)
{
    SEED("\xff\xd8\xff\xe0 a picture");
    SEED("\x08\x03\x10\x01\x18\x02\x22\x06\x03\x06\x02\x05\x01\x04\x28\x07");
    SEED("\x08\x01\x10\x02\x18\x02\x22\x04"
         "abcd\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    SEED("\x22\x0a\xff\xd8\xff picture\x28\x85\x01\x38\x01");
    SEED("\x08\x03\x10\x01\x18\x01\x32\x0c\0\0\0\0\0\0\0\0\0\0\0\0");
    SEED("\x80\x04\x95\x14\0\0\0\0\0\0\0C\x08\xff\xd8\xff pix\x94K\x09\x86\x94.");
    SEED("\x80\x02(U\x08\xff\xd8\xff pixq\x01J\xff\xff\xff\xfftq\x02.");
    SEED("\x80\x05]\x94(\x96\x08\0\0\0\0\0\0\0\xff\xd8\xff pix\x94\x8c\x01xN\x88G\0\0\0\0\0\0\0\0"
         "\x8a\x02\x01\x01\x65.");
    SEED("\x80\x03]q\0(B\x08\0\0\0\xff\xd8\xff pixq\x01h\x01K\x01M\x01\x02X\x01\0\0\0xe.");
    SEED("\x80\x02"
         "ccopy_reg\n_reconstructor\n(U\x01x.");
    SEED("\x92\xc4\x08\xff\xd8\xff pix\xcd\x01\x02");
    SEED("\x92\xda\0\x08\xff\xd8\xff pix\xd3\xff\xff\xff\xff\xff\xff\xff\xfe");
}

static void close_values(void)
{
}

// Reads the picture to its end; false where its size is a lie.
static bool read_content(const struct source_value *value)
{
    struct source_content content = {.at = 0};
    struct error error = {0};
    uint8_t piece[4096];
    size_t got = 0;
    uint64_t total = 0;
    enum status status = STATUS_OK;
    if (value->pixels == SOURCE_PIXELS_NONE) {
        source_content_file(&content, &value->image);
    } else {
        status = source_content_pixels(&content, &value->image, value->pixels, value->width,
                                       value->height, &error);
    }
    bool good = status == STATUS_OK;
    do {
        status = status ? status : source_content_read(&content, piece, sizeof piece, &got, &error);
        total += got;
    } while (status == STATUS_OK && got == sizeof piece);
    uint64_t size = source_content_size(&content);
    FUZZ_CHECK(!good || size == SOURCE_SIZE_UNKNOWN || size == total);
    if (status != STATUS_OK) {
        fuzz_check_error(status, &error);
    }
    source_content_free(&content);
    return good;
}

static void check_equal(const struct source_value *one, const struct source_value *other)
{
    FUZZ_CHECK(one->form == other->form && one->pixels == other->pixels);
    FUZZ_CHECK(one->image.start == other->image.start && one->image.len == other->image.len);
    FUZZ_CHECK(one->labelled == other->labelled && (!one->labelled || one->label == other->label));
    FUZZ_CHECK(one->ending != NULL && strcmp(one->ending, other->ending) == 0);
}

static enum fuzz_outcome run_values(const uint8_t *bytes, size_t len)
{
    struct source_range range, of_file;
    struct source_value value, in_file;
    struct error error = {0}, other = {0};
    int fd = open(fuzz_file(bytes, len), O_RDONLY | O_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    source_range_memory(&range, bytes, len, "memory");
    source_range_file(&of_file, fd, "file", 0, len);
    enum status status = source_value_sniff(&value, &range, &error);
    FUZZ_CHECK(source_value_sniff(&in_file, &of_file, &other) == status);
    bool good = status == STATUS_OK;
    if (good) {
        FUZZ_CHECK(value.form < SOURCE_VALUE_FORMS && source_value_form_name(value.form) != NULL);
        FUZZ_CHECK(value.image.start <= len && value.image.len <= len - value.image.start);
        check_equal(&value, &in_file);
        good = read_content(&value);
        FUZZ_CHECK(read_content(&in_file) == good);
    } else {
        fuzz_check_error(status, &error);
        FUZZ_CHECK(strcmp(error.reason, other.reason) == 0);
    }
    close(fd);
    return good ? FUZZ_ACCEPTED : status == STATUS_UNSUPPORTED ? FUZZ_REFUSED : FUZZ_ENTERED;
}

static const struct fuzz_target target = {
    .name = "values", .open = open_values, .close = close_values, .run = run_values};

FUZZ_MAIN(target)
