// Probing during training: the labelled images of every probe are chosen once, and each checkpoint
// that is given is scored on the same ones.
#ifndef TRAINER_PROBE_ONLINE_H
#define TRAINER_PROBE_ONLINE_H

#include "formats/status.h"

#include <stdbool.h>

struct online_config {
    const char *data;      // labelled dataset: the bank that votes, and the test images too when
                           // `test` is NULL
    const char *test;      // labelled dataset of the test images, or NULL
    uint64_t bank, images; // at most so many of either
    bool rank;             // RankMe of the bank as well
    int threads, loader_threads; // 0 = one per core
};

struct online_score {
    double knn_top1, knn_top5;         // shares of 1, by the first of knn_conventions
    double rankme, rankme_projections; // NaN without
    uint32_t width, projection_width;  // their largest values; 0 without
    uint64_t bank, images;             // images that voted, and that were classified
};

struct online;

// Which images: drawn by record number and a fixed seed, the same in every run. Of a single dataset
// the first of the draw are the test images and the rest is the bank, so that no image is in both;
// of a small one, in proportion to `images` and `bank`. STATUS_CONFIG when there are no labels, too
// few images, or one dataset in two places; `training` is the dataset that is learnt from, whose
// images may vote but not be classified.
enum status online_open(struct online **out, const struct online_config *config, uint64_t training,
                        struct error *error);
void online_close(struct online **online); // accepts a pointer to NULL

// Opens a checkpoint's encoder by itself: what trains is not touched.
enum status online_measure(struct online *online, const char *checkpoint, const char *device,
                           struct online_score *out, struct error *error);

#endif
