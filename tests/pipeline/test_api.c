// The public interface, called through the shared library, against the loader behind it; and a
// program that knows nothing but the header and the library.
#include "formats/image.h"
#include "pipeline/api/byol.h"
#include "pipeline/loader.h"
#include "tests/support/sample_dataset.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 41, BATCH = 6, SIZE = 16, EPOCHS = 2, SLOTS = 3 };

static struct sample_dataset sample;
static const char *directory;

static int setup(void **state)
{
    (void)state;
    sample_dataset_make(&sample, RECORDS, NOWHERE);
    directory = sample.path[DATASET_SHARDS];
    alarm(300); // a loader that hangs kills the suite
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    return 0;
}

static struct byol_loader_options public_options(void)
{
    struct byol_loader_options options;
    byol_loader_options_init(&options, sizeof options);
    options.settings = "size: 16\nview2: {solarize: 0.5}";
    options.batch = BATCH;
    options.seed = 5;
    options.epochs = EPOCHS;
    options.threads = 2;
    options.slots = SLOTS;
    options.keep_last = 1;
    return options;
}

static struct loader_config own_config(void)
{
    struct loader_config config;
    loader_config_init(&config);
    config.recipe.size = SIZE;
    config.recipe.view[1].solarize = 0.5;
    config.output.layout = VIEW_CHW;
    config.batch = BATCH;
    config.seed = 5;
    config.epochs = EPOCHS;
    config.workers = 1;
    config.keep_last = true;
    return config;
}

static struct byol_dataset *open_public_dataset(const char *path)
{
    struct byol_dataset *dataset;
    assert_int_equal(byol_dataset_open(&dataset, path, NULL), BYOL_OK);
    return dataset;
}

static struct byol_loader *open_public(const struct byol_loader_options *options)
{
    struct byol_dataset *dataset = open_public_dataset(directory);
    struct byol_loader *loader;
    struct byol_error error;
    if (byol_loader_open(&loader, dataset, options, &error) != BYOL_OK) {
        fail_msg("%s", error.reason);
    }
    byol_dataset_close(&dataset); // the loader keeps it
    return loader;
}

static void assert_same_batch(const struct byol_batch *batch, const struct batch *own)
{
    size_t values = (size_t)own->count * SIZE * SIZE * 3;
    assert_int_equal(batch->count, own->count);
    assert_int_equal(batch->size, SIZE);
    assert_int_equal(batch->views, 2);
    assert_int_equal(batch->position.epoch, own->position.epoch);
    assert_int_equal(batch->position.batch, own->position.batch);
    for (int view = 0; view < 2; view++) {
        if (own->view[view]) {
            assert_memory_equal(batch->view[view], own->view[view], values * sizeof(float));
        } else {
            assert_memory_equal(batch->bytes[view], own->bytes[view], values);
            assert_memory_equal(batch->rest[view], own->drawn[view],
                                own->count * sizeof *own->drawn[view]);
        }
    }
    assert_memory_equal(batch->labels, own->labels, own->count * sizeof *own->labels);
    assert_memory_equal(batch->records, own->records, own->count * sizeof *own->records);
}

// The rest of both streams is the same, to the end of both.
static void assert_same_stream(const struct byol_loader_options *options,
                               const struct loader_config *config)
{
    struct dataset *dataset = sample_dataset_open(&sample, DATASET_SHARDS);
    struct byol_loader *loader = open_public(options);
    struct loader *own;
    assert_int_equal(loader_open(&own, dataset, config, NULL), STATUS_OK);
    const struct batch *expected;
    const struct byol_batch *batch;
    while (loader_next(own, &expected, NULL) == STATUS_OK) {
        assert_int_equal(byol_loader_next(loader, &batch, NULL), BYOL_OK);
        assert_same_batch(batch, expected);
        byol_batch_release(loader, batch);
        loader_release(own, expected);
    }
    struct byol_error error;
    assert_int_equal(byol_loader_next(loader, &batch, &error), BYOL_END);
    assert_null(batch);
    assert_int_equal(error.status, BYOL_END);
    loader_close(&own);
    byol_loader_close(&loader);
    dataset_close(&dataset);
}

static void test_batches_are_those_of_the_loader(void **state)
{
    (void)state;
    struct byol_loader_options options = public_options();
    struct loader_config config = own_config();
    assert_same_stream(&options, &config);
    options.layout = BYOL_HWC;
    options.shuffle = config.shuffle = 0;
    config.output = view_output_imagenet;
    memcpy(options.mean, config.output.mean, sizeof options.mean);
    memcpy(options.deviation, config.output.deviation, sizeof options.deviation);
    assert_same_stream(&options, &config);
    options.pixels = BYOL_UINT8;
    config.bytes = true;
    options.rank = config.rank = 1;
    options.ranks = config.ranks = 2;
    assert_same_stream(&options, &config);
}

static void test_a_position_continues_the_stream(void **state)
{
    (void)state;
    for (uint64_t stop = 0; stop <= 7; stop++) {
        struct byol_loader_options options = public_options();
        struct loader_config config = own_config();
        struct byol_loader *loader = open_public(&options);
        assert_int_equal(byol_loader_batches_per_epoch(loader), 7);
        for (uint64_t i = 0; i < stop; i++) {
            const struct byol_batch *batch;
            assert_int_equal(byol_loader_next(loader, &batch, NULL), BYOL_OK);
            byol_batch_release(loader, batch);
        }
        options.start = byol_loader_position(loader);
        assert_int_equal(options.start.epoch, stop / 7);
        assert_int_equal(options.start.batch, stop % 7);
        byol_loader_close(&loader);
        config.start = (struct loader_position){.batch = stop};
        assert_same_stream(&options, &config);
    }
}

static void test_a_loader_goes_back(void **state)
{
    (void)state;
    struct byol_loader_options options = public_options();
    struct byol_loader *loader = open_public(&options);
    const struct byol_batch *batch;
    float *first = malloc(sizeof(float) * BATCH * SIZE * SIZE * 3);
    size_t bytes = sizeof(float) * BATCH * SIZE * SIZE * 3;
    assert_non_null(first);
    assert_int_equal(byol_loader_next(loader, &batch, NULL), BYOL_OK);
    memcpy(first, batch->view[1], bytes);
    struct byol_error error;
    const struct byol_position start = {0}, beyond = {.batch = 8};
    assert_int_equal(byol_loader_seek(loader, start, &error), BYOL_INVALID); // held
    byol_batch_release(loader, batch);
    assert_int_equal(byol_loader_seek(loader, beyond, &error), BYOL_INVALID);
    assert_int_equal(byol_loader_position(loader).batch, 1);
    while (byol_loader_next(loader, &batch, NULL) == BYOL_OK) {
        byol_batch_release(loader, batch);
    }
    assert_int_equal(byol_loader_seek(loader, start, &error), BYOL_OK);
    assert_int_equal(byol_loader_next(loader, &batch, NULL), BYOL_OK);
    assert_memory_equal(batch->view[1], first, bytes);
    byol_loader_close(&loader); // with a batch held
    free(first);
}

static void test_batches_are_held_and_given_back_in_any_order(void **state)
{
    (void)state;
    struct byol_loader_options options = public_options();
    options.epochs = 0;
    struct byol_loader *loader = open_public(&options);
    const struct byol_batch *held[SLOTS], *none;
    struct byol_error error;
    struct byol_statistics statistics;
    for (int i = 0; i < SLOTS; i++) {
        assert_int_equal(byol_loader_next(loader, &held[i], NULL), BYOL_OK);
        assert_int_equal((uintptr_t)held[i]->view[0] % 64, 0);
        assert_int_equal((uintptr_t)held[i]->labels % 64, 0);
    }
    assert_int_equal(byol_loader_next(loader, &none, &error), BYOL_INVALID);
    assert_non_null(strstr(error.reason, "all 3 batch buffers are held"));
    byol_loader_statistics(loader, &statistics, sizeof statistics);
    assert_int_equal(statistics.held, SLOTS);
    const float *memory = held[1]->view[0];
    byol_batch_release(loader, held[1]);
    byol_batch_release(loader, held[1]); // has no effect
    assert_int_equal(byol_loader_next(loader, &held[1], NULL), BYOL_OK);
    assert_ptr_equal(held[1]->view[0], memory); // the same buffer, not a copy
    assert_int_equal(held[1]->position.batch, SLOTS);
    for (int i = SLOTS; i-- > 0;) {
        byol_batch_release(loader, held[i]);
    }
    byol_loader_statistics(loader, &statistics, sizeof statistics);
    assert_int_equal(statistics.held, 0);
    assert_int_equal(statistics.batches, SLOTS + 1);
    assert_int_equal(statistics.records, BATCH * (SLOTS + 1));
    assert_true(statistics.memory > 0 && statistics.threads > 0);
    byol_loader_close(&loader);
    byol_loader_close(&loader);
}

struct released {
    struct byol_loader *loader;
    const struct byol_batch *batch;
};

static void *release(void *argument)
{
    struct released *released = argument;
    byol_batch_release(released->loader, released->batch);
    return NULL;
}

static void test_other_threads_release(void **state)
{
    (void)state;
    struct byol_loader_options options = public_options();
    options.epochs = 0;
    struct byol_loader *loader = open_public(&options);
    for (int i = 0; i < 50; i++) {
        struct released released = {.loader = loader};
        pthread_t thread;
        assert_int_equal(byol_loader_next(loader, &released.batch, NULL), BYOL_OK);
        assert_int_equal(pthread_create(&thread, NULL, release, &released), 0);
        pthread_join(thread, NULL);
    }
    byol_loader_close(&loader);
}

static void test_datasets(void **state)
{
    (void)state;
    struct byol_dataset *dataset = open_public_dataset(directory);
    struct dataset *own = sample_dataset_open(&sample, DATASET_SHARDS);
    int32_t labels[RECORDS];
    assert_int_equal(byol_dataset_count(dataset), RECORDS);
    assert_true(byol_dataset_id(dataset) == dataset_id(own));
    assert_int_equal(byol_dataset_class_count(dataset), SAMPLE_CLASSES);
    assert_string_equal(byol_dataset_class_name(dataset, 3), "class3");
    assert_null(byol_dataset_class_name(dataset, SAMPLE_CLASSES));
    byol_dataset_labels(dataset, labels);
    for (uint64_t record = 0; record < RECORDS; record++) {
        assert_int_equal(labels[record], dataset_record(own, record).label);
        assert_int_equal(byol_dataset_label(dataset, record), labels[record]);
        assert_string_equal(byol_dataset_name(dataset, record), dataset_record_name(own, record));
    }
    assert_null(byol_dataset_name(dataset, RECORDS));
    assert_int_equal(byol_dataset_label(dataset, RECORDS), BYOL_NO_LABEL);
    uint8_t *bytes, *expected;
    size_t length, expected_length;
    uint32_t width, height;
    assert_int_equal(byol_dataset_read(dataset, 7, &bytes, &length, NULL), BYOL_OK);
    assert_int_equal(dataset_read(own, 7, &expected, &expected_length, NULL), STATUS_OK);
    assert_int_equal(length, expected_length);
    assert_memory_equal(bytes, expected, length);
    assert_int_equal(byol_dataset_image_size(dataset, 7, &width, &height, NULL), BYOL_OK);
    assert_int_equal(width, dataset_record(own, 7).width);
    byol_free(bytes);
    free(expected);
    struct byol_error error;
    assert_int_equal(byol_dataset_read(dataset, RECORDS, &bytes, &length, &error), BYOL_NOT_FOUND);
    assert_null(bytes);
    assert_int_equal(error.record, RECORDS);
    dataset_close(&own);
    byol_dataset_close(&dataset);
    byol_dataset_close(&dataset);
}

static void test_recipes(void **state)
{
    (void)state;
    char *text;
    struct byol_error error;
    assert_string_equal(byol_recipe_name(0), "byol");
    assert_null(byol_recipe_name(100));
    assert_int_equal(byol_recipe_describe("small", "view1.blur: 0.25", &text, NULL), BYOL_OK);
    assert_non_null(strstr(text, "size: 32\n"));
    assert_non_null(strstr(text, "view1.blur: 0.25\n"));
    byol_free(text);
    assert_int_equal(byol_recipe_describe("bylo", NULL, &text, &error), BYOL_NOT_FOUND);
    assert_non_null(strstr(error.reason, "did you mean 'byol'"));
    assert_int_equal(byol_recipe_describe(NULL, "view1.blurr: 1", &text, &error), BYOL_CONFIG);
    assert_null(text);
    assert_int_equal(byol_recipe_describe(NULL, "base: small", &text, &error), BYOL_CONFIG);
}

static void write_settings(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

// One file for training and for the loader: its views are taken, what else training knows is not.
static void test_the_settings_of_a_run_are_a_recipe(void **state)
{
    (void)state;
    char path[300], *text;
    struct byol_error error;
    snprintf(path, sizeof path, "%s/run.yaml", sample.scratch.path);
    write_settings(path, "batch: 512\nencoder: resnet18\nviews:\n  base: small\n  size: 24\n"
                         "epochs: 300\n");
    assert_int_equal(byol_recipe_describe(path, "view2.blur: 0.5", &text, &error), BYOL_OK);
    assert_non_null(strstr(text, "size: 24\n"));
    assert_non_null(strstr(text, "view2.blur: 0.5\n"));
    byol_free(text);
    write_settings(path, "batch: 512\nencodr: resnet18\nviews: {base: small}\n");
    assert_int_equal(byol_recipe_describe(path, NULL, &text, &error), BYOL_CONFIG);
    assert_string_equal(error.path, path);
    assert_non_null(strstr(error.reason, "line 2"));
    assert_non_null(strstr(error.reason, "did you mean 'encoder'"));
    unlink(path);
}

static void expect_refusal(const struct byol_loader_options *options, int status)
{
    struct byol_dataset *dataset = open_public_dataset(directory);
    struct byol_loader *loader;
    struct byol_error error;
    assert_int_equal(byol_loader_open(&loader, dataset, options, &error), status);
    assert_null(loader);
    assert_int_equal(error.status, status);
    assert_true(error.reason[0] != '\0');
    byol_dataset_close(&dataset);
}

static void test_options_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct byol_loader_options options = public_options();
    options.size = 0;
    expect_refusal(&options, BYOL_VERSION_OTHER);
    options = public_options();
    options.layout = 2;
    expect_refusal(&options, BYOL_INVALID);
    options = public_options();
    options.deviation[1] = 0;
    expect_refusal(&options, BYOL_INVALID);
    options = public_options();
    options.slots = 1;
    expect_refusal(&options, BYOL_INVALID);
    options = public_options();
    options.policy = -1;
    expect_refusal(&options, BYOL_INVALID);
    options = public_options();
    options.settings = "size: big";
    expect_refusal(&options, BYOL_CONFIG);
    struct byol_dataset *dataset;
    struct byol_error error;
    char text[1100];
    assert_int_equal(byol_dataset_open(&dataset, "absent", &error), BYOL_NOT_FOUND);
    assert_null(dataset);
    assert_non_null(strstr(byol_error_text(&error, text, sizeof text), "absent"));
    assert_string_equal(byol_status_name(error.status), "not_found");
}

// A caller of another year: a struct that ends earlier, and one that is longer.
static void test_structs_of_other_lengths(void **state)
{
    (void)state;
    struct {
        struct byol_loader_options options;
        uint64_t later;
    } longer = {.options = public_options()};
    longer.options.size = sizeof longer;
    struct byol_loader *loader = open_public(&longer.options);
    byol_loader_close(&loader);
    longer.later = 1;
    expect_refusal(&longer.options, BYOL_VERSION_OTHER);
    struct byol_loader_options shorter = public_options();
    shorter.size = offsetof(struct byol_loader_options, rank);
    shorter.rank = 7; // not looked at
    loader = open_public(&shorter);
    struct {
        struct byol_statistics statistics;
        uint64_t later;
    } more = {.later = 9};
    byol_loader_statistics(loader, &more.statistics, sizeof more);
    assert_int_equal(more.later, 0);
    byol_loader_close(&loader);
}

static void test_damage_is_named_or_skipped(void **state)
{
    (void)state;
    struct sample_dataset damaged;
    sample_dataset_make(&damaged, RECORDS, 11);
    struct byol_dataset *dataset = open_public_dataset(damaged.path[DATASET_LMDB]);
    struct byol_loader_options options = public_options();
    struct byol_loader *loader;
    const struct byol_batch *batch;
    struct byol_error error;
    int status = BYOL_OK;
    assert_int_equal(byol_loader_open(&loader, dataset, &options, NULL), BYOL_OK);
    while (status == BYOL_OK) {
        status = byol_loader_next(loader, &batch, &error);
        if (status == BYOL_OK) {
            byol_batch_release(loader, batch);
        }
    }
    assert_int_not_equal(status, BYOL_END);
    assert_int_equal(error.record, 11);
    assert_int_equal(byol_loader_next(loader, &batch, NULL), status);
    byol_loader_close(&loader);

    options.policy = BYOL_SKIP;
    assert_int_equal(byol_loader_open(&loader, dataset, &options, NULL), BYOL_OK);
    while ((status = byol_loader_next(loader, &batch, NULL)) == BYOL_OK) {
        byol_batch_release(loader, batch);
    }
    assert_int_equal(status, BYOL_END);
    assert_int_equal(byol_loader_skips(loader, &error, 1), 1);
    assert_int_equal(error.record, 11);
    byol_loader_close(&loader);
    byol_dataset_close(&dataset);
    sample_dataset_remove(&damaged);
}

static void test_a_program_needs_header_and_library_alone(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("skipped: the library wants the sanitizer that the other program lacks\n");
    skip();
#else
    char command[2048];
    snprintf(
        command, sizeof command,
        "set -e; lib=$(dirname \"${BYOL_PROGRAM:-build/byol}\"); lib=$(cd \"$lib\" && pwd); "
        "${CC:-cc} -std=c99 -pedantic-errors -Wall -Wextra -Werror -Ipipeline/api "
        "tests/data/api_client.c -o '%s/client' -L\"$lib\" -lbyol; "
        "LD_LIBRARY_PATH=\"$lib\" '%s/client' '%s'; "
        "for std in c89 c11 c++98 c++17; do case $std in c++*) language=c++;; *) language=c;; "
        "esac; "
        "echo '#include <byol.h>' | ${CC:-cc} -x $language -std=$std -pedantic-errors -Wall "
        "-Wextra "
        "-Werror -Ipipeline/api -fsyntax-only -; done; "
        "nm -D --defined-only \"$lib/libbyol.so\" | grep -v ' [TA] byol_\\| A BYOL_' && exit 1; "
        "true",
        sample.scratch.path, sample.scratch.path, directory);
    assert_int_equal(system(command), 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches_are_those_of_the_loader),
        cmocka_unit_test(test_a_position_continues_the_stream),
        cmocka_unit_test(test_a_loader_goes_back),
        cmocka_unit_test(test_batches_are_held_and_given_back_in_any_order),
        cmocka_unit_test(test_other_threads_release),
        cmocka_unit_test(test_datasets),
        cmocka_unit_test(test_recipes),
        cmocka_unit_test(test_the_settings_of_a_run_are_a_recipe),
        cmocka_unit_test(test_options_that_do_not_fit_are_refused),
        cmocka_unit_test(test_structs_of_other_lengths),
        cmocka_unit_test(test_damage_is_named_or_skipped),
        cmocka_unit_test(test_a_program_needs_header_and_library_alone),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
