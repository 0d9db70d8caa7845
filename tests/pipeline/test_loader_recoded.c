// A dataset of recoded JPEGs gives the batches of the same dataset of JPEG files.
#include "formats/image_recode.h"
#include "formats/isa.h"
#include "pipeline/loader.h"
#include "tests/support/picture.h"
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 24, BATCH = 5, SIZE = 32, EPOCHS = 2 };

static struct scratch scratch;
static struct dataset *plain[2], *recoded[2]; // by enum dataset_store

// Every third picture is progressive and stays as it is.
static uint8_t *draw(uint32_t number, struct image_info *info, size_t *len)
{
    static const struct picture_jpeg kinds[] = {
        {PICTURE_YCBCR, .h = 2, .v = 2, .quality = 92},
        {PICTURE_YCBCR, .h = 2, .v = 1, .quality = 95, .restart = 7},
        {PICTURE_YCBCR, .h = 2, .v = 2, .progressive = true},
        {PICTURE_YCBCR, .h = 1, .v = 1, .quality = 97},
        {PICTURE_GREY, .quality = 98},
        {PICTURE_GREY, .progressive = true},
    };
    struct image image = {0};
    picture_fill(&image, 190 + number * 17 % 90, 170 + number * 29 % 110, number);
    uint8_t *bytes = picture_jpeg(&image, &kinds[number % 6], len);
    *info = (struct image_info){
        .kind = IMAGE_JPEG, .width = image.width, .height = image.height, .components = 3};
    image_free(&image);
    return bytes;
}

static void add(struct dataset_writer *writer, uint32_t number, struct image_recoder *recoder)
{
    struct image_info info;
    size_t len, payload_len;
    const uint8_t *payload = NULL;
    enum recode_outcome outcome;
    uint8_t *bytes = draw(number, &info, &len);
    if (recoder != NULL) {
        assert_int_equal(image_recode(recoder, bytes, len, &outcome, &payload, &payload_len, NULL),
                         STATUS_OK);
        assert_int_equal(outcome, number % 3 == 2 ? RECODE_UNUSUAL : RECODE_EXACT);
    }
    char name[32];
    snprintf(name, sizeof name, "%u.jpg", number);
    info.kind = payload ? IMAGE_RECODED : IMAGE_JPEG;
    const struct dataset_item item = {.name = name,
                                      .bytes = payload ? payload : bytes,
                                      .len = payload ? payload_len : len,
                                      .label = DATASET_NO_LABEL,
                                      .info = info};
    assert_int_equal(dataset_writer_add(writer, &item, NULL), STATUS_OK);
    free(bytes);
}

static struct dataset *make(const char *name, enum dataset_store store,
                            struct image_recoder *recoder)
{
    char path[400];
    struct dataset_writer *writer;
    struct dataset *dataset;
    const struct dataset_writer_config config = {.store = store};
    snprintf(path, sizeof path, "%s/%s-%d", scratch.path, name, (int)store);
    assert_int_equal(dataset_writer_open(&writer, path, &config, NULL), STATUS_OK);
    for (uint32_t i = 0; i < RECORDS; i++) {
        add(writer, i, recoder);
    }
    assert_int_equal(dataset_writer_commit(&writer, NULL, 0, NULL), STATUS_OK);
    assert_int_equal(dataset_open(&dataset, path, NULL), STATUS_OK);
    return dataset;
}

static int make_datasets(void **state)
{
    (void)state;
    struct image_recoder *recoder;
    scratch_make(&scratch);
    assert_int_equal(image_recoder_open(&recoder, NULL), STATUS_OK);
    for (int store = DATASET_LMDB; store <= DATASET_SHARDS; store++) {
        plain[store] = make("plain", (enum dataset_store)store, NULL);
        recoded[store] = make("recoded", (enum dataset_store)store, recoder);
    }
    image_recoder_close(&recoder);
    alarm(300); // a loader that hangs kills the suite
    return 0;
}

static int remove_datasets(void **state)
{
    (void)state;
    for (int store = DATASET_LMDB; store <= DATASET_SHARDS; store++) {
        dataset_close(&plain[store]);
        dataset_close(&recoded[store]);
    }
    scratch_remove(&scratch);
    return 0;
}

static uint64_t hash_of(const struct dataset *dataset, enum loader_io io, uint32_t workers)
{
    struct loader_config config;
    struct loader *loader;
    struct error error;
    loader_config_init(&config);
    config.recipe.size = SIZE;
    config.batch = BATCH;
    config.seed = 11;
    config.epochs = EPOCHS;
    config.workers = workers;
    config.keep_last = true;
    config.io = io;
    if (loader_open(&loader, dataset, &config, &error) != STATUS_OK) {
        fail_msg("%s: %s", error.path, error.reason);
    }
    const struct batch *batch;
    uint64_t hash = 1;
    while (loader_next(loader, &batch, NULL) == STATUS_OK) {
        for (int view = 0; view < 2; view++) {
            const uint8_t *bytes = (const uint8_t *)batch->view[view];
            for (size_t i = 0; i < (size_t)batch->count * SIZE * SIZE * 3 * sizeof(float); i++) {
                hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
            }
        }
        loader_release(loader, batch);
    }
    loader_close(&loader);
    return hash;
}

static void test_recoded_records_give_the_same_batches(void **state)
{
    (void)state;
    const uint64_t expected = hash_of(plain[DATASET_LMDB], LOADER_IO_PREAD, 1);
    for (int store = DATASET_LMDB; store <= DATASET_SHARDS; store++) {
        assert_int_equal(hash_of(plain[store], LOADER_IO_AUTO, 2), expected);
        for (int isa = ISA_BASE; isa < ISA_COUNT; isa++) {
            if (isa_supported((enum isa)isa)) {
                isa_force((enum isa)isa);
                assert_int_equal(hash_of(recoded[store], LOADER_IO_AUTO, 3), expected);
                assert_int_equal(hash_of(recoded[store], LOADER_IO_PREAD, 1), expected);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recoded_records_give_the_same_batches),
    };
    return cmocka_run_group_tests(tests, make_datasets, remove_datasets);
}
