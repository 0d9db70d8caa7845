// The loops of batch normalisation over the values of images: each written once, and compiled for
// both precisions and for what is fused.
#include "trainer/device/cpu_norm.h"

// Values in a run: 64 rows of lanes are added up in float32 before they go into a double.
#define RUN   (64 * (size_t)CPU_LANES)
#define LONG  32768 // bytes of a plane
#define AHEAD 4096  // bytes on their way at a time, about

// Where the gradient behind the ReLU comes from: it is dy itself, or where the result was positive,
// which x tells again, or which y says.
enum gate { GATE_OPEN, GATE_BY_X, GATE_BY_Y };

// Calls know whether `left` is CPU_LANES, so that whole rows need no test.
CPU_INLINE void load(cpu_lanes *to, const void *base, size_t index, size_t left, bool half)
{
    if (half && left == CPU_LANES) {
        cpu_halves_load(to, base, index);
    } else {
        cpu_lanes_load(to, base, index, left, half);
    }
}

CPU_INLINE void store(void *base, size_t index, const cpu_lanes *from, size_t left, bool half)
{
    if (half && left == CPU_LANES) {
        cpu_halves_store(base, index, from);
    } else {
        cpu_lanes_store(base, index, from, left, half);
    }
}

CPU_INLINE size_t run_length(size_t left)
{
    return left < RUN ? left : RUN;
}

// The processor sees by itself where reading goes, but not beyond a page and not to the next plane.
// How many bytes ahead to ask for values: a little further on in a long plane, in a later image's
// plane where they are short.
CPU_INLINE size_t bytes_ahead(const struct norm_span *span, bool half)
{
    size_t size = cpu_value_bytes(half), bytes = span->values * size;
    return bytes > LONG ? AHEAD : (1 + AHEAD / bytes) * span->stride * size;
}

// Nothing is read: the address may lie behind the tensor.
CPU_INLINE void ask(const void *base, size_t index, size_t ahead, bool half)
{
    __builtin_prefetch((const char *)base + index * cpu_value_bytes(half) + ahead);
}

// --- statistics ----------------------------------------------------------------------------------

CPU_INLINE void add_sums(struct norm_sums *sums, const cpu_lanes *first, const cpu_lanes *second)
{
    for (int i = 0; i < CPU_LANES; i++) {
        sums->first[i] += (double)(*first)[i];
        sums->second[i] += (double)(*second)[i];
    }
}

CPU_INLINE void measure_run(struct norm_sums *sums, const void *x, size_t at, size_t count,
                            size_t ahead, bool half)
{
    cpu_lanes sum = {0}, squares = {0}, value;
    size_t i = 0;
    for (; i + CPU_LANES <= count; i += CPU_LANES) {
        ask(x, at + i, ahead, half);
        load(&value, x, at + i, CPU_LANES, half);
        sum += value;
        squares += value * value;
    }
    if (i < count) {
        load(&value, x, at + i, count - i, half);
        sum += value;
        squares += value * value;
    }
    add_sums(sums, &sum, &squares);
}

CPU_INLINE void measure(struct norm_sums *sums, const struct norm_tensors *tensors,
                        const struct norm_span *span, bool half)
{
    size_t ahead = bytes_ahead(span, half);
    for (size_t image = 0; image < span->images; image++) {
        size_t at = span->first + image * span->stride;
        struct norm_sums own = {{0}, {0}};
        for (size_t i = 0; i < span->values; i += RUN) {
            measure_run(&own, tensors->x, at + i, run_length(span->values - i), ahead, half);
        }
        sums[image] = own;
    }
}

CPU_KERNEL static void add_planes(struct norm_sums *total, const struct norm_sums *sums,
                                  size_t images)
{
    struct norm_sums all = {{0}, {0}};
    for (size_t image = 0; image < images; image++) {
        for (int i = 0; i < CPU_LANES; i++) {
            all.first[i] += sums[image].first[i];
            all.second[i] += sums[image].second[i];
        }
    }
    *total = all;
}

void cpu_norm_total(struct norm_sums *total, const struct norm_sums *sums, size_t images)
{
    add_planes(total, sums, images);
}

// --- results -------------------------------------------------------------------------------------

CPU_INLINE void apply_row(const struct norm_tensors *tensors, const struct norm_lanes *lanes,
                          size_t at, size_t left, bool relu, bool join, bool half)
{
    cpu_lanes value, other;
    load(&value, tensors->x, at, left, half);
    value = (value - lanes->mean) * lanes->factor + lanes->offset;
    if (join) {
        load(&other, tensors->x2, at, left, half);
        value += other;
    }
    if (relu) {
        cpu_lanes_cut_negative(&value);
    }
    store(tensors->y, at, &value, left, half);
}

CPU_INLINE void apply(const struct norm_tensors *given, const struct norm_span *span, bool relu,
                      bool join, bool half)
{
    struct norm_lanes lanes = *span->lanes; // copies, which stores do not change
    struct norm_tensors tensors = *given;
    size_t values = span->values, ahead = bytes_ahead(span, half);
    for (size_t image = 0; image < span->images; image++) {
        size_t at = span->first + image * span->stride, i = 0;
        for (; i + CPU_LANES <= values; i += CPU_LANES) {
            ask(tensors.y, at + i, ahead, half);
            if (join) {
                ask(tensors.x2, at + i, ahead, half);
            }
            apply_row(&tensors, &lanes, at + i, CPU_LANES, relu, join, half);
        }
        if (i < values) {
            apply_row(&tensors, &lanes, at + i, values - i, relu, join, half);
        }
    }
}

CPU_INLINE void apply_any(const struct norm_tensors *tensors, const struct norm_span *span,
                          bool half)
{
    if (span->relu && span->join) {
        apply(tensors, span, true, true, half);
    } else if (span->relu) {
        apply(tensors, span, true, false, half);
    } else if (span->join) {
        apply(tensors, span, false, true, half);
    } else {
        apply(tensors, span, false, false, half);
    }
}

// --- gradients -----------------------------------------------------------------------------------

// The gradient behind the ReLU, and x without the mean.
CPU_INLINE void load_gradient(cpu_lanes *gradient, cpu_lanes *centred,
                              const struct norm_tensors *tensors, const struct norm_lanes *lanes,
                              size_t at, size_t left, enum gate gate, bool half)
{
    cpu_lanes value;
    load(centred, tensors->x, at, left, half);
    load(gradient, tensors->dy, at, left, half);
    *centred -= lanes->mean;
    if (gate == GATE_BY_X) {
        value = *centred * lanes->factor + lanes->offset;
        cpu_lanes_keep_positive(gradient, &value);
    } else if (gate == GATE_BY_Y) {
        load(&value, tensors->y, at, left, half);
        cpu_lanes_keep_positive(gradient, &value);
    }
}

CPU_INLINE void collect_row(cpu_lanes *sum, cpu_lanes *products, const struct norm_tensors *tensors,
                            const struct norm_lanes *lanes, size_t at, size_t left, enum gate gate,
                            bool pass, bool half)
{
    cpu_lanes gradient, centred;
    load_gradient(&gradient, &centred, tensors, lanes, at, left, gate, half);
    if (pass) {
        store(tensors->dx2, at, &gradient, left, half);
    }
    *sum += gradient;
    *products += gradient * (centred * lanes->inverse);
}

// One run of rows.
CPU_INLINE void collect_run(struct norm_sums *sums, const struct norm_tensors *tensors,
                            const struct norm_lanes *lanes, size_t at, size_t count, size_t ahead,
                            enum gate gate, bool pass, bool half)
{
    cpu_lanes sum = {0}, products = {0};
    size_t i = 0;
    for (; i + CPU_LANES <= count; i += CPU_LANES) {
        ask(tensors->x, at + i, ahead, half);
        ask(tensors->dy, at + i, ahead, half);
        if (gate == GATE_BY_Y) {
            ask(tensors->y, at + i, ahead, half);
        }
        if (pass) {
            ask(tensors->dx2, at + i, ahead, half);
        }
        collect_row(&sum, &products, tensors, lanes, at + i, CPU_LANES, gate, pass, half);
    }
    if (i < count) {
        collect_row(&sum, &products, tensors, lanes, at + i, count - i, gate, pass, half);
    }
    add_sums(sums, &sum, &products);
}

// `pass`: what reaches x2 goes to dx2.
CPU_INLINE void collect(struct norm_sums *sums, const struct norm_tensors *given,
                        const struct norm_span *span, enum gate gate, bool pass, bool half)
{
    struct norm_lanes lanes = *span->lanes;
    struct norm_tensors tensors = *given;
    size_t values = span->values, ahead = bytes_ahead(span, half);
    for (size_t image = 0; image < span->images; image++) {
        size_t at = span->first + image * span->stride;
        struct norm_sums own = {{0}, {0}};
        for (size_t i = 0; i < values; i += RUN) {
            collect_run(&own, &tensors, &lanes, at + i, run_length(values - i), ahead, gate, pass,
                        half);
        }
        sums[image] = own;
    }
}

static enum gate gate_of(const struct norm_span *span)
{
    return !span->relu ? GATE_OPEN : span->join ? GATE_BY_Y : GATE_BY_X;
}

CPU_INLINE void collect_any(struct norm_sums *sums, const struct norm_tensors *tensors,
                            const struct norm_span *span, bool half)
{
    enum gate gate = gate_of(span);
    bool pass = tensors->dx2 != NULL && (gate != GATE_OPEN || tensors->dx2 != tensors->dy);
    if (gate == GATE_BY_X) {
        collect(sums, tensors, span, GATE_BY_X, false, half);
    } else if (gate == GATE_BY_Y && pass) {
        collect(sums, tensors, span, GATE_BY_Y, true, half);
    } else if (gate == GATE_BY_Y) {
        collect(sums, tensors, span, GATE_BY_Y, false, half);
    } else if (pass) {
        collect(sums, tensors, span, GATE_OPEN, true, half);
    } else {
        collect(sums, tensors, span, GATE_OPEN, false, half);
    }
}

// dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)), where dy counts only behind the ReLU.
CPU_INLINE void differentiate_row(const struct norm_tensors *tensors,
                                  const struct norm_lanes *lanes, size_t at, size_t left,
                                  enum gate gate, bool half)
{
    cpu_lanes gradient, centred;
    load_gradient(&gradient, &centred, tensors, lanes, at, left, gate, half);
    gradient = lanes->factor *
               (gradient - lanes->mean_gradient - centred * lanes->inverse * lanes->mean_product);
    store(tensors->dx, at, &gradient, left, half);
}

CPU_INLINE void differentiate(const struct norm_tensors *given, const struct norm_span *span,
                              enum gate gate, bool half)
{
    struct norm_lanes lanes = *span->lanes;
    struct norm_tensors tensors = *given;
    size_t values = span->values;
    size_t ahead = tensors.dx == tensors.dy ? 0 : bytes_ahead(span, half);
    for (size_t image = 0; image < span->images; image++) {
        size_t at = span->first + image * span->stride, i = 0;
        for (; i + CPU_LANES <= values; i += CPU_LANES) {
            ask(tensors.dx, at + i, ahead, half);
            differentiate_row(&tensors, &lanes, at + i, CPU_LANES, gate, half);
        }
        if (i < values) {
            differentiate_row(&tensors, &lanes, at + i, values - i, gate, half);
        }
    }
}

CPU_INLINE void differentiate_any(const struct norm_tensors *given, const struct norm_span *span,
                                  bool half)
{
    struct norm_tensors tensors = *given;
    enum gate gate = gate_of(span);
    if (tensors.dx2 != NULL) { // holds the gradient behind the ReLU
        tensors.dy = tensors.dx2;
        gate = GATE_OPEN;
    }
    if (gate == GATE_BY_X) {
        differentiate(&tensors, span, GATE_BY_X, half);
    } else if (gate == GATE_BY_Y) {
        differentiate(&tensors, span, GATE_BY_Y, half);
    } else {
        differentiate(&tensors, span, GATE_OPEN, half);
    }
}

// --- one of each for float32 and for bfloat16 ----------------------------------------------------

CPU_KERNEL static void measure_floats(struct norm_sums *sums, const struct norm_tensors *tensors,
                                      const struct norm_span *span)
{
    measure(sums, tensors, span, false);
}

CPU_HALF_KERNEL static void measure_halves(struct norm_sums *sums,
                                           const struct norm_tensors *tensors,
                                           const struct norm_span *span)
{
    measure(sums, tensors, span, true);
}

CPU_KERNEL static void apply_floats(const struct norm_tensors *tensors,
                                    const struct norm_span *span)
{
    apply_any(tensors, span, false);
}

CPU_HALF_KERNEL static void apply_halves(const struct norm_tensors *tensors,
                                         const struct norm_span *span)
{
    apply_any(tensors, span, true);
}

CPU_KERNEL static void collect_floats(struct norm_sums *sums, const struct norm_tensors *tensors,
                                      const struct norm_span *span)
{
    collect_any(sums, tensors, span, false);
}

CPU_HALF_KERNEL static void collect_halves(struct norm_sums *sums,
                                           const struct norm_tensors *tensors,
                                           const struct norm_span *span)
{
    collect_any(sums, tensors, span, true);
}

CPU_KERNEL static void differentiate_floats(const struct norm_tensors *tensors,
                                            const struct norm_span *span)
{
    differentiate_any(tensors, span, false);
}

CPU_HALF_KERNEL static void differentiate_halves(const struct norm_tensors *tensors,
                                                 const struct norm_span *span)
{
    differentiate_any(tensors, span, true);
}

void cpu_norm_measure(struct norm_sums *sums, const struct norm_tensors *tensors,
                      const struct norm_span *span)
{
    (span->half ? measure_halves : measure_floats)(sums, tensors, span);
}

void cpu_norm_apply(const struct norm_tensors *tensors, const struct norm_span *span)
{
    (span->half ? apply_halves : apply_floats)(tensors, span);
}

void cpu_norm_collect(struct norm_sums *sums, const struct norm_tensors *tensors,
                      const struct norm_span *span)
{
    (span->half ? collect_halves : collect_floats)(sums, tensors, span);
}

void cpu_norm_differentiate(const struct norm_tensors *tensors, const struct norm_span *span)
{
    (span->half ? differentiate_halves : differentiate_floats)(tensors, span);
}
