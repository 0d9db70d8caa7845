// The ResNets (He et al. 2016, v1 and v2) and their heads, layer by layer.
#include "trainer/net/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS 4

struct architecture {
    uint32_t blocks[GROUPS];
    uint32_t channels[GROUPS]; // that leave each group, at width 1
    bool bottleneck;           // 1x1, 3x3, 1x1 instead of 3x3, 3x3
};

static const struct architecture architectures[] = {
    [MODEL_TINY] = {{1, 1, 1, 1}, {8, 8, 8, 8}, false},
    [MODEL_RESNET18] = {{2, 2, 2, 2}, {64, 128, 256, 512}, false},
    [MODEL_RESNET34] = {{3, 4, 6, 3}, {64, 128, 256, 512}, false},
    [MODEL_RESNET50] = {{3, 4, 6, 3}, {256, 512, 1024, 2048}, true},
    [MODEL_RESNET101] = {{3, 4, 23, 3}, {256, 512, 1024, 2048}, true},
    [MODEL_RESNET152] = {{3, 8, 36, 3}, {256, 512, 1024, 2048}, true},
    [MODEL_RESNET200] = {{3, 24, 36, 3}, {256, 512, 1024, 2048}, true},
};
#define STEM_CHANNELS 64u

#define INPUT_MIN       8
#define INPUT_MAX       4096
#define WIDTH_MIN       0.0625
#define WIDTH_MAX       4.0
#define HEAD_MAX        65536
#define HIDDEN_MAX      8
#define NORM_GROUPS_MAX 65536
#define CLASSES_MAX     (1 << 20)

void model_config_init(struct model_config *config)
{
    *config = (struct model_config){
        .encoder = MODEL_RESNET50,
        .width = 1,
        .stem = MODEL_STEM_IMAGENET,
        .padding = GRAPH_PADDING_SAME,
        .shortcut = MODEL_SHORTCUT_FIRST,
        .last_gamma_zero = MODEL_LAST_GAMMA_ZERO_BOTTLENECK,
        .norm = MODEL_NORM_BATCH,
        .norm_groups = 16,
        .size = 224,
        .projector_hidden = 4096,
        .projector_output = 256,
        .predictor_hidden = 4096,
    };
}

// What all layers need to know while the graph grows.
struct builder {
    struct graph *graph;
    const struct model_config *config;
    const struct architecture *architecture;
};

struct block {
    char module[64]; // "resnet/block_group_0/block_0"
    uint32_t channels, stride;
    bool projection; // the shortcut is a convolution, not the input itself
};

struct layer {
    uint32_t channels, kernel, stride;
};

static uint32_t scaled(const struct builder *builder, uint32_t channels)
{
    double fours = round((double)channels * builder->config->width / 4);
    return fours < 1 ? 4 : 4 * (uint32_t)fours;
}

// Channels that leave a group. Those of a bottleneck are four times its inner width, which is what
// gets rounded.
static uint32_t group_channels(const struct builder *builder, uint32_t group)
{
    uint32_t channels = builder->architecture->channels[group];
    return builder->architecture->bottleneck ? 4 * scaled(builder, channels / 4)
                                             : scaled(builder, channels);
}

static unsigned block_layers(const struct builder *builder, const struct block *block,
                             struct layer layers[3])
{
    if (builder->architecture->bottleneck) {
        uint32_t inner = block->channels / 4;
        layers[0] = (struct layer){inner, 1, 1};
        layers[1] = (struct layer){inner, 3, block->stride};
        layers[2] = (struct layer){block->channels, 1, 1};
        return 3;
    }
    layers[0] = (struct layer){block->channels, 3, block->stride};
    layers[1] = (struct layer){block->channels, 3, 1};
    return 2;
}

static graph_value standardised(const struct builder *builder, graph_value x)
{
    return builder->config->weight_standardisation ? graph_standardise(builder->graph, x) : x;
}

static graph_value conv(const struct builder *builder, const char *module, const char *name,
                        graph_value x, struct layer layer)
{
    char full[128];
    snprintf(full, sizeof full, "%s/%s", module, name);
    x = graph_conv(builder->graph, full, x, layer.channels, layer.kernel, layer.stride,
                   (enum graph_padding)builder->config->padding);
    return standardised(builder, x);
}

// The largest number of runs up to norm_groups that divides the channels of `x`.
static uint32_t channel_groups(const struct builder *builder, graph_value x)
{
    uint32_t groups = (uint32_t)builder->config->norm_groups;
    uint32_t channels = x == GRAPH_BAD ? 1 : graph_value_at(builder->graph, x)->c;
    while (channels % groups != 0) {
        groups--;
    }
    return groups;
}

// Modules are named as in the reference, whatever normalises in the place of batch normalisation.
static graph_value normalise_by(const struct builder *builder, int norm, const char *name,
                                graph_value x, bool relu, float initial_scale)
{
    struct graph *graph = builder->graph;
    switch ((enum model_norm)norm) {
    case MODEL_NORM_GROUP:
        return graph_group_norm(graph, name, x, channel_groups(builder, x), relu, initial_scale);
    case MODEL_NORM_LAYER:
        return graph_group_norm(graph, name, x, 1, relu, initial_scale);
    case MODEL_NORM_AFFINE:
        return graph_affine(graph, name, x, relu, initial_scale);
    case MODEL_NORM_BATCH:
        break;
    }
    return graph_batch_norm(graph, name, x, relu, initial_scale);
}

// Of the encoder.
static graph_value normalise(const struct builder *builder, const char *module, const char *name,
                             graph_value x, bool relu, float initial_scale)
{
    char full[128];
    snprintf(full, sizeof full, "%s/%s", module, name);
    return normalise_by(builder, builder->config->norm, full, x, relu, initial_scale);
}

static bool last_gamma_zero(const struct builder *builder)
{
    return builder->config->last_gamma_zero == MODEL_LAST_GAMMA_ZERO ||
           (builder->config->last_gamma_zero == MODEL_LAST_GAMMA_ZERO_BOTTLENECK &&
            builder->architecture->bottleneck);
}

static graph_value block_v1(const struct builder *builder, const struct block *block, graph_value x)
{
    graph_value shortcut = x;
    if (block->projection) {
        struct layer layer = {block->channels, 1, block->stride};
        shortcut = conv(builder, block->module, "shortcut_conv", x, layer);
        shortcut = normalise(builder, block->module, "shortcut_batchnorm", shortcut, false, 1);
    }
    struct layer layers[3];
    unsigned count = block_layers(builder, block, layers);
    bool zero = last_gamma_zero(builder);
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        bool last = i + 1 == count;
        snprintf(name, sizeof name, "conv_%u", i);
        x = conv(builder, block->module, name, x, layers[i]);
        snprintf(name, sizeof name, "batchnorm_%u", i);
        x = normalise(builder, block->module, name, x, !last, last && zero ? 0 : 1);
    }
    return graph_add(builder->graph, x, shortcut, true);
}

static graph_value block_v2(const struct builder *builder, const struct block *block, graph_value x)
{
    graph_value shortcut = x;
    struct layer layers[3];
    unsigned count = block_layers(builder, block, layers);
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "batchnorm_%u", i);
        x = normalise(builder, block->module, name, x, true, 1);
        if (i == 0 && block->projection) {
            struct layer layer = {block->channels, 1, block->stride};
            shortcut = conv(builder, block->module, "shortcut_conv", x, layer);
        }
        snprintf(name, sizeof name, "conv_%u", i);
        x = conv(builder, block->module, name, x, layers[i]);
    }
    return graph_add(builder->graph, x, shortcut, false);
}

static graph_value stem(const struct builder *builder, graph_value x)
{
    bool small = builder->config->stem == MODEL_STEM_SMALL;
    struct layer layer = {scaled(builder, STEM_CHANNELS), small ? 3 : 7, small ? 1 : 2};
    x = conv(builder, "resnet", "initial_conv", x, layer);
    if (!builder->config->v2) {
        x = normalise(builder, "resnet", "initial_batchnorm", x, true, 1);
    }
    return small ? x
                 : graph_max_pool(builder->graph, x, 3, 2,
                                  (enum graph_padding)builder->config->padding);
}

// Block `index` of a group; `channels` reach it.
static struct block block_at(const struct builder *builder, uint32_t group, uint32_t index,
                             uint32_t channels)
{
    struct block block = {.channels = group_channels(builder, group),
                          .stride = index == 0 && group > 0 ? 2 : 1,
                          .projection = index == 0};
    if (builder->config->shortcut == MODEL_SHORTCUT_TORCH) {
        block.projection = block.stride != 1 || block.channels != channels;
    }
    return block;
}

static graph_value encoder(const struct builder *builder, graph_value x)
{
    x = stem(builder, x);
    uint32_t channels = scaled(builder, STEM_CHANNELS);
    for (uint32_t group = 0; group < GROUPS; group++) {
        for (uint32_t index = 0; index < builder->architecture->blocks[group]; index++) {
            struct block block = block_at(builder, group, index, channels);
            channels = block.channels;
            snprintf(block.module, sizeof block.module, "resnet/block_group_%u/block_%u", group,
                     index);
            x = builder->config->v2 ? block_v2(builder, &block, x) : block_v1(builder, &block, x);
        }
    }
    if (builder->config->v2) {
        x = normalise(builder, "resnet", "final_batchnorm", x, true, 1);
    }
    return graph_mean_pool(builder->graph, x);
}

// A head's hidden layers.
struct layers {
    unsigned count;
    uint32_t sizes[HIDDEN_MAX];
};

// From "4096,2048", "none" or, when empty, `hidden`. False when the text is none of these.
static bool layers_of(struct layers *out, const char *text, int64_t hidden)
{
    *out = (struct layers){.count = 1, .sizes = {(uint32_t)hidden}};
    if (text[0] == '\0') {
        return true;
    }
    out->count = 0;
    if (strcmp(text, "none") == 0) {
        return true;
    }
    for (const char *at = text;; at++) {
        char *end;
        long size = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : 0;
        if (size < 1 || size > HEAD_MAX || out->count == HIDDEN_MAX) {
            return false;
        }
        out->sizes[out->count++] = (uint32_t)size;
        at = end;
        if (*at != ',') {
            return *at == '\0';
        }
    }
}

// Each hidden layer: linear, normalisation, ReLU; at the end a linear layer without bias. Layers
// are numbered from the second on: linear, linear_1, linear_2.
static graph_value head(const struct builder *builder, const char *module, graph_value x,
                        const struct layers *layers, int64_t output)
{
    char name[64], number[16] = "";
    int norm =
        builder->config->head_norm > 0 ? builder->config->head_norm - 1 : builder->config->norm;
    for (unsigned i = 0; i < layers->count; i++) {
        snprintf(name, sizeof name, "%s/linear%s", module, number);
        x = standardised(builder, graph_linear(builder->graph, name, x, layers->sizes[i], true));
        snprintf(name, sizeof name, "%s/batch_norm%s", module, number);
        x = normalise_by(builder, norm, name, x, true, 1);
        snprintf(number, sizeof number, "_%u", i + 1);
    }
    snprintf(name, sizeof name, "%s/linear%s", module, number);
    return standardised(builder, graph_linear(builder->graph, name, x, (uint32_t)output, false));
}

static void build(const struct builder *builder)
{
    const struct model_config *config = builder->config;
    struct graph *graph = builder->graph;
    uint32_t size = (uint32_t)config->size;
    graph_value embedding = encoder(builder, graph_input(graph, size, size));
    graph_output_add(graph, "embedding", embedding);
    struct layers layers; // their texts have been checked
    if (config->projector_hidden > 0) {
        layers_of(&layers, config->projector_layers, config->projector_hidden);
        graph_value projection =
            head(builder, "projector", embedding, &layers, config->projector_output);
        graph_output_add(graph, "projection", projection);
        if (config->predictor_hidden > 0) {
            layers_of(&layers, config->predictor_layers, config->predictor_hidden);
            graph_value prediction =
                head(builder, "predictor", projection, &layers, config->projector_output);
            graph_output_add(graph, "prediction", prediction);
        }
    }
    if (config->classes > 0) {
        graph_value constant = graph_stop_gradient(graph, embedding);
        graph_value logits =
            graph_linear(graph, "classifier", constant, (uint32_t)config->classes, true);
        graph_output_add(graph, "logits", logits);
    }
}

static enum status refuse(struct error *error, const char *field, const char *allowed)
{
    return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "%s must be %s", field,
                     allowed);
}

static bool within(int64_t value, int64_t low, int64_t high)
{
    return value >= low && value <= high;
}

static enum status check_heads(const struct model_config *config, struct error *error)
{
    struct layers layers;
    if (!within(config->projector_hidden, 0, HEAD_MAX) ||
        !within(config->predictor_hidden, 0, HEAD_MAX)) {
        return refuse(error, "projector_hidden and predictor_hidden", "from 0 to 65536");
    }
    if (config->projector_hidden > 0 && !within(config->projector_output, 1, HEAD_MAX)) {
        return refuse(error, "projector_output", "from 1 to 65536");
    }
    if (config->projector_hidden == 0 && config->predictor_hidden > 0) {
        return refuse(error, "predictor_hidden", "0 when there is no projector");
    }
    if (!layers_of(&layers, config->projector_layers, 0)) {
        return refuse(error, "projector_layers", MODEL_LAYERS_FORM);
    }
    if (!layers_of(&layers, config->predictor_layers, 0)) {
        return refuse(error, "predictor_layers", MODEL_LAYERS_FORM);
    }
    if (!within(config->classes, 0, CLASSES_MAX)) {
        return refuse(error, "classes", "from 0 to 1048576");
    }
    return STATUS_OK;
}

enum status model_config_check(const struct model_config *config, struct error *error)
{
    if (!within(config->encoder, MODEL_TINY, MODEL_RESNET200)) {
        return refuse(error, "encoder", MODEL_ENCODER_CHOICES);
    }
    if (!(config->width >= WIDTH_MIN && config->width <= WIDTH_MAX)) {
        return refuse(error, "width", "from 1/16 to 4");
    }
    if (!within(config->stem, MODEL_STEM_IMAGENET, MODEL_STEM_SMALL)) {
        return refuse(error, "stem", MODEL_STEM_CHOICES);
    }
    if (!within(config->padding, GRAPH_PADDING_SAME, GRAPH_PADDING_TORCH)) {
        return refuse(error, "padding", MODEL_PADDING_CHOICES);
    }
    if (!within(config->shortcut, MODEL_SHORTCUT_FIRST, MODEL_SHORTCUT_TORCH)) {
        return refuse(error, "shortcut", MODEL_SHORTCUT_CHOICES);
    }
    if (!within(config->last_gamma_zero, MODEL_LAST_GAMMA_ONE, MODEL_LAST_GAMMA_ZERO)) {
        return refuse(error, "last_gamma_zero", MODEL_LAST_GAMMA_CHOICES);
    }
    if (!within(config->size, INPUT_MIN, INPUT_MAX)) {
        return refuse(error, "size", "from 8 to 4096 pixels");
    }
    if (!within(config->norm, MODEL_NORM_BATCH, MODEL_NORM_AFFINE)) {
        return refuse(error, "norm", MODEL_NORM_CHOICES);
    }
    if (!within(config->head_norm, 0, 1 + MODEL_NORM_AFFINE)) {
        return refuse(error, "head_norm", MODEL_HEAD_NORM_CHOICES);
    }
    if (!within(config->norm_groups, 1, NORM_GROUPS_MAX)) {
        return refuse(error, "norm_groups", "from 1 to 65536");
    }
    return check_heads(config, error);
}

enum status model_build(struct graph **out, const struct model_config *config, struct error *error)
{
    *out = NULL;
    enum status status = model_config_check(config, error);
    if (status == STATUS_OK) {
        status = graph_open(out, error);
    }
    if (status == STATUS_OK) {
        build(&(struct builder){*out, config, &architectures[config->encoder]});
        status = graph_finish(*out, error);
    }
    if (status != STATUS_OK && *out != NULL) {
        graph_close(out);
    }
    return status;
}
