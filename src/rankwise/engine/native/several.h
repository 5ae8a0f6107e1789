// Rows of several classifiers in one pass: all products with the frozen matrices at once, each row with the low-rank terms,
// DoRA's gains and the biases of its own classifier. Every number is computed as `forward` of that classifier alone computes
// it, in the same order, so that what a row shares a batch with changes nothing.
#pragma once

#include "layer.h"

// The low-rank parts of what several classifiers add to a product.
struct Several {
    const Sites& sites;
    const Owners& owners;
    long stride = 0;
    Buffer<Number> low;  // x A^T; as many rows more as a block has, which may be read
    Several(const Sites& s, const Owners& o, long count) : sites(s), owners(o) {
        for (long i = 0; i < o.count; ++i)
            if (const Change* change = o.change(i, s.number)) stride = std::max(stride, change->down ? change->padded : 0);
        low = Buffer<Number>(stride ? (count + Sums::ROWS) * stride : 0);
    }
};

// x A^T of every row: blocks of rows of one classifier, as alike as may be, go to whichever thread is free.
inline void down_of_several(const Several& several, const Number* x) {
    struct Piece {
        long row, count;
        const Change* change;
    };
    std::vector<Piece> pieces;
    for (long i = 0; i < several.owners.count; ++i) {
        const Change* change = several.owners.change(i, several.sites.number);
        const long start = several.owners.starts[i], count = several.owners.starts[i + 1] - start, blocks = (count + Sums::ROWS - 1) / Sums::ROWS;
        for (long b = 0; change && change->down && b < blocks; ++b) {
            const long row = count * b / blocks;
            pieces.push_back(Piece{start + row, count * (b + 1) / blocks - row, change});
        }
    }
    if (pieces.empty()) return;
    const long depth = several.sites.d_in(), stride = several.stride;
    const auto memory_of = [&](Keeper& keeper) {
        return std::pair{keeper.take<Number>(Sums::ROWS * depth), keeper.take<float>(Sums::ROWS * stride)};
    };
    Parts parts((long)pieces.size());
    in_parallel_with(memory_of, [&](const auto& own) {
        const auto [memory, sums] = own;
        for (long next; (next = parts.next()) >= 0;) {
            const Piece& piece = pieces[next];
            const Rows rows = rows_of(x + piece.row * depth, depth, piece.count, depth, memory);
            down_block(rows, piece.count, depth, piece.change->down, piece.change->padded, sums, several.low + piece.row * stride, stride);
        }
    });
}

// sums (count, COLUMNS) += low (count, depth) panel, for some rows of a block; `extra` is a block's memory.
inline void add_rows(const Number* low, long stride, long count, const Number* panel, long depth, long width, float* sums, float* extra) {
    const size_t bytes = count * Sums::COLUMNS * sizeof(float);
    float* const place = Sums::WHOLE_ROWS ? extra : sums;  // where whole blocks are written, other rows' sums stay away from it
    if (Sums::WHOLE_ROWS) std::memcpy(extra, sums, bytes);
    Sums block(place, Sums::COLUMNS, true);
    block.dot(low, stride, count, panel, depth, width);
    block.spill();
    if (Sums::WHOLE_ROWS) std::memcpy(sums, extra, bytes);
}

inline void complete_of_several(const Product& p, const PartMemory& m, const Block& b, Sums& block, float* sums) {
    const auto& [sites, owners, stride, low] = *p.several;
    long part = 0, column = b.column;  // the latter counted from the part's first
    while (column >= sites.parts[part].d_out) column -= sites.parts[part++].d_out;
    const float* bias = p.bias ? p.bias + b.column : nullptr;
    const long stop = b.row + b.count;
    block.spill();
    for (long row = b.row, next; row < stop; row = next) {
        const long i = owners.at(row);
        next = owners.stop(i, stop);
        const Block mine{row, next - row, b.column, b.width};
        float* const rows = sums + (row - b.row) * Sums::COLUMNS;
        const Change* change = owners.change(i, sites.number);
        if (!change) {
            write_block(p, mine, rows, nullptr, bias);
            continue;
        }
        const long depth = change->depth[part];
        if (change->up[part])
            add_rows(low + row * stride + change->offset(part), stride, mine.count, change->up[part] + column * depth, depth, b.width, rows, m.extra);
        const float *gain = change->gain[part], *own = change->bias[part];
        write_block(p, mine, rows, gain ? gain + column : nullptr, own ? own + column : bias);
    }
}

// x with each row times its classifier's `inlet`; in `memory`, where any has one.
inline const Number* let_in(const Sites& s, const Owners& owners, const Number* x, long count, Buffer<Number>& memory) {
    bool any = false;
    for (long i = 0; i < owners.count && !any; ++i)
        if (const Change* change = owners.change(i, s.number)) any = change->inlet;
    if (!any) return x;
    const long width = s.d_in();
    memory = Buffer<Number>(count * width);
    for_every_row(count, 0, [&](long row, float*) {
        const Change* change = owners.change(owners.at(row), s.number);
        const float* inlet = change ? change->inlet : nullptr;
        for (long place = row * width, j = 0; j < width; j += LANES)
            store(memory + place + j, inlet ? load(x + place + j) * load(inlet + j) : load(x + place + j));
    });
    return memory;
}

inline void forward_of_several(const Sites& s, const Owners& owners, const Number* x, long count, Number* y, Number* activated) {
    Buffer<Number> memory;
    x = let_in(s, owners, x, count, memory);
    const Several several(s, owners, count);
    down_of_several(several, x);
    multiply(Product{x, s.d_in(), count, s.matrix, false, s.bias, nullptr, 0, nullptr, y, activated, nullptr, &several});
}

// Where the panels of a change, and DoRA's gains, lie in a memory; without one, they are only counted. Returns: bytes of it.
inline size_t place_change(const Sites& s, Change& to, char* memory) {
    Keeper keeper{memory};
    long columns = 0;
    for (long part = 0; part < s.count; ++part) {
        const Site& site = s.parts[part];
        if (!site.rank) continue;
        columns += to.depth[part] = up(site.rank, Sums::DEPTH);
        to.up[part] = keeper.take<Number>(to.depth[part] * site.d_out);
        if (site.magnitude) to.gain[part] = keeper.take<float>(site.d_out);
    }
    to.padded = up(columns, Sums::NARROW);
    to.down = keeper.take<Number>(to.padded * s.d_in());
    return keeper.used;
}

// The adapters of sites, laid out in the memory; and DoRA's gains.
inline void lay_out_change(const Sites& s, Change& to, char* memory) {
    place_change(s, to, memory);
    const long d_in = s.d_in();
    const Buffer<Number> all(to.padded * d_in);  // their A, one upon another
    std::memset(all, 0, to.padded * d_in * sizeof(Number));
    for (long part = 0, from = 0; part < s.count; from += s.parts[part++].d_out) {
        const Site& site = s.parts[part];
        if (!site.rank) continue;
        const Factors factors(site, d_in);
        std::memcpy(all + to.offset(part) * d_in, factors.A, site.rank * d_in * sizeof(Number));
        std::memcpy(to.up[part], factors.from_low(), factors.depth * site.d_out * sizeof(Number));
        if (site.magnitude) gains(s, site, factors, from, to.gain[part]);
    }
    panel_of_transpose(all, d_in, to.padded, d_in, to.padded, to.down);
}
