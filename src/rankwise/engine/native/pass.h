// A layer's pass over a batch: what the layer is made of, which rows it reads and writes, the masks it takes, and what it keeps for
// the backward pass. Both kinds of layers (layer.h, prenorm.h) are written over these.
//
// tokens are the batch's, idle ones among them; rows are those of a layer's result: tokens, or texts where only their
// first tokens are asked for. Everything is row by row.
#pragma once

#include <vector>

#include "linear.h"

struct Norm {
    const float *weight, *bias;
    float epsilon;
    Dropout dropout;  // of what is added
    float* grad_bias;
    long number;  // of its biases, see `Member`
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

// Whether gradients are wanted of attention, or below it.
inline bool trains_before(const Layer& layer, bool below) {
    bool before = below || layer.attention_norm.grad_bias || trains(layer.attention_output);
    for (long i = 0; i < layer.source_count; ++i) before = before || trains(layer.sources[i]);
    return before;
}

// The rows of the texts' first tokens. Shape of `to`: (texts, columns)
template <class Any>
inline void take_firsts(const Batch& batch, const Any* x, long columns, Any* to) {
    for (long text = 0; text < batch.texts; ++text)
        std::memcpy(to + text * columns, x + batch.firsts[text] * columns, columns * sizeof(Any));
}

// The rows of the texts' first tokens back where they were taken from, among zeros.
template <class Any>
inline void give_firsts(const Batch& batch, const Any* x, long columns, Any* to) {
    std::memset(to, 0, batch.tokens * columns * sizeof(Any));
    for (long text = 0; text < batch.texts; ++text) std::memcpy(to + batch.firsts[text] * columns, x + text * columns, columns * sizeof(Any));
}

// Gradients of the update and the residual, `onto` added to this, from those of the norm and of its copy for products; all but
// the residual's may be null.
inline void norm_backward(const Norm& norm, const float* grad, const Number* grad_low, const Number* unit, const float* inverse,
                          const Mask& mask, const float* onto, long rows, long hidden, Number* update, float* residual) {
    Buffer<float> above(norm.grad_bias ? rows * hidden : 0);
    add_norm_backward(grad, grad_low, unit, inverse, mask, norm.weight, onto, rows, hidden, update, residual, above);
    if (norm.grad_bias) column_sums(static_cast<const float*>(above), hidden, rows, hidden, norm.grad_bias);
}
