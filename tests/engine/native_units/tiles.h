// The matrix units' instructions in plain C++, so that the unit for AMX runs on processors without. Included before it.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

inline thread_local char tiles[8][16][64];

inline void tile_load(int tile, const void* from, long stride) {
    for (int row = 0; row < 16; ++row) std::memcpy(tiles[tile][row], (const char*)from + row * stride, 64);
}

inline void tile_store(int tile, void* to, long stride) {
    for (int row = 0; row < 16; ++row) std::memcpy((char*)to + row * stride, tiles[tile][row], 64);
}

inline float tile_number(const char* at) {
    uint16_t half;
    std::memcpy(&half, at, 2);
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline void tile_product(int to, int left, int right) {
    for (int row = 0; row < 16; ++row)
        for (int column = 0; column < 16; ++column) {
            float sum;
            std::memcpy(&sum, tiles[to][row] + 4 * column, 4);
            for (int k = 0; k < 16; ++k)
                for (int half = 0; half < 2; ++half)
                    sum += tile_number(tiles[left][row] + 4 * k + 2 * half) * tile_number(tiles[right][k] + 4 * column + 2 * half);
            std::memcpy(tiles[to][row] + 4 * column, &sum, 4);
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(sizes) ((void)(sizes))
#define _tile_release()
#define _tile_zero(tile) std::memset(tiles[tile], 0, sizeof tiles[tile])
#define _tile_loadd(tile, from, stride) tile_load(tile, from, stride)
#define _tile_stored(tile, to, stride) tile_store(tile, to, stride)
#define _tile_dpbf16ps(to, left, right) tile_product(to, left, right)
