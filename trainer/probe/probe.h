// How good are the features? Frozen encoder, evaluation-mode normalisation: linear classifier and
// weighted nearest neighbours.
#ifndef TRAINER_PROBE_PROBE_H
#define TRAINER_PROBE_PROBE_H

#include "augment/recipe.h"
#include "formats/dataset.h"
#include "trainer/net/graph.h"

// An encoder to probe: from a checkpoint, or freshly initialised from its config (the untrained
// baseline).
struct encoder;
enum status encoder_open(struct encoder **out, const char *checkpoint, const char *device,
                         int threads, bool untrained, struct error *error);
void encoder_close(struct encoder **encoder);
uint32_t encoder_width(const struct encoder *encoder); // of the embedding
uint32_t encoder_size(const struct encoder *encoder);  // input side, pixels

struct features {
    uint64_t count;
    uint32_t width, classes;
    float *values;   // [count][width], malloc'ed
    int32_t *labels; // [count]
};
void features_free(struct features *features);

struct probe_options {
    int threads, loader_threads; // 0 = one per core
    uint32_t batch;              // images per forward pass, default 128
    void (*progress)(void *context, const char *stage, uint64_t done,
                     uint64_t total); // may be NULL
    void *context;
};
void probe_options_init(struct probe_options *options);

// Embeds every record of a dataset in order, with the `eval` recipe at the encoder's size.
enum status features_extract(struct features *out, struct encoder *encoder,
                             const struct dataset *dataset, const struct probe_options *options,
                             struct error *error);

// Labels are numbers of class names, so both sets must list the same ones in the same order:
// STATUS_INVALID names the first that differs.
enum status probe_check_classes(const struct dataset *train, const struct dataset *test,
                                struct error *error);

struct probe_score {
    uint64_t count;       // test images
    double top1, top5;    // percent
    double train_top1;    // linear only, percent, last epoch
    double learning_rate; // linear only: the one used
};

// Weighted kNN on l2-normalised features: cosine, votes weighted by exp(similarity / temperature)
// over the k nearest.
struct knn_config {
    int64_t k;          // 200
    double temperature; // 0.1
};
void knn_config_init(struct knn_config *config);
enum status knn_score(const struct features *train, const struct features *test,
                      const struct knn_config *config, struct probe_score *score,
                      struct error *error);

// Linear classifier, the reference's protocol: views by `linear-train` (random crop and flip),
// frozen encoder and statistics, SGD Nesterov momentum 0.9, no weight decay, cosine schedule
// without warm-up, evaluation on the centre crop.
struct linear_config {
    int64_t epochs;            // 80
    int64_t batch;             // 1024
    double base_learning_rate; // 0.2 at batch 256
    bool cached; // train on features of the eval crop extracted once: much faster, not the paper's
                 // protocol
    uint64_t seed;
};
void linear_config_init(struct linear_config *config);
enum status linear_score(struct encoder *encoder, const struct dataset *train,
                         const struct dataset *test, const struct linear_config *config,
                         const struct probe_options *options, struct probe_score *score,
                         struct error *error);

// The classifier's update by itself, for golden tests: plain host arrays. See tests/golden, group
// linear_eval.
struct linear_classifier {
    uint32_t width, classes;
    float *weights, *bias;             // [width][classes], [classes]
    float *weights_trace, *bias_trace; // momentum
};
enum status linear_update(struct device *device, struct linear_classifier *classifier,
                          const float *embeddings, const int32_t *labels, uint32_t count,
                          float learning_rate, float *mean_loss, struct error *error);

#endif
