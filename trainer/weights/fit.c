// What torchvision's ResNet is, and what it is not.
#include "trainer/weights/fit.h"

#include <stdio.h>
#include <string.h>

// The first window whose borders torchvision pads otherwise; NULL when there is none.
static const struct graph_op *padded_otherwise(const struct graph *graph)
{
    for (size_t i = 0; i < graph_op_count(graph); i++) {
        const struct graph_op *op = graph_op_at(graph, i);
        if (op->kind != OP_CONV && op->kind != OP_MAX_POOL) {
            continue;
        }
        uint32_t symmetric = (op->kernel - 1) / 2;
        uint32_t out = graph_value_at(graph, op->y)->h, in = graph_value_at(graph, op->x)->h;
        struct graph_pads pads = graph_op_pads(graph, op);
        if (pads.top != symmetric || (in + 2 * symmetric - op->kernel) / op->stride + 1 != out) {
            return op;
        }
    }
    return NULL;
}

// A convolution as the shortcut where neither stride nor channels change.
static bool needless_shortcut(const struct graph *graph)
{
    static const char end[] = "/shortcut_conv/w";
    for (size_t i = 0; i < graph_op_count(graph); i++) {
        const struct graph_op *op = graph_op_at(graph, i);
        if (op->kind != OP_CONV || op->stride != 1 ||
            graph_value_at(graph, op->x)->c != op->out_channels) {
            continue;
        }
        const char *name = graph_param_at(graph, (size_t)op->param)->name;
        size_t len = strlen(name);
        if (len >= sizeof end && strcmp(name + len - (sizeof end - 1), end) == 0) {
            return true;
        }
    }
    return false;
}

static void describe_padding(struct weights_fit *fit, const struct model_config *model,
                             const struct graph *graph, const struct graph_op *op)
{
    struct graph_pads pads = graph_op_pads(graph, op);
    uint32_t in = graph_value_at(graph, op->x)->h;
    snprintf(fit->reason, sizeof fit->reason,
             "padding=%s adds %u rows before and %u after the %u of a %ux%u window of stride %u; "
             "torchvision adds %u and %u, so its features would be others%s",
             model->padding == GRAPH_PADDING_SAME ? "same" : "torch", pads.top, pads.bottom, in,
             op->kernel, op->kernel, op->stride, (op->kernel - 1) / 2, (op->kernel - 1) / 2,
             model->stem == MODEL_STEM_IMAGENET
                 ? " (with images of 32 k + 1 pixels, such as 225, both are the same)"
                 : "");
}

static void describe_module(struct weights_fit *fit, const struct model_config *model)
{
    static const char *const makers[] = {
        [MODEL_TINY] = "ResNet(BasicBlock, [1, 1, 1, 1])",
        [MODEL_RESNET18] = "resnet18()",
        [MODEL_RESNET34] = "resnet34()",
        [MODEL_RESNET50] = "resnet50()",
        [MODEL_RESNET101] = "resnet101()",
        [MODEL_RESNET152] = "resnet152()",
        [MODEL_RESNET200] = "ResNet(Bottleneck, [3, 24, 36, 3])",
    };
    bool wide = model->width < 1 || model->width > 1 || model->encoder == MODEL_TINY;
    char width[64] = "";
    if (wide) {
        snprintf(width, sizeof width, ", layers made %g times as wide", model->width);
    }
    snprintf(fit->module, sizeof fit->module, "%s%s%s", makers[model->encoder], width,
             model->stem == MODEL_STEM_SMALL ? ", conv1 of 3x3 with stride 1, maxpool the identity"
                                             : "");
}

void weights_fit(struct weights_fit *fit, const struct model_config *model,
                 const struct graph *graph)
{
    const struct graph_op *window = padded_otherwise(graph);
    const char *reason = NULL;
    *fit = (struct weights_fit){.fits = false};
    describe_module(fit, model);
    if (model->v2) {
        reason = "its blocks are pre-activation ones (v2=true)";
    } else if (model->norm != MODEL_NORM_BATCH) {
        reason = "it does not normalise by batch statistics (norm)";
    } else if (model->weight_standardisation) {
        reason = "its weights are standardised when they are used (weight_standardisation=true)";
    } else if (needless_shortcut(graph)) {
        reason = "the shortcut of its first block is a convolution (shortcut=first), which "
                 "torchvision's is not where neither stride nor channels change";
    } else if (window != NULL) {
        describe_padding(fit, model, graph, window);
        return;
    }
    fit->fits = reason == NULL;
    snprintf(fit->reason, sizeof fit->reason, "%s", reason ? reason : "");
}
