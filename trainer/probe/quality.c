// Figures of features that need no labels: how many directions they use, and how far apart views of
// one image and of different images lie.
#include <math.h>
#include <stdlib.h>

#include "trainer/probe/eigen.h"
#include "trainer/probe/encoder.h"

#define RANK_EPSILON 1e-7 // the paper's
#define TILE_ROWS    64u  // rows that are summed at a time

void quality_config_init(struct quality_config *config)
{
    *config = (struct quality_config){.limit = 25600};
}

// --- rank ------------------------------------------------------------------------------------

// Adds the products of all pairs of columns, over a tile of rows, to the upper half of `gram`.
static void add_tile(double *gram, const double *tile, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++) {
        for (uint32_t j = i; j < width; j++) {
            const double *left = tile + (size_t)i * TILE_ROWS,
                         *right = tile + (size_t)j * TILE_ROWS;
            double sum[4] = {0};
            for (uint32_t r = 0; r < TILE_ROWS; r += 4) {
                for (uint32_t k = 0; k < 4; k++) {
                    sum[k] += left[r + k] * right[r + k];
                }
            }
            gram[(size_t)i * width + j] += (sum[0] + sum[1]) + (sum[2] + sum[3]);
        }
    }
}

// gram = values' values. `tile` [width][TILE_ROWS] holds rows as columns; rows past the end are 0.
static void make_gram(double *gram, double *tile, const float *values, uint64_t count,
                      uint32_t width)
{
    for (uint64_t first = 0; first < count; first += TILE_ROWS) {
        for (uint32_t r = 0; r < TILE_ROWS; r++) {
            for (uint32_t i = 0; i < width; i++) {
                tile[(size_t)i * TILE_ROWS + r] =
                    first + r < count ? (double)values[(first + r) * width + i] : 0;
            }
        }
        add_tile(gram, tile, width);
    }
    for (uint32_t i = 0; i < width; i++) {
        for (uint32_t j = 0; j < i; j++) {
            gram[(size_t)i * width + j] = gram[(size_t)j * width + i];
        }
    }
}

// `eigenvalues` of the Gram matrix, ascending: squares of the singular values, of which there are
// no more than `most`.
static double rank_of_spectrum(const double *eigenvalues, uint32_t width, uint64_t most)
{
    uint32_t from = most < width ? width - (uint32_t)most : 0;
    double sum = 0, entropy = 0;
    for (uint32_t i = from; i < width; i++) {
        sum += sqrt(fmax(eigenvalues[i], 0));
    }
    for (uint32_t i = from; i < width; i++) {
        double share = sqrt(fmax(eigenvalues[i], 0)) / sum + RANK_EPSILON;
        entropy -= share * log(share);
    }
    return sum > 0 ? exp(entropy) : 0;
}

enum status quality_rank(double *rank, const float *values, uint64_t count, uint32_t width,
                         struct error *error)
{
    double *gram = calloc((size_t)width * width, sizeof *gram);
    double *tile = malloc((size_t)width * TILE_ROWS * sizeof *tile);
    double *eigenvalues = malloc(width * sizeof *eigenvalues);
    enum status status = STATUS_OK;
    if (gram == NULL || tile == NULL || eigenvalues == NULL) {
        status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                           "no memory for the spectrum of features of width %u", width);
    } else {
        make_gram(gram, tile, values, count, width);
        status = symmetric_eigenvalues(gram, width, eigenvalues, error);
        *rank = status == STATUS_OK ? rank_of_spectrum(eigenvalues, width, count) : 0;
    }
    free(gram);
    free(tile);
    free(eigenvalues);
    return status;
}

// --- cosines ---------------------------------------------------------------------------------

static double scale_of(const float *row, uint32_t width)
{
    double sum = 0;
    for (uint32_t i = 0; i < width; i++) {
        sum += (double)row[i] * (double)row[i];
    }
    return 1 / sqrt(fmax(sum, 1e-24));
}

// The mean over all pairs of different images needs no pairs: the cosines of all with all sum to
// the product of the sums, from which those of images with themselves are taken away.
enum status quality_cosines(double *positive, double *negative, const float *left,
                            const float *right, uint64_t count, uint32_t width, struct error *error)
{
    double *sums = calloc(width, 2 * sizeof *sums);
    if (sums == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for sums of features of width %u", width);
    }
    double same = 0, all = 0;
    for (uint64_t r = 0; r < count; r++) {
        const float *a = left + r * width, *b = right + r * width;
        double a_scale = scale_of(a, width), b_scale = scale_of(b, width), product = 0;
        for (uint32_t i = 0; i < width; i++) {
            sums[i] += (double)a[i] * a_scale;
            sums[width + i] += (double)b[i] * b_scale;
            product += (double)a[i] * (double)b[i];
        }
        same += product * a_scale * b_scale;
    }
    for (uint32_t i = 0; i < width; i++) {
        all += sums[i] * sums[width + i];
    }
    free(sums);
    *positive = same / (double)count;
    *negative = (all - same) / ((double)count * ((double)count - 1));
    return STATUS_OK;
}

// --- all of it -------------------------------------------------------------------------------

static enum status measure(struct quality_figures *out, const float *view, const float *left,
                           const float *right, uint64_t count, uint32_t width, struct error *error)
{
    out->width = width;
    enum status status = quality_rank(&out->rank, view, count, width, error);
    return status == STATUS_OK ? quality_cosines(&out->positive_cosine, &out->negative_cosine, left,
                                                 right, count, width, error)
                               : status;
}

enum status quality_score(struct quality *out, struct encoder *encoder,
                          const struct dataset *dataset, const struct quality_config *config,
                          const struct probe_options *options, struct error *error)
{
    *out = (struct quality){0};
    if (dataset_count(dataset) < 2 || config->limit < 2) {
        return error_set(error, STATUS_INVALID, dataset_directory(dataset), NOWHERE, NOWHERE,
                         "quality needs two images at least");
    }
    struct features view = {0}, pair[2] = {{0}, {0}};
    uint64_t limit = (uint64_t)config->limit;
    enum status status =
        features_sample(&view, 1, encoder, dataset, limit, config->seed, options, error);
    if (status == STATUS_OK) {
        status = features_sample(pair, 2, encoder, dataset, limit, config->seed, options, error);
    }
    out->images = view.count;
    if (status == STATUS_OK) {
        status = measure(&out->features, view.values, pair[0].values, pair[1].values, view.count,
                         view.width, error);
    }
    if (status == STATUS_OK && view.projections) {
        status = measure(&out->projections, view.projections, pair[0].projections,
                         pair[1].projections, view.count, view.projection_width, error);
    }
    features_free(&view);
    features_free(&pair[0]);
    features_free(&pair[1]);
    return status;
}
