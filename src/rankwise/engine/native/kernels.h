// What kernels.cpp computes, for layer.cpp: matrices are row by row in bf16 unless a type says otherwise. All but what lays
// out small matrices share their work out among OpenMP's threads.
#pragma once

#include <cstdint>

using bf16 = uint16_t;

constexpr long BLOCK = 32;  // rows, columns and depth of a block: widths are multiples of it
inline long blocks(long size) { return (size + BLOCK - 1) / BLOCK; }

extern "C" {

// dropout.py's mask: element (row, column) is kept where rows[row] * columns[column], 32 bits of it, is below limit.
struct Mask {
    const int32_t* rows;  // null: nothing is dropped
    const int32_t* columns;
    int32_t limit;
    float scale;
};

// A low-rank term of a product: (rows, depth) times a panel of the columns [from, to), dropped out or not.
struct Term {
    const bf16* low;
    const bf16* panel;
    long depth, from, to;
    Mask mask;
};

// What becomes of a product's sums as they are written; each may be null. Shape of all but gain (columns): the result's
struct Finish {
    const bf16* times;   // multiplied with
    const bf16* scaled;  // added, by columns times gain
    const float* gain;
    const bf16* total;   // added to the sums, which mask drops out
    Mask mask;
};

// The texts of a group, and where their queries, keys and values lie.
struct Heads {
    const bf16 *query, *key, *value;
    long query_stride, key_stride, value_stride;  // from token to token
    const int64_t* lengths;
    long texts, heads, width, longest;
    int firsts_only;       // one query a text
    const float* bias;     // null, or by text, head, query and key:
    long bias_text, bias_head, bias_query;
    float scale;
    Mask mask;             // rows: (text, head, query up to longest)
};

void rows_panel(const bf16* x, long count, long columns, bf16* panel);
void transposed_panel(const bf16* x, long count, long columns, bf16* panel);
void linear(const bf16* x, long stride, long count, long depth, const bf16* panel, long columns, const float* bias,
            const Term* terms, long term_count, const Finish* finish, bf16* y, bf16* activated, bf16* slope);
void down(const bf16* x, long stride, long count, long depth, Mask mask, const bf16* panel, long columns, bf16* low);
void outer(const bf16* low, long rank, const bf16* x, long stride, long count, long columns, Mask mask, float* out);
void attention(const Heads* group, bf16* context, long context_stride, float* statistics);
void attention_backward(const Heads* group, const bf16* grad, long grad_stride, const float* statistics, bf16* grad_query,
                        bf16* grad_key, bf16* grad_value);
void add_norm(const bf16* update, const float* residual, Mask mask, const float* weight, const float* bias, float epsilon,
              long rows, long columns, float* out, bf16* low, bf16* unit, float* inverse);
void add_norm_backward(const float* grad, const bf16* grad_low, const bf16* unit, const float* inverse, Mask mask,
                       const float* weight, long rows, long columns, bf16* update, float* residual, float* above);
void gelu(const bf16* x, long count, bf16* y, bf16* slope);
void dropped(const bf16* x, Mask mask, long rows, long columns, bf16* y);
void scaled(const bf16* x, const float* gain, const float* bias, long rows, long columns, bf16* y);
void gains_backward(const bf16* grad, const bf16* z, const float* gain, long rows, long columns, bf16* beyond, float* along);
void column_sums(const bf16* x, long stride, long rows, long columns, float* sums);
void column_sums_wide(const float* x, long rows, long columns, float* sums);
void rounded(const float* x, long count, bf16* y);
void rounded_transpose(const float* x, long rows, long columns, float scale, const float* gain, bf16* y);
}
