// Probes: nearest neighbours against a plain count, features that do not depend on batches, and
// both probes on a dataset whose classes can be told apart.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/order.h"
#include "tests/support/program.h"
#include "tests/support/sample_dataset.h"
#include "tests/support/samples.h"
#include "tests/support/tiny_run.h"
#include "trainer/optim/schedule.h"
#include "trainer/probe/eigen.h"
#include "trainer/probe/encoder.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/directory.h"
#include "trainer/run/pretrain.h"

#define IMAGES 45

static struct sample_dataset sample;
static struct scratch scratch;
static struct dataset *dataset;
static char checkpoint[512];

static int set_up(void **state)
{
    (void)state;
    sample_dataset_make(&sample, IMAGES, NOWHERE);
    scratch_make(&scratch);
    char directory[300];
    snprintf(directory, sizeof directory, "%s/run", scratch.path);
    struct pretrain_options options = {
        .data = sample.path[DATASET_LMDB], .run_directory = directory, .config = tiny_config()};
    struct pretrain_result result;
    struct error error;
    assert_status(pretrain_run(&options, &result, &error), STATUS_OK, &error);
    snprintf(checkpoint, sizeof checkpoint, "%s", result.checkpoint);
    assert_status(dataset_open(&dataset, sample.path[DATASET_LMDB], &error), STATUS_OK, &error);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dataset_close(&dataset);
    sample_dataset_remove(&sample);
    scratch_remove(&scratch);
    return 0;
}

// --- nearest neighbours ----------------------------------------------------------------------

// A small generator of its own, so that the numbers never change.
static float next_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1u << 24) - 0.5f;
}

static struct features make_features(uint64_t count, uint32_t width, uint32_t classes,
                                     uint32_t seed)
{
    struct features features = {.count = count, .width = width, .classes = classes};
    features.values = malloc(count * width * sizeof(float));
    features.labels = malloc(count * sizeof(int32_t));
    for (uint64_t i = 0; i < count; i++) {
        features.labels[i] = (int32_t)((i * 7 + seed) % classes);
        for (uint32_t k = 0; k < width; k++) {
            float centre = k == (uint32_t)features.labels[i] ? 0.6f : 0;
            features.values[i * width + k] = centre + next_value(&seed);
        }
    }
    return features;
}

static double cosine(const float *left, const float *right, uint32_t width)
{
    double product = 0, left_norm = 0, right_norm = 0;
    for (uint32_t i = 0; i < width; i++) {
        product += (double)left[i] * (double)right[i];
        left_norm += (double)left[i] * (double)left[i];
        right_norm += (double)right[i] * (double)right[i];
    }
    return product / sqrt(left_norm * right_norm);
}

struct pair {
    double similarity;
    int32_t label;
};

static int nearest_first(const void *left, const void *right)
{
    double a = ((const struct pair *)left)->similarity,
           b = ((const struct pair *)right)->similarity;
    return (a < b) - (a > b);
}

static double distance(const float *left, const float *right, uint32_t width)
{
    double sum = 0;
    for (uint32_t i = 0; i < width; i++) {
        sum += ((double)left[i] - (double)right[i]) * ((double)left[i] - (double)right[i]);
    }
    return sqrt(sum);
}

// A convention, word by word: sort all, let the first k vote. Without a temperature: raw features,
// weights that fall with the distance.
static void plain_score(const struct features *train, const struct features *test, size_t k,
                        double temperature, double *top1, double *top5)
{
    struct pair *pairs = malloc(train->count * sizeof *pairs);
    double *votes = malloc(train->classes * sizeof *votes);
    unsigned first = 0, among_five = 0;
    for (uint64_t t = 0; t < test->count; t++) {
        for (uint64_t i = 0; i < train->count; i++) {
            const float *left = test->values + t * test->width,
                        *right = train->values + i * train->width;
            pairs[i] =
                (struct pair){temperature > 0 ? cosine(left, right, train->width)
                                              : 1 / (distance(left, right, train->width) + 0.00001),
                              train->labels[i]};
        }
        qsort(pairs, train->count, sizeof *pairs, nearest_first);
        memset(votes, 0, train->classes * sizeof *votes);
        for (size_t i = 0; i < k; i++) {
            votes[pairs[i].label] += temperature > 0 ? exp((pairs[i].similarity - 1) / temperature)
                                                     : pairs[i].similarity;
        }
        unsigned before = 0;
        for (uint32_t class = 0; class < train->classes; class ++) {
            double mine = votes[test->labels[t]];
            before +=
                votes[class] > mine || (votes[class] == mine && class > (uint32_t)test->labels[t]);
        }
        first += before == 0;
        among_five += before < 5;
    }
    *top1 = 100.0 * first / (double)test->count;
    *top5 = 100.0 * among_five / (double)test->count;
    free(pairs);
    free(votes);
}

static void neighbours_vote_as_defined(void **state)
{
    (void)state;
    // More rows than a tile of either kind, and k below and above the number of a class.
    struct features train = make_features(2500, 12, 9, 5), test = make_features(300, 12, 9, 77);
    const int64_t neighbours[] = {1, 20, 200};
    const double temperatures[] = {0.1, 0.07,
                                   0.001}; // the last would overflow exp(cosine / temperature)
    for (size_t i = 0; i < 3; i++) {
        struct knn_config config = {.k = neighbours[i], .temperature = temperatures[i]};
        struct probe_score score;
        struct error error;
        double top1, top5;
        assert_status(knn_score(&train, &test, &config, &score, &error), STATUS_OK, &error);
        plain_score(&train, &test, (size_t)config.k, config.temperature, &top1, &top5);
        assert_int_equal(score.count, 300);
        assert_true(fabs(score.top1 - top1) < 0.4); // at most one image, on a knife's edge
        assert_true(fabs(score.top5 - top5) < 0.4);
        assert_true(score.top1 > 20 && score.top1 < score.top5 && score.top5 <= 100);
    }
    features_free(&train);
    features_free(&test);
}

// Rows of different lengths, so that it matters whether they are normalised, and some that are in
// both sets.
static void make_uneven(struct features *train, struct features *test)
{
    *train = make_features(2500, 12, 9, 5);
    *test = make_features(300, 12, 9, 77);
    for (uint64_t i = 0; i < train->count * train->width; i++) {
        train->values[i] *= 1 + (float)(i / train->width % 5);
    }
    for (uint64_t i = 0; i < test->count * test->width; i++) {
        test->values[i] *= 1 + (float)(i / test->width % 3);
    }
    memcpy(test->values, train->values, 20 * test->width * sizeof(float));
}

static void conventions_are_what_they_say(void **state)
{
    (void)state;
    // What the projects' own code says; a temperature of 0 stands for Euclidean distance.
    static const struct {
        const char *name;
        size_t k[1 + KNN_MORE];
        double temperature;
    } rows[] = {
        {"lightly", {200}, 0.1},
        {"solo-learn", {20}, 0.07},
        {"solo-learn-euclidean", {20}, 0},
        {"dinov2", {20, 10, 100, 200}, 0.07},
    };
    struct features train, test;
    make_uneven(&train, &test);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct knn_config config;
        struct probe_score score;
        struct error error;
        assert_status(knn_config_named(&config, rows[i].name, &error), STATUS_OK, &error);
        assert_status(knn_score(&train, &test, &config, &score, &error), STATUS_OK, &error);
        for (size_t j = 0; j <= KNN_MORE && rows[i].k[j] > 0; j++) {
            double top1, top5, ours1 = j ? score.more[j - 1].top1 : score.top1,
                               ours5 = j ? score.more[j - 1].top5 : score.top5;
            plain_score(&train, &test, rows[i].k[j], rows[i].temperature, &top1, &top5);
            assert_true(fabs(ours1 - top1) < 0.4 && fabs(ours5 - top5) < 0.4);
            assert_int_equal(j ? score.more[j - 1].k : config.k, rows[i].k[j]);
        }
        assert_int_equal(score.more[0].k > 0, rows[i].k[1] > 0);
    }
    features_free(&train);
    features_free(&test);
}

static void conventions_have_names(void **state)
{
    (void)state;
    struct knn_config config, usual;
    struct error error;
    usual = knn_conventions[0].config;
    assert_status(knn_config_named(&config, "lightly", &error), STATUS_OK, &error);
    assert_true(config.k == usual.k && config.temperature == usual.temperature);
    assert_true(usual.distance == KNN_COSINE && usual.more[0] == 0);
    assert_status(knn_config_named(&config, "dino2", &error), STATUS_INVALID, &error);
    assert_non_null(strstr(error.reason, "did you mean 'dinov2'?"));
    assert_status(knn_config_named(&config, "nearest-ever", &error), STATUS_INVALID, &error);
}

static void unlabelled_rows_do_not_count(void **state)
{
    (void)state;
    struct features train = make_features(100, 8, 4, 5), test = make_features(20, 8, 4, 77);
    struct knn_config config = {.k = 1000, .temperature = 0.1}; // more than there are
    struct probe_score score;
    struct error error;
    for (uint64_t i = 0; i < train.count; i++) {
        train.labels[i] = i % 4 == 2 ? 2 : DATASET_NO_LABEL;
    }
    test.labels[0] = DATASET_NO_LABEL;
    test.labels[1] = 2;
    assert_status(knn_score(&train, &test, &config, &score, &error), STATUS_OK, &error);
    assert_int_equal(score.count, 19);
    unsigned twos = 0;
    for (int i = 1; i < 20; i++) {
        twos += test.labels[i] == 2;
    }
    assert_true(fabs(score.top1 - 100.0 * twos / 19) < 1e-9); // all votes are for class 2
    test.classes = 5;
    assert_int_equal(knn_score(&train, &test, &config, &score, &error), STATUS_INVALID);
    features_free(&train);
    features_free(&test);
}

// --- features --------------------------------------------------------------------------------

static struct encoder *open_encoder(bool untrained)
{
    struct encoder *encoder;
    struct error error;
    assert_status(encoder_open(&encoder, checkpoint, NULL, 1, untrained, &error), STATUS_OK,
                  &error);
    return encoder;
}

static struct features extract(struct encoder *encoder, uint32_t batch)
{
    struct probe_options options;
    struct features features;
    struct error error;
    probe_options_init(&options);
    options.batch = batch;
    options.loader_threads = 2;
    assert_status(features_extract(&features, encoder, dataset, &options, &error), STATUS_OK,
                  &error);
    return features;
}

static void features_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    struct encoder *encoder = open_encoder(false);
    struct features whole = extract(encoder, 128), pieces = extract(encoder, 7);
    assert_int_equal(whole.count, IMAGES);
    assert_int_equal(whole.width, encoder->width);
    assert_int_equal(whole.classes, SAMPLE_CLASSES);
    double spread = 0;
    for (uint64_t i = 0; i < whole.count * whole.width; i++) {
        assert_true(fabsf(whole.values[i] - pieces.values[i]) <= 1e-4f);
        spread += fabs((double)whole.values[i] - (double)whole.values[i % whole.width]);
    }
    assert_true(spread > 1e-3); // images differ in their features
    for (uint64_t i = 0; i < whole.count; i++) {
        assert_int_equal(whole.labels[i], i % SAMPLE_CLASSES);
    }
    features_free(&whole);
    features_free(&pieces);
    encoder_close(&encoder);
}

static void an_untrained_encoder_gets_statistics(void **state)
{
    (void)state;
    struct encoder *untrained = open_encoder(true), *trained = open_encoder(false);
    assert_true(untrained->needs_statistics);
    struct features baseline = extract(untrained, 16), learnt = extract(trained, 16);
    assert_false(untrained->needs_statistics);
    double size = 0, difference = 0;
    for (uint64_t i = 0; i < baseline.count * baseline.width; i++) {
        assert_true(isfinite(baseline.values[i]));
        size += fabs((double)baseline.values[i]);
        difference += fabs((double)baseline.values[i] - (double)learnt.values[i]);
    }
    // Normalised by real statistics, ReLU features average about 0.4; without them they explode.
    size /= (double)(baseline.count * baseline.width);
    assert_true(size > 0.01 && size < 10);
    assert_true(difference > 0);
    features_free(&baseline);
    features_free(&learnt);
    encoder_close(&untrained);
    encoder_close(&trained);
}

static void small_stems_see_the_whole_image(void **state)
{
    (void)state;
    struct encoder *encoder = open_encoder(false);
    struct recipe recipe;
    struct error error;
    assert_status(encoder_recipe(encoder, "eval", &recipe, &error), STATUS_OK, &error);
    assert_int_equal(recipe.view[0].crop, RECIPE_CROP_WHOLE);
    assert_int_equal(recipe.size, encoder_size(encoder));
    encoder->config.model.stem = MODEL_STEM_IMAGENET;
    assert_status(encoder_recipe(encoder, "eval", &recipe, &error), STATUS_OK, &error);
    assert_int_equal(recipe.view[0].crop, RECIPE_CROP_CENTER);
    encoder_close(&encoder);
}

static void what_is_no_checkpoint_is_refused(void **state)
{
    (void)state;
    struct encoder *encoder;
    struct error error;
    assert_status(encoder_open(&encoder, "Makefile", NULL, 1, false, &error), STATUS_LIMIT, &error);
    assert_null(encoder);
    assert_status(encoder_open(&encoder, "nowhere.safetensors", NULL, 1, false, &error),
                  STATUS_NOT_FOUND, &error);
    assert_status(encoder_open(&encoder, checkpoint, "abacus", 1, false, &error), STATUS_NO_DEVICE,
                  &error);
}

// --- quality ---------------------------------------------------------------------------------

// Eigenvalues by Jacobi's rotations: slow, plain, and another method than the one under test.
static void rotate_until_diagonal(double *matrix, uint32_t n)
{
    for (int sweep = 0; sweep < 30; sweep++) {
        for (uint32_t p = 0; p < n; p++) {
            for (uint32_t q = p + 1; q < n; q++) {
                double apq = matrix[p * n + q];
                if (fabs(apq) < 1e-300) {
                    continue;
                }
                double theta = (matrix[q * n + q] - matrix[p * n + p]) / (2 * apq);
                double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
                double c = 1 / sqrt(t * t + 1), s = t * c;
                for (uint32_t k = 0; k < n; k++) {
                    double a = matrix[k * n + p], b = matrix[k * n + q];
                    matrix[k * n + p] = c * a - s * b;
                    matrix[k * n + q] = s * a + c * b;
                }
                for (uint32_t k = 0; k < n; k++) {
                    double a = matrix[p * n + k], b = matrix[q * n + k];
                    matrix[p * n + k] = c * a - s * b;
                    matrix[q * n + k] = s * a + c * b;
                }
            }
        }
    }
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void eigenvalues_are_those_of_jacobi(void **state)
{
    (void)state;
    const uint32_t sides[] = {1, 2, 3, 17, 40};
    uint32_t random = 11;
    for (size_t c = 0; c < sizeof sides / sizeof sides[0]; c++) {
        uint32_t n = sides[c];
        double matrix[40 * 40] = {0}, other[40 * 40], values[40], wanted[40] = {0};
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t j = 0; j <= i; j++) { // with zeros, and rows that are alone
                double value = (i + j) % 5 == 0 || i == 9 ? 0 : (double)next_value(&random);
                matrix[i * n + j] = matrix[j * n + i] = i == j ? 3 * value : value;
            }
        }
        memcpy(other, matrix, sizeof other);
        struct error error;
        assert_status(symmetric_eigenvalues(matrix, n, values, &error), STATUS_OK, &error);
        rotate_until_diagonal(other, n);
        for (uint32_t i = 0; i < n; i++) {
            wanted[i] = other[i * n + i];
        }
        qsort(wanted, n, sizeof *wanted, ascending);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(fabs(values[i] - wanted[i]) < 1e-13 * n);
        }
    }
}

static double rank_of(const float *values, uint64_t count, uint32_t width)
{
    double rank = -1;
    struct error error;
    assert_status(quality_rank(&rank, values, count, width, &error), STATUS_OK, &error);
    return rank;
}

static void rank_counts_directions(void **state)
{
    (void)state;
    enum { ROWS = 150, WIDTH = 12 };
    float values[ROWS * WIDTH] = {0};
    assert_true(rank_of(values, ROWS, WIDTH) == 0);
    for (int i = 0; i < ROWS * WIDTH; i++) { // every image alike
        values[i] = (float)(i % WIDTH + 1);
    }
    assert_true(fabs(rank_of(values, ROWS, WIDTH) - 1) < 1e-4);
    // Orthogonal columns of lengths that are known: singular values 4, 2, 1, 1.
    memset(values, 0, sizeof values);
    const float lengths[] = {4, 2, 1, 1};
    double entropy = 0;
    for (int i = 0; i < WIDTH; i++) {
        double p = i < 4 ? (double)lengths[i] / 8 + 1e-7 : 1e-7;
        values[(i < 4 ? i * 30 : 0) * WIDTH + i] = i < 4 ? -lengths[i] : 0;
        entropy -= p * log(p);
    }
    assert_true(fabs(rank_of(values, ROWS, WIDTH) - exp(entropy)) < 1e-6);
    // Fewer rows than dimensions: there are only so many singular values.
    for (int i = 0; i < WIDTH * WIDTH; i++) {
        values[i] = i / WIDTH == i % WIDTH ? 3 : 0;
    }
    assert_true(fabs(rank_of(values, 5, WIDTH) - 5) < 1e-4);
    assert_true(fabs(rank_of(values, WIDTH, WIDTH) - WIDTH) < 1e-4);
}

static void cosines_are_means_over_pairs(void **state)
{
    (void)state;
    struct features left = make_features(60, 12, 9, 5), right = make_features(60, 12, 9, 77);
    double positive = 0, negative = 0, ours[2];
    for (uint64_t i = 0; i < left.count; i++) {
        for (uint64_t j = 0; j < right.count; j++) {
            double value = cosine(left.values + i * 12, right.values + j * 12, 12);
            *(i == j ? &positive : &negative) += value;
        }
    }
    struct error error;
    assert_status(quality_cosines(&ours[0], &ours[1], left.values, right.values, 60, 12, &error),
                  STATUS_OK, &error);
    assert_true(fabs(ours[0] - positive / 60) < 1e-12);
    assert_true(fabs(ours[1] - negative / (60 * 59)) < 1e-12);
    features_free(&left);
    features_free(&right);
}

static void quality_of_a_run(void **state)
{
    (void)state;
    struct encoder *encoder = open_encoder(false);
    struct quality_config config;
    struct probe_options options;
    struct quality all, some;
    struct error error;
    quality_config_init(&config);
    probe_options_init(&options);
    options.batch = 16;
    assert_status(encoder_with_projections(encoder, &error), STATUS_OK, &error);
    assert_status(quality_score(&all, encoder, dataset, &config, &options, &error), STATUS_OK,
                  &error);
    assert_int_equal(all.images, IMAGES);
    assert_int_equal(all.features.width, encoder->width);
    assert_int_equal(all.projections.width, 8);
    const struct quality_figures *figures[] = {&all.features, &all.projections};
    for (int i = 0; i < 2; i++) {
        assert_true(figures[i]->rank > 1 && figures[i]->rank <= figures[i]->width * 1.0001);
        // Views of one image are more alike than views of two.
        assert_true(figures[i]->positive_cosine > figures[i]->negative_cosine);
        assert_true(figures[i]->positive_cosine <= 1);
    }
    // The rank is of the evaluation views, in whatever order.
    struct features features = extract(encoder, 16);
    assert_true(fabs(rank_of(features.values, IMAGES, features.width) - all.features.rank) < 1e-3);
    assert_true(fabs(rank_of(features.projections, IMAGES, 8) - all.projections.rank) < 1e-3);
    features_free(&features);
    config.limit = 21;
    assert_status(quality_score(&some, encoder, dataset, &config, &options, &error), STATUS_OK,
                  &error);
    assert_int_equal(some.images, 21);
    config.limit = 1;
    assert_status(quality_score(&some, encoder, dataset, &config, &options, &error), STATUS_INVALID,
                  &error);
    encoder_close(&encoder);
}

// --- linear ----------------------------------------------------------------------------------

static struct probe_score score_linear(const struct linear_config *config, uint32_t batch)
{
    struct encoder *encoder = open_encoder(false);
    struct probe_options options;
    struct probe_score score;
    struct error error;
    probe_options_init(&options);
    options.batch = batch;
    assert_status(linear_score(encoder, dataset, dataset, config, &options, &score, &error),
                  STATUS_OK, &error);
    encoder_close(&encoder);
    assert_int_equal(score.count, IMAGES);
    return score;
}

static void the_classifier_learns_and_repeats(void **state)
{
    (void)state;
    struct linear_config config;
    linear_config_init(&config);
    config.epochs = 150;
    config.batch = 15;
    config.learning_rates[0] = 8;
    config.cached = true;
    struct probe_score once = score_linear(&config, 128), again = score_linear(&config, 128);
    assert_true(once.top1 == again.top1 && once.train_top1 == again.train_top1);
    assert_true(once.top1 > 100.0 / SAMPLE_CLASSES + 15);
    assert_true(once.top5 == 100); // there are five classes
    assert_true(once.learning_rate == 8);
}

static void the_protocol_with_views_runs_and_repeats(void **state)
{
    (void)state;
    struct linear_config config;
    linear_config_init(&config);
    config.epochs = 10;
    config.batch = 20; // 2 steps an epoch, in chunks of 10, with 5 images left over
    config.learning_rates[0] = 2;
    struct probe_score once = score_linear(&config, 16), again = score_linear(&config, 16);
    assert_true(once.top1 == again.top1 && once.train_top1 == again.train_top1);
    assert_true(once.top1 >= 0 && once.top1 <= 100);
    config.batch = 1024; // more than there are
    config.epochs = 2;
    score_linear(&config, 16);
}

// The best held-out score must be the result; `wanted` is a rate of the trials.
static const struct linear_trial *trial_of(const struct probe_score *score, double wanted)
{
    static const struct linear_trial none = {.held_out_top1 = -1};
    const struct linear_trial *found = NULL, *best = &none;
    for (uint32_t i = 0; i < score->trial_count; i++) {
        const struct linear_trial *trial = &score->trials[i];
        found = trial->learning_rate == wanted ? trial : found;
        if (!trial->diverged && trial->held_out_top1 > best->held_out_top1) {
            best = trial;
        }
    }
    assert_true(score->learning_rate == best->learning_rate && score->top1 == best->top1);
    assert_true(score->top5 == best->top5 && score->train_top1 == best->train_top1);
    assert_non_null(found);
    return found;
}

static void assert_same_trial(const struct linear_trial *left, const struct linear_trial *right)
{
    assert_false(left->diverged || right->diverged);
    assert_true(left->held_out_top1 == right->held_out_top1);
    assert_true(left->train_top1 == right->train_top1);
    assert_true(left->top1 == right->top1 && left->top5 == right->top5);
}

static void rates_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct linear_config config;
    linear_config_init(&config);
    config.batch = 15;
    for (int cached = 0; cached < 2; cached++) {
        config.cached = cached;
        config.epochs = cached ? 60 : 8;
        config.rate_count = 3;
        memcpy(config.learning_rates, (double[]){8, 0.01, 2}, 3 * sizeof(double));
        struct probe_score three = score_linear(&config, 16);
        memcpy(config.learning_rates, (double[]){1e38, 2, 8}, 3 * sizeof(double));
        struct probe_score other = score_linear(&config, 16);
        assert_int_equal(three.held_out, IMAGES / 10);
        assert_int_equal(three.trial_count, 3);
        assert_same_trial(trial_of(&three, 8), trial_of(&other, 8));
        assert_same_trial(trial_of(&three, 2), trial_of(&other, 2));
        assert_true(other.trials[0].diverged); // and nobody else
    }
}

static void nothing_but_divergence_is_an_error(void **state)
{
    (void)state;
    struct linear_config config;
    struct probe_options options;
    struct probe_score score;
    struct error error;
    struct encoder *encoder = open_encoder(false);
    linear_config_init(&config);
    probe_options_init(&options);
    config.cached = true;
    config.batch = 15;
    config.learning_rates[0] = config.learning_rates[1] = 1e38;
    config.rate_count = 2;
    assert_status(linear_score(encoder, dataset, dataset, &config, &options, &score, &error),
                  STATUS_INVALID, &error);
    assert_non_null(strstr(error.reason, "diverged"));
    config.learning_rates[1] = -1;
    assert_status(linear_score(encoder, dataset, dataset, &config, &options, &score, &error),
                  STATUS_INVALID, &error);
    encoder_close(&encoder);
}

// Rows of `features` in an order, without those that are marked.
static uint32_t plain_rows(const struct features *features, const uint8_t *marks,
                           const struct order *order, uint64_t first, uint32_t batch, float *values,
                           int32_t *labels)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < batch; i++) {
        uint64_t record = order_at(order, first + i);
        if (!marks[record]) {
            memcpy(values + (size_t)rows * features->width,
                   features->values + record * features->width, features->width * sizeof(float));
            labels[rows++] = features->labels[record];
        }
    }
    return rows;
}

static double plain_top1(const struct features *features, const uint8_t *marks,
                         const struct linear_classifier *classifier)
{
    unsigned right = 0, rows = 0;
    for (uint64_t i = 0; i < features->count; i++) {
        double best = -INFINITY;
        int32_t answer = -1;
        for (uint32_t class = 0; class < classifier->classes; class ++) {
            double logit = (double)classifier->bias[class];
            for (uint32_t k = 0; k < features->width; k++) {
                logit += (double)features->values[i * features->width + k] *
                         (double)classifier->weights[k * classifier->classes + class];
            }
            answer = logit >= best ? (int32_t) class : answer;
            best = fmax(best, logit);
        }
        rows += !marks || marks[i];
        right += (!marks || marks[i]) && answer == features->labels[i];
    }
    return 100.0 * right / rows;
}

// Classifiers learn from all images but the held-out ones, which decide.
static void held_out_images_are_not_learnt(void **state)
{
    (void)state;
    enum { EPOCHS = 20, BATCH = 15, STEPS = IMAGES / BATCH };
    struct linear_config config;
    linear_config_init(&config);
    config.cached = true;
    config.epochs = EPOCHS;
    config.batch = BATCH;
    config.rate_count = 2;
    memcpy(config.learning_rates, (double[]){8, 0.5}, 2 * sizeof(double));
    struct probe_score score = score_linear(&config, 128);

    struct encoder *encoder = open_encoder(false);
    struct features features = extract(encoder, 128);
    uint8_t marks[IMAGES];
    assert_int_equal(linear_hold_out(marks, IMAGES), 4);
    struct linear_classifier classifier = {.width = features.width, .classes = features.classes};
    size_t weights = (size_t)features.width * features.classes;
    classifier.weights = calloc(weights, sizeof(float));
    classifier.weights_trace = calloc(weights, sizeof(float));
    classifier.bias = calloc(features.classes, sizeof(float));
    classifier.bias_trace = calloc(features.classes, sizeof(float));
    float *values = malloc((size_t)BATCH * features.width * sizeof *values);
    int32_t labels[BATCH];
    for (uint32_t step = 0; step < EPOCHS * STEPS; step++) {
        struct order order;
        struct error error;
        float loss, rate = schedule_learning_rate(step, 8, BATCH, 0, EPOCHS * STEPS);
        order_init(&order, IMAGES, config.seed, step / STEPS, true);
        uint32_t rows = plain_rows(&features, marks, &order, (uint64_t)(step % STEPS) * BATCH,
                                   BATCH, values, labels);
        assert_status(
            linear_update(encoder->device, &classifier, values, labels, rows, rate, &loss, &error),
            STATUS_OK, &error);
    }
    const struct linear_trial *trial = trial_of(&score, 8);
    assert_true(fabs(trial->top1 - plain_top1(&features, NULL, &classifier)) < 1e-9);
    assert_true(fabs(trial->held_out_top1 - plain_top1(&features, marks, &classifier)) < 1e-9);
    free(values);
    free(classifier.weights);
    free(classifier.weights_trace);
    free(classifier.bias);
    free(classifier.bias_trace);
    features_free(&features);
    encoder_close(&encoder);
}

static void the_paper_holds_out_10009(void **state)
{
    (void)state;
    struct linear_config config;
    linear_config_sweep(&config);
    assert_int_equal(config.rate_count, 5);
    assert_true(config.learning_rates[0] == 0.4 && config.learning_rates[4] == 0.05);
    assert_int_equal(linear_hold_out(NULL, 1281167), 10009);
    assert_int_equal(linear_hold_out(NULL, 50000), 5000);
    assert_int_equal(linear_hold_out(NULL, 9), 0);
}

static void chosen_features_are_those_of_all(void **state)
{
    (void)state;
    struct encoder *encoder = open_encoder(false);
    struct features all = extract(encoder, 7), some;
    struct probe_options options;
    struct error error;
    uint8_t chosen[IMAGES];
    for (size_t i = 0; i < IMAGES; i++) {
        chosen[i] = i % 3 == 1 || i > 40;
    }
    probe_options_init(&options);
    options.batch = 7;
    assert_status(features_extract_some(&some, encoder, dataset, chosen, &options, &error),
                  STATUS_OK, &error);
    features_keep(&all, chosen);
    assert_int_equal(some.count, all.count);
    assert_memory_equal(some.labels, all.labels, all.count * sizeof(int32_t));
    for (uint64_t i = 0; i < all.count * all.width; i++) {
        assert_true(fabsf(all.values[i] - some.values[i]) <= 1e-4f);
    }
    features_free(&all);
    features_free(&some);
    encoder_close(&encoder);
}

// A dataset whose only difference that matters is its classes' names.
static struct dataset *dataset_of_classes(const char *name, const char *const *classes,
                                          uint32_t count)
{
    char directory[400];
    struct sample image;
    struct dataset_writer *writer;
    struct dataset *made;
    struct error error;
    snprintf(directory, sizeof directory, "%s/%s", scratch.path, name);
    sample_make(&image, 1);
    struct dataset_item item = sample_item(&image, 1);
    item.label = 0;
    assert_status(dataset_writer_open(&writer, directory, &sample_lmdb, &error), STATUS_OK, &error);
    assert_status(dataset_writer_add(writer, &item, &error), STATUS_OK, &error);
    assert_status(dataset_writer_commit(&writer, classes, count, &error), STATUS_OK, &error);
    assert_status(dataset_open(&made, directory, &error), STATUS_OK, &error);
    free(image.bytes);
    return made;
}

static void sets_of_different_classes_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"cat", "dog", "owl"}, *const others[] = {"cat", "emu",
                                                                                 "owl"};
    struct dataset *train = dataset_of_classes("animals", names, 3);
    struct dataset *fewer = dataset_of_classes("fewer", names, 2);
    struct dataset *other = dataset_of_classes("other", others, 3);
    struct error error;
    assert_status(probe_check_classes(train, train, &error), STATUS_OK, &error);
    assert_status(probe_check_classes(train, fewer, &error), STATUS_INVALID, &error);
    assert_status(probe_check_classes(train, other, &error), STATUS_INVALID, &error);
    assert_non_null(strstr(error.reason, "class 1 is 'emu', in the training set it is 'dog'"));
    dataset_close(&train);
    dataset_close(&fewer);
    dataset_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_vote_as_defined),
        cmocka_unit_test(conventions_are_what_they_say),
        cmocka_unit_test(conventions_have_names),
        cmocka_unit_test(unlabelled_rows_do_not_count),
        cmocka_unit_test(features_do_not_depend_on_the_batch),
        cmocka_unit_test(an_untrained_encoder_gets_statistics),
        cmocka_unit_test(small_stems_see_the_whole_image),
        cmocka_unit_test(what_is_no_checkpoint_is_refused),
        cmocka_unit_test(sets_of_different_classes_are_refused),
        cmocka_unit_test(the_classifier_learns_and_repeats),
        cmocka_unit_test(the_protocol_with_views_runs_and_repeats),
        cmocka_unit_test(rates_do_not_disturb_each_other),
        cmocka_unit_test(nothing_but_divergence_is_an_error),
        cmocka_unit_test(held_out_images_are_not_learnt),
        cmocka_unit_test(the_paper_holds_out_10009),
        cmocka_unit_test(chosen_features_are_those_of_all),
        cmocka_unit_test(eigenvalues_are_those_of_jacobi),
        cmocka_unit_test(rank_counts_directions),
        cmocka_unit_test(cosines_are_means_over_pairs),
        cmocka_unit_test(quality_of_a_run),
    };
    return cmocka_run_group_tests_name("probe", tests, set_up, tear_down);
}
