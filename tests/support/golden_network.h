// The cases of the golden group `network`: the model a row names, its weights and inputs by the
// rule of the golden data's README (hashes of names), and the mapping between the tabled flat
// layouts and ours.
#ifndef TESTS_SUPPORT_GOLDEN_NETWORK_H
#define TESTS_SUPPORT_GOLDEN_NETWORK_H

#include "tests/support/golden.h"
#include "trainer/net/model.h"

struct network_case {
    const char *folder; // of the index
    const char *name, *prefix, *mode, *files;
    struct model_config config;
    uint32_t batch;
    struct graph *graph;
    struct table params, bn;
    uint64_t *param_offset; // [graph_param_count]: where the tabled layout has each of ours
    uint64_t params_total, bn_total; // lengths of the tabled flat layouts
};

// "ResNet50" -> MODEL_RESNET50; fails the test when unknown.
int network_encoder(const char *name);

// Builds the model and checks names, kinds, shapes, flags and tabled values of every parameter.
void network_case_open(struct network_case *out, const char *folder, const struct table *index,
                       size_t row);
void network_case_close(struct network_case *network_case);

// Whether the case has `file` ("grads.npy"), and the file.
bool network_case_has(const struct network_case *network_case, const char *file);
struct npy network_case_array(const struct network_case *network_case, const char *file);

// A parameter of `branch` ("online" or "target"), in our flat layout's order; all of them.
void network_case_param(const struct network_case *network_case, const char *branch,
                        const struct graph_param *param, float *to);
float *network_case_params(const struct network_case *network_case, const char *branch);

// `name`: "input/view1" or "input/step2/view1"; [batch][size][size][3]. Labels: "input/labels".
void network_case_images(const struct network_case *network_case, const char *name, float *to);
void network_case_labels(const struct network_case *network_case, const char *name, int32_t *to);

// Reorders a flat block of ours into the tabled layout. For running statistics: hidden or average
// of each module, mean then variance.
void network_case_tabled(const struct network_case *network_case, float *to, const float *block);
void network_case_tabled_state(const struct network_case *network_case, float *to,
                               const float *state, bool average);

#endif
