// Checks the kernel of `encode_attention.cu`.
#include "check.h"

#include "../encode_attention.cu"

namespace {

using namespace check;

struct Range {
    int start, end;
    int length() const { return end - start; }
};

struct Block {
    Range queries[2], keys[2];
    bool causal;

    std::vector<int> rows(const Range (&ranges)[2]) const {
        std::vector<int> all;
        for (const Range& range : ranges) {
            for (int row = range.start; row < range.end; row++) all.push_back(row);
        }
        return all;
    }
};

std::vector<int> fields(const Block& block) {
    const Range *q = block.queries, *k = block.keys;
    return {q[0].start, q[0].end,   q[1].start, q[1].end,    k[0].start,
            k[0].end,   k[1].start, k[1].end,   block.causal};
}

// What a launch reads besides the plan.
template <typename T> struct Inputs {
    encode::Rows<T> q, k, v;
    int heads;
    Global<const float> bias;
    int reach;
    float scale;
};

// Runs the blocks of a plan, the last tile first.
template <typename T, int D>
void run(const std::vector<Block>& plan, const Inputs<T>& inputs, Buffer<T>& out) {
    std::vector<int> blocks, tiles;
    for (size_t b = 0; b < plan.size(); b++) {
        std::vector<int> of_block = fields(plan[b]);
        blocks.insert(blocks.end(), of_block.begin(), of_block.end());
        int rows = static_cast<int>(plan[b].rows(plan[b].queries).size());
        for (int first = 0; first < rows; first += encode::TILE) {
            tiles.insert(tiles.begin(), {static_cast<int>(b), first});
        }
    }
    Buffer<int> block_buffer("blocks", blocks), tile_buffer("tiles", tiles);
    const dim3 grid(static_cast<unsigned>(tiles.size() / 2), inputs.heads);
    emulation::launch(grid, dim3(encode::THREADS), encode::shared_bytes(D), [&] {
        encode::attend<T, D>(inputs.q, inputs.k, inputs.v, block_buffer.constant(), tile_buffer.constant(),
                             inputs.bias, inputs.reach, inputs.scale, out.pointer());
    });
}

// Queries are the first `packed` rows; keys are all `rows`, those behind `packed` in memory of their own.
template <typename T, int D>
void plan_case(const char* name, int heads, int packed, int rows, const std::vector<Block>& plan,
               bool biased) {
    begin("encode_attention %s head size %d, %d heads, %s%s", Type<T>::name, D, heads, name,
          biased ? ", bias" : "");
    const int width = heads * D, stride = 3 * width, reach = pick(1, 40);
    const float scale = biased ? 1.0f : 1.0f / std::sqrt(static_cast<float>(D));
    const size_t count_of_keys = static_cast<size_t>(rows) * width,
                 count_of_packed = static_cast<size_t>(packed) * width;
    auto queries = random_values<T>(static_cast<size_t>(packed) * stride,
                                    biased ? 2.0f / std::sqrt(static_cast<float>(D)) : 1.5f);
    auto keys = random_values<T>(count_of_keys), values = random_values<T>(count_of_keys);
    auto by_distance = random_values<float>(static_cast<size_t>(heads) * (2 * reach + 1));
    auto first_of = [&](const std::vector<T>& all) {
        return std::vector<T>(all.begin(), all.begin() + count_of_packed);
    };
    auto rest_of = [&](const std::vector<T>& all) {
        return std::vector<T>(all.begin() + count_of_packed, all.end());
    };
    Buffer<T> q("q", queries), k("k", first_of(keys)), v("v", first_of(values));
    Buffer<T> prefix_k("prefix_k", rest_of(keys)), prefix_v("prefix_v", rest_of(values));
    Buffer<float> bias("bias", by_distance);
    Global<const float> bias_of = nullptr;
    if (biased) bias_of = bias.constant();
    const Inputs<T> inputs{{q.constant(), stride, packed, nullptr, 0},
                           {k.constant(), width, packed, prefix_k.constant(), width},
                           {v.constant(), width, packed, prefix_v.constant(), width},
                           heads,
                           bias_of,
                           reach,
                           scale};
    Buffer<T> out("out", count_of_packed);
    run<T, D>(plan, inputs, out);

    for (const Block& block : plan) {
        std::vector<int> query_rows = block.rows(block.queries), key_rows = block.rows(block.keys);
        const int count = static_cast<int>(query_rows.size()), total = static_cast<int>(key_rows.size());
        for (int i = 0; i < count; i++) {
            const int at = std::max(total - count, 0) + i,
                      seen = block.causal ? std::min(total, at + 1) : total;
            for (int h = 0; h < heads; h++) {
                std::vector<double> scores(seen), sums(D, 0.0);
                double largest = -INFINITY, weight = 0;
                for (int t = 0; t < seen; t++) {
                    double product = 0;
                    for (int d = 0; d < D; d++) {
                        product += static_cast<double>(to_float(
                                       queries[static_cast<size_t>(query_rows[i]) * stride + h * D + d])) *
                                   to_float(keys[static_cast<size_t>(key_rows[t]) * width + h * D + d]);
                    }
                    int distance = std::min(std::max(t - at, -reach), reach);
                    scores[t] = product * scale;
                    if (biased)
                        scores[t] += by_distance[static_cast<size_t>(h) * (2 * reach + 1) + distance + reach];
                    largest = std::max(largest, scores[t]);
                }
                for (double& score : scores) weight += score = std::exp(score - largest);
                for (int t = 0; t < seen; t++) {
                    for (int d = 0; d < D; d++) {
                        sums[d] += scores[t] / weight *
                                   to_float(values[static_cast<size_t>(key_rows[t]) * width + h * D + d]);
                    }
                }
                for (int d = 0; d < D; d++) {
                    size_t place = static_cast<size_t>(query_rows[i]) * width + h * D + d;
                    compare(out.at(place), sums[d], place);
                }
            }
        }
    }

    // The last block alone.
    Buffer<T> alone("out", count_of_packed);
    run<T, D>({plan.back()}, inputs, alone);
    for (int row : plan.back().rows(plan.back().queries)) {
        for (int d = 0; d < width; d++) {
            size_t place = static_cast<size_t>(row) * width + d;
            compare_bits(out.at(place), alone.at(place), place);
        }
    }
}

constexpr Range NONE{0, 0};

// Texts of a batch, each on its own.
std::vector<Block> texts(const std::vector<int>& lengths, bool causal) {
    std::vector<Block> plan;
    int start = 0;
    for (int length : lengths) {
        Range rows{start, start + length};
        plan.push_back({{rows, NONE}, {rows, NONE}, causal});
        start += length;
    }
    return plan;
}

// Rows by expert: pictures first. Joint samples see both of their ranges; text behind a picture is causal.
std::vector<Block> pictures(bool prefix) {
    const Range first{0, 37}, second{37, 54}, text_one{54, 61}, text_two{61, 100};
    if (!prefix)
        return {{{first, text_one}, {first, text_one}, false},
                {{second, text_two}, {second, text_two}, false}};
    return {{{first, NONE}, {first, NONE}, false},
            {{text_one, NONE}, {first, text_one}, true},
            {{second, NONE}, {second, NONE}, false},
            {{text_two, NONE}, {second, text_two}, true}};
}

// Text behind pictures of which the first was encoded before: its rows stand behind the packed ones.
std::vector<Block> known_pictures() {
    const Range known{60, 97}, second{0, 17}, text_one{17, 24}, text_two{24, 60};
    return {{{text_one, NONE}, {known, text_one}, true},
            {{second, NONE}, {second, NONE}, false},
            {{text_two, NONE}, {second, text_two}, true}};
}

template <typename T, int D> void cases_of() {
    plan_case<T, D>("texts", 2, 100, 100, texts({1, 66, 33}, false), true);
    plan_case<T, D>("causal texts", 1, 80, 80, texts({70, 1, 9}, true), D % 64 == 0);
    plan_case<T, D>("pictures and texts", 1, 100, 100, pictures(false), D % 64 != 0);
    plan_case<T, D>("text behind pictures", 1, 100, 100, pictures(true), false);
    plan_case<T, D>("text behind a known picture", 1, 60, 97, known_pictures(), false);
    // Queries without keys, and more queries than keys.
    const std::vector<Block> others = {{{{0, 5}, {9, 9}}, {{3, 3}, {4, 4}}, false},
                                       {{{5, 20}, {30, 60}}, {{2, 7}, {40, 48}}, false}};
    plan_case<T, D>("other rows as keys", 1, 60, 60, others, true);
}

} // namespace

int main(int count, char** arguments) {
    return check::run(count, arguments, "encode_attention",
                      {{1, "data race"},
                       {2, "unwritten memory"},
                       {3, "differs"},
                       {4, "data race"},
                       {5, "data race"},
                       {6, "differs"},
                       {7, "out of bounds"}},
                      [] {
                          cases_of<float, 40>();
                          cases_of<float, 128>();
                          cases_of<__half, 32>();
                          cases_of<__nv_bfloat16, 64>();
                          cases_of<__nv_bfloat16, 40>();
                      });
}
