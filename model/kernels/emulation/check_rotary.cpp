// Checks the kernel of `rotary.cu`.
#include "check.h"

#include "../rotary.cu"

namespace {

using namespace check;

template <typename T>
void rotary_case(int rows, int heads, int head_size, int rest, int blocks, float direction) {
    begin("rotary %s, %d rows of %d heads of %d and %d more, %d blocks, %g", Type<T>::name, rows, heads,
          head_size, rest, blocks, direction);
    const int columns = heads * head_size, width = columns + rest, half = head_size / 2, positions = 23;
    auto values = random_values<T>(static_cast<size_t>(rows) * width);
    std::vector<int> at(rows);
    for (int& position : at) position = pick(0, positions - 1);
    std::vector<float> cosines, sines;
    for (int i = 0; i < positions * half; i++) {
        double angle = (i / half) * std::pow(10000.0, -static_cast<double>(i % half) / half);
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
    }
    Buffer<T> x("x", values);
    Buffer<int> of_rows("positions", at);
    Buffer<float> cos("cos", cosines), sin("sin", sines);
    emulation::launch(dim3(blocks), dim3(rotary::THREADS), 0, [&] {
        rotary::rotate<T>(x.pointer(), of_rows.constant(), cos.constant(), sin.constant(), rows, width,
                          columns, head_size, direction);
    });
    for (int row = 0; row < rows; row++) {
        for (int column = 0; column < width; column++) {
            const size_t place = static_cast<size_t>(row) * width + column;
            if (column >= columns) {
                compare_bits(x.at(place), values[place], place);
                continue;
            }
            const int inside = column % head_size, angle = at[row] * half + inside % half;
            const bool second = inside >= half;
            double own = to_float(values[place]),
                   other = to_float(values[second ? place - half : place + half]);
            double turned = other * sines[angle] * direction;
            compare(x.at(place), own * cosines[angle] + (second ? turned : -turned), place, 1e-6);
        }
    }
}

template <typename T> void cases_of() {
    rotary_case<T>(1, 1, 32, 0, 1, 1);
    rotary_case<T>(9, 3, 40, 120, 2, 1);
    rotary_case<T>(5, 2, 64, 8, 1, -1);
    rotary_case<T>(17, 1, 128, 128, 3, -1);
}

} // namespace

int main(int count, char** arguments) {
    return check::run(count, arguments, "rotary", {{1, "differs"}, {2, "differs"}, {3, "race"}}, [] {
        cases_of<float>();
        cases_of<__half>();
        cases_of<__nv_bfloat16>();
    });
}
