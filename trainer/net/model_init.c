// The reference's initialisation, drawn element by element: each value depends on the seed, the
// branch, the parameter's name and the element's index alone, never on the order of drawing.
#include "trainer/net/model.h"

#include "augment/philox.h"

#include <math.h>

// FNV-1a, to turn (branch, name) into a key.
static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (; *text; text++) {
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
    }
    return hash;
}

static double polynomial(const double *coefficients, int degree, double x)
{
    double sum = coefficients[degree];
    for (int i = degree - 1; i >= 0; i--) {
        sum = sum * x + coefficients[i];
    }
    return sum;
}

// The quantile of the normal distribution at `probability`, accurate to about 1e-7 within four
// standard deviations (Wichura 1988, algorithm AS 241, PPND7).
static double normal_quantile(double probability)
{
    static const double centre_above[] = {3.3871327179, 50.434271938, 159.29113202, 59.109374720};
    static const double centre_below[] = {1.0, 17.895169469, 78.757757664, 67.187563600};
    static const double tail_above[] = {1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103};
    static const double tail_below[] = {1.0, 0.73700164250, 0.12021132975};
    double distance = probability - 0.5;
    if (fabs(distance) <= 0.425) {
        double r = 0.180625 - distance * distance;
        return distance * polynomial(centre_above, 3, r) / polynomial(centre_below, 3, r);
    }
    double outside = distance < 0 ? probability : 1 - probability;
    double r = sqrt(-log(outside)) - 1.6;
    double quantile = polynomial(tail_above, 3, r) / polynomial(tail_below, 2, r);
    return distance < 0 ? -quantile : quantile;
}

// Standard normal, cut at two standard deviations: by inversion, one draw an element.
static double truncated_normal(uint64_t key, uint64_t index)
{
    static const double below = 0.022750131948179207; // share of the normal under -2
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), 0, 0};
    struct philox_words words = philox4x32(key, counter);
    uint64_t bits = (uint64_t)words.word[0] << 20 | words.word[1] >> 12;
    double unit = ((double)bits + 0.5) * 0x1p-52;
    double value = normal_quantile(below + unit * (1 - 2 * below));
    return fmin(fmax(value, -2), 2);
}

static void fill(const struct graph_param *param, uint64_t key, float *to)
{
    double deviation = param->fan_in > 0 ? 1 / sqrt((double)param->fan_in) : 0;
    for (uint64_t i = 0; i < param->count; i++) {
        to[i] = param->fan_in > 0 ? (float)(deviation * truncated_normal(key, i)) : param->initial;
    }
}

void model_initialise(const struct graph *graph, uint64_t seed, const char *branch, float *params)
{
    for (size_t i = 0; i < graph_param_count(graph); i++) {
        const struct graph_param *param = graph_param_at(graph, i);
        uint64_t hash = hash_text(0xcbf29ce484222325u, branch);
        hash = hash_text(hash_text(hash, "/"), param->name);
        uint32_t counter[4] = {(uint32_t)hash, (uint32_t)(hash >> 32), 0, 0};
        struct philox_words key = philox4x32(seed, counter); // mixes the name into the seed
        fill(param, (uint64_t)key.word[0] << 32 | key.word[1], params + param->offset);
    }
}
