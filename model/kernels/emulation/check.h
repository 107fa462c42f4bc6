// What the checks of the kernels share: random cases, buffers, comparison with a reference in 64 bits,
// mutants.
//
// A check runs a kernel over its cases and prints one line; `--seed N` makes other cases. Started with
// `--mutant N` it runs with that fault in the kernel, and is expected to fail; `--list` prints for each
// mutant its number and a part of the message that is expected of it.
#pragma once

#include <chrono>
#include <random>

#include "../device.h"

namespace check {

struct Mutant {
    int number;
    const char* message;
};

inline std::mt19937_64 generator(1);
inline double worst = 0;
inline long compared = 0, cases = 0;

inline int pick(int low, int high) {
    return low + static_cast<int>(generator() % static_cast<uint64_t>(high - low + 1));
}

// About normal, from sums of uniform numbers: the same on every machine.
inline float number() {
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += static_cast<float>(generator() >> 40) * 0x1p-24f - 0.5f;
    return sum * 1.7320508f;
}

template <typename T> struct Type;
template <> struct Type<float> {
    static constexpr const char* name = "f32";
    static constexpr double rounding = 0x1p-24, least = 0x1p-149;
};
template <> struct Type<__half> {
    static constexpr const char* name = "f16";
    static constexpr double rounding = 0x1p-11, least = 0x1p-25;
};
template <> struct Type<__nv_bfloat16> {
    static constexpr const char* name = "bf16";
    static constexpr double rounding = 0x1p-8, least = 0x1p-134;
};

// What a kernel may be off by: the rounding of its result, and the roundings of its sums in f32.
constexpr double SUMS = 3e-6;

// Begins a case; its description stands in every message.
inline void begin(const char* format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    emulation::subject = text;
    cases++;
}

// Device memory: what the host has put there, or NaN bits that a kernel must overwrite.
template <typename T> class Buffer {
  public:
    emulation::Allocation allocation;

    Buffer(const char* name, const std::vector<T>& values) : allocation(name, values.size(), sizeof(T)) {
        if (!values.empty())
            memcpy(static_cast<void*>(allocation.bytes()), values.data(), values.size() * sizeof(T));
        std::fill(allocation.written.begin(), allocation.written.end(), 1);
    }
    Buffer(const char* name, size_t count) : allocation(name, count, sizeof(T)) {}
    Buffer(const Buffer&) = delete;

    emulation::Pointer<T> pointer() { return {&allocation, 0}; }
    emulation::Pointer<const T> constant() { return {&allocation, 0}; }

    // Makes an element unwritten: no kernel may read it.
    void forget(size_t index) {
        allocation.written[index] = 0;
        memset(allocation.bytes() + index * sizeof(T), 0xff, sizeof(T));
    }
    void set(size_t index, T value) {
        allocation.written[index] = 1;
        memcpy(static_cast<void*>(allocation.bytes() + index * sizeof(T)), &value, sizeof(T));
    }
    T at(size_t index) {
        if (!allocation.written[index]) {
            emulation::fail("unwritten output: '%s' at %zu of %zu", allocation.name, index, allocation.count);
        }
        T value;
        memcpy(static_cast<void*>(&value), allocation.bytes() + index * sizeof(T), sizeof(T));
        return value;
    }
    std::vector<T> values() {
        std::vector<T> all(allocation.count);
        for (size_t i = 0; i < all.size(); i++) all[i] = at(i);
        return all;
    }
};

template <typename T> std::vector<T> random_values(size_t count, float scale = 1) {
    std::vector<T> values(count);
    for (T& value : values) value = from_float<T>(number() * scale);
    return values;
}

// Compares one number of a result.
template <typename T> void compare(T found, double expected, size_t index, double sums = SUMS) {
    double difference = std::fabs(to_float(found) - expected);
    double allowed =
        Type<T>::rounding * std::fabs(expected) + Type<T>::least + sums * (1 + std::fabs(expected));
    // Written so that a NaN fails.
    if (!(difference <= allowed)) {
        emulation::fail("differs at %zu: %.9g, expected %.9g, allowed %.2g", index, to_float(found), expected,
                        allowed);
    }
    double beyond = difference - Type<T>::rounding * std::fabs(expected) - Type<T>::least;
    worst = std::max(worst, beyond / (sums * (1 + std::fabs(expected))));
    compared++;
}

// Compares bits: the same work among other work must give them.
template <typename T> void compare_bits(T found, T expected, size_t index) {
    if (memcmp(&found, &expected, sizeof found) != 0) {
        emulation::fail("other bits at %zu: %.9g and %.9g", index, to_float(found), to_float(expected));
    }
    compared++;
}

// Runs a check as its arguments say.
inline int run(int count, char** arguments, const char* name, const std::vector<Mutant>& mutants,
               const std::function<void()>& cases_of) {
    if (count > 1 && !strcmp(arguments[1], "--list")) {
        for (const Mutant& mutant : mutants) printf("%d %s\n", mutant.number, mutant.message);
        return 0;
    }
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(arguments[i], "--mutant")) emulation::mutant = atoi(arguments[i + 1]);
        if (!strcmp(arguments[i], "--seed")) generator.seed(static_cast<uint64_t>(atoll(arguments[i + 1])));
    }
    auto start = std::chrono::steady_clock::now();
    cases_of();
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    printf("%s: %ld cases, %ld numbers compared, sums off by at most %.2f of the bound, %.1f s\n", name,
           cases, compared, worst, seconds);
    return 0;
}

} // namespace check
