// The product on a processor with vectors: a block of sums in its registers, ROWS times COLUMNS.
//
//   rows    the left operand, a matrix as it lies, `stride` numbers from row to row
//   panel   the right operand, a matrix (depth, columns), COLUMNS columns after COLUMNS columns; of each the words (a number
//           in fp32, two of one column and neighbouring rows in bf16) of all its columns, depth after depth. The last columns
//           may be fewer.
#pragma once

#include <climits>

#include "caches.h"
#include "squares.h"

using Word = std::conditional_t<std::is_same_v<Number, bf16>, uint32_t, float>;

// sums + x word
#if defined(__AVX512BF16__)
inline Vector add_word(Vector sums, const bf16* x, Vector word) {
    return (Vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_epi32(read<int32_t>(x)), (__m512bh)word);
}
#else
inline Vector add_word(Vector sums, const bf16* x, Vector word) {
    const Bits pairs = as<Bits>(word);
    return fma(as<Vector>(pairs & 0xffff0000), broadcast(wide(x[1])), fma(as<Vector>(pairs << 16), broadcast(wide(x[0])), sums));
}
#endif
inline Vector add_word(Vector sums, const float* x, Vector word) { return fma(word, broadcast(*x), sums); }

class Sums {
public:
    static constexpr long ROWS = BLOCK_ROWS, COLUMNS = BLOCK_VECTORS * LANES;
    static constexpr long DEPTH = sizeof(float) / sizeof(Number);  // of a word: depths are multiples of it
    static constexpr long NARROW = 16;                              // numbers of columns are multiples of it
    static constexpr bool WHOLE_ROWS = false;                       // rows that are no block are no more than they are
    // Of depth, in bf16, of a block's rows, that they fill half of the first cache. In fp32 all of it: the rows come from the second
    // cache as fast as they are asked for, and sums that wait between pieces cost more.
    static long piece() { return DEPTH == 1 ? LONG_MAX / 2 : caches.first / 2 / (long)sizeof(Number) / ROWS / 16 * 16; }
    static long cached() { return caches.second / 2; }  // bytes of a panel that fill half of the second cache

    // What a thread needs before its first block.
    struct Session {};

    // place: where the sums go, rows `stride` apart; onto: they are added to what is there
    Sums(float* place, long stride, bool onto) : place_(place), stride_(stride), fresh_(!onto) {}
    void spill() {}

    // += `count` rows times `columns` (at most COLUMNS) columns of a panel.
    void dot(const Number* rows, long stride, long count, const Number* panel, long depth, long columns) {
        with_count<BLOCK_VECTORS>(columns / LANES, [&](auto vectors) {
            with_count<ROWS>(count, [&](auto all) { block<vectors, all>(rows, stride, panel, depth); });
        });
        fresh_ = false;
    }

    // Where (row of depth, column) is in a panel.
    static long place_of(long row, long column, long depth, long columns) {
        const long block = column / COLUMNS * COLUMNS, width = std::min(COLUMNS, columns - block);
        return block * depth + row / DEPTH * DEPTH * width + (column - block) * DEPTH + row % DEPTH;
    }

private:
    // Never inlined: in some callers the compiler then keeps the sums in memory, at less than half the speed.
    template <long VECTORS, long COUNT>
    [[gnu::noinline]] void block(const Number* rows, long stride, const Number* panel, long depth) {
        Vector sums[COUNT][VECTORS];  // stays in registers where loops over it are unrolled before all else
        if (fresh_) {
#pragma GCC unroll 16
            for (int i = 0; i < COUNT; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < VECTORS; ++j) sums[i][j] = Vector{};
        } else {
#pragma GCC unroll 16
            for (int i = 0; i < COUNT; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < VECTORS; ++j) sums[i][j] = ::load(place_ + i * stride_ + j * LANES);
        }
        for (long k = 0; k < depth; k += DEPTH) {
            Vector words[VECTORS];
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; ++j) words[j] = read<Vector>(panel + j * LANES * DEPTH);
#pragma GCC unroll 16
            for (int i = 0; i < COUNT; ++i)
#pragma GCC unroll 4
                for (int j = 0; j < VECTORS; ++j) sums[i][j] = add_word(sums[i][j], rows + i * stride + k, words[j]);
            panel += VECTORS * LANES * DEPTH;
        }
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; ++j) store(place_ + i * stride_ + j * LANES, sums[i][j]);
    }

    float* const place_;
    const long stride_;
    bool fresh_;
};
