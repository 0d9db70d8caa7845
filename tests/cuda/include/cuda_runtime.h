// The part of CUDA's language that kernels use (trainer/cuda/launch.h), for a C++ compiler: threads
// of a block run one after the other, those that wait for each other really do (tests/cuda).
#ifndef TESTS_CUDA_INCLUDE_CUDA_RUNTIME_H
#define TESTS_CUDA_INCLUDE_CUDA_RUNTIME_H

#include "tests/cuda/include/cuda_runtime_api.h"

#include <functional>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// In a section of their own, so that a block can begin with nothing but NaN in them.
#define __shared__ static __attribute__((section("emulated_shared")))

// --- vectors

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned in_x = 1, unsigned in_y = 1, unsigned in_z = 1) : x(in_x), y(in_y), z(in_z)
    {
    }
};

#define EMULATED_VECTORS(name, type, bytes)                                                        \
    struct __align__(2 * (bytes)) name##2                                                          \
    {                                                                                              \
        type x, y;                                                                                 \
    };                                                                                             \
    struct name##3                                                                                 \
    {                                                                                              \
        type x, y, z;                                                                              \
    };                                                                                             \
    struct __align__(4 * (bytes)) name##4                                                          \
    {                                                                                              \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    static inline name##2 make_##name##2(type x, type y)                                           \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    static inline name##3 make_##name##3(type x, type y, type z)                                   \
    {                                                                                              \
        return {x, y, z};                                                                          \
    }                                                                                              \
    static inline name##4 make_##name##4(type x, type y, type z, type w)                           \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
EMULATED_VECTORS(float, float, 4)
EMULATED_VECTORS(int, int, 4)
EMULATED_VECTORS(uchar, unsigned char, 1)
#undef EMULATED_VECTORS

struct __align__(8) uint2
{
    unsigned x, y;
};
struct __align__(16) uint4
{
    unsigned x, y, z, w;
};
struct __align__(16) double2
{
    double x, y;
};
static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}
static inline double2 make_double2(double x, double y)
{
    return {x, y};
}

// --- functions of one thread

template <class Value> static inline Value __ldg(const Value *from)
{
    return *from;
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline double rsqrt(double x)
{
    return 1.0 / sqrt(x);
}
static inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline int __float_as_int(float x)
{
    return (int)__float_as_uint(x);
}
static inline float __int_as_float(int bits)
{
    return __uint_as_float((unsigned)bits);
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline float __saturatef(float x)
{
    return x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f;
}
#define EMULATED_MIN_MAX(type)                                                                     \
    static inline type min(type a, type b)                                                         \
    {                                                                                              \
        return b < a ? b : a;                                                                      \
    }                                                                                              \
    static inline type max(type a, type b)                                                         \
    {                                                                                              \
        return a < b ? b : a;                                                                      \
    }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#undef EMULATED_MIN_MAX
static inline float min(float a, float b)
{
    return fminf(a, b);
}
static inline float max(float a, float b)
{
    return fmaxf(a, b);
}
static inline double min(double a, double b)
{
    return fmin(a, b);
}
static inline double max(double a, double b)
{
    return fmax(a, b);
}

// --- threads of a block together

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

// Where a thread waits, in the source: all that wait together must do so at one place.
struct emulated_place {
    const char *file;
    int line;
};
enum emulated_shuffle { EMULATED_XOR, EMULATED_DOWN, EMULATED_UP, EMULATED_FROM };

void emulated_barrier(emulated_place place);
// What the lane meant by `operand` gave for `bits`; all bits set when there is no such lane.
uint64_t emulated_exchange(enum emulated_shuffle shuffle, unsigned mask, uint64_t bits,
                           unsigned operand, int width, emulated_place place);

static inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    emulated_barrier({file, line});
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, const char *file = __builtin_FILE(),
                              int line = __builtin_LINE())
{
    emulated_exchange(EMULATED_XOR, mask, 0, 0, warpSize, {file, line});
}

template <class Value>
static inline Value emulated_shuffled(enum emulated_shuffle shuffle, unsigned mask, Value value,
                                      unsigned operand, int width, emulated_place place)
{
    static_assert(sizeof(Value) == 4 || sizeof(Value) == 8, "lanes exchange words of 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulated_exchange(shuffle, mask, bits, operand, width, place);
    memcpy(&value, &bits, sizeof value);
    return value;
}
#define EMULATED_SHUFFLE(name, shuffle)                                                            \
    template <class Value>                                                                         \
    static inline Value name(unsigned mask, Value value, unsigned operand, int width = warpSize,   \
                             const char *file = __builtin_FILE(), int line = __builtin_LINE())     \
    {                                                                                              \
        return emulated_shuffled(shuffle, mask, value, operand, width, {file, line});              \
    }
EMULATED_SHUFFLE(__shfl_xor_sync, EMULATED_XOR)
EMULATED_SHUFFLE(__shfl_down_sync, EMULATED_DOWN)
EMULATED_SHUFFLE(__shfl_up_sync, EMULATED_UP)
EMULATED_SHUFFLE(__shfl_sync, EMULATED_FROM)
#undef EMULATED_SHUFFLE

// --- launches

// One launch: `thread` calls the kernel once, as the thread that threadIdx and blockIdx name.
struct emulated_launch {
    const char *name;
    dim3 grid, block;
    std::function<void()> thread;
};
cudaError_t emulated_launch_later(const emulated_launch &launch, cudaStream_t stream);

// Takes a kernel's arguments as a call of it would.
template <class... Parameters> struct emulated_launcher {
    emulated_launch launch;
    void (*kernel)(Parameters...);
    cudaStream_t stream;

    cudaError_t operator()(Parameters... parameters)
    {
        void (*called)(Parameters...) = kernel;
        launch.thread = [called, parameters...] { called(parameters...); };
        return emulated_launch_later(launch, stream);
    }
};
template <class... Parameters>
static inline emulated_launcher<Parameters...>
emulated_launcher_of(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                     cudaStream_t stream)
{
    return {{name, grid, block, nullptr}, kernel, stream};
}
#define CUDA_LAUNCH(kernel, grid, block, stream, ...)                                              \
    emulated_launcher_of(#kernel, kernel, dim3(grid), dim3(block), (stream))(__VA_ARGS__)

#endif
