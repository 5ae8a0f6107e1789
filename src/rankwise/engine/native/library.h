// What Python calls (backend.py, layer.py): nothing of C++ passes but plain numbers and structures. No exception does either:
// every function that may fail returns a status.
#pragma once

#include "prenorm.h"
#include "several.h"
#ifdef EIGHT_BITS
#include "integers.h"
#endif

enum Status { DONE = 0, NO_MEMORY = 1, BAD_ID = 2, OTHER = 3 };

template <class Body>
int guarded(long threads, const Body& body) {
    allowed_threads = std::max(threads, 1L);
    try {
        body();
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    } catch (...) {
        return OTHER;
    }
}

#pragma GCC visibility push(default)
extern "C" {

// Ask the system for what the unit needs. Returns: 0 when it may be used.
int start() {
#ifdef __AMX_TILE__
    return (int)syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */);
#else
    return 0;
#endif
}

// Sizes of the structures and of a number, for Python to compare with its own.
void sizes(long* to) {
    for (const size_t size : {sizeof(Number), sizeof(Mask), sizeof(Matrix), sizeof(Site), sizeof(Sites), sizeof(Norm), sizeof(Layer),
                              sizeof(LayerPass), sizeof(Group), sizeof(Batch), sizeof(Change), sizeof(Member), sizeof(Owners)})
        *to++ = (long)size;
}

// A matrix as products read it, from its parts: how many bytes that takes; it; and the matrix again, (columns, depth), from it,
// as far as it is known there.
#ifdef EIGHT_BITS
long packed_size(long d_in, long d_out) { return EightBits(d_in, d_out, nullptr).bytes; }
void pack(const Matrix* matrix, Number* packed) { pack_eight_bits(*matrix, EightBits(matrix->d_in, matrix->d_out, packed)); }
void unpack(Number* packed, long depth, long columns, Number* matrix) {
    const EightBits from(depth, columns, packed);
    for (long column = 0; column < columns; ++column)
        for (long row = 0; row < depth; ++row)
            narrow(from.panels[0][EightBits::place_of(row, column, depth)] * from.scales[column], matrix[column * depth + row]);
}
#else
long packed_size(long d_in, long d_out) { return d_in * d_out * sizeof(Number); }
void pack(const Matrix* matrix, Number* panel) { lay_out(*matrix, false, 0, matrix->d_out, panel); }
void unpack(const Number* panel, long depth, long columns, Number* matrix) {
    for (long column = 0; column < columns; ++column)
        for (long row = 0; row < depth; ++row) matrix[column * depth + row] = panel[Sums::place_of(row, column, depth, columns)];
}
#endif

// y (count, columns) = x (count, depth) matrix^T, or matrix if `transposed`, + bias (null or columns).
int product_of(const Matrix* matrix, int transposed, const Number* x, long stride, long count, const float* bias, Number* y, long threads) {
    return guarded(threads, [&] {
        multiply(Product{x, stride, count, *matrix, transposed != 0, bias, nullptr, 0, nullptr, y, nullptr, nullptr});
    });
}

int gelu_of_all(const Number* x, long rows, long columns, Number* y, Number* slope, long threads) {
    return guarded(threads, [&] { gelu(x, rows, columns, y, slope); });
}

// See `embedded`; `words` and `places` rows there are to look up.
int embedding(const float* words, long word_count, const float* positions, long position_count, const int64_t* ids, const int64_t* places,
              const Mask* mask, const float* weight, const float* bias, float epsilon, long rows, long columns, float* out, Number* low,
              long threads) {
    for (long row = 0; row < rows; ++row)
        if (ids[row] < 0 || ids[row] >= word_count || places[row] < 0 || places[row] >= position_count) return BAD_ID;
    return guarded(threads, [&] {
        embedded(words, positions, ids, places, *mask, weight, bias, epsilon, rows, columns, out, low);
    });
}

// See `lay_out_change`, and the bytes of memory that it takes.
long change_size(const Sites* sites) {
    Change counted;
    return (long)place_change(*sites, counted, nullptr);
}
int lay_out_change_of(const Sites* sites, Change* to, char* memory, long threads) {
    return guarded(threads, [&] { lay_out_change(*sites, *to, memory); });
}

// The sizes of every layer of a pass.
int layer_sizes(LayerPass* layers, long count, const Batch* batch) {
    return guarded(1, [&] {
        for (LayerPass* p = layers; p < layers + count; ++p) {
            const Shape shape(p->layer, *batch);
            p->number_count = Masks(p->layer, *batch, shape, nullptr).used;
            p->size = Kept(p->layer, *batch, shape, nullptr).size;
        }
    });
}

// Layers of a pass in one call, since between two of them threads would fall asleep: from the first to the last, and back. See
// layer.h and prenorm.h, whose layers take and give none of the copies for products.
int forward_pass(const LayerPass* layers, long count, const Batch* batch, long threads) {
    return guarded(threads, [&] {
        for (const LayerPass* p = layers; p < layers + count; ++p) {
            const Call call(*p, *batch);
            p->layer.pre_norm ? pre_norm_forward(call, p->x, p->out) : layer_forward(call, p->x, p->low, p->out, p->out_low);
        }
    });
}

int backward_pass(const LayerPass* layers, long count, const Batch* batch, long threads) {
    return guarded(threads, [&] {
        for (const LayerPass* p = layers + count; p-- > layers;) {
            const Call call(*p, *batch);
            p->layer.pre_norm ? pre_norm_backward(call, p->grad, p->grad_x)
                              : layer_backward(call, p->low, p->grad, p->grad_low, p->grad_x, p->below);
        }
    });
}
}
#pragma GCC visibility pop
