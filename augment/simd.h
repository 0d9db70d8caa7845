// Vectors of float32 for the *_simd.c files, which are compiled once per level of instructions
// (formats/isa.h): 4, 8 or 16 lanes. Plain operators (+ - *) work on `vf`; what they do not cover
// is here, as little as the kernels need. Every function rounds as the same C expression on floats
// does, so all levels give the same bits.
#ifndef AUGMENT_SIMD_H
#define AUGMENT_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SIMD_INLINE static inline __attribute__((always_inline, unused))

// --- per level: vf, the mask vm, and what differs -----------------------------------------------

#if defined(__AVX512F__)
#define LANES 16
typedef __m512 vf;
typedef __mmask16 vm;

SIMD_INLINE vf v_all(float x)
{
    return _mm512_set1_ps(x);
}
SIMD_INLINE vf v_load(const float *from)
{
    return _mm512_loadu_ps(from);
}
SIMD_INLINE void v_store(float *to, vf x)
{
    _mm512_storeu_ps(to, x);
}
SIMD_INLINE void v_stream(float *to, vf x) // `to` aligned to the vector
{
    _mm512_stream_ps(to, x);
}
SIMD_INLINE vf v_bytes(const uint8_t *from)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)from)));
}
SIMD_INLINE vf v_smaller(vf a, vf b) // a < b ? a : b
{
    return _mm512_min_ps(a, b);
}
SIMD_INLINE vf v_larger(vf a, vf b) // a > b ? a : b
{
    return _mm512_max_ps(a, b);
}
SIMD_INLINE vf v_magnitude(vf a)
{
    return _mm512_abs_ps(a);
}
SIMD_INLINE vm v_less(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
SIMD_INLINE vm v_equal(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
SIMD_INLINE vf v_choose(vm mask, vf yes, vf no)
{
    return _mm512_mask_blend_ps(mask, no, yes);
}

// Within each group of four lanes: a0 b0 a1 b1, a2 b2 a3 b3; a0 a1 b0 b1, a2 a3 b2 b3.
SIMD_INLINE vf v_zip_low(vf a, vf b)
{
    return _mm512_unpacklo_ps(a, b);
}
SIMD_INLINE vf v_zip_high(vf a, vf b)
{
    return _mm512_unpackhi_ps(a, b);
}
SIMD_INLINE vf v_pair_low(vf a, vf b)
{
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
SIMD_INLINE vf v_pair_high(vf a, vf b)
{
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
// Group k gets the four values from line[first[4 * k]].
SIMD_INLINE vf v_quads(const float *line, const int32_t *first)
{
    __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(line + first[0]));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(line + first[4]), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(line + first[8]), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(line + first[12]), 3);
}
SIMD_INLINE __m512i v_truncate(vf x)
{
    return _mm512_cvttps_epi32(x);
}
// r0 g0 b0 r1 g1 b1 … over three vectors.
SIMD_INLINE void v_interleave(vf out[3], vf r, vf g, vf b)
{
    const __m512i pixel0 = _mm512_setr_epi32(0, 16, 0, 1, 17, 1, 2, 18, 2, 3, 19, 3, 4, 20, 4, 5);
    const __m512i pixel1 = _mm512_setr_epi32(21, 5, 6, 22, 6, 7, 23, 7, 8, 24, 8, 9, 25, 9, 10, 26);
    const __m512i pixel2 =
        _mm512_setr_epi32(10, 11, 27, 11, 12, 28, 12, 13, 29, 13, 14, 30, 14, 15, 31, 15);
    out[0] = _mm512_permutex2var_ps(r, pixel0, g);
    out[1] = _mm512_permutex2var_ps(r, pixel1, g);
    out[2] = _mm512_permutex2var_ps(r, pixel2, g);
    out[0] = _mm512_mask_permutexvar_ps(out[0], 0x4924, pixel0, b);
    out[1] = _mm512_mask_permutexvar_ps(out[1], 0x2492, pixel1, b);
    out[2] = _mm512_mask_permutexvar_ps(out[2], 0x9249, pixel2, b);
}

#elif defined(__AVX2__)
#define LANES 8
typedef __m256 vf;
typedef __m256 vm;

SIMD_INLINE vf v_all(float x)
{
    return _mm256_set1_ps(x);
}
SIMD_INLINE vf v_load(const float *from)
{
    return _mm256_loadu_ps(from);
}
SIMD_INLINE void v_store(float *to, vf x)
{
    _mm256_storeu_ps(to, x);
}
SIMD_INLINE void v_stream(float *to, vf x)
{
    _mm256_stream_ps(to, x);
}
SIMD_INLINE vf v_bytes(const uint8_t *from)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)from)));
}
SIMD_INLINE vf v_smaller(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
SIMD_INLINE vf v_larger(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
SIMD_INLINE vf v_magnitude(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
SIMD_INLINE vm v_less(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
SIMD_INLINE vm v_equal(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
SIMD_INLINE vf v_choose(vm mask, vf yes, vf no)
{
    return _mm256_blendv_ps(no, yes, mask);
}

SIMD_INLINE vf v_zip_low(vf a, vf b)
{
    return _mm256_unpacklo_ps(a, b);
}
SIMD_INLINE vf v_zip_high(vf a, vf b)
{
    return _mm256_unpackhi_ps(a, b);
}
SIMD_INLINE vf v_pair_low(vf a, vf b)
{
    return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
SIMD_INLINE vf v_pair_high(vf a, vf b)
{
    return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
SIMD_INLINE vf v_quads(const float *line, const int32_t *first)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(line + first[0])),
                                _mm_loadu_ps(line + first[4]), 1);
}
SIMD_INLINE __m256i v_truncate(vf x)
{
    return _mm256_cvttps_epi32(x);
}
SIMD_INLINE void v_interleave(vf out[3], vf r, vf g, vf b)
{
    const __m256i pixel0 = _mm256_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2);
    const __m256i pixel1 = _mm256_setr_epi32(2, 3, 3, 3, 4, 4, 4, 5);
    const __m256i pixel2 = _mm256_setr_epi32(5, 5, 6, 6, 6, 7, 7, 7);
    out[0] = _mm256_blend_ps(_mm256_permutevar8x32_ps(r, pixel0),
                             _mm256_permutevar8x32_ps(g, pixel0), 0x92);
    out[0] = _mm256_blend_ps(out[0], _mm256_permutevar8x32_ps(b, pixel0), 0x24);
    out[1] = _mm256_blend_ps(_mm256_permutevar8x32_ps(b, pixel1),
                             _mm256_permutevar8x32_ps(r, pixel1), 0x92);
    out[1] = _mm256_blend_ps(out[1], _mm256_permutevar8x32_ps(g, pixel1), 0x24);
    out[2] = _mm256_blend_ps(_mm256_permutevar8x32_ps(g, pixel2),
                             _mm256_permutevar8x32_ps(b, pixel2), 0x92);
    out[2] = _mm256_blend_ps(out[2], _mm256_permutevar8x32_ps(r, pixel2), 0x24);
}

#elif defined(__SSE4_1__)
#define LANES 4
typedef __m128 vf;
typedef __m128 vm;

SIMD_INLINE vf v_all(float x)
{
    return _mm_set1_ps(x);
}
SIMD_INLINE vf v_load(const float *from)
{
    return _mm_loadu_ps(from);
}
SIMD_INLINE void v_store(float *to, vf x)
{
    _mm_storeu_ps(to, x);
}
SIMD_INLINE void v_stream(float *to, vf x)
{
    _mm_stream_ps(to, x);
}
SIMD_INLINE vf v_bytes(const uint8_t *from)
{
    int32_t four;
    memcpy(&four, from, sizeof four);
    return _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
}
SIMD_INLINE vf v_smaller(vf a, vf b)
{
    return _mm_min_ps(a, b);
}
SIMD_INLINE vf v_larger(vf a, vf b)
{
    return _mm_max_ps(a, b);
}
SIMD_INLINE vf v_magnitude(vf a)
{
    return _mm_andnot_ps(_mm_set1_ps(-0.0f), a);
}
SIMD_INLINE vm v_less(vf a, vf b)
{
    return _mm_cmplt_ps(a, b);
}
SIMD_INLINE vm v_equal(vf a, vf b)
{
    return _mm_cmpeq_ps(a, b);
}
SIMD_INLINE vf v_choose(vm mask, vf yes, vf no)
{
    return _mm_blendv_ps(no, yes, mask);
}

SIMD_INLINE vf v_zip_low(vf a, vf b)
{
    return _mm_unpacklo_ps(a, b);
}
SIMD_INLINE vf v_zip_high(vf a, vf b)
{
    return _mm_unpackhi_ps(a, b);
}
SIMD_INLINE vf v_pair_low(vf a, vf b)
{
    return _mm_movelh_ps(a, b);
}
SIMD_INLINE vf v_pair_high(vf a, vf b)
{
    return _mm_movehl_ps(b, a);
}
SIMD_INLINE vf v_quads(const float *line, const int32_t *first)
{
    return _mm_loadu_ps(line + first[0]);
}
SIMD_INLINE __m128i v_truncate(vf x)
{
    return _mm_cvttps_epi32(x);
}
SIMD_INLINE void v_interleave(vf out[3], vf r, vf g, vf b)
{
    out[0] = _mm_shuffle_ps(v_zip_low(r, g), v_zip_low(b, r), _MM_SHUFFLE(3, 0, 1, 0));
    out[1] = _mm_shuffle_ps(v_zip_low(g, b), v_zip_high(r, g), _MM_SHUFFLE(1, 0, 3, 2));
    out[2] = _mm_shuffle_ps(v_zip_high(b, r), v_zip_high(g, b), _MM_SHUFFLE(3, 2, 3, 0));
}

#elif defined(__aarch64__)
#define LANES 4
typedef float32x4_t vf;
typedef uint32x4_t vm;

SIMD_INLINE vf v_all(float x)
{
    return vdupq_n_f32(x);
}
SIMD_INLINE vf v_load(const float *from)
{
    return vld1q_f32(from);
}
SIMD_INLINE void v_store(float *to, vf x)
{
    vst1q_f32(to, x);
}
SIMD_INLINE void v_stream(float *to, vf x)
{
    vst1q_f32(to, x);
}
SIMD_INLINE vf v_bytes(const uint8_t *from)
{
    uint32_t four;
    memcpy(&four, from, sizeof four);
    uint16x8_t wide = vmovl_u8(vcreate_u8(four));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
}
SIMD_INLINE vm v_less(vf a, vf b)
{
    return vcltq_f32(a, b);
}
SIMD_INLINE vm v_equal(vf a, vf b)
{
    return vceqq_f32(a, b);
}
SIMD_INLINE vf v_choose(vm mask, vf yes, vf no)
{
    return vbslq_f32(mask, yes, no);
}
SIMD_INLINE vf v_smaller(vf a, vf b) // not vminq: that one differs where zeros have two signs
{
    return v_choose(v_less(a, b), a, b);
}
SIMD_INLINE vf v_larger(vf a, vf b)
{
    return v_choose(v_less(b, a), a, b);
}
SIMD_INLINE vf v_magnitude(vf a)
{
    return vabsq_f32(a);
}

SIMD_INLINE vf v_zip_low(vf a, vf b)
{
    return vzip1q_f32(a, b);
}
SIMD_INLINE vf v_zip_high(vf a, vf b)
{
    return vzip2q_f32(a, b);
}
SIMD_INLINE vf v_pair_low(vf a, vf b)
{
    return vcombine_f32(vget_low_f32(a), vget_low_f32(b));
}
SIMD_INLINE vf v_pair_high(vf a, vf b)
{
    return vcombine_f32(vget_high_f32(a), vget_high_f32(b));
}
SIMD_INLINE vf v_quads(const float *line, const int32_t *first)
{
    return vld1q_f32(line + first[0]);
}
SIMD_INLINE int32x4_t v_truncate(vf x)
{
    return vcvtq_s32_f32(x);
}
SIMD_INLINE void v_interleave(vf out[3], vf r, vf g, vf b)
{
    float values[12];
    vst3q_f32(values, ((float32x4x3_t){{r, g, b}}));
    out[0] = vld1q_f32(values);
    out[1] = vld1q_f32(values + 4);
    out[2] = vld1q_f32(values + 8);
}

#else
#define LANES 4
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vm __attribute__((vector_size(16)));

SIMD_INLINE vf v_all(float x)
{
    return (vf){x, x, x, x};
}
SIMD_INLINE vf v_load(const float *from)
{
    vf x;
    memcpy(&x, from, sizeof x);
    return x;
}
SIMD_INLINE void v_store(float *to, vf x)
{
    memcpy(to, &x, sizeof x);
}
SIMD_INLINE void v_stream(float *to, vf x)
{
    v_store(to, x);
}
SIMD_INLINE vf v_bytes(const uint8_t *from)
{
    return (vf){from[0], from[1], from[2], from[3]};
}
SIMD_INLINE vm v_less(vf a, vf b)
{
    return a < b;
}
SIMD_INLINE vm v_equal(vf a, vf b)
{
    return a == b;
}
SIMD_INLINE vf v_choose(vm mask, vf yes, vf no)
{
    return (vf)((mask & (vm)yes) | (~mask & (vm)no));
}
SIMD_INLINE vf v_smaller(vf a, vf b)
{
    return v_choose(a < b, a, b);
}
SIMD_INLINE vf v_larger(vf a, vf b)
{
    return v_choose(a > b, a, b);
}
SIMD_INLINE vf v_magnitude(vf a)
{
    return (vf)((vm)a & 0x7fffffff);
}
SIMD_INLINE vf v_zip_low(vf a, vf b)
{
    return (vf){a[0], b[0], a[1], b[1]};
}
SIMD_INLINE vf v_zip_high(vf a, vf b)
{
    return (vf){a[2], b[2], a[3], b[3]};
}
SIMD_INLINE vf v_pair_low(vf a, vf b)
{
    return (vf){a[0], a[1], b[0], b[1]};
}
SIMD_INLINE vf v_pair_high(vf a, vf b)
{
    return (vf){a[2], a[3], b[2], b[3]};
}
SIMD_INLINE vf v_quads(const float *line, const int32_t *first)
{
    return v_load(line + first[0]);
}
SIMD_INLINE vm v_truncate(vf x)
{
    return (vm){(int32_t)x[0], (int32_t)x[1], (int32_t)x[2], (int32_t)x[3]};
}
SIMD_INLINE void v_interleave(vf out[3], vf r, vf g, vf b)
{
    out[0] = (vf){r[0], g[0], b[0], r[1]};
    out[1] = (vf){g[1], b[1], r[2], g[2]};
    out[2] = (vf){b[2], r[3], g[3], b[3]};
}
#endif

// --- the same at every level --------------------------------------------------------------------

typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint64_t vl __attribute__((vector_size(LANES * 4)));

SIMD_INLINE vf v_clip(vf x) // to [0, 1]; -0 becomes 0
{
    return v_smaller(v_larger(x, v_all(0)), v_all(1));
}

// Keeps x in a register: compilers like to load again for each use, where loads are what is scarce.
SIMD_INLINE vf v_held(vf x)
{
#if defined(__x86_64__)
    __asm__("" : "+v"(x));
#endif
    return x;
}

struct v_four {
    vf a, b, c, d;
};

// a = line[first[lane]], b = line[first[lane] + 1], …
SIMD_INLINE struct v_four v_gather(const float *line, const int32_t *first)
{
    vf quad0 = v_quads(line, first), quad1 = v_quads(line, first + 1);
    vf quad2 = v_quads(line, first + 2), quad3 = v_quads(line, first + 3);
    vf low01 = v_zip_low(quad0, quad1), low23 = v_zip_low(quad2, quad3);
    vf high01 = v_zip_high(quad0, quad1), high23 = v_zip_high(quad2, quad3);
    return (struct v_four){v_pair_low(low01, low23), v_pair_high(low01, low23),
                           v_pair_low(high01, high23), v_pair_high(high01, high23)};
}

#endif
