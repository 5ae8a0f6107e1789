// An encoder layer whose norms come first (ModernBERT's, prenorm.py), forward and backward: x += attention(norm(x)), then
// x += a gated feed-forward of norm(x). The residual stream alone, in fp32, runs between layers.
#pragma once

#include "context.h"

// Queries and keys (rows, 2 hidden), the first columns of y, turned by their positions, or back (Su et al. 2021, equation 15): each
// pair (i, i + width / 2) of a head's.
inline void rotate(Number* y, const Layer& layer, long rows, bool back) {
    const long half = layer.width / 2;
    for_every_row(rows, 0, [&](long row, float*) {
        const float *cosine = layer.angles + row * layer.width, *sine = cosine + half;
        Number* head = y + row * 3 * layer.hidden;
        for (long i = 0; i < 2 * layer.heads; ++i, head += layer.width)
            for (long j = 0; j < half; j += LANES) {
                const Vector left = load(head + j), right = load(head + half + j), c = load(cosine + j);
                const Vector s = back ? -load(sine + j) : load(sine + j);
                store(head + j, left * c - right * s);
                store(head + half + j, fma(right, c, left * s));
            }
    });
}

// low = LayerNorm(x), or x where there is no norm; kept for the backward pass unless null: see `add_norm`.
inline void norm_of(const float* x, const Norm& norm, long rows, long columns, Number* low, Number* unit, float* inverse) {
    for_every_row(rows, 0, [&](long row, float*) {
        const long start = row * columns;
        if (!norm.weight) {
            for (long j = 0; j < columns; j += LANES) store(low + start + j, load(x + start + j));
            return;
        }
        const Moments moments(x + start, columns, norm.epsilon);
        if (inverse) inverse[row] = moments.inverse;
        write_norm(x + start, moments, norm.weight, norm.bias, MaskRow(Mask{}, 0), columns, nullptr, low + start, unit ? unit + start : nullptr);
    });
}

// out = residual + dropout(update), in fp32; out may be the residual.
inline void add(const Number* update, const float* residual, const Mask& mask, long rows, long columns, float* out) {
    for_every_row(rows, 0, [&](long row, float*) {
        const MaskRow masked(mask, row);
        for (long start = row * columns, j = 0; j < columns; j += LANES)
            stream(out + start + j, load(residual + start + j) + masked(load(update + start + j), j));
    });
}

// y (rows, columns) = dropout(gelu(a) b) of joint rows [a | b].
inline void gated(const Number* joint, const Mask& mask, long rows, long columns, Number* y) {
    for_every_row(rows, 0, [&](long row, float*) {
        const MaskRow masked(mask, row);
        const Number *a = joint + 2 * row * columns, *b = a + columns;
        for (long j = 0; j < columns; j += LANES) store(y + row * columns + j, masked(gelu_of<Number>(load(a + j), nullptr) * load(b + j), j));
    });
}

// The gradient of the joint rows from that of `gated`.
inline void gated_backward(const Number* grad, const Number* joint, const Mask& mask, long rows, long columns, Number* below) {
    for_every_row(rows, 0, [&](long row, float*) {
        const MaskRow masked(mask, row);
        const Number *a = joint + 2 * row * columns, *b = a + columns;
        Number* to = below + 2 * row * columns;
        for (long j = 0; j < columns; j += LANES) {
            Vector slope;
            const Vector above = masked(load(grad + row * columns + j), j), value = gelu_of<Number>(load(a + j), &slope);
            store(to + j, above * slope * load(b + j));
            store(to + columns + j, above * value);
        }
    });
}

// From the residual stream x (tokens, hidden) to that after the layer (rows, hidden).
inline void pre_norm_forward(const Call& call, const float* x, float* out) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden, tokens = shape.tokens, rows = shape.rows, inner = layer.ffn_out.d_in();
    const bool firsts = layer.firsts_only;
    const Owners* const owners = firsts ? batch.texts_of : batch.tokens_of;  // of the result's rows

    Result<Number> context(kept.context, rows * hidden);
    Buffer<float> residual(firsts ? rows * hidden : 0);
    {
        const Result<Number> normed(kept.input, tokens * hidden), joint(kept.y[0], tokens * 3 * hidden);
        norm_of(x, layer.attention_norm, tokens, hidden, normed, kept.unit, kept.inverse);
        forward(layer.sources[0], batch.tokens_of, kept.sources[0], masks.sources[0], normed, tokens, joint, nullptr, nullptr);
        rotate(joint, layer, tokens, false);
        Number* const y[3] = {joint};
        context_of(call, y, context);
        if (firsts) take_firsts(batch, x, hidden, static_cast<float*>(residual));
    }
    const Buffer<Number> update(rows * hidden);
    const Result<Number> low(kept.low, rows * hidden), both(kept.slope, rows * 2 * inner), activated(kept.activated, rows * inner);
    forward(layer.attention_output, owners, kept.attention_output, masks.attention_output, context, rows, update, nullptr, nullptr);
    add(update, firsts ? static_cast<const float*>(residual) : x, masks.attention_norm, rows, hidden, out);
    norm_of(out, layer.ffn_norm, rows, hidden, low, kept.ffn_unit, kept.ffn_inverse);
    forward(layer.ffn_in, owners, kept.ffn_in, masks.ffn_in, low, rows, both, nullptr, nullptr);
    gated(both, masks.gate, rows, inner, activated);
    forward(layer.ffn_out, owners, kept.ffn_out, masks.ffn_out, activated, rows, update, nullptr, nullptr);
    add(update, out, Mask{}, rows, hidden, out);
}

// From the gradient of what comes out those of all that trains, and of x unless this is null.
inline void pre_norm_backward(const Call& call, const float* grad, float* grad_x) {
    const auto& [layer, batch, shape, masks, kept] = call;
    const long hidden = layer.hidden, tokens = shape.tokens, rows = shape.rows, inner = layer.ffn_out.d_in();
    const bool firsts = layer.firsts_only;

    const Buffer<Number> update(rows * hidden), between(rows * hidden);
    norm_of(grad, Norm{}, rows, hidden, update, nullptr, nullptr);
    {
        const Buffer<Number> above(rows * inner), both(rows * 2 * inner);
        backward(layer.ffn_out, kept.ffn_out, masks.ffn_out, kept.activated, update, rows, nullptr, nullptr, above);
        gated_backward(above, kept.slope, masks.gate, rows, inner, both);
        backward(layer.ffn_in, kept.ffn_in, masks.ffn_in, kept.low, both, rows, nullptr, nullptr, between);
    }
    if (!trains_before(layer, grad_x) && !layer.ffn_norm.grad_bias) return;
    const Buffer<float> own(firsts || !grad_x ? rows * hidden : 0);
    float* residual = firsts || !grad_x ? static_cast<float*>(own) : grad_x;
    norm_backward(layer.ffn_norm, nullptr, between, kept.ffn_unit, kept.ffn_inverse, masks.attention_norm, grad, rows, hidden, update, residual);
    Number* context = between;  // its gradient
    backward(layer.attention_output, kept.attention_output, masks.attention_output, kept.context, update, rows, nullptr, nullptr, context);
    const Buffer<Number> joint(tokens * 3 * hidden);
    if (firsts && grad_x) give_firsts(batch, residual, hidden, grad_x);
    Number* const y[3] = {joint};
    context_backward(call, context, y);
    rotate(joint, layer, tokens, true);
    const bool below = grad_x || layer.attention_norm.grad_bias;
    const Buffer<Number> normed(below ? tokens * hidden : 0);
    backward(layer.sources[0], kept.sources[0], masks.sources[0], kept.input, joint, tokens, nullptr, nullptr, normed);
    if (!below) return;
    const Buffer<float> nobodys(grad_x ? 0 : tokens * hidden);
    float* to = grad_x ? grad_x : static_cast<float*>(nobodys);
    if (layer.attention_norm.weight)
        norm_backward(layer.attention_norm, nullptr, normed, kept.unit, kept.inverse, Mask{}, grad_x, tokens, hidden, nullptr, to);
    else
        add(normed, to, Mask{}, tokens, hidden, to);
}
