// Heuristics suggest engines, the best first; the fallback list follows, because in strict mode it
// is often all that is left.
#include "trainer/cuda/conv_candidates.h"

#include <stdlib.h>
#include <string.h>

#define NUMERICAL(note) (1u << CUDNN_NUMERICAL_NOTE_##note)

// Of one list of heuristics; cuDNN 9.19 suggests at most 40.
#define MOST_ENGINES 128

bool conv_engine_admitted(const struct cudnn_engine *engine, bool strict)
{
    const unsigned never = NUMERICAL(NONDETERMINISTIC) | NUMERICAL(REDUCED_PRECISION_REDUCTION);
    const unsigned inexact = NUMERICAL(TENSOR_CORE) | NUMERICAL(DOWN_CONVERT_INPUTS) |
                             NUMERICAL(FFT) | NUMERICAL(WINOGRAD) | NUMERICAL(WINOGRAD_TILE_4x4) |
                             NUMERICAL(WINOGRAD_TILE_6x6) | NUMERICAL(WINOGRAD_TILE_13x13);
    return (engine->numerical & (strict ? never | inexact : never)) == 0;
}

static bool compiled_later(const struct cudnn_engine *engine)
{
    return (engine->behaviour >> CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION & 1u) != 0;
}

static bool same_engine(const struct cudnn_engine *a, const struct cudnn_engine *b)
{
    return a->number == b->number && a->knob_count == b->knob_count &&
           memcmp(a->knobs, b->knobs, a->knob_count * sizeof a->knobs[0]) == 0;
}

static bool known(const struct conv_candidates *candidates, const struct cudnn_engine *engine)
{
    for (size_t i = 0; i < candidates->count; i++) {
        if (same_engine(&candidates->plans[i].engine, engine)) {
            return true;
        }
    }
    return false;
}

// Adds a plan of the engine unless it turns out not to fit. One that cannot compute this graph
// after all, or cannot be compiled here, is passed over like one that was never suggested.
static void consider(struct conv_candidates *candidates, const struct cudnn_graph *graph,
                     const struct cudnn_engine *engine)
{
    struct cudnn_plan *plan = &candidates->plans[candidates->count];
    if (known(candidates, engine) || cudnn_plan_open(plan, graph, engine, NULL) != STATUS_OK) {
        return;
    }
    if (plan->workspace > CONV_WORKSPACE) {
        cudnn_plan_close(plan);
        return;
    }
    candidates->count++;
}

// Adds what one list of heuristics holds of engines that are compiled already, or of the others.
static enum status gather(struct conv_candidates *candidates, const struct cudnn_graph *graph,
                          cudnnBackendHeurMode_t mode, bool strict, bool later,
                          struct cudnn_engine *engines, struct error *error)
{
    size_t count = 0;
    enum status status = cudnn_graph_engines(graph, mode, engines, MOST_ENGINES, &count, error);
    for (size_t i = 0; i < count && candidates->count < CONV_CANDIDATES && status == STATUS_OK;
         i++) {
        if (conv_engine_admitted(&engines[i], strict) && compiled_later(&engines[i]) == later) {
            consider(candidates, graph, &engines[i]);
        }
    }
    return status;
}

static enum status gather_all(struct conv_candidates *candidates, const struct cudnn_graph *graph,
                              bool strict, struct cudnn_engine *engines, struct error *error)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    for (int later = 0; later < 2 && candidates->count == 0; later++) {
        for (size_t i = 0; i < 2 && candidates->count < CONV_CANDIDATES; i++) {
            enum status status =
                gather(candidates, graph, modes[i], strict, later != 0, engines, error);
            if (status != STATUS_OK) {
                return status;
            }
        }
    }
    return STATUS_OK;
}

enum status conv_candidates_open(struct conv_candidates *candidates,
                                 const struct cudnn_graph *graph, bool strict, struct error *error)
{
    candidates->count = 0;
    struct cudnn_engine *engines = calloc(MOST_ENGINES, sizeof *engines);
    if (engines == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "cuDNN, %s: no memory",
                         graph->name);
    }
    enum status status = gather_all(candidates, graph, strict, engines, error);
    free(engines);
    if (status == STATUS_OK && candidates->count == 0) {
        status = error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                           "cuDNN has no repeatable engine for this convolution%s: %s",
                           strict ? " in plain float32" : "", graph->name);
    }
    if (status != STATUS_OK) {
        conv_candidates_close(candidates);
    }
    return status;
}

void conv_candidates_close(struct conv_candidates *candidates)
{
    for (size_t i = 0; i < candidates->count; i++) {
        cudnn_plan_close(&candidates->plans[i]);
    }
    candidates->count = 0;
}
