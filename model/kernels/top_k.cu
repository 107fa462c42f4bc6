// Top-k of rows of logits, and what turns logits into log-probabilities.
//
//   logits  [rows, width]   of each row the first `limit` are ranked
//   ids     [rows, k]       the highest first, of equal ones the lower id; where k exceeds `limit`, the
//                           rest is -1
//   values  [rows, k] f32   their logits; -infinity where there is no id
//   totals  [rows, 2] f32   the highest logit m, and the sum of exp(logit - m) over the row: its
//                           log-sum-exp is m + log(sum). The sum is NaN where m is not finite or a logit
//                           is NaN.
//
// NaN counts as -infinity among the values, and -0 as 0. Grid (rows), blocks of 256 threads.
//
// A thread keeps the highest of its logits (thread, thread + 256, ...). In each of k rounds the block
// takes the highest of these, and the thread that had it looks for its next. Order of the sum: a
// thread's logits in ascending order, lanes of a warp by halves, warps in ascending order.
//
// Source: none; logits are ordered as `Ranking` orders them on the CPU.

#include "device.h"

namespace top_k {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP_SIZE;

using Key = unsigned long long;

// A number by which logits are ordered, higher logits and then lower ids first; above 0.
__device__ __forceinline__ Key key_of(float logit, int id) {
    const float ordered = logit != logit ? negative_infinity() : logit + 0.0f;
    const unsigned bits = __float_as_uint(ordered);
    const unsigned high = bits >> 31 ? ~bits : bits | 0x80000000u;
    const unsigned low = MUTANT(2) ? static_cast<unsigned>(id) : ~static_cast<unsigned>(id);
    return static_cast<Key>(high) << 32 | low;
}

__device__ __forceinline__ int id_of(Key key) {
    return static_cast<int>(MUTANT(2) ? static_cast<unsigned>(key) : ~static_cast<unsigned>(key));
}

__device__ __forceinline__ float logit_of(Key key) {
    const unsigned high = static_cast<unsigned>(key >> 32);
    return __uint_as_float(high >> 31 ? high & 0x7fffffffu : ~high);
}

// Returns the highest key below `bound` among a thread's logits; 0 where there is none.
template <typename T>
__device__ __forceinline__ Key highest_below(Key bound, Global<const T> row, int limit) {
    Key highest = 0;
#pragma unroll 4
    for (int id = threadIdx.x; id < limit; id += THREADS) {
        const Key key = key_of(to_float(row[id]), id);
        if (key > highest && (MUTANT(3) ? key <= bound : key < bound)) highest = key;
    }
    return highest;
}

// Returns the highest key of the block to every thread.
__device__ __forceinline__ Key highest_of_block(Key key, Shared<Key> slots) {
#pragma unroll
    for (int by = WARP_SIZE / 2; by > 0; by /= 2) {
        const Key other = __shfl_xor_sync(ALL_LANES, key, by);
        key = other > key ? other : key;
    }
    if (threadIdx.x % WARP_SIZE == 0) slots[threadIdx.x / WARP_SIZE] = key;
    if (!MUTANT(1)) __syncthreads();
    for (int warp = 0; warp < WARPS; warp++) {
        const Key other = slots[warp];
        key = other > key ? other : key;
    }
    return key;
}

template <typename T>
__device__ __forceinline__ void rank(Global<const T> logits, int width, int limit, int k, Global<int> ids,
                                     Global<float> values, Global<float> totals) {
    // Two sets of slots, used in turn: a barrier lies between two uses of a set.
    SHARED(Key, slots, 2 * WARPS);
    SHARED(float, sums, WARPS);
    const size_t row_index = blockIdx.x;
    const Global<const T> row = logits + row_index * width;
    Key own = highest_below(~static_cast<Key>(0), row, limit);
    Key best = highest_of_block(own, slots + 0);

    const float highest = best == 0 ? negative_infinity() : logit_of(best);
    float sum = 0.0f;
    for (int id = threadIdx.x; id < limit; id += THREADS) sum += expf(to_float(row[id]) - highest);
    sum = sum_lanes<WARP_SIZE>(sum);
    if (threadIdx.x % WARP_SIZE == 0) sums[threadIdx.x / WARP_SIZE] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (int warp = 0; warp < WARPS; warp++) total += sums[warp];
        totals[row_index * 2] = highest;
        // Infinity minus itself, which is no number, or else 0.
        totals[row_index * 2 + 1] = total + (highest - highest);
    }

    for (int round = 0; round < k; round++) {
        if (threadIdx.x == 0) {
            ids[row_index * k + round] = best == 0 ? -1 : id_of(best);
            values[row_index * k + round] = best == 0 ? negative_infinity() : logit_of(best);
        }
        if (own == best && own != 0) own = highest_below(best, row, limit);
        best = highest_of_block(own, slots + (MUTANT(4) ? 0 : (round + 1) % 2 * WARPS));
    }
}

} // namespace top_k

#ifdef __CUDACC__

#define TOP_K(T, name)                                                                     \
    extern "C" __global__ void __launch_bounds__(top_k::THREADS)                           \
        top_k_##name(Global<const T> logits, int width, int limit, int k, Global<int> ids, \
                     Global<float> values, Global<float> totals) {                         \
        top_k::rank<T>(logits, width, limit, k, ids, values, totals);                      \
    }

TOP_K(float, f32)
TOP_K(__half, f16)
TOP_K(__nv_bfloat16, bf16)

#endif
