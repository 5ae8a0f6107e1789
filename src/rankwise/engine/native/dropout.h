// Dropout: dropout.py's mask, made anew wherever it is needed. Element (row, column) is kept where rows[row] *
// columns[column], 32 bits of it, is below limit.
#pragma once

#include "vector.h"

struct Mask {
    const int32_t* rows;  // null: nothing is dropped
    const int32_t* columns;
    int32_t limit;
    float scale;
};

// A row of it.
struct MaskRow {
    uint32_t row;
    int32_t limit;
    float scale;
    const int32_t* columns;
    MaskRow(const Mask& mask, long number)
        : row(mask.rows ? mask.rows[number] : 0), limit(mask.limit), scale(mask.scale), columns(mask.rows ? mask.columns : nullptr) {}
    // x of the columns from `column` on, dropped out.
    Vector operator()(Vector x, long column) const {
        if (!columns) return x;
        const Integers kept = as<Integers>(read<Bits>(columns + column) * row) < limit;
        return as<Vector>(as<Integers>(x * scale) & kept);
    }
};
