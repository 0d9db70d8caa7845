// Batch normalisation over peers: two devices in two threads, each with half of every view, do what
// one device does with all of it.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/device_case.h"
#include "tests/support/device_rows.h"
#include "tests/support/golden.h"

#define PEERS    2
#define MOST     4096
#define ROUNDING 1e-6

// clang-format off
static const struct device_case rows[] = {
    {"norm, 16", OP_BATCH_NORM, TENSOR_IMAGE, 4, 5, 3, 16, 16, 1, 0, 0, {0}, 0, 0, 0, 0, 0},
    {"norm relu, 64, 2 groups", OP_BATCH_NORM, TENSOR_IMAGE, 8, 4, 4, 64, 64, 2, 0, 0, {0}, 1, 0, 0, 0, 0},
    {"norm relu, 3, 2 groups", OP_BATCH_NORM, TENSOR_IMAGE, 8, 9, 2, 3, 3, 2, 0, 0, {0}, 1, 0, 0, 0, 0},
    {"norm join relu, 17, 2 groups", OP_BATCH_NORM, TENSOR_IMAGE, 12, 3, 7, 17, 17, 2, 0, 0, {0}, 1, 1, 0, 0, 0},
    {"norm join, 130", OP_BATCH_NORM, TENSOR_IMAGE, 4, 2, 2, 130, 130, 1, 0, 0, {0}, 0, 1, 0, 0, 0},
};
// clang-format on

// --- the sum over the threads

struct meeting {
    pthread_barrier_t barrier;
    double values[PEERS][MOST];
    size_t counts[PEERS];
};

struct peer {
    const struct device_ops *ops;
    struct meeting *meeting;
    size_t index;
    struct host host;
};

static enum status sum_of_all(void *context, double *values, size_t count)
{
    struct peer *peer = context;
    struct meeting *meeting = peer->meeting;
    memcpy(meeting->values[peer->index], values, count * sizeof *values);
    meeting->counts[peer->index] = count;
    pthread_barrier_wait(&meeting->barrier);
    for (size_t i = 0; i < count; i++) {
        values[i] = meeting->values[0][i] + meeting->values[1][i];
    }
    bool alike = meeting->counts[0] == meeting->counts[1];
    pthread_barrier_wait(&meeting->barrier);
    return alike ? STATUS_OK : STATUS_INVALID;
}

static void *run_peer(void *argument)
{
    struct peer *peer = argument;
    struct device_peers peers = {.count = PEERS, .context = peer, .sum = sum_of_all};
    struct device *device = rig_open_device(peer->ops, 2);
    device->peers = &peers;
    host_run(device, &peer->host);
    device_close(&device);
    return NULL;
}

// --- halves and the whole

// Copies a peer's half of every view to (`out`) or from the whole batch.
static void copy_half(const struct host *half, size_t index, float *part, float *whole, bool out)
{
    size_t groups = half->desc.groups, count = half->in / groups;
    for (size_t group = 0; group < groups; group++) {
        float *own = part + group * count, *there = whole + (PEERS * group + index) * count;
        memcpy(out ? there : own, out ? own : there, count * sizeof *own);
    }
}

static struct host half_of(const struct device_case *row, const struct host *whole, size_t index)
{
    struct device_case smaller = *row;
    smaller.n /= PEERS;
    struct host half = host_make(&smaller);
    copy_half(&half, index, half.x, whole->x, false);
    copy_half(&half, index, half.x2, whole->x2, false);
    copy_half(&half, index, half.dy, whole->dy, false);
    memcpy(half.weights, whole->weights, whole->params * sizeof(float));
    return half;
}

static int mistakes;

static void near(const struct device_case *row, const char *device, const char *what,
                 const float *got, const float *wanted, size_t count)
{
    double distance = relative_l2(got, wanted, count);
    if (!(distance <= ROUNDING)) {
        print_error("%s, %s: %s is off by %.2e\n", device, row->name, what, distance);
        mistakes++;
    }
}

// Puts the peers' results together in `all`, which is a host of the whole batch.
static void gather(struct host *all, const struct peer *peers)
{
    for (size_t i = 0; i < PEERS; i++) {
        const struct host *half = &peers[i].host;
        copy_half(half, i, half->y, all->y, true);
        copy_half(half, i, half->dx, all->dx, true);
        if (half->desc.join) {
            copy_half(half, i, half->dx2, all->dx2, true);
        }
        for (size_t k = 0; k < all->params; k++) {
            all->gradients[k] = (i == 0 ? 0 : all->gradients[k]) + half->gradients[k];
        }
    }
    memcpy(all->state, peers[1].host.state, all->states * sizeof *all->state);
}

static void check_row(const struct device_ops *ops, const struct device_case *row)
{
    static struct meeting meeting;
    struct host whole = host_make(row), all = host_make(row);
    struct peer peers[PEERS];
    pthread_t threads[PEERS];
    assert_int_equal(pthread_barrier_init(&meeting.barrier, NULL, PEERS), 0);
    for (size_t i = 0; i < PEERS; i++) {
        peers[i] = (struct peer){ops, &meeting, i, half_of(row, &whole, i)};
        assert_int_equal(pthread_create(&threads[i], NULL, run_peer, &peers[i]), 0);
    }
    for (size_t i = 0; i < PEERS; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_barrier_destroy(&meeting.barrier);
    struct device *device = rig_open_device(ops, 2);
    host_run(device, &whole);
    device_close(&device);
    gather(&all, peers);
    near(row, ops->name, "y", all.y, whole.y, all.out);
    near(row, ops->name, "dx", all.dx, whole.dx, all.in);
    near(row, ops->name, "dparams", all.gradients, whole.gradients, all.params);
    near(row, ops->name, "state", all.state, whole.state, all.states);
    if (all.desc.join) {
        near(row, ops->name, "dx2", all.dx2, whole.dx2, all.in);
    }
    assert_memory_equal(peers[0].host.state, peers[1].host.state, all.states * sizeof(float));
    host_free(&peers[0].host);
    host_free(&peers[1].host);
    host_free(&whole);
    host_free(&all);
}

static void test_two_halves_are_the_whole(void **state)
{
    (void)state;
    mistakes = 0;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            check_row(*ops, &rows[i]);
        }
    }
    assert_int_equal(mistakes, 0);
}

// --- a sum that fails

static enum status no_sum(void *context, double *values, size_t count)
{
    (void)context;
    (void)values;
    (void)count;
    return STATUS_DEVICE;
}

static void test_failures_come_back(void **state)
{
    (void)state;
    static const struct device_peers peers = {.count = PEERS, .sum = no_sum};
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device = rig_open_device(*ops, 2);
        struct host host = host_make(&rows[1]);
        struct rig rig = rig_make(device, &host);
        rig_forward(&rig, OP_TRAIN);
        device->peers = &peers;
        assert_int_equal((*ops)->op_backward(device, rig.op, &rig.buffers), STATUS_DEVICE);
        assert_int_equal((*ops)->op_forward(device, rig.op, &rig.buffers, OP_TRAIN), STATUS_DEVICE);
        rig_forward(&rig, OP_EVAL); // needs nobody
        rig_free(&rig);
        host_free(&host);
        device_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_halves_are_the_whole),
        cmocka_unit_test(test_failures_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
