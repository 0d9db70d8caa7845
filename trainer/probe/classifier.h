// A linear classifier on a device: softmax cross-entropy, SGD with Nesterov momentum 0.9, no weight
// decay. Private to trainer/probe and its tests.
#ifndef TRAINER_PROBE_CLASSIFIER_H
#define TRAINER_PROBE_CLASSIFIER_H

#include "trainer/device/device.h"
#include "trainer/probe/probe.h"

struct classifier {
    struct device *device;
    uint32_t width, classes, batch; // batch: the most rows of a call
    float *params, *grads, *trace;  // device: weights [width][classes], then bias [classes]
    float *embeddings, *logits, *dlogits, *losses, *ones; // device, for a batch
    float *learning_rate, *scale; // device, of one value each: scale of the losses
    int32_t *labels;              // device, [batch]
    uint8_t *top1, *top5;         // device, [batch]
    float *host_losses;           // [batch]
    uint8_t *host_top1, *host_top5;
};

struct classifier_counts {
    uint64_t rows, top1, top5; // labelled rows, and how many of them were right
};

// Starts with zero weights, bias and momentum.
enum status classifier_open(struct classifier *classifier, struct device *device, uint32_t width,
                            uint32_t classes, uint32_t batch, struct error *error);
void classifier_close(struct classifier *classifier);

// Host values of weights and bias with their momentum, in and out.
enum status classifier_load(struct classifier *classifier, const struct linear_classifier *from,
                            struct error *error);
enum status classifier_store(const struct classifier *classifier, struct linear_classifier *to,
                             struct error *error);

// One update on `count` rows of host memory (a negative label: no loss). `counts` are added to, as
// classified before the update; may be NULL.
enum status classifier_step(struct classifier *classifier, const float *embeddings,
                            const int32_t *labels, uint32_t count, float learning_rate,
                            float *mean_loss, struct classifier_counts *counts,
                            struct error *error);

// Classifies without an update. The rows' losses stand in `host_losses`, hits in `host_top1` and
// `host_top5`.
enum status classifier_evaluate(struct classifier *classifier, const float *embeddings,
                                const int32_t *labels, uint32_t count,
                                struct classifier_counts *counts, struct error *error);

#endif
