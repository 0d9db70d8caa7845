// The encoders and heads: shapes at odd settings, refusals, and what initialisation depends on.
// Counts, names and values against the reference: tests/golden.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/net/model.h"

static struct error error;

static struct model_config small_config(void)
{
    struct model_config config;
    model_config_init(&config);
    config.encoder = MODEL_TINY;
    config.size = 32;
    config.projector_hidden = 32;
    config.projector_output = 16;
    config.predictor_hidden = 24;
    return config;
}

static struct graph *build(const struct model_config *config)
{
    struct graph *graph;
    if (model_build(&graph, config, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    return graph;
}

static const struct graph_param *find_param(const struct graph *graph, const char *name)
{
    for (size_t i = 0; i < graph_param_count(graph); i++) {
        if (strcmp(graph_param_at(graph, i)->name, name) == 0) {
            return graph_param_at(graph, i);
        }
    }
    fail_msg("no parameter '%s'", name);
    return NULL;
}

static uint32_t width_of(const struct graph *graph, const char *output)
{
    return graph_value_at(graph, graph_output_find(graph, output)->value)->c;
}

static void test_defaults(void **state)
{
    (void)state;
    struct model_config config;
    model_config_init(&config);
    struct graph *graph = build(&config);
    assert_int_equal(width_of(graph, "embedding"), 2048);
    assert_int_equal(width_of(graph, "projection"), 256);
    assert_int_equal(width_of(graph, "prediction"), 256);
    assert_null(graph_output_find(graph, "logits"));
    graph_close(&graph);
}

// Channels are multiples of four, never none; a bottleneck's output is four times its inside.
static void test_fractional_widths(void **state)
{
    (void)state;
    struct model_config config = small_config();
    for (int sixteenths = 1; sixteenths <= 64; sixteenths++) {
        double width = sixteenths / 16.0;
        for (int encoder = MODEL_TINY; encoder <= MODEL_RESNET50; encoder++) {
            config.encoder = encoder;
            config.width = width;
            struct graph *graph = build(&config);
            for (size_t i = 0; i < graph_op_count(graph); i++) {
                const struct graph_op *op = graph_op_at(graph, i);
                bool encoder_conv = op->kind == OP_CONV;
                assert_true(!encoder_conv || (op->out_channels >= 4 && op->out_channels % 4 == 0));
            }
            double exact = width * (encoder == MODEL_TINY       ? 8
                                    : encoder == MODEL_RESNET50 ? 2048
                                                                : 512);
            double step = encoder == MODEL_RESNET50 ? 16 : 4;
            assert_true(fabs((double)width_of(graph, "embedding") - exact) <= step / 2 ||
                        width_of(graph, "embedding") == step);
            graph_close(&graph);
        }
    }
}

static graph_value last_image(const struct graph *graph)
{
    graph_value value = GRAPH_BAD;
    for (size_t i = 0; i < graph_op_count(graph); i++) {
        if (graph_op_at(graph, i)->kind == OP_ADD) {
            value = graph_op_at(graph, i)->y;
        }
    }
    return value;
}

static void test_stems_and_paddings(void **state)
{
    (void)state;
    static const struct {
        int stem, padding;
        int64_t size;
        uint32_t side; // before the mean
        uint32_t kernel;
    } cases[] = {
        {MODEL_STEM_IMAGENET, GRAPH_PADDING_SAME, 224, 7, 7},
        {MODEL_STEM_IMAGENET, GRAPH_PADDING_TORCH, 224, 7, 7},
        {MODEL_STEM_IMAGENET, GRAPH_PADDING_SAME, 37, 2, 7},
        {MODEL_STEM_IMAGENET, GRAPH_PADDING_TORCH, 96, 3, 7},
        {MODEL_STEM_SMALL, GRAPH_PADDING_SAME, 32, 4, 3},
        {MODEL_STEM_SMALL, GRAPH_PADDING_TORCH, 32, 4, 3},
        {MODEL_STEM_SMALL, GRAPH_PADDING_SAME, 8, 1, 3},
        {MODEL_STEM_IMAGENET, GRAPH_PADDING_TORCH, 8, 1, 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int v2 = 0; v2 < 2; v2++) {
            struct model_config config = small_config();
            config.encoder = MODEL_RESNET18;
            config.stem = cases[i].stem;
            config.padding = cases[i].padding;
            config.size = cases[i].size;
            config.v2 = v2;
            struct graph *graph = build(&config);
            assert_int_equal(graph_value_at(graph, last_image(graph))->h, cases[i].side);
            assert_int_equal(find_param(graph, "resnet/initial_conv/w")->shape[0], cases[i].kernel);
            graph_close(&graph);
        }
    }
}

static void test_heads_are_optional(void **state)
{
    (void)state;
    struct model_config config = small_config();
    config.predictor_hidden = 0;
    config.classes = 7;
    struct graph *graph = build(&config);
    assert_non_null(graph_output_find(graph, "projection"));
    assert_null(graph_output_find(graph, "prediction"));
    assert_int_equal(width_of(graph, "logits"), 7);
    graph_close(&graph);
    config.projector_hidden = 0;
    graph = build(&config);
    assert_null(graph_output_find(graph, "projection"));
    graph_close(&graph);
}

static void test_last_gamma(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int encoder;
        int zero;
        float expected;
        bool v2;
    } cases[] = {
        {"resnet/block_group_1/block_2/batchnorm_2/scale", MODEL_RESNET50, true, 0, false},
        {"resnet/block_group_1/block_0/batchnorm_1/scale", MODEL_RESNET50, true, 1, false},
        {"resnet/block_group_1/block_0/shortcut_batchnorm/scale", MODEL_RESNET50, true, 1, false},
        {"resnet/block_group_1/block_2/batchnorm_2/scale", MODEL_RESNET50, false, 1, false},
        {"resnet/block_group_1/block_2/batchnorm_2/scale", MODEL_RESNET50, true, 1, true},
        {"resnet/block_group_1/block_1/batchnorm_1/scale", MODEL_RESNET18, true, 1, false},
        {"resnet/block_group_1/block_1/batchnorm_1/scale", MODEL_RESNET18, 2, 0, false},
        {"resnet/block_group_1/block_1/batchnorm_0/scale", MODEL_RESNET18, 2, 1, false},
        {"resnet/block_group_1/block_2/batchnorm_2/scale", MODEL_RESNET50, 2, 0, false},
        {"resnet/block_group_1/block_2/batchnorm_2/scale", MODEL_RESNET50, 2, 1, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model_config config = small_config();
        config.encoder = cases[i].encoder;
        config.last_gamma_zero = cases[i].zero;
        config.v2 = cases[i].v2;
        struct graph *graph = build(&config);
        assert_true(find_param(graph, cases[i].name)->initial == cases[i].expected);
        graph_close(&graph);
    }
}

// pytorch/vision: number of parameters of each model with its 1000-class layer.
static void test_torchvision_parameter_counts(void **state)
{
    (void)state;
    static const struct {
        int encoder;
        uint64_t count;
    } cases[] = {
        {MODEL_RESNET18, 11689512},  {MODEL_RESNET34, 21797672},  {MODEL_RESNET50, 25557032},
        {MODEL_RESNET101, 44549160}, {MODEL_RESNET152, 60192808},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model_config config = small_config();
        config.encoder = cases[i].encoder;
        config.width = 1;
        config.stem = MODEL_STEM_IMAGENET;
        config.padding = GRAPH_PADDING_TORCH;
        config.shortcut = MODEL_SHORTCUT_TORCH;
        config.projector_hidden = config.predictor_hidden = 0;
        config.classes = 1000;
        struct graph *graph = build(&config);
        assert_int_equal(graph_param_floats(graph), cases[i].count);
        graph_close(&graph);
    }
}

static void test_head_layers(void **state)
{
    (void)state;
    struct model_config config = small_config();
    struct graph *one = build(&config);
    strcpy(config.projector_layers, "32");
    struct graph *same = build(&config);
    assert_int_equal(graph_param_floats(one), graph_param_floats(same));
    graph_close(&one);
    graph_close(&same);

    strcpy(config.projector_layers, "24,40,16");
    strcpy(config.predictor_layers, "none");
    struct graph *graph = build(&config);
    static const char *const names[] = {"projector/linear/w", "projector/linear_1/w",
                                        "projector/linear_2/w", "projector/linear_3/w"};
    const uint32_t sizes[] = {width_of(graph, "embedding"), 24, 40, 16,
                              width_of(graph, "projection")};
    for (size_t i = 0; i < 4; i++) {
        const struct graph_param *weights = find_param(graph, names[i]);
        assert_int_equal(weights->shape[0], sizes[i]);
        assert_int_equal(weights->shape[1], sizes[i + 1]);
    }
    assert_int_equal(find_param(graph, "projector/batch_norm_2/scale")->count, 16);
    assert_int_equal(find_param(graph, "projector/linear_2/b")->count, 16);
    assert_int_equal(find_param(graph, "predictor/linear/w")->count, sizes[4] * sizes[4]);
    graph_close(&graph);
}

// Without batch statistics there are none to keep; the parameters are the same.
static void test_norms(void **state)
{
    (void)state;
    static const struct {
        int norm, head_norm;
        uint32_t groups, head_groups; // 0: batch normalisation
    } cases[] = {
        {MODEL_NORM_BATCH, 0, 0, 0},
        {MODEL_NORM_GROUP, 0, 8, 8},
        {MODEL_NORM_LAYER, 0, 1, 1},
        {MODEL_NORM_BATCH, 1 + MODEL_NORM_LAYER, 0, 1},
        {MODEL_NORM_GROUP, 1 + MODEL_NORM_BATCH, 8, 0},
        {MODEL_NORM_AFFINE, 0, 99, 99}, // 99: no normalisation
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model_config config = small_config();
        struct graph *plain = build(&config);
        config.norm = cases[i].norm;
        config.head_norm = cases[i].head_norm;
        config.norm_groups = 9; // 8 divides the channels
        struct graph *graph = build(&config);
        assert_int_equal(graph_param_floats(graph), graph_param_floats(plain));
        bool encoder_state = false, head_state = false;
        for (size_t k = 0; k < graph_state_count(graph); k++) {
            bool encoder = strncmp(graph_state_at(graph, k)->name, "resnet/", 7) == 0;
            encoder_state |= encoder;
            head_state |= !encoder;
        }
        assert_int_equal(encoder_state, cases[i].groups == 0);
        assert_int_equal(head_state, cases[i].head_groups == 0);
        for (size_t k = 0; k < graph_op_count(graph); k++) {
            const struct graph_op *op = graph_op_at(graph, k);
            bool head = graph_value_at(graph, op->y)->kind == TENSOR_MATRIX;
            if (op->kind == OP_GROUP_NORM) {
                assert_int_equal(op->channel_groups, head ? cases[i].head_groups : cases[i].groups);
            }
        }
        graph_close(&plain);
        graph_close(&graph);
    }
}

static void test_weight_standardisation(void **state)
{
    (void)state;
    struct model_config config = small_config();
    config.classes = 7;
    config.weight_standardisation = true;
    struct graph *graph = build(&config);
    for (size_t i = 0; i < graph_op_count(graph); i++) {
        const struct graph_op *op = graph_op_at(graph, i);
        bool weights = op->kind == OP_CONV || op->kind == OP_LINEAR;
        assert_int_equal(op->standardise, weights && op->out_channels != 7); // not the classifier's
    }
    graph_close(&graph);
}

static void assert_refused(const struct model_config *config, const char *field)
{
    struct graph *graph;
    memset(&error, 0, sizeof error);
    assert_int_equal(model_build(&graph, config, &error), STATUS_INVALID);
    assert_null(graph);
    assert_non_null(strstr(error.reason, field));
}

static void test_refusals(void **state)
{
    (void)state;
    const struct model_config good = small_config();
    struct model_config config = good;
    config.encoder = 7;
    assert_refused(&config, "encoder");
    config = good;
    config.width = 0.06;
    assert_refused(&config, "width");
    config.width = 4.01;
    assert_refused(&config, "width");
    config.width = NAN;
    assert_refused(&config, "width");
    config = good;
    config.stem = 2;
    assert_refused(&config, "stem");
    config = good;
    config.padding = -1;
    assert_refused(&config, "padding");
    config = good;
    config.size = 7;
    assert_refused(&config, "size");
    config.size = 4097;
    assert_refused(&config, "size");
    config = good;
    config.projector_hidden = 65537;
    assert_refused(&config, "projector_hidden");
    config.projector_hidden = 0;
    assert_refused(&config, "predictor_hidden");
    config = good;
    config.projector_output = 0;
    assert_refused(&config, "projector_output");
    config = good;
    config.norm = 99;
    assert_refused(&config, "norm");
    config = good;
    config.head_norm = 99;
    assert_refused(&config, "head_norm");
    config = good;
    config.norm_groups = 0;
    assert_refused(&config, "norm_groups");
    config = good;
    config.shortcut = 2;
    assert_refused(&config, "shortcut");
    config = good;
    config.last_gamma_zero = 3;
    assert_refused(&config, "last_gamma_zero");
    static const char *const layers[] = {",",     "8,",     "8,,8", "-8",  "8 ",
                                         "65537", "none,8", "0",    "8;8", "1,1,1,1,1,1,1,1,1"};
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        config = good;
        snprintf(config.projector_layers, sizeof config.projector_layers, "%s", layers[i]);
        assert_refused(&config, "projector_layers");
        config = good;
        snprintf(config.predictor_layers, sizeof config.predictor_layers, "%s", layers[i]);
        assert_refused(&config, "predictor_layers");
    }
    config = good;
    config.classes = -1;
    assert_refused(&config, "classes");
}

static float *initialised(const struct graph *graph, uint64_t seed, const char *branch)
{
    float *params = malloc(graph_param_floats(graph) * sizeof *params);
    assert_non_null(params);
    model_initialise(graph, seed, branch, params);
    return params;
}

static size_t equal_weights(const struct graph *graph, const float *a, const float *b)
{
    const struct graph_param *param = find_param(graph, "resnet/initial_conv/w");
    size_t equal = 0;
    for (uint64_t i = 0; i < param->count; i++) {
        equal += a[param->offset + i] == b[param->offset + i];
    }
    return equal;
}

static void test_initialisation(void **state)
{
    (void)state;
    struct model_config config = small_config();
    struct graph *graph = build(&config);
    float *online = initialised(graph, 7, "online"), *again = initialised(graph, 7, "online");
    float *target = initialised(graph, 7, "target"), *other = initialised(graph, 8, "online");
    assert_memory_equal(online, again, graph_param_floats(graph) * sizeof *online);
    assert_true(equal_weights(graph, online, target) < 3);
    assert_true(equal_weights(graph, online, other) < 3);

    // Not the layout but the name decides: with a classifier, everything else stays the same.
    config.classes = 10;
    struct graph *labelled = build(&config);
    float *with_classes = initialised(labelled, 7, "online");
    for (size_t i = 0; i < graph_param_count(graph); i++) {
        const struct graph_param *param = graph_param_at(graph, i);
        assert_memory_equal(online + param->offset,
                            with_classes + find_param(labelled, param->name)->offset,
                            param->count * sizeof *online);
    }
    graph_close(&labelled);
    graph_close(&graph);
    free(online);
    free(again);
    free(target);
    free(other);
    free(with_classes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_fractional_widths),
        cmocka_unit_test(test_stems_and_paddings),
        cmocka_unit_test(test_heads_are_optional),
        cmocka_unit_test(test_last_gamma),
        cmocka_unit_test(test_torchvision_parameter_counts),
        cmocka_unit_test(test_head_layers),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_weight_standardisation),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_initialisation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
