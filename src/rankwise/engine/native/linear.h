// Linear layers with adapters on frozen matrices: LoRA and DoRA, forward and backward (linear.py). Several that read the same
// input run as one product.
#pragma once

#include <utility>
#include <vector>

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
    long number;  // of its changes, see `Member`
    long d_in() const { return matrix.d_in; }
    long d_out() const { return matrix.d_out; }
};

// What a classifier changes of linear layers that read the same input, `Sites`; each may be null.
struct Change {
    Number* down;          // panel of all their A^T side by side (d_in, padded)
    Number* up[3];         // panel of each one's scale B^T (depth, d_out)
    long padded, depth[3];
    const float* inlet;    // times the input (d_in)
    float* gain[3];        // of each, times the result (d_out)
    const float* bias[3];  // of each, in place of the base's (d_out)
    // The first column of x A^T that is a part's.
    long offset(long part) const { return (part > 0 ? depth[0] : 0) + (part > 1 ? depth[1] : 0); }
};

// A classifier: a change for each `Sites`, by its number, and biases of norms, by theirs, null where they are the base's.
struct Member {
    const Change* changes;
    const float* const* biases;
};

// Whose rows are: [starts[i], starts[i + 1]) are members[i]'s, or nobody's (null), as are those behind all.
struct Owners {
    const int64_t* starts;
    const int32_t* of_row;  // i of each row
    const Member* const* members;
    long count;
    long at(long row) const { return row < starts[count] ? of_row[row] : count; }
    long stop(long i, long most) const { return i < count ? std::min((long)starts[i + 1], most) : most; }
    const Change* change(long i, long number) const { return i < count && members[i] ? members[i]->changes + number : nullptr; }
    // Of a norm, for a row: its classifier's, or the base's.
    const float* bias(long row, long number, const float* base) const {
        const long i = at(row);
        const float* own = i < count && members[i] ? members[i]->biases[number] : nullptr;
        return own ? own : base;
    }
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

// --- adapters and their gradients ------------------------------------------------------------------------------------------

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
// from: the site's first column
inline void gains(const Sites& sites, const Site& site, const Factors& factors, long from, float* gain) {
    const long rank = site.rank, d_in = sites.d_in(), d_out = site.d_out, all = sites.d_out();
    const Buffer<Number> crossed(rank * all);  // A W^T
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
            square += site.scale * b[r] * (2.0f * wide(crossed[r * all + from + row]) + site.scale * product);
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
    gains(s, site, Factors(site, s.d_in()), 0, gain);
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

inline void forward_of_several(const Sites& s, const Owners& owners, const Number* x, long count, Number* y, Number* activated);  // several.h

// y = x W^T + b + every site's adapter; or, if y is null, gelu of it and its slope, which may be null.
// owners: of rows that have adapters of their own in place of the sites', or null
inline void forward(const Sites& s, const Owners* owners, const SitesKept& kept, const Mask (&masks)[3], const Number* x, long count, Number* y, Number* activated,
             Number* slope) {
    if (owners) return forward_of_several(s, *owners, x, count, y, activated);
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
