// What lets the host go on: marks and uploads are events, recordings are CUDA graphs.
#include "trainer/cuda/cuda.h"

#include <stdlib.h>

struct device_mark {
    cudaEvent_t event;
};

struct device_upload {
    char *memory;
    cudaEvent_t sent; // on the stream of uploads
    cudaEvent_t done; // on the stream of the work, which reads
};

struct device_recording {
    cudaGraphExec_t graph;
};

static enum status enter_for(struct cuda_device *cuda, struct error *error)
{
    return cuda_explain(cuda, cuda_enter(cuda), error);
}

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
}

// Waiting sleeps: the processor's cores have batches to make.
static enum status open_event(struct cuda_device *cuda, cudaEvent_t *event, struct error *error)
{
    enum status status = enter_for(cuda, error);
    if (status != STATUS_OK) {
        return status;
    }
    unsigned flags = cudaEventDisableTiming | cudaEventBlockingSync;
    status = cuda_check(cuda, cudaEventCreateWithFlags(event, flags), "making an event");
    return cuda_explain(cuda, status, error);
}

static void close_event(cudaEvent_t event)
{
    if (event != NULL) {
        cudaEventDestroy(event);
    }
}

static enum status set_event(struct device *device, cudaEvent_t event, cudaStream_t stream)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    return status == STATUS_OK ? cuda_check(cuda, cudaEventRecord(event, stream), "a mark")
                               : status;
}

static enum status wait_for_event(struct device *device, cudaEvent_t event)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    return status == STATUS_OK ? cuda_check(cuda, cudaEventSynchronize(event), "queued work")
                               : status;
}

// --- marks

enum status cuda_mark_open(struct device *device, struct device_mark **out, struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return no_memory(error);
    }
    enum status status = open_event((struct cuda_device *)device, &(*out)->event, error);
    if (status != STATUS_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

void cuda_mark_close(struct device *device, struct device_mark *mark)
{
    if (mark != NULL) {
        cuda_enter((struct cuda_device *)device);
        close_event(mark->event);
        free(mark);
    }
}

enum status cuda_mark_set(struct device *device, struct device_mark *mark)
{
    return set_event(device, mark->event, ((struct cuda_device *)device)->stream);
}

enum status cuda_mark_wait(struct device *device, struct device_mark *mark)
{
    return wait_for_event(device, mark->event);
}

// --- uploads

enum status cuda_upload_open(struct device *device, struct device_upload **out, size_t bytes,
                             struct error *error)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    struct device_upload *upload = calloc(1, sizeof *upload);
    *out = NULL;
    if (upload == NULL) {
        return no_memory(error);
    }
    enum status status = open_event(cuda, &upload->sent, error);
    if (status == STATUS_OK) {
        status = open_event(cuda, &upload->done, error);
    }
    if (status == STATUS_OK) {
        void *memory;
        status = cuda_allocate(device, &memory, bytes, error);
        upload->memory = memory;
    }
    if (status != STATUS_OK) {
        cuda_upload_close(device, upload);
        return status;
    }
    *out = upload;
    return STATUS_OK;
}

void cuda_upload_close(struct device *device, struct device_upload *upload)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    if (upload == NULL) {
        return;
    }
    cuda_enter(cuda);
    cudaStreamSynchronize(cuda->uploads); // it may still be read from the caller's memory
    close_event(upload->sent);
    close_event(upload->done);
    cuda_release(device, upload->memory);
    free(upload);
}

enum status cuda_upload_send(struct device *device, struct device_upload *upload, size_t offset,
                             const void *host, size_t bytes)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    if (status == STATUS_OK) { // what was sent before may still be read
        status = cuda_check(cuda, cudaStreamWaitEvent(cuda->uploads, upload->done, 0), "an upload");
    }
    if (status == STATUS_OK && bytes > 0) {
        status = cuda_check(cuda,
                            cudaMemcpyAsync(upload->memory + offset, host, bytes,
                                            cudaMemcpyHostToDevice, cuda->uploads),
                            "an upload");
    }
    return status == STATUS_OK ? set_event(device, upload->sent, cuda->uploads) : status;
}

enum status cuda_upload_wait(struct device *device, struct device_upload *upload)
{
    return wait_for_event(device, upload->sent);
}

enum status cuda_upload_take(struct device *device, struct device_upload *upload,
                             const void **memory)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    *memory = upload->memory;
    return status == STATUS_OK
               ? cuda_check(cuda, cudaStreamWaitEvent(cuda->stream, upload->sent, 0),
                            "waiting for an upload")
               : status;
}

enum status cuda_upload_done(struct device *device, struct device_upload *upload)
{
    return set_event(device, upload->done, ((struct cuda_device *)device)->stream);
}

// --- recordings

static enum status refuse(struct error *error, const char *reason)
{
    return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                     "the work of device 'cuda' cannot be recorded: %s", reason);
}

enum status cuda_record_begin(struct device *device, struct error *error)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    const char *obstacle = cuda_peers_obstacle(cuda);
    if (cuda->recording) {
        return refuse(error, "a recording has begun already");
    }
    if (device->timed) {
        return refuse(error, "each op is waited for, to be timed");
    }
    if (obstacle != NULL) {
        return refuse(error, obstacle);
    }
    enum status status = enter_for(cuda, error);
    if (status != STATUS_OK) {
        return status;
    }
    status =
        cuda_check(cuda, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
                   "beginning a recording");
    cuda->recording = status == STATUS_OK;
    return cuda_explain(cuda, status, error);
}

static enum status make_recording(struct cuda_device *cuda, cudaGraph_t graph,
                                  struct device_recording **out, struct error *error)
{
    struct device_recording *recording = calloc(1, sizeof *recording);
    if (recording == NULL) {
        return no_memory(error);
    }
    enum status status = cuda_check(cuda, cudaGraphInstantiate(&recording->graph, graph, 0),
                                    "making a recording ready");
    if (status != STATUS_OK) {
        free(recording);
        return cuda_explain(cuda, status, error);
    }
    *out = recording;
    return STATUS_OK;
}

enum status cuda_record_end(struct device *device, struct device_recording **out,
                            struct error *error)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    cudaGraph_t graph = NULL;
    *out = NULL;
    if (!cuda->recording) {
        return refuse(error, "no recording has begun");
    }
    cuda->recording = false;
    enum status status = enter_for(cuda, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = cuda_check(cuda, cudaStreamEndCapture(cuda->stream, &graph), "ending a recording");
    if (status == STATUS_OK) {
        status = make_recording(cuda, graph, out, error);
    } else {
        cuda_explain(cuda, status, error);
    }
    if (graph != NULL) {
        cudaGraphDestroy(graph);
    }
    return status;
}

enum status cuda_record_run(struct device *device, struct device_recording *recording)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    enum status status = cuda_enter(cuda);
    return status == STATUS_OK
               ? cuda_check(cuda, cudaGraphLaunch(recording->graph, cuda->stream), "a recording")
               : status;
}

void cuda_record_close(struct device *device, struct device_recording *recording)
{
    struct cuda_device *cuda = (struct cuda_device *)device;
    if (recording != NULL) {
        cuda_enter(cuda);
        cudaStreamSynchronize(cuda->stream); // it may be running
        cudaGraphExecDestroy(recording->graph);
        free(recording);
    }
}
