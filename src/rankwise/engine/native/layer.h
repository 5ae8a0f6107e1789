// One post-norm encoder layer, forward and backward, as one call: layer.py and linear.py put together of products, attention
// and what is elementwise.
//
// In Python each of its thirty steps costs a tenth of a millisecond, as its objects and torch's dispatch are cold whenever
// a product has gone through the caches: a third of a small model's step, which the call saves.
//
// tokens are the batch's, idle ones among them; rows are those of a layer's result: tokens, or texts where only their
// first tokens are asked for. Everything is row by row.
#pragma once

#include <utility>
#include <vector>

#include "attention.h"
#include "elementwise.h"
#include "product.h"

// Dropout of a rate (dropout.py): its masks' limit and scale; all zero where nothing is dropped.
struct Dropout {
    int32_t limit;
    float scale;
};

// A linear layer's own part of those that read the same input.
struct Site {
    long d_out, rank;               // rank 0: no adapter
    const float *A, *B;             // (rank, d_in), (d_out, rank)
    const float *magnitude, *squared_norms;  // DoRA's, and of the frozen rows (d_out); null without
    float scale;
    Dropout dropout;
    float *grad_A, *grad_B, *grad_magnitude, *grad_bias;  // where they are wanted
};

// Linear layers that read the same input, run as one. One with DoRA runs alone.
struct Sites {
    Matrix matrix;
    const float* bias;
    long count;
    Site parts[3];
    long d_in() const { return matrix.d_in; }
    long d_out() const { return matrix.d_out; }
};

struct Norm {
    const float *weight, *bias;
    float epsilon;
    Dropout dropout;  // of what is added
    float* grad_bias;
    Affine affine() const { return Affine{weight, bias, epsilon}; }
};

struct Layer {
    long hidden, heads, width, source_count;
    int firsts_only;
    Dropout probabilities;
    Sites sources[3];  // query, key and value, in as many products
    Sites attention_output, ffn_in, ffn_out;
    Norm attention_norm, ffn_norm;
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

// What the backward pass needs lies where the caller keeps it, the rest in memory of the call.
template <class Any>
class Result {
public:
    Result(Any* kept, long count) : own_(kept ? 0 : count), place_(kept ? kept : static_cast<Any*>(own_)) {}
    operator Any*() const { return place_; }

private:
    Buffer<Any> own_;
    Any* place_;
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
    long of_source(const Layer& layer, long number) const { return number == 0 && layer.firsts_only ? rows : tokens; }
};

struct Masks {
    Mask sources[3][3] = {}, attention_output[3] = {}, ffn_in[3] = {}, ffn_out[3] = {};
    Mask attention_norm{}, ffn_norm{};
    std::vector<Mask> probabilities;
    long used;
    Masks(const Layer& layer, const Batch& batch, const Shape& shape, const int32_t* numbers) {
        Draw draw{numbers, batch.columns};
        for (long i = 0; i < layer.source_count; ++i) draw.take(layer.sources[i], shape.of_source(layer, i), sources[i]);
        for (long g = 0; g < batch.group_count; ++g) {
            const Group& group = batch.groups[g];
            const long queries = layer.firsts_only ? 1 : group.longest;
            probabilities.push_back(draw.take(layer.probabilities, group.texts * layer.heads * queries));
        }
        draw.take(layer.attention_output, shape.rows, attention_output);
        attention_norm = draw.take(layer.attention_norm.dropout, shape.rows);
        draw.take(layer.ffn_in, shape.rows, ffn_in);
        draw.take(layer.ffn_out, shape.rows, ffn_out);
        ffn_norm = draw.take(layer.ffn_norm.dropout, shape.rows);
        used = draw.used;
    }
};

// What the backward pass needs of linear layers beside their input.
struct SitesKept {
    Number* low[3] = {};      // dropout(x) A^T. Shape: (count, padded rank)
    Number* z = nullptr;      // DoRA's. Shape: (count, d_out)
    float* gain = nullptr;    // DoRA's. Shape: (d_out)
    SitesKept() = default;
    SitesKept(const Sites& sites, long count, Keeper& keeper) {
        for (long i = 0; i < sites.count; ++i)
            if (sites.parts[i].rank) low[i] = keeper.take<Number>(count * up(sites.parts[i].rank, Sums::NARROW));
        if (sites.parts[0].magnitude) {
            z = keeper.take<Number>(count * sites.d_out());
            gain = keeper.take<float>(sites.d_out());
        }
    }
};

inline bool adapted(const Sites& sites) {
    for (long i = 0; i < sites.count; ++i)
        if (sites.parts[i].rank) return true;
    return false;
}

// What the backward pass needs beside the layer's input; inputs of linear layers only where these have adapters.
struct Kept {
    Number *asking = nullptr, *y[3] = {}, *context = nullptr, *unit = nullptr, *low = nullptr, *slope = nullptr;
    Number *activated = nullptr, *ffn_unit = nullptr;
    float *inverse = nullptr, *ffn_inverse = nullptr;
    SitesKept sources[3], attention_output, ffn_in, ffn_out;
    std::vector<float*> statistics;
    size_t size = 0;
    // keep: where; null keeps nothing. `size` is what it takes in any case.
    Kept(const Layer& layer, const Batch& batch, const Shape& shape, char* keep) : statistics(batch.group_count) {
        Keeper keeper{keep};
        if (layer.firsts_only) asking = keeper.take<Number>(shape.rows * layer.hidden);
        for (long i = 0; i < layer.source_count; ++i) {
            const long count = shape.of_source(layer, i);
            y[i] = keeper.take<Number>(count * layer.sources[i].d_out());
            sources[i] = SitesKept(layer.sources[i], count, keeper);
        }
        for (long g = 0; g < batch.group_count; ++g) {
            const Group& group = batch.groups[g];
            statistics[g] = keeper.take<float>(group.texts * layer.heads * (layer.firsts_only ? 1 : group.longest));
        }
        if (adapted(layer.attention_output)) context = keeper.take<Number>(shape.rows * layer.hidden);
        attention_output = SitesKept(layer.attention_output, shape.rows, keeper);
        unit = keeper.take<Number>(shape.rows * layer.hidden);
        inverse = keeper.take<float>(shape.rows);
        if (adapted(layer.ffn_in)) low = keeper.take<Number>(shape.rows * layer.hidden);
        ffn_in = SitesKept(layer.ffn_in, shape.rows, keeper);
        slope = keeper.take<Number>(shape.rows * layer.ffn_in.d_out());
        if (adapted(layer.ffn_out)) activated = keeper.take<Number>(shape.rows * layer.ffn_in.d_out());
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

// --- linear layers with adapters ------------------------------------------------------------------------------

// An adapter's factors in the precision of products, and the panels of them. gain: null, or what the rows of B are multiplied
// with (d_out)
struct Factors {
    long rank, depth, padded, d_in, d_out;  // depth: of products with the rank; padded: columns of those that make it
    Buffer<Number> A, up_;                  // (rank, d_in), scale B^T (rank, d_out)
    Factors(const Site& site, long width, const float* gain = nullptr)
        : rank(site.rank), depth(up(rank, Sums::DEPTH)), padded(up(rank, Sums::NARROW)), d_in(width), d_out(site.d_out),
          A(rank * d_in), up_(rank * d_out) {
        rounded(site.A, rank * d_in, A);
        rounded_transpose(site.B, d_out, rank, site.scale, gain, up_);
    }
    // For x A^T and for (x A^T) scale B^T; then for the gradients, above scale B and (above scale B) A.
    Buffer<Number> to_low() const { return turned(A, d_in); }
    Buffer<Number> from_low() const { return as_is(up_, d_out); }
    Buffer<Number> grad_to_low() const { return turned(up_, d_out); }
    Buffer<Number> grad_from_low() const { return as_is(A, d_in); }

private:
    Buffer<Number> turned(const Number* matrix, long width) const {
        Buffer<Number> panel(width * padded);
        panel_of_transpose(matrix, width, rank, width, padded, panel);
        return panel;
    }
    Buffer<Number> as_is(const Number* matrix, long width) const {
        Buffer<Number> panel(depth * width);
        panel_of(matrix, width, rank, width, panel);
        return panel;
    }
};

// DoRA's magnitude over the norm of every row of W + scale B A, in Gram form (linear.py, `Site.gain`). Shape: (d_out)
inline void gains(const Sites& sites, const Site& site, const Factors& factors, float* gain) {
    const long rank = site.rank, d_in = sites.d_in(), d_out = site.d_out;
    const Buffer<Number> crossed(rank * d_out);  // A W^T
    multiply(Product{factors.A, d_in, rank, sites.matrix, false, nullptr, nullptr, 0, nullptr, crossed, nullptr, nullptr});
    const Buffer<float> gram(rank * rank);  // A A^T
    for_every_row(rank, 0, [&](long r, float*) {
        for (long s = 0; s <= r; ++s) {
            Vector total{};
            for (long i = 0; i < d_in; i += LANES) total = fma(load(site.A + r * d_in + i), load(site.A + s * d_in + i), total);
            gram[r * rank + s] = gram[s * rank + r] = sum(total);
        }
    });
    for_every_row(d_out, 0, [&](long row, float*) {
        const float* b = site.B + row * rank;
        float square = site.squared_norms[row];
        for (long r = 0; r < rank; ++r) {
            float product = 0.0f;
            for (long s = 0; s < rank; ++s) product += gram[r * rank + s] * b[s];
            square += site.scale * b[r] * (2.0f * wide(crossed[r * d_out + row]) + site.scale * product);
        }
        gain[row] = site.magnitude[row] / std::sqrt(square);
    });
}

// The low-rank terms of y, with the memory they point into.
struct Terms {
    std::vector<Result<Number>> lows;
    std::vector<Buffer<Number>> panels;
    std::vector<Term> terms;
    Terms(const Sites& s, const SitesKept& kept, const Mask (&masks)[3], const Number* x, long count) {
        for (long i = 0, from = 0; i < s.count; from += s.parts[i++].d_out) {
            const Site& site = s.parts[i];
            if (!site.rank) continue;
            const Factors factors(site, s.d_in());
            lows.emplace_back(kept.low[i], count * factors.padded);
            down(x, s.d_in(), count, s.d_in(), masks[i], factors.to_low(), factors.padded, lows.back());
            panels.push_back(factors.from_low());
            terms.push_back(Term{lows.back(), factors.padded, panels.back(), factors.depth, from, from + site.d_out, Mask{}});
        }
    }
};

// y of a DoRA layer (linear.py, `DoraLinear`).
inline void dora_forward(const Sites& s, const SitesKept& kept, const Mask& mask, const Term& term, const Number* x, long count, Number* y) {
    const Site& site = s.parts[0];
    Result<float> gain(kept.gain, s.d_out());
    Result<Number> z(kept.z, count * s.d_out());  // W d + scale B A d of the dropped input d
    gains(s, site, Factors(site, s.d_in()), gain);
    if (!mask.rows) {
        multiply(Product{x, s.d_in(), count, s.matrix, false, nullptr, &term, 1, nullptr, z, nullptr, nullptr});
        scaled(z, gain, s.bias, count, s.d_out(), y);
        return;
    }
    {
        Buffer<Number> d(count * s.d_in());
        dropped(x, mask, count, s.d_in(), d);
        multiply(Product{d, s.d_in(), count, s.matrix, false, nullptr, &term, 1, nullptr, z, nullptr, nullptr});
    }
    // y = (W x + b + scale B A d) + (gain - 1) z, as W d = z - scale B A d.
    std::vector<float> beyond(s.d_out());
    for (long i = 0; i < s.d_out(); ++i) beyond[i] = gain[i] - 1.0f;
    const Finish finish{nullptr, z, beyond.data(), nullptr, Mask{}};
    multiply(Product{x, s.d_in(), count, s.matrix, false, s.bias, &term, 1, &finish, y, nullptr, nullptr});
}

// y = x W^T + b + every site's adapter; or, if y is null, gelu of it and its slope, which may be null.
inline void forward(const Sites& s, const SitesKept& kept, const Mask (&masks)[3], const Number* x, long count, Number* y, Number* activated,
             Number* slope) {
    const Terms with(s, kept, masks, x, count);
    if (!s.parts[0].magnitude) {
        multiply(Product{x, s.d_in(), count, s.matrix, false, s.bias, with.terms.data(), (long)with.terms.size(), nullptr, y, activated, slope});
        return;
    }
    Buffer<Number> own(y ? 0 : count * s.d_out());
    dora_forward(s, kept, masks[0], with.terms[0], x, count, y ? y : own);
    if (!y) gelu(own, count, s.d_out(), activated, slope);
}

// A site's gradients from y's, `above`, with y's row after row `stride` apart. gain: DoRA's, or null
// Returns: the term of the input's gradient, whose low and panel are put behind `memory`.
inline Term adapter_backward(const Site& site, const Number* low, Mask mask, const Number* x, long d_in, const Number* above, long stride,
                      long count, const float* gain, std::vector<Buffer<Number>>& memory) {
    const Factors factors(site, d_in, gain);
    const long rank = site.rank, padded = factors.padded;
    Buffer<float> sums(padded * std::max(d_in, site.d_out));
    if (site.grad_B) {
        outer(low, padded, rank, above, stride, count, site.d_out, Mask{}, sums);
        for (long row = 0; row < site.d_out; ++row)
            for (long r = 0; r < rank; ++r)
                site.grad_B[row * rank + r] = sums[r * site.d_out + row] * (gain ? site.scale * gain[row] : site.scale);
    }
    memory.emplace_back(count * padded);
    Number* grad_low = memory.back();
    down(above, stride, count, site.d_out, Mask{}, factors.grad_to_low(), padded, grad_low);
    if (site.grad_A) {
        outer(grad_low, padded, rank, x, d_in, count, d_in, mask, sums);
        std::memcpy(site.grad_A, sums, rank * d_in * sizeof(float));
    }
    memory.push_back(factors.grad_from_low());
    return Term{grad_low, padded, memory.back(), factors.depth, 0, d_in, mask};
}

// Gradients of a DoRA layer's magnitude and input, of which `term` is a part; the rest as `backward` has it.
inline void dora_backward(const Sites& s, const SitesKept& kept, const Mask& mask, Term term, const Number* grad, long count,
                   const Number* total, const Number* times, Number* below) {
    const Site& site = s.parts[0];
    // z's gradient is gain grad; `beyond` is what it has beyond that of W x.
    Buffer<Number> beyond(count * s.d_out());
    std::vector<float> along(s.d_out());
    gains_backward(grad, kept.z, kept.gain, count, s.d_out(), beyond, along.data());
    // d gain / d magnitude is gain / magnitude, the inverse norm.
    for (long i = 0; i < s.d_out() && site.grad_magnitude; ++i) site.grad_magnitude[i] = along[i] * kept.gain[i] / site.magnitude[i];
    if (!below) return;
    term.mask = Mask{};  // as that of the product it is added to
    if (!mask.rows) {
        const Finish last{times, nullptr, nullptr, total, Mask{}};
        scaled(grad, kept.gain, nullptr, count, s.d_out(), beyond);
        multiply(Product{beyond, s.d_out(), count, s.matrix, true, nullptr, &term, 1, &last, below, nullptr, nullptr});
        return;
    }
    Buffer<Number> undropped(count * s.d_in());
    const Finish first{nullptr, nullptr, nullptr, total, Mask{}}, last{times, nullptr, nullptr, undropped, mask};
    multiply(Product{grad, s.d_out(), count, s.matrix, true, nullptr, nullptr, 0, &first, undropped, nullptr, nullptr});
    multiply(Product{beyond, s.d_out(), count, s.matrix, true, nullptr, &term, 1, &last, below, nullptr, nullptr});
}

// Gradients of all that `forward` has trained, and below: the input's, plus `total`, times `times` (either may be null).
// below may be `total` itself, or null where nothing needs it.
inline void backward(const Sites& s, const SitesKept& kept, const Mask (&masks)[3], const Number* x, const Number* grad, long count,
              const Number* total, const Number* times, Number* below) {
    const bool dora = s.parts[0].magnitude;
    std::vector<Buffer<Number>> memory;
    std::vector<Term> terms;
    for (long i = 0, from = 0; i < s.count; from += s.parts[i++].d_out) {
        const Site& site = s.parts[i];
        const Number* above = grad + from;
        if (site.grad_bias) column_sums(above, s.d_out(), count, site.d_out, site.grad_bias);
        if (!site.rank) continue;
        const float* gain = dora ? kept.gain : nullptr;
        terms.push_back(adapter_backward(site, kept.low[i], masks[i], x, s.d_in(), above, s.d_out(), count, gain, memory));
    }
    if (dora) {
        dora_backward(s, kept, masks[0], terms[0], grad, count, total, times, below);
    } else if (below) {
        const Finish last{times, nullptr, nullptr, total, Mask{}};
        multiply(Product{grad, s.d_out(), count, s.matrix, true, nullptr, terms.data(), (long)terms.size(), &last, below, nullptr, nullptr});
    }
}

// Whether gradients of any of them are wanted.
inline bool trains(const Sites& sites) {
    for (long i = 0; i < sites.count; ++i) {
        const Site& site = sites.parts[i];
        if (site.grad_A || site.grad_B || site.grad_magnitude || site.grad_bias) return true;
    }
    return false;
}

// --- attention ------------------------------------------------------------------------------------------------

// Where the query, key or value `number` of a group lies in tensors laid out as the sources' results.
struct Part {
    Number* place;
    long stride;
    Part(const Layer& layer, const Group& group, Number* const (&y)[3], long number) {
        // Sources hold 3, 1 and 2, or 1 each of query, key and value.
        const long source = layer.source_count == 1 ? 0 : std::min(number, layer.source_count - 1);
        const long before = layer.source_count == 1 ? number : number - source;
        const bool texts = layer.firsts_only && source == 0;
        stride = layer.sources[source].d_out();
        place = y[source] + (texts ? group.first_text : group.start) * stride + before * layer.hidden;
    }
};

inline Heads heads_of(const Layer& layer, const Group& group, Number* const (&y)[3], const Mask& mask) {
    const Part query(layer, group, y, 0), key(layer, group, y, 1), value(layer, group, y, 2);
    return Heads{query.place, key.place,   value.place,   query.stride,    key.stride,
                 value.stride, group.lengths, group.texts, layer.heads,     layer.width,
                 group.longest, layer.firsts_only, group.bias, group.bias_text, group.bias_head,
                 group.bias_query, 1.0f / std::sqrt((float)layer.width), mask};
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

// Gradients of the update and the residual from those of the norm and of its copy for products, either of which may be null.
inline void norm_backward(const Norm& norm, const float* grad, const Number* grad_low, const Number* unit, const float* inverse,
                   const Mask& mask, long rows, long hidden, Number* update, float* residual) {
    Buffer<float> above(norm.grad_bias ? rows * hidden : 0);
    add_norm_backward(grad, grad_low, unit, inverse, mask, norm.weight, rows, hidden, update, residual, above);
    if (norm.grad_bias) column_sums(static_cast<const float*>(above), hidden, rows, hidden, norm.grad_bias);
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
        if (!firsts) clear_idle(shape, hidden, context);
        for (long g = 0; g < batch.group_count; ++g) {
            const Group& group = batch.groups[g];
            const Heads heads = heads_of(layer, group, y, masks.probabilities[g]);
            attention(heads, context + (firsts ? group.first_text : group.start) * hidden, hidden, kept.statistics[g]);
        }
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
    norm_backward(layer.ffn_norm, grad, grad_low, kept.ffn_unit, kept.ffn_inverse, masks.ffn_norm, rows, hidden, update, residual);
    Buffer<Number> between(rows * hidden);
    {
        Buffer<Number> above(rows * inner);
        backward(layer.ffn_out, kept.ffn_out, masks.ffn_out, kept.activated, update, rows, nullptr, kept.slope, above);
        backward(layer.ffn_in, kept.ffn_in, masks.ffn_in, kept.low, above, rows, nullptr, nullptr, between);
    }
    bool before = below || layer.attention_norm.grad_bias || trains(layer.attention_output);
    for (long i = 0; i < layer.source_count; ++i) before = before || trains(layer.sources[i]);
    if (!before) return;
    norm_backward(layer.attention_norm, residual, between, kept.unit, kept.inverse, masks.attention_norm, rows, hidden, update,
                  residual);
    if (firsts && grad_x) {
        std::memset(grad_x, 0, shape.tokens * hidden * sizeof(float));
        for (long text = 0; text < batch.texts; ++text)
            std::memcpy(grad_x + batch.firsts[text] * hidden, residual + text * hidden, hidden * sizeof(float));
    }
    Number* context = between;  // its gradient; that of what lay between the norms is done with
    backward(layer.attention_output, kept.attention_output, masks.attention_output, kept.context, update, rows, nullptr, nullptr,
             context);
    std::vector<Buffer<Number>> grads;
    Number* y[3] = {};
    for (long i = 0; i < layer.source_count; ++i) {
        grads.emplace_back(shape.of_source(layer, i) * layer.sources[i].d_out());
        y[i] = grads.back();
        if (!firsts || i > 0) clear_idle(shape, layer.sources[i].d_out(), y[i]);
    }
    for (long g = 0; g < batch.group_count; ++g) {
        const Group& group = batch.groups[g];
        const Heads heads = heads_of(layer, group, kept.y, masks.probabilities[g]);
        attention_backward(heads, context + (firsts ? group.first_text : group.start) * hidden, hidden, kept.statistics[g],
                           Part(layer, group, y, 0).place, Part(layer, group, y, 1).place,
                           Part(layer, group, y, 2).place);
    }
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
