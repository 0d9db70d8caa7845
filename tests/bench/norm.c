// Time of batch normalisation, and of the sums fused into it, against a copy of the same bytes.
//
//     build/tests/bench/norm [THREADS [ROUNDS]]
//
// For the layers of two networks, in each precision of the cpu device: one forward and one backward
// pass over all normalisations, with the residual sums joined to them and as ops of their own, and
// a copy that reads and writes as many bytes as the joined ones have to. Printed are milliseconds:
// sums over the layers of each one's shortest time in ROUNDS (9).
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/device/device.h"

// Layers of one shape: normalisations with ReLU, with a residual sum and ReLU, and with neither.
struct stage {
    uint32_t side, channels;
    unsigned relu, join, plain;
};

struct net {
    const char *name;
    uint32_t images;
    struct stage stages[12];
};

static const struct net nets[] = {
    {"ResNet-18, 32 px, 64 pairs",
     128,
     {{32, 64, 3, 2, 1}, {16, 128, 2, 2, 1}, {8, 256, 2, 2, 1}, {4, 512, 2, 2, 1}}},
    {"ResNet-50, 224 px, 8 pairs",
     16,
     {{112, 64, 1, 0, 0},
      {56, 64, 6, 0, 0},
      {56, 256, 0, 3, 1},
      {56, 128, 1, 0, 0},
      {28, 128, 7, 0, 0},
      {28, 512, 0, 4, 1},
      {28, 256, 1, 0, 0},
      {14, 256, 11, 0, 0},
      {14, 1024, 0, 6, 1},
      {14, 512, 1, 0, 0},
      {7, 512, 5, 0, 0},
      {7, 2048, 0, 3, 1}}},
};

struct times {
    double forward, backward;
};

// The largest layer's tensors; smaller ones use their beginnings.
enum { X, X2, Y, DY, DX, DX2, TENSORS };

static struct device *device;
static void *tensors[TENSORS], *scratch, *saved;
static float *params, *grads, *state;
static size_t largest;
static int rounds;

static void check(enum status status, const struct error *error)
{
    if (status != STATUS_OK) {
        fprintf(stderr, "norm: %s\n", error ? error->reason : status_name(status));
        exit(1);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e3 * (double)time.tv_sec + 1e-6 * (double)time.tv_nsec;
}

static void *memory(size_t bytes)
{
    void *out;
    struct error error;
    check(device->ops->allocate(device, &out, bytes, &error), &error);
    return out;
}

static void keep_shortest(struct times *best, struct times found)
{
    best->forward = found.forward < best->forward ? found.forward : best->forward;
    best->backward = found.backward < best->backward ? found.backward : best->backward;
}

static struct op_desc describe(const struct net *net, const struct stage *stage)
{
    struct tensor_shape shape = {TENSOR_IMAGE, net->images, stage->side, stage->side,
                                 stage->channels};
    return (struct op_desc){.kind = OP_BATCH_NORM,
                            .in = shape,
                            .out = shape,
                            .groups = 2,
                            .need_backward = true,
                            .need_input_gradient = true};
}

static struct op *create(const struct op_desc *desc)
{
    struct op *op;
    struct error error;
    check(device->ops->op_create(device, desc, &op, &error), &error);
    return op;
}

// Adds the shortest times of one op, `count` times over.
static void run(const struct op_desc *desc, const struct op_buffers *buffers, unsigned count,
                struct times *times)
{
    struct times best = {1e9, 1e9};
    struct op *op = create(desc);
    for (int round = 0; round < rounds; round++) {
        double start = now();
        check(device->ops->op_forward(device, op, buffers, OP_TRAIN), NULL);
        double middle = now();
        check(device->ops->op_backward(device, op, buffers), NULL);
        keep_shortest(&best, (struct times){middle - start, now() - middle});
    }
    device->ops->op_release(device, op);
    times->forward += count * best.forward;
    times->backward += count * best.backward;
}

static struct op_buffers buffers_of(bool relu, bool two)
{
    return (struct op_buffers){.x = tensors[X],
                               .x2 = two ? tensors[X2] : NULL,
                               .y = tensors[Y],
                               .params = params,
                               .param_grads = grads,
                               .state = state,
                               .saved = saved,
                               .scratch = scratch,
                               .dy = tensors[DY],
                               .dx = relu ? tensors[DY] : tensors[DX],
                               .dx2 = two ? tensors[DX2] : NULL};
}

static void run_stage(const struct net *net, const struct stage *stage, bool joined,
                      struct times *times)
{
    struct op_desc normal = describe(net, stage), sum = normal, plain = normal;
    normal.relu = sum.relu = true;
    sum.kind = joined ? OP_BATCH_NORM : OP_ADD;
    sum.join = joined;
    struct op_buffers one = buffers_of(true, false), two = buffers_of(true, true);
    struct op_buffers middle = buffers_of(false, false);
    run(&normal, &one, stage->relu, times);
    run(&sum, &two, stage->join, times);
    run(&plain, &middle, stage->plain + (joined ? 0 : stage->join), times);
}

// Reads and writes as many bytes, half of them each way.
static double copy_bytes(size_t bytes)
{
    double best = 1e9;
    for (int round = 0; round < rounds; round++) {
        double start = now();
#pragma omp parallel for schedule(static)
        for (size_t at = 0; at < bytes / 2; at += 65536) {
            memcpy((char *)tensors[X2] + at, (char *)tensors[X] + at,
                   bytes / 2 - at < 65536 ? bytes / 2 - at : 65536);
        }
        double time = now() - start;
        best = time < best ? time : best;
    }
    return best;
}

// Forward reads x and writes y, backward reads x and dy and writes dx; a sum adds x2, and y and
// dx2. Tensors lie one behind the other: two of them are one of twice the size.
static void copy_stage(const struct net *net, const struct stage *stage, struct times *times)
{
    size_t bytes = device->ops->tensor_bytes(device, describe(net, stage).in);
    unsigned others = stage->relu + stage->plain;
    double of_two = copy_bytes(2 * bytes);
    times->forward += of_two * (others + 1.5 * stage->join);
    times->backward += of_two * (1.5 * others + 2.5 * stage->join);
}

static void open_memory(const struct net *net)
{
    largest = 0;
    size_t widest = 0, most = 0;
    for (const struct stage *stage = net->stages; stage->side > 0; stage++) {
        struct op_desc desc = describe(net, stage);
        size_t bytes = device->ops->tensor_bytes(device, desc.in);
        struct op *op = create(&desc);
        size_t extra = device->ops->op_scratch_bytes(op);
        device->ops->op_release(device, op);
        largest = bytes > largest ? bytes : largest;
        most = extra > most ? extra : most;
        widest = stage->channels > widest ? stage->channels : widest;
    }
    for (size_t i = 0; i < TENSORS; i++) {
        tensors[i] = memory(largest);
        memset(tensors[i], 0x3d, largest);
    }
    scratch = memory(most);
    saved = memory(64 * widest);
    params = memory(2 * widest * sizeof *params);
    grads = memory(2 * widest * sizeof *grads);
    state = memory(BATCH_NORM_STATE(widest) * sizeof *state);
    for (size_t i = 0; i < 2 * widest; i++) {
        params[i] = i < widest ? 1.0f : 0.125f;
    }
}

static void close_memory(void)
{
    void *all[] = {scratch, saved, params, grads, state};
    for (size_t i = 0; i < TENSORS; i++) {
        device->ops->release(device, tensors[i]);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        device->ops->release(device, all[i]);
    }
}

static void time_net(const struct net *net, const char *precision)
{
    static const char *const roads[] = {"joined", "apart", "copy"};
    struct times found[3] = {{0, 0}, {0, 0}, {0, 0}};
    open_memory(net);
    for (const struct stage *stage = net->stages; stage->side > 0; stage++) {
        run_stage(net, stage, true, &found[0]);
        run_stage(net, stage, false, &found[1]);
        copy_stage(net, stage, &found[2]);
    }
    for (int i = 0; i < 3; i++) {
        printf("%s, %s, %-6s  forward %6.2f  backward %6.2f  both %6.2f\n", net->name, precision,
               roads[i], found[i].forward, found[i].backward, found[i].forward + found[i].backward);
    }
    close_memory();
}

int main(int count, char **arguments)
{
    int threads = count > 1 ? atoi(arguments[1]) : 0;
    rounds = count > 2 ? atoi(arguments[2]) : 9;
    static const enum device_precision precisions[] = {DEVICE_F32, DEVICE_BF16};
    for (int i = 0; i < 2; i++) {
        struct error error;
        enum status status = device_open(&device, "cpu", threads, precisions[i], &error);
        if (status != STATUS_OK) {
            fprintf(stderr, "norm: %s\n", error.reason);
            continue;
        }
        omp_set_num_threads(threads > 0 ? threads : omp_get_num_procs());
        for (size_t k = 0; k < sizeof nets / sizeof *nets; k++) {
            time_net(&nets[k], i == 0 ? "f32" : "bf16");
        }
        device_close(&device);
    }
    return 0;
}
