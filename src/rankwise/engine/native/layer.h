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
    long number;  // of its biases (several.h)
    Affine affine() const { return Affine{weight, bias, epsilon}; }
};

// Distances between tokens, whose rows of a table go through the sources behind the tokens (disentangled.py); no rows: none.
struct Distances {
    const float* rows;      // (count, hidden)
    const int32_t* places;  // see `Relative`
    long count, longest;
    int by_key, by_query;   // what is part of the scores
    Dropout dropout;
    float* grad_rows;       // null where it is not wanted
};

struct Layer {
    long hidden, heads, width, source_count;
    long window;          // see `Heads`
    int firsts_only;      // the result is that of the texts' first tokens
    int all_ask;          // which are taken behind attention, where all tokens ask; else they alone do
    int pre_norm;         // prenorm.h's
    const float* angles;  // cosines and sines of rotary positions (tokens, width); null without
    Distances distances;
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
    const Owners *tokens_of, *texts_of;  // whose tokens and texts they are, where these are for several classifiers; or null
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
    long tokens, rows, read, stop;  // read: of the sources, distances among them; stop: the first idle token
    Shape(const Layer& layer, const Batch& batch)
        : tokens(batch.tokens), rows(layer.firsts_only ? batch.texts : batch.tokens), read(tokens + layer.distances.count) {
        const Group& last = batch.groups[batch.group_count - 1];
        stop = last.start;
        for (long text = 0; text < last.texts; ++text) stop += last.lengths[text];
    }
    // Of the result of the source `number`: queries alone may be fewer.
    long of_source(const Layer& layer, long number) const { return number == 0 && layer.firsts_ask() ? rows : read; }
};

struct Masks {
    Mask sources[3][3] = {}, attention_output[3] = {}, ffn_in[3] = {}, ffn_out[3] = {};
    Mask distances{}, attention_norm{}, gate{}, ffn_norm{};
    std::vector<Mask> probabilities;
    long used;
    Masks(const Layer& layer, const Batch& batch, const Shape& shape, const int32_t* numbers) {
        Draw draw{numbers, batch.columns};
        distances = draw.take(layer.distances.dropout, layer.distances.count);
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
    Number *asking = nullptr, *input = nullptr, *y[3] = {}, *context = nullptr, *unit = nullptr, *low = nullptr;
    Number *slope = nullptr, *activated = nullptr, *ffn_unit = nullptr;  // slope: gelu's, or what a gate is made of
    float *inverse = nullptr, *ffn_inverse = nullptr;
    SitesKept sources[3], attention_output, ffn_in, ffn_out;
    std::vector<float*> statistics;
    size_t size = 0;
    // keep: where; null keeps nothing. `size` is what it takes in any case.
    Kept(const Layer& layer, const Batch& batch, const Shape& shape, char* keep) : statistics(batch.group_count) {
        Keeper keeper{keep};
        if (layer.firsts_ask()) asking = keeper.take<Number>(shape.rows * layer.hidden);
        bool adapts = false;
        for (long i = 0; i < layer.source_count; ++i) adapts = adapts || adapted(layer.sources[i]);
        if ((layer.pre_norm || layer.distances.count) && adapts) input = keeper.take<Number>(shape.read * layer.hidden);
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

// A layer in a pass, with the pass's tensors: those that train, and what layer_forward and layer_backward read and write.
struct LayerPass {
    Layer layer;
    long number_count, size;  // random numbers that its masks take, and bytes that it keeps for the backward pass
    const int32_t* numbers;
    char* keep;  // null keeps nothing
    const float* x;
    const Number* low;
    float* out;
    Number* out_low;
    const float* grad;
    const Number* grad_low;
    float* grad_x;
    Number* below;
};

// A layer's pass over a batch: what its forward and its backward call share.
struct Call {
    const Layer& layer;
    const Batch& batch;
    const Shape shape;
    const Masks masks;
    const Kept kept;
    Call(const LayerPass& pass, const Batch& with)
        : layer(pass.layer), batch(with), shape(layer, batch), masks(layer, batch, shape, pass.numbers), kept(layer, batch, shape, pass.keep) {}
};

// --- attention ------------------------------------------------------------------------------------------------

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
        attention(heads_of(call, group, y, masks.probabilities[g], {}), context + first * layer.hidden, layer.hidden, kept.statistics[g]);
    }
}

// Gradients of the sources' results from that of the context.
inline void context_backward(const Call& call, const Number* context, Number* const (&y)[3]) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long size = layer.distances.count ? layer.heads * (layer.distances.count + Relative::SLACK) * layer.width : 0;
    const Buffer<float> sums(2 * size);
    if (size) std::memset(sums, 0, 2 * size * sizeof(float));
    float* const grads[2] = {sums, sums + size};
    for (long i = layer.firsts_ask() ? 1 : 0; i < layer.source_count; ++i) clear_idle(shape, layer.sources[i].d_out(), y[i]);
    for (long g = 0; g < batch.group_count; ++g) {
        const Group& group = batch.groups[g];
        const long text = group.first_text, token = group.start, first = layer.firsts_ask() ? text : token;
        attention_backward(heads_of(call, group, kept.y, masks.probabilities[g], grads), context + first * layer.hidden, layer.hidden,
                           kept.statistics[g], Part(layer, y, 0, token, text).place, Part(layer, y, 1, token, text).place,
                           Part(layer, y, 2, token, text).place);
    }
    if (size) write_relative(layer, shape, grads, y);
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

// Tokens, and behind them the rows of distances, dropped out. Shape: low (tokens, hidden), to (read, hidden)
inline void extended(const Call& call, const Number* low, Number* to) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden;
    std::memcpy(to, low, shape.tokens * hidden * sizeof(Number));
    for (long row = 0; row < layer.distances.count; ++row) {
        const MaskRow masked(masks.distances, row);
        for (long j = 0; j < hidden; j += LANES)
            store(to + (shape.tokens + row) * hidden + j, masked(load(layer.distances.rows + row * hidden + j), j));
    }
}

// The gradients of what `extended` was made of: of tokens added to `onto` (which may be null), of rows where they are wanted.
inline void extended_backward(const Call& call, const Number* grad, const Number* onto, Number* below) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden;
    for_every_row(shape.tokens, 0, [&](long row, float*) {
        for (long place = row * hidden, j = 0; j < hidden; j += LANES, place += LANES)
            store(below + place, onto ? load(grad + place) + load(onto + place) : load(grad + place));
    });
    for (long row = 0; row < layer.distances.count && layer.distances.grad_rows; ++row) {
        const MaskRow masked(masks.distances, row);
        for (long j = 0; j < hidden; j += LANES)
            store(layer.distances.grad_rows + row * hidden + j, masked(load(grad + (shape.tokens + row) * hidden + j), j));
    }
}

inline void add_norm_of_several(const Norm& norm, const Owners& owners, const Number* update, const float* residual, long columns, float* out,
                                Number* low, Number* unit, float* inverse);  // several.h

// From the residual stream x in fp32 and its copy for products, low, (tokens, hidden) to those after the layer (rows, hidden).
// In fp32 low is x, and out_low null.
inline void layer_forward(const Call& call, const float* x, const Number* low, float* out, Number* out_low) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden, rows = shape.rows, inner = layer.ffn_in.d_out();
    const bool firsts = layer.firsts_only;
    const Owners* const owners = firsts ? batch.texts_of : batch.tokens_of;  // of the result's rows

    const bool asks = layer.firsts_ask(), distant = layer.distances.count;
    Buffer<float> residual(firsts ? rows * hidden : 0);
    Result<Number> context(kept.context, rows * hidden);
    {
        Result<Number> asking(kept.asking, asks ? rows * hidden : 0), whole(kept.input, distant ? shape.read * hidden : 0);
        if (firsts) take_firsts(batch, x, hidden, static_cast<float*>(residual));
        if (asks) take_firsts(batch, low, hidden, static_cast<Number*>(asking));
        if (distant) extended(call, low, whole);
        std::vector<Result<Number>> results;
        Number* y[3] = {};
        for (long i = 0; i < layer.source_count; ++i) {
            const long count = shape.of_source(layer, i);
            results.emplace_back(kept.y[i], count * layer.sources[i].d_out());
            y[i] = results.back();
            const Number* input = asks && i == 0 ? static_cast<Number*>(asking) : distant ? static_cast<Number*>(whole) : low;
            forward(layer.sources[i], asks && i == 0 ? owners : batch.tokens_of, kept.sources[i], masks.sources[i], input, count, y[i], nullptr, nullptr);
        }
        const Buffer<Number> all(firsts && !asks ? shape.tokens * hidden : 0);
        context_of(call, y, firsts && !asks ? static_cast<Number*>(all) : context);
        if (firsts && !asks) take_firsts(batch, static_cast<const Number*>(all), hidden, static_cast<Number*>(context));
    }
    Buffer<Number> update(rows * hidden);
    Result<Number> between_low(kept.low, rows * hidden);
    Buffer<float> own(WIDE ? 0 : rows * hidden);
    float* between = own;  // the norms' residual stream
    if (WIDE) between = reinterpret_cast<float*>(static_cast<Number*>(between_low));
    const auto normed = [&](const Norm& norm, const float* before, const Mask& mask, float* to, Number* to_low, Number* as_unit, float* as_inverse) {
        if (owners) return add_norm_of_several(norm, *owners, update, before, hidden, to, to_low, as_unit, as_inverse);
        add_norm(update, before, mask, norm.affine(), rows, hidden, to, to_low, as_unit, as_inverse);
    };
    forward(layer.attention_output, owners, kept.attention_output, masks.attention_output, context, rows, update, nullptr, nullptr);
    normed(layer.attention_norm, firsts ? residual : x, masks.attention_norm, between, WIDE ? nullptr : static_cast<Number*>(between_low), kept.unit, kept.inverse);
    Result<Number> activated(kept.activated, rows * inner);
    forward(layer.ffn_in, owners, kept.ffn_in, masks.ffn_in, between_low, rows, nullptr, activated, kept.slope);
    forward(layer.ffn_out, owners, kept.ffn_out, masks.ffn_out, activated, rows, update, nullptr, nullptr);
    normed(layer.ffn_norm, between, masks.ffn_norm, out, out_low, kept.ffn_unit, kept.ffn_inverse);
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
    if (!trains_before(layer, below || layer.distances.grad_rows)) return;
    norm_backward(layer.attention_norm, residual, between, kept.unit, kept.inverse, masks.attention_norm, nullptr, rows, hidden,
                  update, residual);
    if (firsts && grad_x) give_firsts(batch, residual, hidden, grad_x);
    Number* context = between;  // its gradient; that of what lay between the norms is done with
    backward(layer.attention_output, kept.attention_output, masks.attention_output, kept.context, update, rows, nullptr, nullptr,
             context);
    const bool asks = layer.firsts_ask(), distant = layer.distances.count;
    const Buffer<Number> all(firsts && !asks ? shape.tokens * hidden : 0);
    if (firsts && !asks) give_firsts(batch, context, hidden, static_cast<Number*>(all));
    std::vector<Buffer<Number>> grads;
    Number* y[3] = {};
    for (long i = 0; i < layer.source_count; ++i) {
        grads.emplace_back(shape.of_source(layer, i) * layer.sources[i].d_out());
        y[i] = grads.back();
    }
    context_backward(call, firsts && !asks ? static_cast<Number*>(all) : context, y);
    const bool wanted = below || layer.distances.grad_rows;
    const Buffer<Number> whole(distant && wanted ? shape.read * hidden : 0);  // the gradient of `extended`
    Number* input = distant ? static_cast<Number*>(whole) : below;
    for (long i = layer.source_count - 1; i >= 0; --i) {
        if (asks && i == 0) {
            Buffer<Number> asking(below ? rows * hidden : 0);
            backward(layer.sources[0], kept.sources[0], masks.sources[0], kept.asking, y[0], rows, nullptr, nullptr, asking);
            for (long text = 0; text < batch.texts && below; ++text)
                for (long j = 0; j < hidden; ++j) {
                    Number& place = below[batch.firsts[text] * hidden + j];
                    narrow(wide(place) + wide(asking[text * hidden + j]), place);
                }
            continue;
        }
        const Number* total = i < layer.source_count - 1 ? input : nullptr;
        if (WIDE && !total && !distant) total = reinterpret_cast<const Number*>(grad_x);
        backward(layer.sources[i], kept.sources[i], masks.sources[i], distant ? kept.input : low, y[i], shape.of_source(layer, i), total,
                 nullptr, input);
    }
    if (!distant || !wanted) return;
    const Buffer<Number> nobodys(below ? 0 : shape.tokens * hidden);
    extended_backward(call, whole, WIDE ? reinterpret_cast<const Number*>(grad_x) : nullptr, below ? below : static_cast<Number*>(nobodys));
}
