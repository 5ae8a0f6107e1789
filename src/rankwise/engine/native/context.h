// What attention makes of the query, key and value of a layer's sources, wherever these lie, group by group of the batch.
#pragma once

#include "attention.h"
#include "pass.h"

// Where the query, key or value `number` of a group lies in tensors laid out as the sources' results.
struct Part {
    Number* place;
    long stride;
    // row: of tokens; text: of queries that are first tokens'
    Part(const Layer& layer, Number* const (&y)[3], long number, long row, long text) {
        // Sources hold 3, 1 and 2, or 1 each of query, key and value.
        const long source = layer.source_count == 1 ? 0 : std::min(number, layer.source_count - 1);
        const long before = layer.source_count == 1 ? number : number - source;
        const bool firsts = layer.firsts_ask() && source == 0;
        stride = layer.sources[source].d_out();
        place = y[source] + (firsts ? text : row) * stride + before * layer.hidden;
    }
};

inline Heads heads_of(const Call& call, const Group& group, Number* const (&y)[3], const Mask& mask, float* const (&grads)[2]) {
    const Layer& layer = call.layer;
    const Part query(layer, y, 0, group.start, group.first_text), key(layer, y, 1, group.start, 0), value(layer, y, 2, group.start, 0);
    const Distances& d = layer.distances;
    Relative relative{};
    if (d.count) {
        const Part by_key(layer, y, 1, call.shape.tokens, 0), by_query(layer, y, 0, call.shape.tokens, 0);
        relative = Relative{d.by_key ? by_key.place : nullptr, d.by_query ? by_query.place : nullptr, by_key.stride, by_query.stride,
                            layer.width, d.longest, d.count, d.places, grads[0], grads[1]};
    }
    const float parts = 1 + (d.count && d.by_key) + (d.count && d.by_query);
    return Heads{query.place, key.place,   value.place,   query.stride,    key.stride,
                 value.stride, group.lengths, group.texts, layer.heads,     layer.width,
                 group.longest, layer.firsts_ask(), group.bias, group.bias_text, group.bias_head,
                 group.bias_query, 1.0f / std::sqrt(parts * layer.width), layer.window, mask, relative};
}

// The rows' gradients of both projections, summed by head, where they belong; zero in all other columns.
inline void write_relative(const Layer& layer, const Shape& shape, float* const (&grads)[2], Number* const (&y)[3]) {
    const long count = layer.distances.count, each = (count + Relative::SLACK) * layer.width;
    for (long i = 0; i < layer.source_count; ++i) {
        const long columns = layer.sources[i].d_out();
        std::memset(y[i] + shape.tokens * columns, 0, count * columns * sizeof(Number));
    }
    for (const long number : {1, 0}) {
        const Part part(layer, y, number, shape.tokens, 0);
        for_every_row(count, 0, [&](long row, float*) {
            for (long j = 0; j < layer.hidden; j += LANES)
                store(part.place + row * part.stride + j, load(grads[1 - number] + j / layer.width * each + row * layer.width + j % layer.width));
        });
    }
}

// The idle tokens of a result that attention writes, which belong to no group.
inline void clear_idle(const Shape& shape, long columns, Number* y) {
    std::memset(y + shape.stop * columns, 0, (shape.tokens - shape.stop) * columns * sizeof(Number));
}

// The context of the sources' results, of the layer's rows.
inline void context_of(const Call& call, Number* const (&y)[3], Number* context) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden;
    const bool all_ask = !layer.firsts_ask();
    const Result<Number> asked(layer.firsts_only && all_ask ? nullptr : context, shape.tokens * hidden);
    if (all_ask) clear_idle(shape, hidden, asked);
    for (long g = 0; g < batch.group_count; ++g) {
        const Group& group = batch.groups[g];
        const Heads heads = heads_of(call, group, y, masks.probabilities[g], {});
        Number* const to = asked + (all_ask ? group.start : group.first_text) * hidden;
        float* const statistics = kept.statistics[g];
        for_every_head(heads, false, [&](const Place& place, const HeadMemory& memory, long head) {
            attend(heads, place, memory, head, to, hidden, statistics);
        });
    }
    if (layer.firsts_only && all_ask) take_firsts(batch, static_cast<const Number*>(asked), hidden, context);
}

// Gradients of the sources' results from that of the context.
inline void context_backward(const Call& call, const Number* context, Number* const (&y)[3]) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden, size = layer.distances.count ? layer.heads * (layer.distances.count + Relative::SLACK) * layer.width : 0;
    const Buffer<float> sums(2 * size);
    if (size) std::memset(sums, 0, 2 * size * sizeof(float));
    float* const grads[2] = {sums, sums + size};
    const bool all_ask = !layer.firsts_ask();
    const Buffer<Number> asked(layer.firsts_only && all_ask ? shape.tokens * hidden : 0);
    if (layer.firsts_only && all_ask) give_firsts(batch, context, hidden, static_cast<Number*>(asked)), context = asked;
    for (long i = all_ask ? 0 : 1; i < layer.source_count; ++i) clear_idle(shape, layer.sources[i].d_out(), y[i]);
    for (long g = 0; g < batch.group_count; ++g) {
        const Group& group = batch.groups[g];
        const Heads heads = heads_of(call, group, kept.y, masks.probabilities[g], grads);
        const Number* const above = context + (all_ask ? group.start : group.first_text) * hidden;
        const float* const statistics = kept.statistics[g];
        Number* to[3];  // query, key and value
        for (long i = 0; i < 3; ++i) to[i] = Part(layer, y, i, group.start, group.first_text).place;
        for_every_head(heads, true, [&](const Place& place, const HeadMemory& memory, long head) {
            attend_backward(heads, place, memory, head, above, hidden, statistics, to[0], to[1], to[2]);
        });
    }
    if (size) write_relative(layer, shape, grads, y);
}
