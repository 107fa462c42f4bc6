// What the kernels share: element types, vector loads and stores, reductions over a warp.
//
// Compiled by nvcc this is plain CUDA; compiled by a C++ compiler the same kernels run on the CPU with
// every access checked (`emulation/cuda.h`). A kernel therefore names its memory by `Global<T>` and
// `Shared<T>`, which are pointers under nvcc, and puts a fault into itself where `MUTANT(n)` holds,
// which is never under nvcc.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

template <typename T> using Global = T* __restrict__;
template <typename T> using Shared = T*;
#define MUTANT(n) false
#define SHARED(T, name, count) __shared__ __align__(16) T name[count]
#define DYNAMIC_SHARED(T, name) extern __shared__ __align__(16) T name[]

#else

#include "emulation/cuda.h"

template <typename T> using Global = emulation::Pointer<T>;
template <typename T> using Shared = emulation::Shared<T>;
#define MUTANT(n) (emulation::mutant == (n))
#define SHARED(T, name, count)  \
    static char name##_key = 0; \
    const Shared<T> name{emulation::region(&name##_key, #name, (count) * sizeof(T)), 0}
#define DYNAMIC_SHARED(T, name) const Shared<T> name = emulation::dynamic_shared<T>(#name)

#endif

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARP_SIZE = 32;

__device__ __forceinline__ float negative_infinity() { return __uint_as_float(0xff800000u); }

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// Rounds to the nearest, ties to even.
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16(x);
}

// How many numbers a load of 16 bytes brings.
template <typename T> constexpr int WIDTH = 16 / static_cast<int>(sizeof(T));

// Neighbouring numbers that are loaded or stored at once: 8 or 16 bytes, at a place that is a multiple
// of them.
template <typename T, int N> struct alignas(N * sizeof(T)) Pack {
    T v[N];
};

#ifdef __CUDACC__

// A pack as one word of the machine; a struct would be copied number by number.
template <int BYTES> struct VectorOf;
template <> struct VectorOf<8> {
    using Word = uint2;
};
template <> struct VectorOf<16> {
    using Word = uint4;
};
template <typename T, int N> using Word = typename VectorOf<N * sizeof(T)>::Word;

template <int N, typename T> __device__ __forceinline__ Pack<T, N> load_pack(Global<const T> from) {
    Pack<T, N> pack;
    *reinterpret_cast<Word<T, N>*>(&pack) = *reinterpret_cast<const Word<T, N>*>(from);
    return pack;
}

// As `load_pack`, of memory that nobody writes during the launch: by the read-only path.
template <int N, typename T> __device__ __forceinline__ Pack<T, N> load_constant(Global<const T> from) {
    Pack<T, N> pack;
    *reinterpret_cast<Word<T, N>*>(&pack) = __ldg(reinterpret_cast<const Word<T, N>*>(from));
    return pack;
}

template <int N, typename T>
__device__ __forceinline__ void store_pack(Global<T> to, const Pack<T, N>& pack) {
    *reinterpret_cast<Word<T, N>*>(to) = *reinterpret_cast<const Word<T, N>*>(&pack);
}

#else

template <int N, typename T> Pack<T, N> load_pack(Global<const T> from) {
    static_assert(N * sizeof(T) == 8 || N * sizeof(T) == 16, "vectors of 8 or 16 bytes");
    Pack<T, N> pack;
    from.load(pack.v, N);
    return pack;
}

template <int N, typename T> Pack<T, N> load_constant(Global<const T> from) { return load_pack<N, T>(from); }

template <int N, typename T> void store_pack(Global<T> to, const Pack<T, N>& pack) { to.store(pack.v, N); }

#endif

// Four neighbouring numbers of shared memory, at a multiple of four.
__device__ __forceinline__ float4 load_four(Shared<float> from) {
#ifdef __CUDACC__
    return *reinterpret_cast<const float4*>(from);
#else
    return from.load<float4>(0);
#endif
}

__device__ __forceinline__ void store_four(Shared<float> to, float4 value) {
#ifdef __CUDACC__
    *reinterpret_cast<float4*>(to) = value;
#else
    to.store(0, value);
#endif
}

// Adds over aligned groups of `LANES` lanes, by halves; every lane of a group gets the same bits, because
// addition commutes.
template <int LANES> __device__ __forceinline__ float sum_lanes(float x) {
#pragma unroll
    for (int by = LANES / 2; by > 0; by /= 2) x += __shfl_xor_sync(ALL_LANES, x, by);
    return x;
}

template <int LANES> __device__ __forceinline__ float max_lanes(float x) {
#pragma unroll
    for (int by = LANES / 2; by > 0; by /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, by));
    return x;
}

// The factor of sums that were relative to `largest_before`: exp(largest_before - largest), 0 where nothing
// was seen.
__device__ __forceinline__ float rescale(float largest_before, float largest) {
    return largest_before == negative_infinity() ? 0.0f : expf(largest_before - largest);
}

// Defines something for each head size.
// clang-format off
#define FOR_EACH_HEAD_SIZE(define, ...)                                                            \
    define(32, __VA_ARGS__) define(40, __VA_ARGS__) define(48, __VA_ARGS__) define(56, __VA_ARGS__) \
    define(64, __VA_ARGS__) define(72, __VA_ARGS__) define(80, __VA_ARGS__) define(88, __VA_ARGS__) \
    define(96, __VA_ARGS__) define(104, __VA_ARGS__) define(112, __VA_ARGS__)                       \
    define(120, __VA_ARGS__) define(128, __VA_ARGS__)
// clang-format on
