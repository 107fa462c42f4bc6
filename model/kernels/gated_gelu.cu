// The gated GELU of a feed-forward layer: y = gelu(gate) * up, with
//
//   gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
//
//   x  [N, 2F]   gate, then up
//   y  [N, F]
//
// F is a multiple of 8. A thread takes vectors of 16 bytes of y, in strides of the grid; no sums but
// those of a number. Any grid of any number of blocks; blocks of 256 threads.
//
// Source: Shazeer 2020 (arXiv 2002.05202), GEGLU; the tanh form of Hendrycks and Gimpel 2016 (arXiv
// 1606.08415).

#include "device.h"

namespace gated {

constexpr int THREADS = 256;

__device__ __forceinline__ float gelu(float x) {
    constexpr float ROOT = 0.7978845608028654f;
    const float inner = ROOT * fmaf(0.044715f * x * x, x, x);
    return 0.5f * x * (1.0f + tanhf(MUTANT(3) ? ROOT * x : inner));
}

template <typename T>
__device__ __forceinline__ void gated_gelu(Global<const T> x, Global<T> y, int rows, int width) {
    constexpr int N = WIDTH<T>;
    const int vectors = width / N;
    const size_t count = static_cast<size_t>(rows) * vectors + (MUTANT(1) ? 1 : 0);
    const size_t step = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t at = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; at < count; at += step) {
        const size_t row = at / vectors, column = at % vectors * N;
        const size_t start = row * (MUTANT(2) ? 1 : 2) * width + column;
        const Pack<T, N> gate = load_constant<N, T>(x + start), up = load_constant<N, T>(x + (start + width));
        Pack<T, N> out;
#pragma unroll
        for (int n = 0; n < N; n++) out.v[n] = from_float<T>(gelu(to_float(gate.v[n])) * to_float(up.v[n]));
        store_pack<N, T>(y + (row * width + column), out);
    }
}

} // namespace gated

#ifdef __CUDACC__

#define GATED_GELU(T, name)                                                      \
    extern "C" __global__ void __launch_bounds__(gated::THREADS)                 \
        gated_gelu_##name(Global<const T> x, Global<T> y, int rows, int width) { \
        gated::gated_gelu<T>(x, y, rows, width);                                 \
    }

GATED_GELU(float, f32)
GATED_GELU(__half, f16)
GATED_GELU(__nv_bfloat16, bf16)

#endif
