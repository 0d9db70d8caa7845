// The emulated CUDA device: threads, barriers, shuffles, shared memory, guards, streams, captures.
#include "tests/cuda/probes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define assert_cuda(call) assert_string_equal(cudaGetErrorName(call), "cudaSuccess")

static void *device_memory(size_t bytes)
{
    void *memory;
    assert_cuda(cudaMalloc(&memory, bytes));
    return memory;
}

static cudaStream_t new_stream(void)
{
    cudaStream_t stream;
    assert_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

static void fetch(void *host, const void *memory, size_t bytes)
{
    assert_cuda(cudaDeviceSynchronize());
    assert_cuda(cudaMemcpy(host, memory, bytes, cudaMemcpyDeviceToHost));
}

// What `action` says before it ends the process, in `text`; empty when it does not end it.
static void dying_words(void (*action)(void), char *text, size_t capacity)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        action();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(ends[0], text + used, capacity - 1 - used)) > 0;) {
        used += (size_t)got;
    }
    text[used] = 0;
    close(ends[0]);
    int state;
    waitpid(child, &state, 0);
    assert_int_equal(WIFEXITED(state) && WEXITSTATUS(state) == 0, used == 0);
}

static void assert_dies(void (*action)(void), const char *words)
{
    char text[8192];
    dying_words(action, text, sizeof text);
    if (strstr(text, words) == NULL) {
        fail_msg("'%s' instead of '%s'", text, words);
    }
}

// --- threads

static void test_every_thread_runs_once(void **state)
{
    (void)state;
    enum { COUNT = 3 * 4 * 2 * 5 * 6 * 7 };
    const unsigned grid[3] = {3, 4, 2}, block[3] = {5, 6, 7};
    uint32_t *numbers = device_memory(COUNT * sizeof *numbers), host[COUNT];
    assert_cuda(probe_number(numbers, grid, block, NULL));
    fetch(host, numbers, sizeof host);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(host[i], i);
    }
    assert_cuda(cudaFree(numbers));
}

static void test_sizes_that_no_gpu_takes(void **state)
{
    (void)state;
    uint32_t *numbers = device_memory(64);
    const unsigned one[3] = {1, 1, 1}, none[3] = {0, 1, 1}, many[3] = {1025, 1, 1},
                   tall[3] = {1, 65536, 1};
    assert_int_equal(probe_number(numbers, one, many, NULL), cudaErrorInvalidConfiguration);
    assert_int_equal(probe_number(numbers, none, one, NULL), cudaErrorInvalidConfiguration);
    assert_int_equal(probe_number(numbers, tall, one, NULL), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_cuda(cudaFree(numbers));
}

static void test_barriers_wait_for_all(void **state)
{
    (void)state;
    enum { BLOCKS = 3 };
    static float in[BLOCKS * 1024], out[BLOCKS * 1024];
    float *from = device_memory(sizeof in), *to = device_memory(sizeof out);
    for (unsigned threads = 32; threads <= 1024; threads *= 2) {
        for (unsigned i = 0; i < BLOCKS * threads; i++) {
            unsigned block = i / threads;
            in[i] = (float)(block + 1);
        }
        assert_cuda(cudaMemcpy(from, in, sizeof in, cudaMemcpyHostToDevice));
        assert_cuda(probe_block_sum(from, to, BLOCKS, threads, NULL));
        fetch(out, to, sizeof out);
        for (unsigned i = 0; i < BLOCKS * threads; i++) {
            unsigned block = i / threads;
            assert_true(out[i] == (float)((block + 1) * threads));
        }
    }
    assert_cuda(cudaFree(from));
    assert_cuda(cudaFree(to));
}

static void test_lanes_exchange(void **state)
{
    (void)state;
    enum { THREADS = 128 };
    double *values = device_memory(THREADS * 4 * sizeof *values), out[THREADS][4];
    assert_cuda(probe_shuffles(values, THREADS, NULL));
    fetch(out, values, sizeof out);
    for (unsigned t = 0; t < THREADS; t++) {
        unsigned lane = t % 32;
        assert_true(out[t][0] == (double)(t ^ 5));
        assert_true(out[t][1] == (double)(lane + 3 < 32 ? t + 3 : t));
        assert_true(out[t][2] == (double)(t - lane + 7));
        assert_true(out[t][3] == (double)((uint64_t)(t ^ 16) << 40));
    }
    assert_cuda(cudaFree(values));
}

static void test_returned_threads_do_not_hold_a_barrier(void **state)
{
    (void)state;
    enum { THREADS = 200, STAY = 77 };
    float *values = device_memory(THREADS * sizeof *values), out[THREADS];
    assert_cuda(probe_early_return(values, THREADS, STAY, NULL));
    fetch(out, values, sizeof out);
    for (unsigned t = 0; t < THREADS; t++) {
        assert_true(t < STAY ? out[t] == (float)(STAY - 1 - t) : isnan(out[t]));
    }
    assert_cuda(cudaFree(values));
}

static void test_a_missing_barrier_shows(void **state)
{
    (void)state;
    enum { THREADS = 64 };
    float *values = device_memory(THREADS * sizeof *values), out[THREADS];
    for (int barrier = 1; barrier >= 0; barrier--) {
        unsigned strange = 0;
        assert_cuda(probe_neighbour(values, THREADS, barrier, NULL));
        fetch(out, values, sizeof out);
        for (unsigned t = 0; t < THREADS; t++) {
            strange += isnan(out[t]) != 0;
        }
        assert_true(barrier ? strange == 0 : strange > 0);
    }
    assert_cuda(cudaFree(values));
}

static void meet_at_two_places(void)
{
    probe_two_places(64, NULL);
    cudaDeviceSynchronize();
}
static void lose_a_lane(void)
{
    probe_lost_lane(device_memory(128), NULL);
    cudaDeviceSynchronize();
}
static void wait_for_each_other(void)
{
    probe_deadlock(device_memory(128), NULL);
    cudaDeviceSynchronize();
}

static void test_waiting_for_ever_is_reported(void **state)
{
    (void)state;
    assert_dies(meet_at_two_places, "kernel two_places: threads meet at different places");
    assert_dies(lose_a_lane, "kernel lost_lane waits for ever");
    assert_dies(wait_for_each_other, "kernel deadlock waits for ever");
}

// --- memory

static void write_beyond(void)
{
    probe_write(device_memory(10 * sizeof(float)), 10, 1.0f, NULL);
    cudaDeviceSynchronize();
}
static void write_before(void)
{
    probe_write(device_memory(10 * sizeof(float)), -1, 1.0f, NULL);
    cudaDeviceSynchronize();
}

static void test_memory_starts_as_nan(void **state)
{
    (void)state;
    float *values = device_memory(100 * sizeof *values), out[100];
    fetch(out, values, sizeof out);
    for (unsigned i = 0; i < 100; i++) {
        assert_true(isnan(out[i]));
    }
    assert_cuda(cudaFree(values));
}

static void test_writes_beside_memory_are_reported(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    const char *beyond = "write_at", *before = "write_at";
#else
    const char *beyond = "write_at wrote at byte 40 of an allocation of 40 bytes";
    const char *before = "write_at wrote at byte -4 of an allocation of 40 bytes";
#endif
    assert_dies(write_beyond, beyond);
    assert_dies(write_before, before);
}

static void test_copies_check_both_ends(void **state)
{
    (void)state;
    float host[16] = {0}, *values = device_memory(sizeof host);
    assert_int_equal(cudaMemcpy(host, values, sizeof host, cudaMemcpyHostToDevice),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(values + 1, host, sizeof host, cudaMemcpyHostToDevice),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemset(values + 8, 0, 9 * sizeof *host), cudaErrorInvalidValue);
    assert_int_equal(cudaFreeHost(values), cudaErrorInvalidValue);
    assert_cuda(cudaMemset(values, 0, sizeof host));
    assert_cuda(cudaFree(values));
    void *much;
    assert_int_equal(cudaMalloc(&much, (size_t)1 << 50), cudaErrorMemoryAllocation);
}

// --- streams and captures

static void set_values(float *values, unsigned count, float value, cudaStream_t stream)
{
    for (unsigned i = 0; i < count; i++) {
        assert_cuda(probe_write(values, (long)i, value, stream));
    }
}

static void test_a_capture_runs_when_launched(void **state)
{
    (void)state;
    cudaStream_t stream = new_stream();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float *values = device_memory(4 * sizeof *values), out[4];
    set_values(values, 4, 1.0f, stream);
    assert_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    assert_cuda(probe_twice(values, 4, stream));
    assert_cuda(probe_twice(values, 4, stream));
    assert_cuda(cudaStreamEndCapture(stream, &graph));
    assert_cuda(cudaGraphInstantiate(&exec, graph, 0));
    assert_cuda(cudaGraphDestroy(graph));
    fetch(out, values, sizeof out);
    assert_true(out[3] == 1.0f);
    assert_cuda(cudaGraphLaunch(exec, stream));
    assert_cuda(cudaGraphLaunch(exec, stream));
    fetch(out, values, sizeof out);
    assert_true(out[0] == 16.0f && out[3] == 16.0f);
    assert_cuda(cudaGraphExecDestroy(exec));
    assert_cuda(cudaStreamDestroy(stream));
    assert_cuda(cudaFree(values));
}

static void test_a_capture_refuses_what_waits(void **state)
{
    (void)state;
    cudaStream_t stream = new_stream();
    cudaGraph_t graph;
    float *values = device_memory(4 * sizeof *values), pageable[4];
    for (int what = 0; what < 5; what++) {
        void *more;
        assert_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        cudaError_t refused =
            what == 0   ? cudaStreamSynchronize(stream)
            : what == 1 ? cudaMalloc(&more, 4)
            : what == 2 ? cudaMemcpy(pageable, values, 16, cudaMemcpyDeviceToHost)
            : what == 3 ? cudaMemcpyAsync(pageable, values, 16, cudaMemcpyDeviceToHost, stream)
                        : cudaDeviceSynchronize();
        assert_int_equal(refused, cudaErrorStreamCaptureUnsupported);
        assert_int_equal(probe_twice(values, 4, stream), cudaErrorStreamCaptureInvalidated);
        assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
        assert_null(graph);
    }
    cudaGetLastError();
    assert_cuda(probe_twice(values, 4, stream));
    assert_cuda(cudaStreamDestroy(stream));
    assert_cuda(cudaFree(values));
}

static void test_events_lead_other_streams_into_a_capture(void **state)
{
    (void)state;
    cudaStream_t first = new_stream(), second = new_stream();
    cudaEvent_t fork_event, join_event;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float *a = device_memory(sizeof *a), *b = device_memory(sizeof *b), out;
    assert_cuda(cudaEventCreateWithFlags(&fork_event, cudaEventDisableTiming));
    assert_cuda(cudaEventCreateWithFlags(&join_event, cudaEventDisableTiming));
    for (int join = 0; join <= 1; join++) {
        assert_cuda(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
        assert_cuda(probe_write(a, 0, 3.0f, first));
        assert_cuda(cudaEventRecord(fork_event, first));
        assert_cuda(cudaStreamWaitEvent(second, fork_event, 0));
        assert_cuda(probe_write(b, 0, 4.0f, second));
        assert_cuda(probe_plus(b, a, 1, second));
        assert_cuda(cudaEventRecord(join_event, second));
        if (join) {
            assert_cuda(cudaStreamWaitEvent(first, join_event, 0));
        }
        assert_cuda(probe_twice(a, 1, first));
        cudaError_t ended = cudaStreamEndCapture(first, &graph);
        assert_int_equal(ended, join ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    }
    assert_cuda(cudaGraphInstantiate(&exec, graph, 0));
    assert_cuda(cudaGraphLaunch(exec, first));
    fetch(&out, b, sizeof out);
    assert_true(out == 7.0f);
    assert_cuda(cudaGraphDestroy(graph));
    assert_cuda(cudaGraphExecDestroy(exec));
    assert_cuda(cudaEventDestroy(fork_event));
    assert_cuda(cudaEventDestroy(join_event));
    assert_cuda(cudaStreamDestroy(first));
    assert_cuda(cudaStreamDestroy(second));
    assert_cuda(cudaFree(a));
    assert_cuda(cudaFree(b));
}

// b += a in one stream, a = value in another before it; whether it says so or not.
static float sum_of_two_streams(bool waits)
{
    cudaStream_t first = new_stream(), second = new_stream();
    cudaEvent_t written;
    float *a = device_memory(sizeof *a), *b = device_memory(sizeof *b), out;
    assert_cuda(cudaMemset(a, 0, sizeof *a));
    assert_cuda(cudaMemset(b, 0, sizeof *b));
    assert_cuda(cudaEventCreate(&written));
    assert_cuda(probe_write(a, 0, 5.0f, first));
    assert_cuda(cudaEventRecord(written, first));
    if (waits) {
        assert_cuda(cudaStreamWaitEvent(second, written, 0));
    }
    assert_cuda(probe_plus(b, a, 1, second));
    fetch(&out, b, sizeof out);
    assert_cuda(cudaEventDestroy(written));
    assert_cuda(cudaStreamDestroy(first));
    assert_cuda(cudaStreamDestroy(second));
    assert_cuda(cudaFree(a));
    assert_cuda(cudaFree(b));
    return out;
}

static void find_missing_wait(void)
{
    setenv("BYOL_EMULATE_SEED", "7", 1);
    for (int i = 0; i < 50; i++) {
        if (sum_of_two_streams(true) != 5.0f) {
            fprintf(stderr, "a wait was not heeded\n");
            _exit(1);
        }
    }
    for (int i = 0; i < 50; i++) {
        if (sum_of_two_streams(false) != 5.0f) {
            fprintf(stderr, "a missing wait showed\n");
            _exit(1);
        }
    }
}

// In a process of its own, before anything there has read the seed.
static void test_a_seed_shows_missing_waits(void **state)
{
    (void)state;
    assert_dies(find_missing_wait, "a missing wait showed");
}

int main(void)
{
    const struct CMUnitTest seeded[] = {
        cmocka_unit_test(test_a_seed_shows_missing_waits),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_thread_runs_once),
        cmocka_unit_test(test_sizes_that_no_gpu_takes),
        cmocka_unit_test(test_barriers_wait_for_all),
        cmocka_unit_test(test_lanes_exchange),
        cmocka_unit_test(test_returned_threads_do_not_hold_a_barrier),
        cmocka_unit_test(test_a_missing_barrier_shows),
        cmocka_unit_test(test_waiting_for_ever_is_reported),
        cmocka_unit_test(test_memory_starts_as_nan),
        cmocka_unit_test(test_writes_beside_memory_are_reported),
        cmocka_unit_test(test_copies_check_both_ends),
        cmocka_unit_test(test_a_capture_runs_when_launched),
        cmocka_unit_test(test_a_capture_refuses_what_waits),
        cmocka_unit_test(test_events_lead_other_streams_into_a_capture),
    };
    int failed = cmocka_run_group_tests(seeded, NULL, NULL);
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
