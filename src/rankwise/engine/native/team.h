// Threads of our own, which a region never waits for: only work that one of them has begun.
//
// OpenMP's regions end when every thread has come to their end, also one that found nothing to do. Where other programs run,
// the system lets a thread that would run wait for milliseconds, and a step has hundreds of regions: all of them waited.
#pragma once

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>
#include <system_error>
#include <thread>

// Some fifty cycles, without a call of the system's.
inline void pause_a_moment() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// The threads that work for one thread, their caller.
class Team {
public:
    // Of the calling thread. Its threads end with their caller.
    static Team& own() {
        struct Caller {
            Team* team = nullptr;
            ~Caller() {
                if (team) team->dismiss();
            }
        };
        static thread_local Caller caller;
        static const int watched = pthread_atfork(nullptr, nullptr, [] { ++forks; });
        (void)watched;
        if (!caller.team || caller.team->made_after_ != forks) caller.team = new Team;  // no thread survives a fork
        return *caller.team;
    }

    // `run(data, number)` by the caller as number 0 and by threads numbered from 1 to below `threads`: by those that come
    // before the caller has returned from it, which each does when nothing is left to begin.
    void region(void (*run)(void*, long), void* data, long threads) {
        hire(threads - 1);
        run_ = run, data_ = data, threads_ = threads;
        door_.store(((door_.load(std::memory_order_relaxed) & ~(NEXT - 1)) + NEXT) | OPEN);
        if (asleep_.load()) wake();
        run(data, 0);
        uint32_t door = door_.fetch_and(~OPEN) & ~OPEN;
        for (long moments = 0; door & INSIDE; ++moments) {
            if (moments < MOMENTS_OF_CALLER) {
                pause_a_moment();
                door = door_.load(std::memory_order_acquire);
            } else {
                door = door_.fetch_or(AWAITED) | AWAITED;
                if (door & INSIDE) sleep(door);
            }
        }
    }

private:
    // The door: how many are inside, whether others may come in, whether the caller sleeps until all are out, whether
    // everybody may go home, and a number for each region, by which a thread comes in once.
    static constexpr uint32_t INSIDE = 0xfff, OPEN = 0x1000, AWAITED = 0x2000, OVER = 0x4000, NEXT = 0x8000;
    // What a thread waits before it lets the system take its core: for the next region more than Python takes between two,
    // for the end of this one no more than a part of it takes.
    static constexpr long MOMENTS_OF_THREAD = 20000, MOMENTS_OF_CALLER = 2000;

    inline static std::atomic<long> forks{0};

    const long made_after_ = forks;
    std::atomic<uint32_t> door_{0}, asleep_{0};
    std::atomic<long> members_{1};  // its caller, and threads that have not ended; std::shared_ptr asks for a younger C library
    void (*run_)(void*, long) = nullptr;
    void* data_ = nullptr;
    long threads_ = 0, hired_ = 0;

    void sleep(uint32_t door) { syscall(SYS_futex, &door_, FUTEX_WAIT_PRIVATE, door, nullptr, nullptr, 0); }
    void wake() { syscall(SYS_futex, &door_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }

    void dismiss() {
        door_.fetch_or(OVER);
        wake();
        leave();
    }

    void leave() {
        if (--members_ == 0) delete this;
    }

    // So many threads, or as many as the system gives. Signals are for the program's own threads.
    void hire(long wanted) {
        wanted = std::min(wanted, long(INSIDE));
        if (hired_ >= wanted) return;
        sigset_t all, before;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, &before);  // this thread's, on Linux; pthread_sigmask, too, asks for a younger C library
        try {
            for (; hired_ < wanted; ++hired_) {
                std::thread(&Team::work, this, hired_ + 1).detach();
                ++members_;
            }
        } catch (const std::system_error&) {
        }
        sigprocmask(SIG_SETMASK, &before, nullptr);
    }

    void work(long number) {
        for (uint32_t seen = 0;;) {
            uint32_t door = next(seen);
            if (door & OVER) return leave();
            while ((door & OPEN) && !door_.compare_exchange_weak(door, door + 1)) continue;
            seen = door & ~(NEXT - 1);
            if (!(door & OPEN)) continue;
            if (number < threads_) run_(data_, number);
            door = door_.fetch_sub(1) - 1;
            if ((door & AWAITED) && !(door & INSIDE)) wake();
        }
    }

    // The door once it is open for a region other than the one seen, or all is over.
    uint32_t next(uint32_t seen) {
        for (long moments = 0;; ++moments) {
            const uint32_t door = door_.load();
            if ((door & OVER) || ((door & OPEN) && (door & ~(NEXT - 1)) != seen)) return door;
            if (moments < MOMENTS_OF_THREAD) {
                pause_a_moment();
            } else {
                ++asleep_;
                sleep(door);
                --asleep_;
                moments = 0;
            }
        }
    }
};
