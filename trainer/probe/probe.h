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
// The same from any file of weights: a checkpoint, an export, or another's ResNet, whose network
// the assignments ("encoder=resnet18", "padding=torch") describe (trainer/run/trained.h).
enum status encoder_open_weights(struct encoder **out, const char *path,
                                 const char *const *assignments, size_t assignment_count,
                                 const char *device, int threads, bool untrained,
                                 struct error *error);
void encoder_close(struct encoder **encoder);
uint32_t encoder_size(const struct encoder *encoder); // input side, pixels
bool encoder_has_projector(const struct encoder *encoder);
// Features come with projections from now on. Right after encoder_open; STATUS_INVALID when the run
// has no projector.
enum status encoder_with_projections(struct encoder *encoder, struct error *error);

struct features {
    uint64_t count;
    uint32_t width, projection_width, classes;
    float *values;      // [count][width], malloc'ed
    float *projections; // [count][projection_width], NULL unless the encoder gives them
    int32_t *labels;    // [count]
    uint64_t *records;  // [count], of the dataset
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

// Embeds `limit` records at most, drawn by `seed`: with one view the evaluation view, with two the
// pair of views that the run trains on. `out` has room for `views`, whose rows belong together.
enum status features_sample(struct features *out, unsigned views, struct encoder *encoder,
                            const struct dataset *dataset, uint64_t limit, uint64_t seed,
                            const struct probe_options *options, struct error *error);

// Labels are numbers of class names, so both sets must list the same ones in the same order:
// STATUS_INVALID names the first that differs.
enum status probe_check_classes(const struct dataset *train, const struct dataset *test,
                                struct error *error);

#define KNN_MORE 3 // further numbers of neighbours that one search can score

struct knn_more {
    int64_t k; // 0: none
    double top1, top5;
};

#define LINEAR_MAX_RATES 16 // learning rates that one evaluation can compare

// One learning rate of a linear evaluation; all figures in percent.
struct linear_trial {
    double learning_rate;
    bool diverged; // then the rest is 0
    double held_out_top1, train_top1, top1, top5;
};

struct probe_score {
    uint64_t count;                 // test images
    double top1, top5;              // percent
    double train_top1;              // linear only, percent, last epoch
    double learning_rate;           // linear only: the one used
    struct knn_more more[KNN_MORE]; // knn only: as knn_config.more
    // Linear only: every learning rate in the order given; the scores above are those of the rate
    // that was best on the `held_out` training images which no classifier was trained on.
    struct linear_trial trials[LINEAR_MAX_RATES];
    uint32_t trial_count;
    uint64_t held_out;
};

// Weighted kNN: the k nearest vote for their classes.
enum knn_distance {
    KNN_COSINE,    // features scaled to length 1; a vote weighs exp(cosine / temperature)
    KNN_EUCLIDEAN, // features as they are; a vote weighs 1 / (distance + 1e-5)
};

struct knn_config {
    int64_t k;              // neighbours that vote
    int64_t more[KNN_MORE]; // other k that the same search scores too, 0 = no further one
    double temperature;     // of the votes
    enum knn_distance distance;
};

// How others do it, by name; the first is the default. A table ends with a NULL name.
//   lightly               k 200, temperature 0.1, cosine (also MoCo's and InstDisc's)
//   solo-learn            k 20, temperature 0.07, cosine (its classifier's defaults)
//   solo-learn-euclidean  k 20, Euclidean (what its training monitors unless told otherwise)
//   dinov2                k 20, and 10, 100, 200; temperature 0.07, cosine
struct knn_convention {
    const char *name;
    struct knn_config config;
};
extern const struct knn_convention knn_conventions[];
// STATUS_INVALID with the nearest name when there is none.
enum status knn_config_named(struct knn_config *config, const char *name, struct error *error);

enum status knn_score(const struct features *train, const struct features *test,
                      const struct knn_config *config, struct probe_score *score,
                      struct error *error);

// Linear classifier, the reference's protocol: views by `linear-train` (random crop and flip),
// frozen encoder and statistics, SGD Nesterov momentum 0.9, no weight decay, cosine schedule
// without warm-up, evaluation on the centre crop.
//
// Several learning rates share one pass over the images: each has a classifier of its own, updated
// on the same features. As in the paper the best is chosen on training images held out from all of
// them (linear_hold_out) and its score on the test set is the result.
struct linear_config {
    int64_t epochs;                          // 80
    int64_t batch;                           // 1024; held-out images are left out of it
    double learning_rates[LINEAR_MAX_RATES]; // at batch 256; 0.2
    uint32_t rate_count;                     // 1: nothing is held out
    bool cached; // train on features of the eval crop extracted once: much faster, not the paper's
                 // protocol
    uint64_t seed;
};
void linear_config_init(struct linear_config *config);
void linear_config_sweep(struct linear_config *config); // the paper's 0.4, 0.3, 0.2, 0.1, 0.05

// Marks those of `count` training images that are held out to choose a learning rate, and returns
// how many: the paper's 10,009, of small sets a tenth; always the same ones. `marks` may be NULL.
uint64_t linear_hold_out(uint8_t *marks, uint64_t count);

enum status linear_score(struct encoder *encoder, const struct dataset *train,
                         const struct dataset *test, const struct linear_config *config,
                         const struct probe_options *options, struct probe_score *score,
                         struct error *error);

// Figures that need no labels.
//   rank             RankMe (Garrido et al. 2023): exp(-sum p log p) with p = s / sum(s) + 1e-7
//   over
//                    the singular values s of the features of the evaluation views, not centred:
//                    how many directions are in use, at most the width
//   positive_cosine  mean cosine between the two training views of an image
//   negative_cosine  mean cosine between training views of different images, over all pairs
// A collapsed network has rank 1 and both cosines 1; without augmentations that matter the first
// cosine is 1 and the second is not.
struct quality_figures {
    uint32_t width; // 0: there are none
    double rank, positive_cosine, negative_cosine;
};

struct quality {
    uint64_t images;
    struct quality_figures features, projections; // projections: encoder_with_projections only
};

struct quality_config {
    int64_t limit; // images drawn at most; 25600, as RankMe's paper recommends
    uint64_t seed; // of the draw and of the training views
};
void quality_config_init(struct quality_config *config);
enum status quality_score(struct quality *out, struct encoder *encoder,
                          const struct dataset *dataset, const struct quality_config *config,
                          const struct probe_options *options, struct error *error);

// The figures by themselves, of [count][width] values; row i of `left` and `right` are views of one
// image. The rank takes about count x width^2 + 2 width^3 operations.
enum status quality_rank(double *rank, const float *values, uint64_t count, uint32_t width,
                         struct error *error);
enum status quality_cosines(double *positive, double *negative, const float *left,
                            const float *right, uint64_t count, uint32_t width,
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
