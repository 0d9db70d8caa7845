// Weighted nearest neighbours. Similarities come tile by tile from the device's matrix product; of
// each test row only the k best neighbours so far are kept, in a heap whose root is the worst.
#include "trainer/probe/probe.h"

#include "formats/nearest.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/device/device.h"

#define TEST_TILE  128u
#define TRAIN_TILE 2048u

#define EUCLIDEAN_EPSILON 1e-5 // solo-learn's: a neighbour at distance 0 weighs 1e5

struct neighbour {
    float similarity; // cosine; for Euclidean distance what orders rows alike, then the weight
    uint32_t row;     // of the training features
};

struct search {
    const struct features *train, *test;
    struct device *device;
    float *a, *b, *c;             // device: tiles of test and train rows, their products
    float *staging, *products;    // host: a normalised tile; the products
    float *train_scale;           // what each training row is multiplied by
    float *train_square;          // squared norm of each training row
    struct neighbour *neighbours; // [TEST_TILE][k]
    uint32_t k, found[TEST_TILE]; // k: the largest that is asked for
    const struct knn_config *config;
    double *votes; // [classes]
    struct tally {
        uint64_t top1, top5;
    } tally[1 + KNN_MORE]; // of config->k, then of each of config->more
};

// --- conventions -----------------------------------------------------------------------------

const struct knn_convention knn_conventions[] = {
    {"lightly", {.k = 200, .temperature = 0.1}},
    {"solo-learn", {.k = 20, .temperature = 0.07}},
    {"solo-learn-euclidean", {.k = 20, .temperature = 0.07, .distance = KNN_EUCLIDEAN}},
    {"dinov2", {.k = 20, .more = {10, 100, 200}, .temperature = 0.07}},
    {0},
};

enum status knn_config_named(struct knn_config *config, const char *name, struct error *error)
{
    const char *names[sizeof knn_conventions / sizeof knn_conventions[0]];
    size_t count = 0;
    for (const struct knn_convention *known = knn_conventions; known->name; known++) {
        if (strcmp(known->name, name) == 0) {
            *config = known->config;
            return STATUS_OK;
        }
        names[count++] = known->name;
    }
    const char *nearest = nearest_name(name, names, count);
    return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "unknown convention '%s'%s%s%s",
                     name, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                     nearest ? "'?" : "");
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

static double row_square(const float *row, uint32_t width)
{
    double sum = 0;
    for (uint32_t i = 0; i < width; i++) {
        sum += (double)row[i] * (double)row[i];
    }
    return sum;
}

// Cosines want rows of length 1, distances want them as they are.
static float row_scale(const struct search *search, double square)
{
    return search->config->distance == KNN_EUCLIDEAN
               ? 1
               : (float)(1 / sqrt(square > 1e-12 ? square : 1e-12));
}

// Copies rows, scaled, to a tile on the device.
static enum status load_tile(struct search *search, float *tile, const struct features *from,
                             uint64_t first, uint32_t rows, const float *scale)
{
    for (uint32_t r = 0; r < rows; r++) {
        const float *row = from->values + (first + r) * from->width;
        float factor = scale ? scale[first + r] : row_scale(search, row_square(row, from->width));
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

// From a product to what orders neighbours. ||a - b||^2 = ||a||^2 - (2 a b - ||b||^2), of which the
// first is the same for all neighbours of a test row.
static float similarity_of(const struct search *search, float product, uint64_t train)
{
    return search->config->distance == KNN_EUCLIDEAN ? 2 * product - search->train_square[train]
                                                     : product;
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
                if (train->labels[at + r] >= 0) {
                    float product = search->products[(size_t)t * trains + r];
                    offer(search, t,
                          (struct neighbour){similarity_of(search, product, at + r),
                                             (uint32_t)(at + r)});
                }
            }
        }
    }
    return status;
}

// --- votes -----------------------------------------------------------------------------------

static int best_first(const void *left, const void *right)
{
    const struct neighbour *a = left, *b = right;
    return is_worse(*a, *b) - is_worse(*b, *a);
}

// Distances that come from differences of large numbers have lost digits, just where the nearest
// neighbours weigh most: those that were found are measured again.
static void measure_distances(struct search *search, const float *test, struct neighbour *found,
                              uint32_t count)
{
    uint32_t width = search->train->width;
    for (uint32_t i = 0; i < count; i++) {
        const float *row = search->train->values + (uint64_t)found[i].row * width;
        double sum = 0;
        for (uint32_t c = 0; c < width; c++) {
            double difference = (double)test[c] - (double)row[c];
            sum += difference * difference;
        }
        found[i].similarity = (float)(1 / (sqrt(sum) + EUCLIDEAN_EPSILON));
    }
}

static double weight_of(const struct search *search, float similarity, float best)
{
    // Relative to the best, so that no temperature overflows.
    return search->config->distance == KNN_EUCLIDEAN
               ? (double)similarity
               : exp(((double)similarity - (double)best) / search->config->temperature);
}

// How many classes rank before `label` by the votes of the first `count` neighbours; among equal
// votes the higher class index ranks first.
static uint32_t rank_of(struct search *search, const struct neighbour *sorted, uint32_t count,
                        int32_t label)
{
    uint32_t classes = search->test->classes;
    memset(search->votes, 0, classes * sizeof *search->votes);
    for (uint32_t i = 0; i < count; i++) {
        search->votes[search->train->labels[sorted[i].row]] +=
            weight_of(search, sorted[i].similarity, sorted[0].similarity);
    }
    uint32_t rank = 0;
    for (uint32_t class = 0; class < classes; class ++) {
        double difference = search->votes[class] - search->votes[label];
        rank += difference > 0 || (difference == 0 && class > (uint32_t)label);
    }
    return rank;
}

static int64_t k_at(const struct knn_config *config, size_t index)
{
    return index == 0 ? config->k : config->more[index - 1];
}

static void vote(struct search *search, uint64_t row, uint32_t in_tile)
{
    struct neighbour *neighbours = search->neighbours + (size_t)in_tile * search->k;
    uint32_t found = search->found[in_tile];
    const struct features *test = search->test;
    if (search->config->distance == KNN_EUCLIDEAN) {
        measure_distances(search, test->values + row * test->width, neighbours, found);
    }
    qsort(neighbours, found, sizeof *neighbours, best_first);
    for (size_t i = 0; i <= KNN_MORE && k_at(search->config, i) > 0; i++) {
        int64_t k = k_at(search->config, i);
        uint32_t rank =
            rank_of(search, neighbours, k < found ? (uint32_t)k : found, test->labels[row]);
        search->tally[i].top1 += rank < 1;
        search->tally[i].top5 += rank < 5;
    }
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
    enum status status = device_open(device, "cpu", 0, DEVICE_F32, error);
    return status == STATUS_NO_DEVICE ? device_open(device, "ref", 0, DEVICE_F32, error) : status;
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
    *search = (struct search){.train = train, .test = test, .config = config};
    uint64_t k = (uint64_t)config->k;
    for (size_t i = 0; i < KNN_MORE; i++) {
        k = config->more[i] > (int64_t)k ? (uint64_t)config->more[i] : k;
    }
    search->k = (uint32_t)(k < train->count ? k : train->count);
    search->staging = malloc((size_t)TRAIN_TILE * train->width * sizeof(float));
    search->products = malloc((size_t)TEST_TILE * TRAIN_TILE * sizeof(float));
    search->train_scale = malloc(train->count * sizeof(float));
    search->train_square = malloc(train->count * sizeof(float));
    search->neighbours = malloc((size_t)TEST_TILE * search->k * sizeof(struct neighbour));
    search->votes = malloc(train->classes * sizeof(double));
    if (!search->staging || !search->products || !search->train_scale || !search->train_square ||
        !search->neighbours || !search->votes) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a search among %llu features",
                         (unsigned long long)train->count);
    }
    for (uint64_t i = 0; i < train->count; i++) {
        double square = row_square(train->values + i * train->width, train->width);
        search->train_scale[i] = row_scale(search, square);
        search->train_square[i] = (float)square;
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
    free(search->train_square);
    free(search->neighbours);
    free(search->votes);
}

static void report(const struct search *search, struct probe_score *score)
{
    double percent = score->count > 0 ? 100 / (double)score->count : NAN;
    score->top1 = percent * (double)search->tally[0].top1;
    score->top5 = percent * (double)search->tally[0].top5;
    for (size_t i = 0; i < KNN_MORE && search->config->more[i] > 0; i++) {
        score->more[i] = (struct knn_more){.k = search->config->more[i],
                                           .top1 = percent * (double)search->tally[i + 1].top1,
                                           .top5 = percent * (double)search->tally[i + 1].top5};
    }
}

static enum status search_all(struct search *search, struct probe_score *score, struct error *error)
{
    const struct features *test = search->test;
    assert(search->device); // search_open succeeded
    for (uint64_t first = 0; first < test->count; first += TEST_TILE) {
        uint64_t left = test->count - first;
        uint32_t rows = left < TEST_TILE ? (uint32_t)left : TEST_TILE;
        if (search_tile(search, first, rows) != STATUS_OK) {
            return error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                             "the device failed to multiply matrices");
        }
        for (uint32_t t = 0; t < rows; t++) {
            if (test->labels[first + t] >= 0) {
                vote(search, first + t, t);
                score->count++;
            }
        }
    }
    report(search, score);
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
