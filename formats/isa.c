// The choice of vector instructions: asked of the processor once, or forced by BYOL_ISA.
#include "formats/isa.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define UNCHOSEN (-1)

static atomic_int choice = UNCHOSEN;

const char *isa_name(enum isa isa)
{
#if defined(__x86_64__)
    static const char *const names[ISA_COUNT] = {"v2", "v3", "v4"};
#elif defined(__aarch64__)
    static const char *const names[ISA_COUNT] = {"neon", "v3", "v4"};
#else
    static const char *const names[ISA_COUNT] = {"portable", "v3", "v4"};
#endif
    return names[isa];
}

bool isa_supported(enum isa isa)
{
#if defined(__x86_64__)
    // The compiler's name for a level asks for all of the level's instructions and for the
    // operating system's support of its registers.
    switch (isa) {
    case ISA_V4:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && isa_supported(ISA_V3);
    case ISA_V3:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
               __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma") &&
               isa_supported(ISA_BASE);
    default:
        return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    }
#else
    return isa == ISA_BASE;
#endif
}

static enum isa widest(void)
{
    enum isa isa = ISA_V4;
    while (isa > ISA_BASE && !isa_supported(isa)) {
        isa--;
    }
    return isa;
}

static enum status choose(enum isa *out, struct error *error)
{
    const char *asked = getenv("BYOL_ISA");
    *out = widest();
    if (asked != NULL && *asked != '\0') {
        enum isa isa = ISA_BASE;
        while (isa < ISA_COUNT && strcmp(asked, isa_name(isa)) != 0) {
            isa++;
        }
        if (isa == ISA_COUNT) {
            return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                             "BYOL_ISA=%s names no instructions; there are %s, v3 and v4", asked,
                             isa_name(ISA_BASE));
        }
        *out = isa;
    }
    if (!isa_supported(*out)) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "this processor lacks the instructions called %s", isa_name(*out));
    }
    return STATUS_OK;
}

enum status isa_init(struct error *error)
{
    enum isa isa;
    enum status status = choose(&isa, error);
    if (status == STATUS_OK) {
        isa_force(isa);
    }
    return status;
}

enum isa isa_chosen(void)
{
    int isa = atomic_load_explicit(&choice, memory_order_relaxed);
    if (isa == UNCHOSEN) {
        enum isa chosen;
        isa = (int)(choose(&chosen, NULL) == STATUS_OK ? chosen : widest());
        atomic_store_explicit(&choice, isa, memory_order_relaxed);
    }
    return (enum isa)isa;
}

void isa_force(enum isa isa)
{
    atomic_store_explicit(&choice, (int)isa, memory_order_relaxed);
}
