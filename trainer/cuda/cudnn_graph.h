// A thin layer over cuDNN's graph API (<cudnn_graph.h>): one convolution as a graph, the engines
// that can compute it, and a plan made of one of them. Private to the cuda device.
//
// Plans are made for the properties of a GPU, which come from a GPU or from their text: then no
// GPU and no driver is needed, which is how all plans are tested on any machine. Only running one
// needs a handle.
//
// An engine is told here by its number and how its knobs are turned. That is all that one plan of
// a graph has over another, so it is also how a plan is remembered: made again from our own graph,
// it cannot be the plan of another shape.
#ifndef TRAINER_CUDA_CUDNN_GRAPH_H
#define TRAINER_CUDA_CUDNN_GRAPH_H

#include "trainer/cuda/library.h"

#include <cudnn_graph.h>

#define CUDNN_OLDEST 90800 // graphs without a handle

// The version that is loaded: "9.19.0".
void cudnn_version_text(char *text, size_t capacity);

// STATUS_OK, or STATUS_UNSUPPORTED or STATUS_DEVICE in the library's words: `what` of `name`.
enum status cudnn_check(cudnnStatus_t result, const char *name, const char *what,
                        struct error *error);

// The properties of a GPU. The JSON of cudnn_properties_json is malloc'ed; its fields are cuDNN's
// own.
enum status cudnn_properties_of_handle(cudnnBackendDescriptor_t *out, cudnnHandle_t handle,
                                       struct error *error);
enum status cudnn_properties_of_json(cudnnBackendDescriptor_t *out, const char *json,
                                     struct error *error);
enum status cudnn_properties_json(cudnnBackendDescriptor_t properties, char **json,
                                  struct error *error);

// Destroys any descriptor and forgets it; NULL is fine.
void cudnn_drop(cudnnBackendDescriptor_t *descriptor);

// --- graphs --------------------------------------------------------------------------------------

#define CUDNN_GRAPH_NAME 128

struct cudnn_graph {
    cudnnBackendDescriptor_t descriptor;
    cudnnBackendDescriptor_t properties; // borrowed
    char name[CUDNN_GRAPH_NAME]; // "forward 512x56x56x64 -> 512x56x56x64, 3x3/1 (1 1 1 1), bf16"
};

// Names one pass of a convolution, all that matters included: for errors, and as a key.
void cudnn_conv_name(const struct cuda_conv *conv, enum cuda_conv_pass pass,
                     char name[CUDNN_GRAPH_NAME]);

enum status cudnn_conv_graph_open(struct cudnn_graph *graph, cudnnBackendDescriptor_t properties,
                                  const struct cuda_conv *conv, enum cuda_conv_pass pass,
                                  struct error *error);
void cudnn_graph_close(struct cudnn_graph *graph);

// --- engines -------------------------------------------------------------------------------------

#define CUDNN_ENGINE_KNOBS CUDNN_KNOB_TYPE_COUNTS

struct cudnn_engine {
    int64_t number;
    unsigned numerical, behaviour; // notes: 1 << CUDNN_NUMERICAL_NOTE_…, 1 << CUDNN_BEHAVIOR_NOTE_…
    size_t knob_count;
    struct {
        int64_t type, value;
    } knobs[CUDNN_ENGINE_KNOBS];
};

// What heuristics of `mode` suggest for the graph, the best first; at most `capacity`. None is no
// error.
enum status cudnn_graph_engines(const struct cudnn_graph *graph, cudnnBackendHeurMode_t mode,
                                struct cudnn_engine *engines, size_t capacity, size_t *count,
                                struct error *error);

// As text "62 2=4 13=0" and back, without the notes; false when it is not such a text.
#define CUDNN_ENGINE_TEXT 1024
void cudnn_engine_text(const struct cudnn_engine *engine, char text[CUDNN_ENGINE_TEXT]);
bool cudnn_engine_parse(struct cudnn_engine *engine, const char *text);

// --- plans ---------------------------------------------------------------------------------------

struct cudnn_plan {
    cudnnBackendDescriptor_t descriptor;
    struct cudnn_engine engine;  // with its notes
    size_t workspace;            // bytes
    char name[CUDNN_GRAPH_NAME]; // of the graph
};

// STATUS_UNSUPPORTED when the engine cannot compute the graph after all.
enum status cudnn_plan_open(struct cudnn_plan *plan, const struct cudnn_graph *graph,
                            const struct cudnn_engine *engine, struct error *error);
void cudnn_plan_close(struct cudnn_plan *plan);

// cuDNN's own description of a plan, graph included; malloc'ed.
enum status cudnn_plan_json(const struct cudnn_plan *plan, char **json, struct error *error);

// Enqueues on the handle's stream; may be captured once it has run.
enum status cudnn_plan_run(const struct cudnn_plan *plan, cudnnHandle_t handle, void *x, void *w,
                           void *y, void *workspace, struct error *error);

#endif
