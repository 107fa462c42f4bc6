// Flash attention over packed rows of many samples: encoding, and the rows of a prefix.
//
//   out = softmax(scale Q K^T + bias) V, for each head and each block of a plan
//
// A plan says which rows see which (`AttentionPlan`): the query rows of a block are one or two ranges of
// rows, and so are its key rows, laid end to end. The last query stands at the last key. In a causal
// block the last query sees every key, the one before it all but the last, and so on: with pictures and
// text as keys and the text as queries, text sees all pictures and the text before it.
//
//   blocks  [blocks, 9]    of queries: start and end of the first range, and of the second (empty where
//                          there is none); the same of keys; 1 where the block is causal
//   tiles   [tiles, 2]     a block, and how many of its query rows come before; TILE rows from there on
//   q       [Nq, q_stride]   queries in the first H Dh columns from `q` on
//   k, v    [packed_rows, kv_stride]  keys and values likewise
//   prefix_k, prefix_v  [R, prefix_stride]  keys and values of the rows from `packed_rows` on, of
//                          pictures that were encoded before; or none
//   bias    [H, 2 R + 1] f32   for key minus query from -R to R, beyond these the outermost; or none
//   out     [Nq, H Dh]     rows that no block names are not written; a query without keys gets 0
//
// Grid (tiles, H), blocks of 128 threads, `shared_bytes(Dh)` of dynamic shared memory. A block of
// threads holds its queries, and goes through the keys KEYS at a time. Thread (r, c) of 16 x 8 has the
// rows r, r + 16, ... of the tile; of their scores those of keys c, c + 8, ..., and of their sums the
// columns 4 c to 4 c + 3, then 32 on.
//
// Order of reduction: products over the columns in ascending order, sums over keys in ascending order,
// the sum of the weights by column c of each step and then by halves over the eight columns. It depends
// on the keys of the query's block alone: not on the tile or its other rows, the batch or the grid.
//
// Source: Milakov and Gimelshein 2018 (arXiv 1805.02867), algorithm 3; Dao et al. 2022, FlashAttention
// (arXiv 2205.14135), section 3.1; a bias on the scores as in Raffel et al. 2020 (arXiv 1910.10683),
// section 2.1.

#include "device.h"

namespace encode {

constexpr int THREADS = 128;
// Query rows of a tile, and keys of a step.
constexpr int TILE = 64;
constexpr int KEYS = 32;
// The threads as a grid, and what each has of a tile's rows and of a step's keys.
constexpr int COLUMNS = 8;
constexpr int ROWS = THREADS / COLUMNS;
constexpr int TILE_ROWS = TILE / ROWS;
constexpr int STEP_KEYS = KEYS / COLUMNS;
constexpr int BLOCK_FIELDS = 9;
// Rows of weights are padded, so that rows of one warp lie in different banks; those of queries, keys
// and values are too, by four numbers.
constexpr int WEIGHTS = KEYS + 4;

__host__ __device__ constexpr int row_of(int head_size) { return head_size + 4; }

// Blocks of a multiprocessor: as many as shared memory of 164 KB (sm_80) has room for. Their registers fit.
__host__ __device__ constexpr int blocks_of(int head_size) { return head_size <= 64 ? 3 : 2; }

__host__ __device__ constexpr int shared_bytes(int head_size) {
    return ((TILE + 2 * KEYS) * row_of(head_size) + TILE * WEIGHTS) * static_cast<int>(sizeof(float));
}

// One or two ranges of rows, laid end to end.
struct Ranges {
    int start, first, second_start, total;

    __device__ __forceinline__ explicit Ranges(Global<const int> from)
        : start(from[0]), first(from[1] - from[0]), second_start(from[2]), total(first + from[3] - from[2]) {}

    __device__ __forceinline__ int row(int at) const {
        return at < first || MUTANT(4) ? start + at : second_start + at - first;
    }
};

// Rows of which those from `count` on lie elsewhere.
template <typename T> struct Rows {
    Global<const T> rows;
    int stride, count;
    Global<const T> prefix;
    int prefix_stride;

    __device__ __forceinline__ Global<const T> at(int row) const {
        if (row < count) return rows + static_cast<size_t>(row) * stride;
        return prefix + static_cast<size_t>(MUTANT(7) ? row : row - count) * prefix_stride;
    }
};

// Copies rows of one head to shared memory in f32: the rows `first` to `first + count` of the ranges, then
// zeros.
template <typename T, int D, int COUNT>
__device__ __forceinline__ void stage(const Rows<T>& from, int head, const Ranges& ranges, int first,
                                      int count, Shared<float> to) {
    constexpr int N = WIDTH<T>, VECTORS = D / N;
    for (int at = threadIdx.x; at < COUNT * VECTORS; at += THREADS) {
        int row = at / VECTORS, column = at % VECTORS * N;
        Pack<T, N> pack = {};
        if (row < count) {
            pack = load_constant<N, T>(from.at(ranges.row(first + row)) + (head * D + column));
        }
#pragma unroll
        for (int n = 0; n < N; n += 4) {
            store_four(to + (row * row_of(D) + column + n),
                       make_float4(to_float(pack.v[n]), to_float(pack.v[n + 1]), to_float(pack.v[n + 2]),
                                   to_float(pack.v[n + 3])));
        }
    }
}

__device__ __forceinline__ float dot_four(float4 a, float4 b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

__device__ __forceinline__ float component(float4 x, int i) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}

template <typename T, int D>
__device__ __forceinline__ void attend(const Rows<T>& q, const Rows<T>& k, const Rows<T>& v,
                                       Global<const int> blocks, Global<const int> tiles,
                                       Global<const float> bias, int reach, float scale, Global<T> out) {
    constexpr int ROW = row_of(D), FOURS = D / 4, TURNS = (FOURS + COLUMNS - 1) / COLUMNS;
    DYNAMIC_SHARED(float, shared);
    const Shared<float> queries = shared;
    const Shared<float> keys = queries + TILE * ROW;
    const Shared<float> values = keys + KEYS * ROW;
    const Shared<float> weights = values + KEYS * ROW;

    const int head = blockIdx.y, heads = gridDim.y;
    const size_t tile = static_cast<size_t>(blockIdx.x) * 2;
    const int first = tiles[tile + 1];
    const Global<const int> block = blocks + static_cast<size_t>(tiles[tile]) * BLOCK_FIELDS;
    const Ranges query_rows(block), key_rows(block + 4);
    const bool causal = block[8] != 0;
    const int rows = min(TILE, query_rows.total - first);
    // The key beside which the first query of the tile stands.
    const int at = max(key_rows.total - query_rows.total, 0) + first;
    const int end = causal ? min(key_rows.total, at + rows) : key_rows.total;
    const int r = threadIdx.x / COLUMNS, c = threadIdx.x % COLUMNS;

    stage<T, D, TILE>(q, head, query_rows, first, rows, queries);
    float sums[TILE_ROWS][TURNS][4] = {}, largest[TILE_ROWS], total[TILE_ROWS] = {};
#pragma unroll
    for (int i = 0; i < TILE_ROWS; i++) largest[i] = negative_infinity();

    for (int base = 0; base < end; base += KEYS) {
        const int count = min(KEYS, end - base);
        // The keys before these have been read by all.
        if (!MUTANT(1)) __syncthreads();
        stage<T, D, KEYS>(k, head, key_rows, base, count, keys);
        stage<T, D, KEYS>(v, head, key_rows, base, count, values);
        if (!MUTANT(2)) __syncthreads();

        float scores[TILE_ROWS][STEP_KEYS] = {};
#pragma unroll 2
        for (int d = 0; d < D; d += 4) {
            float4 key[STEP_KEYS];
#pragma unroll
            for (int j = 0; j < STEP_KEYS; j++) key[j] = load_four(keys + ((c + COLUMNS * j) * ROW + d));
#pragma unroll
            for (int i = 0; i < TILE_ROWS; i++) {
                const float4 query = load_four(queries + ((r + ROWS * i) * ROW + d));
#pragma unroll
                for (int j = 0; j < STEP_KEYS; j++) scores[i][j] = dot_four(query, key[j], scores[i][j]);
            }
        }

#pragma unroll
        for (int i = 0; i < TILE_ROWS; i++) {
            const int here = at + r + ROWS * i;
            float highest = largest[i];
#pragma unroll
            for (int j = 0; j < STEP_KEYS; j++) {
                const int key = base + c + COLUMNS * j;
                const bool seen = (key < end || MUTANT(6)) && (!causal || key <= here || MUTANT(3));
                float added = 0.0f;
                if (bias != nullptr) {
                    int distance = min(max(key - here, -reach), reach);
                    added = bias[static_cast<size_t>(head) * (2 * reach + 1) + distance + reach];
                }
                scores[i][j] = seen ? fmaf(scores[i][j], scale, added) : negative_infinity();
                highest = fmaxf(highest, scores[i][j]);
            }
            highest = max_lanes<COLUMNS>(highest);
            const float factor = rescale(largest[i], highest);
            largest[i] = highest;
            total[i] *= factor;
#pragma unroll
            for (int t = 0; t < TURNS; t++) {
#pragma unroll
                for (int n = 0; n < 4; n++) sums[i][t][n] *= factor;
            }
#pragma unroll
            for (int j = 0; j < STEP_KEYS; j++) {
                const float weight = rescale(scores[i][j], highest);
                total[i] += weight;
                weights[(r + ROWS * i) * WEIGHTS + c + COLUMNS * j] = weight;
            }
        }
        // The weights of a row are written and read by one warp.
        if (!MUTANT(5)) __syncwarp();

#pragma unroll 1
        for (int key = 0; key < KEYS; key += 4) {
            float4 weight[TILE_ROWS];
#pragma unroll
            for (int i = 0; i < TILE_ROWS; i++)
                weight[i] = load_four(weights + ((r + ROWS * i) * WEIGHTS + key));
#pragma unroll
            for (int t = 0; t < TURNS; t++) {
                const int column = (c + COLUMNS * t) * 4;
                if (FOURS % COLUMNS != 0 && column >= D) continue;
#pragma unroll
                for (int s = 0; s < 4; s++) {
                    const float4 value = load_four(values + ((key + s) * ROW + column));
#pragma unroll
                    for (int i = 0; i < TILE_ROWS; i++) {
                        const float w = component(weight[i], s);
                        sums[i][t][0] = fmaf(w, value.x, sums[i][t][0]);
                        sums[i][t][1] = fmaf(w, value.y, sums[i][t][1]);
                        sums[i][t][2] = fmaf(w, value.z, sums[i][t][2]);
                        sums[i][t][3] = fmaf(w, value.w, sums[i][t][3]);
                    }
                }
            }
        }
    }

#pragma unroll
    for (int i = 0; i < TILE_ROWS; i++) {
        // All lanes of the warp take part.
        const float weight = sum_lanes<COLUMNS>(total[i]);
        const int row = r + ROWS * i;
        if (row >= rows) continue;
        const float inverse = weight > 0.0f ? 1.0f / weight : 0.0f;
        const size_t place = static_cast<size_t>(query_rows.row(first + row)) * heads * D + head * D;
#pragma unroll
        for (int t = 0; t < TURNS; t++) {
            const int column = (c + COLUMNS * t) * 4;
            if (FOURS % COLUMNS != 0 && column >= D) continue;
            Pack<T, 4> pack;
#pragma unroll
            for (int n = 0; n < 4; n++) pack.v[n] = from_float<T>(sums[i][t][n] * inverse);
            store_pack<4, T>(out + (place + column), pack);
        }
    }
}

} // namespace encode

#ifdef __CUDACC__

#define ENCODE_ATTENTION(D, T, name)                                                                         \
    extern "C" __global__ void __launch_bounds__(encode::THREADS, encode::blocks_of(D))                      \
        encode_attention_##name##_##D(Global<const T> q, int q_stride, Global<const T> k, Global<const T> v, \
                                      int kv_stride, int packed_rows, Global<const T> prefix_k,              \
                                      Global<const T> prefix_v, int prefix_stride, Global<const int> blocks, \
                                      Global<const int> tiles, Global<const float> bias, int reach,          \
                                      float scale, Global<T> out) {                                          \
        const encode::Rows<T> keys{k, kv_stride, packed_rows, prefix_k, prefix_stride};                      \
        const encode::Rows<T> values{v, kv_stride, packed_rows, prefix_v, prefix_stride};                    \
        encode::attend<T, D>(encode::Rows<T>{q, q_stride, 0x7fffffff, nullptr, 0}, keys, values, blocks,     \
                             tiles, bias, reach, scale, out);                                                \
    }

FOR_EACH_HEAD_SIZE(ENCODE_ATTENTION, float, f32)
FOR_EACH_HEAD_SIZE(ENCODE_ATTENTION, __half, f16)
FOR_EACH_HEAD_SIZE(ENCODE_ATTENTION, __nv_bfloat16, bf16)

#endif
