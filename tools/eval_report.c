// The results of `byol eval` in words and as JSON.
#include "tools/eval.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "tools/json_text.h"
#include "tools/not_exact.h"

const char *const eval_probe_names[EVAL_PROBES] = {"linear", "knn", "quality", "features"};

// --- JSON ------------------------------------------------------------------------------------

static json_t *trial_json(const struct linear_trial *trial)
{
    return json_pack("{s:f, s:b, s:f, s:f, s:f, s:f}", "learning_rate", trial->learning_rate,
                     "diverged", trial->diverged, "held_out_top1", trial->held_out_top1,
                     "train_top1", trial->train_top1, "top1", trial->top1, "top5", trial->top5);
}

static void add_linear(json_t *object, const struct eval_request *request,
                       const struct probe_score *result)
{
    json_object_set_new(object, "train_top1", json_real(result->train_top1));
    json_object_set_new(object, "learning_rate", json_real(result->learning_rate));
    json_object_set_new(object, "epochs", json_integer(request->linear.epochs));
    json_object_set_new(object, "cached", json_boolean(request->linear.cached));
    bool sweep = result->trial_count > 1;
    json_object_set_new(object, "chosen_on", sweep ? json_string("held_out") : json_null());
    json_object_set_new(object, "held_out",
                        sweep ? json_integer((json_int_t)result->held_out) : json_null());
    json_t *trials = json_array();
    for (uint32_t i = 0; sweep && i < result->trial_count; i++) {
        json_array_append_new(trials, trial_json(&result->trials[i]));
    }
    json_object_set_new(object, "learning_rates", trials);
}

static void add_knn(json_t *object, const struct eval_request *request,
                    const struct probe_score *result)
{
    bool cosine = request->knn.distance == KNN_COSINE;
    json_t *by_k = json_array();
    json_object_set_new(object, "convention", json_string(request->convention));
    json_object_set_new(object, "k", json_integer(request->knn.k));
    json_object_set_new(object, "temperature",
                        cosine ? json_real(request->knn.temperature) : json_null());
    json_object_set_new(object, "distance", json_string(cosine ? "cosine" : "euclidean"));
    for (size_t i = 0; i < KNN_MORE && result->more[i].k > 0; i++) {
        const struct knn_more *more = &result->more[i];
        json_array_append_new(by_k, json_pack("{s:I, s:f, s:f}", "k", (json_int_t)more->k, "top1",
                                              more->top1, "top5", more->top5));
    }
    json_object_set_new(object, "more", by_k);
}

static void add_score(json_t *object, const struct eval_request *request,
                      const struct probe_score *result)
{
    json_object_set_new(object, "top1", json_real(result->top1));
    json_object_set_new(object, "top5", json_real(result->top5));
    json_object_set_new(object, "count", json_integer((json_int_t)result->count));
    if (request->probe == EVAL_LINEAR) {
        add_linear(object, request, result);
    } else {
        add_knn(object, request, result);
    }
}

static json_t *figures_json(const struct quality_figures *figures)
{
    return figures->width == 0
               ? json_null()
               : json_pack("{s:i, s:f, s:f, s:f}", "width", (int)figures->width, "rankme",
                           figures->rank, "positive_cosine", figures->positive_cosine,
                           "negative_cosine", figures->negative_cosine);
}

static void add_quality(json_t *object, const struct quality *quality)
{
    json_object_set_new(object, "count", json_integer((json_int_t)quality->images));
    json_object_set_new(object, "features", figures_json(&quality->features));
    json_object_set_new(object, "projections", figures_json(&quality->projections));
}

static void add_export(json_t *object, const struct eval_request *request,
                       const struct eval_export *exported)
{
    uint32_t projections = exported->projection_width;
    json_object_set_new(object, "output", json_text(request->output));
    json_object_set_new(object, "count", json_integer((json_int_t)exported->count));
    json_object_set_new(object, "width", json_integer((json_int_t)exported->width));
    json_object_set_new(object, "projection_width",
                        projections > 0 ? json_integer((json_int_t)projections) : json_null());
}

// What was done to each dataset's images, or null.
static json_t *exactness(const struct eval_bench *bench)
{
    return bench->data ? json_pack("{s:o}", "data", not_exact_json(bench->data))
                       : json_pack("{s:o, s:o}", "train", not_exact_json(bench->train), "test",
                                   not_exact_json(bench->test));
}

static void print_json(const struct eval_request *request, const struct eval_bench *bench,
                       const struct eval_result *result)
{
    json_t *object = json_object();
    json_object_set_new(object, "probe", json_string(eval_probe_names[request->probe]));
    json_object_set_new(object, "untrained", json_boolean(request->untrained));
    json_object_set_new(object, "checkpoint", json_text(bench->checkpoint));
    json_object_set_new(object, "not_exact", exactness(bench));
    if (request->probe == EVAL_QUALITY) {
        add_quality(object, &result->quality);
    } else if (request->probe == EVAL_FEATURES) {
        add_export(object, request, &result->exported);
    } else {
        add_score(object, request, &result->score);
    }
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

// --- words -----------------------------------------------------------------------------------

static void print_trials(const struct probe_score *result)
{
    printf("learning rate %g, chosen on %" PRIu64 " training images held out:\n",
           result->learning_rate, result->held_out);
    for (uint32_t i = 0; i < result->trial_count; i++) {
        const struct linear_trial *trial = &result->trials[i];
        if (trial->diverged) {
            printf("  %-8g diverged\n", trial->learning_rate);
        } else {
            printf("  %-8g held out %.2f%%, test top-1 %.2f%%, top-5 %.2f%%\n",
                   trial->learning_rate, trial->held_out_top1, trial->top1, trial->top5);
        }
    }
}

static void print_score(const struct probe_score *result)
{
    printf("top-1 %.2f%%, top-5 %.2f%% of %" PRIu64 " test images", result->top1, result->top5,
           result->count);
}

static void print_details(const struct probe_score *result)
{
    for (size_t i = 0; i < KNN_MORE && result->more[i].k > 0; i++) {
        printf("  k %" PRId64 ": top-1 %.2f%%, top-5 %.2f%%\n", result->more[i].k,
               result->more[i].top1, result->more[i].top5);
    }
    if (result->trial_count > 1) {
        print_trials(result);
    }
}

static void print_figures(const char *name, const struct quality_figures *figures)
{
    if (figures->width > 0) {
        printf("  %-12s RankMe %.2f of %u, cosine of views of one image %.4f, of different images "
               "%.4f\n",
               name, figures->rank, figures->width, figures->positive_cosine,
               figures->negative_cosine);
    }
}

void eval_report(const struct eval_request *request, const struct eval_bench *bench,
                 const struct eval_result *result)
{
    if (request->json) {
        print_json(request, bench, result);
        return;
    }
    printf("%s%s: ", eval_probe_names[request->probe],
           request->untrained ? ", untrained encoder" : "");
    if (request->probe == EVAL_QUALITY) {
        printf("%" PRIu64 " images", result->quality.images);
    } else if (request->probe == EVAL_FEATURES) {
        printf("%" PRIu64 " x %u values in %s", result->exported.count, result->exported.width,
               request->output);
    } else {
        print_score(&result->score);
    }
    printf(" (%s)\n", bench->checkpoint);
    print_details(&result->score);
    print_figures("features", &result->quality.features);
    print_figures("projections", &result->quality.projections);
}
