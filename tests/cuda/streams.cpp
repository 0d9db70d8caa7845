// Queues of closures; events are counted versions; a capture is a graph of closures.
#include "tests/cuda/streams.h"

#include "tests/cuda/memory.h"
#include "tests/cuda/threads.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string.h>
#include <thread>
#include <vector>

struct event_state {
    uint64_t recorded = 0, done = 0;
    std::chrono::steady_clock::time_point time;
};

struct task {
    std::function<void()> work;
    std::shared_ptr<event_state> event; // nullptr: work
    uint64_t version;
    bool records;
};

struct node {
    std::function<void()> work;
    std::vector<size_t> after;
};

struct capture {
    std::vector<node> nodes;
    cudaStream_t origin;
    enum cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool spoiled = false, open = true;
};

struct CUstream_st {
    std::deque<task> queue;
    bool blocking = false, busy = false;
    std::shared_ptr<capture> captured;
    std::vector<size_t> last; // nodes that the next one comes after
};

struct CUevent_st {
    std::shared_ptr<event_state> state = std::make_shared<event_state>();
    std::shared_ptr<capture> captured; // recorded last while capturing
    std::vector<size_t> nodes;
};

struct CUgraph_st {
    std::vector<node> nodes;
};
struct CUgraphExec_st {
    std::shared_ptr<const std::vector<node>> nodes;
};

static std::mutex lock;
static std::condition_variable finished;
static std::set<cudaStream_t> streams;
static std::set<std::shared_ptr<capture>> captures;
static thread_local cudaError_t last_error;

cudaError_t emulated_error(cudaError_t error)
{
    if (error != cudaSuccess) {
        last_error = error;
    }
    return error;
}

// --- doing what is queued

static bool can_run(cudaStream_t stream)
{
    if (stream->busy || stream->queue.empty()) {
        return false;
    }
    const task &head = stream->queue.front();
    return !head.event || head.records || head.event->done >= head.version;
}

static void run_head(cudaStream_t stream, std::unique_lock<std::mutex> &guard)
{
    task head = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (head.event && head.records) {
        head.event->done = std::max(head.event->done, head.version);
        head.event->time = std::chrono::steady_clock::now();
    } else if (!head.event) {
        stream->busy = true;
        guard.unlock();
        head.work();
        guard.lock();
        stream->busy = false;
    }
    finished.notify_all();
}

// One task of some stream that has one; false when nothing can go on in this thread.
static bool run_one(std::unique_lock<std::mutex> &guard)
{
    std::vector<cudaStream_t> able;
    for (cudaStream_t stream : streams) {
        if (can_run(stream)) {
            able.push_back(stream);
        }
    }
    if (able.empty()) {
        return false;
    }
    run_head(able[emulated_random(able.size())], guard);
    return true;
}

template <class Condition>
static void run_until(std::unique_lock<std::mutex> &guard, Condition reached)
{
    while (!reached()) {
        if (!run_one(guard)) {
            finished.wait(guard); // another thread is at work
        }
    }
}

static bool is_done(cudaStream_t stream)
{
    return stream->queue.empty() && !stream->busy;
}

static void finish(cudaStream_t stream, std::unique_lock<std::mutex> &guard)
{
    run_until(guard, [stream] { return is_done(stream); });
}

static void finish_blocking(std::unique_lock<std::mutex> &guard)
{
    run_until(guard, [] {
        return std::all_of(streams.begin(), streams.end(),
                           [](cudaStream_t s) { return !s->blocking || is_done(s); });
    });
}

// The default stream: after everything on the streams that heed it, and at once.
static cudaStream_t default_stream(void)
{
    static CUstream_st stream;
    stream.blocking = true;
    streams.insert(&stream);
    return &stream;
}

static void queue_task(cudaStream_t stream, task added, std::unique_lock<std::mutex> &guard)
{
    bool at_once = stream == nullptr || !emulated_shuffled_order();
    if (stream == nullptr) {
        finish_blocking(guard);
        stream = default_stream();
    }
    stream->queue.push_back(std::move(added));
    if (at_once) {
        finish(stream, guard);
    }
}

void emulated_finish(cudaStream_t stream)
{
    std::unique_lock<std::mutex> guard(lock);
    if (stream == nullptr) {
        finish_blocking(guard);
    } else {
        finish(stream, guard);
    }
}

void emulated_finish_all(void)
{
    std::unique_lock<std::mutex> guard(lock);
    run_until(guard, [] { return std::all_of(streams.begin(), streams.end(), is_done); });
}

// --- captures

bool emulated_capturing(cudaStream_t stream)
{
    std::lock_guard<std::mutex> guard(lock);
    return stream != nullptr && stream->captured;
}

bool emulated_unsafe_now(void)
{
    std::lock_guard<std::mutex> guard(lock);
    bool unsafe = false;
    for (const std::shared_ptr<capture> &capture : captures) {
        bool ours = capture->mode == cudaStreamCaptureModeGlobal ||
                    (capture->mode == cudaStreamCaptureModeThreadLocal &&
                     capture->thread == std::this_thread::get_id());
        capture->spoiled |= ours;
        unsafe |= ours;
    }
    return unsafe;
}

static cudaError_t spoil(cudaStream_t stream, cudaError_t error)
{
    stream->captured->spoiled = true;
    return emulated_error(error);
}

static cudaError_t note(cudaStream_t stream, std::function<void()> work)
{
    capture &capture = *stream->captured;
    if (capture.spoiled) {
        return emulated_error(cudaErrorStreamCaptureInvalidated);
    }
    capture.nodes.push_back({std::move(work), stream->last});
    stream->last.assign(1, capture.nodes.size() - 1);
    return cudaSuccess;
}

cudaError_t emulated_enqueue(cudaStream_t stream, std::function<void()> work)
{
    std::unique_lock<std::mutex> guard(lock);
    if (stream != nullptr && stream->captured) {
        return note(stream, std::move(work));
    }
    if (stream == nullptr && !captures.empty()) { // it would wait for the captured ones
        for (const std::shared_ptr<capture> &capture : captures) {
            if (capture->origin->blocking) {
                capture->spoiled = true;
                return emulated_error(cudaErrorStreamCaptureIsolation);
            }
        }
    }
    queue_task(stream, {std::move(work), nullptr, 0, false}, guard);
    return cudaSuccess;
}

cudaError_t emulated_launch_later(const emulated_launch &launch, cudaStream_t stream)
{
    cudaError_t error = emulated_check(launch);
    if (error != cudaSuccess) {
        return emulated_error(error);
    }
    return emulated_enqueue(stream, [launch] { emulated_run(launch); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    std::lock_guard<std::mutex> guard(lock);
    if (stream == nullptr || stream->captured) {
        return emulated_error(cudaErrorStreamCaptureUnsupported);
    }
    stream->captured = std::make_shared<capture>();
    stream->captured->origin = stream;
    stream->captured->mode = mode;
    stream->captured->thread = std::this_thread::get_id();
    stream->last.clear();
    captures.insert(stream->captured);
    return cudaSuccess;
}

// Whether the origin, where it ended, comes after all of the capture.
static bool is_joined(const capture &capture, const std::vector<size_t> &end)
{
    std::vector<bool> before(capture.nodes.size());
    for (size_t last : end) {
        before[last] = true;
    }
    for (size_t i = capture.nodes.size(); i-- > 0;) { // what a node comes after was noted earlier
        for (size_t earlier : capture.nodes[i].after) {
            before[earlier] = before[earlier] || before[i];
        }
    }
    return std::all_of(before.begin(), before.end(), [](bool joined) { return joined; });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    std::lock_guard<std::mutex> guard(lock);
    *graph = nullptr;
    if (stream == nullptr || !stream->captured || stream->captured->origin != stream) {
        return emulated_error(cudaErrorStreamCaptureUnmatched);
    }
    std::shared_ptr<capture> ended = stream->captured;
    if (ended->mode != cudaStreamCaptureModeRelaxed &&
        ended->thread != std::this_thread::get_id()) {
        return emulated_error(cudaErrorStreamCaptureWrongThread);
    }
    bool joined = is_joined(*ended, stream->last);
    for (cudaStream_t other : streams) {
        if (other->captured == ended) {
            other->captured = nullptr;
        }
    }
    ended->open = false;
    captures.erase(ended);
    if (ended->spoiled) {
        return emulated_error(cudaErrorStreamCaptureInvalidated);
    }
    if (!joined) {
        return emulated_error(cudaErrorStreamCaptureUnjoined);
    }
    *graph = new CUgraph_st{std::move(ended->nodes)};
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    std::lock_guard<std::mutex> guard(lock);
    *status = stream == nullptr || !stream->captured ? cudaStreamCaptureStatusNone
              : stream->captured->spoiled            ? cudaStreamCaptureStatusInvalidated
                                                     : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

// --- graphs

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = nullptr;
    if (graph == nullptr) {
        return emulated_error(cudaErrorInvalidValue);
    }
    *exec = new CUgraphExec_st{std::make_shared<const std::vector<node>>(graph->nodes)};
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t)
{
    return exec == nullptr ? emulated_error(cudaErrorInvalidValue) : cudaSuccess;
}

// Any order in which each node comes after those that it depends on; that of the capture first.
static void run_graph(const std::vector<node> &nodes)
{
    std::vector<std::vector<size_t>> next(nodes.size());
    std::vector<size_t> missing(nodes.size());
    std::deque<size_t> able;
    for (size_t i = 0; i < nodes.size(); i++) {
        missing[i] = nodes[i].after.size();
        for (size_t earlier : nodes[i].after) {
            next[earlier].push_back(i);
        }
        if (missing[i] == 0) {
            able.push_back(i);
        }
    }
    while (!able.empty()) {
        std::swap(able[0], able[emulated_random(able.size())]);
        size_t i = able.front();
        able.pop_front();
        nodes[i].work();
        for (size_t later : next[i]) {
            if (--missing[later] == 0) {
                able.push_back(later);
            }
        }
    }
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    if (exec == nullptr) {
        return emulated_error(cudaErrorInvalidValue);
    }
    return emulated_enqueue(stream, [nodes = exec->nodes] { run_graph(*nodes); });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

// --- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    std::lock_guard<std::mutex> guard(lock);
    *stream = new CUstream_st;
    (*stream)->blocking = (flags & cudaStreamNonBlocking) == 0;
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = *greatest = 0;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    if (stream == nullptr) {
        return emulated_error(cudaErrorInvalidResourceHandle);
    }
    std::unique_lock<std::mutex> guard(lock);
    finish(stream, guard);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (emulated_capturing(stream) || (stream == nullptr && emulated_unsafe_now())) {
        std::lock_guard<std::mutex> guard(lock);
        return stream ? spoil(stream, cudaErrorStreamCaptureUnsupported)
                      : emulated_error(cudaErrorStreamCaptureUnsupported);
    }
    emulated_finish(stream);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    if (emulated_unsafe_now()) {
        return emulated_error(cudaErrorStreamCaptureUnsupported);
    }
    emulated_finish_all();
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    std::unique_lock<std::mutex> guard(lock);
    if (stream != nullptr && stream->captured) {
        return spoil(stream, cudaErrorStreamCaptureUnsupported);
    }
    run_one(guard); // who asks again and again must see an end
    return stream == nullptr || is_done(stream) ? cudaSuccess : cudaErrorNotReady;
}

// A stream that is not captured joins the capture of the event.
static cudaError_t wait_captured(cudaStream_t stream, cudaEvent_t event)
{
    if (!event->captured->open) {
        return emulated_error(cudaErrorCapturedEvent);
    }
    if (!stream->captured) {
        stream->captured = event->captured;
        stream->last.clear();
    }
    if (stream->captured != event->captured) {
        return spoil(stream, cudaErrorStreamCaptureMerge);
    }
    for (size_t place : event->nodes) {
        if (std::find(stream->last.begin(), stream->last.end(), place) == stream->last.end()) {
            stream->last.push_back(place);
        }
    }
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    std::unique_lock<std::mutex> guard(lock);
    if (event->captured) {
        return stream == nullptr ? emulated_error(cudaErrorStreamCaptureImplicit)
                                 : wait_captured(stream, event);
    }
    if (stream != nullptr && stream->captured) { // recorded outside
        return spoil(stream, cudaErrorStreamCaptureIsolation);
    }
    uint64_t version = event->state->recorded;
    if (version > event->state->done) {
        queue_task(stream, {nullptr, event->state, version, false}, guard);
    }
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *context)
{
    return emulated_enqueue(stream, [function, context] { function(context); });
}

// --- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    std::unique_lock<std::mutex> guard(lock);
    if (stream != nullptr && stream->captured) {
        event->captured = stream->captured;
        event->nodes = stream->last;
        return cudaSuccess;
    }
    event->captured = nullptr;
    uint64_t version = ++event->state->recorded;
    queue_task(stream, {nullptr, event->state, version, true}, guard);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    std::unique_lock<std::mutex> guard(lock);
    if (event->captured) {
        event->captured->spoiled = true;
        return emulated_error(cudaErrorCapturedEvent);
    }
    event_state *state = event->state.get();
    uint64_t version = state->recorded;
    run_until(guard, [state, version] { return state->done >= version; });
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    std::unique_lock<std::mutex> guard(lock);
    if (event->captured) {
        event->captured->spoiled = true;
        return emulated_error(cudaErrorCapturedEvent);
    }
    uint64_t version = event->state->recorded;
    run_one(guard);
    return event->state->done >= version ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    std::lock_guard<std::mutex> guard(lock);
    for (cudaEvent_t event : {start, end}) {
        if (event->state->recorded == 0) {
            return emulated_error(cudaErrorInvalidResourceHandle);
        }
        if (event->state->done < event->state->recorded) {
            return cudaErrorNotReady;
        }
    }
    std::chrono::duration<float, std::milli> passed = end->state->time - start->state->time;
    *milliseconds = passed.count();
    return cudaSuccess;
}

// --- errors

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}
