// The product on 64-bit Arm's instruction for small bf16 matrices (BFMMLA): two rows of four numbers times two columns of
// four, added to four sums. A block of sums is ROWS times COLUMNS, in squares of two by two.
//
//   rows    the left operand, a matrix as it lies, `stride` numbers from row to row
//   panel   the right operand, a matrix (depth, columns): 16 columns after 16 columns; of each the pairs of neighbouring rows
//           of all its columns, pair after pair. Two pairs of a column, which the instruction takes, are put side by side
//           in registers, beside the products.
#pragma once

#include <arm_neon.h>

#include "caches.h"
#include "squares.h"

class Sums {
public:
    static constexpr long ROWS = 6, COLUMNS = 16, DEPTH = 4, NARROW = 16;
    static constexpr bool WHOLE_ROWS = false;                                   // rows that are no block are no more than they are
    // Of depth, of a block's rows, that they fill half of the first cache; and bytes of a panel that fill half of the second.
    static long piece() { return caches.first / 2 / (long)sizeof(bf16) / ROWS / 16 * 16; }
    static long cached() { return caches.second / 2; }

    // What a thread needs before its first block.
    struct Session {};

    // place: where the sums go, rows `stride` apart; onto: they are added to what is there
    Sums(float* place, long stride, bool onto) : place_(place), stride_(stride), fresh_(!onto) {}
    void spill() {}

    // += `count` rows times the columns of a panel.
    void dot(const bf16* rows, long stride, long count, const bf16* panel, long depth, long) {
        with_count<ROWS>(count, [&](auto all) { block<all>(rows, stride, panel, depth); });
        fresh_ = false;
    }

    // Where (row of depth, column) is in a panel.
    static long place_of(long row, long column, long depth, long) {
        return column / COLUMNS * COLUMNS * depth + row / 2 * 2 * COLUMNS + column % COLUMNS * 2 + row % 2;
    }

private:
    template <long COUNT>
    void block(const bf16* rows, long stride, const bf16* panel, long depth) {
        constexpr long PAIRS = (COUNT + 1) / 2, FOURS = COLUMNS / 4;
        const auto number = [&](long row) { return place_ + row * stride_; };
        float32x4_t sums[PAIRS][2 * FOURS];
        for (long i = 0; i < PAIRS; ++i)
            for (long j = 0; j < FOURS; ++j) {
                const bool both = 2 * i + 1 < COUNT;
                const float32x4_t nothing = vdupq_n_f32(0), upper = fresh_ ? nothing : vld1q_f32(number(2 * i) + 4 * j);
                const float32x4_t lower = fresh_ || !both ? nothing : vld1q_f32(number(2 * i + 1) + 4 * j);
                sums[i][2 * j] = vcombine_f32(vget_low_f32(upper), vget_low_f32(lower));
                sums[i][2 * j + 1] = vcombine_f32(vget_high_f32(upper), vget_high_f32(lower));
            }
        for (long k = 0; k < depth; k += DEPTH) {
            bfloat16x8_t left[PAIRS];
            for (long i = 0; i < PAIRS; ++i) {
                const bfloat16x4_t upper = read<bfloat16x4_t>(rows + 2 * i * stride + k);
                left[i] = vcombine_bf16(upper, 2 * i + 1 < COUNT ? read<bfloat16x4_t>(rows + (2 * i + 1) * stride + k) : upper);
            }
            for (long j = 0; j < FOURS; ++j) {
                const uint32x4_t first = read<uint32x4_t>(panel + 8 * j), second = read<uint32x4_t>(panel + 2 * COLUMNS + 8 * j);
                const bfloat16x8_t right[2] = {vreinterpretq_bf16_u32(vzip1q_u32(first, second)),
                                               vreinterpretq_bf16_u32(vzip2q_u32(first, second))};
                for (long i = 0; i < PAIRS; ++i)
                    for (long half = 0; half < 2; ++half)
                        sums[i][2 * j + half] = vbfmmlaq_f32(sums[i][2 * j + half], left[i], right[half]);
            }
            panel += DEPTH * COLUMNS;
        }
        for (long i = 0; i < PAIRS; ++i)
            for (long j = 0; j < FOURS; ++j) {
                const float32x4_t one = sums[i][2 * j], other = sums[i][2 * j + 1];
                vst1q_f32(number(2 * i) + 4 * j, vcombine_f32(vget_low_f32(one), vget_low_f32(other)));
                if (2 * i + 1 < COUNT) vst1q_f32(number(2 * i + 1) + 4 * j, vcombine_f32(vget_high_f32(one), vget_high_f32(other)));
            }
    }

    float* const place_;
    const long stride_;
    bool fresh_;
};
