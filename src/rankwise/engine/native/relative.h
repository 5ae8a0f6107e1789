// What relative positions add to attention (DeBERTa's, disentangled.py): scores(i, j) += q_i p(i - j) + k_j r(i - j), where p and
// r are the key's and the query's projections of a table's row for a distance.
#pragma once

#include "panels.h"

// The projected rows of distances of one head, and where their gradients are summed; null where a part is not of the scores.
struct Relative {
    const Number *by_key, *by_query;  // (rows, width), `stride` numbers from row to row
    long key_stride, query_stride, width, longest, rows;
    const int32_t* places;            // the row of each distance, rising, from -(longest - 1) to longest - 1
    float *grad_by_key, *grad_by_query;  // (rows and SLACK, width)
    static constexpr long SLACK = 32;    // rows behind the last that a whole block may touch
    static long padded(long rows) { return up(rows, std::max(Sums::COLUMNS, 2L * LANES)); }
    // The rows that a text's distances have: from `first` on; and how many.
    long first(long length) const { return places[longest - length]; }
    long count(long length) const { return places[longest + length - 2] - first(length) + 1; }
};

// A thread's memory for them, of a text with as many tokens as `tokens` and rows of the table.
struct RelativeMemory {
    float *keys = nullptr, *queries = nullptr;  // products of keys and queries with the rows; then sums of gradients
    Number *key_slopes = nullptr, *query_slopes = nullptr, *turned = nullptr, *panel = nullptr, *tail = nullptr;
    RelativeMemory(const Relative& r, long tokens, bool backward, Keeper& keeper) {
        if (!r.rows) return;
        const long rows = up(rows_read(up(tokens, Sums::DEPTH)), 32), padded = Relative::padded(r.rows);
        keys = keeper.take<float>(rows * padded);
        queries = keeper.take<float>(rows * padded);
        panel = keeper.take<Number>(padded * r.width);
        tail = keeper.take<Number>(rows * r.width);
        key_slopes = keeper.take<Number>(backward ? rows * padded : 0);
        query_slopes = keeper.take<Number>(backward ? rows * padded : 0);
        turned = keeper.take<Number>(backward ? rows * padded : 0);
    }
};

// to (length, padded) = a text's queries or keys times the rows that its distances have.
inline void against(const Relative& r, const Number* rows, long stride, long length, const Number* table, long table_stride,
                    const RelativeMemory& m, float* to) {
    const long count = r.count(length), padded = Relative::padded(count);
    panel_of_transpose(table + r.first(length) * table_stride, table_stride, count, r.width, padded, m.panel);
    const Rows whole = rows_of(rows, stride, length, r.width, m.tail);
    product(whole.at, whole.stride, length, m.panel, r.width, padded, to);
}

inline void relative_products(const Relative& r, const Number* queries, long query_stride, const Number* keys, long key_stride,
                              long length, const RelativeMemory& m) {
    if (r.by_key) against(r, queries, query_stride, length, r.by_key, r.key_stride, m, m.queries);
    if (r.by_query) against(r, keys, key_stride, length, r.by_query, r.query_stride, m, m.keys);
}

// `body(i, j, row)` for the queries [start, start + count) and every key, and the row of their distance among the text's.
template <class Body>
void for_every_distance(const Relative& r, long length, long start, long count, const Body& body) {
    const long first = r.first(length);
    for (long i = start; i < start + count; ++i) {
        const int32_t* place = r.places + r.longest - 1 + i;
        for (long j = 0; j < length; ++j) body(i, j, place[-j] - first);
    }
}

// scores (count, keys) of the queries from `start` on += what `relative_products` made.
inline void add_relative(const Relative& r, long length, long start, long count, long keys, const RelativeMemory& m, float* scores) {
    const long padded = Relative::padded(r.count(length));
    if (r.by_key)
        for_every_distance(r, length, start, count, [&](long i, long j, long row) { scores[(i - start) * keys + j] += m.queries[i * padded + row]; });
    if (r.by_query)
        for_every_distance(r, length, start, count, [&](long i, long j, long row) { scores[(i - start) * keys + j] += m.keys[j * padded + row]; });
}

// From the scores' gradients, slopes (length, keys), those of the products that `add_relative` added, in both precisions.
inline void relative_slopes(const Relative& r, long length, long keys, const Number* slopes, const RelativeMemory& m) {
    const long padded = Relative::padded(r.count(length)), rows = up(rows_read(up(length, Sums::DEPTH)), 32);
    const auto summed = [&](float* sums, Number* to, const auto& place) {
        std::memset(sums, 0, rows * padded * sizeof(float));
        for_every_distance(r, length, 0, length, [&](long i, long j, long row) { sums[place(i, j) * padded + row] += wide(slopes[i * keys + j]); });
        for (long k = 0; k < rows * padded; k += LANES) store(to + k, load(sums + k));
    };
    if (r.by_key) summed(m.queries, m.query_slopes, [](long i, long) { return i; });
    if (r.by_query) summed(m.keys, m.key_slopes, [](long, long j) { return j; });
}

// sums (length, width) += slopes (length, padded) times the rows.
inline void onto_tokens(const Relative& r, long length, const Number* slopes, const Number* table, long stride, const RelativeMemory& m,
                        float* sums) {
    const long count = r.count(length);
    panel_of(table + r.first(length) * stride, stride, count, r.width, m.panel);
    product(slopes, Relative::padded(count), length, m.panel, up(count, Sums::DEPTH), r.width, sums, true);
}

// The rows' gradients += slopes^T times the tokens, of which `panel` is (length up to a multiple of DEPTH, width).
inline void onto_rows(const Relative& r, long length, const Number* slopes, const Number* panel, const RelativeMemory& m, float* grad) {
    const long count = r.count(length), depth = up(length, Sums::DEPTH);
    transpose_rows(slopes, depth, Relative::padded(count), m.turned);
    product(m.turned, depth, count, panel, depth, r.width, grad + r.first(length) * r.width, true);
}
