// Products with frozen matrices in eight bits (SwitchBack: Wortsman et al. 2023, for a matrix that never trains): a row of W has
// one scale, and so has a token's row of the left operand. Sums are whole numbers, exact; all else is as in other products.
//
//   forward    x W^T: a column of the result has its row of W's scale
//   backward   x W: the scales are multiplied into x before that is rounded
//
// The processor multiplies numbers without a sign by numbers with one, four of a column at a time: 128 is added to the left
// operand's, and what that adds to a column's sum is taken off where the sum begins.
#pragma once

#include "product.h"

// A matrix in eight bits, in one piece of memory.
struct EightBits {
    int8_t* panels[2];   // of W^T (d_in, d_out), and of W (d_out, d_in): 32 columns after 32 columns, of each fours of rows
    float* scales;       // of W's rows (d_out)
    int32_t* offsets[2];  // of the columns of each panel: 128 times their sum
    size_t bytes;
    EightBits(long d_in, long d_out, void* memory) {
        Keeper keeper{static_cast<char*>(memory)};
        for (auto& panel : panels) panel = keeper.take<int8_t>(d_in * d_out);
        scales = keeper.take<float>(d_out);
        offsets[0] = keeper.take<int32_t>(d_out), offsets[1] = keeper.take<int32_t>(d_in);
        bytes = keeper.used;
    }
    explicit EightBits(const Matrix& w) : EightBits(w.d_in, w.d_out, const_cast<Number*>(w.panel)) {}

    static long place_of(long row, long column, long depth) {
        return column / Sums::COLUMNS * Sums::COLUMNS * depth + row / 4 * 4 * Sums::COLUMNS + column % Sums::COLUMNS * 4 + row % 4;
    }
};

// What to multiply numbers with whose largest is `most` to have whole ones up to 127, and that of these to have them back.
struct Scale {
    float to, from;
    explicit Scale(float most) : to(most > 0.0f ? 127.0f / most : 0.0f), from(most / 127.0f) {}
};

// The matrix in its parts, rounded.
inline void pack_eight_bits(const Matrix& w, const EightBits& to) {
    std::memset(to.offsets[0], 0, w.d_out * sizeof(int32_t));
    std::memset(to.offsets[1], 0, w.d_in * sizeof(int32_t));
    for (long part = 0, start = 0; part < w.count; start += w.rows[part++])
        for (long row = start; row < start + w.rows[part]; ++row) {
            const Number* numbers = w.parts[part] + (row - start) * w.d_in;
            float most = 0.0f;
            for (long j = 0; j < w.d_in; ++j) most = std::max(most, std::fabs(wide(numbers[j])));
            const Scale scale(most);
            to.scales[row] = scale.from;
            for (long j = 0; j < w.d_in; ++j) {
                const int8_t rounded = (int8_t)std::nearbyint(wide(numbers[j]) * scale.to);
                to.panels[0][EightBits::place_of(j, row, w.d_in)] = to.panels[1][EightBits::place_of(row, j, w.d_out)] = rounded;
                to.offsets[0][row] += 128 * rounded;
                to.offsets[1][j] += 128 * rounded;
            }
        }
}

// The left operand in eight bits, 128 added.
struct EightBitRows {
    Buffer<uint8_t> numbers;  // (count, depth)
    Buffer<float> scales;     // (count)
    EightBitRows(const Product& p, const EightBits& w) : numbers(p.count * p.depth()), scales(p.count) {
        const long depth = p.depth();
        Parts parts((p.count + Sums::ROWS - 1) / Sums::ROWS);
        in_parallel(depth * sizeof(float), [&](char* own) {
            float* const row = reinterpret_cast<float*>(own);
            for (long part; (part = parts.next()) >= 0;)
                for (long i = part * Sums::ROWS; i < std::min(p.count, (part + 1) * Sums::ROWS); ++i)
                    round(p.x + i * p.stride, p.transposed ? w.scales : nullptr, depth, row, i);
        });
    }

private:
    void round(const Number* x, const float* times, long depth, float* row, long i) {
        Vector most{}, wrong{};  // wrong: no number where one of x is none
        for (long j = 0; j < depth; j += LANES) {
            const Vector y = times ? load(x + j) * load(times + j) : load(x + j);
            store(row + j, y);
            most = larger(magnitude(y), most);
            wrong = wrong + y * 0.0f;
        }
        const Scale scale(largest(most));
        scales[i] = scale.from + sum(wrong);
        for (long j = 0; j < depth; j += LANES) {
            const __m512i whole = _mm512_cvtps_epi32((__m512)(load(row + j) * scale.to));
            _mm_storeu_si128((__m128i*)(numbers + i * depth + j), _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(128))));
        }
    }
};

// sums += fours of rows times fours of a column. By its name: around the compiler's own function for it GCC moves the sums
// through memory, which takes half of the speed.
inline void add_fours(__m512i& sums, __m512i rows, __m512i words) { asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(rows), "v"(words)); }

// A block's sums in fp32: COUNT rows, COLUMNS columns.
template <long COUNT>
void eight_bit_block(const uint8_t* rows, long depth, const int8_t* panel, const int32_t* offsets, const float* row_scales,
                     const float* column_scales, float* to) {
    constexpr long VECTORS = Sums::COLUMNS / LANES;
    __m512i sums[COUNT][VECTORS];
#pragma GCC unroll 16
    for (long i = 0; i < COUNT; ++i)
#pragma GCC unroll 4
        for (long j = 0; j < VECTORS; ++j) sums[i][j] = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(offsets + j * LANES));
    for (long k = 0; k < depth; k += 4) {
        __m512i words[VECTORS];
#pragma GCC unroll 4
        for (long j = 0; j < VECTORS; ++j) words[j] = _mm512_loadu_si512(panel + j * 4 * LANES);
#pragma GCC unroll 16
        for (long i = 0; i < COUNT; ++i) {
            const __m512i four = _mm512_set1_epi32(read<int32_t>(rows + i * depth + k));
#pragma GCC unroll 4
            for (long j = 0; j < VECTORS; ++j) add_fours(sums[i][j], four, words[j]);
        }
        panel += 4 * Sums::COLUMNS;
    }
#pragma GCC unroll 16
    for (long i = 0; i < COUNT; ++i)
#pragma GCC unroll 4
        for (long j = 0; j < VECTORS; ++j) {
            const Vector x = (Vector)_mm512_cvtepi32_ps(sums[i][j]) * row_scales[i];
            store(to + i * Sums::COLUMNS + j * LANES, column_scales ? x * load(column_scales + j * LANES) : x);
        }
}

// `multiply` with a matrix in eight bits.
inline void multiply_eight_bits(const Product& p) {
    const EightBits w(p.matrix);
    const EightBitRows rows(p, w);
    const long depth = p.depth();
    const int8_t* panel = w.panels[p.transposed];
    over_columns(p, sizeof(int8_t), [&](const PartMemory& m, long from, long to) {
        for (long row = 0; row < p.count; row += Sums::ROWS)
            for (long column = from; column < to; column += Sums::COLUMNS) {
                const Block b{row, std::min(Sums::ROWS, p.count - row), column, Sums::COLUMNS};
                const float* scales = p.transposed ? nullptr : w.scales + column;
                with_count<Sums::ROWS>(b.count, [&](auto count) {
                    eight_bit_block<count>(rows.numbers + row * depth, depth, panel + column * depth, w.offsets[p.transposed] + column,
                                           rows.scales + row, scales, m.partial);
                });
                Sums block(m.partial, Sums::COLUMNS, true);
                complete(p, m, b, block, m.partial);
            }
    });
}
