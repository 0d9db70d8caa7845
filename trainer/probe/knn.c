// Weighted nearest neighbours. Similarities come tile by tile from the device's matrix product; of
// each test row only the k best neighbours so far are kept, in a heap whose root is the worst.
#include "trainer/probe/probe.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/device/device.h"

#define TEST_TILE  128u
#define TRAIN_TILE 2048u

struct neighbour {
    float similarity;
    uint32_t row; // of the training features
};

struct search {
    const struct features *train, *test;
    struct device *device;
    float *a, *b, *c;             // device: tiles of test and train rows, their products
    float *staging, *products;    // host: a normalised tile; the products
    float *train_scale;           // 1 / norm of each training row
    struct neighbour *neighbours; // [TEST_TILE][k]
    uint32_t k, found[TEST_TILE];
    double temperature;
    double *votes; // [classes]
};

void knn_config_init(struct knn_config *config)
{
    *config = (struct knn_config){.k = 200, .temperature = 0.1};
}

// --- the k best ------------------------------------------------------------------------------

// Among equal similarities the earlier row is the better neighbour.
static bool is_worse(struct neighbour left, struct neighbour right)
{
    return left.similarity < right.similarity ||
           (left.similarity == right.similarity && left.row > right.row);
}

static void sift_down(struct neighbour *heap, uint32_t count)
{
    struct neighbour moving = heap[0];
    uint32_t at = 0;
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && is_worse(heap[child + 1], heap[child])) {
            child++;
        }
        if (!is_worse(heap[child], moving)) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static void sift_up(struct neighbour *heap, uint32_t at)
{
    struct neighbour moving = heap[at];
    for (uint32_t parent; at > 0 && is_worse(moving, heap[parent = (at - 1) / 2]); at = parent) {
        heap[at] = heap[parent];
    }
    heap[at] = moving;
}

static void offer(struct search *search, uint32_t test, struct neighbour candidate)
{
    struct neighbour *heap = search->neighbours + (size_t)test * search->k;
    uint32_t count = search->found[test];
    if (count < search->k) {
        heap[count] = candidate;
        search->found[test]++;
        sift_up(heap, count);
    } else if (is_worse(heap[0], candidate)) {
        heap[0] = candidate;
        sift_down(heap, count);
    }
}

// --- similarities ----------------------------------------------------------------------------

static float row_scale(const float *row, uint32_t width)
{
    double sum = 0;
    for (uint32_t i = 0; i < width; i++) {
        sum += (double)row[i] * (double)row[i];
    }
    return (float)(1 / sqrt(sum > 1e-12 ? sum : 1e-12));
}

// Copies rows, scaled to length 1, to a tile on the device.
static enum status load_tile(struct search *search, float *tile, const struct features *from,
                             uint64_t first, uint32_t rows, const float *scale)
{
    for (uint32_t r = 0; r < rows; r++) {
        const float *row = from->values + (first + r) * from->width;
        float factor = scale ? scale[first + r] : row_scale(row, from->width);
        for (uint32_t i = 0; i < from->width; i++) {
            search->staging[(size_t)r * from->width + i] = row[i] * factor;
        }
    }
    return search->device->ops->copy_in(search->device, tile, search->staging,
                                        (size_t)rows * from->width * sizeof(float));
}

static enum status multiply(struct search *search, uint32_t tests, uint32_t trains)
{
    const struct device_ops *ops = search->device->ops;
    enum status status =
        ops->matrix_product(search->device, false, true, tests, trains, search->test->width,
                            search->a, search->b, search->c, false);
    return status == STATUS_OK ? ops->copy_out(search->device, search->products, search->c,
                                               (size_t)tests * trains * sizeof(float))
                               : status;
}

// Finds the neighbours of `tests` test rows from `first` on.
static enum status search_tile(struct search *search, uint64_t first, uint32_t tests)
{
    const struct features *train = search->train;
    memset(search->found, 0, sizeof search->found);
    enum status status = load_tile(search, search->a, search->test, first, tests, NULL);
    for (uint64_t at = 0; status == STATUS_OK && at < train->count; at += TRAIN_TILE) {
        uint64_t left = train->count - at;
        uint32_t trains = left < TRAIN_TILE ? (uint32_t)left : TRAIN_TILE;
        status = load_tile(search, search->b, train, at, trains, search->train_scale);
        if (status == STATUS_OK) {
            status = multiply(search, tests, trains);
        }
        for (uint32_t t = 0; status == STATUS_OK && t < tests; t++) {
            for (uint32_t r = 0; r < trains; r++) {
                float similarity = search->products[(size_t)t * trains + r];
                if (train->labels[at + r] >= 0) {
                    offer(search, t, (struct neighbour){similarity, (uint32_t)(at + r)});
                }
            }
        }
    }
    return status;
}

// How many classes rank before `label`; among equal votes the higher class index ranks first.
static uint32_t rank_of(struct search *search, uint32_t test, int32_t label)
{
    const struct neighbour *heap = search->neighbours + (size_t)test * search->k;
    uint32_t classes = search->test->classes;
    memset(search->votes, 0, classes * sizeof *search->votes);
    float best = -INFINITY;
    for (uint32_t i = 0; i < search->found[test]; i++) {
        best = fmaxf(best, heap[i].similarity);
    }
    for (uint32_t i = 0; i < search->found[test]; i++) {
        // Relative to the best, so that no temperature overflows.
        double weight = exp(((double)heap[i].similarity - (double)best) / search->temperature);
        search->votes[search->train->labels[heap[i].row]] += weight;
    }
    uint32_t rank = 0;
    for (uint32_t class = 0; class < classes; class ++) {
        double difference = search->votes[class] - search->votes[label];
        rank += difference > 0 || (difference == 0 && class > (uint32_t)label);
    }
    return rank;
}

// --- a whole score ---------------------------------------------------------------------------

static enum status check(const struct features *train, const struct features *test,
                         const struct knn_config *config, struct error *error)
{
    if (train->count == 0 || test->count == 0 || train->classes == 0) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "nearest neighbours need labelled images for training and testing");
    }
    if (train->width != test->width || train->classes != test->classes ||
        train->count > UINT32_MAX) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "training and test features do not fit: width %u and %u, classes %u and "
                         "%u",
                         train->width, test->width, train->classes, test->classes);
    }
    if (config->k < 1 || !(config->temperature > 0)) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "k must be at least 1 and the temperature above 0");
    }
    return STATUS_OK;
}

static enum status open_device(struct device **device, struct error *error)
{
    enum status status = device_open(device, "cpu", 0, error);
    return status == STATUS_NO_DEVICE ? device_open(device, "ref", 0, error) : status;
}

static enum status allocate_on_device(struct search *search, struct error *error)
{
    const struct device_ops *ops = search->device->ops;
    size_t row = search->test->width * sizeof(float);
    enum status status = ops->allocate(search->device, (void **)&search->a, TEST_TILE * row, error);
    if (status == STATUS_OK) {
        status = ops->allocate(search->device, (void **)&search->b, TRAIN_TILE * row, error);
    }
    if (status == STATUS_OK) {
        status = ops->allocate(search->device, (void **)&search->c,
                               TEST_TILE * TRAIN_TILE * sizeof(float), error);
    }
    return status;
}

static enum status search_open(struct search *search, const struct features *train,
                               const struct features *test, const struct knn_config *config,
                               struct error *error)
{
    *search = (struct search){.train = train, .test = test, .temperature = config->temperature};
    search->k = (uint32_t)((uint64_t)config->k < train->count ? (uint64_t)config->k : train->count);
    search->staging = malloc((size_t)TRAIN_TILE * train->width * sizeof(float));
    search->products = malloc((size_t)TEST_TILE * TRAIN_TILE * sizeof(float));
    search->train_scale = malloc(train->count * sizeof(float));
    search->neighbours = malloc((size_t)TEST_TILE * search->k * sizeof(struct neighbour));
    search->votes = malloc(train->classes * sizeof(double));
    if (!search->staging || !search->products || !search->train_scale || !search->neighbours ||
        !search->votes) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a search among %llu features",
                         (unsigned long long)train->count);
    }
    for (uint64_t i = 0; i < train->count; i++) {
        search->train_scale[i] = row_scale(train->values + i * train->width, train->width);
    }
    enum status status = open_device(&search->device, error);
    return status == STATUS_OK ? allocate_on_device(search, error) : status;
}

static void search_close(struct search *search)
{
    float *tiles[] = {search->a, search->b, search->c};
    for (size_t i = 0; i < 3; i++) {
        if (tiles[i]) {
            search->device->ops->release(search->device, tiles[i]);
        }
    }
    device_close(&search->device);
    free(search->staging);
    free(search->products);
    free(search->train_scale);
    free(search->neighbours);
    free(search->votes);
}

static enum status search_all(struct search *search, struct probe_score *score, struct error *error)
{
    const struct features *test = search->test;
    uint64_t top1 = 0, top5 = 0;
    assert(search->device); // search_open succeeded
    for (uint64_t first = 0; first < test->count; first += TEST_TILE) {
        uint64_t left = test->count - first;
        uint32_t rows = left < TEST_TILE ? (uint32_t)left : TEST_TILE;
        if (search_tile(search, first, rows) != STATUS_OK) {
            return error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                             "the device failed to multiply matrices");
        }
        for (uint32_t t = 0; t < rows; t++) {
            int32_t label = test->labels[first + t];
            if (label >= 0) {
                uint32_t rank = rank_of(search, t, label);
                top1 += rank < 1;
                top5 += rank < 5;
                score->count++;
            }
        }
    }
    double percent = score->count > 0 ? 100 / (double)score->count : NAN;
    score->top1 = percent * (double)top1;
    score->top5 = percent * (double)top5;
    return STATUS_OK;
}

enum status knn_score(const struct features *train, const struct features *test,
                      const struct knn_config *config, struct probe_score *score,
                      struct error *error)
{
    *score = (struct probe_score){.train_top1 = NAN, .learning_rate = NAN};
    enum status status = check(train, test, config, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct search search;
    status = search_open(&search, train, test, config, error);
    if (status == STATUS_OK) {
        status = search_all(&search, score, error);
    }
    search_close(&search);
    return status;
}
