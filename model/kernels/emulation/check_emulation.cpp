// Checks the emulation itself: each fault that it is there for is put into a kernel, and must be found.
#include "check.h"

namespace {

using namespace check;

constexpr int BLOCK = 96;

// Adds the numbers of a block by way of shared memory, in three ways, and writes the sum beside each
// number.
void sum(Global<const float> x, Global<float> y, int count) {
    SHARED(float, all, BLOCK);
    SHARED(float, of_warp, BLOCK);
    DYNAMIC_SHARED(float, dynamic);
    const int thread = threadIdx.x;
    const int at = blockIdx.x * BLOCK + thread;
    if (MUTANT(1) && thread == 40) return;
    const float own = at < count || MUTANT(2) ? x[at] : 0.0f;
    if (!MUTANT(3) || thread != 5) all[thread] = own;
    if (MUTANT(4) && thread == 95) {
        __syncthreads();
    } else if (!MUTANT(5)) {
        __syncthreads();
    }
    float total = 0.0f;
    for (int i = 0; i < BLOCK; i++) total += all[i];

    if (MUTANT(6) && thread % WARP_SIZE >= 16) return;
    unsigned mask = MUTANT(7) ? 0xffffu : ALL_LANES;
    float lanes = own;
    for (int by = 16; by > 0; by /= 2) lanes += __shfl_xor_sync(mask, lanes, by);
    const unsigned positive = __ballot_sync(ALL_LANES, own > 0);
    float down = own;
    for (int by = 16; by > 0; by /= 2) down += __shfl_down_sync(ALL_LANES, down, by);
    down = __shfl_sync(ALL_LANES, down, 0);
    const float before = __shfl_up_sync(ALL_LANES, own, 1);

    of_warp[thread] = lanes;
    if (!MUTANT(8)) __syncwarp();
    const float neighbour = of_warp[thread ^ 1];
    // The warp reads before it writes again.
    if (!MUTANT(9)) __syncwarp();
    of_warp[thread] = down;
    dynamic[thread + (MUTANT(10) ? BLOCK : 0)] = neighbour;
    if (MUTANT(11)) load_four(all + 1);
    if (MUTANT(12)) load_constant<4, float>(x + 2);
    if (MUTANT(13) && thread == 0) all[1] = 0.0f;
    if (MUTANT(14)) dynamic[0] = own;
    if (at >= count) return;
    if (MUTANT(15) && at == 7) return;
    y[MUTANT(16) ? at / 2 : at] = total;
    y[count + at] = lanes;
    y[2 * count + at] = down;
    y[3 * count + at] = of_warp[thread];
    y[4 * count + at] = thread % WARP_SIZE == 0 ? 0.0f : before;
    y[5 * count + at] = static_cast<float>(positive >> 16) + static_cast<float>(positive & 0xffff) / 65536;
    y[6 * count + at] = dynamic[thread];
    if (MUTANT(17) && at == 3) y[at] = y[2];
    if (MUTANT(18)) y[7 * count] = 0.0f;
}

void sum_case(int count) {
    begin("emulation, %d numbers", count);
    std::vector<float> values(count);
    for (float& value : values) value = static_cast<float>(pick(-8, 8));
    const int blocks = (count + BLOCK - 1) / BLOCK;
    Buffer<float> x("x", values), y("y", static_cast<size_t>(count) * 7);
    emulation::launch(dim3(blocks), dim3(BLOCK), BLOCK * sizeof(float),
                      [&] { sum(x.constant(), y.pointer(), count); });
    for (int at = 0; at < count; at++) {
        double block = 0, warp = 0;
        unsigned positive = 0;
        const int first = at / BLOCK * BLOCK, first_of_warp = at / 32 * 32;
        for (int i = first; i < std::min(count, first + BLOCK); i++) block += values[i];
        for (int i = first_of_warp; i < std::min(count, first_of_warp + 32); i++) {
            warp += values[i];
            positive |= (values[i] > 0) << (i - first_of_warp);
        }
        const double before = at % 32 == 0 ? 0 : values[at - 1];
        const double votes =
            static_cast<double>(positive >> 16) + static_cast<float>(positive & 0xffff) / 65536;
        const double expected[] = {block, warp, warp, warp, before, votes, warp};
        for (int kind = 0; kind < 7; kind++) {
            size_t place = static_cast<size_t>(kind) * count + at;
            compare(y.at(place), expected[kind], place, 1e-6);
        }
    }
}

// Every number of 16 bits comes back from f32, and between two neighbours the nearer is taken, of two as
// near the one whose last bit is 0.
template <typename T> void conversions(unsigned exponent_bits) {
    begin("conversion to %s", Type<T>::name);
    const unsigned fraction_bits = 15 - exponent_bits, infinity = ((1u << exponent_bits) - 1)
                                                                  << fraction_bits;
    auto number_of = [](unsigned bits) { return T{static_cast<uint16_t>(bits)}; };
    for (unsigned bits = 0; bits < infinity; bits++) {
        for (unsigned sign : {0u, 0x8000u}) {
            const float low = to_float(number_of(bits | sign));
            compare_bits(from_float<T>(low), number_of(bits | sign), bits);
            if (bits + 1 == infinity) continue;
            const float high = to_float(number_of((bits + 1) | sign)), middle = low / 2 + high / 2;
            if (static_cast<double>(low) + high != 2 * static_cast<double>(middle)) continue;
            compare_bits(from_float<T>(middle), number_of((bits % 2 == 0 ? bits : bits + 1) | sign), bits);
            compare_bits(from_float<T>(std::nextafter(middle, low)), number_of(bits | sign), bits);
            compare_bits(from_float<T>(std::nextafter(middle, high)), number_of((bits + 1) | sign), bits);
        }
    }
    compare_bits(from_float<T>(INFINITY), number_of(infinity), infinity);
    compare_bits(from_float<T>(-INFINITY), number_of(infinity | 0x8000), infinity);
    compare_bits(from_float<T>(3.4e38f), number_of(infinity), infinity);
    if (!std::isnan(to_float(from_float<T>(NAN)))) emulation::fail("differs: NaN becomes a number");
}

} // namespace

int main(int count, char** arguments) {
    return check::run(count, arguments, "emulation",
                      {{1, "barrier divergence"},
                       {2, "out of bounds: 'x'"},
                       {3, "unwritten memory: reads shared 'all' word 5"},
                       {4, "barrier divergence"},
                       {5, "unwritten memory: reads shared 'all'"},
                       {6, "warp operation"},
                       {7, "which its mask leaves out"},
                       {8, "unwritten memory: reads shared 'of_warp'"},
                       {9, "data race: reads shared 'of_warp'"},
                       {10, "out of bounds: shared 'dynamic'"},
                       {11, "misaligned: shared 'all'"},
                       {12, "misaligned: 'x'"},
                       {13, "data race: writes shared 'all' word 1"},
                       {14, "data race: writes shared 'dynamic' word 0"},
                       {15, "unwritten output: 'y' at 7"},
                       {16, "data race: writes 'y'"},
                       {17, "data race: reads 'y' at 2"},
                       {18, "out of bounds: 'y'"}},
                      [] {
                          sum_case(96);
                          sum_case(1);
                          sum_case(250);
                          conversions<__half>(5);
                          conversions<__nv_bfloat16>(8);
                      });
}
