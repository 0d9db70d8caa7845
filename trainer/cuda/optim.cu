// Optimisers. Spans are cut into pieces of equal work, one block of threads each: a pass over the
// pieces of decay spans takes their norms where an optimiser wants them, a small kernel makes the
// factors of every span from them, and the last pass moves parameters, momentum and what follows
// the parameters, each value read and written once.
//
// Bytes of a value: 8 for the norms; the last pass 20 (AdamW 28), 8 more with a target.
#include "trainer/cuda/block_sum.h"
#include "trainer/cuda/grid.h"
#include "trainer/cuda/optim_spans.h"
#include "trainer/cuda/optim_walk.h"

#define WARPS       (OPTIM_THREADS / CUDA_WARP)
#define NORMS_AHEAD 4 // quads of every array that a thread loads before it uses the first
#define MOVE_AHEAD  2

// --- norms

struct norms_walker {
    const float *params, *grads;
    float decay;
    struct square_sums sums;
    float4 w[NORMS_AHEAD], g[NORMS_AHEAD];

    __device__ void one(uint32_t i)
    {
        square_sums_add(&sums, params[i], grads[i], decay);
    }
    __device__ void load(int k, uint32_t i)
    {
        w[k] = load_quad(params + i);
        g[k] = load_quad(grads + i);
    }
    __device__ void finish(int k, uint32_t)
    {
        square_sums_add(&sums, w[k].x, g[k].x, decay);
        square_sums_add(&sums, w[k].y, g[k].y, decay);
        square_sums_add(&sums, w[k].z, g[k].z, decay);
        square_sums_add(&sums, w[k].w, g[k].w, decay);
    }
};

static __global__ void measure_pieces(const struct piece *pieces, const float *params,
                                      const float *grads, float decay, bool aligned,
                                      struct square_sums *sums)
{
    __shared__ double room[WARPS];
    struct piece piece = pieces[blockIdx.x];
    struct norms_walker walker;
    walker.params = params + piece.at;
    walker.grads = grads + piece.at;
    walker.decay = decay;
    walker.sums.weights = walker.sums.gradients = 0;
    walk<NORMS_AHEAD>(walker, head_of(piece.at, piece.count, aligned), piece.count);
    double weights = block_join<sum_of>(walker.sums.weights, room);
    double gradients = block_join<sum_of>(walker.sums.gradients, room);
    if (threadIdx.x == 0) {
        sums[blockIdx.x].weights = weights;
        sums[blockIdx.x].gradients = gradients;
    }
}

// --- the optimisers

struct lars_rule {
    typedef struct lars_settings settings;
    typedef struct lars_factors factors;
    static const bool second = false; // whether there is a second moment

    static __device__ void find(union span_factors *out, const settings *own,
                                const struct param_span *span, const struct square_sums *sums,
                                const float *)
    {
        out->lars = lars_factors_of(own, span, sqrt(sums->weights), sqrt(sums->gradients));
    }
    static __device__ factors of(const union span_factors *found)
    {
        return found->lars;
    }
    static __device__ void move(const factors *own, float g, float *w, float *m, float *)
    {
        lars_move(own, g, w, m);
    }
};

struct sgd_rule {
    typedef struct sgd_settings settings;
    typedef struct sgd_factors factors;
    static const bool second = false;

    static __device__ void find(union span_factors *out, const settings *own,
                                const struct param_span *span, const struct square_sums *sums,
                                const float *)
    {
        out->sgd = sgd_factors_of(own, span, sqrt(sums->weights), sqrt(sums->gradients));
    }
    static __device__ factors of(const union span_factors *found)
    {
        return found->sgd;
    }
    static __device__ void move(const factors *own, float g, float *w, float *m, float *)
    {
        sgd_move(own, g, w, m);
    }
};

struct adamw_rule {
    typedef struct adamw_settings settings;
    typedef struct adamw_factors factors;
    static const bool second = true;

    static __device__ void find(union span_factors *out, const settings *own,
                                const struct param_span *span, const struct square_sums *,
                                const float *steps)
    {
        out->adamw = adamw_factors_of(own, span, *steps);
    }
    static __device__ factors of(const union span_factors *found)
    {
        return found->adamw;
    }
    static __device__ void move(const factors *own, float g, float *w, float *m, float *v)
    {
        adamw_move(own, g, w, m, v);
    }
};

// --- factors: one warp for each span

static __device__ inline struct square_sums join_pieces(const struct span_entry *entry,
                                                        const struct square_sums *sums)
{
    struct square_sums joined = {0, 0};
    for (uint32_t i = threadIdx.x % CUDA_WARP; i < entry->pieces; i += CUDA_WARP) {
        joined.weights += sums[entry->first_piece + i].weights;
        joined.gradients += sums[entry->first_piece + i].gradients;
    }
    joined.weights = warp_join<sum_of>(joined.weights);
    joined.gradients = warp_join<sum_of>(joined.gradients);
    return joined;
}

template <class Rule>
static __global__ void find_factors(const struct span_entry *table, uint32_t count,
                                    const struct square_sums *sums, bool norms,
                                    typename Rule::settings settings, const float *steps,
                                    union span_factors *factors)
{
    uint32_t index = blockIdx.x * WARPS + threadIdx.x / CUDA_WARP;
    if (index >= count) {
        return;
    }
    struct span_entry entry = table[index];
    struct square_sums joined = {0, 0};
    if (norms && entry.span.decay) {
        joined = join_pieces(&entry, sums);
    }
    if (threadIdx.x % CUDA_WARP == 0) {
        Rule::find(&factors[index], &settings, &entry.span, &joined, steps);
    }
}

static __global__ void advance(float *steps)
{
    *steps += 1.0f;
}

// --- the step

// The flat blocks, all with the same places.
struct blocks {
    float *params;
    const float *grads;
    float *momentum, *second_moment; // the latter NULL for all but AdamW
    float *target;                   // NULL: nobody follows
};

template <class Rule, bool FOLLOW> struct step_walker {
    struct blocks at;
    typename Rule::factors own;
    float target_rate;
    float4 w[MOVE_AHEAD], g[MOVE_AHEAD], m[MOVE_AHEAD], v[MOVE_AHEAD], t[MOVE_AHEAD];

    __device__ void move(float gradient, float *weight, float *moment, float *second, float *target)
    {
        Rule::move(&own, gradient, weight, moment, second);
        if (FOLLOW) {
            target_follow(target, *weight, target_rate);
        }
    }
    __device__ void one(uint32_t i)
    {
        move(at.grads[i], at.params + i, at.momentum + i,
             Rule::second ? at.second_moment + i : NULL, FOLLOW ? at.target + i : NULL);
    }
    __device__ void load(int k, uint32_t i)
    {
        w[k] = load_quad(at.params + i);
        g[k] = load_quad(at.grads + i);
        m[k] = load_quad(at.momentum + i);
        if (Rule::second) {
            v[k] = load_quad(at.second_moment + i);
        }
        if (FOLLOW) {
            t[k] = load_quad(at.target + i);
        }
    }
    __device__ void finish(int k, uint32_t i)
    {
        move(g[k].x, &w[k].x, &m[k].x, &v[k].x, &t[k].x);
        move(g[k].y, &w[k].y, &m[k].y, &v[k].y, &t[k].y);
        move(g[k].z, &w[k].z, &m[k].z, &v[k].z, &t[k].z);
        move(g[k].w, &w[k].w, &m[k].w, &v[k].w, &t[k].w);
        store_quad(at.params + i, w[k]);
        store_quad(at.momentum + i, m[k]);
        if (Rule::second) {
            store_quad(at.second_moment + i, v[k]);
        }
        if (FOLLOW) {
            store_quad(at.target + i, t[k]);
        }
    }
};

// Backwards: what the norms read last may still be in the cache.
template <class Rule, bool FOLLOW>
static __global__ void move_pieces(const struct piece *pieces, const union span_factors *factors,
                                   struct blocks blocks, const float *target_rate, bool aligned)
{
    struct piece piece = pieces[gridDim.x - 1 - blockIdx.x];
    struct step_walker<Rule, FOLLOW> walker;
    walker.at.params = blocks.params + piece.at;
    walker.at.grads = blocks.grads + piece.at;
    walker.at.momentum = blocks.momentum + piece.at;
    walker.at.second_moment = Rule::second ? blocks.second_moment + piece.at : NULL;
    walker.at.target = FOLLOW ? blocks.target + piece.at : NULL;
    walker.own = Rule::of(&factors[piece.span]);
    walker.target_rate = FOLLOW ? *target_rate : 0;
    walk<MOVE_AHEAD>(walker, head_of(piece.at, piece.count, aligned), piece.count);
}

// --- one step of any optimiser

struct step {
    struct cuda_spans *spans;
    struct blocks blocks;
    const float *target_rate;
    float *steps; // of AdamW
    bool norms;   // of decay spans: of w and of g + norm_decay w
    float norm_decay;
    bool aligned;
    cudaStream_t stream;
};

static struct step make_step(struct cuda_spans *spans, const struct blocks *blocks,
                             const struct moving_target *target, cudaStream_t stream)
{
    struct step step = {spans, *blocks, NULL, NULL, false, 0, false, stream};
    if (target != NULL && target->params != NULL) {
        step.blocks.target = target->params;
        step.target_rate = target->rate;
    }
    step.aligned = is_aligned(step.blocks.params) && is_aligned(step.blocks.grads) &&
                   is_aligned(step.blocks.momentum) && is_aligned(step.blocks.second_moment) &&
                   is_aligned(step.blocks.target);
    return step;
}

template <class Rule>
static cudaError_t launch_factors(const struct step *step, const typename Rule::settings *settings)
{
    const struct cuda_spans *spans = step->spans;
    cudaError_t error = cudaSuccess;
    if (step->norms && spans->decay_pieces > 0) {
        error = CUDA_LAUNCH(measure_pieces, spans->decay_pieces, OPTIM_THREADS, step->stream,
                            spans->cuts, step->blocks.params, step->blocks.grads, step->norm_decay,
                            step->aligned, spans->sums);
    }
    if (error != cudaSuccess || spans->count == 0) {
        return error;
    }
    return CUDA_LAUNCH(find_factors<Rule>, grid_blocks(spans->count, WARPS), OPTIM_THREADS,
                       step->stream, spans->table, spans->count, spans->sums, step->norms,
                       *settings, step->steps, spans->factors);
}

template <class Rule>
static cudaError_t run_step(const struct step *step, const typename Rule::settings *settings)
{
    const struct cuda_spans *spans = step->spans;
    cudaError_t error = launch_factors<Rule>(step, settings);
    if (error != cudaSuccess || spans->pieces == 0) {
        return error;
    }
    auto kernel = step->blocks.target == NULL ? move_pieces<Rule, false> : move_pieces<Rule, true>;
    return CUDA_LAUNCH(kernel, spans->pieces, OPTIM_THREADS, step->stream, spans->cuts,
                       spans->factors, step->blocks, step->target_rate, step->aligned);
}

cudaError_t cuda_lars_step(struct cuda_spans *spans, const struct lars_settings *settings,
                           float *params, const float *grads, float *momentum,
                           const struct moving_target *target, cudaStream_t stream)
{
    struct blocks blocks = {params, grads, momentum, NULL, NULL};
    struct step step = make_step(spans, &blocks, target, stream);
    step.norms = true;
    step.norm_decay = settings->weight_decay;
    return run_step<lars_rule>(&step, settings);
}

cudaError_t cuda_sgd_step(struct cuda_spans *spans, const struct sgd_settings *settings,
                          float *params, const float *grads, float *momentum,
                          const struct moving_target *target, cudaStream_t stream)
{
    struct blocks blocks = {params, grads, momentum, NULL, NULL};
    struct step step = make_step(spans, &blocks, target, stream);
    step.norms = settings->gradient.adaptive;
    return run_step<sgd_rule>(&step, settings);
}

cudaError_t cuda_adamw_step(struct cuda_spans *spans, const struct adamw_settings *settings,
                            float *params, const float *grads, float *momentum,
                            float *second_moment, float *steps, const struct moving_target *target,
                            cudaStream_t stream)
{
    struct blocks blocks = {params, grads, momentum, second_moment, NULL};
    struct step step = make_step(spans, &blocks, target, stream);
    step.steps = steps;
    cudaError_t error = CUDA_LAUNCH(advance, 1, 1, stream, steps);
    return error == cudaSuccess ? run_step<adamw_rule>(&step, settings) : error;
}
