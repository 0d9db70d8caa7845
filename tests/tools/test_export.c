// `byol export`, and what takes its files again: weights for other programs, checked, refused where
// torchvision would compute otherwise, measured, and as the start of another run.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/file.h"
#include "formats/safetensors.h"
#include "tests/support/program.h"
#include "tests/support/sample_dataset.h"
#include "tests/support/tiny_run.h"

#define IMAGES 16

static struct sample_dataset sample;
static struct scratch scratch;

// As tests/support/tiny_run.c; $SET of the shell.
#define SETTINGS                                                                                   \
    "--set encoder=tiny --set width=2 --set stem=small --set views.base=small --set views.size=8 " \
    "--set batch=8 --set epochs=1 --set warmup_epochs=0 --set projector_hidden=8 "                 \
    "--set projector_output=8 --set predictor_hidden=8 --set precision=f32 --set threads=1 "       \
    "--set loader_threads=1 "
#define TORCH "--set padding=torch --set shortcut=torch "

static void pretrain(const char *run, int code, const char *text, const char *settings)
{
    char line[1600];
    snprintf(line, sizeof line,
             "pretrain --data '%s' --run \"$DIR/%s\" --quiet " SETTINGS "--set device=%s %s",
             sample.path[DATASET_LMDB], run, tiny_device(), settings);
    program_expect(&scratch, code, text, line);
}

static int set_up(void **state)
{
    (void)state;
    sample_dataset_make(&sample, IMAGES, NOWHERE);
    scratch_make(&scratch);
    pretrain("same", 0, NULL, "");
    pretrain("torch", 0, NULL, TORCH);
    program_expect(&scratch, 0, NULL,
                   "export --run \"$DIR/torch\" -o \"$DIR/torch.safetensors\" --check");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    scratch_remove(&scratch);
    return 0;
}

static struct safetensors *open_file(const char *name)
{
    char path[300];
    struct safetensors *file;
    struct error error;
    snprintf(path, sizeof path, "%s/%s", scratch.path, name);
    assert_status(safetensors_open(&file, path, &error), STATUS_OK, &error);
    return file;
}

// --- out -------------------------------------------------------------------------------------

static void refuses_what_torchvision_computes_otherwise(void **state)
{
    (void)state;
    program_expect(&scratch, 1, "padding=same adds 0 rows before and 1 after",
                   "export --run \"$DIR/same\" -o \"$DIR/refused.safetensors\"");
    program_expect(&scratch, 0, "not for torchvision's own module",
                   "export --run \"$DIR/same\" -o \"$DIR/forced.safetensors\" --force --check");
    program_expect(&scratch, 0, "check: features",
                   "export --run \"$DIR/same\" -o \"$DIR/any.onnx\" --check");
    program_expect(&scratch, 0, "as in checkpoints",
                   "export --run \"$DIR/same\" -o \"$DIR/own.safetensors\" --names byol --check");
    program_expect(&scratch, 1, "is there already",
                   "export --run \"$DIR/same\" -o \"$DIR/any.onnx\"");
}

static void misuse(void **state)
{
    (void)state;
    program_expect(&scratch, 2, "wants either a CHECKPOINT or --run DIR", "export -o x.onnx");
    program_expect(&scratch, 2, "wants -o", "export x");
    program_expect(&scratch, 2, "ends in .safetensors or .onnx", "export x -o x.pth");
    program_expect(&scratch, 2, "names", "export x -o x.onnx --names keras");
    program_expect(&scratch, 1, "a checkpoint knows its network",
                   "export --run \"$DIR/same\" -o \"$DIR/x.onnx\" --set width=3");
    program_expect(&scratch, 2, "--set describes --weights",
                   "eval features --run \"$DIR/same\" --data x -o y --set width=3");
}

static void writes_torch_names_and_metadata(void **state)
{
    (void)state;
    struct safetensors *file = open_file("torch.safetensors");
    assert_true(safetensors_verified(file));
    const struct tensor *stem = safetensors_find(file, "conv1.weight");
    assert_non_null(stem);
    assert_int_equal(stem->shape[1], 3);
    assert_int_equal(safetensors_find(file, "bn1.num_batches_tracked")->type, TENSOR_INT64);
    assert_null(safetensors_find(file, "fc.weight"));
    static const char *const keys[][2] = {{"padding", "torch"}, {"network", "online"},
                                          {"step", "2"},        {"epoch", "1"},
                                          {"size", "8"},        {"encoder", "tiny"}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        assert_string_equal(safetensors_metadata(file, keys[i][0]), keys[i][1]);
    }
    assert_non_null(safetensors_metadata(file, "dataset"));
    assert_int_equal(strlen(safetensors_metadata(file, "config_crc32c")), 8);
    safetensors_close(&file);
}

static void writes_heads_on_request(void **state)
{
    (void)state;
    program_expect(&scratch, 0, NULL,
                   "export --run \"$DIR/torch\" -o \"$DIR/heads.safetensors\" --heads --classifier "
                   "--check");
    program_expect(&scratch, 0, NULL,
                   "export --run \"$DIR/torch\" -o \"$DIR/target.safetensors\" --heads --network "
                   "target --check");
    struct safetensors *online = open_file("heads.safetensors"),
                       *target = open_file("target.safetensors");
    assert_non_null(safetensors_find(online, "projector.3.weight"));
    assert_non_null(safetensors_find(online, "predictor.1.running_var"));
    assert_int_equal(safetensors_find(online, "fc.weight")->shape[0], SAMPLE_CLASSES);
    assert_non_null(safetensors_find(target, "projector.3.weight"));
    assert_null(safetensors_find(target, "predictor.0.weight"));
    safetensors_close(&online);
    safetensors_close(&target);
    program_expect(&scratch, 1, "holds no projector",
                   "export \"$DIR/torch.safetensors\" -o \"$DIR/none.onnx\" --heads");
}

// --- in --------------------------------------------------------------------------------------

// The file's tensors and nothing else, as somebody else would write them.
static void strip_metadata(const char *from, const char *to)
{
    struct safetensors *file = open_file(from);
    size_t count = safetensors_count(file);
    struct tensor *tensors = calloc(count, sizeof *tensors);
    char path[300];
    struct error error;
    assert_non_null(tensors);
    for (size_t i = 0; i < count; i++) {
        tensors[i] = *safetensors_at(file, i);
    }
    snprintf(path, sizeof path, "%s/%s", scratch.path, to);
    assert_status(safetensors_write(path, tensors, count, NULL, 0, &error), STATUS_OK, &error);
    free(tensors);
    safetensors_close(&file);
}

static bool is_parameter(const char *name)
{
    return strstr(name, "running_") == NULL && strstr(name, "num_batches") == NULL;
}

// The same values under the same names; `parameters`: of these alone.
static void assert_same_tensors_in(const char *left_name, const char *right_name, bool parameters)
{
    struct safetensors *left = open_file(left_name), *right = open_file(right_name);
    assert_int_equal(safetensors_count(left), safetensors_count(right));
    for (size_t i = 0; i < safetensors_count(left); i++) {
        const struct tensor *one = safetensors_at(left, i);
        const struct tensor *other = safetensors_find(right, one->name);
        assert_non_null(other);
        if (!parameters || is_parameter(one->name)) {
            assert_int_equal(one->bytes, other->bytes);
            assert_memory_equal(one->data, other->data, one->bytes);
        }
    }
    safetensors_close(&left);
    safetensors_close(&right);
}

#define TINY "--set encoder=tiny --set width=2 --set stem=small --set views.size=8"

static void others_weights_come_back_as_they_were(void **state)
{
    (void)state;
    strip_metadata("torch.safetensors", "others.safetensors");
    program_expect(&scratch, 0, "torchvision: ",
                   "export \"$DIR/others.safetensors\" " TINY " -o \"$DIR/again.safetensors\"");
    assert_same_tensors_in("others.safetensors", "again.safetensors", false);
    program_expect(&scratch, 1, "missing layer1.0.conv3.weight",
                   "export \"$DIR/others.safetensors\" -o \"$DIR/x.safetensors\"");
}

static void evaluates_as_the_checkpoint_does(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *source;
    } cases[] = {{"f1", "--run \"$DIR/torch\""},
                 {"f2", "--weights \"$DIR/torch.safetensors\""},
                 {"f3", "--weights \"$DIR/others2.safetensors\" " TINY}};
    uint8_t *bytes[3];
    size_t len[3];
    strip_metadata("torch.safetensors", "others2.safetensors");
    for (size_t i = 0; i < 3; i++) {
        char line[700], path[330];
        snprintf(line, sizeof line,
                 "eval features %s --data '%s' -o \"$DIR/%s\" --threads 1 --quiet", cases[i].source,
                 sample.path[DATASET_LMDB], cases[i].folder);
        program_expect(&scratch, 0, NULL, line);
        snprintf(path, sizeof path, "%s/%s/features.npy", scratch.path, cases[i].folder);
        assert_int_equal(file_read_all(path, 1 << 20, &bytes[i], &len[i], NULL), STATUS_OK);
        assert_int_equal(len[i], len[0]);
        assert_memory_equal(bytes[i], bytes[0], len[0]);
    }
    for (size_t i = 0; i < 3; i++) {
        free(bytes[i]);
    }
}

// With a rate of 0 and a target that stays, both networks end with the parameters they began with.
static void a_run_begins_from_weights(void **state)
{
    (void)state;
    static const char *const networks[] = {"online", "target"};
    pretrain("from", 0, NULL, TORCH "--init \"$DIR/torch.safetensors\" --set base_learning_rate=0");
    for (size_t i = 0; i < 2; i++) {
        char line[300], name[64];
        snprintf(name, sizeof name, "from-%s.safetensors", networks[i]);
        snprintf(line, sizeof line, "export --run \"$DIR/from\" --network %s -o \"$DIR/%s\"",
                 networks[i], name);
        program_expect(&scratch, 0, NULL, line);
        assert_same_tensors_in("torch.safetensors", name, true);
    }
    // Its own checkpoint stands for it from then on.
    pretrain("from", 0, "finished",
             TORCH "--resume --init \"$DIR/torch.safetensors\" "
                   "--set base_learning_rate=0");
}

static void a_run_refuses_other_weights(void **state)
{
    (void)state;
    pretrain("bad1", 1, "these weights were learnt with padding=torch",
             "--set shortcut=torch --init \"$DIR/torch.safetensors\"");
    pretrain("bad2", 1, "another shape or type conv1.weight",
             TORCH "--init \"$DIR/torch.safetensors\" --set stem=imagenet --set views.size=16");
    pretrain("bad3", 1, "nothing.safetensors", TORCH "--init \"$DIR/nothing.safetensors\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_torchvision_computes_otherwise),
        cmocka_unit_test(misuse),
        cmocka_unit_test(writes_torch_names_and_metadata),
        cmocka_unit_test(writes_heads_on_request),
        cmocka_unit_test(others_weights_come_back_as_they_were),
        cmocka_unit_test(evaluates_as_the_checkpoint_does),
        cmocka_unit_test(a_run_begins_from_weights),
        cmocka_unit_test(a_run_refuses_other_weights),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
