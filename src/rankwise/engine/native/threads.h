// Work shared out among threads, and memory for it.
//
// Nothing in a parallel region may throw: an exception that leaves one ends the process. Memory is asked for before.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include "team.h"

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

// `body(own)` in this thread and in those of its team that come before it has returned, `own` being `bytes` of memory, which is
// kept from call to call. Whatever of the threads comes, all `Parts` have been done at the end.
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
    if (threads == 1) return body(static_cast<char*>(kept));
    struct Region {
        const Body& body;
        char* memory;
        size_t bytes;
    } region{body, kept, bytes};
    const auto run = [](void* data, long number) {
        const Region& mine = *static_cast<Region*>(data);
        mine.body(mine.memory + number * mine.bytes);
    };
    Team::own().region(run, &region, threads);
}
