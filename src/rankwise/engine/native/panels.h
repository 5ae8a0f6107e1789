// Panels: matrices laid out for the right of a product. How one lies, `Sums::place_of` says; here they are written, 16
// columns of a word of depth at a time, which lie side by side in all of them.
#pragma once

#include "threads.h"

constexpr long up(long size, long step) { return (size + step - 1) / step * step; }

// Where the word (row of depth, column) of a panel is; row is a multiple of a word's, column of 16.
inline uint32_t* word_at(const Number* panel, long row, long column, long depth, long columns) {
    return reinterpret_cast<uint32_t*>(const_cast<Number*>(panel) + Sums::place_of(row, column, depth, columns));
}

// Rows [row, row + count) of the panel (depth, columns) of a matrix as it lies, (count, columns); zero from there up to a
// multiple of DEPTH.
inline void panel_of(const Number* x, long stride, long count, long columns, Number* panel, long row = 0, long depth = 0) {
    constexpr long WORD = sizeof(uint32_t) / sizeof(Number);
    const long whole = up(count, Sums::DEPTH);
    for (long i = 0; i < whole; i += WORD) {
        const Number* even = i < count ? x + i * stride : nullptr;
        const Number* odd = i + 1 < count ? x + (i + 1) * stride : nullptr;
        for (long column = 0; column < columns; column += SQUARE) __builtin_prefetch(x + (i + 8) * stride + column);  // too short to be foreseen
        for (long column = 0; column < columns; column += SQUARE)
            write_words(even ? even + column : nullptr, odd ? odd + column : nullptr,
                        word_at(panel, row + i, column, depth ? depth : whole, columns));
    }
}

// A panel of the transpose of a matrix as it lies, (count, depth): its columns from `count` on, up to `columns`, are zero.
inline void panel_of_transpose(const Number* x, long stride, long count, long depth, long columns, Number* panel) {
    constexpr long WORD = sizeof(uint32_t) / sizeof(Number), AHEAD = 4 * SQUARE * WORD;
    // What is read four squares later: rows are too short for the processor to see where they lead before they end.
    const auto ahead = [&](long row, long column) {
        return row + AHEAD < depth ? x + column * stride + row + AHEAD : x + (column + SQUARE) * stride + row + AHEAD - depth;
    };
    for (long column = 0; column < columns; column += SQUARE)
        for (long row = 0; row < depth; row += SQUARE * WORD) {
            for (long i = 0; i < SQUARE; ++i) __builtin_prefetch(ahead(row, column + i));
            uint32_t* to = word_at(panel, row, column, depth, columns);
            const long step = depth > WORD ? word_at(panel, WORD, column, depth, columns) - word_at(panel, 0, column, depth, columns) : 0;
            const auto from = [&](long i) { return column + i < count ? x + (column + i) * stride + row : nullptr; };
            transpose_square(from, (depth - row) / WORD, to, step);
        }
}

// The transpose of (rows, columns) as rows again: a row of the result for each column, of `rows` numbers. Rows are a multiple
// of DEPTH, columns of 16.
inline void transpose_rows(const Number* x, long rows, long columns, Number* to) {
    constexpr long WORD = sizeof(uint32_t) / sizeof(Number);
    uint32_t words[SQUARE * SQUARE];
    for (long row = 0; row < rows; row += SQUARE * WORD) {
        const long count = std::min(SQUARE, (rows - row) / WORD);
        for (long column = 0; column < columns; column += SQUARE) {
            for (long i = 0; i < count; ++i) {
                const Number* even = x + (row + i * WORD) * columns + column;
                write_words(even, even + columns, words + i * SQUARE);
            }
            const auto from = [&](long i) { return i < count ? words + i * SQUARE : nullptr; };
            uint32_t turned[SQUARE * SQUARE];
            transpose_square(from, SQUARE, turned, SQUARE);
            for (long i = 0; i < SQUARE; ++i) std::memcpy(to + (column + i) * rows + row, turned + i * SQUARE, count * sizeof(uint32_t));
        }
    }
}

// `body(memory)` in every thread, with memory of its own, which `memory_of` takes from a keeper.
template <class MemoryOf, class Body>
void in_parallel_with(const MemoryOf& memory_of, const Body& body) {
    Keeper sizes{nullptr};
    memory_of(sizes);
    in_parallel(sizes.used, [&](char* own) {
        [[maybe_unused]] const Sums::Session session;
        Keeper keeper{own};
        body(memory_of(keeper));
    });
}

// --- the left operand -----------------------------------------------------------------------------------------

// `count` rows as a product reads them: where they are, or in `memory`, up to a whole block, where that is what it reads.
struct Rows {
    const Number* at;
    long stride;
};

inline constexpr long rows_read(long count) { return Sums::WHOLE_ROWS ? up(count, Sums::ROWS) : count; }

inline void copy_rows(const Number* x, long stride, long count, long width, long whole, Number* to) {
    for (long row = 0; row < count; ++row) std::memcpy(to + row * width, x + row * stride, width * sizeof(Number));
    std::memset(to + count * width, 0, (whole - count) * width * sizeof(Number));
}

inline Rows rows_of(const Number* x, long stride, long count, long width, Number* memory) {
    if (rows_read(count) == count) return Rows{x, stride};
    copy_rows(x, stride, count, width, rows_read(count), memory);
    return Rows{memory, width};
}

// to (count, columns), fp32 = rows times a panel (depth, columns), or += `onto` what is there; by one thread. Of a panel that is
// deeper, `whole`, those numbers of depth from `first` on.
inline void product(const Number* rows, long stride, long count, const Number* panel, long depth, long columns, float* to,
                    bool onto = false, long whole = 0, long first = 0) {
    if (!whole) whole = depth;
    for (long column = 0; column < columns; column += Sums::COLUMNS)
        for (long row = 0; row < count; row += Sums::ROWS) {
            const long width = std::min(Sums::COLUMNS, columns - column);
            Sums block(to + row * columns + column, columns, onto);
            block.dot(rows + row * stride, stride, std::min(Sums::ROWS, count - row), panel + column * whole + first * width, depth, width);
            block.spill();
        }
}

// --- frozen matrices ------------------------------------------------------------------------------------------

// W (d_out, d_in), whose rows are those of up to three matrices, one upon another.
struct Matrix {
    const Number* parts[3];  // as they lie, row by row; null where the panel is there
    long rows[3];            // d_out of each
    const Number* panel;     // of W^T (d_in, d_out); null: laid out in every product, as that of W always is
    long d_in, d_out, count;
};

// Columns [from, to) of the panel of W, from that of W^T, squares of whose words transposed are rows of W. It is made for every
// product with W: a copy kept for these would save a hundredth of their time and double the memory of the frozen weights.
inline void turn_panel(const Matrix& w, long from, long to, Number* panel) {
    constexpr long WORD = sizeof(uint32_t) / sizeof(Number);
    for (long start = 0; start < w.d_out; start += 2 * SQUARE)  // the panel of W^T is read as it lies, the other stays in a cache
        for (long column = from; column < to; column += SQUARE * WORD)
            for (long row = start; row < start + 2 * SQUARE; row += SQUARE) {
                const auto across = [&](long i) { return word_at(w.panel, column + i * WORD, row, w.d_in, w.d_out); };
                const auto place = [&](long i, long j) { return word_at(panel, row + i, column - from + j, w.d_out, to - from); };
                for (long i = 0; i < SQUARE; ++i) __builtin_prefetch(across(i + 2 * SQUARE));
                turn_square<Number>(across, std::min(SQUARE, (to - column) / WORD), place);
            }
}

// Columns [from, to) of the panel of W^T, or of W, as a panel of their own.
inline void lay_out(const Matrix& w, bool transposed, long from, long to, Number* panel) {
    if (w.panel) {
        turn_panel(w, from, to, panel);
        return;
    }
    for (long part = 0, start = 0; part < w.count; start += w.rows[part++]) {
        if (transposed) {
            panel_of(w.parts[part] + from, w.d_in, w.rows[part], to - from, panel, start, w.d_out);
            continue;
        }
        const long first = std::max(from, start), stop = std::min(to, start + w.rows[part]);
        if (first < stop)
            panel_of_transpose(w.parts[part] + (first - start) * w.d_in, w.d_in, stop - first, w.d_in, stop - first,
                               panel + (first - from) * w.d_in);
    }
}
