// A self-supervised method as a plug-in: it names its branches, heads and loss, and which views
// feed which branch. BYOL is the first customer; the trainer knows methods only through this table.
//
// A method owns its graphs, networks, parameter blocks and optimiser state on one device. The
// trainer feeds it batches, tells it learning rate and tau, and saves and restores whatever it
// lists as its tensors.
#ifndef TRAINER_METHOD_METHOD_H
#define TRAINER_METHOD_METHOD_H

#include "trainer/device/device.h"
#include "trainer/net/model.h"
#include "trainer/net/network.h"

// Named by who uses them; the formulas are in device.h, their differences in trainer/README.md.
enum optimizer {
    OPTIMIZER_LARS, // the reference's
    OPTIMIZER_LARS_SOLO_LEARN,
    OPTIMIZER_LARS_SUNCET,
    OPTIMIZER_SGD,
    OPTIMIZER_ADAMW
};
#define OPTIMIZER_CHOICES "lars|lars-solo-learn|lars-suncet|sgd|adamw"

// Parameters of a module, "resnet" or "predictor", learn at `scale` times the learning rate.
struct method_rate {
    const char *module;
    double scale;
};
#define METHOD_RATES 4

struct method_config {
    struct model_config model; // classes 0 = no labels, no online classifier
    uint32_t batch;      // pairs per step, of all the device's peers together: a multiple of their
                         // number and `accumulate`
    uint32_t accumulate; // micro-batches of batch / accumulate pairs whose gradients are averaged
                         // for one step; must divide batch; 0 is taken as 1
    bool recompute;      // trade time for memory, same bits: network_config
    uint64_t seed;       // of the initialisation
    double weight_decay, momentum, trust; // LARS: 1e-6, 0.9, 1e-3

    int optimizer;                          // enum optimizer
    bool nesterov;                          // SGD, LARS of solo-learn and suncet
    bool lars_clip;                         // LARS of solo-learn: never faster than SGD
    double beta1, beta2, epsilon;           // AdamW
    struct method_rate rates[METHOD_RATES]; // up to the first without a module; others learn at 1
};

// What changes from step to step.
struct method_step {
    float learning_rate;
    float tau;
};

struct method_metrics {
    double loss;           // all of it
    double representation; // the self-supervised part
    double classification; // of the online classifier, 0 without labels
    double top1, top5;     // of the online classifier on view 1, shares of 1; NaN without labels
    double spread;         // mean over dimensions of the standard deviation, over the batch, of the
                           // l2-normalised projections; healthy near 1/sqrt(d), 0 = collapsed
    double positive_cosine; // mean cosine of the projections of an image's views
    double negative_cosine; // of different images in the batch, all pairs; NaN for one image
    // Seconds, all 0 on a device that works ahead unless it is timed (device.h).
    double seconds[OP_KINDS]; // forward + backward time per op kind (enum op_kind), this step
    double backward_seconds[OP_KINDS]; // of these
    double exchange_seconds;           // summing gradients over peers, waiting for them included
    double optimiser_seconds;
    const char
        *notice; // something the user should know, told once; NULL. Valid until the next call
};

// One saved tensor: parameters, optimiser state or running statistics, copied through the host.
struct method_tensor {
    char name[192]; // "online/resnet/initial_conv/w", "target/…", "momentum/…", "state/online/…":
                    // documented in trainer/README.md
    unsigned dims;
    uint32_t shape[4];
    uint64_t count;
    float *device; // device memory
};

// What a method has laid out on its device.
struct method_plan {
    uint64_t parameters;      // values of one network
    uint64_t parameter_bytes; // parameters, what the optimiser keeps, gradients, running statistics
    uint64_t online_arena_bytes, target_arena_bytes;
    uint64_t batch_bytes; // images, labels, losses
    size_t online_ops[OP_KINDS], target_ops[OP_KINDS];
};

struct method;

struct method_ops {
    const char *name;    // "byol"
    const char *summary; // one line
    unsigned views;      // images per record it consumes

    enum status (*open)(struct method **out, struct device *device,
                        const struct method_config *config, struct error *error);
    void (*close)(struct method *method);

    // Queues one training step. `view[v]` is host memory [batch][S][S][3]; labels [batch] or NULL;
    // with peers, this process's share of them, batch / peers. Returns when the caller may use
    // that memory again. At most 1 + the device's steps_ahead steps wait to be collected, another
    // one is STATUS_INVALID.
    enum status (*step)(struct method *method, const float *const *view, const int32_t *labels,
                        const struct method_step *step, struct error *error);

    // Waits for the oldest step that was not collected; its metrics are those of the whole batch.
    enum status (*collect)(struct method *method, struct method_metrics *metrics,
                           struct error *error);

    // Everything a resume needs, in a fixed order. Copies at most `capacity`, returns how many
    // there are. Read or write their memory only when no step waits to be collected.
    size_t (*tensors)(struct method *method, struct method_tensor *out, size_t capacity);

    // For probes and export: the model description, and the online parameters and running
    // statistics (device memory).
    const struct graph *(*graph)(const struct method *method);
    const float *(*online_params)(const struct method *method);
    float *(*online_state)(const struct method *method);

    uint64_t (*memory)(const struct method *method);                     // device bytes planned
    void (*plan)(const struct method *method, struct method_plan *plan); // what they are
};

// Every method begins with this.
struct method {
    const struct method_ops *ops;
};

extern const struct method_ops *const method_table[]; // NULL-terminated

// STATUS_CONFIG with the nearest name when there is no such method.
enum status method_open(struct method **out, const char *name, struct device *device,
                        const struct method_config *config, struct error *error);
void method_close(struct method **method);

#endif
