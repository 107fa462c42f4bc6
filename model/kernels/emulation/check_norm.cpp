// Checks the kernels of `norm.cu`.
#include "check.h"

#include "../norm.cu"

namespace {

using namespace check;

template <typename T, bool CENTRED> void norm_case(int rows, int width, int experts, int split, bool adds) {
    begin("norm %s %s, %d rows of %d, %d experts, split %d%s", CENTRED ? "layer" : "rms", Type<T>::name, rows,
          width, experts, split, adds ? ", residual" : "");
    const size_t count = static_cast<size_t>(rows) * width;
    const float eps = 1e-5f;
    auto stream = random_values<T>(count, 2), residual = random_values<T>(count);
    auto scales = random_values<T>(static_cast<size_t>(experts) * width),
         shifts = random_values<T>(static_cast<size_t>(experts) * width);
    // A row around a mean that is far from zero, and one of zeros.
    for (int d = 0; d < width; d++) {
        stream[d] = from_float<T>(to_float(stream[d]) + 3);
        if (rows > 1) stream[width + d] = residual[width + d] = from_float<T>(0.0f);
    }
    Buffer<T> added("added", residual), scale("scale", scales), shift("shift", shifts);
    auto run = [&](Buffer<T>& x, Buffer<T>& y, int blocks, int split_of) {
        Global<const T> added_of = nullptr;
        if (adds) added_of = added.constant();
        emulation::launch(dim3(blocks), dim3(normalisation::THREADS), 0, [&] {
            normalisation::normalise<T, CENTRED>(x.pointer(), added_of, scale.constant(), shift.constant(),
                                                 y.pointer(), width, experts, split_of, eps);
        });
    };
    Buffer<T> x("x", stream), y("y", count);
    run(x, y, rows, split);
    for (int row = 0; row < rows; row++) {
        std::vector<double> values(width);
        double mean = 0, square = 0;
        for (int d = 0; d < width; d++) {
            size_t at = static_cast<size_t>(row) * width + d;
            T sum = stream[at];
            if (adds) sum = from_float<T>(to_float(sum) + to_float(residual[at]));
            compare_bits(x.at(at), sum, at);
            values[d] = to_float(sum);
            mean += CENTRED ? values[d] / width : 0.0;
        }
        for (double value : values) square += (value - mean) * (value - mean) / width;
        for (int d = 0; d < width; d++) {
            size_t at = static_cast<size_t>(row) * width + d;
            size_t weight = static_cast<size_t>(row < split ? 0 : experts - 1) * width + d;
            double expected = (values[d] - mean) / std::sqrt(square + eps) * to_float(scales[weight]);
            if (CENTRED) expected += to_float(shifts[weight]);
            compare(y.at(at), expected, at, 1e-6);
        }
    }
    // The first row alone.
    Buffer<T> again("x", stream), alone("y", count);
    run(again, alone, 1, split > 0 ? 1 : 0);
    for (int d = 0; d < width; d++) compare_bits(alone.at(d), y.at(d), d);
}

template <typename T> void cases_of() {
    for (bool adds : {false, true}) {
        norm_case<T, false>(1, 8, 1, 0, adds);
        norm_case<T, false>(5, 264, 2, pick(1, 4), adds);
        norm_case<T, true>(3, 40, 2, pick(0, 3), adds);
        norm_case<T, true>(4, 1032, 1, 4, adds);
    }
    norm_case<T, false>(2, 1544, 2, 1, true);
}

} // namespace

int main(int count, char** arguments) {
    return check::run(count, arguments, "norm",
                      {{1, "unwritten memory"}, {2, "differs"}, {3, "bits"}, {4, "data race"}}, [] {
                          cases_of<float>();
                          cases_of<__half>();
                          cases_of<__nv_bfloat16>();
                      });
}
