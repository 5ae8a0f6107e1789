// Work shared out among threads: OpenMP's, the pool that torch uses, called by the name that every OpenMP library has
// (GNU's, LLVM's and Intel's), so that it does not matter which compiler made this and which of them torch brought.
// THREADS_OF_OUR_OWN is for the thread sanitizer, which must see how threads are made.
//
// Nothing in a parallel region may throw: an exception that leaves one ends the process. Memory is asked for before.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#ifdef THREADS_OF_OUR_OWN
#include <thread>
#include <vector>
#else
extern "C" {
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
int omp_get_thread_num();
int omp_get_num_threads();
}
#endif

constexpr size_t LINE = 64;  // bytes of a cache line
inline size_t in_lines(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

// Memory of a call, at a cache line's start. Throws std::bad_alloc.
template <class Number>
class Buffer {
public:
    explicit Buffer(long count = 0) : memory_(count ? std::aligned_alloc(LINE, in_lines(count * sizeof(Number))) : nullptr) {
        if (count && !memory_) throw std::bad_alloc();
    }
    Buffer(Buffer&& other) noexcept : memory_(other.memory_) { other.memory_ = nullptr; }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(memory_, other.memory_);
        return *this;
    }
    ~Buffer() { std::free(memory_); }
    operator Number*() const { return static_cast<Number*>(memory_); }

private:
    void* memory_;
};

// Hands out parts of a memory; without one, it counts what they take together.
struct Keeper {
    char* memory;
    size_t used = 0;
    template <class Number>
    Number* take(long count) {
        const size_t place = used;
        used += in_lines(count * sizeof(Number));
        return memory ? reinterpret_cast<Number*>(memory + place) : nullptr;
    }
};

// One of the threads of a region.
struct Worker {
    long number, count;
    char* memory;  // its own
};

// Parts of a region's work, for whoever is free.
class Parts {
public:
    explicit Parts(long count) : count_(count) {}
    // The next part, or -1.
    long next() {
        const long part = next_.fetch_add(1, std::memory_order_relaxed);
        return part < count_ ? part : -1;
    }

private:
    std::atomic<long> next_{0};
    const long count_;
};

// How many threads a call may use: what its caller said.
inline thread_local long allowed_threads = 1;

// `body(worker)` in every thread at once, each with `bytes` of memory, which is kept from call to call.
template <class Body>
void in_parallel(size_t bytes, const Body& body) {
    static thread_local Buffer<char> kept;
    static thread_local size_t size = 0;
    bytes = in_lines(bytes);
    const long threads = allowed_threads;
    if (bytes * threads > size) {
        size = 0;
        kept = Buffer<char>();
        kept = Buffer<char>(bytes * threads);
        size = bytes * threads;
    }
    struct Region {
        const Body& body;
        char* memory;
        size_t bytes;
    } region{body, kept, bytes};
#ifdef THREADS_OF_OUR_OWN
    std::vector<std::thread> team;
    for (long i = 1; i < threads; ++i) team.emplace_back([&, i] { body(Worker{i, threads, region.memory + i * bytes}); });
    body(Worker{0, threads, region.memory});
    for (auto& thread : team) thread.join();
#else
    const auto run = [](void* data) {
        const Region& mine = *static_cast<Region*>(data);
        const long number = omp_get_thread_num();
        mine.body(Worker{number, omp_get_num_threads(), mine.memory + number * mine.bytes});
    };
    GOMP_parallel(run, &region, threads, 0);
#endif
}
