// The frozen encoder behind the probes. Private to trainer/probe.
#ifndef TRAINER_PROBE_ENCODER_H
#define TRAINER_PROBE_ENCODER_H

#include "pipeline/loader.h"
#include "trainer/net/network.h"
#include "trainer/probe/probe.h"
#include "trainer/run/config.h"

struct encoder {
    struct run_config config;
    struct device *device;
    struct graph *graph;
    float *params, *state; // device
    bool needs_statistics; // running statistics were never filled
    uint32_t width;
    uint32_t projection_width; // 0: projections are not computed

    struct network *network; // planned for `images`, NULL before the first use
    uint32_t images;
    float *input; // device, [images][size][size][3]
};

// Plans for batches of `images`; keeps the plan when it is the same.
enum status encoder_plan(struct encoder *encoder, uint32_t images, struct error *error);

// Embeds `count` (at most the planned number) images: host [count][size][size][3] to host
// [count][width].
enum status encoder_embed(struct encoder *encoder, float *embeddings, const float *images,
                          uint32_t count, struct error *error);

// The projections of the images of the last encoder_embed: host [count][projection_width]. Only
// after encoder_with_projections.
enum status encoder_project(struct encoder *encoder, float *projections, uint32_t count,
                            struct error *error);

// An untrained encoder has no running statistics. This fills them with forward passes in training
// mode over shuffled evaluation views of `dataset`; nothing happens when they are there.
enum status encoder_fill_statistics(struct encoder *encoder, const struct dataset *dataset,
                                    const struct probe_options *options, struct error *error);

// A built-in recipe at the encoder's size. Encoders with the small stem see the whole image where
// others see the centre crop.
enum status encoder_recipe(const struct encoder *encoder, const char *name, struct recipe *recipe,
                           struct error *error);

// A loader of one view per record at the encoder's size.
enum status encoder_loader(struct loader **out, const struct encoder *encoder,
                           const struct dataset *dataset, const struct probe_options *options,
                           struct loader_config *config, struct error *error);

// Embeds the evaluation views of the records whose entry of `chosen` is not 0, in order;
// features_keep makes the same of the features of all records.
enum status features_extract_some(struct features *out, struct encoder *encoder,
                                  const struct dataset *dataset, const uint8_t *chosen,
                                  const struct probe_options *options, struct error *error);
void features_keep(struct features *features, const uint8_t *chosen);

#endif
