// The engine's arithmetic for processors with matrix units (AMX), in bf16 with fp32 sums.
//
// Everything is built of one product: 32 rows times 32 columns, in four of the processor's eight tiles. A tile is 16
// rows of 64 bytes. On the left it holds 16 rows of 32 bf16 numbers; on the right 16 pairs of rows, 16 columns, the
// two numbers of a pair side by side; the sums are 16 by 16 in fp32.
//
//   rows    a matrix as it lies in memory, `stride` numbers from row to row: the left operand
//   panel   a matrix (depth, columns) laid out for the right: 32 columns after 32 columns, in each 32 rows of depth
//           after 32 rows, in each two tiles
//
// Depths and columns are multiples of 32; rows are any number. Threads are OpenMP's, the pool that torch uses.

#include "kernels.h"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

namespace {

constexpr long TILE = 16 * 32;          // bf16 numbers of a tile
constexpr long STEP = 2 * TILE;         // of a block of a panel: 32 of depth, 32 columns
constexpr long CACHED = 3 << 18;        // bytes of the left operand that stay in a core's second cache

// All eight tiles at full size. In memory of its own: GCC takes the instruction to read no more than an address of it,
// and leaves out what fills a local one.
struct alignas(64) Sizes {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
const Sizes sizes{};

// Tiles may be used for as long as this object lives.
struct Tiles {
    Tiles() { _tile_loadconfig(&sizes); }
    ~Tiles() {
        _tile_release();
        _mm_sfence();  // what was streamed is there for other threads
    }
};

// A thread's own memory, kept from call to call. `use` tells apart what is needed at one time.
template <class Number>
Number* scratch(int use, size_t numbers) {
    static thread_local std::vector<std::vector<char>> kept(16);
    if (kept[use].size() < numbers * sizeof(Number) + 64) kept[use].resize(numbers * sizeof(Number) + 64);
    auto address = (reinterpret_cast<uintptr_t>(kept[use].data()) + 63) / 64 * 64;
    return reinterpret_cast<Number*>(address);
}

// --- numbers --------------------------------------------------------------------------------------------------

inline __m512 wide(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
inline __m512 load(const bf16* x) { return wide(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))); }
inline __m256i narrow(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
inline void store(bf16* to, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(x)); }
inline void store(bf16* to, __m512 left, __m512 right) {
    _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(right, left)));
}
// The same past the caches, `to` at a whole line: a line that is written in full need not be read before, which on a
// processor with little bandwidth beyond its second cache is worth more than finding it in a cache later.
inline void stream(bf16* to, __m512 left, __m512 right) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(right, left)));
}
inline __mmask16 first(long count) { return count >= 16 ? 0xffff : (1u << std::max(count, 0L)) - 1; }

inline __m512 exponential(__m512 x) {
    // 2^n times a polynomial of the rest, |rest| <= ln 2 / 2 (Taylor to the sixth power: 1e-7). NaN stays NaN.
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 y = _mm512_set1_ps(1.0f / 720);
    for (float factor : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(factor));
    return _mm512_scalef_ps(y, n);
}

// The normal distribution function at x, and exp(-x^2 / 2) (Abramowitz and Stegun 7.1.26: error below 1.5e-7).
inline __m512 normal(__m512 x, __m512& bell) {
    const __m512 one = _mm512_set1_ps(1.0f), far = _mm512_abs_ps(x);
    bell = exponential(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f)));
    const __m512 below = _mm512_fmadd_ps(far, _mm512_set1_ps(0.3275911f * 0.70710678f), one);
    // 1 / below: the processor's 14 bits and a step of Newton's, in half the time of a division.
    __m512 t = _mm512_rcp14_ps(below);
    t = _mm512_mul_ps(t, _mm512_fnmadd_ps(below, t, _mm512_set1_ps(2.0f)));
    __m512 y = _mm512_set1_ps(1.061405429f);
    for (float factor : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(factor));
    const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(y, t), bell), _mm512_set1_ps(0.5f));
    return _mm512_mask_sub_ps(tail, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), one, tail);
}

// gelu and its slope.
inline __m512 gelu_of(__m512 x, __m512& slope) {
    __m512 bell;
    const __m512 share = normal(x, bell);
    slope = _mm512_fmadd_ps(_mm512_mul_ps(x, bell), _mm512_set1_ps(0.39894228f), share);
    return _mm512_mul_ps(x, share);
}

// --- dropout --------------------------------------------------------------------------------------------------

struct MaskRow {
    __m512i row, limit;
    __m512 scale;
    const int32_t* columns;
    MaskRow(const Mask& mask, long row_number)
        : row(_mm512_set1_epi32(mask.rows ? mask.rows[row_number] : 0)),
          limit(_mm512_set1_epi32(mask.limit)),
          scale(_mm512_set1_ps(mask.scale)),
          columns(mask.rows ? mask.columns : nullptr) {}
    inline __m512 operator()(__m512 x, long column) const {
        if (!columns) return x;
        const __m512i hash = _mm512_mullo_epi32(row, _mm512_loadu_si512(columns + column));
        return _mm512_maskz_mul_ps(_mm512_cmplt_epi32_mask(hash, limit), x, scale);
    }
};

// --- operands -------------------------------------------------------------------------------------------------

// The dwords of a 16 x 16 square, transposed. Pairs of bf16 numbers stay together.
inline void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// Two rows, 16 columns, pair by pair.
inline __m512i pairs(__m256i even, __m256i odd) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

// A panel of a matrix as it lies, (count, columns); its rows from `count` on are zero.
void panel_of(const bf16* x, long stride, long count, long columns, bf16* panel) {
    const long depth = blocks(count);
    const __m256i zero = _mm256_setzero_si256();
    for (long row = 0; row < depth * BLOCK; row += 2) {
        const bf16* even = x + row * stride;
        for (long column = 0; column < columns; column += 16) {
            const __m256i a = row < count ? _mm256_loadu_si256((const __m256i*)(even + column)) : zero;
            const __m256i b = row + 1 < count ? _mm256_loadu_si256((const __m256i*)(even + stride + column)) : zero;
            bf16* to = panel + ((column / BLOCK) * depth + row / BLOCK) * STEP + (column / 16 % 2) * TILE + (row % BLOCK) * 16;
            _mm512_store_si512(to, pairs(a, b));
        }
    }
}

// A panel of the transpose of a matrix as it lies, (count, width); columns of the panel from `count` on are zero.
void panel_of_transpose(const bf16* x, long stride, long count, long width, bf16* panel) {
    const long depth = width / BLOCK;
    for (long row = 0; row < blocks(count) * BLOCK; row += 16)
        for (long step = 0; step < depth; ++step) {
            __m512i square[16];
            for (long i = 0; i < 16; ++i)
                square[i] = row + i < count ? _mm512_loadu_si512(x + (row + i) * stride + step * BLOCK) : _mm512_setzero_si512();
            transpose(square);
            bf16* to = panel + ((row / BLOCK) * depth + step) * STEP + (row / 16 % 2) * TILE;
            for (long i = 0; i < 16; ++i) _mm512_store_si512(to + i * BLOCK, square[i]);
        }
}

// The transpose of (rows, columns), rows in blocks, as rows again. Shape of `to`: (columns, rows)
void transpose_rows(const bf16* x, long rows, long columns, bf16* to) {
    for (long row = 0; row < rows; row += BLOCK)
        for (long column = 0; column < columns; column += 16) {
            __m512i square[16];
            for (long i = 0; i < 16; ++i) {
                const bf16* even = x + (row + 2 * i) * columns + column;
                square[i] = pairs(_mm256_load_si256((const __m256i*)even), _mm256_load_si256((const __m256i*)(even + columns)));
            }
            transpose(square);
            for (long i = 0; i < 16; ++i) _mm512_store_si512(to + (column + i) * rows + row, square[i]);
        }
}

// Rows copied, zero from `count` on up to a whole block.
void padded_rows(const bf16* x, long stride, long count, long width, bf16* to) {
    for (long row = 0; row < count; ++row) std::memcpy(to + row * width, x + row * stride, width * sizeof(bf16));
    std::memset(to + count * width, 0, (blocks(count) * BLOCK - count) * width * sizeof(bf16));
}

// The columns that are this thread's, in whole blocks: threads share columns, so that each reads its part of a weight
// once, and sums over rows are made in one order whatever the number of threads.
struct Columns {
    long from, to;
    explicit Columns(long columns) {
        const long all = columns / BLOCK, thread = omp_get_thread_num(), threads = omp_get_num_threads();
        from = all * thread / threads * BLOCK;
        to = all * (thread + 1) / threads * BLOCK;
    }
};

// --- the product ----------------------------------------------------------------------------------------------

inline void zero_tiles() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// Tiles 0 to 3 += 32 rows times 32 columns of a panel, `steps` blocks deep.
inline void add_product(const bf16* rows, long stride, const bf16* panel, long steps) {
    const long bytes = stride * sizeof(bf16);
    for (long step = 0; step < steps; ++step) {
        _tile_loadd(4, rows, bytes);
        _tile_loadd(6, panel, 64);
        _tile_loadd(7, panel + TILE, 64);
        _tile_loadd(5, rows + 16 * stride, bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        rows += BLOCK;
        panel += STEP;
    }
}

inline void load_tiles(const float* from, long stride) {
    const long bytes = stride * sizeof(float);
    _tile_loadd(0, from, bytes);
    _tile_loadd(1, from + 16, bytes);
    _tile_loadd(2, from + 16 * stride, bytes);
    _tile_loadd(3, from + 16 * stride + 16, bytes);
}

inline void store_tiles(float* to, long stride) {
    const long bytes = stride * sizeof(float);
    _tile_stored(0, to, bytes);
    _tile_stored(1, to + 16, bytes);
    _tile_stored(2, to + 16 * stride, bytes);
    _tile_stored(3, to + 16 * stride + 16, bytes);
}

// (rows in blocks, columns) = rows times a panel, fp32.
void product(const bf16* rows, long stride, long row_blocks, const bf16* panel, long depth, long columns, float* to) {
    for (long column = 0; column < columns; column += BLOCK)
        for (long block = 0; block < row_blocks; ++block) {
            zero_tiles();
            add_product(rows + block * BLOCK * stride, stride, panel + column * depth, depth / BLOCK);
            store_tiles(to + block * BLOCK * columns + column, columns);
        }
}

// A product in full: what it is of and where it goes. Either y, or activated and slope, which may be null as `finish` may.
struct Product {
    const bf16* x;
    long stride, count, depth;
    const bf16* panel;
    long columns;
    const float* bias;
    const Term* terms;
    long term_count;
    const Finish* finish;
    bf16 *y, *activated, *slope;
};

// The last rows of a matrix where they do not fill a block, padded to one; null where they do.
const bf16* tail_of(const bf16* x, long stride, long count, long width, int use) {
    const long whole = count / BLOCK * BLOCK;
    if (whole == count) return nullptr;
    bf16* tail = scratch<bf16>(use, BLOCK * width);
    padded_rows(x + whole * stride, stride, count - whole, width, tail);
    return tail;
}

// The sums of a block, which tiles 0 to 3 hold, with the terms that reach its columns. Shape of `sums`: (32, 32)
void add_terms(const Product& p, const std::vector<const bf16*>& tails, long row, long column, float* sums) {
    alignas(64) float extra[BLOCK * BLOCK];
    const long here = std::min(BLOCK, p.count - row);
    auto add = [&](const Term& term, const bf16* tail) {
        const bf16* low = here < BLOCK ? tail : term.low + row * term.depth;
        add_product(low, term.depth, term.panel + (column - term.from) * term.depth, term.depth / BLOCK);
    };
    auto reaches = [&](const Term& term) { return column >= term.from && column < term.to; };
    for (long t = 0; t < p.term_count; ++t)
        if (reaches(p.terms[t]) && !p.terms[t].mask.rows) add(p.terms[t], tails[t]);
    store_tiles(sums, BLOCK);
    for (long t = 0; t < p.term_count; ++t) {
        const Term& term = p.terms[t];
        if (!reaches(term) || !term.mask.rows) continue;
        zero_tiles();
        add(term, tails[t]);
        store_tiles(extra, BLOCK);
        for (long i = 0; i < here; ++i) {
            const MaskRow mask(term.mask, row + i);
            for (long j = 0; j < BLOCK; j += 16) {
                float* sum = sums + i * BLOCK + j;
                const __m512 kept = mask(_mm512_load_ps(extra + i * BLOCK + j), column - term.from + j);
                _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), kept));
            }
        }
    }
}

// 16 sums finished. `place` is their first one's in the result, which is in column `column` of the mask's row.
inline __m512 finished(__m512 x, const Finish& finish, const MaskRow& mask, long place, long column) {
    if (finish.scaled) x = _mm512_fmadd_ps(load(finish.scaled + place), _mm512_loadu_ps(finish.gain + column), x);
    if (finish.total) x = _mm512_add_ps(load(finish.total + place), mask(x, column));
    return finish.times ? _mm512_mul_ps(x, load(finish.times + place)) : x;
}

// A block's sums with the bias, finished; or gelu of them and its slope; as bf16 where they belong.
void write_block(const Product& p, long row, long column, const float* sums) {
    const __m512 b0 = p.bias ? _mm512_loadu_ps(p.bias + column) : _mm512_setzero_ps();
    const __m512 b1 = p.bias ? _mm512_loadu_ps(p.bias + column + 16) : _mm512_setzero_ps();
    for (long i = 0; i < std::min(BLOCK, p.count - row); ++i) {
        const long place = (row + i) * p.columns + column;
        __m512 left = _mm512_add_ps(_mm512_load_ps(sums + i * BLOCK), b0);
        __m512 right = _mm512_add_ps(_mm512_load_ps(sums + i * BLOCK + 16), b1);
        if (p.activated) {
            __m512 left_slope, right_slope;
            left = gelu_of(left, left_slope);
            right = gelu_of(right, right_slope);
            stream(p.activated + place, left, right);
            if (p.slope) stream(p.slope + place, left_slope, right_slope);
            continue;
        }
        if (p.finish) {
            const MaskRow mask(p.finish->mask, row + i);
            left = finished(left, *p.finish, mask, place, column);
            right = finished(right, *p.finish, mask, place + 16, column + 16);
        }
        stream(p.y + place, left, right);
    }
}

// The work of a team of threads: parts of the columns go to whoever is free, so that one that the system holds up does
// not hold up the others. Each part reads its weights once; no sum depends on who makes it.
void multiply(const Product& p) {
    const bf16* tail = tail_of(p.x, p.stride, p.count, p.depth, 0);
    std::vector<const bf16*> tails(p.term_count);
    for (long t = 0; t < p.term_count; ++t)
        tails[t] = tail_of(p.terms[t].low, p.terms[t].depth, p.count, p.terms[t].depth, 1 + t);
    // A part has as many columns of the panel as stay in the core's second cache, against all rows; and of a block of rows
    // a piece that stays in its first cache, against all these columns, whose sums wait in `partial` for the next piece.
    const long steps = p.depth / BLOCK, piece = steps <= 16 ? steps : 8;
    const long all = p.columns / BLOCK, threads = omp_get_num_threads();
    const long most = std::max(1L, CACHED / (p.depth * (long)sizeof(bf16)) / BLOCK);
    const long parts = (all + most * threads - 1) / (most * threads) * threads;
    float* partial = scratch<float>(0, most * BLOCK * BLOCK);
    alignas(64) float sums[BLOCK * BLOCK];
#pragma omp for schedule(dynamic)
    for (long part = 0; part < parts; ++part) {
        const long from = all * part / parts * BLOCK, to = all * (part + 1) / parts * BLOCK;
        for (long row = 0; row < p.count; row += BLOCK)
            for (long step = 0; step < steps; step += piece)
                for (long column = from; column < to; column += BLOCK) {
                    const bool padded = p.count - row < BLOCK;
                    const bf16* rows = (padded ? tail : p.x + row * p.stride) + step * BLOCK;
                    float* waiting = partial + (column - from) * BLOCK;
                    if (step)
                        load_tiles(waiting, BLOCK);
                    else
                        zero_tiles();
                    add_product(rows, padded ? p.depth : p.stride, p.panel + column * p.depth + step * STEP,
                                std::min(piece, steps - step));
                    if (step + piece < steps) {
                        store_tiles(waiting, BLOCK);
                        continue;
                    }
                    add_terms(p, tails, row, column, sums);
                    write_block(p, row, column, sums);
                }
    }
}

}  // namespace

extern "C" {

// Ask the system for the tiles. Returns: 0 when they may be used.
int start() { return (int)syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */); }

// Panels of a small matrix (count, columns) as it lies, and of its transpose.
void rows_panel(const bf16* x, long count, long columns, bf16* panel) { panel_of(x, columns, count, columns, panel); }
void transposed_panel(const bf16* x, long count, long columns, bf16* panel) {
    panel_of_transpose(x, columns, count, columns, panel);
}

// With sums = x (count, depth) panel + bias (columns) + terms: y (count, columns), the sums finished; or, if y is null,
// activated = gelu(sums) and slope = gelu'(sums).
void linear(const bf16* x, long stride, long count, long depth, const bf16* panel, long columns, const float* bias,
            const Term* terms, long term_count, const Finish* finish, bf16* y, bf16* activated, bf16* slope) {
    const Product p{x, stride, count, depth, panel, columns, bias, terms, term_count, finish, y, activated, slope};
#pragma omp parallel
    {
        Tiles tiles;
        multiply(p);
    }
}

// low (count, columns) = dropout(x) (count, depth) panel, for few columns.
void down(const bf16* x, long stride, long count, long depth, Mask mask, const bf16* panel, long columns, bf16* low) {
#pragma omp parallel
    {
        Tiles tiles;
        bf16* rows = scratch<bf16>(0, BLOCK * depth);
        float* sums = scratch<float>(1, BLOCK * columns);
#pragma omp for schedule(dynamic)
        for (long row = 0; row < count; row += BLOCK) {
            const long here = std::min(BLOCK, count - row);
            const bool copied = mask.rows || here < BLOCK;
            if (copied) padded_rows(x + row * stride, stride, here, depth, rows);
            for (long i = 0; i < here && mask.rows; ++i) {
                const MaskRow masked(mask, row + i);
                for (long j = 0; j < depth; j += 16) store(rows + i * depth + j, masked(load(rows + i * depth + j), j));
            }
            product(copied ? rows : x + row * stride, copied ? depth : stride, 1, panel, depth, columns, sums);
            for (long i = 0; i < here; ++i)
                for (long j = 0; j < columns; j += 16) store(low + (row + i) * columns + j, _mm512_load_ps(sums + i * columns + j));
        }
    }
}

// out (rank, columns), fp32 = low^T (rank, count) dropout(x) (count, columns).
void outer(const bf16* low, long rank, const bf16* x, long stride, long count, long columns, Mask mask,
           float* out) {
    constexpr long CHUNK = 8 * BLOCK;  // rows at a time: read as they lie, and their panel stays in the second cache
    const long padded = blocks(count) * BLOCK;
    bf16* lows = scratch<bf16>(2, padded * rank);
    bf16* turned = scratch<bf16>(3, padded * rank);
    padded_rows(low, rank, count, rank, lows);
    transpose_rows(lows, padded, rank, turned);
#pragma omp parallel
    {
        Tiles tiles;
        const Columns mine(columns);
        const long width = mine.to - mine.from;
        bf16* dropped = scratch<bf16>(0, CHUNK * width);
        bf16* panel = scratch<bf16>(1, CHUNK * width);
        for (long start = 0; start < count; start += CHUNK) {
            const long here = std::min(CHUNK, count - start), depth = blocks(here) * BLOCK;
            const bf16* rows = x + start * stride + mine.from;
            for (long row = 0; row < here && mask.rows; ++row) {
                const MaskRow masked(mask, start + row);
                for (long j = 0; j < width; j += 16)
                    store(dropped + row * width + j, masked(load(rows + row * stride + j), mine.from + j));
            }
            panel_of(mask.rows ? dropped : rows, mask.rows ? width : stride, here, width, panel);
            for (long column = 0; column < width; column += BLOCK)
                for (long r = 0; r < rank; r += BLOCK) {
                    float* sums = out + r * columns + mine.from + column;
                    if (start)
                        load_tiles(sums, columns);
                    else
                        zero_tiles();
                    add_product(turned + r * padded + start, padded, panel + column * depth, depth / BLOCK);
                    store_tiles(sums, columns);
                }
        }
    }
}

}

// --- attention ------------------------------------------------------------------------------------------------

namespace {

// One text's head: its place in the group's memory.
struct Place {
    long length, queries, query_blocks, key_blocks, keys, token, query_row, row;  // row: of masks and statistics
    const float* bias;
};

Place place_of(const Heads& h, const std::vector<long>& starts, long pair) {
    const long text = pair / h.heads, head = pair % h.heads;
    Place p;
    p.length = h.lengths[text];
    p.queries = h.firsts_only ? 1 : p.length;
    p.query_blocks = blocks(p.queries);
    p.key_blocks = blocks(p.length);
    p.keys = p.key_blocks * BLOCK;
    p.token = starts[text];
    p.query_row = h.firsts_only ? text : p.token;
    p.row = pair * (h.firsts_only ? 1 : h.longest);
    p.bias = h.bias ? h.bias + text * h.bias_text + head * h.bias_head : nullptr;
    return p;
}

std::vector<long> starts_of(const Heads& h) {
    std::vector<long> starts(h.texts);
    for (long text = 1; text < h.texts; ++text) starts[text] = starts[text - 1] + h.lengths[text - 1];
    return starts;
}

// scale * scores + bias of one row, 16 keys at a time; the keys behind the text's end are -inf.
inline __m512 biased(const Heads& h, const Place& p, const float* scores, long query, long key) {
    __m512 s = _mm512_mul_ps(_mm512_load_ps(scores + key), _mm512_set1_ps(h.scale));
    const __mmask16 some = first(p.length - key);
    if (p.bias) s = _mm512_add_ps(s, _mm512_maskz_loadu_ps(some, p.bias + query * h.bias_query + key));
    return _mm512_mask_blend_ps(some, _mm512_set1_ps(-INFINITY), s);
}

// Rows of fp32 sums as bf16.
void write_rows(const float* sums, long count, long width, bf16* to, long stride) {
    for (long i = 0; i < count; ++i)
        for (long j = 0; j < width; j += 32)
            stream(to + i * stride + j, _mm512_load_ps(sums + i * width + j), _mm512_load_ps(sums + i * width + j + 16));
}

void attend(const Heads& h, const Place& p, long head, bf16* context, long context_stride, float* statistics) {
    const long w = h.width, offset = head * w;
    bf16* queries = scratch<bf16>(0, p.query_blocks * BLOCK * w);
    bf16* keys = scratch<bf16>(1, p.keys * w);
    bf16* values = scratch<bf16>(2, p.keys * w);
    float* scores = scratch<float>(3, BLOCK * p.keys);
    bf16* chances = scratch<bf16>(4, BLOCK * p.keys);
    float* sums = scratch<float>(5, BLOCK * w);
    padded_rows(h.query + p.query_row * h.query_stride + offset, h.query_stride, p.queries, w, queries);
    panel_of_transpose(h.key + p.token * h.key_stride + offset, h.key_stride, p.length, w, keys);
    panel_of(h.value + p.token * h.value_stride + offset, h.value_stride, p.length, w, values);
    for (long start = 0; start < p.queries; start += BLOCK) {
        product(queries + start * w, w, 1, keys, w, p.keys, scores);
        const long here = std::min(BLOCK, p.queries - start);
        for (long i = 0; i < here; ++i) {
            float* row = scores + i * p.keys;
            __m512 largest = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
            for (long key = 0; key < p.keys; key += 16) {
                const __m512 s = biased(h, p, row, start + i, key);
                _mm512_store_ps(row + key, s);
                largest = _mm512_max_ps(largest, s);
            }
            const float top = _mm512_reduce_max_ps(largest);
            for (long key = 0; key < p.keys; key += 16) {
                const __m512 e = exponential(_mm512_sub_ps(_mm512_load_ps(row + key), _mm512_set1_ps(top)));
                const __m512 kept = _mm512_maskz_mov_ps(first(p.length - key), e);
                _mm512_store_ps(row + key, kept);
                total = _mm512_add_ps(total, kept);
            }
            const float sum = _mm512_reduce_add_ps(total);
            if (statistics) statistics[p.row + start + i] = top + std::log(sum);
            const __m512 share = _mm512_set1_ps(1.0f / sum);
            const MaskRow mask(h.mask, p.row + start + i);
            for (long key = 0; key < p.keys; key += 16)
                store(chances + i * p.keys + key, mask(_mm512_mul_ps(_mm512_load_ps(row + key), share), key));
        }
        std::memset(chances + here * p.keys, 0, (BLOCK - here) * p.keys * sizeof(bf16));
        product(chances, p.keys, 1, values, p.keys, w, sums);
        write_rows(sums, here, w, context + (p.query_row + start) * context_stride + offset, context_stride);
    }
}

// The probabilities are computed again from the row's logarithm of summed exponentials.
void attend_backward(const Heads& h, const Place& p, long head, const bf16* grad, long grad_stride, const float* statistics,
                     bf16* grad_query, bf16* grad_key, bf16* grad_value) {
    const long w = h.width, offset = head * w, rows = p.query_blocks * BLOCK;
    bf16* queries = scratch<bf16>(0, rows * w);
    bf16* keys = scratch<bf16>(1, p.keys * w);
    bf16* values = scratch<bf16>(2, p.keys * w);
    bf16* above = scratch<bf16>(3, rows * w);
    float* scores = scratch<float>(4, BLOCK * p.keys);
    float* through = scratch<float>(5, BLOCK * p.keys);
    bf16* dropped = scratch<bf16>(6, rows * p.keys);
    bf16* slopes = scratch<bf16>(7, rows * p.keys);
    bf16* turned = scratch<bf16>(8, rows * p.keys);
    bf16* panel = scratch<bf16>(9, std::max(rows, p.keys) * w);
    float* sums = scratch<float>(10, std::max(rows, p.keys) * w);
    const bf16* query = h.query + p.query_row * h.query_stride + offset;
    const bf16* key_rows = h.key + p.token * h.key_stride + offset;
    const bf16* grads = grad + p.query_row * grad_stride + offset;
    padded_rows(query, h.query_stride, p.queries, w, queries);
    padded_rows(grads, grad_stride, p.queries, w, above);
    panel_of_transpose(key_rows, h.key_stride, p.length, w, keys);
    panel_of_transpose(h.value + p.token * h.value_stride + offset, h.value_stride, p.length, w, values);
    for (long start = 0; start < p.queries; start += BLOCK) {
        product(queries + start * w, w, 1, keys, w, p.keys, scores);
        product(above + start * w, w, 1, values, w, p.keys, through);
        const long here = std::min(BLOCK, p.queries - start);
        for (long i = 0; i < here; ++i) {
            float *row = scores + i * p.keys, *slope = through + i * p.keys;
            const long place = (start + i) * p.keys;
            const __m512 norm = _mm512_set1_ps(statistics[p.row + start + i]);
            const MaskRow mask(h.mask, p.row + start + i);
            __m512 total = _mm512_setzero_ps();
            for (long key = 0; key < p.keys; key += 16) {
                const __m512 chance = _mm512_maskz_mov_ps(
                    first(p.length - key), exponential(_mm512_sub_ps(biased(h, p, row, start + i, key), norm)));
                store(dropped + place + key, mask(chance, key));
                const __m512 s = mask(_mm512_load_ps(slope + key), key);
                _mm512_store_ps(row + key, chance);
                _mm512_store_ps(slope + key, s);
                total = _mm512_fmadd_ps(chance, s, total);
            }
            const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total)), scale = _mm512_set1_ps(h.scale);
            for (long key = 0; key < p.keys; key += 16) {
                const __m512 below = _mm512_mul_ps(_mm512_load_ps(row + key), _mm512_sub_ps(_mm512_load_ps(slope + key), mean));
                store(slopes + place + key, _mm512_mul_ps(below, scale));
            }
        }
    }
    std::memset(dropped + p.queries * p.keys, 0, (rows - p.queries) * p.keys * sizeof(bf16));
    std::memset(slopes + p.queries * p.keys, 0, (rows - p.queries) * p.keys * sizeof(bf16));

    panel_of(key_rows, h.key_stride, p.length, w, panel);
    product(slopes, p.keys, p.query_blocks, panel, p.keys, w, sums);
    write_rows(sums, p.queries, w, grad_query + p.query_row * h.query_stride + offset, h.query_stride);

    panel_of(queries, w, rows, w, panel);
    transpose_rows(slopes, rows, p.keys, turned);
    product(turned, rows, p.key_blocks, panel, rows, w, sums);
    write_rows(sums, p.length, w, grad_key + p.token * h.key_stride + offset, h.key_stride);

    panel_of(above, w, rows, w, panel);
    transpose_rows(dropped, rows, p.keys, turned);
    product(turned, rows, p.key_blocks, panel, rows, w, sums);
    write_rows(sums, p.length, w, grad_value + p.token * h.value_stride + offset, h.value_stride);
}

// `body(place, head)` for every text and head of a group, shared out among the threads.
template <class Body>
void for_every_head(const Heads& h, Body body) {
    const auto starts = starts_of(h);
#pragma omp parallel
    {
        Tiles tiles;
#pragma omp for schedule(dynamic)
        for (long pair = 0; pair < h.texts * h.heads; ++pair) body(place_of(h, starts, pair), pair % h.heads);
    }
}

}  // namespace

extern "C" {

// context of a group's texts; statistics (text, head, query up to longest) are kept for the backward pass, or null.
void attention(const Heads* group, bf16* context, long context_stride, float* statistics) {
    for_every_head(*group, [=](const Place& place, long head) {
        attend(*group, place, head, context, context_stride, statistics);
    });
}

// Gradients of query, key and value, which lie as these do.
void attention_backward(const Heads* group, const bf16* grad, long grad_stride, const float* statistics, bf16* grad_query,
                        bf16* grad_key, bf16* grad_value) {
    for_every_head(*group, [=](const Place& place, long head) {
        attend_backward(*group, place, head, grad, grad_stride, statistics, grad_query, grad_key, grad_value);
    });
}

// --- elementwise ----------------------------------------------------------------------------------------------

}  // extern "C"

namespace {

// Mean of a row, and one over its deviation.
struct Moments {
    float mean, inverse;
    Moments(const float* row, long columns, float epsilon) {
        __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
        for (long j = 0; j < columns; j += 16) sum = _mm512_add_ps(sum, _mm512_load_ps(row + j));
        mean = _mm512_reduce_add_ps(sum) / columns;
        for (long j = 0; j < columns; j += 16) {
            const __m512 apart = _mm512_sub_ps(_mm512_load_ps(row + j), _mm512_set1_ps(mean));
            squares = _mm512_fmadd_ps(apart, apart, squares);
        }
        inverse = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / columns + epsilon);
    }
};

// out, low = dropout(unit weight + bias) of a row; unit, which may be null: the row with its mean taken off, over its
// deviation.
inline void write_norm(const float* row, const Moments& moments, const float* weight, const float* bias, const MaskRow& mask,
                       long columns, float* out, bf16* low, bf16* unit) {
    const __m512 mean = _mm512_set1_ps(moments.mean), inverse = _mm512_set1_ps(moments.inverse);
    for (long j = 0; j < columns; j += BLOCK) {
        __m512 one[2], scaled[2];
        for (int half = 0; half < 2; ++half) {
            const long column = j + 16 * half;
            one[half] = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + column), mean), inverse);
            scaled[half] = _mm512_fmadd_ps(one[half], _mm512_loadu_ps(weight + column), _mm512_loadu_ps(bias + column));
            scaled[half] = mask(scaled[half], column);
            _mm512_stream_ps(out + column, scaled[half]);
        }
        if (unit) stream(unit + j, one[0], one[1]);
        stream(low + j, scaled[0], scaled[1]);
    }
}

}  // namespace

extern "C" {

// y = gelu(x), and its slope, which may be null.
void gelu(const bf16* x, long count, bf16* y, bf16* slope) {
#pragma omp parallel for
    for (long i = 0; i < count; i += 16) {
        __m512 along;
        store(y + i, gelu_of(load(x + i), along));
        if (slope) store(slope + i, along);
    }
}

// out, low = dropout(LayerNorm(words[ids] + positions[places])).
void embedded(const float* words, const float* positions, const int64_t* ids, const int64_t* places, Mask mask,
              const float* weight, const float* bias, float epsilon, long rows, long columns, float* out, bf16* low) {
#pragma omp parallel
    {
        float* total = scratch<float>(0, columns);
#pragma omp for schedule(dynamic, BLOCK)
        for (long row = 0; row < rows; ++row) {
            const MaskRow masked(mask, row);
            const float *word = words + ids[row] * columns, *position = positions + places[row] * columns;
            for (long j = 0; j < columns; j += 16)
                _mm512_store_ps(total + j, _mm512_add_ps(_mm512_loadu_ps(word + j), _mm512_loadu_ps(position + j)));
            const long start = row * columns;
            write_norm(total, Moments(total, columns, epsilon), weight, bias, masked, columns, out + start, low + start, nullptr);
        }
        _mm_sfence();
    }
}

// out, low = LayerNorm(residual + dropout(update)); kept for the backward pass: unit, the sum with its mean taken off and
// divided by its deviation, and one over that deviation.
void add_norm(const bf16* update, const float* residual, Mask mask, const float* weight, const float* bias, float epsilon,
              long rows, long columns, float* out, bf16* low, bf16* unit, float* inverse) {
#pragma omp parallel
    {
        float* total = scratch<float>(0, columns);
        const MaskRow nothing(Mask{}, 0);
#pragma omp for schedule(dynamic, BLOCK)
        for (long row = 0; row < rows; ++row) {
            const MaskRow masked(mask, row);
            const long start = row * columns;
            for (long j = 0; j < columns; j += 16)
                _mm512_store_ps(total + j, _mm512_add_ps(_mm512_loadu_ps(residual + start + j), masked(load(update + start + j), j)));
            const Moments moments(total, columns, epsilon);
            inverse[row] = moments.inverse;
            write_norm(total, moments, weight, bias, nothing, columns, out + start, low + start, unit + start);
        }
        _mm_sfence();
    }
}

// From the gradients of out and low, either of which may be null, those of update and residual, and (unless null) their
// sum, `above`.
void add_norm_backward(const float* grad, const bf16* grad_low, const bf16* unit, const float* inverse, Mask mask,
                       const float* weight, long rows, long columns, bf16* update, float* residual, float* above) {
#pragma omp parallel
    {
        float* weighted = scratch<float>(0, columns);
#pragma omp for schedule(dynamic, BLOCK)
        for (long row = 0; row < rows; ++row) {
            const MaskRow masked(mask, row);
            const long start = row * columns;
            __m512 sum = _mm512_setzero_ps(), along = _mm512_setzero_ps();
            for (long j = 0; j < columns; j += 16) {
                __m512 g = grad ? _mm512_loadu_ps(grad + start + j) : _mm512_setzero_ps();
                if (grad_low) g = _mm512_add_ps(g, load(grad_low + start + j));
                if (above) _mm512_stream_ps(above + start + j, g);
                g = _mm512_mul_ps(g, _mm512_loadu_ps(weight + j));
                _mm512_store_ps(weighted + j, g);
                sum = _mm512_add_ps(sum, g);
                along = _mm512_fmadd_ps(g, load(unit + start + j), along);
            }
            const __m512 mean_sum = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / columns);
            const __m512 mean_along = _mm512_set1_ps(_mm512_reduce_add_ps(along) / columns);
            for (long j = 0; j < columns; j += BLOCK) {
                __m512 kept[2];
                for (int half = 0; half < 2; ++half) {
                    const long column = j + 16 * half;
                    __m512 g = _mm512_sub_ps(_mm512_load_ps(weighted + column), mean_sum);
                    g = _mm512_fnmadd_ps(load(unit + start + column), mean_along, g);
                    g = _mm512_mul_ps(g, _mm512_set1_ps(inverse[row]));
                    _mm512_stream_ps(residual + start + column, g);
                    kept[half] = masked(g, column);
                }
                stream(update + start + j, kept[0], kept[1]);
            }
        }
        _mm_sfence();
    }
}

// y = dropout(x) (rows, columns).
void dropped(const bf16* x, Mask mask, long rows, long columns, bf16* y) {
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, BLOCK)
        for (long row = 0; row < rows; ++row) {
            const MaskRow masked(mask, row);
            for (long place = row * columns, j = 0; j < columns; j += BLOCK)
                stream(y + place + j, masked(load(x + place + j), j), masked(load(x + place + j + 16), j + 16));
        }
        _mm_sfence();
    }
}

// beyond = grad (gain - 1), along (columns) = the sum over rows of grad z.
void gains_backward(const bf16* grad, const bf16* z, const float* gain, long rows, long columns, bf16* beyond, float* along) {
#pragma omp parallel
    {
        const Columns mine(columns);
        std::memset(along + mine.from, 0, (mine.to - mine.from) * sizeof(float));
        for (long row = 0; row < rows; ++row)
            for (long j = mine.from; j < mine.to; j += BLOCK) {
                __m512 rest[2];
                for (int half = 0; half < 2; ++half) {
                    const long column = j + 16 * half, place = row * columns + column;
                    const __m512 g = load(grad + place);
                    rest[half] = _mm512_fmsub_ps(g, _mm512_loadu_ps(gain + column), g);
                    _mm512_storeu_ps(along + column, _mm512_fmadd_ps(g, load(z + place), _mm512_loadu_ps(along + column)));
                }
                stream(beyond + row * columns + j, rest[0], rest[1]);
            }
        _mm_sfence();
    }
}

// y (rows, columns) = x times gain (columns), plus bias (columns), which may be null.
void scaled(const bf16* x, const float* gain, const float* bias, long rows, long columns, bf16* y) {
#pragma omp parallel for
    for (long row = 0; row < rows; ++row)
        for (long j = 0; j < columns; j += 16) {
            const __m512 b = bias ? _mm512_loadu_ps(bias + j) : _mm512_setzero_ps();
            store(y + row * columns + j, _mm512_fmadd_ps(load(x + row * columns + j), _mm512_loadu_ps(gain + j), b));
        }
}
}

namespace {

inline __m512 load(const float* x) { return _mm512_loadu_ps(x); }

// Each thread sums columns of its own, so that the sums are made in one order whatever the number of threads.
template <class Number>
void sum_columns(const Number* x, long stride, long rows, long columns, float* sums) {
#pragma omp parallel
    {
        const Columns mine(columns);
        std::memset(sums + mine.from, 0, (mine.to - mine.from) * sizeof(float));
        for (long row = 0; row < rows; ++row)
            for (long j = mine.from; j < mine.to; j += 16)
                _mm512_storeu_ps(sums + j, _mm512_add_ps(load(x + row * stride + j), _mm512_loadu_ps(sums + j)));
    }
}

}  // namespace

extern "C" {

void column_sums(const bf16* x, long stride, long rows, long columns, float* sums) { sum_columns(x, stride, rows, columns, sums); }
void column_sums_wide(const float* x, long rows, long columns, float* sums) { sum_columns(x, columns, rows, columns, sums); }

// y = x in bf16, for a count that is a multiple of 16.
void rounded(const float* x, long count, bf16* y) {
    for (long i = 0; i < count; i += 16) store(y + i, _mm512_loadu_ps(x + i));
}

// y (columns, rows), in bf16 = scale times the transpose of x (rows, columns), its columns times gain (rows) unless null;
// rows are a multiple of 16.
void rounded_transpose(const float* x, long rows, long columns, float scale, const float* gain, bf16* y) {
    const __m512i places = _mm512_mullo_epi32(_mm512_set1_epi32(columns), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    for (long row = 0; row < rows; row += 16) {
        __m512 factor = _mm512_set1_ps(scale);
        if (gain) factor = _mm512_mul_ps(factor, _mm512_loadu_ps(gain + row));
        for (long column = 0; column < columns; ++column)
            store(y + column * rows + row, _mm512_mul_ps(_mm512_i32gather_ps(places, x + row * columns + column, 4), factor));
    }
}
}
