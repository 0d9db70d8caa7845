// A trained network from a file: a checkpoint, a file that `byol export` wrote, or anybody's ResNet
// under torchvision's names.
#ifndef TRAINER_RUN_TRAINED_H
#define TRAINER_RUN_TRAINED_H

#include "trainer/run/config.h"
#include "trainer/weights/file.h"

// Metadata by which an export is known.
#define TRAINED_EXPORT_KEY     "byol_weights"
#define TRAINED_EXPORT_VERSION "1"

struct trained_request {
    const char *path;
    const char *branch; // "online", "target"; NULL: online, or the one that an export holds
    // What an export or another's file is: wins over what the export says of itself. Others' files
    // are torchvision's ResNet-50 (padding=torch, shortcut=torch) until told. STATUS_CONFIG with a
    // checkpoint, which knows.
    const char *const *assignments;
    size_t assignment_count;
    // The network to fill, whatever the file says of itself (its parts below, as far as the file
    // has them); NULL: the file's own.
    const struct model_config *model;
    int64_t size;                          // of images, in place of the run's; 0: as it is
    bool projector, predictor, classifier; // wanted besides the encoder, where the file has them
};

enum trained_kind { TRAINED_CHECKPOINT, TRAINED_EXPORT, TRAINED_OTHERS };

struct trained {
    enum trained_kind kind;
    struct run_config config;  // of the run
    struct model_config model; // what the weights' graph was built from: of the run's, what was
                               // asked for and is there
    struct weights weights;
    char branch[16];
    char left_out[64];                  // parts of the file that were not asked for, or ""
    struct safetensors *file;           // what the rest points into
    const char *config_text;            // of the run; NULL for others' files
    const char *step, *epoch, *dataset; // as the file has them; NULL for others' files
};

enum status trained_open(struct trained *trained, const struct trained_request *request,
                         struct error *error);
void trained_close(struct trained *trained);

#endif
