// What is no product: the embedding, norms, sums over rows, gelu, and DoRA's gains. Matrices are row by row; rows are shared
// out among the threads.
//
// `low` is the copy in the precision of products that runs beside the residual stream: null where that is fp32 too.
#pragma once

#include "dropout.h"
#include "product.h"

constexpr long ROWS_AT_A_TIME = 32;

// `body(row, memory)` for every row, with memory for one in fp32.
template <class Body>
void for_every_row(long rows, long columns, const Body& body) {
    Parts parts((rows + ROWS_AT_A_TIME - 1) / ROWS_AT_A_TIME);
    in_parallel(columns * sizeof(float), [&](char* own) {
        for (long part; (part = parts.next()) >= 0;)
            for (long row = part * ROWS_AT_A_TIME; row < std::min(rows, (part + 1) * ROWS_AT_A_TIME); ++row)
                body(row, reinterpret_cast<float*>(own));
        fence();
    });
}

// Mean of a row, and one over its deviation.
struct Moments {
    float mean, inverse;
    Moments(const float* row, long columns, float epsilon) {
        Vector all{}, squares{};
        for (long j = 0; j < columns; j += LANES) all = all + load(row + j);
        mean = sum(all) / columns;
        for (long j = 0; j < columns; j += LANES) {
            const Vector apart = load(row + j) - mean;
            squares = fma(apart, apart, squares);
        }
        inverse = 1.0f / std::sqrt(sum(squares) / columns + epsilon);
    }
};

// out, low = dropout(unit weight + bias) of a row; unit: the row with its mean taken off, over its deviation. Each may be null.
inline void write_norm(const float* row, const Moments& moments, const float* weight, const float* bias, const MaskRow& mask,
                       long columns, float* out, Number* low, Number* unit) {
    for (long j = 0; j < columns; j += 2 * LANES) {
        Vector one[2], scaled[2];
        for (int half = 0; half < 2; ++half) {
            const long column = j + LANES * half;
            one[half] = (load(row + column) - moments.mean) * moments.inverse;
            scaled[half] = mask(fma(one[half], load(weight + column), load(bias + column)), column);
            if (out) stream(out + column, scaled[half]);
        }
        if (unit) stream(unit + j, one[0], one[1]);
        if (low) stream(low + j, scaled[0], scaled[1]);
    }
}

// out, low = dropout(LayerNorm(words[ids] + positions[places])).
inline void embedded(const float* words, const float* positions, const int64_t* ids, const int64_t* places, const Mask& mask,
                     const float* weight, const float* bias, float epsilon, long rows, long columns, float* out, Number* low) {
    for_every_row(rows, columns, [&](long row, float* total) {
        const float *word = words + ids[row] * columns, *position = positions + places[row] * columns;
        for (long j = 0; j < columns; j += LANES) store(total + j, load(word + j) + load(position + j));
        const long start = row * columns;
        write_norm(total, Moments(total, columns, epsilon), weight, bias, MaskRow(mask, row), columns, out + start,
                   low ? low + start : nullptr, nullptr);
    });
}

// out, low = LayerNorm(residual + dropout(update)); for the backward pass, or null: unit, the sum with its mean taken off and
// divided by its deviation, and one over that deviation. bias_of(row): the norm's bias (columns)
template <class BiasOf>
void add_norm(const Number* update, const float* residual, const Mask& mask, const float* weight, const BiasOf& bias_of, float epsilon,
              long rows, long columns, float* out, Number* low, Number* unit, float* inverse) {
    for_every_row(rows, columns, [&](long row, float* total) {
        const MaskRow masked(mask, row);
        const long start = row * columns;
        for (long j = 0; j < columns; j += LANES) store(total + j, load(residual + start + j) + masked(load(update + start + j), j));
        const Moments moments(total, columns, epsilon);
        if (inverse) inverse[row] = moments.inverse;
        write_norm(total, moments, weight, bias_of(row), MaskRow(Mask{}, 0), columns, out + start, low ? low + start : nullptr,
                   unit ? unit + start : nullptr);
    });
}

// From the gradients of out and low, either of which may be null, those of update (unless null) and residual, and (unless null)
// their sum, `above`. The residual's may lie where the gradient of out does, or `onto`, which (unless null) is added to it.
inline void add_norm_backward(const float* grad, const Number* grad_low, const Number* unit, const float* inverse, const Mask& mask,
                              const float* weight, const float* onto, long rows, long columns, Number* update, float* residual, float* above) {
    for_every_row(rows, columns, [&](long row, float* weighted) {
        const MaskRow masked(mask, row);
        const long start = row * columns;
        Vector all{}, along{};
        for (long j = 0; j < columns; j += LANES) {
            Vector g = grad ? load(grad + start + j) : Vector{};
            if (grad_low) g = g + load(grad_low + start + j);
            if (above) stream(above + start + j, g);
            g = g * load(weight + j);
            store(weighted + j, g);
            all = all + g;
            along = fma(g, load(unit + start + j), along);
        }
        const float mean = sum(all) / columns, mean_along = sum(along) / columns;
        for (long j = 0; j < columns; j += 2 * LANES) {
            Vector kept[2];
            for (int half = 0; half < 2; ++half) {
                const long column = j + LANES * half;
                Vector g = (load(weighted + column) - mean - load(unit + start + column) * mean_along) * inverse[row];
                if (onto) g = g + load(onto + start + column);
                stream(residual + start + column, g);
                kept[half] = masked(g, column);
            }
            if (update) stream(update + start + j, kept[0], kept[1]);
        }
    });
}

// y = gelu(x), and its slope, which may be null.
inline void gelu(const Number* x, long rows, long columns, Number* y, Number* slope) {
    for_every_row(rows, columns, [&](long row, float*) {
        for (long i = row * columns; i < (row + 1) * columns; i += LANES) {
            Vector along;
            store(y + i, gelu_of<Number>(load(x + i), slope ? &along : nullptr));
            if (slope) store(slope + i, along);
        }
    });
}

// y = dropout(x) (rows, columns).
inline void dropped(const Number* x, const Mask& mask, long rows, long columns, Number* y) {
    for_every_row(rows, columns, [&](long row, float*) {
        const MaskRow masked(mask, row);
        for (long place = row * columns, j = 0; j < columns; j += 2 * LANES)
            stream(y + place + j, masked(load(x + place + j), j), masked(load(x + place + j + LANES), j + LANES));
    });
}

// y (rows, columns) = x times gain (columns), plus bias (columns), which may be null.
inline void scaled(const Number* x, const float* gain, const float* bias, long rows, long columns, Number* y) {
    for_every_row(rows, columns, [&](long row, float*) {
        for (long j = 0; j < columns; j += LANES) {
            const Vector shift = bias ? load(bias + j) : Vector{};
            store(y + row * columns + j, fma(load(x + row * columns + j), load(gain + j), shift));
        }
    });
}

// `body(row, column)` for every row of the vectors of columns that are a thread's, in the order of the rows; `sums` of the
// columns are zero before.
template <class Body>
void over_rows(long rows, long columns, float* sums, const Body& body) {
    over_shares(columns, [](Keeper&) { return 0; }, [&](int, long from, long to) {
        std::memset(sums + from, 0, (to - from) * sizeof(float));
        for (long row = 0; row < rows; ++row)
            for (long j = from; j < to; j += LANES) body(row, j);
    });
}

// beyond = grad (gain - 1), along (columns) = the sum over rows of grad z.
inline void gains_backward(const Number* grad, const Number* z, const float* gain, long rows, long columns, Number* beyond, float* along) {
    over_rows(rows, columns, along, [=](long row, long j) {
        const long place = row * columns + j;
        const Vector g = load(grad + place);
        store(beyond + place, g * load(gain + j) - g);
        store(along + j, fma(g, load(z + place), load(along + j)));
    });
}

// sums (columns) of x (rows, columns), whose rows are `stride` numbers apart.
template <class Any>
void column_sums(const Any* x, long stride, long rows, long columns, float* sums) {
    over_rows(rows, columns, sums, [=](long row, long j) { store(sums + j, load(x + row * stride + j) + load(sums + j)); });
}

// y = x in the precision of products.
inline void rounded(const float* x, long count, Number* y) {
    for (long i = 0; i < count; ++i) narrow(x[i], y[i]);
}

// y (columns, rows) = scale times the transpose of x (rows, columns), its rows times gain (rows) unless null, likewise.
inline void rounded_transpose(const float* x, long rows, long columns, float scale, const float* gain, Number* y) {
    for (long column = 0; column < columns; ++column)
        for (long row = 0; row < rows; ++row) narrow(x[row * columns + column] * (gain ? scale * gain[row] : scale), y[column * rows + row]);
}
