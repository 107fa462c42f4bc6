// Rotary positions, in place of the leading columns of a projection.
//
//   (a, b) = (a cos - b sin, b cos + a sin)
//
// for the numbers i and i + Dh/2 of a head, by the angles of the row's position.
//
//   x          [N, W]   the first `columns` columns are turned, head by head; a multiple of Dh
//   positions  [N]
//   cos, sin   [positions, Dh/2] f32
//
// Dh and W are multiples of 8; with `direction` -1 it turns backwards. A thread takes four pairs, in
// strides of the grid. Any grid of any number of blocks; blocks of 256 threads.
//
// Source: Su et al. 2021 (arXiv 2104.09864), pairs as in GPT-NeoX.

#include "device.h"

namespace rotary {

constexpr int THREADS = 256;
constexpr int N = 4;

template <typename T>
__device__ __forceinline__ void rotate(Global<T> x, Global<const int> positions, Global<const float> cos,
                                       Global<const float> sin, int rows, int width, int columns,
                                       int head_size, float direction) {
    const int half = head_size / 2, of_head = half / N, of_row = columns / head_size * of_head;
    const size_t count = static_cast<size_t>(rows) * of_row;
    const size_t step = static_cast<size_t>(gridDim.x) * THREADS;
    for (size_t at = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x; at < count; at += step) {
        const size_t row = at / of_row;
        const int inside = static_cast<int>(at % of_row), head = inside / of_head,
                  pair = inside % of_head * N;
        const size_t place = row * width + head * head_size + pair;
        const size_t angle = static_cast<size_t>(positions[MUTANT(1) ? 0 : row]) * half + pair;
        Pack<T, N> a = load_pack<N, T>(x + place), b = load_pack<N, T>(x + (place + half));
        const Pack<float, N> c = load_constant<N, float>(cos + angle),
                             s = load_constant<N, float>(sin + angle);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float first = to_float(a.v[n]), second = to_float(b.v[n]);
            const float turn = s.v[n] * (MUTANT(2) ? 1.0f : direction);
            a.v[n] = from_float<T>(first * c.v[n] - second * turn);
            b.v[n] = from_float<T>(second * c.v[n] + first * turn);
        }
        store_pack<N, T>(x + place, a);
        store_pack<N, T>(x + (place + (MUTANT(3) ? of_head : half)), b);
    }
}

} // namespace rotary

#ifdef __CUDACC__

#define ROTARY(T, name)                                                                             \
    extern "C" __global__ void __launch_bounds__(rotary::THREADS) rotary_##name(                    \
        Global<T> x, Global<const int> positions, Global<const float> cos, Global<const float> sin, \
        int rows, int width, int columns, int head_size, float direction) {                         \
        rotary::rotate<T>(x, positions, cos, sin, rows, width, columns, head_size, direction);      \
    }

ROTARY(float, f32)
ROTARY(__half, f16)
ROTARY(__nv_bfloat16, bf16)

#endif
