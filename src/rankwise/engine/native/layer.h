// One post-norm encoder layer, forward and backward, as one call: layer.py, put together of linear layers, attention and norms.
//
// In Python each of its thirty steps costs a tenth of a millisecond, as its objects and torch's dispatch are cold whenever
// a product has gone through the caches: a third of a small model's step, which the call saves.
#pragma once

#include "context.h"

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
        context_of(call, y, context);
    }
    Buffer<Number> update(rows * hidden);
    Result<Number> between_low(kept.low, rows * hidden);
    Buffer<float> own(WIDE ? 0 : rows * hidden);
    float* between = own;  // the norms' residual stream
    if (WIDE) between = reinterpret_cast<float*>(static_cast<Number*>(between_low));
    const auto normed = [&](const Norm& norm, const float* before, const Mask& mask, float* to, Number* to_low, Number* as_unit, float* as_inverse) {
        const auto bias_of = [&](long row) { return owners ? owners->bias(row, norm.number, norm.bias) : norm.bias; };
        add_norm(update, before, mask, norm.weight, bias_of, norm.epsilon, rows, hidden, to, to_low, as_unit, as_inverse);
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
    std::vector<Buffer<Number>> grads;
    Number* y[3] = {};
    for (long i = 0; i < layer.source_count; ++i) {
        grads.emplace_back(shape.of_source(layer, i) * layer.sources[i].d_out());
        y[i] = grads.back();
    }
    context_backward(call, context, y);
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
