// Checks the kernels of `embedding.cu`.
#include "check.h"

#include "../embedding.cu"

namespace {

using namespace check;

template <typename T> void gather_case(int rows, int width, int vocabulary, float scale, int blocks) {
    begin("embedding %s, %d rows of %d of %d", Type<T>::name, rows, width, vocabulary);
    auto values = random_values<T>(static_cast<size_t>(vocabulary) * width);
    std::vector<int> tokens(rows);
    for (int& token : tokens) token = pick(0, vocabulary - 1);
    tokens[0] = vocabulary - 1;
    Buffer<T> table("table", values), y("y", static_cast<size_t>(rows) * width);
    Buffer<int> ids("ids", tokens);
    emulation::launch(dim3(blocks), dim3(embedding::THREADS), 0, [&] {
        embedding::gather<T>(table.constant(), ids.constant(), y.pointer(), rows, width, scale);
    });
    for (int at = 0; at < rows * width; at++) {
        compare(y.at(at),
                static_cast<double>(
                    to_float(values[static_cast<size_t>(tokens[at / width]) * width + at % width])) *
                    scale,
                at, 1e-7);
    }
}

template <typename T> void scale_case(int rows, int width, float scale, bool adds, int blocks) {
    begin("bias_and_scale %s, %d rows of %d%s", Type<T>::name, rows, width, adds ? ", bias" : "");
    auto values = random_values<T>(static_cast<size_t>(rows) * width), biases = random_values<T>(width);
    Buffer<T> x("x", values), bias("bias", biases);
    Global<const T> bias_of = nullptr;
    if (adds) bias_of = bias.constant();
    emulation::launch(dim3(blocks), dim3(embedding::THREADS), 0,
                      [&] { embedding::bias_and_scale<T>(x.pointer(), bias_of, rows, width, scale); });
    for (int at = 0; at < rows * width; at++) {
        double expected = static_cast<double>(to_float(values[at])) * scale;
        if (adds) expected += to_float(biases[at % width]);
        compare(x.at(at), expected, at, 1e-6);
    }
}

template <typename T> void cases_of() {
    gather_case<T>(1, 8, 5, 1.0f, 1);
    gather_case<T>(37, 136, 50, 11.6619f, 3);
    scale_case<T>(1, 8, 0.25f, true, 1);
    scale_case<T>(5, 1064, 0.0361f, false, 2);
    scale_case<T>(5, 1064, 1.0f, true, 2);
}

} // namespace

int main(int count, char** arguments) {
    return check::run(
        count, arguments, "embedding",
        {{1, "differs"}, {2, "differs"}, {3, "differs"}, {4, "data race"}, {5, "out of bounds"}}, [] {
            cases_of<float>();
            cases_of<__half>();
            cases_of<__nv_bfloat16>();
        });
}
