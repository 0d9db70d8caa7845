// Checkpoints: what is saved comes back exactly, damage is noticed and passed over, and nothing
// that goes wrong while writing harms what is there.
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/file.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"

// A method on a device, and a run directory for its checkpoints.
struct fixture {
    struct scratch scratch;
    struct device *device;
    struct method *method;
};

static struct method *open_method(struct device *device, uint64_t seed, int64_t projector_output)
{
    struct run_config config = tiny_config();
    config.model.projector_output = projector_output;
    const struct method_config method_config = {
        .model = config.model, .batch = 2, .seed = seed, .momentum = 0.9, .trust = 1e-3};
    struct method *method;
    struct error error;
    assert_status(method_open(&method, "byol", device, &method_config, &error), STATUS_OK, &error);
    return method;
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct error error;
    assert_non_null(fixture);
    scratch_make(&fixture->scratch);
    assert_status(device_open(&fixture->device, tiny_device(), 1, DEVICE_F32, &error), STATUS_OK,
                  &error);
    fixture->method = open_method(fixture->device, 1, 8);
    int lock;
    assert_status(run_directory_open(fixture->scratch.path, &lock, &error), STATUS_OK, &error);
    run_directory_close(&lock);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    file_fault = NULL;
    method_close(&fixture->method);
    device_close(&fixture->device);
    scratch_remove(&fixture->scratch);
    free(fixture);
    return 0;
}

static enum status save(struct fixture *fixture, uint64_t step, char *path, struct error *error)
{
    const struct checkpoint_state state = {
        .step = step,
        .position = {.epoch = 3, .batch = 5},
        .dataset_id = UINT64_C(0xfedcba9876543210),
        .config = "epochs: 3\n",
        .history = "{\"a\": 1}",
    };
    return checkpoint_save(fixture->scratch.path, fixture->device, fixture->method, &state, 2, path,
                           error);
}

static void save_good(struct fixture *fixture, uint64_t step, char *path)
{
    struct error error;
    assert_status(save(fixture, step, path, &error), STATUS_OK, &error);
}

static enum status latest(struct fixture *fixture, char *path, char *warning, struct error *error)
{
    return checkpoint_latest(fixture->scratch.path, path, RUN_PATH, warning, 1024, error);
}

// Flips a bit of the byte at `share` of the file's length.
static void flip(const char *path, double share)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long at = (long)((double)(ftell(file) - 1) * share);
    fseek(file, at, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, at, SEEK_SET);
    fputc(byte ^ 4, file);
    fclose(file);
}

static unsigned count_files(const struct fixture *fixture, const char *part)
{
    char path[RUN_PATH];
    snprintf(path, sizeof path, "%s/checkpoints", fixture->scratch.path);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    unsigned count = 0;
    for (const struct dirent *entry; (entry = readdir(directory));) {
        count += strstr(entry->d_name, part) != NULL;
    }
    closedir(directory);
    return count;
}

static void assert_same_tensors(struct device *device, struct method *left, struct method *right)
{
    size_t count = left->ops->tensors(left, NULL, 0);
    assert_true(count > 20);
    assert_int_equal(right->ops->tensors(right, NULL, 0), count);
    struct method_tensor *a = calloc(count, sizeof *a), *b = calloc(count, sizeof *b);
    left->ops->tensors(left, a, count);
    right->ops->tensors(right, b, count);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = a[i].count * sizeof(float);
        float *x = malloc(bytes), *y = malloc(bytes);
        device->ops->copy_out(device, x, a[i].device, bytes);
        device->ops->copy_out(device, y, b[i].device, bytes);
        assert_memory_equal(x, y, bytes);
        free(x);
        free(y);
    }
    free(a);
    free(b);
}

static void what_was_saved_comes_back(void **state)
{
    struct fixture *fixture = *state;
    char path[RUN_PATH];
    struct error error;
    save_good(fixture, 77, path);
    assert_non_null(strstr(path, "checkpoints/checkpoint-000000000077.safetensors"));
    struct safetensors *file;
    struct checkpoint_state read;
    assert_status(checkpoint_open(&file, path, &read, &error), STATUS_OK, &error);
    assert_int_equal(read.step, 77);
    assert_int_equal(read.position.epoch, 3);
    assert_int_equal(read.position.batch, 5);
    assert_true(read.dataset_id == UINT64_C(0xfedcba9876543210));
    assert_string_equal(read.config, "epochs: 3\n");
    assert_string_equal(read.history, "{\"a\": 1}");
    struct method *other = open_method(fixture->device, 2, 8);
    assert_status(checkpoint_restore(file, fixture->device, other, &error), STATUS_OK, &error);
    assert_same_tensors(fixture->device, fixture->method, other);
    method_close(&other);
    safetensors_close(&file);
}

static void another_model_is_refused(void **state)
{
    struct fixture *fixture = *state;
    char path[RUN_PATH];
    struct error error;
    save_good(fixture, 1, path);
    struct safetensors *file;
    struct checkpoint_state read;
    assert_status(checkpoint_open(&file, path, &read, &error), STATUS_OK, &error);
    struct method *wider = open_method(fixture->device, 1, 12);
    assert_status(checkpoint_restore(file, fixture->device, wider, &error), STATUS_CORRUPT, &error);
    assert_non_null(strstr(error.reason, "shape"));
    method_close(&wider);
    safetensors_close(&file);
}

static void only_the_newest_are_kept(void **state)
{
    struct fixture *fixture = *state;
    char path[RUN_PATH], newest[RUN_PATH], warning[1024];
    struct error error;
    for (uint64_t step = 1; step <= 5; step++) {
        save_good(fixture, step, newest);
    }
    assert_int_equal(count_files(fixture, "checkpoint-"), 2);
    assert_int_equal(count_files(fixture, "000004.safetensors"), 1);
    assert_status(latest(fixture, path, warning, &error), STATUS_OK, &error);
    assert_string_equal(path, newest);
    assert_string_equal(warning, "");
}

static void damage_falls_back_and_never_to_nothing(void **state)
{
    struct fixture *fixture = *state;
    char path[RUN_PATH], older[RUN_PATH], newer[RUN_PATH], warning[1024];
    struct error error;
    assert_status(latest(fixture, path, warning, &error), STATUS_NOT_FOUND, &error);
    save_good(fixture, 10, older);
    save_good(fixture, 20, newer);
    assert_int_equal(truncate(newer, 5000), 0);
    assert_status(latest(fixture, path, warning, &error), STATUS_OK, &error);
    assert_string_equal(path, older);
    assert_non_null(strstr(warning, "checkpoint-000000000020"));
    flip(older, 0.7);
    assert_status(latest(fixture, path, warning, &error), STATUS_CORRUPT, &error);
    assert_non_null(strstr(error.reason, "all 2 checkpoints"));
}

static void any_flipped_bit_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    char path[RUN_PATH], found[RUN_PATH], warning[1024];
    struct error error;
    save_good(fixture, 1, path);
    for (int i = 0; i <= 300; i++) {
        double share = i < 150 ? i / 10000.0 : (i - 150) / 150.0; // the header, then everything
        flip(path, share);
        assert_int_equal(latest(fixture, found, warning, &error), STATUS_CORRUPT);
        flip(path, share);
    }
    assert_status(latest(fixture, found, warning, &error), STATUS_OK, &error);
}

static void damaged_ones_are_set_aside(void **state)
{
    struct fixture *fixture = *state;
    char path[RUN_PATH], newer[RUN_PATH];
    struct error error;
    save_good(fixture, 10, path);
    save_good(fixture, 20, newer);
    assert_status(checkpoint_set_aside(fixture->scratch.path, 10, &error), STATUS_OK, &error);
    assert_false(file_exists(newer));
    assert_int_equal(count_files(fixture, "000020.safetensors.damaged"), 1);
    assert_true(file_exists(path));
    save_good(fixture, 20, newer); // its name is free again
}

static unsigned calls, failing_call;

static int fail_one_call(const char *call, const char *path)
{
    (void)call, (void)path;
    return ++calls == failing_call ? ENOSPC : 0;
}

// Each system call that writes fails once: the old checkpoint stays good and no rubbish remains.
static void a_full_disk_harms_nothing(void **state)
{
    struct fixture *fixture = *state;
    char path[RUN_PATH], old[RUN_PATH], found[RUN_PATH], warning[1024];
    struct error error;
    save_good(fixture, 10, old);
    file_fault = fail_one_call;
    unsigned failures = 0;
    for (failing_call = 1;; failing_call++) {
        calls = 0;
        enum status status = save(fixture, 20, path, &error);
        if (calls < failing_call) {
            assert_status(status, STATUS_OK, &error);
            break;
        }
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NO_SPACE);
            failures++;
            assert_int_equal(count_files(fixture, ".tmp"), 0);
        }
        assert_int_equal(latest(fixture, found, warning, &error), STATUS_OK);
        assert_string_equal(warning, "");
        unlink(path); // what a failure after the rename may leave is complete, but not wanted here
    }
    assert_true(failures >= 4); // open, write, fsync, rename
}

static void a_state_that_is_not_finite_is_not_saved(void **state)
{
    struct fixture *fixture = *state;
    char path[RUN_PATH];
    struct error error;
    struct method_tensor first;
    fixture->method->ops->tensors(fixture->method, &first, 1);
    float bad = NAN;
    fixture->device->ops->copy_in(fixture->device, first.device, &bad, sizeof bad);
    assert_status(save(fixture, 5, path, &error), STATUS_INVALID, &error);
    assert_non_null(strstr(error.reason, first.name));
    assert_int_equal(count_files(fixture, "checkpoint-"), 0);
}

static void a_second_writer_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    int lock, second;
    assert_status(run_directory_open(fixture->scratch.path, &lock, &error), STATUS_OK, &error);
    assert_status(run_directory_open(fixture->scratch.path, &second, &error), STATUS_DENIED,
                  &error);
    char pid[32];
    snprintf(pid, sizeof pid, "(%ld)", (long)getpid());
    assert_non_null(strstr(error.reason, pid));
    run_directory_close(&lock);
    assert_status(run_directory_open(fixture->scratch.path, &second, &error), STATUS_OK, &error);
    run_directory_close(&second);
}

static void temporaries_of_a_killed_writer_go(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    char left[RUN_PATH], ours[RUN_PATH];
    int lock;
    snprintf(left, sizeof left, "%s/checkpoints/checkpoint-000000000009.safetensors.tmp-4711",
             fixture->scratch.path);
    snprintf(ours, sizeof ours, "%s/notes.tmp-old", fixture->scratch.path);
    assert_status(file_write_durably(left, "x", 1, &error), STATUS_OK, &error);
    assert_status(file_write_durably(ours, "x", 1, &error), STATUS_OK, &error);
    assert_status(run_directory_open(fixture->scratch.path, &lock, &error), STATUS_OK, &error);
    run_directory_close(&lock);
    assert_false(file_exists(left));
    assert_true(file_exists(ours));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_saved_comes_back),  TEST(another_model_is_refused),
        TEST(only_the_newest_are_kept),   TEST(damage_falls_back_and_never_to_nothing),
        TEST(any_flipped_bit_is_noticed), TEST(damaged_ones_are_set_aside),
        TEST(a_full_disk_harms_nothing),  TEST(a_state_that_is_not_finite_is_not_saved),
        TEST(a_second_writer_is_refused), TEST(temporaries_of_a_killed_writer_go),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
