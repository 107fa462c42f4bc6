// Checks the kernel of `gated_gelu.cu`.
#include "check.h"

#include "../gated_gelu.cu"

namespace {

using namespace check;

template <typename T> void gated_case(int rows, int width, int blocks) {
    begin("gated_gelu %s, %d rows of %d, %d blocks", Type<T>::name, rows, width, blocks);
    auto values = random_values<T>(static_cast<size_t>(rows) * 2 * width, 2);
    // Where tanh is 1 or -1, and where x^3 is beyond f16.
    values[0] = from_float<T>(60.0f);
    values[1] = from_float<T>(-60.0f);
    Buffer<T> x("x", values), y("y", static_cast<size_t>(rows) * width);
    emulation::launch(dim3(blocks), dim3(gated::THREADS), 0,
                      [&] { gated::gated_gelu<T>(x.constant(), y.pointer(), rows, width); });
    for (int row = 0; row < rows; row++) {
        for (int f = 0; f < width; f++) {
            double gate = to_float(values[static_cast<size_t>(row) * 2 * width + f]);
            double up = to_float(values[static_cast<size_t>(row) * 2 * width + width + f]);
            double inner = std::sqrt(2 / std::acos(-1.0)) * (gate + 0.044715 * gate * gate * gate);
            size_t at = static_cast<size_t>(row) * width + f;
            compare(y.at(at), 0.5 * gate * (1 + std::tanh(inner)) * up, at, 1e-6);
        }
    }
}

template <typename T> void cases_of() {
    gated_case<T>(1, 8, 1);
    gated_case<T>(3, 1048, 2);
    gated_case<T>(33, 72, 1);
    gated_case<T>(7, 136, 5);
}

} // namespace

int main(int count, char** arguments) {
    return check::run(count, arguments, "gated_gelu", {{1, "out of bounds"}, {2, "differs"}, {3, "differs"}},
                      [] {
                          cases_of<float>();
                          cases_of<__half>();
                          cases_of<__nv_bfloat16>();
                      });
}
