// Plans of convolutions: the one that the cache knows, else the fastest of the candidates. Whatever
// a cache or another process says is admitted by the same rules as what we find ourselves.
#include "trainer/cuda/library_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct cuda_conv_plan {
    struct cudnn_plan plan;
};

// --- from text -----------------------------------------------------------------------------------

static enum status open_known(struct cudnn_plan *plan, const struct cudnn_graph *graph, bool strict,
                              const char *text, struct error *error)
{
    struct cudnn_engine engine;
    if (!cudnn_engine_parse(&engine, text)) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "not a plan of a convolution: '%.80s'", text);
    }
    enum status status = cudnn_plan_open(plan, graph, &engine, error);
    if (status == STATUS_OK &&
        (!conv_engine_admitted(&plan->engine, strict) || plan->workspace > CONV_WORKSPACE)) {
        cudnn_plan_close(plan);
        status = error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                           "this plan may not be used for %s: '%.80s'", graph->name, text);
    }
    return status;
}

// --- found here ----------------------------------------------------------------------------------

static enum status find_fastest(struct cudnn_plan *plan, struct cuda_library *library,
                                const struct cudnn_graph *graph, const struct cuda_conv *conv,
                                const char *key, struct error *error)
{
    struct conv_candidates candidates;
    enum status status = conv_candidates_open(&candidates, graph, library->strict, error);
    if (status != STATUS_OK) {
        return status;
    }
    size_t best = 0;
    bool measured = false;
    status = conv_tune(library, conv, &candidates, &best, &measured, error);
    char text[CUDNN_ENGINE_TEXT];
    cudnn_engine_text(&candidates.plans[best].engine, text);
    if (status == STATUS_OK && measured) {
        status = plan_cache_add(library->cache, key, text, error);
    }
    if (status == STATUS_OK) {
        *plan = candidates.plans[best];
        candidates.plans[best].descriptor = NULL;
    }
    conv_candidates_close(&candidates);
    return status;
}

static enum status open_best(struct cudnn_plan *plan, struct cuda_library *library,
                             const struct cudnn_graph *graph, const struct cuda_conv *conv,
                             struct error *error)
{
    char key[CUDNN_GRAPH_NAME + 8];
    snprintf(key, sizeof key, "%s%s", graph->name, library->strict ? ", strict" : "");
    const char *text = plan_cache_find(library->cache, key);
    if (text != NULL && open_known(plan, graph, library->strict, text, NULL) == STATUS_OK) {
        return STATUS_OK;
    }
    return find_fastest(plan, library, graph, conv, key, error);
}

// --- the calls -----------------------------------------------------------------------------------

// `text` NULL: the best.
static enum status open_plan(struct cuda_conv_plan **out, struct cuda_library *library,
                             const struct cuda_conv *conv, enum cuda_conv_pass pass,
                             const char *text, struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a plan of a convolution");
    }
    struct cudnn_graph graph;
    enum status status = cudnn_conv_graph_open(&graph, library->properties, conv, pass, error);
    if (status == STATUS_OK) {
        status = text != NULL ? open_known(&(*out)->plan, &graph, library->strict, text, error)
                              : open_best(&(*out)->plan, library, &graph, conv, error);
    }
    cudnn_graph_close(&graph);
    if (status != STATUS_OK) {
        cuda_conv_plan_close(out);
    }
    return status;
}

enum status cuda_conv_plan_open(struct cuda_conv_plan **out, struct cuda_library *library,
                                const struct cuda_conv *conv, enum cuda_conv_pass pass,
                                struct error *error)
{
    return open_plan(out, library, conv, pass, NULL, error);
}

enum status cuda_conv_plan_open_text(struct cuda_conv_plan **out, struct cuda_library *library,
                                     const struct cuda_conv *conv, enum cuda_conv_pass pass,
                                     const char *text, struct error *error)
{
    return open_plan(out, library, conv, pass, text, error);
}

void cuda_conv_plan_text(const struct cuda_conv_plan *plan, char text[CUDA_CONV_PLAN_TEXT])
{
    _Static_assert(CUDA_CONV_PLAN_TEXT == CUDNN_ENGINE_TEXT, "one holds the other");
    cudnn_engine_text(&plan->plan.engine, text);
}

void cuda_conv_plan_close(struct cuda_conv_plan **plan)
{
    if (*plan != NULL) {
        cudnn_plan_close(&(*plan)->plan);
        free(*plan);
        *plan = NULL;
    }
}

size_t cuda_conv_plan_workspace(const struct cuda_conv_plan *plan)
{
    return plan->plan.workspace;
}

enum status cuda_conv_run(struct cuda_library *library, const struct cuda_conv_plan *plan, void *x,
                          void *w, void *y, void *workspace)
{
    return cudnn_plan_run(&plan->plan, library->handle, x, w, y, workspace, &library->failure);
}
