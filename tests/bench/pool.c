// Times the maximum pool of the device `cpu` beside copying as many bytes.
//
//     build/tests/bench/pool [IMAGES [SIDE [CHANNELS [ROUNDS]]]]
//
// The pool is the one of a residual network (3x3, stride 2); the default is that of a ResNet-18 at
// 64 px. One thread. Every round takes each road once, so that a busy machine hits them alike;
// printed is the least of the rounds, in milliseconds of processor time. A copy has half of the
// bytes as its source, half as its target.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "trainer/device/device.h"

#define CHUNK 65536 // small enough for stores that go through the cache, like those of a layer

enum road { FORWARD, FORWARD_COPY, BACKWARD, BACKWARD_COPY, ROADS };
static const char *const names[ROADS] = {"forward", "its bytes", "backward", "its bytes"};

struct rig {
    struct device *device;
    struct op *op;
    struct op_desc desc;
    struct op_buffers buffers;
    size_t in, out, saved; // bytes
    char *copied;
};

static void die(const char *what)
{
    fprintf(stderr, "pool: %s\n", what);
    exit(1);
}

static void *memory_of(struct device *device, size_t bytes)
{
    void *memory;
    struct error error;
    if (device->ops->allocate(device, &memory, bytes, &error) != STATUS_OK) {
        die(error.reason);
    }
    return memory;
}

static void *random_image(struct device *device, struct tensor_shape shape)
{
    size_t count = (size_t)shape.n * shape.h * shape.w * shape.c;
    float *values = malloc(count * sizeof *values);
    void *image = memory_of(device, device->ops->tensor_bytes(device, shape));
    for (size_t i = 0; values != NULL && i < count; i++) {
        values[i] = (float)(i * 2654435761u % 65536) / 65536.0f;
    }
    if (values == NULL || device->ops->tensor_store(device, shape, image, values) != STATUS_OK) {
        die("no memory");
    }
    free(values);
    return image;
}

static void rig_open(struct rig *rig, struct device *device, const struct op_desc *desc)
{
    const struct device_ops *ops = device->ops;
    struct error error;
    *rig = (struct rig){.device = device, .desc = *desc};
    if (ops->op_create(device, desc, &rig->op, &error) != STATUS_OK) {
        die(error.reason);
    }
    rig->in = ops->tensor_bytes(device, desc->in);
    rig->out = ops->tensor_bytes(device, desc->out);
    rig->saved = ops->op_saved_bytes(rig->op);
    rig->buffers.x = random_image(device, desc->in);
    rig->buffers.dy = random_image(device, desc->out);
    rig->buffers.y = memory_of(device, rig->out);
    rig->buffers.dx = memory_of(device, rig->in);
    rig->buffers.saved = memory_of(device, rig->saved);
    rig->buffers.scratch = memory_of(device, ops->op_scratch_bytes(rig->op));
    rig->copied = memory_of(device, rig->in + rig->out + rig->saved);
}

static void rig_close(struct rig *rig)
{
    const struct op_buffers *own = &rig->buffers;
    const void *all[] = {own->x, own->dy, own->y, own->dx, own->saved, own->scratch, rig->copied};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rig->device->ops->release(rig->device, (void *)(uintptr_t)all[i]);
    }
    rig->device->ops->op_release(rig->device, rig->op);
}

// As many bytes as x, y and the saved taps, read or written.
static void copy(const struct rig *rig)
{
    size_t half = (rig->in + rig->out + rig->saved) / 2;
    for (size_t at = 0; at < half; at += CHUNK) {
        size_t len = half - at < CHUNK ? half - at : CHUNK;
        memcpy(rig->copied + half + at, rig->copied + at, len);
    }
}

static void take(const struct rig *rig, enum road road)
{
    const struct device_ops *ops = rig->device->ops;
    if (road == FORWARD) {
        ops->op_forward(rig->device, rig->op, &rig->buffers, OP_TRAIN);
    } else if (road == BACKWARD) {
        ops->op_backward(rig->device, rig->op, &rig->buffers);
    } else {
        copy(rig);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void measure(const struct op_desc *desc, enum device_precision precision, int rounds)
{
    struct device *device;
    struct error error;
    struct rig rig;
    double least[ROADS];
    const char *name = precision == DEVICE_BF16 ? "bf16" : "f32";
    if (device_open(&device, "cpu", 1, precision, &error) != STATUS_OK) {
        printf("%-5s %s\n", name, error.reason);
        return;
    }
    rig_open(&rig, device, desc);
    for (int round = 0; round < rounds; round++) {
        for (enum road road = 0; road < ROADS; road++) {
            double start = now();
            take(&rig, road);
            double seconds = now() - start;
            least[road] = round == 0 || seconds < least[road] ? seconds : least[road];
        }
    }
    for (enum road road = 0; road < ROADS; road++) {
        printf("%-5s %-10s %8.2f ms\n", name, names[road], least[road] * 1e3);
    }
    rig_close(&rig);
    device_close(&device);
}

int main(int argc, char **argv)
{
    uint32_t images = argc > 1 ? (uint32_t)atoi(argv[1]) : 256;
    uint32_t side = argc > 2 ? (uint32_t)atoi(argv[2]) : 32;
    uint32_t channels = argc > 3 ? (uint32_t)atoi(argv[3]) : 64;
    int rounds = argc > 4 ? atoi(argv[4]) : 20;
    if (images == 0 || side < 2 || side % 2 != 0 || channels == 0 || rounds < 1) {
        die("sides are even, and nothing is zero");
    }
    struct op_desc desc = {.kind = OP_MAX_POOL,
                           .in = {TENSOR_IMAGE, images, side, side, channels},
                           .out = {TENSOR_IMAGE, images, side / 2, side / 2, channels},
                           .groups = 1,
                           .kernel = 3,
                           .stride = 2,
                           .pad_bottom = 1,
                           .pad_right = 1,
                           .need_backward = true,
                           .need_input_gradient = true};
    measure(&desc, DEVICE_F32, rounds);
    measure(&desc, DEVICE_BF16, rounds);
    return 0;
}
