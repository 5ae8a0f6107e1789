// A core's caches, which decide how products are cut up. No sum depends on it.
#pragma once

#include <unistd.h>

// Bytes, as the system says them; where it does not, as the smallest of this decade have them.
struct Caches {
    long first = 32 << 10, second = 512 << 10;
    Caches() {
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
        if (const long known = sysconf(_SC_LEVEL1_DCACHE_SIZE); known > 0) first = known;
        if (const long known = sysconf(_SC_LEVEL2_CACHE_SIZE); known > 0) second = known;
#endif
    }
};
inline const Caches caches;
