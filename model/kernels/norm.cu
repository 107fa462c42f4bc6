// RMSNorm and LayerNorm of rows, with the residual added first, by the weights of one of two experts.
//
//   x = x + added                                      where there is something to add
//   RMSNorm    y = x / sqrt(mean(x^2) + eps) * scale
//   LayerNorm  y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * scale + shift
//
//   x      [N, D]   the residual stream; where something is added, the sum is stored in place, rounded
//                   to its type, and what is stored is normalised
//   added  [N, D]   or none
//   scale  [E, D]   E of 1 or 2: the first `split` rows use the first row, the others the last
//   shift  [E, D]   for LayerNorm
//   y      [N, D]   not x itself
//
// D is a multiple of 8. Grid N, blocks of 128 threads: one block a row.
//
// Order of reduction: a thread sums its vectors of 16 bytes (thread, thread + 128, ...) in ascending
// order, lanes of a warp are added by halves, then the four warps in ascending order. It depends on D
// and the type alone.
//
// Source: Zhang and Sennrich 2019 (arXiv 1910.07467); Ba et al. 2016 (arXiv 1607.06450).

#include "device.h"

namespace normalisation {

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / WARP_SIZE;

// Adds over the block; every thread gets the same bits. `slots` is used once in a launch.
__device__ __forceinline__ float sum_block(float x, Shared<float> slots) {
    x = sum_lanes<WARP_SIZE>(x);
    if (threadIdx.x % WARP_SIZE == 0) slots[threadIdx.x / WARP_SIZE] = x;
    if (!MUTANT(1)) __syncthreads();
    float sum = slots[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; warp++) sum += slots[warp];
    return sum;
}

template <typename T, bool CENTRED>
__device__ __forceinline__ void normalise(Global<T> x, Global<const T> added, Global<const T> scale,
                                          Global<const T> shift, Global<T> y, int width, int experts,
                                          int split, float eps) {
    constexpr int N = WIDTH<T>;
    SHARED(float, slots, 2 * WARPS);
    const int row = blockIdx.x, vectors = width / N;
    const size_t start = static_cast<size_t>(row) * width;
    const int expert = row < (MUTANT(2) ? split + 1 : split) ? 0 : experts - 1;

    float sum = 0.0f;
    for (int at = threadIdx.x; at < vectors; at += THREADS) {
        Pack<T, N> pack = load_pack<N, T>(x + (start + at * N));
        if (added != nullptr && !MUTANT(3)) {
            const Pack<T, N> more = load_constant<N, T>(added + (start + at * N));
#pragma unroll
            for (int n = 0; n < N; n++) pack.v[n] = from_float<T>(to_float(pack.v[n]) + to_float(more.v[n]));
            store_pack<N, T>(x + (start + at * N), pack);
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float value = to_float(pack.v[n]);
            sum = CENTRED ? sum + value : fmaf(value, value, sum);
        }
    }
    sum = sum_block(sum, slots);
    const float mean = CENTRED ? sum / width : 0.0f;
    if constexpr (CENTRED) {
        sum = 0.0f;
        for (int at = threadIdx.x; at < vectors; at += THREADS) {
            const Pack<T, N> pack = load_pack<N, T>(x + (start + at * N));
#pragma unroll
            for (int n = 0; n < N; n++) {
                const float value = to_float(pack.v[n]) - mean;
                sum = fmaf(value, value, sum);
            }
        }
        sum = sum_block(sum, slots + (MUTANT(4) ? 0 : WARPS));
    }
    const float inverse = rsqrtf(sum / width + eps);

    const size_t weights = static_cast<size_t>(expert) * width;
    for (int at = threadIdx.x; at < vectors; at += THREADS) {
        Pack<T, N> pack = load_pack<N, T>(x + (start + at * N));
        const Pack<T, N> factors = load_constant<N, T>(scale + (weights + at * N));
        Pack<T, N> shifts = {};
        if constexpr (CENTRED) shifts = load_constant<N, T>(shift + (weights + at * N));
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float value = (to_float(pack.v[n]) - mean) * inverse;
            const float factor = to_float(factors.v[n]);
            pack.v[n] = from_float<T>(CENTRED ? fmaf(value, factor, to_float(shifts.v[n])) : value * factor);
        }
        store_pack<N, T>(y + (start + at * N), pack);
    }
}

} // namespace normalisation

#ifdef __CUDACC__

#define NORM(T, name)                                                                                       \
    extern "C" __global__ void __launch_bounds__(normalisation::THREADS)                                    \
        rms_norm_##name(Global<T> x, Global<const T> added, Global<const T> scale, Global<T> y, int width,  \
                        int experts, int split, float eps) {                                                \
        normalisation::normalise<T, false>(x, added, scale, nullptr, y, width, experts, split, eps);        \
    }                                                                                                       \
    extern "C" __global__ void __launch_bounds__(normalisation::THREADS)                                    \
        layer_norm_##name(Global<T> x, Global<const T> added, Global<const T> scale, Global<const T> shift, \
                          Global<T> y, int width, int experts, int split, float eps) {                      \
        normalisation::normalise<T, true>(x, added, scale, shift, y, width, experts, split, eps);           \
    }

NORM(float, f32)
NORM(__half, f16)
NORM(__nv_bfloat16, bf16)

#endif
