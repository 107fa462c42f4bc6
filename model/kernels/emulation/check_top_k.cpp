// Checks the kernel of `top_k.cu`.
#include "check.h"

#include "../top_k.cu"

namespace {

using namespace check;

float ordered(float logit) { return logit != logit ? -INFINITY : logit + 0.0f; }

// Many equal logits, both zeros, and of some rows a NaN or an infinity.
template <typename T> std::vector<T> logits_of(int rows, int width) {
    std::vector<T> logits(static_cast<size_t>(rows) * width);
    for (size_t i = 0; i < logits.size(); i++) {
        const int kind = pick(0, 9), row = static_cast<int>(i) / width;
        float logit = kind < 4 ? static_cast<float>(pick(-2, 3)) : number() * 3;
        if (kind == 4) logit = -0.0f;
        if (kind == 5 && row % 3 == 1) logit = -INFINITY;
        if (kind == 6 && row % 4 == 2) logit = NAN;
        logits[i] = from_float<T>(logit);
    }
    return logits;
}

template <typename T> void rank_case(int rows, int width, int limit, int k) {
    begin("top_k %s, %d rows of %d, %d ranked, k %d", Type<T>::name, rows, width, limit, k);
    auto values_of = logits_of<T>(rows, width);
    Buffer<T> logits("logits", values_of);
    // What is behind the limit is not read.
    for (int row = 0; row < rows; row++) {
        for (int id = limit; id < width; id++) logits.forget(static_cast<size_t>(row) * width + id);
    }
    Buffer<int> ids("ids", static_cast<size_t>(rows) * k);
    Buffer<float> values("values", static_cast<size_t>(rows) * k),
        totals("totals", static_cast<size_t>(rows) * 2);
    emulation::launch(dim3(rows), dim3(top_k::THREADS), 0, [&] {
        top_k::rank<T>(logits.constant(), width, limit, k, ids.pointer(), values.pointer(), totals.pointer());
    });
    for (int row = 0; row < rows; row++) {
        const T* own = &values_of[static_cast<size_t>(row) * width];
        std::vector<int> order(limit);
        for (int id = 0; id < limit; id++) order[id] = id;
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return ordered(to_float(own[a])) > ordered(to_float(own[b])); });
        for (int place = 0; place < k; place++) {
            const size_t at = static_cast<size_t>(row) * k + place;
            compare_bits(ids.at(at), place < limit ? order[place] : -1, at);
            compare_bits(values.at(at), place < limit ? ordered(to_float(own[order[place]])) : -INFINITY, at);
        }
        const float highest = limit > 0 ? ordered(to_float(own[order[0]])) : -INFINITY;
        double sum = highest - highest;
        for (int id = 0; id < limit; id++) sum += std::exp(static_cast<double>(to_float(own[id])) - highest);
        const float found = totals.at(static_cast<size_t>(row) * 2 + 1);
        compare_bits(totals.at(static_cast<size_t>(row) * 2), highest, static_cast<size_t>(row) * 2);
        if (sum == sum) {
            compare(found, sum, static_cast<size_t>(row) * 2 + 1, 1e-6);
        } else if (found == found) {
            emulation::fail("differs: the total of row %d is %g, expected NaN", row, found);
        }
    }
}

template <typename T> void cases_of() {
    rank_case<T>(1, 1, 1, 1);
    rank_case<T>(2, 6, 3, 5);
    rank_case<T>(5, 1000, 777, 9);
    rank_case<T>(2, 257, 257, 40);
    rank_case<T>(1, 4, 0, 2);
}

} // namespace

int main(int count, char** arguments) {
    return check::run(count, arguments, "top_k",
                      {{1, "unwritten memory"}, {2, "bits"}, {3, "bits"}, {4, "data race"}}, [] {
                          cases_of<float>();
                          cases_of<__half>();
                          cases_of<__nv_bfloat16>();
                      });
}
