// Attention of single queries: one row a sequence and step, against the keys and values of that sequence.
//
//   out = sum over keys of softmax(scale q k + bias) v, for each head
//
// Two sources of keys and values, with the same layout inside a page, [2 H, R, Dh]: of each head the
// keys, then of each head the values.
//
//   paged    the KV cache of written tokens: pages [pages, 2 H, PAGE, Dh], and for each sequence a row
//            of the page table [B, pages of a sequence]. The query stands at the last key; a bias by
//            distance [H, 2 R + 1], for key minus query from -R to R and beyond these the outermost, may
//            be added.
//   memory   cross-attention: one page [2 H, S, Dh] for each prompt, which the beams and samples of a
//            request share. A block reads it once for up to MEMORY_QUERIES sequences: `tiles` [tiles, 3]
//            holds a memory, the first of its sequences in `order` [B], and how many there are.
//
// The keys of a sequence are cut into parts of PART keys, which different blocks attend to; `merge` puts
// the parts together. A sequence of one part is finished by `paged` or `memory`, with the same bits.
//
// Order of reduction: key t belongs to part t / PART and inside it to group t mod G of lanes, G given by
// the type and head size alone. A group takes its keys in ascending order, STEP at a time; groups of a
// warp are merged by halves, then warps in ascending order, then parts in ascending order. The result of
// a query depends on that query, its keys and its values: not on the batch, the grid or who shares the
// memory.
//
//   q         [B, q_stride]   the query in the first H Dh columns
//   lengths   [B]             keys of each sequence; of 0 keys the result is 0
//   out       [B, H Dh]
//   sums      [B, H, parts, Dh] f32   weighted sums of the values of each part, relative to its largest
//                                     score; scratch
//   states    [B, H, parts, 2] f32    its largest score, and the sum of its weights; scratch
//
// Grids: `paged` (B, H, parts), `memory` (tiles, H, parts), `merge` (B, H); blocks of 128 threads;
// `parts` for the longest sequence.
//
// Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; a bias on the scores as in Raffel et al. 2020
// (arXiv 1910.10683), section 2.1; the online softmax of Milakov and Gimelshein 2018 (arXiv 1805.02867),
// algorithm 3; keys split over blocks as in Flash-Decoding, Dao et al. 2023.

#include "device.h"

namespace decode {

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / WARP_SIZE;
constexpr int PAGE = 16;
constexpr int PART = 256;
constexpr int MEMORY_QUERIES = 4;
// Blocks of a multiprocessor, which leave a thread 128 registers for one query, and 168 for several.
constexpr int PAGED_BLOCKS = 4;
constexpr int MEMORY_BLOCKS = 3;

// Keys of a group that are loaded before any of them is used, for Q queries.
__host__ __device__ constexpr int step_of(int queries) { return queries == 1 ? 4 : 2; }

// The lanes that hold one key: the least power of two that has its vectors.
__host__ __device__ constexpr int lanes_of(int vectors) {
    return vectors <= 4 ? 4 : vectors <= 8 ? 8 : vectors <= 16 ? 16 : 32;
}

// Where the keys of a sequence lie in the cache.
template <typename T, int D> struct Paged {
    Global<const T> pages;
    Global<const int> table;
    int heads;

    __device__ __forceinline__ Global<const T> row(int piece, int key) const {
        size_t page = MUTANT(2) ? table[0] : table[key / PAGE];
        return pages + ((page * 2 * heads + piece) * PAGE + key % PAGE) * D;
    }
};

// Where the keys of a prompt lie.
template <typename T, int D> struct Memory {
    Global<const T> rows;
    int length;

    __device__ __forceinline__ Global<const T> row(int piece, int key) const {
        return rows + (static_cast<size_t>(piece) * length + key) * D;
    }
};

// The one sequence of a block.
struct Alone {
    __device__ __forceinline__ int of(int) const { return blockIdx.x; }
};

// The sequences of a block that share a memory.
struct Sharing {
    Global<const int> order;

    __device__ __forceinline__ int of(int i) const { return order[MUTANT(5) ? 0 : i]; }
};

// A bias by distance, or none.
struct Bias {
    Global<const float> table;
    int reach;

    // What is added to the score of a key as a query sees it that stands at `at`.
    __device__ __forceinline__ float of(int head, int key, int at) const {
        if (table == nullptr) return 0.0f;
        int distance = min(max(MUTANT(3) ? at - key : key - at, -reach), reach);
        return table[static_cast<size_t>(head) * (2 * reach + 1) + distance + reach];
    }
};

// What a part leaves, and where the result goes.
template <typename T> struct Output {
    Global<float> sums;
    Global<float> states;
    Global<T> out;
    int parts;
};

// Attends from up to Q queries to the keys of one part.
template <typename T, int D, int Q, typename Sequences, typename Rows>
__device__ __forceinline__ void attend_part(Global<const T> q, int q_stride, const Sequences& sequences,
                                            int count, int length, const Rows& rows, int heads, float scale,
                                            const Bias& bias, const Output<T>& output) {
    constexpr int N = WIDTH<T>, VECTORS = D / N, LANES = lanes_of(VECTORS), GROUPS = THREADS / LANES;
    constexpr int STEP = step_of(Q);
    SHARED(float, warp_sums, WARPS * Q * D);
    SHARED(float, warp_states, WARPS * Q * 2);
    const int thread = threadIdx.x, head = blockIdx.y, part = blockIdx.z;
    const int first = part * PART, end = min(length, first + PART);
    // The same for the whole block.
    if (part > 0 && first >= length) return;

    const int lane = thread % LANES, group = thread / LANES;
    const bool active = lane < VECTORS;
    float query[Q][N] = {}, sums[Q][N] = {}, largest[Q], total[Q] = {};
#pragma unroll
    for (int i = 0; i < Q; i++) {
        largest[i] = negative_infinity();
        if (!active || i >= count) continue;
        size_t column = static_cast<size_t>(head) * D + lane * N;
        Pack<T, N> pack = load_constant<N, T>(q + (static_cast<size_t>(sequences.of(i)) * q_stride + column));
#pragma unroll
        for (int n = 0; n < N; n++) query[i][n] = to_float(pack.v[n]);
    }

    for (int base = first; base < end; base += GROUPS * STEP) {
        Pack<T, N> keys[STEP] = {}, values[STEP] = {};
#pragma unroll
        for (int s = 0; s < STEP; s++) {
            int key = base + s * GROUPS + group;
            if (key >= end || !active) continue;
            keys[s] = load_constant<N, T>(rows.row(head, key) + lane * N);
            values[s] = load_constant<N, T>(rows.row(heads + head, key) + lane * N);
        }
#pragma unroll
        for (int i = 0; i < Q; i++) {
            float scores[STEP], highest = largest[i];
#pragma unroll
            for (int s = 0; s < STEP; s++) {
                float product = 0.0f;
#pragma unroll
                for (int n = 0; n < N; n++) product = fmaf(query[i][n], to_float(keys[s].v[n]), product);
                product = MUTANT(7) ? sum_lanes<LANES / 2>(product) : sum_lanes<LANES>(product);
                int key = base + s * GROUPS + group;
                bool seen = key < (MUTANT(4) ? end + 1 : end);
                scores[s] = seen ? fmaf(product, scale, bias.of(head, key, length - 1)) : negative_infinity();
                highest = fmaxf(highest, scores[s]);
            }
            float factor = rescale(largest[i], highest);
            largest[i] = highest;
            total[i] *= factor;
#pragma unroll
            for (int n = 0; n < N; n++) sums[i][n] *= factor;
#pragma unroll
            for (int s = 0; s < STEP; s++) {
                float weight = rescale(scores[s], highest);
                total[i] += weight;
#pragma unroll
                for (int n = 0; n < N; n++) sums[i][n] = fmaf(weight, to_float(values[s].v[n]), sums[i][n]);
            }
        }
    }

    // The groups of a warp, by halves.
#pragma unroll
    for (int i = 0; i < Q; i++) {
#pragma unroll
        for (int by = LANES; by < WARP_SIZE; by *= 2) {
            float highest = fmaxf(largest[i], __shfl_xor_sync(ALL_LANES, largest[i], by));
            float factor = rescale(largest[i], highest);
            largest[i] = highest;
            total[i] *= factor;
            total[i] += __shfl_xor_sync(ALL_LANES, total[i], by);
#pragma unroll
            for (int n = 0; n < N; n++) {
                sums[i][n] *= factor;
                sums[i][n] += __shfl_xor_sync(ALL_LANES, sums[i][n], by);
            }
        }
    }
    const int warp = thread / WARP_SIZE;
    if (thread % WARP_SIZE < VECTORS) {
#pragma unroll
        for (int i = 0; i < Q; i++) {
#pragma unroll
            for (int n = 0; n < N; n++) warp_sums[(warp * Q + i) * D + lane * N + n] = sums[i][n];
            if (lane == 0) {
                warp_states[(warp * Q + i) * 2] = largest[i];
                warp_states[(warp * Q + i) * 2 + 1] = total[i];
            }
        }
    }
    if (!MUTANT(1)) __syncthreads();

    // The warps, in order.
    const bool alone = length <= PART;
    for (int at = thread; at < count * D; at += THREADS) {
        int i = at / D, column = at % D;
        float highest = negative_infinity(), weight = 0.0f, sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) highest = fmaxf(highest, warp_states[(w * Q + i) * 2]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float factor = rescale(warp_states[(w * Q + i) * 2], highest);
            weight = fmaf(warp_states[(w * Q + i) * 2 + 1], factor, weight);
            sum = fmaf(warp_sums[(w * Q + i) * D + column], factor, sum);
        }
        size_t row = static_cast<size_t>(sequences.of(i)) * heads + head;
        if (alone) {
            output.out[row * D + column] = from_float<T>(weight > 0.0f ? sum / weight : 0.0f);
            continue;
        }
        size_t place = row * output.parts + part;
        output.sums[place * D + column] = sum;
        if (column == 0) {
            output.states[place * 2] = highest;
            output.states[place * 2 + 1] = weight;
        }
    }
}

template <typename T, int D>
__device__ void paged(Global<const T> q, int q_stride, Global<const T> pages, Global<const int> table,
                      int table_stride, Global<const int> lengths, Global<const float> bias, int reach,
                      int heads, float scale, Global<float> sums, Global<float> states, Global<T> out) {
    const Paged<T, D> rows{pages, table + static_cast<size_t>(blockIdx.x) * table_stride, heads};
    const Output<T> output{sums, states, out, static_cast<int>(gridDim.z)};
    attend_part<T, D, 1>(q, q_stride, Alone{}, 1, lengths[blockIdx.x], rows, heads, scale, Bias{bias, reach},
                         output);
}

template <typename T, int D>
__device__ void memory(Global<const T> q, int q_stride, Global<const Global<const T>> memories,
                       Global<const int> tiles, Global<const int> order, Global<const int> lengths, int heads,
                       float scale, Global<float> sums, Global<float> states, Global<T> out) {
    const size_t tile = static_cast<size_t>(blockIdx.x) * 3;
    const Sharing sequences{order + tiles[tile + 1]};
    const int length = lengths[sequences.of(0)];
    const Memory<T, D> rows{memories[tiles[tile]], length};
    const Output<T> output{sums, states, out, static_cast<int>(gridDim.z)};
    attend_part<T, D, MEMORY_QUERIES>(q, q_stride, sequences, tiles[tile + 2], length, rows, heads, scale,
                                      Bias{nullptr, 0}, output);
}

// Merges the parts of a sequence, in order.
template <typename T, int D>
__device__ void merge(Global<const float> sums, Global<const float> states, Global<const int> lengths,
                      int heads, int parts, Global<T> out) {
    const int length = lengths[blockIdx.x], column = threadIdx.x;
    if (length <= PART || column >= D) return;
    const size_t row = static_cast<size_t>(blockIdx.x) * heads + blockIdx.y;
    const int count = (length + PART - 1) / PART - (MUTANT(6) ? 1 : 0);
    float highest = negative_infinity(), weight = 0.0f, sum = 0.0f;
    for (int part = 0; part < count; part++) highest = fmaxf(highest, states[(row * parts + part) * 2]);
    for (int part = 0; part < count; part++) {
        size_t place = row * parts + part;
        float factor = rescale(states[place * 2], highest);
        weight = fmaf(states[place * 2 + 1], factor, weight);
        sum = fmaf(sums[place * D + column], factor, sum);
    }
    out[row * D + column] = from_float<T>(sum / weight);
}

} // namespace decode

#ifdef __CUDACC__

#define DECODE_ATTENTION(D, T, name)                                                                         \
    extern "C" __global__ void __launch_bounds__(decode::THREADS, decode::PAGED_BLOCKS)                      \
        decode_paged_##name##_##D(Global<const T> q, int q_stride, Global<const T> pages,                    \
                                  Global<const int> table, int table_stride, Global<const int> lengths,      \
                                  Global<const float> bias, int reach, int heads, float scale,               \
                                  Global<float> sums, Global<float> states, Global<T> out) {                 \
        decode::paged<T, D>(q, q_stride, pages, table, table_stride, lengths, bias, reach, heads, scale,     \
                            sums, states, out);                                                              \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(decode::THREADS, decode::MEMORY_BLOCKS)                     \
        decode_memory_##name##_##D(Global<const T> q, int q_stride, Global<const Global<const T>> memories,  \
                                   Global<const int> tiles, Global<const int> order,                         \
                                   Global<const int> lengths, int heads, float scale, Global<float> sums,    \
                                   Global<float> states, Global<T> out) {                                    \
        decode::memory<T, D>(q, q_stride, memories, tiles, order, lengths, heads, scale, sums, states, out); \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(decode::THREADS)                                            \
        decode_merge_##name##_##D(Global<const float> sums, Global<const float> states,                      \
                                  Global<const int> lengths, int heads, int parts, Global<T> out) {          \
        decode::merge<T, D>(sums, states, lengths, heads, parts, out);                                       \
    }

FOR_EACH_HEAD_SIZE(DECODE_ATTENTION, float, f32)
FOR_EACH_HEAD_SIZE(DECODE_ATTENTION, __half, f16)
FOR_EACH_HEAD_SIZE(DECODE_ATTENTION, __nv_bfloat16, bf16)

#endif
