// Losses: one block of threads for each row, sums in double.
#include "trainer/cuda/block_sum.h"
#include "trainer/cuda/loss_math.h"
#include "trainer/cuda/optim.h"

#define THREADS 128
#define WARPS   (THREADS / CUDA_WARP)

// --- regression

struct regression {
    const float *x, *y;
    uint32_t d;
    float scale;
    float *losses, *dx, *dy;
};

// One row of both matrices, with what all its threads know.
struct row_pair {
    const float *x, *y;
    struct loss_row x_row, y_row;
    double along_x, along_y; // sums of the difference times x^ and y^
};

static __device__ inline double difference_at(const struct row_pair *pair, uint32_t i)
{
    return regression_difference(&pair->x_row, pair->x[i], &pair->y_row, pair->y[i]);
}

static __device__ inline void measure_rows(struct row_pair *pair, uint32_t d, double (&room)[WARPS])
{
    double x_squares = 0, y_squares = 0;
    for (uint32_t i = threadIdx.x; i < d; i += THREADS) {
        x_squares += (double)pair->x[i] * (double)pair->x[i];
        y_squares += (double)pair->y[i] * (double)pair->y[i];
    }
    pair->x_row = loss_row_of(block_join<sum_of>(x_squares, room));
    pair->y_row = loss_row_of(block_join<sum_of>(y_squares, room));
}

static __device__ inline double compare_rows(struct row_pair *pair, uint32_t d,
                                             double (&room)[WARPS])
{
    double loss = 0, along_x = 0, along_y = 0;
    for (uint32_t i = threadIdx.x; i < d; i += THREADS) {
        double difference = difference_at(pair, i);
        loss += difference * difference;
        along_x += difference * ((double)pair->x[i] * pair->x_row.inverse);
        along_y += difference * ((double)pair->y[i] * pair->y_row.inverse);
    }
    pair->along_x = block_join<sum_of>(along_x, room);
    pair->along_y = block_join<sum_of>(along_y, room);
    return block_join<sum_of>(loss, room);
}

static __global__ void regress(struct regression job)
{
    __shared__ double room[WARPS];
    size_t row = blockIdx.x, first = row * job.d;
    struct row_pair pair;
    pair.x = job.x + first;
    pair.y = job.y + first;
    measure_rows(&pair, job.d, room);
    double loss = compare_rows(&pair, job.d, room), scale = (double)job.scale;
    if (threadIdx.x == 0) {
        job.losses[row] = (float)loss;
    }
    for (uint32_t i = threadIdx.x; job.dx != NULL && i < job.d; i += THREADS) {
        job.dx[first + i] = regression_gradient(&pair.x_row, pair.x[i], difference_at(&pair, i),
                                                pair.along_x, scale);
    }
    for (uint32_t i = threadIdx.x; job.dy != NULL && i < job.d; i += THREADS) {
        job.dy[first + i] = regression_gradient(&pair.y_row, pair.y[i], -difference_at(&pair, i),
                                                -pair.along_y, scale);
    }
}

cudaError_t cuda_regression_loss(const float *x, const float *y, uint32_t n, uint32_t d,
                                 float scale, float *losses, float *dx, float *dy,
                                 cudaStream_t stream)
{
    struct regression job = {x, y, d, scale, losses, dx, dy};
    return n == 0 ? cudaSuccess : CUDA_LAUNCH(regress, n, THREADS, stream, job);
}

// --- softmax

struct softmax {
    const float *logits;
    const int32_t *labels;
    uint32_t classes;
    const float *scale;
    float *losses, *dlogits;
    uint8_t *top1, *top5;
};

// One row. Without a label `own` is not looked at.
struct softmax_row {
    const float *logits;
    uint32_t label;
    bool labelled;
    float own, largest;
    double sum;
};

static __device__ inline uint32_t rank_row(struct softmax_row *row, uint32_t classes,
                                           double (&room)[WARPS], float (&float_room)[WARPS])
{
    float largest = row->logits[0];
    uint32_t before = 0;
    for (uint32_t c = threadIdx.x; c < classes; c += THREADS) {
        float logit = row->logits[c];
        largest = fmaxf(largest, logit);
        before += softmax_before(c, logit, row->label, row->own);
    }
    row->largest = block_join<larger_of>(largest, float_room);
    return (uint32_t)block_join<sum_of>((double)before, room);
}

static __device__ inline void sum_row(struct softmax_row *row, uint32_t classes,
                                      double (&room)[WARPS])
{
    double sum = 0;
    for (uint32_t c = threadIdx.x; c < classes; c += THREADS) {
        sum += softmax_power(row->logits[c], row->largest);
    }
    row->sum = block_join<sum_of>(sum, room);
}

// A label that is no class cannot be reported from here: its loss is NaN, which no run survives.
static __device__ inline float loss_of_row(const struct softmax_row *row, int32_t label)
{
    if (label < 0) {
        return 0.0f;
    }
    return row->labelled ? softmax_loss_of(row->largest, row->sum, row->own) : nanf("");
}

static __device__ inline void softmax_gradients(const struct softmax_row *row, uint32_t classes,
                                                double scale, float *dlogits)
{
    for (uint32_t c = threadIdx.x; c < classes; c += THREADS) {
        double share = softmax_power(row->logits[c], row->largest) / row->sum;
        dlogits[c] = row->labelled ? softmax_gradient(share, c == row->label, scale) : 0.0f;
    }
}

static __global__ void classify(struct softmax job)
{
    __shared__ double room[WARPS];
    __shared__ float float_room[WARPS];
    size_t index = blockIdx.x, first = index * job.classes;
    int32_t label = job.labels[index];
    struct softmax_row row;
    row.logits = job.logits + first;
    row.labelled = label >= 0 && (uint32_t)label < job.classes;
    row.label = row.labelled ? (uint32_t)label : 0;
    row.own = row.logits[row.label];
    uint32_t rank = rank_row(&row, job.classes, room, float_room);
    sum_row(&row, job.classes, room);
    if (threadIdx.x == 0) {
        job.losses[index] = loss_of_row(&row, label);
        if (job.top1 != NULL) {
            job.top1[index] = row.labelled && rank < 1;
        }
        if (job.top5 != NULL) {
            job.top5[index] = row.labelled && rank < 5;
        }
    }
    if (job.dlogits != NULL) {
        softmax_gradients(&row, job.classes, (double)*job.scale, job.dlogits + first);
    }
}

cudaError_t cuda_softmax_loss(const float *logits, const int32_t *labels, uint32_t n,
                              uint32_t classes, const float *scale, float *losses, float *dlogits,
                              uint8_t *top1, uint8_t *top5, cudaStream_t stream)
{
    struct softmax job = {logits, labels, classes, scale, losses, dlogits, top1, top5};
    return n == 0 ? cudaSuccess : CUDA_LAUNCH(classify, n, THREADS, stream, job);
}
