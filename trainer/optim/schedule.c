// Learning rate and target decay, in float32 like the reference.
#include "trainer/optim/schedule.h"

#include <math.h>

#define PI 3.14159265358979323846f

// From 1 at step 0 to 0 at `total`, and 0 from there on.
static float cosine(uint64_t step, uint64_t total)
{
    if (step >= total) {
        return 0;
    }
    return 0.5f * (1.0f + cosf(PI * (float)step / (float)total));
}

float schedule_learning_rate(uint64_t step, float base, uint64_t batch, uint64_t warmup,
                             uint64_t total)
{
    float scaled = base * (float)batch / 256.0f;
    if (step < warmup) {
        return (float)step / (float)warmup * scaled;
    }
    return scaled * cosine(step - warmup, total > warmup ? total - warmup : 0);
}

float schedule_tau(uint64_t step, float base, uint64_t total)
{
    return 1.0f - (1.0f - base) * cosine(step, total);
}
