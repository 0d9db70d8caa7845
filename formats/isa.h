// Which vector instructions the pixel kernels use. Files named *_simd.c are compiled once for each
// entry of enum isa that this architecture has; every build of a kernel gives the same bits, so the
// choice changes speed alone.
//
// Threads: isa_init before other threads start; the rest from any thread.
#ifndef FORMATS_ISA_H
#define FORMATS_ISA_H

#include "formats/status.h"

#include <stdbool.h>

enum isa {
    ISA_BASE, // x86-64-v2 (SSE4.2) on x86-64, NEON on aarch64, portable C elsewhere
    ISA_V3,   // x86-64-v3 (AVX2)
    ISA_V4,   // x86-64-v4 (AVX-512 F, BW, CD, DQ, VL)
    ISA_COUNT
};

// As BYOL_ISA spells it: "v2" (or "neon", "portable"), "v3", "v4".
const char *isa_name(enum isa isa);
bool isa_supported(enum isa isa); // by this build and this processor

// Takes the instructions that the environment's BYOL_ISA names, or the widest there are when it is
// unset or empty. STATUS_INVALID for an unknown name, STATUS_UNSUPPORTED for instructions that are
// not there, also when there is not even ISA_BASE; then nothing changes.
enum status isa_init(struct error *error);
enum isa isa_chosen(void); // before isa_init: what it would choose; the widest where it would fail
void isa_force(enum isa isa); // must be supported; for tests and benchmarks

// In a *_simd.c file, the name of this build's copy of a symbol.
#define ISA_PASTE_(stem, suffix) stem##suffix
#define ISA_PASTE(stem, suffix)  ISA_PASTE_(stem, suffix)
#define ISA_NAME(stem)           ISA_PASTE(stem, ISA_SUFFIX)

// Declares the builds of a constant table; and finds the one of given instructions.
#if defined(__x86_64__)
#define ISA_DECLARE(type, stem) extern const type stem##_base, stem##_v3, stem##_v4
#define ISA_SELECT(stem, chosen)                                                                   \
    ((chosen) == ISA_V4 ? &stem##_v4 : (chosen) == ISA_V3 ? &stem##_v3 : &stem##_base)
#else
#define ISA_DECLARE(type, stem)  extern const type stem##_base
#define ISA_SELECT(stem, chosen) ((void)(chosen), &stem##_base)
#endif

#endif
