// Runs CUDA kernels on the CPU, block by block, each thread of a block as a fiber.
//
// A kernel's source compiles as C++17 and runs thread by thread; threads give way at barriers and at the
// operations of a warp. What a GPU would do without a word is an error here, with the place where it
// happened:
//
//   barrier divergence   a thread ends, or waits elsewhere, while others wait at a barrier
//   warp operations      a mask that names lanes that are not there, have ended or wait elsewhere, or that
//                        leaves out the caller or the lane that is read
//   bounds, alignment    of every access to global and shared memory
//   unwritten memory     read before it was written, or an output that nobody wrote
//   data races           in shared memory by 32-bit word, in global memory by element
//
// Shared memory and outputs start as NaN bits. Two accesses of one word of shared memory, one of them a
// write, are ordered by `__syncthreads` between them, and within a warp by a `__syncwarp` of all its
// threads that have not ended. Shuffles order nothing. In global memory nothing is ordered within a
// launch: an element that one thread writes belongs to that thread.
//
// Not modelled: tensor cores, asynchronous copies, the memory model beyond the above, time.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth) {}
    unsigned count() const { return x * y * z; }
};

namespace emulation {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 256 << 10;

// ---- Errors ---------------------------------------------------------------------------------------------

enum class State { Runs, AtBarrier, InWarp, Ended };

struct Fiber {
    dim3 index;
    unsigned thread = 0;
    State state = State::Ended;
    // Where it waits, and for whom.
    int line = 0;
    const char* operation = "";
    uint32_t mask = 0;
    unsigned source = 0;
    uint64_t posted = 0, received = 0;
    bool started = false;
    ucontext_t first;
    jmp_buf at;
    char* stack = nullptr;
};

inline std::string subject = "no kernel";
// Which fault is put into the kernel; 0 for none.
inline int mutant = 0;
inline std::vector<Fiber*> fibers;
inline Fiber* current = nullptr;
inline bool in_kernel = false;
inline dim3 block_index, block_size, grid_size;

[[noreturn]] inline void fail(const char* format, ...) {
    fflush(stdout);
    fprintf(stderr, "%s: ", subject.c_str());
    if (in_kernel) {
        fprintf(stderr, "block (%u, %u, %u)", block_index.x, block_index.y, block_index.z);
        if (current) fprintf(stderr, " thread %u", current->thread);
        fprintf(stderr, ": ");
    }
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    fflush(stderr);
    _exit(1);
}

// ---- Fibers ---------------------------------------------------------------------------------------------

// Counts barriers over all blocks and launches, so that what was noted earlier needs no clearing.
inline uint64_t block_epoch = 1;
inline uint64_t block_start = 1;
inline std::vector<uint64_t> warp_epochs;
inline uint64_t launches = 0;
inline uint64_t linear_block = 0;
inline jmp_buf scheduler;
inline std::function<void()> body;

__attribute__((noinline)) inline void leave() {
    if (_setjmp(current->at) == 0) _longjmp(scheduler, 1);
}

inline void run_fiber() {
    for (;;) {
        body();
        current->state = State::Ended;
        leave();
    }
}

// ucontext starts a fiber; later switches need no system call.
__attribute__((noinline)) inline void enter(Fiber* fiber) {
    current = fiber;
    if (_setjmp(scheduler) == 0) {
        if (fiber->started) _longjmp(fiber->at, 1);
        fiber->started = true;
        setcontext(&fiber->first);
    }
    current = nullptr;
}

inline Fiber* make_fiber() {
    Fiber* fiber = new Fiber;
    void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) fail("no memory for a stack");
    fiber->stack = static_cast<char*>(stack);
    // A stack that overflows meets this page.
    mprotect(stack, 4096, PROT_NONE);
    getcontext(&fiber->first);
    fiber->first.uc_stack.ss_sp = fiber->stack;
    fiber->first.uc_stack.ss_size = STACK;
    fiber->first.uc_link = nullptr;
    makecontext(&fiber->first, run_fiber, 0);
    return fiber;
}

inline unsigned lane() { return current->thread % WARP; }

inline const char* place(const Fiber& fiber) {
    static char text[2][96];
    static int next = 0;
    char* out = text[next ^= 1];
    if (fiber.state == State::Ended) return "has ended";
    snprintf(out, sizeof text[0], "waits in %s at line %d", fiber.operation, fiber.line);
    return out;
}

// Lets the threads of a warp go on whose operation all lanes of its mask have reached.
inline bool release_warp(unsigned first, unsigned threads) {
    unsigned lanes = std::min(WARP, threads - first);
    bool released = false;
    for (unsigned i = 0; i < lanes; i++) {
        Fiber& leader = *fibers[first + i];
        if (leader.state != State::InWarp) continue;
        bool complete = true;
        uint32_t live = 0;
        for (unsigned l = 0; l < WARP; l++) {
            if (l < lanes && fibers[first + l]->state != State::Ended) live |= 1u << l;
            if (!(leader.mask >> l & 1)) continue;
            bool here = l < lanes && fibers[first + l]->state == State::InWarp &&
                        fibers[first + l]->line == leader.line && fibers[first + l]->mask == leader.mask;
            complete = complete && here;
        }
        if (!complete) continue;
        for (unsigned l = 0; l < lanes; l++) {
            if (!(leader.mask >> l & 1)) continue;
            Fiber& fiber = *fibers[first + l];
            fiber.received = fibers[first + fiber.source]->posted;
            if (!strcmp(fiber.operation, "__ballot_sync")) {
                fiber.received = 0;
                for (unsigned m = 0; m < lanes; m++) {
                    bool votes = leader.mask >> m & 1 && fibers[first + m]->posted;
                    fiber.received |= static_cast<uint64_t>(votes) << m;
                }
            }
        }
        if (!strcmp(leader.operation, "__syncwarp") && (leader.mask & live) == live) {
            warp_epochs[first / WARP]++;
        }
        uint32_t mask = leader.mask;
        for (unsigned l = 0; l < lanes; l++) {
            if (mask >> l & 1) fibers[first + l]->state = State::Runs;
        }
        released = true;
    }
    return released;
}

// Nobody can go on: says why.
[[noreturn]] inline void report_deadlock(unsigned threads) {
    for (unsigned t = 0; t < threads; t++) {
        Fiber& fiber = *fibers[t];
        if (fiber.state != State::InWarp) continue;
        unsigned first = t / WARP * WARP;
        current = &fiber;
        for (unsigned l = 0; l < WARP; l++) {
            if (!(fiber.mask >> l & 1)) continue;
            if (first + l >= threads) {
                fail("warp operation: %s at line %d names lane %u, which is not there", fiber.operation,
                     fiber.line, l);
            }
            Fiber& other = *fibers[first + l];
            if (other.state == State::InWarp && other.line == fiber.line && other.mask == fiber.mask)
                continue;
            fail("warp operation: %s at line %d names lane %u, which %s", fiber.operation, fiber.line, l,
                 place(other));
        }
    }
    for (unsigned t = 0; t < threads; t++) {
        Fiber& waiting = *fibers[t];
        if (waiting.state != State::AtBarrier) continue;
        for (unsigned u = 0; u < threads; u++) {
            Fiber& other = *fibers[u];
            if (other.state == State::AtBarrier && other.line == waiting.line) continue;
            current = &waiting;
            fail("barrier divergence: waits at line %d, while thread %u %s", waiting.line, u, place(other));
        }
    }
    fail("nobody can go on");
}

inline bool release_block(unsigned threads) {
    for (unsigned t = 0; t < threads; t++) {
        if (fibers[t]->state != State::AtBarrier || fibers[t]->line != fibers[0]->line) return false;
    }
    for (unsigned t = 0; t < threads; t++) fibers[t]->state = State::Runs;
    block_epoch++;
    return true;
}

inline void run_block(unsigned threads) {
    for (;;) {
        unsigned ended = 0;
        // Every other block runs its threads backwards: no result may depend on their order.
        for (unsigned i = 0; i < threads; i++) {
            Fiber* fiber = fibers[linear_block % 2 ? threads - 1 - i : i];
            if (fiber->state == State::Runs) enter(fiber);
        }
        bool released = false;
        for (unsigned first = 0; first < threads; first += WARP) {
            released = release_warp(first, threads) || released;
        }
        for (unsigned t = 0; t < threads; t++) ended += fibers[t]->state == State::Ended;
        if (ended == threads) return;
        if (!released && !release_block(threads)) report_deadlock(threads);
    }
}

// ---- Shared memory --------------------------------------------------------------------------------------

struct Word {
    uint64_t write_block = 0, write_warp = 0, read_block = 0, read_warp_epoch = 0;
    uint32_t writer = 0, reader = 0;
    uint32_t read_warp = 0;
};

constexpr uint32_t MANY = UINT32_MAX;

struct Region {
    const void* key = nullptr;
    const char* name = "";
    size_t bytes = 0;
    std::vector<uint64_t> memory;
    std::vector<Word> words;
};

inline std::vector<Region*> regions;
inline size_t dynamic_bytes = 0;

// Finds a block's array, or makes it: NaN bits that nobody has written.
inline Region* region(const void* key, const char* name, size_t bytes) {
    for (Region* found : regions) {
        if (found->key == key) return found;
    }
    Region* made = new Region;
    made->key = key;
    made->name = name;
    made->bytes = bytes;
    made->memory.assign((bytes + 7) / 8, UINT64_MAX);
    made->words.resize((bytes + 3) / 4);
    regions.push_back(made);
    return made;
}

inline void note_shared(Region* region, ptrdiff_t byte, size_t count, bool writes) {
    if (byte < 0 || byte + count > region->bytes) {
        fail("out of bounds: shared '%s' at byte %td of %zu", region->name, byte, region->bytes);
    }
    if (byte % count) fail("misaligned: shared '%s' at byte %td for %zu", region->name, byte, count);
    uint32_t me = current->thread, warp = me / WARP;
    uint64_t epoch = warp_epochs[warp];
    for (size_t w = byte / 4; w < (byte + count) / 4; w++) {
        Word& word = region->words[w];
        bool other = word.write_block == block_epoch && word.writer != me &&
                     (word.writer / WARP != warp || word.write_warp == epoch);
        if (other) {
            fail("data race: %s shared '%s' word %zu, which thread %u writes", writes ? "writes" : "reads",
                 region->name, w, word.writer);
        }
        if (!writes) {
            if (word.write_block < block_start) {
                fail("unwritten memory: reads shared '%s' word %zu", region->name, w);
            }
            if (word.read_block != block_epoch) {
                word.reader = me;
                word.read_warp = warp;
            } else {
                bool same_epoch = word.read_warp == warp && word.read_warp_epoch == epoch;
                if (word.read_warp != warp) word.read_warp = MANY;
                word.reader = same_epoch && word.reader != me ? MANY : me;
            }
            word.read_block = block_epoch;
            word.read_warp_epoch = epoch;
            continue;
        }
        if (word.read_block == block_epoch) {
            bool elsewhere = word.read_warp != warp;
            bool beside = word.read_warp_epoch == epoch && word.reader != me;
            if (elsewhere || beside) {
                fail("data race: writes shared '%s' word %zu, which another thread reads", region->name, w);
            }
        }
        word.writer = me;
        word.write_block = block_epoch;
        word.write_warp = epoch;
    }
}

// A pointer into shared memory whose every access is checked.
template <typename T> struct Shared {
    static_assert(sizeof(T) % 4 == 0, "races are found by 32-bit word");
    Region* region;
    ptrdiff_t offset;

    template <typename V> V load(ptrdiff_t index) const {
        ptrdiff_t byte = (offset + index) * static_cast<ptrdiff_t>(sizeof(T));
        note_shared(region, byte, sizeof(V), false);
        V value;
        memcpy(&value, reinterpret_cast<char*>(region->memory.data()) + byte, sizeof value);
        return value;
    }
    template <typename V> void store(ptrdiff_t index, V value) const {
        ptrdiff_t byte = (offset + index) * static_cast<ptrdiff_t>(sizeof(T));
        note_shared(region, byte, sizeof(V), true);
        memcpy(reinterpret_cast<char*>(region->memory.data()) + byte, &value, sizeof value);
    }

    struct Element {
        const Shared* from;
        ptrdiff_t index;
        operator T() const { return from->template load<T>(index); }
        void operator=(T value) const { from->store(index, value); }
        void operator=(const Element& other) const { from->store(index, static_cast<T>(other)); }
    };
    Element operator[](ptrdiff_t index) const { return {this, index}; }
    Shared operator+(ptrdiff_t by) const { return {region, offset + by}; }
};

template <typename T> Shared<T> dynamic_shared(const char* name) {
    static const char key = 0;
    return {region(&key, name, dynamic_bytes), 0};
}

// ---- Global memory --------------------------------------------------------------------------------------

struct Allocation {
    const char* name;
    size_t count, size;
    std::vector<uint64_t> memory;
    // By element: who wrote and who read it last, as launch and thread; whether it was ever written.
    std::vector<uint64_t> writers, readers;
    std::vector<char> written;

    Allocation(const char* name, size_t count, size_t size)
        : name(name), count(count), size(size), memory((count * size + 7) / 8 + 2, UINT64_MAX),
          writers(count), readers(count), written(count) {}

    char* bytes() {
        // Aligned as device memory is.
        uintptr_t at = reinterpret_cast<uintptr_t>(memory.data());
        return reinterpret_cast<char*>((at + 15) / 16 * 16);
    }
};

inline uint64_t my_name() {
    uint64_t thread = linear_block * block_size.count() + current->thread + 1;
    return launches << 32 | thread;
}

inline void note_global(Allocation* a, ptrdiff_t index, size_t count, bool writes) {
    if (index < 0 || index + count > a->count) {
        fail("out of bounds: '%s' at %td of %zu%s", a->name, index, a->count, count > 1 ? " (vector)" : "");
    }
    size_t bytes = count * a->size;
    if (bytes <= 16 && (bytes & (bytes - 1)) == 0 && index * a->size % bytes) {
        fail("misaligned: '%s' at %td for %zu bytes", a->name, index, bytes);
    }
    uint64_t me = my_name();
    for (size_t i = index; i < index + count; i++) {
        if (a->writers[i] >> 32 == launches && a->writers[i] != me) {
            fail("data race: %s '%s' at %zu, which another thread of the launch writes",
                 writes ? "writes" : "reads", a->name, i);
        }
        if (writes) {
            if (a->readers[i] >> 32 == launches && a->readers[i] != me) {
                fail("data race: writes '%s' at %zu, which another thread of the launch reads", a->name, i);
            }
            a->writers[i] = me;
            a->written[i] = 1;
        } else {
            if (!a->written[i]) fail("unwritten memory: reads '%s' at %zu", a->name, i);
            bool others = a->readers[i] >> 32 == launches && a->readers[i] != me;
            a->readers[i] = others ? launches << 32 | MANY : me;
        }
    }
}

// A pointer into global memory whose every access is checked.
template <typename T> struct Pointer {
    using Value = std::remove_const_t<T>;
    Allocation* allocation = nullptr;
    ptrdiff_t index = 0;

    Pointer(std::nullptr_t = nullptr) {}
    Pointer(Allocation* allocation, ptrdiff_t index) : allocation(allocation), index(index) {}
    operator Pointer<const Value>() const { return {allocation, index}; }
    bool operator!=(std::nullptr_t) const { return allocation != nullptr; }
    bool operator==(std::nullptr_t) const { return allocation == nullptr; }
    Pointer operator+(ptrdiff_t by) const { return {allocation, index + by}; }

    void load(Value* out, size_t count) const {
        if (!allocation) fail("out of bounds: a null pointer is read");
        note_global(allocation, index, count, false);
        memcpy(static_cast<void*>(out), allocation->bytes() + index * sizeof(T), count * sizeof(T));
    }
    void store(const Value* values, size_t count) const {
        static_assert(!std::is_const_v<T>, "writes what is const");
        if (!allocation) fail("out of bounds: a null pointer is written");
        note_global(allocation, index, count, true);
        memcpy(allocation->bytes() + index * sizeof(T), static_cast<const void*>(values), count * sizeof(T));
    }

    struct Element {
        Pointer at;
        operator Value() const {
            Value value;
            at.load(&value, 1);
            return value;
        }
        void operator=(Value value) const { at.store(&value, 1); }
        void operator=(const Element& other) const { *this = static_cast<Value>(other); }
    };
    Element operator[](ptrdiff_t by) const { return {*this + by}; }
};

// ---- Launches -------------------------------------------------------------------------------------------

// Runs a kernel over a grid.
inline void launch(dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> kernel) {
    unsigned threads = block.count();
    if (threads == 0 || threads > 1024 || grid.count() == 0)
        fail("a launch of nothing, or of too many threads");
    while (fibers.size() < threads) fibers.push_back(make_fiber());
    warp_epochs.resize((1024 + WARP - 1) / WARP, 1);
    body = std::move(kernel);
    grid_size = grid;
    block_size = block;
    dynamic_bytes = shared_bytes;
    in_kernel = true;
    launches++;
    for (linear_block = 0; linear_block < grid.count(); linear_block++) {
        unsigned at = static_cast<unsigned>(linear_block);
        block_index = dim3(at % grid.x, at / grid.x % grid.y, at / (grid.x * grid.y));
        for (Region* region : regions) delete region;
        regions.clear();
        block_start = ++block_epoch;
        for (unsigned t = 0; t < threads; t++) {
            fibers[t]->thread = t;
            fibers[t]->index = dim3(t % block.x, t / block.x % block.y, t / (block.x * block.y));
            fibers[t]->state = State::Runs;
        }
        run_block(threads);
    }
    in_kernel = false;
}

inline void barrier(int line) {
    current->operation = "__syncthreads";
    current->line = line;
    current->state = State::AtBarrier;
    leave();
}

inline uint64_t warp(const char* operation, int line, uint32_t mask, uint64_t posted, unsigned source) {
    if (!(mask >> lane() & 1)) fail("warp operation: %s at line %d leaves out its caller", operation, line);
    if (!(mask >> source & 1)) {
        fail("warp operation: %s at line %d reads lane %u, which its mask leaves out", operation, line,
             source);
    }
    current->operation = operation;
    current->line = line;
    current->mask = mask;
    current->posted = posted;
    current->source = source;
    current->state = State::InWarp;
    leave();
    return current->received;
}

template <typename T> T shuffle(const char* operation, int line, uint32_t mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 8);
    uint64_t posted = 0;
    memcpy(&posted, &value, sizeof value);
    uint64_t received = warp(operation, line, mask, posted, source);
    memcpy(&value, &received, sizeof value);
    return value;
}

inline unsigned lane_down(unsigned by) { return lane() + by < WARP ? lane() + by : lane(); }
inline unsigned lane_up(unsigned by) { return lane() >= by ? lane() - by : lane(); }

} // namespace emulation

#define threadIdx (emulation::current->index)
#define blockIdx (emulation::block_index)
#define blockDim (emulation::block_size)
#define gridDim (emulation::grid_size)

#define __syncthreads() emulation::barrier(__LINE__)
#define __syncwarp(...) \
    emulation::warp("__syncwarp", __LINE__, emulation::mask_of(__VA_ARGS__), 0, emulation::lane())
#define __shfl_sync(mask, value, source) \
    emulation::shuffle("__shfl_sync", __LINE__, mask, value, (source) % emulation::WARP)
#define __shfl_xor_sync(mask, value, by) \
    emulation::shuffle("__shfl_xor_sync", __LINE__, mask, value, (emulation::lane() ^ (by)) % emulation::WARP)
#define __shfl_down_sync(mask, value, by) \
    emulation::shuffle("__shfl_down_sync", __LINE__, mask, value, emulation::lane_down(by))
#define __shfl_up_sync(mask, value, by) \
    emulation::shuffle("__shfl_up_sync", __LINE__, mask, value, emulation::lane_up(by))
#define __ballot_sync(mask, vote) \
    static_cast<unsigned>(emulation::warp("__ballot_sync", __LINE__, mask, (vote) != 0, emulation::lane()))

namespace emulation {
inline uint32_t mask_of(uint32_t mask = UINT32_MAX) { return mask; }
} // namespace emulation

template <typename T> T __ldg(emulation::Pointer<const T> from) { return from[0]; }

// ---- Numbers --------------------------------------------------------------------------------------------

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline unsigned __float_as_uint(float x) { return bits_of(x); }
inline float __uint_as_float(unsigned bits) { return float_of(bits); }

inline float __bfloat162float(__nv_bfloat16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }

// To the nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t bits = bits_of(x);
    if (x != x) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline float __half2float(__half x) {
    uint32_t exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    float value;
    if (exponent == 31) {
        value = float_of(0x7f800000 | fraction << 13);
    } else if (exponent == 0) {
        value = std::ldexp(static_cast<float>(fraction), -24);
    } else {
        value = std::ldexp(static_cast<float>(fraction | 1024), static_cast<int>(exponent) - 25);
    }
    return x.bits >> 15 ? -value : value;
}

// To the nearest, ties to even.
inline __half __float2half(float x) {
    uint16_t sign = static_cast<uint16_t>(bits_of(x) >> 16 & 0x8000);
    float size = std::fabs(x);
    if (x != x) return {0x7fff};
    if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
    int exponent = 0;
    std::frexp(size, &exponent);
    // The step of the format at this size. A number of steps that rounds up to 2^11 carries into the
    // exponent.
    int step = size < 0x1p-14f ? -24 : exponent - 11;
    uint32_t steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, -step)));
    uint32_t bits = step == -24 ? steps : (static_cast<uint32_t>(step + 24) << 10) + steps;
    return {static_cast<uint16_t>(sign | bits)};
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
template <typename T> T min(T a, T b) { return b < a ? b : a; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }
