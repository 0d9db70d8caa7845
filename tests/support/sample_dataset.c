#include "tests/support/sample_dataset.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

// Smooth colours with an edge, so that JPEG and every colour operation have something to do.
static void paint(struct image *image, uint32_t number)
{
    assert_int_equal(image_reserve(image, 33 + number * 7 % 58, 30 + number * 13 % 55, NULL),
                     STATUS_OK);
    for (uint32_t y = 0; y < image->height; y++) {
        for (uint32_t x = 0; x < image->width; x++) {
            uint8_t *pixel = image->pixels + ((size_t)y * image->width + x) * 3;
            pixel[0] = (uint8_t)(x * 3 + number * 11);
            pixel[1] = (uint8_t)(y * 4 + number * 29);
            pixel[2] = (uint8_t)((x + y) % 40 < 20 ? 200 : number * 5);
        }
    }
}

static void add(struct dataset_writer *writer, uint32_t number, bool bad)
{
    struct image image = {0};
    paint(&image, number);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(image_encode_jpeg(&image, 60 + (int)(number % 40), &bytes, &len, NULL),
                     STATUS_OK);
    char name[32];
    snprintf(name, sizeof name, "class%u/%05u.jpg", number % SAMPLE_CLASSES, number);
    const struct dataset_item item = {
        .name = name,
        .bytes = bytes,
        .len = bad ? 100 : len, // within the headers: no window escapes it
        .label = (int32_t)(number % SAMPLE_CLASSES),
        .info = {
            .kind = IMAGE_JPEG, .width = image.width, .height = image.height, .components = 3}};
    assert_int_equal(dataset_writer_add(writer, &item, NULL), STATUS_OK);
    free(bytes);
    image_free(&image);
}

static void write_store(const struct sample_dataset *sample, const char *path,
                        enum dataset_store store, uint32_t frame_bytes, uint32_t count)
{
    static const char *const classes[SAMPLE_CLASSES] = {"class0", "class1", "class2", "class3",
                                                        "class4"};
    // Shards so small that there are several.
    const struct dataset_writer_config config = {
        .store = store, .shard_bytes = 16384, .frame_bytes = frame_bytes};
    struct dataset_writer *writer;
    struct error error;
    if (dataset_writer_open(&writer, path, &config, &error) != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
    for (uint32_t i = 0; i < count; i++) {
        add(writer, i, i == sample->bad_image);
    }
    if (dataset_writer_commit(&writer, classes, SAMPLE_CLASSES, &error) != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
}

void sample_dataset_make(struct sample_dataset *sample, uint32_t count, uint64_t bad_image)
{
    sample->bad_image = bad_image;
    struct scratch scratch;
    scratch_make(&scratch);
    sample->scratch = scratch;
    for (int store = DATASET_LMDB; store <= DATASET_SHARDS; store++) {
        snprintf(sample->path[store], sizeof sample->path[store], "%s/%s", scratch.path,
                 store == DATASET_LMDB ? "lmdb" : "shards");
        write_store(sample, sample->path[store], (enum dataset_store)store, 1, count);
    }
    snprintf(sample->grouped, sizeof sample->grouped, "%s/grouped", scratch.path);
    write_store(sample, sample->grouped, DATASET_SHARDS, 8192, count);
}

void sample_dataset_remove(struct sample_dataset *sample)
{
    scratch_remove(&sample->scratch);
}

static struct dataset *open_path(const char *path)
{
    struct dataset *dataset;
    struct error error;
    if (dataset_open(&dataset, path, &error) != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
    return dataset;
}

struct dataset *sample_dataset_open(const struct sample_dataset *sample, enum dataset_store store)
{
    return open_path(sample->path[store]);
}

struct dataset *sample_dataset_open_grouped(const struct sample_dataset *sample)
{
    return open_path(sample->grouped);
}

void sample_dataset_flip(const struct dataset *dataset, uint64_t record)
{
    struct dataset_record where = dataset_record(dataset, record);
    int fd = open(dataset_file_path(dataset, where.file), O_RDWR);
    assert_true(fd >= 0);
    uint8_t byte;
    off_t at = (off_t)(where.offset + where.stored_length / 2);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

void sample_dataset_cut(const struct dataset *dataset, uint64_t record)
{
    struct dataset_record where = dataset_record(dataset, record);
    assert_int_equal(truncate(dataset_file_path(dataset, where.file),
                              (off_t)(where.offset + where.stored_length / 2)),
                     0);
}
