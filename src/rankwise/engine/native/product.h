// The products of linear layers: with a frozen matrix and low-rank terms (`multiply`), down to a low rank (`down`), and the
// gradients of low-rank factors (`outer`). Matrices are row by row; sums are fp32.
#pragma once

#include "dropout.h"
#include "panels.h"

// A low-rank term of a product: (rows, depth) times a panel of the columns [from, to), dropped out or not.
struct Term {
    const Number* low;
    long stride;  // of low, from row to row
    const Number* panel;
    long depth, from, to;
    Mask mask;
};

// What becomes of a product's sums as they are written; each may be null. Shape of all but gain (columns): the result's
struct Finish {
    const Number* times;   // multiplied with
    const Number* scaled;  // added, by columns times gain
    const float* gain;
    const Number* total;   // added to the sums, which mask drops out
    Mask mask;
};

struct Several;  // several.h

// sums = x (count, depth) W + bias (columns) + terms, of a frozen W (depth, columns) = matrix^T, or matrix if `transposed`.
// y (count, columns) is the sums finished; or, if y is null, activated = gelu(sums) and slope = gelu'(sums), which may be null.
// several: what rows get of their own in place of terms, or null
struct Product {
    const Number* x;
    long stride, count;
    const Matrix& matrix;
    bool transposed;
    const float* bias;
    const Term* terms;
    long term_count;
    const Finish* finish;
    Number *y, *activated, *slope;
    const Several* several = nullptr;
    long depth() const { return transposed ? matrix.d_out : matrix.d_in; }
    long columns() const { return transposed ? matrix.d_in : matrix.d_out; }
    const Number* panel() const { return transposed ? nullptr : matrix.panel; }
};

constexpr long TERMS = 3;  // of a product, at most

// A thread's memory for its part of a product. A part has as many columns of the panel as stay in the core's second cache, or a few
// blocks, against all rows; and of a block of rows a piece (`Sums::piece`), against all these columns, whose sums wait in
// `partial` for the next piece.
struct PartMemory {
    Number *panel, *tail, *tails[TERMS];
    float *partial, *extra;
    // size: of a frozen number, in bytes; most: columns of a part
    PartMemory(const Product& p, long size, long most, Keeper& keeper) {
        const long depth = p.depth();
        panel = keeper.take<Number>(p.panel() || size < (long)sizeof(Number) ? 0 : most * depth);
        partial = keeper.take<float>(up(most, Sums::COLUMNS) * Sums::ROWS);
        extra = keeper.take<float>(Sums::COLUMNS * Sums::ROWS);
        tail = keeper.take<Number>(Sums::WHOLE_ROWS ? Sums::ROWS * depth : 0);
        for (long t = 0; t < p.term_count; ++t) tails[t] = keeper.take<Number>(Sums::WHOLE_ROWS ? Sums::ROWS * p.terms[t].stride : 0);
    }
};

// A block of a product's result: `count` rows from `row` on, `width` columns from `column` on.
struct Block {
    long row, count, column, width;
};

// The sums of a block with the terms that reach its columns. Shape of sums and extra: (ROWS, COLUMNS)
inline void add_terms(const Product& p, const PartMemory& m, const Block& b, Sums& block, float* sums) {
    const auto add = [&](const Term& term, Number* tail, Sums& to) {
        const Rows low = rows_of(term.low + b.row * term.stride, term.stride, b.count, term.stride, tail);
        to.dot(low.at, low.stride, b.count, term.panel + (b.column - term.from) * term.depth, term.depth, b.width);
    };
    const auto reaches = [&](const Term& term) { return b.column >= term.from && b.column < term.to; };
    for (long t = 0; t < p.term_count; ++t)
        if (reaches(p.terms[t]) && !p.terms[t].mask.rows) add(p.terms[t], m.tails[t], block);
    block.spill();
    for (long t = 0; t < p.term_count; ++t) {
        const Term& term = p.terms[t];
        if (!reaches(term) || !term.mask.rows) continue;
        Sums extra(m.extra, Sums::COLUMNS, false);
        add(term, m.tails[t], extra);
        extra.spill();
        for (long i = 0; i < b.count; ++i) {
            const MaskRow mask(term.mask, b.row + i);
            for (long j = 0; j < b.width; j += LANES) {
                float* sum = sums + i * Sums::COLUMNS + j;
                store(sum, load(sum) + mask(load(m.extra + i * Sums::COLUMNS + j), b.column - term.from + j));
            }
        }
    }
}

// Sums finished. `place` is their first one's in the result, which is in column `column` of the mask's row.
inline Vector finished(Vector x, const Finish& finish, const MaskRow& mask, long place, long column) {
    if (finish.scaled) x = fma(load(finish.scaled + place), load(finish.gain + column), x);
    if (finish.total) x = load(finish.total + place) + mask(x, column);
    return finish.times ? x * load(finish.times + place) : x;
}

// x as it is once it has been written.
inline Vector rounded(Vector x) {
    if constexpr (std::is_same_v<Number, float>) return x;
    Number y[LANES];
    store(y, x);
    return load(y);
}

// A block's sums with the bias, finished; or gelu of them and its slope; where they belong.
// gain, bias: of the block's columns; each may be null. Sums that a gain is for are rounded before, and again behind it.
inline void write_block(const Product& p, const Block& b, const float* sums, const float* gain, const float* bias) {
    for (long i = 0; i < b.count; ++i)
        for (long j = 0; j < b.width; j += 2 * LANES) {
            const long column = b.column + j, place = (b.row + i) * p.columns() + column;
            Vector x[2], slope[2];
            for (int half = 0; half < 2; ++half) {
                x[half] = load(sums + i * Sums::COLUMNS + j + half * LANES);
                const long at = j + half * LANES;
                const Vector shift = bias ? load(bias + at) : Vector{};
                x[half] = gain ? rounded(fma(rounded(x[half]), load(gain + at), shift)) : x[half] + shift;
            }
            if (p.activated) {
                for (int half = 0; half < 2; ++half) x[half] = gelu_of<Number>(x[half], p.slope ? &slope[half] : nullptr);
                stream(p.activated + place, x[0], x[1]);
                if (p.slope) stream(p.slope + place, slope[0], slope[1]);
                continue;
            }
            if (p.finish) {
                const MaskRow mask(p.finish->mask, b.row + i);
                for (int half = 0; half < 2; ++half) x[half] = finished(x[half], *p.finish, mask, place + half * LANES, column + half * LANES);
            }
            stream(p.y + place, x[0], x[1]);
        }
}

inline void complete_of_several(const Product& p, const PartMemory& m, const Block& b, Sums& block, float* sums);  // several.h

// A block whose product with the frozen matrix is made.
inline void complete(const Product& p, const PartMemory& m, const Block& b, Sums& block, float* sums) {
    if (p.several) return complete_of_several(p, m, b, block, sums);
    add_terms(p, m, b, block, sums);
    write_block(p, b, sums, nullptr, p.bias ? p.bias + b.column : nullptr);
}

// The columns [from, to) of a product.
inline void multiply_part(const Product& p, const PartMemory& m, long from, long to) {
    const long depth = p.depth(), pieces = depth > 2 * Sums::piece() ? (depth + Sums::piece() - 1) / Sums::piece() : 1;
    const long piece = up((depth + pieces - 1) / pieces, Sums::DEPTH);
    if (!p.panel()) lay_out(p.matrix, p.transposed, from, to, m.panel);
    const Number* panel = p.panel() ? p.panel() + from * depth : m.panel;
    for (long row = 0; row < p.count; row += Sums::ROWS) {
        const long here = std::min(Sums::ROWS, p.count - row);
        const Rows rows = rows_of(p.x + row * p.stride, p.stride, here, depth, m.tail);
        for (long start = 0; start < depth; start += piece)
            for (long column = from; column < to; column += Sums::COLUMNS) {
                const Block b{row, here, column, std::min(Sums::COLUMNS, to - column)};
                float* waiting = m.partial + (column - from) * Sums::ROWS;
                Sums block(waiting, Sums::COLUMNS, start);
                block.dot(rows.at + start, rows.stride, here, panel + (column - from) * depth + start * b.width,
                          std::min(piece, depth - start), b.width);
                if (start + piece < depth) {
                    block.spill();
                    continue;
                }
                complete(p, m, b, block, waiting);
            }
    }
}

// `body(memory, from, to)` for parts of the columns, which go to whichever thread is free, so that one that the system holds up
// does not hold up the others. Each part reads its weights once; no sum depends on who makes it.
template <class Body>
void over_columns(const Product& p, long size, const Body& body) {
    // In fp32 at least some blocks: a deep panel comes from beyond the second cache as fast, since it is read as it lies, and the
    // rows, which every part reads anew, do not.
    constexpr long LEAST = std::is_same_v<Number, float> ? 5 : 1;
    const long most = std::min(std::max(Sums::cached() / (p.depth() * size) / Sums::COLUMNS, LEAST) * Sums::COLUMNS, p.columns());
    const long all = p.columns() / Sums::COLUMNS, share = most * allowed_threads;
    const long count = (p.columns() + share - 1) / share * allowed_threads;
    Parts parts(count);
    in_parallel_with([&](Keeper& keeper) { return PartMemory(p, size, most, keeper); }, [&](const PartMemory& memory) {
        for (long part; (part = parts.next()) >= 0;) {
            const long from = all * part / count * Sums::COLUMNS, to = all * (part + 1) / count * Sums::COLUMNS;
            if (from < to) body(memory, from, to);
        }
        fence();
    });
}

#ifdef EIGHT_BITS
inline void multiply_eight_bits(const Product& p);  // integers.h
#endif

inline void multiply(const Product& p) {
#ifdef EIGHT_BITS
    if (p.matrix.panel) return multiply_eight_bits(p);
#endif
    over_columns(p, sizeof(Number), [&](const PartMemory& memory, long from, long to) { multiply_part(p, memory, from, to); });
}

// --- low rank -------------------------------------------------------------------------------------------------

// low (count, columns), its rows `low_stride` apart = rows (count, depth) panel, of at most ROWS rows; by one thread.
inline void down_block(const Rows& rows, long count, long depth, const Number* panel, long columns, float* sums, Number* low, long low_stride) {
    product(rows.at, rows.stride, count, panel, depth, columns, sums);
    for (long i = 0; i < count; ++i)
        for (long j = 0; j < columns; j += LANES) store(low + i * low_stride + j, load(sums + i * columns + j));
}

// low (count, columns) = dropout(x) (count, depth) panel, for few columns.
inline void down(const Number* x, long stride, long count, long depth, const Mask& mask, const Number* panel, long columns, Number* low) {
    Parts parts((count + Sums::ROWS - 1) / Sums::ROWS);
    const auto memory_of = [&](Keeper& keeper) {
        return std::pair{keeper.take<Number>(Sums::ROWS * depth), keeper.take<float>(Sums::ROWS * columns)};
    };
    in_parallel_with(memory_of, [&](const auto& own) {
        const auto [memory, sums] = own;
        for (long part; (part = parts.next()) >= 0;) {
            const long row = part * Sums::ROWS, here = std::min(Sums::ROWS, count - row);
            Rows rows{x + row * stride, stride};
            if (mask.rows) {
                copy_rows(rows.at, stride, here, depth, rows_read(here), memory);
                for (long i = 0; i < here; ++i) {
                    const MaskRow masked(mask, row + i);
                    for (long j = 0; j < depth; j += LANES) store(memory + i * depth + j, masked(load(memory + i * depth + j), j));
                }
                rows = Rows{memory, depth};
            } else {
                rows = rows_of(rows.at, stride, here, depth, memory);
            }
            down_block(rows, here, depth, panel, columns, sums, low + row * columns, columns);
        }
    });
}

// `body(own, from, to)` for shares of the columns, as many as there may be threads, in whole vectors, with the thread's own
// memory: a column's sum over rows is one share's, so that it is made in one order whatever the number of threads.
template <class MemoryOf, class Body>
void over_shares(long columns, const MemoryOf& memory_of, const Body& body) {
    constexpr long STEP = 32;  // widths are multiples of it
    const long count = allowed_threads;
    Parts parts(count);
    in_parallel_with(memory_of, [&](const auto& own) {
        for (long part; (part = parts.next()) >= 0;) {
            const long from = columns / STEP * part / count * STEP, to = columns / STEP * (part + 1) / count * STEP;
            if (from < to) body(own, from, to);
        }
    });
}

// out (rank, columns), fp32 = low^T (rank, count) dropout(x) (count, columns); low's rows are `low_stride` numbers, and so
// many rows may be written.
inline void outer(const Number* low, long low_stride, long rank, const Number* x, long stride, long count, long columns, const Mask& mask,
                  float* out) {
    constexpr long CHUNK = 256;  // rows at a time: read as they lie, and their panel stays in the second cache
    const long padded = up(count, Sums::DEPTH);
    const Buffer<Number> lows(padded * low_stride), turned(padded * low_stride);
    copy_rows(low, low_stride, count, low_stride, padded, lows);
    transpose_rows(lows, padded, low_stride, turned);
    const auto memory_of = [&](Keeper& keeper) {
        return std::pair{keeper.take<Number>(CHUNK * columns), keeper.take<Number>(CHUNK * columns)};
    };
    over_shares(columns, memory_of, [&](const auto& own, long from, long to) {
        const auto [dropped, panel] = own;
        const long width = to - from;
        for (long start = 0; start < count; start += CHUNK) {
            const long here = std::min(CHUNK, count - start), depth = up(here, Sums::DEPTH);
            const Number* rows = x + start * stride + from;
            for (long row = 0; row < here && mask.rows; ++row) {
                const MaskRow masked(mask, start + row);
                for (long j = 0; j < width; j += LANES)
                    store(dropped + row * width + j, masked(load(rows + row * stride + j), from + j));
            }
            panel_of(mask.rows ? dropped : rows, mask.rows ? width : stride, here, width, panel);
            for (long column = 0; column < width; column += Sums::COLUMNS)
                for (long r = 0; r < rank; r += Sums::ROWS) {
                    Sums block(out + r * columns + from + column, columns, start);
                    block.dot(turned + r * padded + start, padded, std::min(Sums::ROWS, rank - r), panel + column * depth, depth,
                              std::min(Sums::COLUMNS, width - column));
                    block.spill();
                }
        }
    });
}
