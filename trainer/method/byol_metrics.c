// What a step of BYOL has measured, from what it left on the host.
#include "trainer/method/byol_internal.h"

#include "trainer/method/spread.h"

#include <math.h>
#include <string.h>

static double sum_of(const float *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
    }
    return sum;
}

// Sums over the share of this process, and then over all.
static enum status sum_up(struct byol *byol, struct byol_place *place)
{
    size_t share = byol->share, width = projection_width(byol);
    const int32_t *labels = byol_place_labels(byol, place);
    const uint8_t *top = byol_place_top(byol, place);
    double *sums = byol->sums;
    memset(sums, 0, BYOL_SUMS * sizeof *sums);
    sums[BYOL_REGRESSION] = sum_of(place->values, 2 * share); // both directions
    sums[BYOL_CLASSIFICATION] = sum_of(place->values + 2 * share, share);
    for (size_t i = 0; i < share; i++) {
        sums[BYOL_TOP1] += labels[i] >= 0 && top[i];
        sums[BYOL_TOP5] += labels[i] >= 0 && top[share + i];
    }
    spread_sums(byol_place_projections(byol, place), share, byol->micro, width, sums + BYOL_SUMS);
    return byol_add_up(byol, sums, BYOL_SUMS + SPREAD_SUMS(width));
}

enum status byol_collect(struct method *method, struct method_metrics *metrics, struct error *error)
{
    struct byol *byol = byol_of(method);
    void *memory;
    enum status status = queue_collect(byol->queue, &memory, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct byol_place *place = memory;
    double batch = byol->config.batch, labelled = place->labelled;
    const double *sums = byol->sums;
    *metrics = place->metrics;
    status = sum_up(byol, place);
    if (status != STATUS_OK) {
        return byol_failed(byol, status, error);
    }
    metrics->representation = 2 * (sums[BYOL_REGRESSION] / (2 * batch));
    metrics->classification = 0;
    metrics->top1 = metrics->top5 = NAN;
    if (place->labelled > 0) {
        metrics->classification = sums[BYOL_CLASSIFICATION] / batch * (batch / labelled);
        metrics->top1 = sums[BYOL_TOP1] / labelled;
        metrics->top5 = sums[BYOL_TOP5] / labelled;
    }
    metrics->loss = metrics->representation + metrics->classification;
    const struct spread spread =
        spread_of(sums + BYOL_SUMS, byol->config.batch, projection_width(byol));
    metrics->spread = spread.deviation;
    metrics->positive_cosine = spread.positive_cosine;
    metrics->negative_cosine = spread.negative_cosine;
    metrics->notice = queue_notice(byol->queue);
    return STATUS_OK;
}
