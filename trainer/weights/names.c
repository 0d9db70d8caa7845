// Names and layouts of a network's tensors in files.
#include "trainer/weights/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS_PER_OP 5 // scale, offset, mean, variance, count

// --- torchvision's names ---------------------------------------------------------------------

#define MODULE_NAME 96

// "linear", "batch_norm_2": layers of a head, each of linear, normalisation and ReLU.
static bool head_layer(const char *name, unsigned *place)
{
    static const char *const kinds[] = {"linear", "batch_norm"};
    for (unsigned kind = 0; kind < 2; kind++) {
        size_t len = strlen(kinds[kind]);
        unsigned layer = 0;
        if (strncmp(name, kinds[kind], len) == 0 &&
            (name[len] == '\0' || sscanf(name + len, "_%u", &layer) == 1)) {
            *place = 3 * layer + kind;
            return true;
        }
    }
    return false;
}

static bool block_layer(const char *name, char *out, size_t capacity)
{
    unsigned layer;
    if (strcmp(name, "shortcut_conv") == 0) {
        snprintf(out, capacity, "downsample.0");
    } else if (strcmp(name, "shortcut_batchnorm") == 0) {
        snprintf(out, capacity, "downsample.1");
    } else if (sscanf(name, "conv_%u", &layer) == 1) {
        snprintf(out, capacity, "conv%u", layer + 1);
    } else if (sscanf(name, "batchnorm_%u", &layer) == 1) {
        snprintf(out, capacity, "bn%u", layer + 1);
    } else {
        return false;
    }
    return true;
}

// "resnet/block_group_0/block_1/conv_2" is "layer1.1.conv3". Where torchvision has no name: ours
// with dots.
static void torch_module(const char *module, char out[MODULE_NAME])
{
    static const struct {
        const char *ours, *theirs;
    } whole[] = {{"resnet/initial_conv", "conv1"},
                 {"resnet/initial_batchnorm", "bn1"},
                 {"classifier", "fc"}};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        if (strcmp(module, whole[i].ours) == 0) {
            snprintf(out, MODULE_NAME, "%s", whole[i].theirs);
            return;
        }
    }
    unsigned group, block, place;
    int rest = 0;
    char layer[32];
    if (sscanf(module, "resnet/block_group_%u/block_%u/%n", &group, &block, &rest) == 2 &&
        rest > 0 && block_layer(module + rest, layer, sizeof layer)) {
        snprintf(out, MODULE_NAME, "layer%u.%u.%s", group + 1, block, layer);
        return;
    }
    const char *slash = strchr(module, '/');
    if (slash != NULL && strncmp(module, "resnet/", 7) != 0 && head_layer(slash + 1, &place)) {
        snprintf(out, MODULE_NAME, "%.*s.%u", (int)(slash - module), module, place);
        return;
    }
    snprintf(out, MODULE_NAME, "%s", module);
    for (char *at = out; (at = strchr(at, '/')) != NULL;) {
        *at = '.';
    }
}

static const char *torch_leaf(enum param_kind kind)
{
    return kind == PARAM_BIAS || kind == PARAM_OFFSET ? "bias" : "weight";
}

// --- the list --------------------------------------------------------------------------------

struct lister {
    const struct graph *graph;
    enum weights_names names;
    const char *branch;
    struct weights_entry *entries;
    size_t count;
};

static void torch_layout(struct weights_entry *entry, const struct graph_param *param)
{
    entry->transposed = param->dims > 1;
    if (param->kind == PARAM_CONV) {
        const uint32_t *shape = param->shape;
        const uint64_t turned[4] = {shape[3], shape[2], shape[0], shape[1]};
        memcpy(entry->shape, turned, sizeof turned);
    } else if (param->kind == PARAM_LINEAR) {
        entry->shape[0] = param->shape[1];
        entry->shape[1] = param->shape[0];
    }
}

static void add_param(struct lister *lister, int index)
{
    const struct graph_param *param = graph_param_at(lister->graph, (size_t)index);
    struct weights_entry *entry = &lister->entries[lister->count++];
    *entry = (struct weights_entry){.piece = WEIGHTS_PARAM,
                                    .type = TENSOR_FLOAT32,
                                    .dims = param->dims,
                                    .count = param->count,
                                    .offset = param->offset};
    for (unsigned i = 0; i < param->dims; i++) {
        entry->shape[i] = param->shape[i];
    }
    if (lister->names == WEIGHTS_BYOL) {
        snprintf(entry->name, sizeof entry->name, "%s/%s", lister->branch, param->name);
        return;
    }
    char module[sizeof param->name], theirs[MODULE_NAME];
    snprintf(module, sizeof module, "%s", param->name);
    *strrchr(module, '/') = '\0';
    torch_module(module, theirs);
    snprintf(entry->name, sizeof entry->name, "%s.%s", theirs, torch_leaf(param->kind));
    torch_layout(entry, param);
}

static void add_torch_state(struct lister *lister, const struct graph_state *state,
                            const char *module)
{
    uint32_t channels = state->channels;
    const struct {
        const char *name;
        enum weights_piece piece;
        uint64_t at;
    } pieces[] = {{"running_mean", WEIGHTS_MEAN, 1 + 2 * (uint64_t)channels},
                  {"running_var", WEIGHTS_VARIANCE, 1 + 3 * (uint64_t)channels},
                  {"num_batches_tracked", WEIGHTS_COUNT, 0}};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        bool count = pieces[i].piece == WEIGHTS_COUNT;
        struct weights_entry *entry = &lister->entries[lister->count++];
        *entry = (struct weights_entry){.piece = pieces[i].piece,
                                        .type = count ? TENSOR_INT64 : TENSOR_FLOAT32,
                                        .dims = count ? 0 : 1,
                                        .shape = {count ? 0 : channels},
                                        .count = count ? 1 : channels,
                                        .offset = state->offset + pieces[i].at};
        snprintf(entry->name, sizeof entry->name, "%s.%s", module, pieces[i].name);
    }
}

static void add_state(struct lister *lister, int index)
{
    const struct graph_state *state = graph_state_at(lister->graph, (size_t)index);
    if (lister->names == WEIGHTS_TORCHVISION) {
        char theirs[MODULE_NAME];
        torch_module(state->name, theirs);
        add_torch_state(lister, state, theirs);
        return;
    }
    uint64_t count = BATCH_NORM_STATE(state->channels);
    struct weights_entry *entry = &lister->entries[lister->count++];
    *entry = (struct weights_entry){.piece = WEIGHTS_STATE,
                                    .type = TENSOR_FLOAT32,
                                    .dims = 1,
                                    .shape = {count},
                                    .count = count,
                                    .offset = state->offset};
    snprintf(entry->name, sizeof entry->name, "state/%s/%s", lister->branch, state->name);
}

static void add_op(struct lister *lister, const struct graph_op *op)
{
    bool pair = op->kind != OP_CONV && (op->kind != OP_LINEAR || op->bias);
    if (op->param >= 0) {
        add_param(lister, op->param);
    }
    if (op->param >= 0 && pair) {
        add_param(lister, op->param + 1);
    }
    if (op->state >= 0) {
        add_state(lister, op->state);
    }
}

enum status weights_list(struct weights_entry **out, size_t *count, const struct graph *graph,
                         enum weights_names names, const char *branch, struct error *error)
{
    size_t ops = graph_op_count(graph);
    struct lister lister = {.graph = graph, .names = names, .branch = branch};
    *out = lister.entries = calloc(ops * TENSORS_PER_OP, sizeof *lister.entries);
    if (lister.entries == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a list of tensors");
    }
    for (size_t i = 0; i < ops; i++) {
        add_op(&lister, graph_op_at(graph, i));
    }
    *count = lister.count;
    return STATUS_OK;
}

// --- values ----------------------------------------------------------------------------------

// Where value `at` of the file's tensor stands, from the entry's offset on: [out][in][h][w] in
// [h][w][in][out], for matrices with h and w 1.
static uint64_t own_place(const struct weights_entry *entry, uint64_t at)
{
    if (!entry->transposed) {
        return at;
    }
    uint64_t outs = entry->shape[0], ins = entry->shape[1];
    uint64_t pixels = entry->count / (outs * ins);
    uint64_t pixel = at % pixels, in = at / pixels % ins, out = at / pixels / ins;
    return (pixel * ins + in) * outs + out;
}

static float *block_of(const struct weights *weights, const struct weights_entry *entry)
{
    return (entry->piece == WEIGHTS_PARAM ? weights->params : weights->state) + entry->offset;
}

void weights_take(const struct weights *weights, const struct weights_entry *entry, void *tensor)
{
    const float *block = block_of(weights, entry);
    if (entry->type == TENSOR_INT64) {
        bool fits = *block >= 0 && *block < 0x1p62f;
        *(int64_t *)tensor = fits ? (int64_t)*block : 0;
        return;
    }
    for (uint64_t i = 0; i < entry->count; i++) {
        ((float *)tensor)[i] = block[own_place(entry, i)];
    }
}

void weights_put(const struct weights *weights, const struct weights_entry *entry,
                 const void *tensor)
{
    const char *at = tensor;
    float *block = block_of(weights, entry);
    if (entry->type == TENSOR_INT64) {
        int64_t count;
        memcpy(&count, at, sizeof count);
        *block = count > 0 ? (float)count : 0;
        return;
    }
    for (uint64_t i = 0; i < entry->count; i++) {
        memcpy(&block[own_place(entry, i)], at + i * sizeof *block, sizeof *block);
    }
}
