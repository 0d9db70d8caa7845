// Weights in files: torchvision's names and layouts, files that come back as they were, what a
// strict reader refuses, ONNX models read back, and which networks torchvision's ResNet is.
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
#include "trainer/weights/compare.h"
#include "trainer/weights/file.h"
#include "trainer/weights/fit.h"
#include "trainer/weights/onnx.h"

static struct scratch scratch;

static int set_up(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static const char *path_of(const char *name)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", scratch.path, name);
    return path;
}

// The tiny network on small images, with nothing behind the embedding.
static struct model_config tiny_model(void)
{
    struct model_config model;
    model_config_init(&model);
    model.encoder = MODEL_TINY;
    model.width = 2;
    model.size = 32;
    model.projector_hidden = model.predictor_hidden = 0;
    return model;
}

// Parameters as they start, but no scale is 0 or 1; running statistics of 3 batches.
static void fill(const struct weights *weights)
{
    uint64_t params = graph_param_floats(weights->graph);
    model_initialise(weights->graph, 7, "online", weights->params);
    for (uint64_t i = 0; i < params; i++) {
        weights->params[i] += 0.01f * (float)(i % 7);
    }
    for (size_t i = 0; i < graph_state_count(weights->graph); i++) {
        const struct graph_state *entry = graph_state_at(weights->graph, i);
        float *state = weights->state + entry->offset;
        uint32_t channels = entry->channels;
        state[0] = 3;
        for (uint32_t c = 0; c < channels; c++) {
            state[1 + 2 * channels + c] = 0.05f * (float)(c % 5) - 0.1f;
            state[1 + 3 * channels + c] = 0.5f + 0.1f * (float)(c % 9);
        }
    }
    weights_complete_state(weights);
}

static struct weights open_filled(const struct model_config *model)
{
    struct weights weights;
    struct error error;
    assert_status(weights_open(&weights, model, &error), STATUS_OK, &error);
    fill(&weights);
    return weights;
}

// --- names -----------------------------------------------------------------------------------

static const struct weights_entry *entry_of(const struct weights_entry *entries, size_t count,
                                            const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(entries[i].name, name) == 0) {
            return &entries[i];
        }
    }
    fail_msg("no tensor is called %s", name);
    return NULL;
}

// The numbers of tensors are those of torchvision's state dictionaries.
static void test_torchvision_names(void **state)
{
    (void)state;
    static const struct {
        int encoder;
        size_t tensors;
    } cases[] = {{MODEL_RESNET18, 122}, {MODEL_RESNET50, 320}};
    for (size_t i = 0; i < 2; i++) {
        struct model_config model = tiny_model();
        struct graph *graph;
        struct weights_entry *entries;
        struct error error;
        size_t count;
        model.encoder = cases[i].encoder;
        model.width = 1;
        model.shortcut = MODEL_SHORTCUT_TORCH;
        model.classes = 1000;
        assert_status(model_build(&graph, &model, &error), STATUS_OK, &error);
        assert_status(weights_list(&entries, &count, graph, WEIGHTS_TORCHVISION, "", &error),
                      STATUS_OK, &error);
        assert_int_equal(count, cases[i].tensors);
        const struct weights_entry *stem = entry_of(entries, count, "conv1.weight");
        const uint64_t shape[4] = {64, 3, 7, 7};
        assert_memory_equal(stem->shape, shape, sizeof shape);
        assert_int_equal(entry_of(entries, count, "bn1.num_batches_tracked")->dims, 0);
        entry_of(entries, count, "layer4.1.bn2.running_var");
        entry_of(entries, count, "layer2.0.downsample.1.bias");
        assert_int_equal(entry_of(entries, count, "fc.weight")->shape[0], 1000);
        free(entries);
        graph_close(&graph);
    }
}

static void test_head_names(void **state)
{
    (void)state;
    struct model_config model = tiny_model();
    model.projector_hidden = model.predictor_hidden = 8;
    model.projector_output = 4;
    snprintf(model.projector_layers, sizeof model.projector_layers, "16,12");
    struct weights weights = open_filled(&model);
    struct weights_entry *entries;
    struct error error;
    size_t count;
    assert_status(weights_list(&entries, &count, weights.graph, WEIGHTS_TORCHVISION, "", &error),
                  STATUS_OK, &error);
    const struct weights_entry *last = entry_of(entries, count, "projector.6.weight");
    assert_int_equal(last->shape[0], 4);
    assert_int_equal(last->shape[1], 12);
    entry_of(entries, count, "projector.4.running_mean");
    entry_of(entries, count, "predictor.3.weight");
    free(entries);
    weights_close(&weights);
}

// OIHW from HWIO, value by value.
static void test_layout(void **state)
{
    (void)state;
    struct model_config model = tiny_model();
    struct weights weights = open_filled(&model);
    struct weights_entry *entries;
    struct error error;
    size_t count;
    assert_status(weights_list(&entries, &count, weights.graph, WEIGHTS_TORCHVISION, "", &error),
                  STATUS_OK, &error);
    const struct weights_entry *stem = entry_of(entries, count, "conv1.weight");
    float *taken = malloc(stem->count * sizeof *taken);
    weights_take(&weights, stem, taken);
    uint64_t outs = stem->shape[0];
    for (uint64_t o = 0; o < outs; o++) {
        for (uint64_t i = 0; i < 3; i++) {
            for (uint64_t h = 0; h < 7; h++) {
                for (uint64_t w = 0; w < 7; w++) {
                    float own = weights.params[stem->offset + ((h * 7 + w) * 3 + i) * outs + o];
                    assert_true(taken[((o * 3 + i) * 7 + h) * 7 + w] == own);
                }
            }
        }
    }
    free(taken);
    free(entries);
    weights_close(&weights);
}

// --- files -----------------------------------------------------------------------------------

static void write_weights(const struct weights *weights, const char *name, enum weights_names names)
{
    struct error error;
    unlink(path_of(name));
    assert_status(weights_write(path_of(name), weights, names, "online", NULL, 0, &error),
                  STATUS_OK, &error);
}

static enum status read_weights(const struct weights *weights, const char *name,
                                enum weights_names names, char left_out[64], struct error *error)
{
    struct safetensors *file;
    assert_status(safetensors_open(&file, path_of(name), error), STATUS_OK, error);
    assert_int_equal(weights_names_of(file), names);
    enum status status = weights_read(weights, file, path_of(name), names, "online",
                                      WEIGHTS_REST_REFUSED, left_out, 64, error);
    safetensors_close(&file);
    return status;
}

static void assert_same_file(const char *left, const char *right)
{
    uint8_t *bytes[2];
    size_t len[2];
    assert_int_equal(file_read_all(path_of(left), 1 << 30, &bytes[0], &len[0], NULL), STATUS_OK);
    assert_int_equal(file_read_all(path_of(right), 1 << 30, &bytes[1], &len[1], NULL), STATUS_OK);
    assert_int_equal(len[0], len[1]);
    assert_memory_equal(bytes[0], bytes[1], len[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void test_files_come_back(void **state)
{
    (void)state;
    for (int names = WEIGHTS_TORCHVISION; names <= WEIGHTS_BYOL; names++) {
        struct model_config model = tiny_model();
        struct weights weights = open_filled(&model), back;
        struct error error;
        char left_out[64];
        assert_status(weights_open(&back, &model, &error), STATUS_OK, &error);
        write_weights(&weights, "one.safetensors", (enum weights_names)names);
        assert_status(
            read_weights(&back, "one.safetensors", (enum weights_names)names, left_out, &error),
            STATUS_OK, &error);
        assert_string_equal(left_out, "");
        assert_memory_equal(weights.params, back.params,
                            graph_param_floats(weights.graph) * sizeof(float));
        assert_memory_equal(weights.state, back.state,
                            graph_state_floats(weights.graph) * sizeof(float));
        write_weights(&back, "two.safetensors", (enum weights_names)names);
        assert_same_file("one.safetensors", "two.safetensors");
        weights_close(&weights);
        weights_close(&back);
    }
}

// A file of a network with a classifier and heads, read into the encoder alone.
static void test_parts_are_left_out(void **state)
{
    (void)state;
    for (int names = WEIGHTS_TORCHVISION; names <= WEIGHTS_BYOL; names++) {
        struct model_config model = tiny_model(), whole = tiny_model();
        struct error error;
        char left_out[64];
        whole.projector_hidden = 8;
        whole.projector_output = 4;
        whole.classes = 5;
        struct weights weights = open_filled(&whole), encoder = open_filled(&model);
        write_weights(&weights, "whole.safetensors", (enum weights_names)names);
        assert_status(read_weights(&encoder, "whole.safetensors", (enum weights_names)names,
                                   left_out, &error),
                      STATUS_OK, &error);
        assert_string_equal(left_out, "fc, projector");
        weights_close(&weights);
        weights_close(&encoder);
    }
}

static void test_everything_wrong_is_named(void **state)
{
    (void)state;
    struct model_config has = tiny_model(), wants = tiny_model();
    struct error error;
    has.stem = MODEL_STEM_SMALL; // another shape
    has.v2 = true;               // other normalisations
    wants.classes = 3;           // a classifier missing
    struct weights weights = open_filled(&has), reader = open_filled(&wants);
    write_weights(&weights, "wrong.safetensors", WEIGHTS_TORCHVISION);
    assert_int_equal(read_weights(&reader, "wrong.safetensors", WEIGHTS_TORCHVISION, NULL, &error),
                     STATUS_UNSUPPORTED);
    static const char *const parts[] = {
        "not this network; missing bn1.weight, bn1.bias, bn1.running_mean, bn1.running_var, "
        "layer1.0.downsample.1",
        "; of another shape or type conv1.weight [128,3,3,3] for [128,3,7,7]",
        "; not known resnet.final_batchnorm.weight, ", " more"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(error.reason, parts[i]) == NULL) {
            fail_msg("no '%s' in '%s'", parts[i], error.reason);
        }
    }
    weights_close(&weights);
    weights_close(&reader);
}

// More complaints than a message holds are counted.
static void test_many_complaints(void **state)
{
    (void)state;
    struct model_config has = tiny_model(), wants = tiny_model();
    struct error error;
    wants.encoder = MODEL_RESNET18;
    wants.width = 0.25;
    struct weights weights = open_filled(&has), reader = open_filled(&wants);
    write_weights(&weights, "small.safetensors", WEIGHTS_TORCHVISION);
    assert_int_equal(read_weights(&reader, "small.safetensors", WEIGHTS_TORCHVISION, NULL, &error),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.reason, "missing layer1.1.conv1.weight"));
    assert_non_null(strstr(error.reason, " more"));
    weights_close(&weights);
    weights_close(&reader);
}

// --- ONNX ------------------------------------------------------------------------------------

static struct model_config variant(unsigned number)
{
    struct model_config model = tiny_model();
    switch (number) {
    case 1:
        model.padding = GRAPH_PADDING_TORCH;
        model.shortcut = MODEL_SHORTCUT_TORCH;
        break;
    case 2:
        model.v2 = true;
        model.norm = MODEL_NORM_GROUP;
        model.norm_groups = 4;
        model.weight_standardisation = true;
        break;
    case 3:
        model.norm = MODEL_NORM_AFFINE;
        model.stem = MODEL_STEM_SMALL;
        break;
    case 4:
        model.encoder = MODEL_RESNET50;
        model.width = 0.0625;
        model.norm = MODEL_NORM_LAYER;
        break;
    case 5:
        model.projector_hidden = model.predictor_hidden = 8;
        model.projector_output = 4;
        model.classes = 3;
        model.size = 33;
        break;
    case 6:
        model.projector_hidden = 8;
        model.projector_output = 4;
        model.head_norm = 1 + MODEL_NORM_GROUP;
        model.norm_groups = 2;
        break;
    default:
        break;
    }
    return model;
}
#define VARIANTS 7

static void test_onnx_comes_back(void **state)
{
    (void)state;
    for (unsigned number = 0; number < VARIANTS; number++) {
        struct model_config model = variant(number);
        struct weights weights = open_filled(&model), back;
        struct weights_difference difference;
        struct error error;
        const char *path = path_of("model.onnx");
        unlink(path);
        assert_status(onnx_write(path, &weights, NULL, 0, &error), STATUS_OK, &error);
        assert_status(onnx_read(&back, path, &error), STATUS_OK, &error);
        assert_status(weights_compare(&difference, &weights, &back, "ref", 1, &error), STATUS_OK,
                      &error);
        assert_true(difference.largest <= 1e-5 && difference.features > 0.1);
        for (int i = 0; i < 3; i++) {
            static const char *const heads[] = {"projection", "prediction", "logits"};
            assert_int_equal(graph_output_find(back.graph, heads[i]) != NULL,
                             graph_output_find(weights.graph, heads[i]) != NULL);
        }
        weights_close(&weights);
        weights_close(&back);
    }
}

// Cut anywhere, or with a byte turned: an error or a model, never a crash.
static void test_onnx_damaged(void **state)
{
    (void)state;
    struct model_config model = tiny_model();
    struct error error;
    model.width = 0.25;
    struct weights weights = open_filled(&model), back;
    assert_status(onnx_write(path_of("whole.onnx"), &weights, NULL, 0, &error), STATUS_OK, &error);
    weights_close(&weights);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(path_of("whole.onnx"), 1 << 30, &bytes, &len, NULL), STATUS_OK);
    for (size_t i = 0; i < 300; i++) {
        size_t at = len * i / 300;
        bool cut = i % 2 == 0;
        uint8_t turned = bytes[at];
        bytes[at] ^= (uint8_t)(1u << i % 8);
        FILE *file = fopen(path_of("damaged.onnx"), "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes, 1, cut ? at : len, file), cut ? at : len);
        assert_int_equal(fclose(file), 0);
        bytes[at] = turned;
        enum status status = onnx_read(&back, path_of("damaged.onnx"), &error);
        assert_true(status != STATUS_OK || !cut);
        if (status == STATUS_OK) {
            weights_close(&back);
        }
    }
    free(bytes);
}

// Statistics of less than no batches would be no numbers.
static void test_counts_below_zero_are_none(void **state)
{
    (void)state;
    struct model_config model = tiny_model();
    struct weights weights = open_filled(&model);
    struct weights_entry *entries;
    struct error error;
    const int64_t below = -5;
    size_t count, found = 0;
    assert_status(weights_list(&entries, &count, weights.graph, WEIGHTS_TORCHVISION, "", &error),
                  STATUS_OK, &error);
    for (size_t i = 0; i < count; i++) {
        if (entries[i].piece == WEIGHTS_COUNT) {
            weights_put(&weights, &entries[i], &below);
            found++;
        }
    }
    weights_complete_state(&weights);
    for (uint64_t i = 0; i < graph_state_floats(weights.graph); i++) {
        assert_true(isfinite(weights.state[i]));
    }
    assert_true(found > 0);
    free(entries);
    weights_close(&weights);
}

static void test_compare_sees_a_weight(void **state)
{
    (void)state;
    struct model_config model = tiny_model();
    struct weights left = open_filled(&model), right = open_filled(&model);
    struct weights_difference difference;
    struct error error;
    assert_status(weights_compare(&difference, &left, &right, "ref", 1, &error), STATUS_OK, &error);
    assert_true(difference.largest <= 0); // the same bits
    right.params[0] += 0.1f;
    assert_status(weights_compare(&difference, &left, &right, "ref", 1, &error), STATUS_OK, &error);
    assert_true(difference.largest > 1e-4);
    weights_close(&right);
    model.size = 40;
    right = open_filled(&model);
    assert_status(weights_compare(&difference, &left, &right, "ref", 1, &error), STATUS_INVALID,
                  &error);
    weights_close(&left);
    weights_close(&right);
}

// --- torchvision's ResNet --------------------------------------------------------------------

static void assert_fit(const struct model_config *model, const char *reason)
{
    struct graph *graph;
    struct weights_fit fit;
    struct error error;
    assert_status(model_build(&graph, model, &error), STATUS_OK, &error);
    weights_fit(&fit, model, graph);
    graph_close(&graph);
    assert_int_equal(fit.fits, reason == NULL);
    if (reason != NULL && strstr(fit.reason, reason) == NULL) {
        fail_msg("the reason is '%s', not '%s'", fit.reason, reason);
    }
}

static void test_fit(void **state)
{
    (void)state;
    struct model_config model = tiny_model();
    model.encoder = MODEL_RESNET50;
    model.width = 1;
    model.size = 224;
    assert_fit(&model, "adds 2 rows before and 3 after the 224 of a 7x7 window");
    model.size = 225; // every border is symmetric
    assert_fit(&model, NULL);
    model.size = 224;
    model.padding = GRAPH_PADDING_TORCH;
    assert_fit(&model, NULL);
    model.encoder = MODEL_RESNET18;
    assert_fit(&model, "shortcut=first");
    model.shortcut = MODEL_SHORTCUT_TORCH;
    assert_fit(&model, NULL);
    model.weight_standardisation = true;
    assert_fit(&model, "weight_standardisation");
    model.norm = MODEL_NORM_GROUP;
    assert_fit(&model, "norm");
    model.v2 = true;
    assert_fit(&model, "v2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torchvision_names),
        cmocka_unit_test(test_head_names),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_files_come_back),
        cmocka_unit_test(test_parts_are_left_out),
        cmocka_unit_test(test_everything_wrong_is_named),
        cmocka_unit_test(test_many_complaints),
        cmocka_unit_test(test_onnx_comes_back),
        cmocka_unit_test(test_onnx_damaged),
        cmocka_unit_test(test_counts_below_zero_are_none),
        cmocka_unit_test(test_compare_sees_a_weight),
        cmocka_unit_test(test_fit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
