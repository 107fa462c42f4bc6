// Checks the kernels of `decode_attention.cu`.
#include "check.h"

#include "../decode_attention.cu"

namespace {

using namespace check;

struct Shape {
    int heads;
    std::vector<int> lengths;
};

// softmax(scale q k + bias) v in 64 bits; `key` and `value` give numbers of a key's row, `bias` its bias.
template <typename Key, typename Value, typename Bias>
std::vector<double> attend(const std::vector<double>& query, int keys, double scale, Key key, Value value,
                           Bias bias) {
    const int size = static_cast<int>(query.size());
    std::vector<double> scores(keys), out(size, 0.0);
    double largest = -INFINITY, total = 0;
    for (int t = 0; t < keys; t++) {
        double product = 0;
        for (int d = 0; d < size; d++) product += query[d] * key(t, d);
        scores[t] = product * scale + bias(t);
        largest = std::max(largest, scores[t]);
    }
    for (double& score : scores) total += score = std::exp(score - largest);
    for (int t = 0; t < keys; t++) {
        for (int d = 0; d < size; d++) out[d] += scores[t] / total * value(t, d);
    }
    return out;
}

int parts_of(const std::vector<int>& lengths) {
    int longest = *std::max_element(lengths.begin(), lengths.end());
    return std::max(1, (longest + decode::PART - 1) / decode::PART);
}

template <typename T> std::vector<double> row_of(const std::vector<T>& values, size_t start, int size) {
    std::vector<double> row(size);
    for (int d = 0; d < size; d++) row[d] = to_float(values[start + d]);
    return row;
}

// The cache of a batch: pages in random order, rows behind each sequence's end unwritten.
template <typename T, int D> struct Cache {
    int heads, stride;
    std::vector<int> table;
    std::vector<T> values;
    Buffer<T> pages;

    Cache(int heads, const std::vector<int>& lengths)
        : heads(heads), stride(std::max(1, (*std::max_element(lengths.begin(), lengths.end()) + 15) / 16)),
          table(lengths.size() * stride, 1 << 20),
          values(random_values<T>(order(lengths) * 2 * heads * 16 * D)), pages("pages", values) {
        // A page that no sequence has stands first.
        for (size_t i = 0; i < static_cast<size_t>(2 * heads * 16 * D); i++) pages.forget(i);
        for (size_t b = 0; b < lengths.size(); b++) {
            for (int t = lengths[b]; t % 16 != 0; t++) {
                for (int piece = 0; piece < 2 * heads; piece++) {
                    for (int d = 0; d < D; d++) pages.forget(place(b, piece, t) + d);
                }
            }
        }
    }

    // Deals pages out to the sequences, and returns how many there are.
    size_t order(const std::vector<int>& lengths) {
        std::vector<int*> places;
        for (size_t b = 0; b < lengths.size(); b++) {
            for (int page = 0; page * 16 < lengths[b]; page++) places.push_back(&table[b * stride + page]);
        }
        for (size_t i = places.size(); i > 1; i--)
            std::swap(places[i - 1], places[pick(0, static_cast<int>(i) - 1)]);
        for (size_t i = 0; i < places.size(); i++) *places[i] = static_cast<int>(i) + 1;
        return places.size() + 1;
    }

    size_t place(size_t b, int piece, int t) const {
        size_t page = table[b * stride + t / 16];
        return ((page * 2 * heads + piece) * 16 + t % 16) * D;
    }
};

template <typename T, int D> void paged_case(const Shape& shape, bool biased) {
    begin("decode_attention paged %s head size %d, %d heads, %zu sequences%s", Type<T>::name, D, shape.heads,
          shape.lengths.size(), biased ? ", bias" : "");
    const int batch = static_cast<int>(shape.lengths.size()), heads = shape.heads,
              parts = parts_of(shape.lengths);
    const int width = heads * D, stride = 3 * width, reach = pick(1, 40);
    const float scale = biased ? 1.0f : 1.0f / std::sqrt(static_cast<float>(D));
    Cache<T, D> cache(heads, shape.lengths);
    auto queries = random_values<T>(static_cast<size_t>(batch) * stride,
                                    biased ? 2.0f / std::sqrt(static_cast<float>(D)) : 1.0f);
    auto by_distance = random_values<float>(static_cast<size_t>(heads) * (2 * reach + 1));
    Buffer<T> q("q", queries);
    Buffer<float> bias("bias", by_distance);
    Buffer<int> table("table", cache.table);

    auto run = [&](std::vector<int> lengths_of, int blocks, int split, Buffer<T>& out) {
        Buffer<int> lengths("lengths", lengths_of);
        Buffer<float> sums("sums", static_cast<size_t>(batch) * heads * split * D);
        Buffer<float> states("states", static_cast<size_t>(batch) * heads * split * 2);
        Global<const float> bias_of = nullptr;
        if (biased) bias_of = bias.constant();
        emulation::launch(dim3(blocks, heads, split), dim3(decode::THREADS), 0, [&] {
            decode::paged<T, D>(q.constant(), stride, cache.pages.constant(), table.constant(), cache.stride,
                                lengths.constant(), bias_of, reach, heads, scale, sums.pointer(),
                                states.pointer(), out.pointer());
        });
        emulation::launch(dim3(blocks, heads), dim3(decode::THREADS), 0, [&] {
            decode::merge<T, D>(sums.constant(), states.constant(), lengths.constant(), heads, split,
                                out.pointer());
        });
    };
    Buffer<T> out("out", static_cast<size_t>(batch) * width);
    run(shape.lengths, batch, parts, out);
    for (int b = 0; b < batch; b++) {
        for (int h = 0; h < heads; h++) {
            auto number = [&](int piece, int t, int d) -> double {
                return to_float(cache.values[cache.place(b, piece, t) + d]);
            };
            int length = shape.lengths[b];
            auto expected = attend(
                row_of(queries, static_cast<size_t>(b) * stride + h * D, D), length, scale,
                [&](int t, int d) { return number(h, t, d); },
                [&](int t, int d) { return number(heads + h, t, d); },
                [&](int t) -> double {
                    int distance = std::min(std::max(t - (length - 1), -reach), reach);
                    return biased ? by_distance[static_cast<size_t>(h) * (2 * reach + 1) + distance + reach]
                                  : 0.0f;
                });
            for (int d = 0; d < D; d++) {
                size_t at = (static_cast<size_t>(b) * heads + h) * D + d;
                compare(out.at(at), expected[d], at);
            }
        }
    }
    // The first sequence alone, in a grid of another size.
    Buffer<T> alone("out", static_cast<size_t>(batch) * width);
    run(shape.lengths, 1, parts + 1, alone);
    for (int at = 0; at < width; at++) compare_bits(out.at(at), alone.at(at), at);
}

// `shared[m]` sequences read memory m.
template <typename T, int D>
void memory_case(int heads, const std::vector<int>& lengths, const std::vector<int>& shared) {
    begin("decode_attention memory %s head size %d, %d heads, %zu memories", Type<T>::name, D, heads,
          lengths.size());
    std::vector<int> owner;
    for (size_t m = 0; m < shared.size(); m++) owner.insert(owner.end(), shared[m], static_cast<int>(m));
    for (size_t i = owner.size(); i > 1; i--)
        std::swap(owner[i - 1], owner[pick(0, static_cast<int>(i) - 1)]);
    const int batch = static_cast<int>(owner.size()), width = heads * D, parts = parts_of(lengths);
    std::vector<int> order, tiles, rows(batch);
    for (int m = 0; m < static_cast<int>(shared.size()); m++) {
        for (int b = 0, inside = 0; b < batch; b++) {
            if (owner[b] != m) continue;
            if (inside++ % decode::MEMORY_QUERIES == 0)
                tiles.insert(tiles.end(), {m, static_cast<int>(order.size()), 0});
            tiles.back()++;
            order.push_back(b);
        }
    }
    for (int b = 0; b < batch; b++) rows[b] = lengths[owner[b]];
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    auto queries = random_values<T>(static_cast<size_t>(batch) * width, 2.0f);
    std::vector<std::vector<T>> values;
    std::vector<std::unique_ptr<Buffer<T>>> buffers;
    std::vector<Global<const T>> places;
    for (int length : lengths) {
        values.push_back(random_values<T>(static_cast<size_t>(2) * width * length));
        buffers.push_back(std::make_unique<Buffer<T>>("memory", values.back()));
        places.push_back(buffers.back()->constant());
    }
    Buffer<T> q("q", queries);
    Buffer<Global<const T>> memories("memories", places);
    Buffer<int> row_lengths("lengths", rows);

    auto run = [&](std::vector<int> tile_list, std::vector<int> order_list, int split, Buffer<T>& out) {
        Buffer<int> tile_buffer("tiles", tile_list), order_buffer("order", order_list);
        Buffer<float> sums("sums", static_cast<size_t>(batch) * heads * split * D);
        Buffer<float> states("states", static_cast<size_t>(batch) * heads * split * 2);
        emulation::launch(dim3(tile_list.size() / 3, heads, split), dim3(decode::THREADS), 0, [&] {
            decode::memory<T, D>(q.constant(), width, memories.constant(), tile_buffer.constant(),
                                 order_buffer.constant(), row_lengths.constant(), heads, scale,
                                 sums.pointer(), states.pointer(), out.pointer());
        });
        if (order_list.size() < static_cast<size_t>(batch)) return;
        emulation::launch(dim3(batch, heads), dim3(decode::THREADS), 0, [&] {
            decode::merge<T, D>(sums.constant(), states.constant(), row_lengths.constant(), heads, split,
                                out.pointer());
        });
    };
    Buffer<T> out("out", static_cast<size_t>(batch) * width);
    run(tiles, order, parts, out);
    for (int b = 0; b < batch; b++) {
        for (int h = 0; h < heads; h++) {
            const auto& memory = values[owner[b]];
            auto number = [&](int piece, int t, int d) -> double {
                return to_float(memory[(static_cast<size_t>(piece) * rows[b] + t) * D + d]);
            };
            auto expected = attend(
                row_of(queries, static_cast<size_t>(b) * width + h * D, D), rows[b], scale,
                [&](int t, int d) { return number(h, t, d); },
                [&](int t, int d) { return number(heads + h, t, d); }, [](int) { return 0.0; });
            for (int d = 0; d < D; d++) {
                size_t at = (static_cast<size_t>(b) * heads + h) * D + d;
                compare(out.at(at), expected[d], at);
            }
        }
    }
    // Every sequence in a tile of its own, in the order of the batch.
    std::vector<int> own_tiles, own_order;
    for (int b = 0; b < batch; b++) {
        own_tiles.insert(own_tiles.end(), {owner[b], b, 1});
        own_order.push_back(b);
    }
    Buffer<T> alone("out", static_cast<size_t>(batch) * width);
    run(own_tiles, own_order, parts, alone);
    for (int at = 0; at < batch * width; at++) compare_bits(out.at(at), alone.at(at), at);
}

template <typename T, int D> void cases_of() {
    paged_case<T, D>({2, {1, 17, 0, 33}}, true);
    paged_case<T, D>({1, {pick(40, 90), pick(1, 16), 16}}, false);
    memory_case<T, D>(1, {pick(1, 50), 1, 0, pick(60, 100)}, {1, 2, 1, 5});
    paged_case<T, D>({1, {257, 256, pick(513, 600)}}, true);
    memory_case<T, D>(1, {pick(257, 300), 12}, {3, 1});
}

} // namespace

int main(int count, char** arguments) {
    return check::run(count, arguments, "decode_attention",
                      {{1, "unwritten memory"},
                       {2, "differs"},
                       {3, "differs"},
                       {4, "differs"},
                       {5, "data race"},
                       {6, "differs"},
                       {7, "differs"}},
                      [] {
                          cases_of<float, 40>();
                          cases_of<float, 128>();
                          cases_of<__half, 32>();
                          cases_of<__half, 64>();
                          cases_of<__nv_bfloat16, 40>();
                          cases_of<__nv_bfloat16, 128>();
                      });
}
