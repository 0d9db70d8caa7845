// Sixteen values at a time, held as float32, stored as float32 or as bfloat16 (the upper half of a
// float32, rounded to the nearest, ties to even). Private to the cpu device's loops.
//
// Vectors go through pointers because only a CPU_KERNEL knows how wide its registers are; these
// functions become part of it. `half` should be a constant where it is passed: write a kernel once
// as an always inlined function, and a CPU_KERNEL for each of its values.
#ifndef TRAINER_DEVICE_CPU_LANES_H
#define TRAINER_DEVICE_CPU_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CPU_LANES   16
#define CPU_INLINE  static inline __attribute__((always_inline))
#define HALF_BYTES  2
#define FLOAT_BYTES 4

typedef float cpu_lanes __attribute__((vector_size(CPU_LANES * sizeof(float))));
typedef int32_t cpu_lane_mask __attribute__((vector_size(CPU_LANES * sizeof(int32_t))));
typedef uint32_t cpu_lane_bits __attribute__((vector_size(CPU_LANES * sizeof(uint32_t))));
typedef uint16_t cpu_lane_halves __attribute__((vector_size(CPU_LANES * sizeof(uint16_t))));
typedef uint8_t cpu_lane_bytes __attribute__((vector_size(CPU_LANES)));

CPU_INLINE size_t cpu_value_bytes(bool half)
{
    return half ? HALF_BYTES : FLOAT_BYTES;
}

CPU_INLINE float cpu_half_widen(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

// A NaN stays one: those that arithmetic makes have no low bits that could carry over.
CPU_INLINE uint16_t cpu_half_round(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

CPU_INLINE float cpu_value_read(const void *base, size_t index, bool half)
{
    return half ? cpu_half_widen(((const uint16_t *)base)[index]) : ((const float *)base)[index];
}

CPU_INLINE void cpu_value_write(void *base, size_t index, float value, bool half)
{
    if (half) {
        ((uint16_t *)base)[index] = cpu_half_round(value);
    } else {
        ((float *)base)[index] = value;
    }
}

// Values [index, index + 16) of `base`; past `left` values there are zeros.
CPU_INLINE void cpu_lanes_load(cpu_lanes *to, const void *base, size_t index, size_t left,
                               bool half)
{
    size_t bytes = (left < CPU_LANES ? left : CPU_LANES) * cpu_value_bytes(half);
    const char *from = (const char *)base + index * cpu_value_bytes(half);
    if (half) {
        cpu_lane_halves narrow = {0};
        memcpy(&narrow, from, bytes);
        cpu_lane_bits bits = __builtin_convertvector(narrow, cpu_lane_bits) << 16;
        memcpy(to, &bits, sizeof *to);
    } else {
        *to = (cpu_lanes){0};
        memcpy(to, from, bytes);
    }
}

CPU_INLINE void cpu_lanes_store(void *base, size_t index, const cpu_lanes *from, size_t left,
                                bool half)
{
    size_t bytes = (left < CPU_LANES ? left : CPU_LANES) * cpu_value_bytes(half);
    char *to = (char *)base + index * cpu_value_bytes(half);
    if (half) {
        cpu_lane_bits bits;
        memcpy(&bits, from, sizeof bits);
        bits = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
        cpu_lane_halves narrow = __builtin_convertvector(bits, cpu_lane_halves);
        memcpy(to, &narrow, bytes);
    } else {
        memcpy(to, from, bytes);
    }
}

// The same for whole rows of bfloat16, by the instructions that a processor with bfloat16
// arithmetic has for it; only inside a CPU_HALF_KERNEL, which nothing else may run. Numbers too
// small to be normal become 0.
#if defined(__x86_64__)
#define CPU_HALF_KERNEL __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

CPU_INLINE void cpu_halves_load(cpu_lanes *to, const void *base, size_t index)
{
    const cpu_lane_halves *from = (const void *)((const char *)base + index * HALF_BYTES);
    cpu_lane_bits bits;
    __asm__("vpmovzxwd %1, %0" : "=v"(bits) : "m"(*from));
    bits <<= 16;
    memcpy(to, &bits, sizeof *to);
}

CPU_INLINE void cpu_halves_store(void *base, size_t index, const cpu_lanes *from)
{
    cpu_lane_halves narrow;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(narrow) : "v"(*from));
    memcpy((char *)base + index * HALF_BYTES, &narrow, sizeof narrow);
}

CPU_INLINE void cpu_bytes_load(cpu_lane_mask *to, const uint8_t *bytes)
{
    __asm__("vpmovzxbd %1, %0" : "=v"(*to) : "m"(*(const cpu_lane_bytes *)bytes));
}
#else
#define CPU_HALF_KERNEL

CPU_INLINE void cpu_halves_load(cpu_lanes *to, const void *base, size_t index)
{
    cpu_lanes_load(to, base, index, CPU_LANES, true);
}

CPU_INLINE void cpu_halves_store(void *base, size_t index, const cpu_lanes *from)
{
    cpu_lanes_store(base, index, from, CPU_LANES, true);
}

CPU_INLINE void cpu_bytes_load(cpu_lane_mask *to, const uint8_t *bytes)
{
    cpu_lane_mask wide = {0};
    for (size_t i = 0; i < CPU_LANES; i++) {
        wide[i] = bytes[i];
    }
    *to = wide;
}
#endif

// What `judged` is positive for, else zero.
CPU_INLINE void cpu_lanes_keep_positive(cpu_lanes *values, const cpu_lanes *judged)
{
    cpu_lane_mask mask = *judged > 0.0f;
    *values = (cpu_lanes)((cpu_lane_mask)*values & mask);
}

// The ReLU; a NaN passes, so that it reaches the loss.
CPU_INLINE void cpu_lanes_cut_negative(cpu_lanes *values)
{
    cpu_lane_mask mask = *values < 0.0f;
    *values = (cpu_lanes)((cpu_lane_mask)*values & ~mask);
}

#endif
