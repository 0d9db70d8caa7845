// A step takes the slots in turn. It finds its batch in the slot's room on the device and leaves
// its results in the slot's place on the host, so that recordings, one a slot, know where both are.
#include "trainer/method/queue.h"

#include <stdio.h>
#include <stdlib.h>

#define PART_ALIGNMENT 256u

struct slot {
    void *place;
    struct device_upload *room;
    struct device_mark *mark; // behind all work of its step
    struct device_recording *recording;
    bool warm; // its work has run once
};

struct queue {
    struct device *device;
    struct queue_config config;
    size_t offsets[QUEUE_PARTS], room_bytes; // of the parts in a room
    struct slot *slots;
    unsigned slot_count;
    uint64_t queued, collected; // steps
    bool eager;                 // nothing is recorded
    bool untold;                // and nobody knows why
    char notice[sizeof(struct error)];
};

static bool works_ahead(const struct queue *queue)
{
    return queue->device->ops->steps_ahead > 0;
}

static enum status failed(const struct queue *queue, enum status status, struct error *error)
{
    return status == STATUS_OK
               ? STATUS_OK
               : error_set(error, status, NULL, NOWHERE, NOWHERE, "device '%s' failed in a step",
                           queue->device->ops->name);
}

// --- life

static void lay_out(struct queue *queue)
{
    for (size_t i = 0; i < QUEUE_PARTS && queue->config.part_bytes[i] > 0; i++) {
        queue->offsets[i] = queue->room_bytes;
        size_t end = queue->room_bytes + queue->config.part_bytes[i];
        queue->room_bytes = (end + PART_ALIGNMENT - 1) / PART_ALIGNMENT * PART_ALIGNMENT;
    }
}

static enum status open_slot(struct queue *queue, struct slot *slot, struct error *error)
{
    struct device *device = queue->device;
    if (!works_ahead(queue)) {
        slot->place = calloc(1, queue->config.place_bytes);
        return slot->place != NULL ? STATUS_OK
                                   : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                               "no memory for the results of a step");
    }
    enum status status =
        device->ops->host_allocate(device, &slot->place, queue->config.place_bytes, error);
    if (status == STATUS_OK) {
        status = device->ops->upload_open(device, &slot->room, queue->room_bytes, error);
    }
    return status == STATUS_OK ? device->ops->mark_open(device, &slot->mark, error) : status;
}

static void close_slot(struct queue *queue, struct slot *slot)
{
    struct device *device = queue->device;
    if (!works_ahead(queue)) {
        free(slot->place);
        return;
    }
    if (slot->recording != NULL) {
        device->ops->record_close(device, slot->recording);
    }
    if (slot->mark != NULL) {
        device->ops->mark_close(device, slot->mark);
    }
    if (slot->room != NULL) {
        device->ops->upload_close(device, slot->room);
    }
    if (slot->place != NULL) {
        device->ops->host_release(device, slot->place);
    }
}

enum status queue_open(struct queue **out, struct device *device, const struct queue_config *config,
                       struct error *error)
{
    *out = NULL;
    struct queue *queue = calloc(1, sizeof *queue);
    struct slot *slots = calloc(1 + (size_t)device->ops->steps_ahead, sizeof *slots);
    if (queue == NULL || slots == NULL) {
        free(queue);
        free(slots);
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a queue of steps");
    }
    *queue = (struct queue){.device = device,
                            .config = *config,
                            .slots = slots,
                            .slot_count = 1 + device->ops->steps_ahead,
                            .eager = device->ops->record_begin == NULL};
    lay_out(queue);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < queue->slot_count && status == STATUS_OK; i++) {
        status = open_slot(queue, &slots[i], error);
    }
    *out = queue;
    if (status != STATUS_OK) {
        queue_close(out);
    }
    return status;
}

void queue_close(struct queue **queue)
{
    struct queue *closing = *queue;
    if (closing == NULL) {
        return;
    }
    closing->device->ops->synchronise(closing->device);
    for (size_t i = 0; i < closing->slot_count; i++) {
        close_slot(closing, &closing->slots[i]);
    }
    free(closing->slots);
    free(closing);
    *queue = NULL;
}

uint64_t queue_device_bytes(const struct queue *queue)
{
    return works_ahead(queue) ? (uint64_t)queue->slot_count * queue->room_bytes : 0;
}

const char *queue_notice(struct queue *queue)
{
    bool untold = queue->untold;
    queue->untold = false;
    return untold ? queue->notice : NULL;
}

// --- the work of a step

static void refuse(struct queue *queue, const struct error *error)
{
    queue->eager = queue->untold = true;
    snprintf(queue->notice, sizeof queue->notice,
             "the device's steps are not recorded but queued piece by piece: %s",
             error->reason[0] != '\0' ? error->reason : "it cannot record them");
}

// Notes the work of a slot. When the device refuses, no step is recorded any more.
static void record(struct queue *queue, struct slot *slot, const void *const *parts)
{
    struct device *device = queue->device;
    struct error error = {0}, late = {0};
    enum status status = device->ops->record_begin(device, &error);
    if (status == STATUS_OK) {
        status = queue->config.work(queue->config.context, parts, slot->place, &error);
        enum status ended = device->ops->record_end(device, &slot->recording, &late);
        error = status == STATUS_OK ? late : error;
        status = status == STATUS_OK ? ended : status;
    }
    if (status == STATUS_OK) {
        return;
    }
    if (slot->recording != NULL) {
        device->ops->record_close(device, slot->recording);
        slot->recording = NULL;
    }
    refuse(queue, &error);
}

static enum status do_work(struct queue *queue, struct slot *slot, const void *const *parts,
                           struct error *error)
{
    struct device *device = queue->device;
    if (!queue->eager && !device->timed && slot->warm && slot->recording == NULL) {
        record(queue, slot, parts);
    }
    if (slot->recording != NULL && !device->timed) {
        return failed(queue, device->ops->record_run(device, slot->recording), error);
    }
    slot->warm = true;
    return queue->config.work(queue->config.context, parts, slot->place, error);
}

static enum status send_parts(struct queue *queue, struct slot *slot, const void *const *parts)
{
    struct device *device = queue->device;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < QUEUE_PARTS && status == STATUS_OK; i++) {
        size_t bytes = queue->config.part_bytes[i];
        if (bytes == 0) {
            break;
        }
        status = device->ops->upload_send(device, slot->room, queue->offsets[i], parts[i], bytes);
    }
    return status;
}

// The batch in the slot's room, and the settings, before the work; a mark behind it.
static enum status work_ahead(struct queue *queue, struct slot *slot, const void *const *parts,
                              struct error *error)
{
    struct device *device = queue->device;
    const struct device_ops *ops = device->ops;
    const void *room = NULL, *there[QUEUE_PARTS];
    enum status status = send_parts(queue, slot, parts);
    if (status == STATUS_OK) {
        status = ops->upload_take(device, slot->room, &room);
    }
    if (status == STATUS_OK) {
        status = ops->copy_in_later(device, queue->config.settings, slot->place,
                                    queue->config.setting_bytes);
    }
    if (status != STATUS_OK) {
        return failed(queue, status, error);
    }
    for (size_t i = 0; i < QUEUE_PARTS; i++) {
        there[i] = (const uint8_t *)room + queue->offsets[i];
    }
    status = do_work(queue, slot, there, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = ops->mark_set(device, slot->mark);
    if (status == STATUS_OK) {
        status = ops->upload_done(device, slot->room);
    }
    if (status == STATUS_OK) {
        status = ops->upload_wait(device, slot->room);
    }
    return failed(queue, status, error);
}

static enum status work_at_once(struct queue *queue, struct slot *slot, const void *const *parts,
                                struct error *error)
{
    struct device *device = queue->device;
    enum status status = device->ops->copy_in(device, queue->config.settings, slot->place,
                                              queue->config.setting_bytes);
    return status == STATUS_OK
               ? queue->config.work(queue->config.context, parts, slot->place, error)
               : failed(queue, status, error);
}

enum status queue_place(struct queue *queue, void **place, struct error *error)
{
    *place = NULL;
    if (queue->queued - queue->collected == queue->slot_count) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "%u steps wait to be collected, more device '%s' does not take",
                         queue->slot_count, queue->device->ops->name);
    }
    *place = queue->slots[queue->queued % queue->slot_count].place;
    return STATUS_OK;
}

enum status queue_step(struct queue *queue, const void *const *parts, struct error *error)
{
    struct slot *slot = &queue->slots[queue->queued % queue->slot_count];
    enum status status = works_ahead(queue) ? work_ahead(queue, slot, parts, error)
                                            : work_at_once(queue, slot, parts, error);
    queue->queued += status == STATUS_OK;
    return status;
}

enum status queue_fetch(struct queue *queue, void *to, const void *from, size_t bytes)
{
    struct device *device = queue->device;
    return works_ahead(queue) ? device->ops->copy_out_later(device, to, from, bytes)
                              : device->ops->copy_out(device, to, from, bytes);
}

enum status queue_collect(struct queue *queue, void **place, struct error *error)
{
    *place = NULL;
    if (queue->collected == queue->queued) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "no step waits to be collected");
    }
    const struct slot *slot = &queue->slots[queue->collected % queue->slot_count];
    if (works_ahead(queue)) {
        enum status status = queue->device->ops->mark_wait(queue->device, slot->mark);
        if (status != STATUS_OK) {
            return failed(queue, status, error);
        }
    }
    *place = slot->place;
    queue->collected++;
    return STATUS_OK;
}
