// Integer vectors for the kernels of the fast JPEG road, as wide as the instructions this file is
// compiled for: one, two or four lanes of 128 bits; one also for NEON and for portable C. What
// shuffles (unpack, pack) stays within a lane, as the x86 instructions do; the plain arithmetic is
// the compiler's vector arithmetic. All of it wraps where it overflows, unless the name says
// otherwise.
//
// For *_simd.c files only.
#ifndef FORMATS_JPEG_SIMD16_H
#define FORMATS_JPEG_SIMD16_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512BW__)
#define LANES 4
#elif defined(__AVX2__)
#define LANES 2
#else
#define LANES 1
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "unpacking widens little-endian numbers");

#define VEC_BYTES (LANES * 16)
typedef long long vec __attribute__((vector_size(VEC_BYTES)));
typedef uint8_t vec_u8 __attribute__((vector_size(VEC_BYTES)));
typedef int16_t vec_i16 __attribute__((vector_size(VEC_BYTES)));
typedef uint16_t vec_u16 __attribute__((vector_size(VEC_BYTES)));
typedef int32_t vec_i32 __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t vec_u32 __attribute__((vector_size(VEC_BYTES)));

// --- arithmetic ----------------------------------------------------------------------------------

static inline vec load(const void *from)
{
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(void *to, vec v)
{
    memcpy(to, &v, sizeof v);
}

static inline vec all16(int value)
{
    return (vec)((vec_i16){0} + (int16_t)value);
}

static inline vec add8(vec a, vec b)
{
    return (vec)((vec_u8)a + (vec_u8)b);
}

static inline vec add16(vec a, vec b)
{
    return (vec)((vec_u16)a + (vec_u16)b);
}

static inline vec sub16(vec a, vec b)
{
    return (vec)((vec_u16)a - (vec_u16)b);
}

static inline vec mul16(vec a, vec b)
{
    return (vec)((vec_u16)a * (vec_u16)b);
}

static inline vec shift_left16(vec a, int bits)
{
    return (vec)((vec_u16)a << bits);
}

static inline vec shift_right16(vec a, int bits) // with the sign
{
    return (vec)((vec_i16)a >> bits);
}

static inline vec halve16(vec a, int bits) // of numbers without a sign
{
    return (vec)((vec_u16)a >> bits);
}

static inline vec add32(vec a, int value)
{
    return (vec)((vec_u32)a + (uint32_t)value);
}

static inline vec shift_right32(vec a, int bits)
{
    return (vec)((vec_i32)a >> bits);
}

// --- shuffles and products that each processor has its own instruction for -----------------------

#if defined(__x86_64__)

#if LANES == 4
#define X86(operation) _mm512_##operation
#elif LANES == 2
#define X86(operation) _mm256_##operation
#else
#define X86(operation) _mm_##operation
#endif

#define VEC_BINARY(name, operation)                                                                \
    static inline vec name(vec a, vec b)                                                           \
    {                                                                                              \
        return (vec)X86(operation)(a, b);                                                          \
    }

VEC_BINARY(unpack_low8, unpacklo_epi8)
VEC_BINARY(unpack_high8, unpackhi_epi8)
VEC_BINARY(unpack_low16, unpacklo_epi16)
VEC_BINARY(unpack_high16, unpackhi_epi16)
VEC_BINARY(unpack_low32, unpacklo_epi32)
VEC_BINARY(unpack_high32, unpackhi_epi32)
VEC_BINARY(unpack_low64, unpacklo_epi64)
VEC_BINARY(unpack_high64, unpackhi_epi64)
VEC_BINARY(pack16, packs_epi16)           // to 8 bits with a sign, saturating
VEC_BINARY(pack16_unsigned, packus_epi16) // to 8 bits without, saturating
VEC_BINARY(pack32, packs_epi32)           // to 16 bits, of numbers that fit
VEC_BINARY(mul_high16, mulhi_epi16)       // (a * b) >> 16
VEC_BINARY(mul_round16, mulhrs_epi16)     // (a * b + 2^14) >> 15
VEC_BINARY(mul_pairs16, madd_epi16)       // a[2i] * b[2i] + a[2i + 1] * b[2i + 1], 32 bits
VEC_BINARY(mul_pairs8, maddubs_epi16)     // the same from 8 bits, of a without a sign

// 3 * a + b, in 16 bits, of the lower and upper half of each lane.
static inline vec weigh_low(vec a, vec b)
{
    return mul_pairs8(unpack_low8(a, b), all16(0x0103));
}

static inline vec weigh_high(vec a, vec b)
{
    return mul_pairs8(unpack_high8(a, b), all16(0x0103));
}

#else

typedef int32_t wide_i32 __attribute__((vector_size(32)));
typedef uint32_t vec_4x32 __attribute__((vector_size(16)));

#define VEC_SHUFFLE(name, type, ...)                                                               \
    static inline vec name(vec a, vec b)                                                           \
    {                                                                                              \
        return (vec)__builtin_shufflevector((type)a, (type)b, __VA_ARGS__);                        \
    }

VEC_SHUFFLE(unpack_low8, vec_u8, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
VEC_SHUFFLE(unpack_high8, vec_u8, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
VEC_SHUFFLE(unpack_low16, vec_u16, 0, 8, 1, 9, 2, 10, 3, 11)
VEC_SHUFFLE(unpack_high16, vec_u16, 4, 12, 5, 13, 6, 14, 7, 15)
VEC_SHUFFLE(unpack_low32, vec_4x32, 0, 4, 1, 5)
VEC_SHUFFLE(unpack_high32, vec_4x32, 2, 6, 3, 7)
VEC_SHUFFLE(unpack_low64, vec, 0, 2)
VEC_SHUFFLE(unpack_high64, vec, 1, 3)
VEC_SHUFFLE(join_low8, vec_u8, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
VEC_SHUFFLE(pack32, vec_u16, 0, 2, 4, 6, 8, 10, 12, 14)
VEC_SHUFFLE(join_odd16, vec_u16, 1, 3, 5, 7, 9, 11, 13, 15)

static inline vec clamp16(vec v, int least, int most)
{
    vec_i16 low = (vec_i16)all16(least), high = (vec_i16)all16(most), x = (vec_i16)v;
    vec_i16 raised = x<low, lowered = x> high;
    return (vec)((raised & low) | (lowered & high) | (~raised & ~lowered & x));
}

static inline vec pack16(vec a, vec b)
{
    return join_low8(clamp16(a, -128, 127), clamp16(b, -128, 127));
}

static inline vec pack16_unsigned(vec a, vec b)
{
    return join_low8(clamp16(a, 0, 255), clamp16(b, 0, 255));
}

#if defined(__aarch64__)

static inline vec mul_high16(vec a, vec b)
{
    int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    int32x4_t high = vmull_high_s16((int16x8_t)a, (int16x8_t)b);
    return join_odd16((vec)low, (vec)high);
}

static inline vec mul_round16(vec a, vec b)
{
    return (vec)vqrdmulhq_s16((int16x8_t)a, (int16x8_t)b);
}

#else

static inline vec mul_high16(vec a, vec b)
{
    wide_i32 product = __builtin_convertvector((vec_i16)a, wide_i32) *
                       __builtin_convertvector((vec_i16)b, wide_i32);
    return (vec) __builtin_convertvector(product >> 16, vec_i16);
}

static inline vec mul_round16(vec a, vec b)
{
    wide_i32 product = __builtin_convertvector((vec_i16)a, wide_i32) *
                       __builtin_convertvector((vec_i16)b, wide_i32);
    return (vec) __builtin_convertvector((product + (1 << 14)) >> 15, vec_i16);
}

#endif

static inline vec mul_pairs16(vec a, vec b)
{
    vec even_a = shift_right32((vec)((vec_u32)a << 16), 16), odd_a = shift_right32(a, 16);
    vec even_b = shift_right32((vec)((vec_u32)b << 16), 16), odd_b = shift_right32(b, 16);
    return (vec)((vec_i32)even_a * (vec_i32)even_b + (vec_i32)odd_a * (vec_i32)odd_b);
}

static inline vec weigh_low(vec a, vec b)
{
    return add16(mul16(unpack_low8(a, (vec){0}), all16(3)), unpack_low8(b, (vec){0}));
}

static inline vec weigh_high(vec a, vec b)
{
    return add16(mul16(unpack_high8(a, (vec){0}), all16(3)), unpack_high8(b, (vec){0}));
}

#endif

// --- between lanes -------------------------------------------------------------------------------

// Stores lane 0 of `low`, lane 0 of `high`, lane 1 of `low`...: what was unpacked, in order again.
static inline void store_unpacked(void *to, vec low, vec high)
{
#if LANES == 4
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    store(to, (vec)_mm512_permutex2var_epi64(low, first, high));
    store((char *)to + VEC_BYTES, (vec)_mm512_permutex2var_epi64(low, second, high));
#elif LANES == 2
    store(to, (vec)_mm256_permute2x128_si256(low, high, 0x20));
    store((char *)to + VEC_BYTES, (vec)_mm256_permute2x128_si256(low, high, 0x31));
#else
    store(to, low);
    store((char *)to + VEC_BYTES, high);
#endif
}

// Stores the lower 64 bits of all lanes to one place and the upper ones to another.
static inline void store_halves(void *low, void *high, vec v)
{
#if LANES == 4
    v = (vec)_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), v);
    _mm256_storeu_si256(low, _mm512_castsi512_si256(v));
    _mm256_storeu_si256(high, _mm512_extracti64x4_epi64(v, 1));
#elif LANES == 2
    v = (vec)_mm256_permute4x64_epi64(v, 0xd8);
    _mm_storeu_si128(low, _mm256_castsi256_si128(v));
    _mm_storeu_si128(high, _mm256_extracti128_si256(v, 1));
#else
    long long first = v[0], second = v[1];
    memcpy(low, &first, sizeof first);
    memcpy(high, &second, sizeof second);
#endif
}

// Of LANES blocks of 8 rows of 128 bits, as many rows to a vector as there are lanes: turns them
// into rows, each with that row of all blocks. In place; block b's vectors start at
// v[b * 8 / LANES].
static inline void blocks_to_rows(vec v[8])
{
#if LANES == 4
    for (int half = 0; half < 2; half++) {
        vec a = v[half], b = v[2 + half], c = v[4 + half], d = v[6 + half];
        __m512i ab01 = _mm512_shuffle_i32x4(a, b, 0x44), ab23 = _mm512_shuffle_i32x4(a, b, 0xee);
        __m512i cd01 = _mm512_shuffle_i32x4(c, d, 0x44), cd23 = _mm512_shuffle_i32x4(c, d, 0xee);
        v[half] = (vec)_mm512_shuffle_i32x4(ab01, cd01, 0x88);
        v[2 + half] = (vec)_mm512_shuffle_i32x4(ab01, cd01, 0xdd);
        v[4 + half] = (vec)_mm512_shuffle_i32x4(ab23, cd23, 0x88);
        v[6 + half] = (vec)_mm512_shuffle_i32x4(ab23, cd23, 0xdd);
    }
    const vec w[8] = {v[0], v[2], v[4], v[6], v[1], v[3], v[5], v[7]};
    memcpy(v, w, sizeof w);
#elif LANES == 2
    vec rows[8];
    for (int i = 0; i < 4; i++) {
        rows[2 * i] = (vec)_mm256_permute2x128_si256(v[i], v[4 + i], 0x20);
        rows[2 * i + 1] = (vec)_mm256_permute2x128_si256(v[i], v[4 + i], 0x31);
    }
    memcpy(v, rows, sizeof rows);
#else
    (void)v;
#endif
}

#endif
