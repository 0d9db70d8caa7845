// Steps in flight: the host prepares steps while the device computes others. What every method
// shares: places for what a step brings to and leaves on the host, room on the device for its
// batch, and recordings of its work.
//
// On devices that compute at once there is one place, batches are read where they lie, and a step
// is done when queue_step returns. Methods need not know which of both they run on.
//
// The work of a step is the same in every step, so that the device can repeat it by itself:
// whatever changes comes with the batch and the settings.
#ifndef TRAINER_METHOD_QUEUE_H
#define TRAINER_METHOD_QUEUE_H

#include "trainer/device/device.h"

#define QUEUE_PARTS 4

struct queue_config {
    size_t part_bytes[QUEUE_PARTS]; // of a batch: views, labels; up to the first without bytes
    size_t place_bytes;             // host memory of one step, kept until the next that gets it
    size_t setting_bytes;           // which a place begins with: go to `settings` before the work
    void *settings;                 // device memory
    // Queues all that a step does on the device. Reads the batch from `parts`, device memory, and
    // the settings; brings what the host is to see into `place`, by queue_fetch.
    enum status (*work)(void *context, const void *const *parts, void *place, struct error *error);
    void *context;
};

struct queue;

enum status queue_open(struct queue **out, struct device *device, const struct queue_config *config,
                       struct error *error);
// Waits for what is in flight. NULL and pointers to NULL are fine.
void queue_close(struct queue **queue);

uint64_t queue_device_bytes(const struct queue *queue); // room for batches

// The memory of the next step, for what its work reads there and what the host wants to find again
// when it collects. STATUS_INVALID while 1 + steps_ahead steps wait to be collected.
enum status queue_place(struct queue *queue, void **place, struct error *error);

// Queues the next step, after queue_place. `parts` are host memory and the caller's again when this
// returns.
enum status queue_step(struct queue *queue, const void *const *parts, struct error *error);

// From within the work: `to` lies in the place, and holds what `from` was once the step is
// collected.
enum status queue_fetch(struct queue *queue, void *to, const void *from, size_t bytes);

// Waits for the oldest step that was not collected. Its place is valid until the next queue_place.
enum status queue_collect(struct queue *queue, void **place, struct error *error);

// Something that the user should know, told once: that steps are not recorded, and why. Or NULL.
const char *queue_notice(struct queue *queue);

#endif
