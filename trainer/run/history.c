// Sums, smoothing, the collapse alarm, and their text form.
#include "trainer/run/history.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define LOW_SHARE       0.2
#define RECOVERED_SHARE 0.4
#define LOW_STEPS       50
#define SMOOTHING       0.95

static void smooth(double *average, double value, bool first)
{
    *average = first || isnan(*average) ? value : SMOOTHING * *average + (1 - SMOOTHING) * value;
}

static enum history_event watch_spread(struct history *history, double spread, double healthy)
{
    history->low_steps = spread < LOW_SHARE * healthy ? history->low_steps + 1 : 0;
    if (!history->collapsed && history->low_steps >= LOW_STEPS) {
        history->collapsed = true;
        return HISTORY_COLLAPSED;
    }
    if (history->collapsed && spread >= RECOVERED_SHARE * healthy) {
        history->collapsed = false;
        return HISTORY_RECOVERED;
    }
    return HISTORY_QUIET;
}

enum history_event history_add(struct history *history, const struct method_metrics *metrics,
                               double healthy)
{
    bool first = history->steps == 0;
    history->loss += metrics->loss;
    history->representation += metrics->representation;
    history->classification += metrics->classification;
    history->top1 += metrics->top1;
    history->top5 += metrics->top5;
    history->spread += metrics->spread;
    history->positive_cosine += metrics->positive_cosine;
    history->negative_cosine += metrics->negative_cosine;
    history->window_steps++;
    history->steps++;
    smooth(&history->smooth_loss, metrics->loss, first);
    smooth(&history->smooth_top1, metrics->top1, first);
    smooth(&history->smooth_spread, metrics->spread, first);
    return watch_spread(history, metrics->spread, healthy);
}

void history_take(struct history *history, struct metrics_line *line)
{
    double steps = history->window_steps > 0 ? (double)history->window_steps : 1;
    line->loss = history->loss / steps;
    line->representation = history->representation / steps;
    line->classification = history->classification / steps;
    line->top1 = history->top1 / steps;
    line->top5 = history->top5 / steps;
    line->spread = history->spread / steps;
    line->positive_cosine = history->positive_cosine / steps;
    line->negative_cosine = history->negative_cosine / steps;
    line->collapsed = history->collapsed;
    history->window_steps = 0;
    history->loss = history->representation = history->classification = 0;
    history->top1 = history->top5 = history->spread = 0;
    history->positive_cosine = history->negative_cosine = 0;
}

// The doubles by name; written with 17 digits, which read back to the same value. What checkpoints
// of older programs lack is unknown until the next line of the log.
static const struct {
    const char *name;
    size_t offset;
    bool may_lack;
} figures[] = {
    {"loss", offsetof(struct history, loss), false},
    {"representation", offsetof(struct history, representation), false},
    {"classification", offsetof(struct history, classification), false},
    {"top1", offsetof(struct history, top1), false},
    {"top5", offsetof(struct history, top5), false},
    {"spread", offsetof(struct history, spread), false},
    {"positive_cosine", offsetof(struct history, positive_cosine), true},
    {"negative_cosine", offsetof(struct history, negative_cosine), true},
    {"smooth_loss", offsetof(struct history, smooth_loss), false},
    {"smooth_top1", offsetof(struct history, smooth_top1), false},
    {"smooth_spread", offsetof(struct history, smooth_spread), false},
    {"seconds", offsetof(struct history, seconds), false},
};

void history_print(const struct history *history, char text[HISTORY_BYTES])
{
    size_t at = (size_t)snprintf(text, HISTORY_BYTES,
                                 "{\"window_steps\":%" PRIu64 ",\"steps\":%" PRIu64
                                 ",\"low_steps\":%" PRIu64 ",\"collapsed\":%s",
                                 history->window_steps, history->steps, history->low_steps,
                                 history->collapsed ? "true" : "false");
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        double value;
        memcpy(&value, (const char *)history + figures[i].offset, sizeof value);
        char number[32] = "null";
        if (isfinite(value)) {
            snprintf(number, sizeof number, "%.17g", value);
        }
        at +=
            (size_t)snprintf(text + at, HISTORY_BYTES - at, ",\"%s\":%s", figures[i].name, number);
    }
    snprintf(text + at, HISTORY_BYTES - at, "}");
}

static bool read_count(const json_t *object, const char *name, uint64_t *count)
{
    const json_t *value = json_object_get(object, name);
    *count = (uint64_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

enum status history_parse(struct history *history, const char *text, struct error *error)
{
    *history = (struct history){0};
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    bool good = json_is_object(object) && read_count(object, "steps", &history->steps) &&
                read_count(object, "window_steps", &history->window_steps) &&
                read_count(object, "low_steps", &history->low_steps);
    history->collapsed = json_is_true(json_object_get(object, "collapsed"));
    for (size_t i = 0; good && i < sizeof figures / sizeof figures[0]; i++) {
        const json_t *number = json_object_get(object, figures[i].name);
        bool lacks = number == NULL && figures[i].may_lack;
        double value = lacks || json_is_null(number) ? NAN : json_number_value(number);
        good = lacks || json_is_null(number) || json_is_number(number);
        memcpy((char *)history + figures[i].offset, &value, sizeof value);
    }
    json_decref(object);
    return good ? STATUS_OK
                : error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                            "the checkpoint's metadata 'history' is not what this program writes");
}
