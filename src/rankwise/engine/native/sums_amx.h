// The product on matrix units (AMX): 32 rows times 32 columns in four of the processor's eight tiles. A tile is 16 rows of
// 64 bytes: on the left 16 rows of 32 bf16 numbers; on the right 16 pairs of rows, 16 columns, the two numbers of a pair
// side by side; the sums are 16 by 16 in fp32.
//
//   rows    the left operand, a matrix as it lies, `stride` numbers from row to row, 32 rows
//   panel   the right operand, a matrix (depth, columns): 32 columns after 32 columns, in each 32 rows of depth after 32
//           rows, in each two tiles
#pragma once

#include "squares.h"

// All eight tiles at full size. In memory of its own: GCC takes the instruction to read no more than an address of it,
// and leaves out what fills a local one.
struct alignas(64) TileSizes {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
inline const TileSizes tile_sizes{};

class Sums {
public:
    static constexpr long ROWS = 32, COLUMNS = 32, DEPTH = 32, NARROW = 32;
    static constexpr bool WHOLE_ROWS = true;  // rows are read up to a whole block
    static long piece() { return 256; }      // of depth, where it is more than twice as much
    static long cached() { return 3 << 18; }  // bytes of a panel that stay in a core's second cache

    // Tiles may be used for as long as this object lives.
    struct Session {
        Session() { _tile_loadconfig(&tile_sizes); }
        ~Session() { _tile_release(); }
    };

    // place: where the sums go, rows `stride` apart; onto: they are added to what is there
    Sums(float* place, long stride, bool onto) : place_(place), stride_(stride) {
        if (!onto) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            return;
        }
        const long bytes = stride_ * sizeof(float);
        _tile_loadd(0, place_, bytes);
        _tile_loadd(1, place_ + 16, bytes);
        _tile_loadd(2, place_ + 16 * stride_, bytes);
        _tile_loadd(3, place_ + 16 * stride_ + 16, bytes);
    }

    void spill() {
        const long bytes = stride_ * sizeof(float);
        _tile_stored(0, place_, bytes);
        _tile_stored(1, place_ + 16, bytes);
        _tile_stored(2, place_ + 16 * stride_, bytes);
        _tile_stored(3, place_ + 16 * stride_ + 16, bytes);
    }

    void dot(const bf16* rows, long stride, long, const bf16* panel, long depth, long) {
        const long bytes = stride * sizeof(bf16);
        for (long step = 0; step < depth; step += DEPTH) {
            _tile_loadd(4, rows, bytes);
            _tile_loadd(6, panel, 64);
            _tile_loadd(7, panel + TILE, 64);
            _tile_loadd(5, rows + 16 * stride, bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
            rows += DEPTH;
            panel += 2 * TILE;
        }
    }

    static long place_of(long row, long column, long depth, long) {
        const long block = column / COLUMNS * depth / DEPTH + row / DEPTH;
        return block * 2 * TILE + column / 16 % 2 * TILE + row % DEPTH / 2 * 32 + column % 16 * 2 + row % 2;
    }

private:
    static constexpr long TILE = 16 * 32;  // bf16 numbers of a tile
    float* const place_;
    const long stride_;
};
