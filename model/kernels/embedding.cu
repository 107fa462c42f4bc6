// The two ends of a model: rows of an embedding, and scale and bias of an output.
//
//   gather          y[n] = table[ids[n]] * scale      ids [N] below V, table [V, D], y [N, D]
//   bias_and_scale  x[n] = x[n] * scale + bias        x [N, D] in place, bias [D] or none
//
// D is a multiple of 8. A thread takes vectors of 16 bytes, in strides of the grid; products in f32. Any
// grid of any number of blocks; blocks of 256 threads.
//
// Source: the factors sqrt(D) of Vaswani et al. 2017 (arXiv 1706.03762), section 3.4, and 1/sqrt(D) of
// tied embeddings in Raffel et al. 2020 (arXiv 1910.10683).

#include "device.h"

namespace embedding {

constexpr int THREADS = 256;

template <typename T>
__device__ __forceinline__ void gather(Global<const T> table, Global<const int> ids, Global<T> y, int rows,
                                       int width, float scale) {
    constexpr int N = WIDTH<T>;
    const int vectors = width / N;
    const size_t count = static_cast<size_t>(rows) * vectors, step = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t at = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; at < count; at += step) {
        const size_t row = at / vectors, column = at % vectors * N;
        const size_t id = MUTANT(1) ? row : ids[row];
        Pack<T, N> pack = load_constant<N, T>(table + (id * width + column));
#pragma unroll
        for (int n = 0; n < N; n++)
            pack.v[n] = from_float<T>(to_float(pack.v[n]) * (MUTANT(2) ? 1.0f : scale));
        store_pack<N, T>(y + (row * width + column), pack);
    }
}

template <typename T>
__device__ __forceinline__ void bias_and_scale(Global<T> x, Global<const T> bias, int rows, int width,
                                               float scale) {
    constexpr int N = WIDTH<T>;
    const int vectors = width / N;
    const size_t count = static_cast<size_t>(rows) * vectors + (MUTANT(5) ? 1 : 0);
    const size_t step = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t at = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; at < count; at += step) {
        const size_t column = at % vectors * N;
        Pack<T, N> pack = load_pack<N, T>(x + at * N), added = {};
        if (bias != nullptr) added = load_constant<N, T>(bias + (MUTANT(3) ? 0 : column));
#pragma unroll
        for (int n = 0; n < N; n++)
            pack.v[n] = from_float<T>(fmaf(to_float(pack.v[n]), scale, to_float(added.v[n])));
        store_pack<N, T>(x + (MUTANT(4) ? column : at * N), pack);
    }
}

} // namespace embedding

#ifdef __CUDACC__

#define EMBEDDING(T, name)                                                                             \
    extern "C" __global__ void __launch_bounds__(embedding::THREADS) embedding_##name(                 \
        Global<const T> table, Global<const int> ids, Global<T> y, int rows, int width, float scale) { \
        embedding::gather<T>(table, ids, y, rows, width, scale);                                       \
    }                                                                                                  \
    extern "C" __global__ void __launch_bounds__(embedding::THREADS)                                   \
        bias_and_scale_##name(Global<T> x, Global<const T> bias, int rows, int width, float scale) {   \
        embedding::bias_and_scale<T>(x, bias, rows, width, scale);                                     \
    }

EMBEDDING(float, f32)
EMBEDDING(__half, f16)
EMBEDDING(__nv_bfloat16, bf16)

#endif
