// Columns first, then rows, with 14-bit weights: integers, so that no machine rounds otherwise.
#include "tools/convert_resize.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT_BITS     14
#define REACH           2.0 // of the filter, in pixels of the result
#define QUALITY_DEFAULT 90
#define SIDE_MAX        16384

// Which pixels make one pixel of the result, and with which weights.
struct taps {
    uint32_t first, count;
    int32_t *weight;
};

bool convert_resize_parse(const char *text, struct convert_resize *resize)
{
    int used = 0;
    *resize = (struct convert_resize){.quality = QUALITY_DEFAULT};
    bool whole = sscanf(text, "short=%" SCNd64 "%n", &resize->side, &used) == 1 && used > 0;
    if (whole && text[used] != '\0') {
        int more = 0;
        whole = sscanf(text + used, ",quality=%" SCNd64 "%n", &resize->quality, &more) == 1 &&
                more > 0 && text[used + more] == '\0';
    }
    return whole && resize->side >= 1 && resize->side <= SIDE_MAX && resize->quality >= 1 &&
           resize->quality <= 100;
}

static double keys(double x)
{
    x = fabs(x);
    if (x < 1) {
        return (1.5 * x - 2.5) * x * x + 1;
    }
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

static void fill_taps(struct taps *taps, uint32_t number, uint32_t from, uint32_t to)
{
    double factor = (double)from / (double)to, centre = ((double)number + 0.5) * factor;
    double low = centre - REACH * factor, high = centre + REACH * factor;
    taps->first = low > 0 ? (uint32_t)low : 0;
    uint32_t end = high < (double)from ? (uint32_t)ceil(high) : from;
    taps->count = end - taps->first;
    double sum = 0;
    for (uint32_t i = 0; i < taps->count; i++) {
        sum += keys(((double)(taps->first + i) + 0.5 - centre) / factor);
    }
    int32_t total = 0;
    uint32_t largest = 0;
    for (uint32_t i = 0; i < taps->count; i++) {
        double weight = keys(((double)(taps->first + i) + 0.5 - centre) / factor) / sum;
        taps->weight[i] = (int32_t)lrint(weight * (1 << WEIGHT_BITS));
        total += taps->weight[i];
        largest = taps->weight[i] > taps->weight[largest] ? i : largest;
    }
    taps->weight[largest] += (1 << WEIGHT_BITS) - total; // so that grey stays grey
}

// One allocation for the taps of a whole side.
static struct taps *make_taps(uint32_t from, uint32_t to, struct error *error)
{
    size_t most = (size_t)ceil(2 * REACH * (double)from / (double)to) + 2;
    struct taps *taps = calloc(to, sizeof *taps + most * sizeof(int32_t));
    if (taps == NULL) {
        error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory to resize");
        return NULL;
    }
    int32_t *weights = (int32_t *)(taps + to);
    for (uint32_t i = 0; i < to; i++) {
        taps[i].weight = weights + i * most;
        fill_taps(&taps[i], i, from, to);
    }
    return taps;
}

static uint8_t rounded(int32_t sum)
{
    int32_t value = (sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void scale_columns(const struct image *from, const struct taps *taps, struct image *out)
{
    for (uint32_t y = 0; y < from->height; y++) {
        const uint8_t *row = from->pixels + (size_t)y * from->width * 3;
        uint8_t *to = out->pixels + (size_t)y * out->width * 3;
        for (uint32_t x = 0; x < out->width; x++, to += 3) {
            const uint8_t *pixel = row + (size_t)taps[x].first * 3;
            int32_t sum[3] = {0};
            for (uint32_t i = 0; i < taps[x].count; i++, pixel += 3) {
                int32_t weight = taps[x].weight[i];
                sum[0] += weight * pixel[0];
                sum[1] += weight * pixel[1];
                sum[2] += weight * pixel[2];
            }
            for (int c = 0; c < 3; c++) {
                to[c] = rounded(sum[c]);
            }
        }
    }
}

static enum status scale_rows(const struct image *from, const struct taps *taps, struct image *out,
                              struct error *error)
{
    size_t stride = (size_t)from->width * 3;
    int32_t *sums = malloc((stride + 1) * sizeof *sums);
    if (sums == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory to resize");
    }
    for (uint32_t y = 0; y < out->height; y++) {
        memset(sums, 0, stride * sizeof *sums);
        for (uint32_t i = 0; i < taps[y].count; i++) {
            const uint8_t *row = from->pixels + (taps[y].first + i) * stride;
            int32_t weight = taps[y].weight[i];
            for (size_t x = 0; x < stride; x++) {
                sums[x] += weight * row[x];
            }
        }
        for (size_t x = 0; x < stride; x++) {
            out->pixels[y * stride + x] = rounded(sums[x]);
        }
    }
    free(sums);
    return STATUS_OK;
}

static uint32_t scaled(uint32_t length, uint32_t shorter, uint32_t side)
{
    uint64_t value = ((uint64_t)length * side + shorter / 2) / shorter;
    return value > 0 ? (uint32_t)value : 1;
}

enum status convert_resize_image(const struct image *from, uint32_t side, struct image *out,
                                 struct image *room, struct error *error)
{
    uint32_t shorter = from->width < from->height ? from->width : from->height;
    uint32_t width = scaled(from->width, shorter, side);
    uint32_t height = scaled(from->height, shorter, side);
    struct taps *columns = make_taps(from->width, width, error);
    struct taps *rows = columns ? make_taps(from->height, height, error) : NULL;
    enum status status = rows ? STATUS_OK : STATUS_NO_MEMORY;
    if (status == STATUS_OK) {
        status = image_reserve(room, width, from->height, error);
    }
    if (status == STATUS_OK) {
        status = image_reserve(out, width, height, error);
    }
    if (status == STATUS_OK) {
        scale_columns(from, columns, room);
        status = scale_rows(room, rows, out, error);
    }
    free(columns);
    free(rows);
    return status;
}
