// Attention of packed texts, forward and backward: one text's head at a time, whose scores never leave a core's caches.
#pragma once

#include <vector>

#include "dropout.h"
#include "relative.h"

// The texts of a group, and where their queries, keys and values lie.
struct Heads {
    const Number *query, *key, *value;
    long query_stride, key_stride, value_stride;  // from token to token
    const int64_t* lengths;
    long texts, heads, width, longest;
    int firsts_only;       // one query a text
    const float* bias;     // null, or by text, head, query and key:
    long bias_text, bias_head, bias_query;
    float scale;
    long window;           // 0, or keys are seen of queries that are less than so many tokens away
    Mask mask;             // rows: (text, head, query up to longest)
    Relative relative;     // of the first head; the next lie behind. No rows: none
    Relative of_head(long head) const {
        Relative r = relative;
        if (r.by_key) r.by_key += head * width;
        if (r.by_query) r.by_query += head * width;
        const long before = head * (r.rows + Relative::SLACK) * width;
        if (r.grad_by_key) r.grad_by_key += before;
        if (r.grad_by_query) r.grad_by_query += before;
        return r;
    }
};

constexpr long QUERIES = (32 + Sums::ROWS - 1) / Sums::ROWS * Sums::ROWS;  // whose scores are made at a time

// One text's head: its place in the group's memory.
struct Place {
    long length, keys, queries, depth, token, query_row, row;  // keys, depth: those of length and queries padded; row: of masks
    const float* bias;
    Place(const Heads& h, const std::vector<long>& starts, long pair) {
        const long text = pair / h.heads, head = pair % h.heads;
        length = h.lengths[text];
        keys = up(length, std::max(Sums::COLUMNS, 2L * LANES));
        queries = h.firsts_only ? 1 : length;
        depth = up(queries, Sums::DEPTH);
        token = starts[text];
        query_row = h.firsts_only ? text : token;
        row = pair * (h.firsts_only ? 1 : h.longest);
        bias = h.bias ? h.bias + text * h.bias_text + head * h.bias_head : nullptr;
    }
};

// A thread's memory for one head, of the longest text.
struct HeadMemory {
    Number *queries, *keys, *values, *above, *dropped, *slopes, *turned, *panel;
    float *scores, *through, *sums;
    RelativeMemory relative;
    HeadMemory(const Heads& h, bool backward, Keeper& keeper) : relative(h.relative, h.longest, backward, keeper) {
        const long longest = h.longest, w = h.width, keys_ = up(longest, std::max(Sums::COLUMNS, 2L * LANES));
        const long rows = rows_read(up(up(h.firsts_only ? 1 : longest, Sums::DEPTH), QUERIES)), most = std::max(rows, keys_);
        queries = keeper.take<Number>(rows * w);
        keys = keeper.take<Number>(keys_ * w);
        values = keeper.take<Number>(keys_ * w);
        scores = keeper.take<float>(QUERIES * keys_);
        dropped = keeper.take<Number>((backward ? rows : QUERIES) * keys_);
        sums = keeper.take<float>(most * w);
        above = keeper.take<Number>(backward ? rows * w : 0);
        through = keeper.take<float>(backward ? QUERIES * keys_ : 0);
        slopes = keeper.take<Number>(backward ? rows * keys_ : 0);
        turned = keeper.take<Number>(backward ? rows * keys_ : 0);
        panel = keeper.take<Number>(backward ? most * w : 0);
    }
};

// The keys [from, to), in whole blocks, that some of `count` queries from `start` on see; or the queries that see such keys.
struct Seen {
    long from, to;
    Seen(const Heads& h, const Place& p, long start, long count) : from(0), to(p.keys) {
        if (!h.window || p.length <= h.window) return;
        constexpr long STEP = std::max(Sums::COLUMNS, 2L * LANES);
        from = std::max(start - h.window + 1, 0L) / STEP * STEP;
        to = std::min(p.keys, up(start + count - 1 + h.window, STEP));
    }
    long width() const { return to - from; }
};

// sums (count, columns) = what each of `count` rows (count, depth) sees, times a panel (depth, columns).
inline void product_of_seen(const Heads& h, const Place& p, const Number* rows, long stride, long count, const Number* panel, long depth,
                            float* sums) {
    const long most = h.window ? QUERIES : count;
    for (long start = 0; start < count; start += most) {
        const long here = std::min(most, count - start);
        const Seen seen(h, p, start, here);
        product(rows + start * stride + seen.from, stride, here, panel, std::min(seen.to, depth) - seen.from, h.width, sums + start * h.width,
                false, depth, seen.from);
    }
}

// scale * scores + bias of one row, from a key on, whose scores are at `scores`; the keys behind the text's end are -inf, and those out of the window.
inline Vector biased(const Heads& h, const Place& p, const float* scores, long query, long key) {
    Vector s = load(scores) * h.scale;
    if (p.bias) s = s + load_first(p.bias + query * h.bias_query + key, p.length - key);
    if (!h.window || p.length <= h.window) return first(p.length - key, s, broadcast(-INFINITY));
    const Integers apart = lanes() + (int32_t)(key - query);
    return (apart < (int32_t)h.window) & (apart > -(int32_t)h.window) & (lanes() < (int32_t)(p.length - key)) ? s : broadcast(-INFINITY);
}

// Rows of fp32 sums where they belong.
inline void write_rows(const float* sums, long count, long width, Number* to, long stride) {
    for (long i = 0; i < count; ++i)
        for (long j = 0; j < width; j += 2 * LANES) stream(to + i * stride + j, load(sums + i * width + j), load(sums + i * width + j + LANES));
}

// context of a text's head; statistics (text, head, query up to longest) are kept for the backward pass, or null.
inline void attend(const Heads& h, const Place& p, const HeadMemory& m, long head, Number* context, long context_stride, float* statistics) {
    const long w = h.width, offset = head * w;
    const Rows queries = rows_of(h.query + p.query_row * h.query_stride + offset, h.query_stride, p.queries, w, m.queries);
    panel_of_transpose(h.key + p.token * h.key_stride + offset, h.key_stride, p.length, w, p.keys, m.keys);
    const Relative relative = h.of_head(head);
    if (relative.rows) relative_products(relative, queries.at, queries.stride, h.key + p.token * h.key_stride + offset, h.key_stride, p.length, m.relative);
    const long depth = up(p.length, Sums::DEPTH);
    panel_of(h.value + p.token * h.value_stride + offset, h.value_stride, p.length, w, m.values);
    for (long start = 0; start < p.queries; start += QUERIES) {
        const long here = std::min(QUERIES, p.queries - start);
        const Seen seen(h, p, start, here);
        const long width = seen.width();
        product(queries.at + start * queries.stride, queries.stride, here, m.keys + seen.from * w, w, width, m.scores);
        if (relative.rows) add_relative(relative, p.length, start, here, width, m.relative, m.scores);
        for (long i = 0; i < here; ++i) {
            float* row = m.scores + i * width;
            Vector most = broadcast(-INFINITY), total{};
            for (long j = 0; j < width; j += LANES) {
                const Vector s = biased(h, p, row + j, start + i, seen.from + j);
                store(row + j, s);
                most = larger(most, s);
            }
            const float top = largest(most);
            for (long j = 0; j < width; j += LANES) {
                const Vector kept = first(p.length - seen.from - j, exponential_in<Number>(load(row + j) - top), Vector{});
                store(row + j, kept);
                total = total + kept;
            }
            const float all = sum(total), share = 1.0f / all;
            if (statistics) statistics[p.row + start + i] = top + std::log(all);
            const MaskRow mask(h.mask, p.row + start + i);
            for (long j = 0; j < width; j += LANES) store(m.dropped + i * width + j, mask(load(row + j) * share, seen.from + j));
        }
        if (rows_read(here) > here) std::memset(m.dropped + here * width, 0, (rows_read(here) - here) * width * sizeof(Number));
        product(m.dropped, width, here, m.values, std::min(seen.to, depth) - seen.from, w, m.sums, false, depth, seen.from);
        write_rows(m.sums, here, w, context + (p.query_row + start) * context_stride + offset, context_stride);
    }
}

// What `count` rows of scores become: in `dropped` the probabilities, dropped out, and in `slopes` the scores' gradients. The
// probabilities are computed again from each row's logarithm of summed exponentials.
inline void slopes_of(const Heads& h, const Place& p, const HeadMemory& m, long start, long count, const Seen& seen, const float* statistics) {
    const long width = seen.width();
    for (long i = 0; i < count; ++i) {
        float *row = m.scores + i * width, *slope = m.through + i * width;
        Number *dropped = m.dropped + (start + i) * p.keys, *slopes = m.slopes + (start + i) * p.keys;
        for (Number* all : {dropped, slopes}) {
            std::memset(all, 0, seen.from * sizeof(Number));
            std::memset(all + seen.to, 0, (p.keys - seen.to) * sizeof(Number));
        }
        const float norm = statistics[p.row + start + i];
        const MaskRow mask(h.mask, p.row + start + i);
        Vector total{};
        for (long j = 0; j < width; j += LANES) {
            const long key = seen.from + j;
            const Vector chance = first(p.length - key, exponential_in<Number>(biased(h, p, row + j, start + i, key) - norm), Vector{});
            store(dropped + key, mask(chance, key));
            const Vector s = mask(load(slope + j), key);
            store(row + j, chance);
            store(slope + j, s);
            total = fma(chance, s, total);
        }
        const float mean = sum(total);
        for (long j = 0; j < width; j += LANES) store(slopes + seen.from + j, load(row + j) * (load(slope + j) - mean) * h.scale);
    }
}

// Gradients of query, key and value of a text's head, which lie as these do.
inline void attend_backward(const Heads& h, const Place& p, const HeadMemory& m, long head, const Number* grad, long grad_stride,
                            const float* statistics, Number* grad_query, Number* grad_key, Number* grad_value) {
    const long w = h.width, offset = head * w;
    const Number* key_rows = h.key + p.token * h.key_stride + offset;
    const Rows queries = rows_of(h.query + p.query_row * h.query_stride + offset, h.query_stride, p.queries, w, m.queries);
    const Rows above = rows_of(grad + p.query_row * grad_stride + offset, grad_stride, p.queries, w, m.above);
    panel_of_transpose(key_rows, h.key_stride, p.length, w, p.keys, m.keys);
    panel_of_transpose(h.value + p.token * h.value_stride + offset, h.value_stride, p.length, w, p.keys, m.values);
    const Relative relative = h.of_head(head);
    if (relative.rows) relative_products(relative, queries.at, queries.stride, key_rows, h.key_stride, p.length, m.relative);
    for (long start = 0; start < p.queries; start += QUERIES) {
        const long here = std::min(QUERIES, p.queries - start);
        const Seen seen(h, p, start, here);
        product(queries.at + start * queries.stride, queries.stride, here, m.keys + seen.from * w, w, seen.width(), m.scores);
        if (relative.rows) add_relative(relative, p.length, start, here, seen.width(), m.relative, m.scores);
        product(above.at + start * above.stride, above.stride, here, m.values + seen.from * w, w, seen.width(), m.through);
        slopes_of(h, p, m, start, here, seen, statistics);
    }
    const long padded = std::max(p.depth, rows_read(p.queries));
    std::memset(m.dropped + p.queries * p.keys, 0, (padded - p.queries) * p.keys * sizeof(Number));
    std::memset(m.slopes + p.queries * p.keys, 0, (padded - p.queries) * p.keys * sizeof(Number));

    const long depth = up(p.length, Sums::DEPTH);
    panel_of(key_rows, h.key_stride, p.length, w, m.panel);
    product_of_seen(h, p, m.slopes, p.keys, p.queries, m.panel, depth, m.sums);
    if (relative.rows) {
        relative_slopes(relative, p.length, p.keys, m.slopes, m.relative);
        if (relative.by_query) onto_rows(relative, p.length, m.relative.key_slopes, m.panel, m.relative, relative.grad_by_query);
        if (relative.by_key) onto_tokens(relative, p.length, m.relative.query_slopes, relative.by_key, relative.key_stride, m.relative, m.sums);
    }
    write_rows(m.sums, p.queries, w, grad_query + p.query_row * h.query_stride + offset, h.query_stride);

    panel_of(queries.at, queries.stride, p.queries, w, m.panel);
    transpose_rows(m.slopes, p.depth, p.keys, m.turned);
    product_of_seen(h, p, m.turned, p.depth, p.length, m.panel, p.depth, m.sums);
    if (relative.by_key) onto_rows(relative, p.length, m.relative.query_slopes, m.panel, m.relative, relative.grad_by_key);
    if (relative.by_query) onto_tokens(relative, p.length, m.relative.key_slopes, relative.by_query, relative.query_stride, m.relative, m.sums);
    write_rows(m.sums, p.length, w, grad_key + p.token * h.key_stride + offset, h.key_stride);

    panel_of(above.at, above.stride, p.queries, w, m.panel);
    transpose_rows(m.dropped, p.depth, p.keys, m.turned);
    product_of_seen(h, p, m.turned, p.depth, p.length, m.panel, p.depth, m.sums);
    write_rows(m.sums, p.length, w, grad_value + p.token * h.value_stride + offset, h.value_stride);
}

// `body(place, memory, head)` for every text and head of a group, shared out among the threads: a head's texts are one thread's,
// one after the other, where their gradients are summed.
template <class Body>
void for_every_head(const Heads& h, bool backward, const Body& body) {
    std::vector<long> starts(h.texts);
    for (long text = 1; text < h.texts; ++text) starts[text] = starts[text - 1] + h.lengths[text - 1];
    const long together = backward && h.relative.rows ? h.texts : 1;
    Parts parts(h.texts * h.heads / together);
    in_parallel_with([&](Keeper& keeper) { return HeadMemory(h, backward, keeper); }, [&](const HeadMemory& memory) {
        for (long part; (part = parts.next()) >= 0;)
            for (long text = 0; text < together; ++text) body(Place(h, starts, part + text * h.heads), memory, part % h.heads);
        fence();
    });
}
