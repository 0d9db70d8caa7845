// What `byol bench step` says: the plan, then the figures, as text or as JSON.
#include "tools/bench_step.h"
#include "tools/measure.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define MIB 1048576.0

static const char *const precision_names[] = {"auto", "f32", "bf16"}; // enum device_precision

// --- the plan

static void print_ops(const char *name, const size_t counts[OP_KINDS])
{
    size_t total = 0;
    printf("%-16s ", name);
    for (size_t kind = 0; kind < OP_KINDS; kind++) {
        total += counts[kind];
        if (counts[kind] > 0) {
            printf("%zu %s, ", counts[kind], op_kind_names[kind]);
        }
    }
    printf("%zu in all\n", total);
}

void step_bench_print_plan(const struct step_bench *bench)
{
    char device[128];
    struct method_plan plan;
    bench->device->ops->describe(bench->device, device, sizeof device);
    bench->method->ops->plan(bench->method, &plan);
    printf("device           %s\n", device);
    printf("precision        %s\n", precision_names[bench->device->precision]);
    printf("parameters       %.2f million\n", (double)plan.parameters / 1e6);
    print_ops("online ops", plan.online_ops);
    print_ops("target ops", plan.target_ops);
    printf("planned          %.1f MiB: arenas %.1f (online) and %.1f (target), parameters, "
           "optimiser and gradients %.1f, batch %.1f\n",
           (double)bench->method->ops->memory(bench->method) / MIB,
           (double)plan.online_arena_bytes / MIB, (double)plan.target_arena_bytes / MIB,
           (double)plan.parameter_bytes / MIB, (double)plan.batch_bytes / MIB);
    fflush(stdout);
}

// --- the figures

// Of the ascending times: 0 is the fastest, 2 the median, 4 the slowest.
static double quartile(const struct step_bench *bench, int which)
{
    double place = (double)(bench->steps - 1) * which / 4;
    size_t below = (size_t)place, above = below + (place > (double)below);
    double share = place - (double)below;
    return (1 - share) * bench->seconds[below] + share * bench->seconds[above];
}

// Of all time, what is neither ops nor optimiser.
static double other_share(const struct step_bench *bench)
{
    double other = bench->total - bench->optimiser;
    for (size_t kind = 0; kind < OP_KINDS; kind++) {
        other -= bench->kinds[kind];
    }
    return other / bench->total;
}

static double forward_share(const struct step_bench *bench, size_t kind)
{
    return (bench->kinds[kind] - bench->backward[kind]) / bench->total;
}

static double backward_share(const struct step_bench *bench, size_t kind)
{
    return bench->backward[kind] / bench->total;
}

void step_bench_print_text(const struct step_bench *bench)
{
    printf("pairs/s          %.2f\n", (double)bench->batch / quartile(bench, 2));
    printf("step             %.1f ms (median of %" PRId64
           "; %.1f fastest, %.1f and %.1f quartiles, "
           "%.1f slowest)\n",
           quartile(bench, 2) * 1e3, bench->steps, quartile(bench, 0) * 1e3,
           quartile(bench, 1) * 1e3, quartile(bench, 3) * 1e3, quartile(bench, 4) * 1e3);
    if (bench->device->ops->steps_ahead > 0) {
        printf("in flight        %u steps; %" PRId64
               " others, each op waited for, took %.1f ms each:\n",
               1 + bench->device->ops->steps_ahead, bench->profiled,
               1e3 * bench->total / (double)bench->profiled);
    }
    printf("of the step      forward  backward\n");
    for (size_t kind = 0; kind < OP_KINDS; kind++) {
        if (bench->kinds[kind] > 0) {
            printf("%-16s %5.1f %%   %5.1f %%\n", op_kind_names[kind],
                   100 * forward_share(bench, kind), 100 * backward_share(bench, kind));
        }
    }
    printf("optimiser        %5.1f %%\n", 100 * bench->optimiser / bench->total);
    printf("other            %5.1f %%\n", 100 * other_share(bench));
    printf("memory           %.1f MiB at the peak\n", (double)measure_peak_memory() / MIB);
    if (bench->device->ops->peak_memory != NULL) {
        printf("device memory    %.1f MiB at the peak\n",
               (double)bench->device->ops->peak_memory(bench->device) / MIB);
    }
    if (bench->allocations >= 0) {
        printf("allocations      %" PRId64 " in these steps\n", bench->allocations);
    }
    printf("loss             %.4f\n", bench->loss);
}

static json_t *shares(const struct step_bench *bench,
                      double (*share)(const struct step_bench *bench, size_t kind))
{
    json_t *object = json_object();
    for (size_t kind = 0; kind < OP_KINDS; kind++) {
        json_object_set_new(object, op_kind_names[kind], json_real(share(bench, kind)));
    }
    return object;
}

static double both_shares(const struct step_bench *bench, size_t kind)
{
    return bench->kinds[kind] / bench->total;
}

static json_t *all_shares(const struct step_bench *bench)
{
    json_t *object = shares(bench, both_shares);
    json_object_set_new(object, "optimiser", json_real(bench->optimiser / bench->total));
    json_object_set_new(object, "other", json_real(other_share(bench)));
    return object;
}

static json_t *spread(const struct step_bench *bench)
{
    return json_pack("{s:f, s:f, s:f, s:f}", "fastest", quartile(bench, 0), "lower_quartile",
                     quartile(bench, 1), "upper_quartile", quartile(bench, 3), "slowest",
                     quartile(bench, 4));
}

static void set_memory(const struct step_bench *bench, json_t *result)
{
    struct method_plan plan;
    bench->method->ops->plan(bench->method, &plan);
    json_object_update_new(
        result, json_pack("{s:I, s:I, s:{s:I, s:I, s:I, s:I}, s:I}", "peak_memory_bytes",
                          (json_int_t)measure_peak_memory(), "planned_memory_bytes",
                          (json_int_t)bench->method->ops->memory(bench->method), "planned",
                          "online_arena", (json_int_t)plan.online_arena_bytes, "target_arena",
                          (json_int_t)plan.target_arena_bytes, "parameters",
                          (json_int_t)plan.parameter_bytes, "batch", (json_int_t)plan.batch_bytes,
                          "parameters", (json_int_t)plan.parameters));
    uint64_t (*peak)(struct device *) = bench->device->ops->peak_memory;
    json_object_set_new(result, "device_peak_memory_bytes",
                        peak == NULL ? json_null() : json_integer((json_int_t)peak(bench->device)));
}

void step_bench_print_json(const struct step_bench *bench)
{
    char device[128];
    bench->device->ops->describe(bench->device, device, sizeof device);
    json_t *result = json_pack(
        "{s:f, s:f, s:f, s:o, s:I, s:I, s:s, s:s, s:s, s:o, s:o, s:o, s:f}", "pairs_per_second",
        (double)bench->batch / quartile(bench, 2), "step_seconds", quartile(bench, 2),
        "fastest_step_seconds", quartile(bench, 0), "spread", spread(bench), "steps",
        (json_int_t)bench->steps, "batch", (json_int_t)bench->batch, "net", bench->net, "device",
        device, "precision", precision_names[bench->device->precision], "shares", all_shares(bench),
        "forward_shares", shares(bench, forward_share), "backward_shares",
        shares(bench, backward_share), "loss", bench->loss);
    set_memory(bench, result);
    json_object_set_new(result, "allocations",
                        bench->allocations < 0 ? json_null()
                                               : json_integer((json_int_t)bench->allocations));
    json_object_set_new(result, "steps_in_flight",
                        json_integer(1 + (json_int_t)bench->device->ops->steps_ahead));
    // Images have one layout from the first op to the pooling, whatever the device: none by
    // construction.
    json_object_set_new(result, "layout_changes", json_integer(0));
    json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(result);
}
