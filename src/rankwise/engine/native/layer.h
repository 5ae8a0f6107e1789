// One post-norm encoder layer, forward and backward, as one call: layer.py, put together of linear layers, attention and norms.
//
// In Python each of its thirty steps costs a tenth of a millisecond, as its objects and torch's dispatch are cold whenever
// a product has gone through the caches: a third of a small model's step, which the call saves.
//
// tokens are the batch's, idle ones among them; rows are those of a layer's result: tokens, or texts where only their
// first tokens are asked for. Everything is row by row.
#pragma once

#include <vector>

#include "attention.h"
#include "linear.h"

struct Norm {
    const float *weight, *bias;
    float epsilon;
    Dropout dropout;  // of what is added
    float* grad_bias;
    Affine affine() const { return Affine{weight, bias, epsilon}; }
};

struct Layer {
    long hidden, heads, width, source_count;
    long window;          // see `Heads`
    int firsts_only;      // the result is that of the texts' first tokens
    int all_ask;          // which are taken behind attention, where all tokens ask; else they alone do
    int pre_norm;         // prenorm.h's
    const float* angles;  // cosines and sines of rotary positions (tokens, width); null without
    Dropout probabilities;
    Sites sources[3];  // query, key and value, in as many products
    Sites attention_output, ffn_in, ffn_out;
    Norm attention_norm, ffn_norm;
    bool firsts_ask() const { return firsts_only && !all_ask; }
};

// Texts of similar length (packing.py), and the biases of their scores (null, or by text, head, query and key).
struct Group {
    const int64_t* lengths;
    long texts, longest, start, first_text;
    const float* bias;
    long bias_text, bias_head, bias_query;
};

struct Batch {
    long tokens, texts, group_count;
    const Group* groups;
    const int64_t* firsts;   // rows of the texts' first tokens
    const int32_t* columns;  // numbers of the dropout masks' columns; null where nothing is dropped
};

// Whether products are fp32 as the residual stream is, so that this needs no copy for them.
constexpr bool WIDE = std::is_same_v<Number, float>;

// The masks of a pass in the order of layer.py, each as many of the random numbers as it has rows.
struct Draw {
    const int32_t *numbers, *columns;  // no numbers: what is taken is only counted
    long used = 0;
    Mask take(const Dropout& dropout, long rows) {
        if (!columns || dropout.scale == 0.0f) return Mask{};
        const int32_t* mine = numbers ? numbers + used : nullptr;
        used += rows;
        return Mask{mine, columns, dropout.limit, dropout.scale};
    }
    void take(const Sites& sites, long rows, Mask (&masks)[3]) {
        for (long i = 0; i < sites.count; ++i)
            if (sites.parts[i].rank) masks[i] = take(sites.parts[i].dropout, rows);
    }
};

struct Shape {
    long tokens, rows, stop;  // stop: the first idle token
    Shape(const Layer& layer, const Batch& batch) : tokens(batch.tokens), rows(layer.firsts_only ? batch.texts : batch.tokens) {
        const Group& last = batch.groups[batch.group_count - 1];
        stop = last.start;
        for (long text = 0; text < last.texts; ++text) stop += last.lengths[text];
    }
    // Of the result of the source `number`: queries alone may be fewer.
    long of_source(const Layer& layer, long number) const { return number == 0 && layer.firsts_ask() ? rows : tokens; }
};

struct Masks {
    Mask sources[3][3] = {}, attention_output[3] = {}, ffn_in[3] = {}, ffn_out[3] = {};
    Mask attention_norm{}, gate{}, ffn_norm{};
    std::vector<Mask> probabilities;
    long used;
    Masks(const Layer& layer, const Batch& batch, const Shape& shape, const int32_t* numbers) {
        Draw draw{numbers, batch.columns};
        for (long i = 0; i < layer.source_count; ++i) draw.take(layer.sources[i], shape.of_source(layer, i), sources[i]);
        for (long g = 0; g < batch.group_count; ++g) {
            const Group& group = batch.groups[g];
            const long queries = layer.firsts_ask() ? 1 : group.longest;
            probabilities.push_back(draw.take(layer.probabilities, group.texts * layer.heads * queries));
        }
        draw.take(layer.attention_output, shape.rows, attention_output);
        attention_norm = draw.take(layer.attention_norm.dropout, shape.rows);
        draw.take(layer.ffn_in, shape.rows, ffn_in);
        if (layer.pre_norm) gate = draw.take(layer.ffn_norm.dropout, shape.rows);
        draw.take(layer.ffn_out, shape.rows, ffn_out);
        if (!layer.pre_norm) ffn_norm = draw.take(layer.ffn_norm.dropout, shape.rows);
        used = draw.used;
    }
};

// What the backward pass needs beside the layer's input; inputs of linear layers only where these have adapters.
struct Kept {
    Number *asking = nullptr, *normed = nullptr, *y[3] = {}, *context = nullptr, *unit = nullptr, *low = nullptr;
    Number *slope = nullptr, *activated = nullptr, *ffn_unit = nullptr;  // slope: gelu's, or what a gate is made of
    float *inverse = nullptr, *ffn_inverse = nullptr;
    SitesKept sources[3], attention_output, ffn_in, ffn_out;
    std::vector<float*> statistics;
    size_t size = 0;
    // keep: where; null keeps nothing. `size` is what it takes in any case.
    Kept(const Layer& layer, const Batch& batch, const Shape& shape, char* keep) : statistics(batch.group_count) {
        Keeper keeper{keep};
        if (layer.firsts_ask()) asking = keeper.take<Number>(shape.rows * layer.hidden);
        if (layer.pre_norm && adapted(layer.sources[0])) normed = keeper.take<Number>(shape.tokens * layer.hidden);
        for (long i = 0; i < layer.source_count; ++i) {
            const long count = shape.of_source(layer, i);
            y[i] = keeper.take<Number>(count * layer.sources[i].d_out());
            sources[i] = SitesKept(layer.sources[i], count, keeper);
        }
        for (long g = 0; g < batch.group_count; ++g) {
            const Group& group = batch.groups[g];
            statistics[g] = keeper.take<float>(group.texts * layer.heads * (layer.firsts_ask() ? 1 : group.longest));
        }
        if (adapted(layer.attention_output)) context = keeper.take<Number>(shape.rows * layer.hidden);
        attention_output = SitesKept(layer.attention_output, shape.rows, keeper);
        const long first = layer.pre_norm ? shape.tokens : shape.rows;  // rows of the first norm
        unit = keeper.take<Number>(first * layer.hidden);
        inverse = keeper.take<float>(first);
        if (adapted(layer.ffn_in)) low = keeper.take<Number>(shape.rows * layer.hidden);
        ffn_in = SitesKept(layer.ffn_in, shape.rows, keeper);
        slope = keeper.take<Number>(shape.rows * layer.ffn_in.d_out());
        if (adapted(layer.ffn_out)) activated = keeper.take<Number>(shape.rows * layer.ffn_out.d_in());
        ffn_out = SitesKept(layer.ffn_out, shape.rows, keeper);
        ffn_unit = keeper.take<Number>(shape.rows * layer.hidden);
        ffn_inverse = keeper.take<float>(shape.rows);
        size = keeper.used;
    }
};

// A layer's pass over a batch: what its forward and its backward call share.
struct Call {
    const Layer& layer;
    const Batch& batch;
    const Shape shape;
    const Masks masks;
    const Kept kept;
    Call(const Layer* of, const Batch* with, const int32_t* numbers, char* keep)
        : layer(*of), batch(*with), shape(layer, batch), masks(layer, batch, shape, numbers), kept(layer, batch, shape, keep) {}
};

// --- attention ------------------------------------------------------------------------------------------------

// Where the query, key or value `number` of a group lies in tensors laid out as the sources' results.
struct Part {
    Number* place;
    long stride;
    Part(const Layer& layer, const Group& group, Number* const (&y)[3], long number) {
        // Sources hold 3, 1 and 2, or 1 each of query, key and value.
        const long source = layer.source_count == 1 ? 0 : std::min(number, layer.source_count - 1);
        const long before = layer.source_count == 1 ? number : number - source;
        const bool texts = layer.firsts_ask() && source == 0;
        stride = layer.sources[source].d_out();
        place = y[source] + (texts ? group.first_text : group.start) * stride + before * layer.hidden;
    }
};

inline Heads heads_of(const Layer& layer, const Group& group, Number* const (&y)[3], const Mask& mask) {
    const Part query(layer, group, y, 0), key(layer, group, y, 1), value(layer, group, y, 2);
    return Heads{query.place, key.place,   value.place,   query.stride,    key.stride,
                 value.stride, group.lengths, group.texts, layer.heads,     layer.width,
                 group.longest, layer.firsts_ask(), group.bias, group.bias_text, group.bias_head,
                 group.bias_query, 1.0f / std::sqrt((float)layer.width), layer.window, mask};
}

// The idle tokens of a result that attention writes, which belong to no group.
inline void clear_idle(const Shape& shape, long columns, Number* y) {
    std::memset(y + shape.stop * columns, 0, (shape.tokens - shape.stop) * columns * sizeof(Number));
}

// The rows of the texts' first tokens. Shape of `to`: (texts, columns)
template <class Any>
inline void take_firsts(const Batch& batch, const Any* x, long columns, Any* to) {
    for (long text = 0; text < batch.texts; ++text)
        std::memcpy(to + text * columns, x + batch.firsts[text] * columns, columns * sizeof(Any));
}

// Gradients of the update and the residual, `onto` added to this, from those of the norm and of its copy for products; all but
// the residual's may be null.
inline void norm_backward(const Norm& norm, const float* grad, const Number* grad_low, const Number* unit, const float* inverse,
                          const Mask& mask, const float* onto, long rows, long hidden, Number* update, float* residual) {
    Buffer<float> above(norm.grad_bias ? rows * hidden : 0);
    add_norm_backward(grad, grad_low, unit, inverse, mask, norm.weight, onto, rows, hidden, update, residual, above);
    if (norm.grad_bias) column_sums(static_cast<const float*>(above), hidden, rows, hidden, norm.grad_bias);
}

// The context of the sources' results; of the texts' first tokens alone where only these ask.
inline void context_of(const Call& call, Number* const (&y)[3], Number* context) {
    const auto& [layer, batch, shape, masks, kept] = call;
    if (!layer.firsts_ask()) clear_idle(shape, layer.hidden, context);
    for (long g = 0; g < batch.group_count; ++g) {
        const Group& group = batch.groups[g];
        const long first = layer.firsts_ask() ? group.first_text : group.start;
        attention(heads_of(layer, group, y, masks.probabilities[g]), context + first * layer.hidden, layer.hidden, kept.statistics[g]);
    }
}

// Gradients of the sources' results from that of the context.
inline void context_backward(const Call& call, const Number* context, Number* const (&y)[3]) {
    const auto& [layer, batch, shape, masks, kept] = call;
    for (long i = layer.firsts_ask() ? 1 : 0; i < layer.source_count; ++i) clear_idle(shape, layer.sources[i].d_out(), y[i]);
    for (long g = 0; g < batch.group_count; ++g) {
        const Group& group = batch.groups[g];
        const long first = layer.firsts_ask() ? group.first_text : group.start;
        attention_backward(heads_of(layer, group, kept.y, masks.probabilities[g]), context + first * layer.hidden, layer.hidden,
                           kept.statistics[g], Part(layer, group, y, 0).place, Part(layer, group, y, 1).place, Part(layer, group, y, 2).place);
    }
}

// Whether gradients are wanted of attention, or below it.
inline bool trains_before(const Layer& layer, bool below) {
    bool before = below || layer.attention_norm.grad_bias || trains(layer.attention_output);
    for (long i = 0; i < layer.source_count; ++i) before = before || trains(layer.sources[i]);
    return before;
}

// The rows of the texts' first tokens back where they were taken from, among zeros.
template <class Any>
inline void give_firsts(const Batch& batch, const Any* x, long columns, Any* to) {
    std::memset(to, 0, batch.tokens * columns * sizeof(Any));
    for (long text = 0; text < batch.texts; ++text) std::memcpy(to + batch.firsts[text] * columns, x + text * columns, columns * sizeof(Any));
}

// --- the layer ------------------------------------------------------------------------------------------------

// From the residual stream x in fp32 and its copy for products, low, (tokens, hidden) to those after the layer (rows, hidden).
// In fp32 low is x, and out_low null.
inline void layer_forward(const Call& call, const float* x, const Number* low, float* out, Number* out_low) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden, rows = shape.rows, inner = layer.ffn_in.d_out();
    const bool firsts = layer.firsts_only;

    Buffer<float> residual(firsts ? rows * hidden : 0);
    Result<Number> context(kept.context, rows * hidden);
    {
        Result<Number> asking(kept.asking, firsts ? rows * hidden : 0);
        if (firsts) {
            take_firsts(batch, x, hidden, static_cast<float*>(residual));
            take_firsts(batch, low, hidden, static_cast<Number*>(asking));
        }
        std::vector<Result<Number>> results;
        Number* y[3] = {};
        for (long i = 0; i < layer.source_count; ++i) {
            const long count = shape.of_source(layer, i);
            results.emplace_back(kept.y[i], count * layer.sources[i].d_out());
            y[i] = results.back();
            const Number* input = firsts && i == 0 ? asking : low;
            forward(layer.sources[i], kept.sources[i], masks.sources[i], input, count, y[i], nullptr, nullptr);
        }
        context_of(call, y, context);
    }
    Buffer<Number> update(rows * hidden);
    Result<Number> unit(kept.unit, rows * hidden), ffn_unit(kept.ffn_unit, rows * hidden), between_low(kept.low, rows * hidden);
    Result<float> inverse(kept.inverse, rows), ffn_inverse(kept.ffn_inverse, rows);
    Buffer<float> own(WIDE ? 0 : rows * hidden);
    float* between = own;  // the norms' residual stream
    if (WIDE) between = reinterpret_cast<float*>(static_cast<Number*>(between_low));
    const Norm &norm = layer.attention_norm, &ffn_norm = layer.ffn_norm;
    forward(layer.attention_output, kept.attention_output, masks.attention_output, context, rows, update, nullptr, nullptr);
    add_norm(update, firsts ? residual : x, masks.attention_norm, norm.affine(), rows, hidden, between, WIDE ? nullptr : static_cast<Number*>(between_low), unit,
             inverse);
    Result<Number> activated(kept.activated, rows * inner);
    forward(layer.ffn_in, kept.ffn_in, masks.ffn_in, between_low, rows, nullptr, activated, kept.slope);
    forward(layer.ffn_out, kept.ffn_out, masks.ffn_out, activated, rows, update, nullptr, nullptr);
    add_norm(update, between, masks.ffn_norm, ffn_norm.affine(), rows, hidden, out, out_low, ffn_unit, ffn_inverse);
}

// From the gradients of out and out_low, either of which may be null, those of all that trains, and of x and low unless
// these are null. In fp32 `below` is that of both together, and grad_x memory of the call's.
inline void layer_backward(const Call& call, const Number* low, const float* grad, const Number* grad_low, float* grad_x,
                           Number* below) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden, rows = shape.rows, inner = layer.ffn_in.d_out();
    const bool firsts = layer.firsts_only;

    Buffer<Number> update(rows * hidden);
    Buffer<float> own(firsts || !grad_x ? rows * hidden : 0);
    float* residual = firsts || !grad_x ? own : grad_x;  // the norms' gradients of it, one after the other
    norm_backward(layer.ffn_norm, grad, grad_low, kept.ffn_unit, kept.ffn_inverse, masks.ffn_norm, nullptr, rows, hidden, update, residual);
    Buffer<Number> between(rows * hidden);
    {
        Buffer<Number> above(rows * inner);
        backward(layer.ffn_out, kept.ffn_out, masks.ffn_out, kept.activated, update, rows, nullptr, kept.slope, above);
        backward(layer.ffn_in, kept.ffn_in, masks.ffn_in, kept.low, above, rows, nullptr, nullptr, between);
    }
    if (!trains_before(layer, below)) return;
    norm_backward(layer.attention_norm, residual, between, kept.unit, kept.inverse, masks.attention_norm, nullptr, rows, hidden,
                  update, residual);
    if (firsts && grad_x) give_firsts(batch, residual, hidden, grad_x);
    Number* context = between;  // its gradient; that of what lay between the norms is done with
    backward(layer.attention_output, kept.attention_output, masks.attention_output, kept.context, update, rows, nullptr, nullptr,
             context);
    std::vector<Buffer<Number>> grads;
    Number* y[3] = {};
    for (long i = 0; i < layer.source_count; ++i) {
        grads.emplace_back(shape.of_source(layer, i) * layer.sources[i].d_out());
        y[i] = grads.back();
    }
    context_backward(call, context, y);
    for (long i = layer.source_count - 1; i >= 0; --i) {
        if (firsts && i == 0) {
            Buffer<Number> asking(below ? rows * hidden : 0);
            backward(layer.sources[0], kept.sources[0], masks.sources[0], kept.asking, y[0], rows, nullptr, nullptr, asking);
            for (long text = 0; text < batch.texts && below; ++text)
                for (long j = 0; j < hidden; ++j) {
                    Number& place = below[batch.firsts[text] * hidden + j];
                    narrow(wide(place) + wide(asking[text * hidden + j]), place);
                }
            continue;
        }
        const Number* total = i < layer.source_count - 1 ? below : nullptr;
        if (WIDE && !total) total = reinterpret_cast<const Number*>(grad_x);
        backward(layer.sources[i], kept.sources[i], masks.sources[i], low, y[i], shape.of_source(layer, i), total, nullptr, below);
    }
}
